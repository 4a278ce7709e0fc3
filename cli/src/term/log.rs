//! `castra term log`: what a program has written, byte for byte.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use castra_core::terminals::wire::{Attach, Request, Role};

use super::client::{Client, Within};
use super::error::{WireError, failure};
use super::follow::{Follow, Step, Wanted};
use super::{Found, TIMEOUT};
use crate::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::say;
use crate::term_args::{Door as DoorArgs, Log};

/// How much is looked for first; what a server keeps unless it is told otherwise.
const KEPT: u64 = 1 << 20;

/// Without -f: how long what is kept may take from one piece to the next.
const PIECE: Duration = Duration::from_secs(5);

/// `castra term log`.
pub(super) fn log(cx: &mut Context, at: &DoorArgs, args: &Log) -> Outcome {
    let within = Within::new(cx.timeout(TIMEOUT));
    let name = &args.terminal.name;
    let failed = |error| failure(error, name);
    let Found { door, mut client, row, .. } = Found::find(cx, at, name, Role::Stream, within)?;
    // What has ended grows no more.
    let follows = args.follow && !row.is_over();
    let (end, oldest) = kept(&mut client, row.id, within).map_err(failed)?;
    let from = args.from.unwrap_or(oldest);
    if from > end {
        let text = format!("the terminal has written {end} bytes so far: --from {from} is beyond them");
        return Err(Failure::usage(text));
    }
    let wanted = Wanted { session: row.id, role: Role::Stream, observe: true, history: Some(0) };
    let start = Some(from.max(oldest));
    let (mut follow, grant) = Follow::attach(door, client, wanted, start, within).map_err(failed)?;
    if !grant.resumed {
        // What was the oldest byte a moment ago is no longer kept.
        gap(follow.next.saturating_sub(from));
    } else if from < oldest {
        gap(oldest - from);
    }
    // The picture that came instead is none of the program's bytes.
    let first = follow.next;
    let mut fresh = !grant.resumed;
    loop {
        if !follows && follow.taken() >= end {
            return Ok(Exit::Yes);
        }
        let bound = (!follows).then(|| std::time::Instant::now() + PIECE);
        let stdout = io::stdout();
        let step = match follow.wait(bound, Some(stdout.as_fd())) {
            Ok(step) => step,
            Err(error) => {
                say(format_args!("it ended at byte {}: --from {0} goes on there", follow.taken()));
                return Err(failed(error));
            }
        };
        match step {
            Some(Step::Output(bytes)) if write(&bytes)? => {}
            Some(Step::Output(_)) => return Ok(Exit::Yes),
            Some(Step::Draw(..)) if fresh && follow.next == first => fresh = false,
            Some(Step::Draw(_, missing)) => gap(missing),
            Some(Step::Exit(_)) => return Ok(Exit::Yes),
            Some(_) => {}
            None if cx.out.gone() || !follows => return Ok(Exit::Yes),
            None => {}
        }
    }
}

/// How much was written, and the oldest byte that is kept.
fn kept(client: &mut Client, session: u32, within: Within) -> Result<(u64, u64), WireError> {
    let mut attach = |resume_from| {
        let attach = Attach { session, resume_from, history_lines: Some(0), observe: true };
        let grant = client.call(&Request::Attach(attach), within)?;
        // What comes of it is not wanted.
        client.call(&Request::Detach { session }, within)?;
        while client.next().is_some() {}
        let offset = grant.offset.or(grant.snapshot.map(|snapshot| snapshot.offset)).unwrap_or(0);
        Ok::<_, WireError>((grant.resumed, offset))
    };
    let (_, end) = attach(None)?;
    if end == 0 || attach(Some(0))?.0 {
        return Ok((end, 0));
    }
    // Somewhere between a byte that is not kept and the end: the usual place first.
    let (mut gone, mut there) = (0, end);
    let mut look = end.saturating_sub(KEPT);
    while there - gone > 1 {
        if attach(Some(look))?.0 {
            there = look;
        } else {
            gone = look;
        }
        look = gone + (there - gone) / 2;
    }
    Ok((end, there))
}

fn gap(missing: u64) {
    // A terminal that was started anew counts from far above everything before.
    if missing >= 1 << 32 {
        say("output is missing here: it is no longer kept");
    } else if missing > 0 {
        say(format_args!("{missing} bytes of output are missing here: they are no longer kept"));
    }
}

/// Whether somebody reads it.
fn write(bytes: &[u8]) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::io("can't write to standard output", &error)),
    }
}
