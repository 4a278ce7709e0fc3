//! Commands that are done and over: `new`, `send`, `resize`, `signal`, `kill`.

use std::io::Read;
use std::time::{Duration, Instant};

use castra_core::terminals::wire::{Create, ErrorCode, Request, Role, Secret};

use super::client::{Client, Within};
use super::door::Door;
use super::error::{WireError, failure};
use super::name::{TermName, Which};
use super::size::Size;
use super::{Found, TIMEOUT, attach};
use crate::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::say;
use crate::paths::Surroundings;
use crate::term_args::{Door as DoorArgs, How, New, OneTerminal, Resize, Send, Signal};

/// Bytes of one `input`.
const INPUT: usize = 32 * 1024;

/// Between two tries to type to a program that doesn't read.
const RETRY: Duration = Duration::from_millis(20);

/// `castra term new`.
pub(super) fn new(cx: &mut Context, at: &DoorArgs, args: &New) -> Outcome {
    let name = &args.terminal.name;
    let Which::Key(key) = &name.which else {
        return Err(Failure::usage("a new terminal gets its number from its server: give it a name"));
    };
    if args.attach {
        attach::check()?;
    }
    let within = Within::new(cx.timeout(TIMEOUT));
    let door = Door::to(name.place, at, &cx.global, &Surroundings::real())?;
    let size = args.size.or_else(|| Size::of(std::io::stdout())).unwrap_or(Size::USUAL);
    // On another machine this directory means nothing.
    let here = std::env::current_dir().ok().filter(|_| name.place.0.is_none());
    let here = here.and_then(|dir| dir.into_os_string().into_string().ok());
    let create = Create {
        session_key: Some(key),
        exclusive: true,
        cwd: args.cwd.as_deref().or(here.as_deref()),
        cols: Some(size.cols),
        rows: Some(size.rows),
        env: args.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        command: args.command.iter().map(String::as_str).collect(),
        ..Create::default()
    };
    let ask = || {
        let mut client = Client::open(&door, Role::Control, within)?;
        let grant = client.call(&Request::Create(Box::new(create)), within)?;
        Ok((client, grant.session.unwrap_or_default()))
    };
    let (mut client, id) = ask().map_err(|error| failure(error, name))?;
    if args.attach {
        let found = attach::Target { name: name.clone(), door, client, id };
        return attach::run(found, &How::default(), within);
    }
    // So that the next command need not wait until this one is forgotten.
    let _ = client.call(&Request::Detach { session: id }, within);
    cx.out.line(&format!("#{id}"))?;
    Ok(Exit::Yes)
}

/// `castra term send`.
pub(super) fn send(cx: &Context, at: &DoorArgs, args: &Send) -> Outcome {
    let bound = cx.timeout(TIMEOUT);
    let mut found = Found::find(cx, at, &args.terminal.name, Role::Control, Within::new(bound))?;
    let sent = type_all(&mut found, args, bound);
    release(&mut found, bound);
    sent.map(|()| Exit::Yes)
}

fn type_all(found: &mut Found, args: &Send, bound: Duration) -> Result<(), Failure> {
    let mut text = args.text.join(" ").into_bytes();
    if args.stdin {
        let mut chunk = vec![0; INPUT];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => type_in(found, &chunk[..count], bound)?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::io("can't read standard input", &error)),
            }
        }
    }
    if args.enter {
        text.push(b'\r');
    }
    text.chunks(INPUT).try_for_each(|chunk| type_in(found, chunk, bound))
}

/// Types; while the program doesn't read, tries again.
fn type_in(found: &mut Found, data: &[u8], bound: Duration) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let request = Request::Input { session: found.row.id, data: Secret(data) };
        match found.client.call(&request, Within::new(bound)) {
            Ok(_) => return Ok(()),
            Err(error) if error.code() == Some(ErrorCode::LimitReached) => {
                if begun.elapsed() >= bound {
                    let text = format!(
                        "{}'s program has not read for {}: what was sent before waits for it",
                        found.name,
                        crate::duration::format(bound)
                    );
                    return Err(Failure::new(Exit::Timeout, text));
                }
                std::thread::sleep(RETRY);
            }
            Err(error) => return Err(owned(error, found)),
        }
    }
}

/// `castra term resize`.
pub(super) fn resize(cx: &Context, at: &DoorArgs, args: &Resize) -> Outcome {
    let Size { cols, rows } = args.size;
    order(cx, at, &args.terminal.name, |session| Request::Resize { session, cols, rows })
}

/// `castra term signal`.
pub(super) fn signal(cx: &Context, at: &DoorArgs, args: &Signal) -> Outcome {
    let signal = &args.signal;
    order(cx, at, &args.terminal.name, |session| Request::Signal { session, signal, scope: None })
}

/// `castra term kill`.
pub(super) fn kill(cx: &Context, at: &DoorArgs, args: &OneTerminal) -> Outcome {
    let done = order(cx, at, &args.name, |session| Request::Kill { session })?;
    say(format_args!("{} was told to end: `castra term wait {0}` waits for it", args.name));
    Ok(done)
}

fn order<'a>(
    cx: &Context,
    at: &DoorArgs,
    name: &TermName,
    request: impl FnOnce(u32) -> Request<'a>,
) -> Outcome {
    let bound = cx.timeout(TIMEOUT);
    let within = Within::new(bound);
    let mut found = Found::find(cx, at, name, Role::Control, within)?;
    let request = request(found.row.id);
    let done = found.client.call(&request, within);
    release(&mut found, bound);
    done.map(|_| Exit::Yes).map_err(|error| owned(error, &found))
}

/// Gives back what the request claimed, if it did: otherwise the next one waits 2 s.
fn release(found: &mut Found, bound: Duration) {
    let session = found.row.id;
    // What was asked for is done, or not, whatever comes of this.
    let _ = found.client.call(&Request::Detach { session }, Within::new(bound));
}

/// The failure, with who owns the terminal if that is why.
fn owned(error: WireError, found: &Found) -> Failure {
    let owner = found.row.owner.as_ref().filter(|_| error.code() == Some(ErrorCode::OwnerRequired));
    let told = failure(error, &found.name);
    match owner {
        Some(owner) => Failure::new(told.exit, format!("{owner} owns it: {told}")),
        None => told,
    }
}
