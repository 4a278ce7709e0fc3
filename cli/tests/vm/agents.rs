//! Two agents in one machine, one over each way: boot, freeze, thaw, a new broker, reboot, the end.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::kit::Kit;
use crate::qemu::{BOOT, Machine, wait};
use crate::readme;
use crate::support::{Control, World, Yardstick, at, until, verdict, wall_ms};

/// Long enough that a machine in software answers in time, whatever else runs on the host.
const WINDOW: i64 = 3000;
const NAMES: [&str; 2] = ["by-tcp", "by-serial"];

#[test]
fn guests_in_a_machine_are_reachable_exactly_while_it_runs() {
    let Some(kit) = Kit::find() else { return };
    let world = World::new();
    let serial = world.path("serial.sock");
    let listen = format!("unix:{},serial", serial.display());
    let parent = std::process::id().to_string();
    let serve = |tcp: &str| {
        let args = ["--listen", tcp, "--listen", &listen, "--window", "3s", "--interval", "1s"];
        world.broker(&[&args[..], &["--die-with-parent", &parent]].concat())
    };
    let broker = serve("tcp:127.0.0.1:0");
    let port = broker.port();
    let script = format!(
        "castra agent --name by-tcp --connect tcp:{}:{port} --socket /run/tcp.sock >/dev/console 2>&1 &
        port castra.0
        castra agent --name by-serial --connect serial:/dev/virtio-ports/castra.0 >/dev/console 2>&1 &",
        readme::host_in_the_guest()
    );
    let mut options = readme::serial_options(&serial, kit.qemu);
    // Nobody boots from its network: the card needs no ROM.
    options.extend(
        ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="].map(str::to_owned),
    );

    let began = Instant::now();
    let mut machine = Machine::boot(&kit, &world, &script, &options);
    wait(&world, &NAMES, "reachable");
    println!("booted: both guests reachable {:.1} s after QEMU's start", began.elapsed().as_secs_f64());
    let booted = NAMES.map(|name| world.row(name));
    assert_eq!(booted.each_ref().map(|row| &row["transport"]), ["tcp", "serial"]);
    assert_eq!(booted[0]["boot"], booted[1]["boot"], "one machine");
    let castra = |args: &[&str]| world.castra(args).code;
    assert_eq!(castra(&["ping", NAMES[0], "-c", "1"]), 0);
    assert_eq!(castra(&["ping", NAMES[1], "-c", "1"]), 0);

    let before = freeze(&world, &mut machine, port, &serial);
    thaw(&world, &mut machine, &before);

    broker.process.kill();
    let broker = serve(&format!("tcp:127.0.0.1:{port}"));
    wait(&world, &NAMES, "reachable");
    assert_eq!(broker.port(), port);
    println!("killed the broker: both guests found the next one by themselves");
    reboot(&world, &mut machine);
    let machine = move_out(&kit, &world, machine, &options);
    let machine = clone(&kit, &world, machine, &options);

    let killed = wall_ms();
    machine.kill();
    wait(&world, &NAMES, "waiting");
    for name in NAMES {
        assert_eq!(world.verdict(name), "waiting/disconnected");
        let lost = last_change(&world, name);
        let after = at(&lost) - killed;
        println!("killed QEMU: {name} waiting/disconnected after {after} ms");
        assert!((0..WINDOW).contains(&after), "not by its window: {lost}");
    }
}

/// The broker says `stale` in time although nothing closes; the rows before.
fn freeze(world: &World, machine: &mut Machine, port: u16, serial: &Path) -> [Value; 2] {
    let before = NAMES.map(|name| world.row(name));
    let yardstick = Yardstick::start();
    let asked = wall_ms();
    machine.freeze();
    let frozen = wall_ms();
    wait(world, &NAMES, "waiting");
    let late = yardstick.finish() as i64;
    for (name, before) in NAMES.iter().zip(&before) {
        let row = world.row(name);
        assert_eq!(verdict(&row), "waiting/stale");
        let lost = last_change(world, name);
        let (age, after) = (lost["age_ms"].as_i64().unwrap(), at(&lost) - frozen);
        println!(
            "froze the machine: {name} waiting/stale after {after} ms, its proof {age} ms old \
             (window {WINDOW} ms; timers here up to {late} ms late)"
        );
        assert!((WINDOW..=WINDOW + 100 + late).contains(&age), "late by {late} ms ourselves: {lost}");
        assert!(at(&lost) >= asked && after <= WINDOW + 100 + late, "frozen at {frozen}: {lost}");
        // The host's end is open all the while: it proves nothing.
        assert!(row["session_age_ms"].is_u64(), "{row}");
        assert_eq!((&row["epoch"], &row["remote"]), (&before["epoch"], &before["remote"]));
        assert_eq!(world.castra(&["ping", name, "-c", "1", "--timeout", "300ms"]).code, 4);
    }
    let remote = before[0]["remote"].as_str().unwrap();
    assert!(established(port, remote), "the kernel has no connection of {remote}");
    assert_eq!(connected(serial), 1, "the kernel's streams to {}", serial.display());
    before
}

/// Time stood still in there: nobody gave up, and no hands had to be shaken anew.
fn thaw(world: &World, machine: &mut Machine, before: &[Value; 2]) {
    let asked = wall_ms();
    machine.thaw();
    wait(world, &NAMES, "reachable");
    for (name, before) in NAMES.iter().zip(before) {
        println!("thawed it: {name} reachable after {} ms", at(&last_change(world, name)) - asked);
        let row = world.row(name);
        assert_eq!(row["epoch"], before["epoch"], "{row} after {before}");
    }
}

/// The machine starts anew, and QEMU keeps both of its connections open.
fn reboot(world: &World, machine: &mut Machine) {
    let before = NAMES.map(|name| world.row(name));
    let began = wall_ms();
    machine.reset();
    for (name, before) in NAMES.iter().zip(&before) {
        let mut control = world.control();
        let mut row = Value::Null;
        let anew = until(BOOT, || {
            row = control.row(name);
            epoch(&row) > epoch(before) && row["reachable"] == true
        });
        assert!(anew, "{row} after {before}");
        assert_ne!(row["boot"], before["boot"], "the machine was started anew");
        println!(
            "reset it: {name} reachable with a new epoch after {} ms, its session before ended as {}",
            at(&last_change(world, name)) - began,
            ends(&mut control, name)
        );
    }
    assert_eq!(ends(&mut world.control(), NAMES[1]), "replaced", "on the same stream");
}

/// The machine is saved, ends, and goes on in another QEMU: its agents remember links that are no more.
fn move_out(kit: &Kit, world: &World, mut machine: Machine, options: &[String]) -> Machine {
    let before = NAMES.map(|name| world.row(name));
    let file = world.path("saved");
    machine.save(&file);
    machine.kill();
    wait(world, &NAMES, "waiting");
    for name in NAMES {
        assert_eq!(world.verdict(name), "waiting/disconnected");
    }
    let began = wall_ms();
    let machine = Machine::restore(kit, world, "restored", &file, options);
    wait(world, &NAMES, "reachable");
    for (name, before) in NAMES.iter().zip(&before) {
        let row = world.row(name);
        assert!(epoch(&row) > epoch(before), "{row} after {before}");
        assert_eq!(row["boot"], before["boot"], "the machine was not started anew");
        let after = at(&last_change(world, name)) - began;
        println!("saved it, restored it: {name} reachable {after} ms after the new QEMU's start");
    }
    machine
}

/// A second machine goes on from the same moment as the first, with the same agents: who is there keeps
/// the name, and the other has it as soon as the first is gone.
fn clone(kit: &Kit, world: &World, machine: Machine, options: &[String]) -> Machine {
    let before = NAMES.map(|name| world.row(name));
    let claims = |row: &Value| row["refusals"].as_u64().unwrap() + row["takeovers"].as_u64().unwrap();
    let second = Machine::restore(kit, world, "second", &world.path("saved"), options);
    let mut control = world.control();
    for (name, before) in NAMES.iter().zip(&before) {
        let mut row = Value::Null;
        let disputed = until(BOOT, || {
            row = control.row(name);
            claims(&row) > claims(before)
        });
        assert!(disputed, "the second machine claimed nothing: {row}");
        // Where half a second is too short for an answer, the newcomer has it.
        let kept = row["epoch"] == before["epoch"];
        assert_eq!(kept, row["takeovers"] == before["takeovers"], "{row} after {before}");
        println!("started a second one from the same file: {name} {}", verdict(&row));
        println!("  refusals {} takeovers {}", row["refusals"], row["takeovers"]);
    }
    let gone = wall_ms();
    machine.kill();
    for (name, before) in NAMES.iter().zip(&before) {
        let mut row = Value::Null;
        let inherited = until(BOOT, || {
            row = control.row(name);
            epoch(&row) > epoch(before) && row["reachable"] == true
        });
        assert!(inherited, "{row} after {before}");
        let after = at(&last_change(world, name)) - gone;
        println!("killed the first: {name} reachable in the second after {after} ms");
    }
    second
}

fn epoch(row: &Value) -> u64 {
    row["epoch"].as_u64().unwrap_or_default()
}

/// How the newest of a guest's sessions that ended did so.
fn ends(control: &mut Control, name: &str) -> String {
    let ended = control.events("session.closed", name).pop();
    ended.map_or_else(|| "never".into(), |event| event["reason"].as_str().unwrap().to_owned())
}

fn last_change(world: &World, name: &str) -> Value {
    world.events("verdict.changed", name).pop().unwrap()
}

/// Whether the kernel has an open connection between the broker's port and `remote`.
fn established(port: u16, remote: &str) -> bool {
    let remote: u16 = remote.rsplit_once(':').unwrap().1.parse().unwrap();
    let (local, remote) = (format!(":{port:04X}"), format!(":{remote:04X}"));
    fs::read_to_string("/proc/net/tcp").unwrap().lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&local) && fields[2].ends_with(&remote) && fields[3] == "01"
    })
}

/// How many streams accepted at `path` the kernel has.
fn connected(path: &Path) -> usize {
    let path = path.to_str().unwrap();
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let states = table.lines().filter(|line| line.ends_with(path)).map(|line| line.split_whitespace().nth(5));
    states.filter(|state| *state == Some("03")).count()
}
