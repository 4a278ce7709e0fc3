//! A guest with nothing but `sh`, and one whose token comes with the machine.

use std::time::Instant;

use crate::kit::Kit;
use crate::qemu::{Machine, wait};
use crate::readme;
use crate::support::{Watch, World, Yardstick, at};

#[test]
fn the_readmes_boot_script_counts_for_a_window_and_a_token_comes_through_the_firmware() {
    let Some(kit) = Kit::find() else { return };
    let world = World::new();
    let serial = world.path("serial.sock");
    let listen = format!("unix:{},serial", serial.display());
    let parent = std::process::id().to_string();
    let args = ["--listen", &listen, "--window", "3s", "--interval", "1s", "--die-with-parent", &parent];
    let _broker = world.broker(&args);
    let token = world.path("token");
    let token = token.to_str().unwrap();
    assert_eq!(world.castra(&["token", "issue", "keyed", "--out", token]).code, 0);

    let script = format!(
        "port castra.0
cat >/boot.sh <<'END'
{}END
sh /boot.sh && echo 'init: the boot script is content'
port castra.1
castra agent --name keyed --connect serial:/dev/virtio-ports/castra.1 --require-authenticated \\
    >/dev/console 2>&1 &",
        readme::boot_script()
    );
    let mut options = readme::serial_options(&serial, kit.qemu);
    let second = options[1].replace("id=castra", "id=second");
    let port = "virtserialport,chardev=second,name=castra.1";
    let firmware = format!("name=opt/castra/token,file={token}");
    let more = ["-chardev", &second, "-device", port, "-fw_cfg", &firmware, "-net", "none"];
    options.extend(more.map(str::to_owned));

    let watch = Watch::of(&world.state().join("control.sock"), "devbox");
    let began = Instant::now();
    let machine = Machine::boot(&kit, &world, &script, &options);
    wait(&world, &["devbox"], "reachable");
    println!("the boot script: reachable {:.1} s after QEMU's start", began.elapsed().as_secs_f64());
    let yardstick = Yardstick::start();
    wait(&world, &["devbox"], "waiting");
    let late = yardstick.finish() as i64;
    assert_eq!(world.verdict("devbox"), "waiting/stale");
    let changes = world.events("verdict.changed", "devbox");
    let [.., up, down] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((&up["to"], &down["to"]), (&"reachable".into(), &"waiting".into()), "{changes:?}");
    // From the challenge on, not from the proof's arrival.
    let (young, old) = (up["age_ms"].as_i64().unwrap(), down["age_ms"].as_i64().unwrap());
    let span = at(down) - at(up);
    println!("the boot script: reachable for {span} ms, until its proof was {old} ms old");
    assert!((3000..=3100 + late).contains(&old), "late by {late} ms ourselves: {down}");
    assert!((span - (old - young)).abs() <= 5, "{up} {down}");
    for (when, row) in watch.finish() {
        let inside = when > at(up) + 100 && when < at(up) + 3000 - young - 100;
        assert!(!inside || row["reachable"] == true, "{row}");
    }
    assert!(machine.console().contains("the boot script is content"));
    let row = world.row("devbox");
    assert_eq!(row["transport"], "serial");
    assert!(row["session_age_ms"].is_null(), "once is once: {row}");

    wait(&world, &["keyed"], "reachable");
    let row = world.row("keyed");
    assert_eq!((&row["authenticated"], &row["transport"]), (&true.into(), &"serial".into()), "{row}");
    println!("a token through -fw_cfg: {}", row["state"]);
}
