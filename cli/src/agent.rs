//! `castra agent`: the command line as the driver wants it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use castra_core::auth::Key;
use castra_core::capabilities::Capabilities;
use castra_core::config::{AgentConfig, Identity};
use castra_core::event::{Event, Fact, LinkEnd};
use castra_core::id::GuestName;
use castra_core::peers::{InboxSettings, Policy};
use castra_driver::supervisor::Supervisor;
use zeroize::Zeroizing;

use crate::args::{Agent, AgentOrder};
use crate::attach::environment;
use crate::broker::keep_memory_private;
use crate::client::{self, ClientError, shown};
use crate::duration::format;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{printable, say};
use crate::paths::{Surroundings, agent_socket, inbox_dir};
use crate::run::ConnectAddress;
use crate::run::agent::{AgentError, AgentOptions, InboxPlace};
use crate::simple;
use crate::{Context, term};

/// Default of `--timeout` with `--once`.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Lines that may wait for whoever reads standard error.
const LINES_WAITING: usize = 256;

/// How long the last lines may take.
const LAST_LINES: Duration = Duration::from_millis(200);

const FIRMWARE_TOKEN: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/castra/token/raw";

pub(crate) fn run(cx: &mut Context, args: &Agent) -> Outcome {
    match (args.order, args.name, &args.connect) {
        (Some(order), ..) => tell(cx, order),
        (None, Some(name), Some(connect)) => serve(cx, args, name, connect),
        (None, ..) => Err(Failure::usage("an agent needs --name NAME and --connect ADDRESS")),
    }
}

/// Tells the agent that runs here something.
fn tell(cx: &mut Context, order: AgentOrder) -> Outcome {
    let (method, format, done) = match order {
        AgentOrder::Hold(format) => ("hold", format, "on hold: this guest asks nobody to be its peer"),
        AgentOrder::Resume(format) => ("resume", format, "the hold is over"),
    };
    let place = cx.place()?;
    let params = serde_json::json!({});
    match client::ask(&place.socket, method, params, cx.timeout(simple::QUICK)) {
        Ok(reply) => simple::finish(cx, &reply, format, format_args!("{done}")),
        Err(ClientError::NoBroker { path }) => Err(Failure::new(
            Exit::Offline,
            format!("no agent listens at {path}: say where it does with --socket or CASTRA_AGENT_SOCKET"),
        )),
        Err(error) => Err(error.into()),
    }
}

/// Is the agent.
fn serve(cx: &Context, args: &Agent, name: GuestName, connect: &ConnectAddress) -> Outcome {
    // A single proof is over before a manager asks.
    let supervisor = if args.once { Supervisor::none() } else { crate::run::supervisor(false)? };
    keep_memory_private();
    let around = Surroundings::real();
    let managers = environment::read(&args.managers.manager_url, &around)?;
    let config = AgentConfig {
        capabilities: capabilities(&args.capabilities)?,
        token: token(args.token_file.as_deref(), &around)?,
        once: args.once,
        inbox: Some(InboxSettings {
            policy: args.peers.map_or(Policy::Default, Policy::from),
            require_authenticated: args.require_authenticated,
            ..InboxSettings::default()
        }),
        trust_unkeyed_broker: args.managers.trust_unkeyed_broker,
        attach: managers.settings,
        // The driver fills in the rest, the boot id included.
        identity: Identity { version: env!("CARGO_PKG_VERSION").into(), ..Identity::default() },
        #[cfg(feature = "planted")]
        planted: crate::planted::bug(),
        ..AgentConfig::new(name)
    };
    args.child.apply()?;
    let socket = if args.once { None } else { socket(cx, &name, &around)? };
    // Several agents may have their sockets in one directory.
    let hosted = args.managers.hosted(args.hosted);
    if !args.managers.exec.is_empty() && socket.is_none() {
        return Err(Failure::usage(
            "a program needs a place for its terminals' socket: --socket chooses one",
        ));
    }
    let terminals = socket.as_deref().map(|socket| term::serve::beside(socket, "terminals.sock"));
    let options = AgentOptions {
        config,
        connect: connect.clone(),
        terminals: args.terminals_socket.clone(),
        hosted: terminals.and_then(|terminals| term::serve::beside_it(hosted, terminals, None)),
        exec: args.managers.program(),
        socket,
        inbox: inbox(args.inbox.as_deref(), &name, &around),
        record: args.record.clone(),
    };
    if args.once {
        return once(options, cx.timeout(TIMEOUT));
    }
    let mut teller = Teller::start()?;
    let warn = |warnings: &[String]| {
        for warning in managers.warning.iter().chain(warnings) {
            say(format_args!("WARN {}", printable(warning)));
        }
    };
    let ended = crate::run::agent::run(options, &supervisor, warn, |event| teller.tell(event));
    teller.finish();
    ended?;
    Ok(Exit::Yes)
}

/// What the events of a single handshake came to.
#[derive(Default)]
struct Single {
    proven: bool,
    refused: Option<String>,
    /// Why the newest try made no link.
    lost: Option<LinkEnd>,
    /// Trying again would bring the same answer.
    settled: bool,
}

impl Single {
    fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::LinkDown { reason: LinkEnd::Finished, .. } => self.proven = true,
            Fact::LinkDown { reason, .. } => self.lost = Some(*reason),
            Fact::LinkRefused { code, .. } => {
                self.settled = !matches!(code.as_str(), "busy" | "timeout");
                self.refused = Some(format!("{}{}", printable(code), advice(code)));
            }
            Fact::BrokerUnproven { .. } => {
                self.settled = true;
                self.refused = Some(
                    "the broker does not know this guest's token: issue one with `castra token issue`".into(),
                );
            }
            // A later try that found nobody does not undo what the broker said.
            _ => {}
        }
    }

    fn outcome(self, connect: &ConnectAddress, late: Option<Duration>) -> Outcome {
        match (self.proven, self.refused, late) {
            (true, _, _) => Ok(Exit::Yes),
            (false, Some(code), _) => Err(Failure::new(Exit::Refused, format!("refused: {code}"))),
            (false, None, Some(bound)) => {
                let why = match self.lost {
                    Some(LinkEnd::Unreachable) => {
                        format!(
                            "{connect} can't be reached: does a broker listen there, and may this user connect?"
                        )
                    }
                    Some(reason) => format!("the last link to {connect} ended: {}", reason.as_str()),
                    None => format!("{connect} did not answer"),
                };
                Err(Failure::new(Exit::Timeout, format!("not proven within {}: {why}", format(bound))))
            }
            (false, None, None) => Err(Failure::new(Exit::No, "ended without a proof")),
        }
    }
}

/// What to do about a refusal, as the rest of a sentence.
fn advice(code: &str) -> &'static str {
    match code {
        "token-required" | "bad-line" => {
            " (if the name has a token, give it with --token-file; `castra logs` on the host may tell more)"
        }
        "bad-proof" => {
            " (the token is not the one that the broker knows: `castra token issue` gives a new one)"
        }
        "unknown-name" => " (the broker admits only names of its --guest and names with a token)",
        "name-in-use" => " (another live guest has the name)",
        _ => "",
    }
}

enum Word {
    Event(Box<Event>),
    End(Result<(), AgentError>),
}

/// The driver runs on a thread of its own, so that the bound holds whatever it does.
fn once(options: AgentOptions, bound: Duration) -> Outcome {
    let deadline = Instant::now() + bound;
    let connect = options.connect.clone();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let tell = |event: &Event| {
            let _ = sender.send(Word::Event(Box::new(event.clone())));
        };
        let ended = crate::run::agent::run(options, &Supervisor::none(), |_| {}, tell);
        let _ = sender.send(Word::End(ended.map(drop)));
    });
    let mut teller = Teller::start()?;
    let outcome = follow(&receiver, &connect, (deadline, bound), &mut teller);
    teller.finish();
    outcome
}

fn follow(
    receiver: &Receiver<Word>,
    connect: &ConnectAddress,
    (deadline, bound): (Instant, Duration),
    teller: &mut Teller,
) -> Outcome {
    let mut single = Single::default();
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Word::Event(event)) => {
                teller.tell(&event);
                single.note(&event.fact);
                if single.settled {
                    return single.outcome(connect, None);
                }
            }
            Ok(Word::End(Ok(()))) => return single.outcome(connect, None),
            Ok(Word::End(Err(error))) => return Err(error.into()),
            Err(_) => return single.outcome(connect, Some(bound)),
        }
    }
}

/// Events on standard error, from a thread of their own: a reader that is slow
/// or stopped costs lines, and never the guest its proofs or its end.
struct Teller {
    lines: SyncSender<String>,
    thread: JoinHandle<()>,
    lost: u64,
}

impl Teller {
    fn start() -> Result<Self, Failure> {
        let (lines, waiting) = mpsc::sync_channel::<String>(LINES_WAITING);
        let write = move || waiting.iter().for_each(|line| drop(writeln!(io::stderr().lock(), "{line}")));
        let thread = std::thread::Builder::new()
            .spawn(write)
            .map_err(|error| Failure::io("can't start a thread for the log", &error))?;
        Ok(Self { lines, thread, lost: 0 })
    }

    fn tell(&mut self, event: &Event) {
        let mut text = crate::events::log_line(event, "");
        if self.lost > 0 {
            text = format!("{} lines were lost here: nobody read them\n{text}", self.lost);
        }
        match self.lines.try_send(text) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
    }

    /// Waits for the last lines, but not for a reader that has stopped.
    fn finish(self) {
        drop(self.lines);
        let end = Instant::now() + LAST_LINES;
        while !self.thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn capabilities(words: &[String]) -> Result<Capabilities, Failure> {
    let kept = Capabilities::collect(words.iter().map(String::as_str));
    match words.iter().find(|word| !kept.has(word)) {
        None => Ok(kept),
        Some(word) => Err(Failure::usage(format!(
            "the capability \"{word}\" can't be told: at most {} words of visible ASCII without commas and quotes, {} bytes in all",
            Capabilities::MAX_COUNT,
            Capabilities::MAX_BYTES
        ))),
    }
}

/// Where the guest's messages are kept: only a place that was asked for must do.
fn inbox(given: Option<&Path>, name: &GuestName, around: &Surroundings<'_>) -> Option<InboxPlace> {
    match given {
        Some(directory) => Some(InboxPlace { directory: directory.to_owned(), required: true }),
        None => inbox_dir(around, name).map(|directory| InboxPlace { directory, required: false }),
    }
}

/// Where the agent listens; nowhere when the default place can't be had.
fn socket(cx: &Context, name: &GuestName, around: &Surroundings<'_>) -> Result<Option<PathBuf>, Failure> {
    if let Some(path) = &cx.global.socket {
        return Ok(Some(path.clone()));
    }
    let path = agent_socket(around, name)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        Ok(()) => Ok(Some(path)),
        Err(error) => {
            say(format_args!(
                "no local control socket: can't make {}: {error}; --socket chooses a place",
                shown(folder)
            ));
            Ok(None)
        }
    }
}

/// The first token there is: file, systemd credential, QEMU firmware entry, environment.
fn token(file: Option<&Path>, around: &Surroundings<'_>) -> Result<Option<Key>, Failure> {
    if let Some(path) = file {
        return key_in(path).map(Some);
    }
    let credential = (around.env)("CREDENTIALS_DIRECTORY").map(|dir| PathBuf::from(dir).join("castra.token"));
    for path in credential.into_iter().chain([PathBuf::from(FIRMWARE_TOKEN)]) {
        match read(&path) {
            Ok(text) => return key(&text, &shown(&path)).map(Some),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            // Somebody meant this guest to have a token: going on without one would be a lie.
            Err(error) => {
                return Err(Failure::io(format_args!("can't read the token in {}", shown(&path)), &error));
            }
        }
    }
    match (around.env)("CASTRA_TOKEN") {
        Some(text) => {
            let text = Zeroizing::new(text.into_encoded_bytes());
            key(std::str::from_utf8(&text).unwrap_or_default(), "CASTRA_TOKEN").map(Some)
        }
        None => Ok(None),
    }
}

/// The token in a file, which should be nobody else's to read.
pub(crate) fn key_in(path: &Path) -> Result<Key, Failure> {
    let text = read(path)
        .map_err(|error| Failure::io(format_args!("can't read the token in {}", shown(path)), &error))?;
    if fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o077 != 0) {
        say(format_args!("warning: others may read {0}: chmod 600 {0}", shown(path)));
    }
    key(&text, &shown(path))
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    // It doesn't grow: growing would leave a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(257));
    File::open(path)?.take(256).read_to_string(&mut text)?;
    Ok(text)
}

/// The text itself is never shown, right or wrong.
fn key(text: &str, source: &str) -> Result<Key, Failure> {
    text.trim_matches(['\0', ' ', '\t', '\r', '\n']).parse().map_err(|_| {
        Failure::usage(format!(
            "what is in {source} is no token: it must be the 64 hex digits of `castra token issue`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

    fn found(file: Option<&Path>, vars: &[(&str, OsString)]) -> Result<Option<String>, Failure> {
        let env = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        let around = Surroundings { env: &env, root: false };
        token(file, &around).map(|key| key.map(|key| key.expose_token()))
    }

    #[test]
    fn the_token_comes_from_the_first_source_that_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t");
        fs::write(&file, format!("{A}\n")).unwrap();
        fs::write(dir.path().join("castra.token"), B).unwrap();
        let both = [("CREDENTIALS_DIRECTORY", dir.path().into()), ("CASTRA_TOKEN", C.into())];
        assert_eq!(found(Some(&file), &both).unwrap().as_deref(), Some(A));
        assert_eq!(found(None, &both).unwrap().as_deref(), Some(B));
        assert_eq!(found(None, &both[1..]).unwrap().as_deref(), Some(C));
        assert_eq!(found(None, &[]).unwrap(), None);
    }

    #[test]
    fn a_broken_token_is_an_error_that_does_not_show_it() {
        let secret = &A[..63];
        let failure = found(None, &[("CASTRA_TOKEN", secret.into())]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(!failure.message.contains(&secret[..8]), "{}", failure.message);
        assert!(found(Some(Path::new("/nonexistent/token")), &[("CASTRA_TOKEN", C.into())]).is_err());
    }

    #[test]
    fn a_single_handshake_ends_as_the_broker_said() {
        let refused = Fact::LinkRefused { code: "bad-proof".into(), retry_ms: None };
        let connect: ConnectAddress = "tcp:127.0.0.1:7070".parse().unwrap();
        let end = |facts: &[Fact], late| {
            let mut single = Single::default();
            facts.iter().for_each(|fact| single.note(fact));
            single.outcome(&connect, late).unwrap_or_else(|failure| failure.exit)
        };
        let bound = Some(Duration::from_secs(1));
        assert_eq!(
            end(&[Fact::LinkDown { reason: LinkEnd::Finished, retry_ms: None, error: None }], None),
            Exit::Yes
        );
        assert_eq!(end(std::slice::from_ref(&refused), None), Exit::Refused);
        let settled = |code: &str| {
            let mut single = Single::default();
            single.note(&Fact::LinkRefused { code: code.into(), retry_ms: Some(1) });
            single.settled
        };
        assert!(settled("bad-proof") && settled("token-required"));
        assert!(!settled("busy"), "another try may be let in");
        assert_eq!(end(&[refused, Fact::LinkDialing { attempt: 2 }], bound), Exit::Refused);
        assert_eq!(end(&[Fact::LinkDialing { attempt: 1 }], bound), Exit::Timeout);
    }

    #[test]
    fn a_capability_that_can_not_be_told_is_refused_rather_than_dropped() {
        assert_eq!(capabilities(&["metrics".into(), "exec".into()]).unwrap().as_str(), "exec,metrics");
        assert_eq!(capabilities(&["a,b".into()]).unwrap_err().exit, Exit::Usage);
    }
}
