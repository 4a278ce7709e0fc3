//! What a screen shows to whoever comes later.

use crate::support::{Oracle, World, fields, sh, text};

/// A program that writes `shown`, waits for a line, and then writes `after`.
fn two_steps(shown: &str, after: &str) -> String {
    format!("stty -echo; printf '{shown}'; printf @; read line; printf '{after}'; printf '#'; read line")
}

/// There: lost were the primary screen under an alternate one, the switch itself, the
/// cursor, scroll region, wrapped lines, styles of underline and combining marks.
#[test]
fn defect_14_a_snapshot_shows_and_goes_on_as_if_one_had_always_watched() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let cases = [
        ("the other screen", "primary\\033[2;3H\\033[?1049h\\033[1;1Hsecond\\033[5;5H", "\\033[?1049l+"),
        ("the cursor", "\\033[12;34Hhere\\033[3;7H", "there"),
        ("a saved cursor", "\\033[5;6H\\0337\\033[10;10H", "\\0338saved"),
        ("a scroll region", "\\033[5;10r\\033[10;1Hlast\\033[1;1Htop", "\\033[10;1H\\n\\n\\nscrolled"),
        ("origin mode", "\\033[5;10r\\033[?6h\\033[2;2Hin", "\\033[1;1Horigin"),
        ("styles", "\\033[1;3;4;7;38;5;200;48;2;1;2;3mstyled", "same"),
        ("wide and combining", "\\346\\274\\242\\345\\255\\227 e\\314\\201 \\360\\237\\246\\200", "|"),
        ("a line that wraps", "%%0200d", "\\033[1;1Hx"),
        ("about to wrap", "\\033[4;1H%%080d", "next"),
        ("modes", "\\033[?2004h\\033[?1h\\033[?1002h\\033[?1006h\\033=\\033[?25l", "x"),
        ("no wrap", "\\033[?7l\\033[1;70H", "abcdefghijklmnopqrstuvwxyz"),
        ("insertion", "abc\\033[1;1H", "\\033[2@X"),
        (
            "history under it",
            "1\\n2\\n3\\n4\\n5\\n6\\n7\\n8\\n9\\n10\\n11\\n12\\n13\\n14\\n15\\n16\\n17\\n18\\n19\\n20\\n21\\n22\\n23\\n24\\n25\\n26\\n",
            "end",
        ),
    ];
    for (what, shown, after) in cases {
        let shown = shown.replace("%%0200d", &"w".repeat(200)).replace("%%080d", &"w".repeat(80));
        let session = client.create(fields! { "command" => sh(&two_steps(&shown, after)) });
        client.ok("attach", fields! { "session" => session, "resume_from" => 0 });
        client.read_until(session, "@");
        let mut truth = Oracle::new(80, 24);
        truth.feed(&client.take_output(session));
        let mut late = daemon.stream("late");
        let reply = late.attach(session);
        let mut restored = Oracle::of(&reply["snapshot"]);
        eprintln!("{what}");
        restored.assert_same(&truth);
        client.input(session, "\n");
        client.read_until(session, "#");
        late.read_until(session, "#");
        truth.feed(&client.take_output(session));
        restored.feed(&late.take_output(session));
        restored.assert_same(&truth);
    }
}

/// The rest of it, which the second emulator doesn't know: title, hyperlinks, tab stops,
/// kinds of underline, the kind of cursor.
#[test]
fn a_snapshot_holds_what_another_emulator_may_not_know() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let shown = "\\033]0;the title\\007\\033]8;;http://x.test/\\033\\\\link\\033]8;;\\033\\\\ \
        \\033[4:3;58;5;9mcurly\\033[0m\\033[3g\\033[1;20H\\033H\\033[5 q";
    let session = client.create(fields! { "command" => sh(&two_steps(shown, "")) });
    client.ok("attach", fields! { "session" => session, "resume_from" => 0 });
    client.read_until(session, "@");
    let snapshot = client.attach(session)["snapshot"].clone();
    let content = text(&snapshot, "content");
    assert_eq!(text(&snapshot, "title"), "the title");
    for part in ["the title", "http://x.test/", "4:3", "58", "\x1bH", " q"] {
        assert!(content.contains(part), "{part:?} in {content:?}");
    }
}

/// There: the emulator in the daemon answered queries beside the terminal that was
/// attached, so programs read every answer twice.
#[test]
fn defect_15_a_query_is_answered_by_the_daemon_only_while_nobody_is_attached() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let script = "stty raw -echo; printf '\\033[6n'; head -c 6 | od -An -c; printf 'once.'
        head -c 1 > /dev/null; printf '\\033[6n\\033[c\\033[5n'; printf 'asked.'; head -c 1 | od -An -c; printf 'twice.'";
    // Nobody is attached: the program would wait for ever without an answer.
    let session = client.create(fields! { "command" => sh(script) });
    crate::support::until("the daemon answers", || {
        let looked = client.ok("snapshot", fields! { "session" => session });
        text(&looked["snapshot"], "content").contains("once.")
    });
    client.ok("attach", fields! { "session" => session, "resume_from" => 0 });
    client.read_until(session, "once.");
    let output = String::from_utf8(client.take_output(session)).unwrap();
    assert!(output.contains("033   [   1   ;   1   R"), "{output:?}");
    client.input(session, "g");
    client.read_until(session, "asked.");
    // The screen model has seen the queries when it says what it shows.
    let looked = client.ok("snapshot", fields! { "session" => session });
    assert!(text(&looked["snapshot"], "content").contains("asked."));
    // Whatever it read first is the client's.
    client.input(session, "x");
    client.read_until(session, "twice.");
    let output = String::from_utf8(client.take_output(session)).unwrap();
    assert!(output.contains("   x"), "{output:?}");
}
