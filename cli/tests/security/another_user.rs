//! Another user of the host, or of the guest, can do nothing at all.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::strangers::{Stranger, may_act};
use crate::support::{PATIENCE, Process, World, files_below, until};

/// Everything that a broker and an agent with terminals offer.
struct Site {
    world: World,
    broker: Process,
    agent: Process,
}

impl Site {
    /// Under a umask that closes nothing.
    fn new() -> Self {
        let world = World::new();
        let open = |args: &[&str]| {
            let model = world.command(args);
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "umask 0; exec \"$0\" \"$@\""]).arg(model.get_program()).args(args);
            for (name, value) in model.get_envs() {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
            Process::spawn(command)
        };
        // Where terminals in the guest begin.
        fs::create_dir(world.path("home")).unwrap();
        let link = world.path("state/link.sock");
        let listen = format!("unix:{}", link.display());
        let broker =
            open(&["broker", "--json", "--terminals", "--terminals-on-stop", "end", "--listen", &listen]);
        assert!(broker.out.first(PATIENCE).contains("\"ready\":true"));
        let token = world.path("state/devbox.token");
        let issued = world.castra(&["token", "issue", "devbox", "--out", token.to_str().unwrap()]);
        assert_eq!(issued.code, 0, "{issued:?}");
        let socket = world.path("guest/agent.sock");
        let agent = open(&[
            "agent",
            "--name",
            "devbox",
            "--connect",
            &listen,
            "--terminals",
            "--terminals-on-stop",
            "end",
            "--socket",
            socket.to_str().unwrap(),
            "--token-file",
            token.to_str().unwrap(),
            "--inbox",
            world.path("guest/inbox").to_str().unwrap(),
        ]);
        world.wait(&["devbox"], "reachable");
        for name in ["main", "devbox/main"] {
            let begun = world.castra(&["term", "new", name, "--", "sleep", "600"]);
            assert_eq!(begun.code, 0, "{begun:?}");
        }
        Self { world, broker, agent }
    }

    /// Every socket that there is.
    fn sockets(&self) -> Vec<PathBuf> {
        let mut sockets: Vec<PathBuf> = ["state", "guest"]
            .iter()
            .flat_map(|place| all_below(&self.world.path(place)))
            .filter(|path| fs::symlink_metadata(path).unwrap().file_type().is_socket())
            .collect();
        sockets.sort();
        sockets
    }

    fn end(self) {
        let Self { world, mut broker, mut agent } = self;
        for process in [&mut agent, &mut broker] {
            process.signal(Signal::TERM);
            assert!(process.exit(PATIENCE).success());
        }
        let ended = until(PATIENCE, || world.processes().is_empty());
        assert!(ended, "{:?}", world.processes());
    }
}

/// Directories, sockets and files.
fn all_below(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(all_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn every_file_and_socket_is_its_owners_alone_whatever_the_umask() {
    let site = Site::new();
    let kept = until(PATIENCE, || site.world.path("state/handshakes/devbox.json").exists());
    assert!(kept && !files_below(&site.world.state()).is_empty());
    let mut seen = [0; 3];
    for path in ["state", "guest"].iter().flat_map(|place| all_below(&site.world.path(place))) {
        let found = fs::symlink_metadata(&path).unwrap();
        let (kind, wanted) = if found.is_dir() {
            (0, 0o700)
        } else if found.file_type().is_socket() {
            (1, 0o600)
        } else {
            (2, 0o600)
        };
        seen[kind] += 1;
        assert_eq!(found.mode() & 0o7777, wanted, "{}", path.display());
    }
    assert!(seen[0] >= 5 && seen[1] >= 6 && seen[2] >= 10, "{seen:?}");
    site.end();
}

#[test]
fn another_user_finds_no_way_in() {
    if !may_act("what another user can do") {
        return;
    }
    let site = Site::new();
    let stranger = Stranger::of(&site.world);
    let sockets = site.sockets();
    assert!(sockets.len() >= 6, "{sockets:?}");
    for (socket, answer) in sockets.iter().zip(stranger.knock(&site.world, &sockets)) {
        assert_eq!(answer, "no way in: permission denied", "{}", socket.display());
    }
    let mut ls = Command::new("find");
    ls.arg(site.world.path("state")).args(["-mindepth", "1"]).uid(65_534).gid(65_534);
    let found = Process::spawn(ls).finish(PATIENCE);
    assert_eq!(found.out, "", "{found:?}");
    site.end();
}

/// Somebody opened all files and directories, secrets included: the kernel's word on who asks still counts.
#[test]
fn another_user_gets_nothing_even_where_every_file_is_open() {
    if !may_act("what another user can do where files are open") {
        return;
    }
    let site = Site::new();
    let stranger = Stranger::of(&site.world);
    for path in ["state", "guest"].iter().flat_map(|place| all_below(&site.world.path(place))) {
        let mode = if path.is_dir() { 0o755 } else { 0o666 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let sockets: Vec<PathBuf> =
        site.sockets().into_iter().filter(|path| !path.ends_with("link.sock")).collect();
    for (socket, answer) in sockets.iter().zip(stranger.knock(&site.world, &sockets)) {
        let name = socket.file_name().unwrap().to_str().unwrap();
        let told = if name.ends_with(".holder") {
            answer == "closed after: "
        } else if name.contains("terminals") {
            answer.contains("PERMISSION_DENIED")
        } else {
            answer.contains("forbidden") && answer.matches("\\\"event\\\"").count() == 1
        };
        assert!(told, "{name}: {answer}");
    }
    let (text, agent) = ("x", site.world.path("guest/agent.sock"));
    let commands: [&[&str]; 22] = [
        &["status"],
        &["info"],
        &["events"],
        &["ping", "devbox"],
        &["wait", "devbox", "--timeout", "1s"],
        &["token", "issue", "devbox"],
        &["token", "revoke", "devbox"],
        &["token", "list"],
        &["forget", "devbox"],
        &["peer", "link", "devbox", "builder"],
        &["peer", "unlink", "devbox", "builder"],
        &["peer", "send", "devbox", "builder", text],
        &["peers", "devbox"],
        &["inbox", "devbox"],
        &["restore", "devbox"],
        &["adopt", "devbox"],
        &["release", "devbox"],
        &["attachments"],
        &["action", "list"],
        &["term", "ls", "devbox/"],
        &["reload"],
        &["down"],
    ];
    for args in commands {
        let ran = stranger.castra(&site.world, args);
        // A status document says that nobody answered, which is what this user sees.
        assert!(ran.code == 5 || ran.code == 3, "castra {args:?}: {ran:?}");
        assert!(ran.code == 5 || ran.out.contains("offline"), "castra {args:?}: {ran:?}");
        assert!(!ran.out.contains("reachable\":true"), "castra {args:?}: {ran:?}");
    }
    for args in [&["info"][..], &["status"], &["agent", "hold"], &["inbox"], &["term", "ls"]] {
        let mut args = args.to_vec();
        args.extend(["--socket", agent.to_str().unwrap()]);
        let ran = stranger.castra(&site.world, &args);
        assert_ne!(ran.code, 0, "castra {args:?}: {ran:?}");
    }
    // Nothing of all that happened.
    assert_eq!(site.world.verdict("devbox"), "reachable");
    let tokens = site.world.json(&["token", "list", "--json"]);
    assert_eq!(tokens["tokens"].as_array().unwrap().len(), 1, "{tokens}");
    site.end();
}
