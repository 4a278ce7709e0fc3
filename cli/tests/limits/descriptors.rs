//! Descriptors run out: whoever is in stays, and the rest come in when there are some again.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::connections::limited_broker;
use crate::support::{Link, Process, World, until};
use crate::tools::{Crowd, Usage, alone, figure, full, standing};

const GUESTS: usize = 5;

/// A broker with guests that answer.
struct Busy {
    world: World,
    broker: Process,
    port: u16,
    guests: Vec<std::thread::JoinHandle<()>>,
    before: Vec<(String, serde_json::Value)>,
}

impl Busy {
    fn start(ulimit: &str) -> Self {
        let world = World::new();
        let (broker, port) = limited_broker(&world, ulimit, &["--window", "3s", "--interval", "500ms"]);
        let guests = (0..GUESTS).map(|number| Link::join(port, &format!("guest-{number}")).live()).collect();
        let before = (0..GUESTS).map(|number| standing(&world, &format!("guest-{number}"))).collect();
        // Its log is open, and has its own descriptor.
        let said = || world.log().matches("to=reachable").count();
        assert!(until(Duration::from_secs(20), || said() >= GUESTS), "{}", world.log());
        Self { world, broker, port, guests, before }
    }

    /// Everybody has been there all the time.
    fn check(&self) {
        for (number, before) in self.before.iter().enumerate() {
            assert_eq!(standing(&self.world, &format!("guest-{number}")), *before);
            assert_eq!(before.0, "reachable");
        }
    }

    fn end(self) {
        self.broker.kill();
        for guest in self.guests {
            guest.join().unwrap();
        }
    }
}

/// What the broker's process did in a span: share of a core, and how often it woke.
fn work(pid: u32, span: Duration) -> (f64, u64) {
    let (began, before) = (Instant::now(), Usage::of(pid));
    std::thread::sleep(span);
    let after = Usage::of(pid);
    ((after.cpu - before.cpu).as_secs_f64() / began.elapsed().as_secs_f64(), after.sleeps - before.sleeps)
}

/// Turns a second without anything to do but to ask five guests twice a second, and to look at
/// a door that rests ten times a second; and as much again for a machine with other cares.
const TURNS: u64 = 2 * (10 + 4 * GUESTS as u64 + 20);

#[test]
fn with_64_descriptors_guests_stay_proven_and_the_crowd_outside_costs_nothing() {
    let _alone = alone();
    let busy = Busy::start("-n 64");
    let crowd = Crowd::come(2, busy.port, 200, b"hello vm:crowd capabilities=proof-v1\n");
    let span = Duration::from_secs(if full() { 10 } else { 2 });
    let (share, turns) = work(busy.broker.pid(), span);
    busy.check();
    let ran = busy.world.castra(&["status"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(turns <= TURNS * span.as_secs(), "{turns} turns in {span:?}");
    drop(crowd);
    // Whoever comes now comes in, and nothing had to be done for it.
    let guest = Link::join(busy.port, "late").live();
    busy.check();
    figure(&format!(
        "64 descriptors: {GUESTS} guests stayed proven beside a crowd of 200; {:.1} % of a core, {} turns a second",
        share * 100.0,
        turns / span.as_secs()
    ));
    busy.end();
    guest.join().unwrap();
}

#[test]
fn when_the_kernel_has_no_descriptor_left_accepting_rests_and_goes_on_by_itself() {
    let _alone = alone();
    let busy = Busy::start("-n 512");
    let pid = busy.broker.pid();
    let limit = |count: u64| {
        let rlimit = Rlimit { current: Some(count), maximum: Some(512) };
        prlimit(Pid::from_raw(pid.cast_signed()), Resource::Nofile, rlimit).unwrap()
    };
    // A client that is in before is answered throughout.
    let mut inside = busy.world.control();
    assert!(inside.status().is_some());
    limit(first_free(pid));
    let fill: Vec<_> =
        (0..8).map(|_| UnixStream::connect(busy.world.state().join("control.sock")).unwrap()).collect();
    let crowd = Crowd::come(2, busy.port, 30, b"");
    let failed = || busy.world.log().matches("accept failed").count();
    assert!(until(Duration::from_secs(10), || failed() > 0), "the log says so:\n{}", busy.world.log());
    let span = Duration::from_secs(if full() { 10 } else { 2 });
    let (share, turns) = work(pid, span);
    assert!(turns <= TURNS * 2 * span.as_secs(), "{turns} turns in {span:?}");
    for (number, before) in busy.before.iter().enumerate() {
        let row = inside.row(&format!("guest-{number}"));
        assert_eq!((&row["state"], &row["epoch"]), (&"reachable".into(), &before.1));
    }
    // A command gets its answer or hears that there is none, in its time.
    let ran = busy.world.castra(&["status", "--timeout", "1s"]);
    assert!(matches!(ran.code, 0 | 3), "{ran:?}");
    assert!(ran.took < Duration::from_secs(15), "{ran:?}");
    let said = failed();
    assert!(said <= 2, "once for each door, not for each attempt: {said}\n{}", busy.world.log());
    limit(512);
    // Nobody connects anew: those who waited are let in.
    assert!(until(Duration::from_secs(10), || crowd.0[29].peek(&mut [0]).is_ok()), "the last is greeted");
    drop(fill);
    busy.check();
    let again = || busy.world.log().contains("accepting connections again");
    assert!(until(Duration::from_secs(10), again), "{}", busy.world.log());
    figure(&format!(
        "no descriptor left: {GUESTS} guests stayed proven, {said} lines of log in {span:?}; {:.1} % of a core, {} turns \
         a second; `castra status` ended with {} after {:.1?}; those who waited came in by themselves",
        share * 100.0,
        turns / span.as_secs(),
        ran.code,
        ran.took
    ));
    busy.end();
}

/// The lowest number that is no open descriptor's: what the kernel would give out next.
fn first_free(pid: u32) -> u64 {
    (0..).find(|number| !std::path::Path::new(&format!("/proc/{pid}/fd/{number}")).exists()).unwrap()
}
