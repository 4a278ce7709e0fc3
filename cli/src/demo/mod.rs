//! `castra demo`: a true story in a temporary directory.

mod cast;
mod stage;

use std::time::{Duration, Instant};

use castra_core::control::reply::Target;
use castra_core::status::{Reason, State};
use rustix::process::Signal;

use crate::Context;
use crate::args::Demo;
use crate::duration::{format, millis};
use crate::exit::{Exit, Outcome};
use cast::Cast;
use stage::Stage;

/// Small, so that the story is brisk; a real broker's are 15 s and 5 s.
const WINDOW: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(500);

/// How long anything in the story may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An expected row: who, state, reason.
type Row = (&'static str, State, Option<Reason>);

const fn reachable(name: &'static str) -> Row {
    (name, State::Reachable, None)
}

const fn waiting(name: &'static str, reason: Reason) -> Row {
    (name, State::Waiting, Some(reason))
}

pub(crate) fn run(cx: &mut Context, args: &Demo) -> Outcome {
    let mut stage = Stage::new(&mut cx.out, !args.once)?;
    let mut cast = Cast::assemble()?;
    let told = tell(&mut stage, &mut cast);
    // Everybody is ended before the last word, whatever happened.
    let words = if told.is_err() && !stage.interrupted() { cast.last_words() } else { String::new() };
    drop(cast);
    match told {
        Ok(()) => {
            stage.end("Everything was as expected. All processes are ended and the directory is removed.")?;
            Ok(Exit::Yes)
        }
        Err(mut failure) => {
            failure.message.push_str(&words);
            Err(failure)
        }
    }
}

fn tell(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), crate::exit::Failure> {
    stage.say(&format!(
        "A broker starts. It will challenge each guest every {}; whoever did not prove itself within {} is not reachable.",
        format(INTERVAL),
        format(WINDOW)
    ))?;
    cast.start_broker()?;
    stage.attend(cast.place().clone());
    let unseen = |name| waiting(name, Reason::NeverSeen);
    stage.expect(&[unseen("builder"), unseen("devbox"), unseen("sandbox")], PATIENCE)?;
    stage.show()?;

    stage.say(
        "Three agents start, each a process of its own. \
         builder has a token, so it must prove that it holds the key.",
    )?;
    cast.issue_token("builder")?;
    for name in ["builder", "devbox", "sandbox"] {
        cast.start_agent(name)?;
    }
    stage.expect(&[reachable("builder"), reachable("devbox"), reachable("sandbox")], PATIENCE)?;
    stage.expect_keyed("builder")?;
    stage.show()?;

    stage.say("devbox is frozen (SIGSTOP). Its connection stays open; only the missing answers tell.")?;
    let frozen = Instant::now();
    cast.signal("devbox", Signal::STOP)?;
    let stale = waiting("devbox", Reason::Stale);
    let noticed = stage.expect(&[stale, reachable("builder"), reachable("sandbox")], PATIENCE)?;
    stage.add(&format!("Noticed after {} ms.", millis(noticed.duration_since(frozen))))?;
    stage.show()?;

    stage.say("sandbox is killed (SIGKILL). Its link ends without a goodbye.")?;
    let killed = Instant::now();
    cast.kill("sandbox")?;
    let disconnected = waiting("sandbox", Reason::Disconnected);
    let noticed = stage.expect(&[stale, disconnected, reachable("builder")], PATIENCE)?;
    stage.add(&format!("Noticed after {} ms.", millis(noticed.duration_since(killed))))?;
    stage.show()?;

    stage.say("builder is asked to end (SIGTERM). It says goodbye first.")?;
    cast.signal("builder", Signal::TERM)?;
    stage.expect(&[waiting("builder", Reason::Goodbye), stale, disconnected], PATIENCE)?;
    stage.show()?;

    stage
        .say("All come back: devbox goes on (SIGCONT), the others start again and prove themselves anew.")?;
    cast.signal("devbox", Signal::CONT)?;
    cast.start_agent("sandbox")?;
    cast.start_agent("builder")?;
    stage.expect(&[reachable("builder"), reachable("devbox"), reachable("sandbox")], PATIENCE)?;
    stage.show()?;

    stage.say("Last, the broker stops. Without it nobody can tell, so nobody is called reachable.")?;
    cast.stop_broker(PATIENCE)?;
    stage.expect_offline(&["builder", "devbox", "sandbox"])?;
    stage.show()
}

/// What to wait for before the row can be checked.
fn target(&(_, state, _): &Row) -> Target {
    if state == State::Reachable { Target::Reachable } else { Target::Waiting }
}
