//! What clients ask, and what comes of it.

use rmpv::Value;
use rustix::process::Signal;

use crate::support::{
    Fields, Oracle, World, bin, fields, flag, gone, has, keys, number, runs, sh, signal, text, texts, until,
};

/// The state of a process, as `/proc` says it.
fn state(pid: u64) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()).unwrap_or('X')
}

#[test]
fn every_optional_field_of_create_may_be_nil_or_absent() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let names = ["cwd", "cols", "rows", "env", "shell", "initial_commands", "command", "exclusive"];
    let nil: Fields = names.iter().map(|name| (Value::from(*name), Value::Nil)).collect();
    let key = fields! { "session_key" => "k" };
    let plain = client.create(nil.clone());
    let absent = client.create(vec![]);
    let keyed = number(&client.ok("create_or_attach", key.into_iter().chain(nil).collect()), "session");
    for session in [plain, absent, keyed] {
        let row = client.row(session);
        assert_eq!((number(&row, "cols"), number(&row, "rows")), (80, 24));
        // In the home directory, by the default shell.
        let pid = number(&row, "pid");
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert_eq!(cwd, world.path("home").canonicalize().unwrap());
        client.attach(session);
        client.input(session, "echo $((6 * 7))\n");
        client.read_until(session, "42\r\n");
    }
}

#[test]
fn a_row_of_the_list_has_the_published_fields_first() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let plain = client.create(fields! { "command" => sh("sleep 600") });
    let keyed = number(&client.ok("create_or_attach", fields! { "session_key" => "a key" }), "session");
    let row = client.row(plain);
    assert_eq!(keys(&row)[..2], ["id", "pid"]);
    assert!(!has(&row, "session_key"));
    let row = client.row(keyed);
    let published = ["id", "session_key", "pid", "pts", "is_alive", "created_at", "last_attached_at"];
    assert_eq!(keys(&row)[..7], published);
    assert_eq!(text(&row, "session_key"), "a key");
    assert!(runs(number(&row, "pid").try_into().unwrap()));
    assert!(text(&row, "pts").starts_with("/dev/pts/") && flag(&row, "is_alive"));
    for name in ["created_at", "last_attached_at"] {
        let seconds: u64 = text(&row, name).parse().unwrap();
        assert!(seconds > 1_700_000_000, "{name}");
    }
    assert_eq!((text(&row, "state"), text(&row, "owner")), ("running", "A"));
    assert!(flag(&row, "owner_is_you") && number(&row, "subscribers") == 0);
    for absent in ["exit_code", "exit_signal", "recovery", "command"] {
        assert!(!has(&row, absent), "{absent}");
    }
    assert_eq!(client.row(plain)["command"], sh("sleep 600"));
}

#[test]
fn a_terminal_has_the_size_the_place_the_environment_and_the_shell_that_were_asked_for() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let env = Value::Map(fields! { "GREETING" => "hello you", "PS1" => "", "HOME" => "/nowhere" });
    let session = client.create(fields! {
        "env" => env, "rows" => 31, "cols" => 101, "shell" => "/bin/sh", "cwd" => world.text("home"),
    });
    client.attach(session);
    client.input(session, "stty -echo\n");
    client.input(session, "echo \"[$GREETING|$TERM|$HOME|$(pwd -P)|$(stty size)|$(tty)|$0]\"\n");
    let row = client.row(session);
    let home = world.path("home").canonicalize().unwrap();
    let expected = format!(
        "[hello you|xterm-256color|/nowhere|{}|31 101|{}|/bin/sh]",
        home.display(),
        text(&row, "pts")
    );
    client.read_until(session, &expected);
}

#[test]
fn a_program_has_a_session_and_a_terminal_of_its_own_and_nothing_else() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let first = client.create(fields! { "command" => sh("exec sleep 600") });
    let second = client.create(fields! { "command" => sh("exec sleep 600") });
    for session in [first, second] {
        let row = client.row(session);
        let pid = number(&row, "pid");
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let mut open: Vec<String> = open
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), std::fs::read_link(entry.path()).unwrap())
            })
            .map(|(number, target)| format!("{number} {}", target.display()))
            .collect();
        open.sort();
        let pts = text(&row, "pts");
        assert_eq!(open, [format!("0 {pts}"), format!("1 {pts}"), format!("2 {pts}")]);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        // None of the signals that have names: others may be ignored by whatever started this.
        for name in ["SigBlk:", "SigIgn:"] {
            let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            assert_eq!(u64::from_str_radix(mask.trim(), 16).unwrap() & 0x7fff_ffff, 0, "{status}");
        }
    }
}

#[test]
fn a_key_names_one_running_terminal() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let key = |key: &str| fields! { "session_key" => key, "command" => sh("sleep 600") };
    let first = client.ok("create_or_attach", key("build"));
    assert!(flag(&first, "created"));
    let session = number(&first, "session");
    // A key is trimmed, and the rest of such a request says nothing.
    let again = client.ok("create_or_attach", fields! { "session_key" => " build\n", "cols" => 10 });
    assert_eq!((number(&again, "session"), flag(&again, "created")), (session, false));
    assert_eq!(number(&client.row(session), "cols"), 80);
    assert_ne!(number(&client.ok("create_or_attach", key("Build")), "session"), session);
    for bad in ["", "  ", &"k".repeat(257)] {
        assert_eq!(client.refused("create_or_attach", key(bad)), "INVALID_ARGUMENT", "{bad:?}");
    }
    client.ok("create_or_attach", key(&"k".repeat(256)));
    assert_eq!(client.rows().len(), 3);
    // What has ended gives its key back.
    client.attach(session);
    client.ok("kill", fields! { "session" => session });
    client.exit(session);
    let next = client.ok("create_or_attach", key("build"));
    assert!(flag(&next, "created") && number(&next, "session") > session);
}

#[test]
fn two_clients_that_ask_for_one_key_at_once_get_one_terminal() {
    let world = World::new();
    let daemon = world.start();
    let mut clients: Vec<_> = (0..8).map(|number| daemon.client(&format!("c{number}"))).collect();
    let request = || fields! { "session_key" => "one", "command" => sh("sleep 600") };
    let asked: Vec<_> = clients.iter_mut().map(|client| client.send("create_or_attach", request())).collect();
    let replies: Vec<_> = clients.iter_mut().zip(asked).map(|(client, seq)| client.reply(seq)).collect();
    let sessions: Vec<_> = replies.iter().map(|reply| number(reply, "session")).collect();
    assert!(sessions.iter().all(|session| *session == sessions[0]), "{replies:?}");
    assert_eq!(replies.iter().filter(|reply| flag(reply, "created")).count(), 1);
    let owners = clients.iter_mut().filter_map(|client| client.row(sessions[0])["owner_is_you"].as_bool());
    assert_eq!(owners.filter(|mine| *mine).count(), 1);
}

#[test]
fn an_attach_brings_what_the_screen_shows_and_then_what_comes() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let script = "stty -echo; printf 'before\\033[1;4mX\\033[0m\\033[?2004h\\033[?1h\\033[2;4H'; read line; printf after; read line";
    let session = client.run(script);
    client.read_until(session, "\x1b[2;4H");
    let reply = client.attach(session);
    assert_eq!(keys(&reply)[..4], ["type", "seq", "session", "snapshot"]);
    let snapshot = &reply["snapshot"];
    let published = ["content", "rehydrate", "cols", "rows", "cursor_x", "cursor_y", "modes"];
    assert_eq!(keys(snapshot)[..7], published);
    let modes = [
        "application_cursor",
        "bracketed_paste",
        "mouse_tracking",
        "mouse_sgr",
        "focus_reporting",
        "alternate_screen",
        "cursor_visible",
        "auto_wrap",
    ];
    assert_eq!(keys(&snapshot["modes"]), modes);
    let set: Vec<&str> = modes.into_iter().filter(|mode| flag(&snapshot["modes"], mode)).collect();
    assert_eq!(set, ["application_cursor", "bracketed_paste", "cursor_visible", "auto_wrap"]);
    let rehydrate = text(snapshot, "rehydrate");
    assert!(rehydrate.contains("\x1b[?2004h") && rehydrate.contains("\x1b[?1h"), "{rehydrate:?}");
    assert_eq!((number(snapshot, "cols"), number(snapshot, "rows")), (80, 24));
    assert_eq!((number(snapshot, "cursor_x"), number(snapshot, "cursor_y")), (3, 1));
    let mut oracle = Oracle::of(snapshot);
    assert_eq!(oracle.text(), "beforeX");
    client.input(session, "\n");
    client.read_until(session, "after");
    oracle.feed(&client.take_output(session));
    assert_eq!(oracle.text(), "beforeX\n   after");
    // The rows say that it was attached to.
    assert_eq!(number(&client.row(session), "subscribers"), 1);
}

#[test]
fn a_second_attach_on_one_connection_brings_each_byte_once() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("stty -echo; echo ready; read line; echo one; read line");
    client.read_until(session, "ready\r\n");
    client.attach(session);
    client.attach(session);
    assert_eq!(number(&client.row(session), "subscribers"), 1);
    client.input(session, "\n");
    client.read_until(session, "one\r\n");
    // The offsets are checked as they come: a byte twice would have failed.
    assert_eq!(client.take_output(session), b"one\r\n");
}

#[test]
fn a_detach_ends_output_and_is_granted_without_an_attach_too() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session =
        client.create(fields! { "command" => sh("stty -echo; while read line; do echo \"<$line>\"; done") });
    client.ok("detach", fields! { "session" => session });
    client.attach(session);
    client.input(session, "one\n");
    client.read_until(session, "<one>\r\n");
    client.ok("detach", fields! { "session" => session });
    client.take_output(session);
    let mut other = daemon.client("B");
    other.attach(session);
    other.input(session, "two\n");
    other.read_until(session, "<two>\r\n");
    client.rows();
    assert_eq!(client.take_output(session), b"");
    // And back again, with what was missed on the screen.
    let reply = client.attach(session);
    assert!(Oracle::of(&reply["snapshot"]).text().contains("<two>"));
}

#[test]
fn input_reaches_the_program_in_order_and_as_it_is() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let every: Vec<u8> = (0..=255).collect();
    let total = every.len() * 20;
    let session = client
        .run(&format!("stty raw -echo; printf ready; head -c {total} | od -An -v -tx1 -w256; echo end"));
    client.read_until(session, "ready");
    client.take_output(session);
    let asked: Vec<u32> = (0..20)
        .map(|_| client.send("input", fields! { "session" => session, "data" => bin(&every) }))
        .collect();
    for seq in asked {
        assert_eq!(text(&client.reply(seq), "type"), "ok");
    }
    client.read_until(session, "end");
    let line: String = every.iter().map(|byte| format!(" {byte:02x}")).collect();
    let expected = format!("{}end\n", format!("{line}\n").repeat(20));
    assert_eq!(String::from_utf8(client.take_output(session)).unwrap(), expected);
}

#[test]
fn an_empty_input_does_nothing() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("stty -echo; echo ready; read line; echo \"<$line>\"; read line");
    client.read_until(session, "ready");
    for _ in 0..3 {
        client.input(session, "");
    }
    client.input(session, "x\n");
    client.read_until(session, "<x>");
}

#[test]
fn a_resize_reaches_the_program_the_screen_and_the_list() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done");
    client.read_until(session, "ready");
    client.ok("resize", fields! { "session" => session, "cols" => 133, "rows" => 41 });
    client.read_until(session, "41 133");
    let row = client.row(session);
    assert_eq!((number(&row, "cols"), number(&row, "rows")), (133, 41));
    let snapshot = client.attach(session)["snapshot"].clone();
    assert_eq!((number(&snapshot, "cols"), number(&snapshot, "rows")), (133, 41));
    for (cols, rows) in [(0, 24), (80, 0), (0, 0)] {
        let fields = fields! { "session" => session, "cols" => cols, "rows" => rows };
        assert_eq!(client.refused("resize", fields), "INVALID_ARGUMENT");
        let fields = fields! { "cols" => cols, "rows" => rows };
        assert_eq!(client.refused("create", fields), "INVALID_ARGUMENT");
    }
    client.ok("resize", fields! { "session" => session, "cols" => 1, "rows" => 1 });
    client.read_until(session, "1 1");
}

#[test]
fn signals_go_by_name_in_any_case_to_the_program_alone() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    // The kernel lets nothing stop the terminal's own session by TSTP.
    let trapped = ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH", "TSTP"];
    let traps: String = trapped.iter().map(|name| format!("trap 'echo got-{name}.' {name}; ")).collect();
    let session = client.run(&format!("{traps} echo ready; while :; do sleep 0.02; done"));
    client.read_until(session, "ready");
    let mut send = |name: &str| {
        client.ok("signal", fields! { "session" => session, "signal" => name });
    };
    let spellings = ["HUP", "SIGINT", "sigquit", "Term", "usr1", "SigUsr2", "WINCH", "tstp"];
    spellings.iter().for_each(|name| send(name));
    for name in trapped {
        client.read_until(session, &format!("got-{name}."));
    }
    let pid = number(&client.row(session), "pid");
    client.ok("signal", fields! { "session" => session, "signal" => "stop" });
    until("it stops", || state(pid) == 'T');
    client.ok("signal", fields! { "session" => session, "signal" => "SIGCONT" });
    until("it goes on", || state(pid) != 'T');
    for bad in ["", "SIG", "FOO", "SIGSIGINT", "9", "SEGV", "RTMIN"] {
        let fields = fields! { "session" => session, "signal" => bad };
        assert_eq!(client.refused("signal", fields), "INVALID_SIGNAL", "{bad:?}");
    }
    client.ok("signal", fields! { "session" => session, "signal" => "KILL" });
    assert_eq!(client.exit(session), (137, Some(9)));
}

#[test]
fn cleared_scrollback_is_gone_and_the_screen_stays() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("stty -echo; seq -f line-%g 1 100; printf end; read line");
    client.read_until(session, "end");
    let content = |reply: &Value| text(&reply["snapshot"], "content").to_owned();
    let before = content(&client.attach(session));
    assert!(before.contains("line-1\r") && before.contains("line-100"), "{before:?}");
    client.ok("clear_scrollback", fields! { "session" => session });
    let after = content(&client.attach(session));
    assert!(!after.contains("line-50") && after.contains("line-100"), "{after:?}");
}

#[test]
fn a_killed_program_is_reported_as_it_ended() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let plain = client.run("exec sleep 600");
    client.ok("kill", fields! { "session" => plain });
    // Hang-up comes first.
    assert_eq!(client.exit(plain), (129, Some(1)));
    let tidy = client.run("trap 'exit 5' TERM; trap '' HUP; echo ready; while :; do sleep 0.02; done");
    client.read_until(tidy, "ready");
    client.ok("kill", fields! { "session" => tidy });
    assert_eq!(client.exit(tidy), (5, None));
    let row = client.row(tidy);
    assert!(!flag(&row, "is_alive") && !has(&row, "exit_signal"));
    assert_eq!((text(&row, "state"), number(&row, "exit_code")), ("exited", 5));
    assert_eq!(number(&client.row(plain), "exit_signal"), 1);
}

#[test]
fn kill_all_counts_what_it_kills_and_every_exit_is_reported() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let mut other = daemon.client("B");
    let mut sessions: Vec<u64> = (0..3).map(|_| client.run("exec sleep 600")).collect();
    sessions.push(other.run("exec sleep 600"));
    client.attach(sessions[3]);
    assert_eq!(number(&client.ok("kill_all", vec![]), "count"), 4);
    for session in &sessions {
        assert_eq!(client.exit(*session), (129, Some(1)));
    }
    assert_eq!(other.exit(sessions[3]), (129, Some(1)));
    assert_eq!(number(&client.ok("kill_all", vec![]), "count"), 0);
}

#[test]
fn a_terminal_that_is_not_there_is_not_found_whatever_is_asked() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    for session in [0u64, 1, u64::from(u32::MAX)] {
        let this = || fields! { "session" => session };
        for (kind, more) in [
            ("attach", vec![]),
            ("input", fields! { "data" => bin("x") }),
            ("resize", fields! { "cols" => 10, "rows" => 10 }),
            ("signal", fields! { "signal" => "KILL" }),
            ("clear_scrollback", vec![]),
            ("kill", vec![]),
            ("takeover", vec![]),
            ("snapshot", vec![]),
        ] {
            let fields = this().into_iter().chain(more).collect();
            assert_eq!(client.refused(kind, fields), "NOT_FOUND", "{kind} {session}");
        }
    }
}

#[test]
fn a_terminal_that_is_being_ended_takes_no_more_and_one_that_has_ended_shows_its_end() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("trap '' HUP TERM; echo last words; while :; do sleep 0.02; done");
    client.read_until(session, "last words");
    let pid: u32 = number(&client.row(session), "pid").try_into().unwrap();
    let this = || fields! { "session" => session };
    client.ok("kill", this());
    assert_eq!(text(&client.row(session), "state"), "terminating");
    let mutations = || -> Vec<(&str, Fields)> {
        vec![
            ("input", fields! { "session" => session, "data" => bin("x") }),
            ("resize", fields! { "session" => session, "cols" => 10, "rows" => 10 }),
            ("signal", fields! { "session" => session, "signal" => "CONT" }),
            ("clear_scrollback", this()),
        ]
    };
    for (kind, fields) in mutations() {
        assert_eq!(client.refused(kind, fields), "SESSION_TERMINATING", "{kind}");
    }
    // Quicker than the 3 s until the daemon does it.
    signal(pid, Signal::KILL);
    assert_eq!(client.exit(session), (137, Some(9)));
    gone(pid);
    for (kind, fields) in mutations() {
        assert_eq!(client.refused(kind, fields), "NOT_FOUND", "{kind}");
    }
    assert_eq!(client.refused("kill", this()), "NOT_FOUND");
    // Whoever comes now sees what it showed, and how it ended.
    let mut late = daemon.client("B");
    let reply = late.attach(session);
    assert!(Oracle::of(&reply["snapshot"]).text().starts_with("last words"));
    assert_eq!(late.exit(session), (137, Some(9)));
    let mut reader = daemon.stream("C");
    reader.attach(session);
    assert_eq!(reader.exit(session), (137, Some(9)));
}

#[test]
fn input_has_a_bound_and_what_is_above_it_is_refused_whole() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("stty raw -echo; echo ready; read line; sleep 600");
    client.read_until(session, "ready");
    let input = |bytes: usize| fields! { "session" => session, "data" => bin("x".repeat(bytes)) };
    assert_eq!(client.refused("input", input(2_100_000)), "LIMIT_REACHED");
    // The kernel takes some itself.
    client.ok("input", input(1_900_000));
    assert_eq!(client.refused("input", input(300_000)), "LIMIT_REACHED");
    client.ok("input", input(10));
    // Another terminal has its own.
    let other = client.run("stty -echo; echo ready; read line; echo \"<$line>\"; read line");
    client.read_until(other, "ready");
    client.input(other, "x\n");
    client.read_until(other, "<x>");
}

#[test]
fn terminals_and_connections_have_bounds_that_the_environment_sets() {
    let world = World::new();
    let daemon = world.start_with(|command| {
        command.env("RUST_PTY_MAX_SESSIONS", "2").env("RUST_PTY_MAX_CONNECTIONS", "3");
    });
    let mut client = daemon.client("A");
    let command = || fields! { "command" => texts(&["/bin/sleep", "600"]) };
    let first = client.create(command());
    client.create(command());
    assert_eq!(client.refused("create", command()), "LIMIT_REACHED");
    let keyed = command().into_iter().chain(fields! { "session_key" => "k" }).collect();
    assert_eq!(client.refused("create_or_attach", keyed), "LIMIT_REACHED");
    client.attach(first);
    client.ok("kill", fields! { "session" => first });
    client.exit(first);
    client.create(command());
    let others = (daemon.client("B"), daemon.client("C"));
    let said = daemon.connect().until_closed();
    assert_eq!((number(&said[0], "seq"), text(&said[0], "code")), (0, "LIMIT_REACHED"));
    drop(others);
    until("a place is free again", || daemon.connect().request_or_closed("list").is_some());
}
