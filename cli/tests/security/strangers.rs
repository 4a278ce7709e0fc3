//! Processes of another user, for which the test has to be root's.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::support::{PATIENCE, Process, Ran, World};

/// `nobody`, who owns nothing.
pub(crate) const NOBODY: u32 = 65_534;

/// Whether this test may act as others; if not, that is said.
pub(crate) fn may_act(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let required = std::env::var_os("CASTRA_ROOT").is_some_and(|value| value == "required");
        assert!(!required, "only root can act as another user");
        println!("NOT TESTED: {what}: only root can act as another user");
    }
    root
}

/// Another user with the program at hand.
pub(crate) struct Stranger {
    bin: PathBuf,
}

impl Stranger {
    /// The world becomes one in which everybody can find their way.
    pub(crate) fn of(world: &World) -> Self {
        fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o711)).unwrap();
        let bin = world.path("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).unwrap();
        let itself = std::env::current_exe().unwrap();
        for (name, from) in
            [("castra", Path::new(env!("CARGO_BIN_EXE_castra"))), ("security", itself.as_path())]
        {
            let to = bin.join(name);
            if !to.exists() && fs::hard_link(from, &to).is_err() {
                fs::copy(from, &to).unwrap();
            }
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { bin }
    }

    /// The program as that user, in the same surroundings.
    pub(crate) fn command(&self, world: &World, args: &[&str]) -> Command {
        self.program(world, "castra", args)
    }

    fn program(&self, world: &World, name: &str, args: &[&str]) -> Command {
        let model = world.command(&[]);
        let mut command = Command::new(self.bin.join(name));
        for (name, value) in model.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(args).uid(NOBODY).gid(NOBODY).current_dir("/");
        command
    }

    /// Runs the program to its end as that user.
    pub(crate) fn castra(&self, world: &World, args: &[&str]) -> Ran {
        Process::spawn(self.command(world, args)).finish(PATIENCE * 2)
    }

    /// What that user gets when it connects to each of these sockets and asks for everything.
    pub(crate) fn knock(&self, world: &World, sockets: &[PathBuf]) -> Vec<String> {
        let mut command = self.program(world, "security", &["--exact", "strangers::knocks", "--nocapture"]);
        command.env("CASTRA_TEST_KNOCK", std::env::join_paths(sockets).unwrap());
        let ran = Process::spawn(command).finish(PATIENCE * 4);
        assert_eq!(ran.code, 0, "{ran:?}");
        let answers: Vec<String> = ran
            .out
            .lines()
            .filter_map(|line| line.split_once("KNOCK "))
            .map(|(_, said)| said.to_owned())
            .collect();
        assert_eq!(answers.len(), sockets.len(), "{ran:?}");
        answers
    }
}

/// In the process of the other user alone; otherwise it has nothing to do.
#[test]
fn knocks() {
    let Some(sockets) = std::env::var_os("CASTRA_TEST_KNOCK") else { return };
    for socket in std::env::split_paths(&sockets) {
        println!("\nKNOCK {}", knock(&socket).escape_debug());
    }
}

fn knock(path: &Path) -> String {
    let kind = if path.extension().is_some_and(|end| end == "holder") {
        SocketType::SEQPACKET
    } else {
        SocketType::STREAM
    };
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    if let Err(error) = connect(&socket, &SocketAddrUnix::new(path).unwrap()) {
        return format!("no way in: {}", std::io::Error::from(error).kind());
    }
    let mut stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be closed before this is read.
    let _ = stream.write_all(b"{\"id\":1,\"method\":\"shutdown\"}\n{\"id\":2,\"method\":\"token_issue\",\"params\":{\"guest\":\"devbox\"}}\n");
    let mut said = Vec::new();
    let end = stream.read_to_end(&mut said);
    assert!(
        end.is_ok() || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
        "{}: it was not closed",
        path.display()
    );
    format!("closed after: {}", String::from_utf8_lossy(&said))
}
