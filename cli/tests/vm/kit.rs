//! What a machine is made of, if it is there: `.ci/vm` brings it into `target/vm`.

use std::fs;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use crate::initramfs::Archive;
use crate::support::files_below;

const HELP: &str = "`.ci/vm` gets what is missing and runs these tests";

/// The parts of a machine.
pub(crate) struct Kit {
    folder: PathBuf,
    /// QEMU's version, as in 7.2.
    pub(crate) qemu: (u32, u32),
}

impl Kit {
    /// `None`: something is missing, and nothing says that it must not.
    pub(crate) fn find() -> Option<Self> {
        match Self::look() {
            Ok(kit) => Some(kit),
            Err(why) => {
                let required = std::env::var_os("CASTRA_VM").is_some_and(|value| value == "required");
                assert!(!required, "no virtual machine: {why}; {HELP}");
                // Not by println: the harness would keep that to itself.
                let said = writeln!(stderr(), "NOT TESTED: no virtual machine was booted, for {why}; {HELP}");
                said.unwrap();
                None
            }
        }
    }

    fn look() -> Result<Self, String> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let folder = workspace.join("target/vm");
        for part in ["kernel", "modules", "busybox", "castra"] {
            if !folder.join(part).exists() {
                return Err(format!("there is no target/vm/{part}"));
            }
        }
        let agent = modified(&folder.join("castra"));
        let mut sources = vec![workspace.join("Cargo.lock"), workspace.join("Cargo.toml")];
        for package in ["core", "driver", "cli"] {
            sources.extend(files_below(&workspace.join(package).join("src")));
        }
        if let Some(newer) = sources.iter().find(|source| modified(source) > agent) {
            return Err(format!("the agent in target/vm is older than {}", newer.display()));
        }
        let said = Command::new("qemu-system-x86_64").arg("--version").output();
        let said = said.map_err(|error| format!("qemu-system-x86_64 can't be run: {error}"))?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let qemu = version(&said).ok_or_else(|| format!("QEMU says of its version: {said}"))?;
        Ok(Self { folder, qemu })
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.folder.join("kernel")
    }

    /// An initramfs with all parts, in which `script` follows what every guest begins with.
    pub(crate) fn initramfs(&self, script: &str) -> Vec<u8> {
        let mut archive = Archive::new();
        for folder in ["bin", "dev", "dev/virtio-ports", "modules", "proc", "run", "sys", "tmp"] {
            archive.folder(folder);
        }
        let init = format!("{}\n{script}\nexec sleep 1000000\n", include_str!("init.sh"));
        archive.file("init", 0o755, init.as_bytes());
        archive.file("bin/busybox", 0o755, &fs::read(self.folder.join("busybox")).unwrap());
        archive.file("bin/castra", 0o755, &fs::read(self.folder.join("castra")).unwrap());
        for module in files_below(&self.folder.join("modules")) {
            let name = module.file_name().unwrap().to_str().unwrap();
            archive.file(&format!("modules/{name}"), 0o644, &fs::read(&module).unwrap());
        }
        archive.finish()
    }
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// From `QEMU emulator version 7.2.22 (Debian …)`.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split("version ").nth(1)?.split(['.', ' ', '(']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
