//! The checks that are about the broker, its place and its host.

use castra_core::event::{Event, Fact};
use castra_core::status::StatusOutcome;

use super::facts::{Answers, Asked, Facts, VIRTIO_PORTS};
use super::{Finding, Level, guests};
use crate::client::shown;
use crate::duration::format;

/// What came of looking.
pub(super) enum Looked {
    /// It can't be known now.
    Not,
    /// All is well, in words.
    Healthy(String),
    Found(Vec<Finding>),
}

impl Looked {
    fn or_healthy(findings: Vec<Finding>, what: impl FnOnce() -> String) -> Self {
        if findings.is_empty() { Self::Healthy(what()) } else { Self::Found(findings) }
    }
}

type Check = fn(&Facts) -> Looked;

/// All there are, in the order in which a person would look.
pub(super) const ALL: [(&str, Check); 12] = [
    ("broker", broker),
    ("place", place),
    ("disk", disk),
    ("storage", storage),
    ("version", version),
    ("descriptors", descriptors),
    ("window", window),
    ("clock", clock),
    ("guests", about_guests),
    ("conflicts", about_conflicts),
    ("link", link),
    ("virtio", virtio),
];

/// Less than this is not enough for the next commit and the next rotation.
const SPACE_LEAST: u64 = 64 << 20;
const SPACE_LOW: u64 = 512 << 20;

/// How far back an event still matters.
const RECENT_MS: i64 = 60 * 60 * 1000;

pub(super) fn finding(
    check: &'static str,
    level: Level,
    subject: impl Into<String>,
    what: impl Into<String>,
    fix: impl Into<String>,
) -> Finding {
    Finding { check, level, subject: subject.into(), what: what.into(), fix: fix.into() }
}

fn broker(facts: &Facts) -> Looked {
    let socket = shown(&facts.socket);
    let problem = |what: String, fix: &str| {
        Looked::Found(vec![finding("broker", Level::Problem, socket.clone(), what, fix)])
    };
    match &facts.asked {
        Asked::Answers(answers) => {
            let info = &answers.info;
            Looked::Healthy(format!(
                "the {} of version {} answers, process {}",
                info.role, info.version, info.pid
            ))
        }
        Asked::NoBroker if facts.socket_entry.is_some_and(|entry| entry.is_socket) => problem(
            "no broker serves; the socket is one that a killed broker left behind".into(),
            "`castra up` starts a broker and takes the socket over",
        ),
        Asked::NoBroker => problem(
            "no broker serves".into(),
            "`castra up` starts one; if one runs elsewhere, say where with --state-dir or CASTRA_STATE_DIR",
        ),
        Asked::NotAnswering => problem(
            match facts.holder {
                Some(pid) => format!(
                    "process {pid} holds the state directory and does not answer: stopped, or overloaded"
                ),
                None => "somebody listens and does not answer".into(),
            },
            "look at the process (`kill -CONT`, if it was stopped); `castra down --force` ends it, `castra up` starts another",
        ),
        Asked::Denied => problem(
            "the socket belongs to another user".into(),
            "be the broker's user, or root; or give --state-dir of a broker of your own",
        ),
        Asked::Other(what) => {
            problem(what.clone(), "use the castra that the broker is of: `castra version`, `castra info`")
        }
    }
}

fn place(facts: &Facts) -> Looked {
    let dir = shown(&facts.state_dir);
    let Some(entry) = facts.dir_entry else {
        return Looked::Healthy(format!("{dir} will be made when a broker starts"));
    };
    let mut found = Vec::new();
    let mut add =
        |level, what: String, fix: String| found.push(finding("place", level, dir.clone(), what, fix));
    if !entry.is_dir {
        add(
            Level::Problem,
            "this is no directory".into(),
            "move it away, or give another --state-dir".into(),
        );
    } else {
        if entry.uid != facts.uid && facts.uid != 0 {
            let fix = "be that user, or root, or give --state-dir of your own";
            add(Level::Problem, format!("it belongs to the user with number {}", entry.uid), fix.into());
        }
        if entry.mode & 0o077 != 0 {
            let fix = format!("chmod 0700 {dir}");
            add(Level::Warning, format!("others may look into it (mode {:04o})", entry.mode), fix);
        }
    }
    if let Some(socket) = facts.socket_entry.filter(|socket| !socket.is_socket) {
        let what = format!("{} is no socket (mode {:04o})", shown(&facts.socket), socket.mode);
        add(Level::Problem, what, "move it away: no broker can listen there".into());
    }
    Looked::or_healthy(found, || format!("{dir} is yours alone"))
}

fn disk(facts: &Facts) -> Looked {
    let Some(space) = facts.space else { return Looked::Not };
    let dir = shown(&facts.state_dir);
    let mib = space.free_bytes >> 20;
    let fix = "make room on the file system of the state directory; the broker goes on by itself";
    let mut found = Vec::new();
    if space.read_only {
        let fix = "mount it writable, or give another --state-dir";
        found.push(finding("disk", Level::Problem, dir.clone(), "the file system is read-only", fix));
    }
    if space.free_bytes < SPACE_LOW {
        let level = if space.free_bytes < SPACE_LEAST { Level::Problem } else { Level::Warning };
        found.push(finding("disk", level, dir.clone(), format!("{mib} MiB are free"), fix));
    }
    if space.files > 0 && space.free_files < 1000 {
        let what = format!("{} more files can be made", space.free_files);
        found.push(finding("disk", Level::Problem, dir, what, fix));
    }
    Looked::or_healthy(found, || format!("{mib} MiB are free"))
}

/// The newest word on each thing that is written.
fn storage(facts: &Facts) -> Looked {
    let Some(Answers { events, .. }) = facts.answers() else { return Looked::Not };
    let mut broken: Vec<(&str, &str, &Event)> = Vec::new();
    for event in events {
        match &event.fact {
            Fact::StorageFailed { what, message } => {
                broken.retain(|(which, ..)| *which != what.as_str());
                broken.push((what.as_str(), message, event));
            }
            Fact::StorageRecovered { what } => broken.retain(|(which, ..)| *which != what.as_str()),
            _ => {}
        }
    }
    let found = broken
        .into_iter()
        .map(|(which, message, event)| {
            let what = format!("could not be written at {}, and not since: {message}", event.at);
            let fix = "see the disk above; durable commands fail until then, verdicts are not affected";
            finding("storage", Level::Problem, which, what, fix)
        })
        .collect();
    Looked::or_healthy(found, || "everything that was to be written could be".into())
}

fn version(facts: &Facts) -> Looked {
    let Some(Answers { info, .. }) = facts.answers() else { return Looked::Not };
    let own = env!("CARGO_PKG_VERSION");
    if info.version == own {
        return Looked::Healthy(format!("both sides are castra {own}"));
    }
    let what = format!("it is castra {}, this program is {own}", info.version);
    let fix = "restart it with this program: `castra down`, `castra up`; guests come back by themselves";
    Looked::Found(vec![finding("version", Level::Warning, info.role.clone(), what, fix)])
}

fn descriptors(facts: &Facts) -> Looked {
    let (Some(Answers { info, .. }), Some(have)) = (facts.answers(), facts.descriptors) else {
        return Looked::Not;
    };
    let mut found = Vec::new();
    let subject = format!("process {}", info.pid);
    let fix = "raise the limit (LimitNOFILE= of its unit, `ulimit -n` before it) and start it again";
    if let Some(open) = have.open.filter(|open| open.saturating_mul(10) >= have.soft.saturating_mul(9)) {
        let what =
            format!("{open} of {} file descriptors are open: the next guests are not let in", have.soft);
        found.push(finding("descriptors", Level::Problem, subject, what, fix));
    } else if info.link.is_none() && have.soft < 1024 {
        let what = format!("it may open {} files, one for each guest and client", have.soft);
        found.push(finding("descriptors", Level::Warning, subject, what, fix));
    }
    Looked::or_healthy(found, || match have.open {
        Some(open) => format!("{open} of {} are open", have.soft),
        None => format!("{} may be open; how many are, root can see", have.soft),
    })
}

fn window(facts: &Facts) -> Looked {
    let Some((Answers { info, .. }, status)) = broker_answers(facts) else { return Looked::Not };
    let (window, interval) = (info.config.window_ms, info.config.interval_ms);
    let mut found = Vec::new();
    if window < interval.saturating_mul(3) {
        let what = format!(
            "a window of {window} ms holds fewer than three intervals of {interval} ms: one lost answer is doubt"
        );
        found.push(finding("window", Level::Problem, "settings", what, "raise --window or lower --interval"));
    }
    for row in &status.guests {
        let round_trip = row.rtt_us.unwrap_or(0) / 1000;
        if round_trip.saturating_mul(2) > window.saturating_sub(interval) {
            let what = format!(
                "answers take {round_trip} ms, the window is {window} ms: it will be doubted while it lives"
            );
            let fix = "raise --window to at least three intervals and four round trips";
            found.push(finding("window", Level::Warning, row.name.to_string(), what, fix));
        }
    }
    found.truncate(guests::MOST);
    Looked::or_healthy(found, || {
        let span = |ms| format(std::time::Duration::from_millis(ms));
        format!("{} for questions every {}", span(window), span(interval))
    })
}

fn clock(facts: &Facts) -> Looked {
    let Some((Answers { events, .. }, status)) = broker_answers(facts) else { return Looked::Not };
    let now = status.as_of.unix_millis();
    let recent = events.iter().filter(|event| now.saturating_sub(event.at.unix_millis()) < RECENT_MS);
    let (mut stalls, mut jumps) = (Vec::new(), Vec::new());
    for event in recent {
        match event.fact {
            Fact::BrokerStalled { late_ms } => stalls.push((late_ms, event.at)),
            Fact::ClockJumped { suspended_ms, .. } => jumps.push((suspended_ms, event.at)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Some((longest, at)) = stalls.iter().max() {
        let what = format!(
            "did not run {} times in the last hour, the longest at {at} for {longest} ms",
            stalls.len()
        );
        let fix =
            "give the host more processor time or memory (is it swapping?), or raise the broker's priority";
        found.push(finding("clock", Level::Warning, "broker", what, fix));
    }
    if let Some((longest, at)) = jumps.iter().max() {
        let what = format!(
            "was suspended {} times in the last hour, the longest at {at} for {longest} ms",
            jumps.len()
        );
        found.push(finding(
            "clock",
            Level::Note,
            "host",
            what,
            "nothing: guests were asked anew and not blamed",
        ));
    }
    Looked::or_healthy(found, || "the broker ran on time for the last hour".into())
}

fn about_guests(facts: &Facts) -> Looked {
    let Some((answers, status)) = broker_answers(facts) else { return Looked::Not };
    let rows = status.guests.len();
    Looked::or_healthy(guests::unwell(answers, status), || format!("{rows}, and nothing to say of any"))
}

fn about_conflicts(facts: &Facts) -> Looked {
    let Some((_, status)) = broker_answers(facts) else { return Looked::Not };
    Looked::or_healthy(guests::conflicts(status), || "no two guests fight for a name".into())
}

fn link(facts: &Facts) -> Looked {
    let Some(Answers { info, .. }) = facts.answers() else { return Looked::Not };
    let Some(link) = &info.link else {
        return Looked::Healthy("this is a broker; an agent's link is looked at there".into());
    };
    let to = info.listen.join(" ");
    if link.state == "up" {
        let proof = if link.authenticated { "the broker proved itself" } else { "unkeyed" };
        return Looked::Healthy(format!("up to {to}, {proof}"));
    }
    let why = link.last_error.as_deref().unwrap_or("no reason is known");
    let fix = if to.starts_with("vsock:") {
        "is the broker listening on that vsock port, and has this machine a vsock device?"
    } else if to.starts_with("serial:") {
        "see virtio; is a broker listening with `--listen unix:PATH,serial` at the other end?"
    } else {
        "is the broker listening there (`castra info` on the host), and does the network lead to it?"
    };
    Looked::Found(vec![finding("link", Level::Problem, to, format!("{}: {why}", link.state), fix)])
}

fn virtio(facts: &Facts) -> Looked {
    let fix = "give the machine `-device virtio-serial -device virtserialport,chardev=castra,name=castra.0`, and load virtio_console";
    let there = facts.virtio_ports.as_deref();
    let found: Vec<Finding> = facts
        .missing_devices
        .iter()
        .map(|device| {
            let ports = match there {
                None => format!("there is no {VIRTIO_PORTS}"),
                Some([]) => format!("{VIRTIO_PORTS} is empty"),
                Some(names) => format!("there are {}", names.join(", ")),
            };
            finding("virtio", Level::Problem, shown(device), format!("the port is missing: {ports}"), fix)
        })
        .collect();
    Looked::or_healthy(found, || "no port is missing".into())
}

fn broker_answers(facts: &Facts) -> Option<(&Answers, &StatusOutcome)> {
    let answers = facts.answers()?;
    Some((answers, answers.status.as_ref()?))
}
