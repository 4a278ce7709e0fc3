//! TCP, unix, serial lines, vsock; a boot script in plain sh; the agent's own socket.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Link, PATIENCE, Process, Stream, Watch, World, at, installed, join, raw_pty, until, verdict,
};

/// The script of the link protocol's document, but for the device's name.
const SCRIPT: &str = r#"
exec 3<>"$DEVICE"
printf '\377\n' >&3
echo "hello vm:devbox capabilities=proof-v1 once" >&3
while read -r word nonce _ <&3; do [ "$word" = challenge ] && break; done
echo "proof $nonce" >&3
read -r verdict _ <&3; [ "$verdict" = ok ]
"#;

#[test]
fn a_boot_script_in_plain_sh_makes_its_guest_reachable_for_exactly_its_window() {
    let shells: [&[&str]; 2] = [&["sh", "-c"], &["busybox", "sh", "-c"]];
    for shell in shells {
        if !installed(shell[0]) {
            println!("NOT TESTED: {shell:?}, which is not installed");
            continue;
        }
        let world = World::new();
        let path = world.path("serial.sock");
        let listen = format!("unix:{},serial", path.display());
        let _broker = world.broker(&["--listen", &listen, "--window", "900ms", "--interval", "300ms"]);
        let pty = raw_pty();
        let device = pty.device.clone();
        let _line = join(pty, UnixStream::connect(&path).unwrap());
        // The same stream carries one boot after the other.
        for boot in 1..=2 {
            let watch = Watch::of(&world.state().join("control.sock"), "devbox");
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]).arg(SCRIPT).env("DEVICE", &device);
            command.env("XDG_RUNTIME_DIR", world.path("run"));
            let ran = Process::spawn(command).finish(PATIENCE);
            assert_eq!(ran.code, 0, "{shell:?}: {ran:?}\n{}", world.log());
            world.wait(&["devbox"], "waiting");
            assert_eq!(world.verdict("devbox"), "waiting/stale");
            let changes = world.events("verdict.changed", "devbox");
            assert_eq!(changes.len(), 2 * boot, "{changes:?}");
            let (up, down) = (&changes[2 * boot - 2], &changes[2 * boot - 1]);
            assert_eq!((&up["to"], &down["to"]), (&"reachable".into(), &"waiting".into()));
            // From the challenge on, not from the proof's arrival.
            let age = down["age_ms"].as_u64().unwrap();
            let (span, up_age) = (at(down) - at(up), up["age_ms"].as_i64().unwrap());
            assert!((900..1300).contains(&age), "{down}");
            assert!((span - (age as i64 - up_age)).abs() <= 5, "{up} {down}");
            for (when, row) in watch.finish() {
                // The window began with the challenge, which may have been a while before the proof.
                let inside = when > at(up) + 60 && when < at(up) - up_age + 800;
                assert!(!inside || row["reachable"] == true, "{row}");
            }
            let row = world.row("devbox");
            assert_eq!(
                (&row["transport"], &row["session_age_ms"]),
                (&"serial".into(), &Value::Null),
                "{row}"
            );
        }
    }
}

#[test]
fn a_guest_that_reboots_behind_an_unbroken_serial_line_comes_back() {
    let world = World::new();
    let path = world.path("serial.sock");
    let listen = format!("unix:{},serial", path.display());
    let args = ["--listen", &listen, "--window", "900ms", "--interval", "300ms"];
    let _broker = world.broker(&args);
    let pty = raw_pty();
    let connect = format!("serial:{}", pty.device.display());
    let _line = join(pty, UnixStream::connect(&path).unwrap());
    // Open long before there is a guest: no deadline, no row.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(world.control().status().unwrap()["guests"], json!([]));
    let agent = world.agent("devbox", &connect, &[]);
    world.wait(&["devbox"], "reachable");
    let first = world.row("devbox");
    assert_eq!(first["transport"], "serial");

    // The guest dies and the stream stays: only its silence tells.
    agent.kill();
    world.wait(&["devbox"], "waiting");
    assert_eq!(world.verdict("devbox"), "waiting/stale");
    let _agent = world.agent("devbox", &connect, &[]);
    world.wait(&["devbox"], "reachable");
    let second = world.row("devbox");
    assert!(second["epoch"].as_u64() > first["epoch"].as_u64(), "{second} after {first}");
    assert_eq!(
        (&second["takeovers"], &second["refusals"]),
        (&0.into(), &0.into()),
        "a reboot is no conflict"
    );
    let ends = world.events("session.closed", "devbox");
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!(world.castra(&["ping", "devbox", "-c", "1"]).code, 0);
}

#[test]
fn guests_come_in_by_tcp_and_unix_at_once_and_vsock_is_bound_where_there_is_one() {
    let world = World::new();
    let unix = format!("unix:{}", world.path("link.sock").display());
    let mut args = vec!["--listen", "tcp:127.0.0.1:0", "--listen", "tcp:[::1]:0", "--listen", &unix];
    if TcpListener::bind("[::1]:0").is_err() {
        println!("NOT TESTED: IPv6, which this machine lacks");
        args.drain(2..4);
    }
    let broker = world.broker(&args);
    let names: Vec<String> = (0..broker.listen.len()).map(|number| format!("guest-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let addresses = names.iter().zip(&broker.listen);
    let _agents: Vec<_> = addresses.map(|(name, address)| world.agent(name, address, &[])).collect();
    world.wait(&names, "reachable");
    for (name, address) in names.iter().zip(&broker.listen) {
        assert!(address.starts_with(world.row(name)["transport"].as_str().unwrap()), "{address}");
    }
    // A name that must be looked up first.
    let by_name = broker.address().replace("127.0.0.1", "localhost");
    assert_eq!(world.agent("by-name", &by_name, &["--once"]).finish(PATIENCE).code, 0);

    if !Path::new("/dev/vsock").exists() {
        println!("NOT TESTED: vsock, which this machine lacks");
        return;
    }
    let world = World::new();
    let broker = world.broker(&["--listen", "vsock:4294967295"]);
    let port: u32 = broker.address().strip_prefix("vsock:").unwrap().parse().unwrap();
    assert_ne!(port, u32::MAX, "a free port was chosen");
    // Only to ourselves, and only where the kernel keeps that local.
    if Path::new("/sys/module/vsock_loopback").exists() {
        let _agent = world.agent("devbox", &format!("vsock:1:{port}"), &[]);
        world.wait(&["devbox"], "reachable");
        assert_eq!(world.row("devbox")["transport"], "vsock");
    } else {
        println!("NOT TESTED: a vsock connection, for there is no loopback; port {port} was bound");
    }
    assert_eq!(world.castra(&["down"]).code, 0);
}

#[test]
fn inside_the_guest_the_agent_answers_for_itself_alone() {
    let world = World::new();
    let broker = world.broker(&["--window", "900ms", "--interval", "300ms", "--guest", "neighbour"]);
    let agent = world.agent("devbox", broker.address(), &[]);
    agent.err.after(0, "link up", PATIENCE);
    let socket = world.path("devbox.sock");
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let inside = |args: &[&str]| {
        let mut command = world.command(args);
        command.env_remove("CASTRA_STATE_DIR").env("CASTRA_AGENT_SOCKET", &socket);
        Process::spawn(command).finish(PATIENCE)
    };
    let status = inside(&["status", "--json"]);
    assert_eq!(status.code, 0, "{status:?}");
    let guests = status.json()["guests"].clone();
    assert_eq!(guests.as_array().unwrap().len(), 1, "itself alone: {guests}");
    assert_eq!((&guests[0]["name"], verdict(&guests[0]).as_str()), (&"devbox".into(), "reachable"));
    assert_eq!(inside(&["status", "devbox"]).code, 0);
    assert_eq!(inside(&["wait", "devbox"]).code, 0);
    let info = inside(&["info", "--json"]).json();
    assert_eq!((&info["role"], &info["link"]["state"]), (&"agent".into(), &"up".into()), "{info}");
    assert_eq!(info["pid"], agent.pid());
    for (args, code) in [
        (&["status", "neighbour"][..], 6),
        (&["wait", "neighbour", "--timeout", "500ms"], 6),
        (&["ping", "neighbour", "-c", "1"], 6),
        (&["ping", "devbox", "-c", "1"], 0),
        (&["token", "list"], 5),
        (&["token", "issue", "devbox"], 5),
        (&["forget", "devbox"], 5),
        (&["events"], 0),
        (&["reload"], 5),
    ] {
        let ran = inside(args);
        assert_eq!(ran.code, code, "castra {args:?}: {ran:?}");
    }
    let named = world.castra(&["ping", "devbox", "-c", "1", "--socket", socket.to_str().unwrap()]);
    assert_eq!(named.code, 0, "--socket beats the state directory: {named:?}");
    // Without a broker behind it the agent still answers, in time.
    broker.process.kill();
    let began = Instant::now();
    assert!(until(PATIENCE, || inside(&["info", "--json"]).json()["link"]["state"] != "up"));
    let status = inside(&["status"]);
    assert_ne!(status.code, 0, "{status:?}");
    assert!(began.elapsed() < PATIENCE);
    assert!(status.took < Duration::from_millis(3500), "{status:?}");
}

#[test]
fn on_a_serial_line_bytes_of_a_dead_guest_are_dropped_and_refusals_leave_it_open() {
    let world = World::new();
    let path = world.path("serial.sock");
    let listen = format!("unix:{},serial", path.display());
    let _broker = world.broker(&["--listen", &listen, "--handshake-timeout", "500ms"]);
    let mut line = Link::over(Stream::Unix(UnixStream::connect(&path).unwrap()));
    assert_eq!(line.line(), "castra-broker 0.1 ready");
    line.send(b"what a dying guest left\n");
    assert!(line.line().starts_with("error: bad-line: "));
    line.send(b"hello vm:dev");
    assert!(line.line().starts_with("error: timeout: "), "the deadline counts from the first byte");
    line.send(b"half a line \xff\n");
    assert_eq!(line.line(), "castra-broker 0.1 ready");
    line.prove("devbox", " once");
    assert_eq!(world.verdict("devbox"), "reachable");
    line.prove("devbox", "");
    line.send(b"\0\0\0\x40{\"type\":\"never finished");
    line.send(b"\xff\n");
    // A keepalive may have been under way; then comes the greeting, and it goes on.
    let greeting = line.line();
    assert!(greeting.ends_with("castra-broker 0.1 ready"), "{greeting:?}");
    let before = world.row("devbox");
    assert_eq!(verdict(&before), "reachable", "until the new handshake the old session stands");
    line.prove("devbox", "");
    let after = world.row("devbox");
    assert!(after["epoch"].as_u64() > before["epoch"].as_u64(), "{after} after {before}");
    assert_eq!((verdict(&after).as_str(), &after["transport"]), ("reachable", &"serial".into()));
}
