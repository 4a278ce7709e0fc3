//! As many connections as there are descriptors, and what the tables do at their bounds.

use std::time::Duration;

use crate::support::{Link, Process, World, until};
use crate::tools::{Crowd, Usage, alone, descriptors, figure, full, kib, reachable};

/// A budget of DESIGN, section 6: user memory for each idle guest.
const GUEST: u64 = 512;
/// What doesn't depend on the number of guests: the ring of events, file buffers, queues.
const BASE: u64 = 12 << 20;

/// The program under limits of the shell's.
fn limited(world: &World, ulimit: &str, args: &[&str]) -> Process {
    let inner = world.command(args);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("ulimit {ulimit}; exec \"$@\""), "sh"]).arg(inner.get_program());
    command.args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Process::spawn(command)
}

/// A broker under limits of the shell's, and its port.
pub(crate) fn limited_broker(world: &World, ulimit: &str, args: &[&str]) -> (Process, u16) {
    let all = [&["broker", "--json", "--listen", "tcp:127.0.0.1:0"], args].concat();
    let process = limited(world, ulimit, &all);
    let ready: serde_json::Value = serde_json::from_str(&process.out.first(Duration::from_secs(20))).unwrap();
    let port = ready["listen"][0].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
    (process, port)
}

fn soft_limit(pid: u32) -> u64 {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

#[test]
fn as_many_idle_guests_as_the_descriptors_allow_are_all_reachable() {
    let _alone = alone();
    // Some room for the load itself, which holds as many descriptors.
    let most = (descriptors().saturating_sub(2_000)).min(20_000);
    let guests = if full() { most } else { most.min(2_000) };
    let world = World::new();
    let (broker, port) = limited_broker(&world, "-Sn 256", &["--window", "30s", "--interval", "10s"]);
    assert_eq!(soft_limit(broker.pid()), descriptors(), "the broker raises its soft limit");
    let before = Usage::of(broker.pid());
    let (address, pid) = (format!("tcp:127.0.0.1:{port}"), broker.pid().to_string());
    let (count, seconds) = (guests.to_string(), if full() { "30" } else { "2" });
    let load = world.spawn(&[
        "bench",
        "idle",
        "--json",
        "--against",
        &address,
        "--pid",
        &pid,
        "--guests",
        &count,
        "--seconds",
        seconds,
        "--concurrency",
        "64",
    ]);
    let there = until(Duration::from_secs(300), || {
        // The document is long: whoever asks all the time keeps the broker from its guests.
        std::thread::sleep(Duration::from_millis(guests / 50));
        reachable(&world) == guests as usize
    });
    assert!(there, "{} of {guests} are reachable; {}", reachable(&world), load.err.text());
    let held = Usage::of(broker.pid());
    // Every row is in the document, and each is right.
    let ran = world.castra(&["status", "--json", "--timeout", "30s"]);
    assert_eq!(ran.code, 0);
    let document = ran.json();
    let rows = document["guests"].as_array().unwrap();
    assert_eq!(rows.len(), guests as usize);
    for row in rows {
        assert_eq!(
            (&row["state"], &row["proven"], &row["epoch"].is_u64()),
            (&"reachable".into(), &true.into(), &true)
        );
        assert!(row["last_handshake_age_ms"].as_u64().unwrap() <= 30_000, "{row}");
    }
    let grown = held.memory.saturating_sub(before.memory);
    let bound = guests * GUEST + BASE;
    figure(&format!(
        "idle guests: {guests} of {} descriptors, all reachable; RssAnon {} before, {} with them: {} bytes each \
         (bound {}); status of all of them in {:?}",
        descriptors(),
        kib(before.memory),
        kib(held.memory),
        grown / guests,
        kib(bound),
        ran.took
    ));
    assert!(grown <= bound, "{grown} bytes for {guests} guests, more than {bound}");
    // They stay, until the load ends: everybody was asked meanwhile.
    let ran = load.finish(Duration::from_secs(300));
    let report = ran.json();
    assert_eq!((ran.code, &report["failures"]), (0, &serde_json::json!({})), "{ran:?}");
    assert_eq!(report["proven_at_end"], guests);
    assert!(until(Duration::from_secs(60), || reachable(&world) == 0), "they are gone");
    figure(&format!(
        "idle guests: RssAnon after all {guests} hung up {}",
        kib(Usage::of(broker.pid()).memory)
    ));
}

#[test]
fn at_the_bound_of_connections_links_wait_outside_and_people_are_still_answered() {
    let _alone = alone();
    let world = World::new();
    let (broker, port) = limited_broker(&world, "-n 200", &["--window", "60s", "--interval", "20s"]);
    // 200 descriptors, of which 64 are for everything else; an eighth of the rest is for people.
    let (connections, reserve) = (200 - 64, (200 - 64) / 8);
    let places = connections - reserve;
    let mut links: Vec<Link> =
        (0..places).map(|number| Link::join(port, &format!("guest-{number}"))).collect();
    let crowd = Crowd::come(2, port, 50, b"");
    // Nobody is let in, and everybody is answered.
    for _ in 0..20 {
        assert_eq!(reachable(&world), places);
    }
    assert!(crowd.0.iter().all(|stream| stream.peek(&mut [0]).is_err()), "nobody was greeted");
    let people: Vec<_> = (0..reserve - 1).map(|_| world.control()).collect();
    assert_eq!(reachable(&world), places);
    drop(people);
    // One goes, and one of those who wait comes in.
    links.pop();
    let greeted = || crowd.0.iter().filter(|stream| stream.peek(&mut [0]).is_ok()).count();
    assert!(until(Duration::from_secs(10), || greeted() > 0), "a place was free");
    drop(crowd);
    let _again = Link::join(port, "again");
    figure(&format!(
        "connections: {places} links and {reserve} places for people at `ulimit -n 200`, 50 waited outside"
    ));
    drop(broker);
}

#[test]
fn the_table_of_guests_has_its_bound_and_whoever_is_in_it_stays() {
    let _alone = alone();
    let world = World::new();
    let broker = world.broker(&["--max-guests", "50", "--window", "60s", "--interval", "20s"]);
    let _links: Vec<Link> =
        (0..50).map(|number| Link::join(broker.port(), &format!("guest-{number}"))).collect();
    for number in 0..30 {
        let mut link = Link::greeted(broker.port());
        let challenge = link.hello(&format!("late-{number}"), "");
        link.send(format!("proof {}\n", challenge.nonce).as_bytes());
        let line = link.line();
        assert!(line.starts_with("error: busy: "), "{line}");
    }
    let document = world.control().status().unwrap();
    assert_eq!((document["guests"].as_array().unwrap().len(), reachable(&world)), (50, 50));
}
