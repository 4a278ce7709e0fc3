//! `castra console`: one guest, its peers and its messages, on a terminal.
//!
//! One loop: threads bring keys, answers and events as inputs, the state takes
//! them and says what is to be asked, and what changed is drawn.

mod command;
mod draw;
#[cfg(test)]
mod draw_tests;
mod feed;
mod inputs;
mod keys;
mod orders;
mod panels;
mod state;
#[cfg(test)]
mod state_tests;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use castra_core::id::GuestName;
use signal_hook::consts::SIGHUP;

use crate::Context;
use crate::args::Console;
use crate::exit::{Exit, Failure, Outcome};
use crate::offline::wall_now;
use crate::paths::{Place, Surroundings, peer_place};
use crate::tui::Stage;
use crate::tui::feed::{ask, follow};
use crate::tui::screen::Screen;
use feed::Poke;
use inputs::{Effect, Input, Role};
use state::State;

/// Ages move on once a second.
const TICK: Duration = Duration::from_secs(1);

/// What may change the picture.
const KINDS: [&str; 4] = ["verdict.changed", "session.closed", "peer.*", "link.*"];

/// Most inputs between two drawings: a flood of events can't stop the screen.
const INPUTS: usize = 1000;

pub(crate) fn run(cx: &Context, args: &Console) -> Outcome {
    let global = &cx.global;
    let place = peer_place(&Surroundings::real(), global.state_dir.as_deref(), global.socket.as_deref())?;
    if !Screen::is_possible() {
        return Err(Failure::usage(
            "castra console needs a terminal to draw on; castra status, castra peers and castra inbox print the same as lines",
        ));
    }
    let name = name(&place, args.name)?;
    let (poke, pokes) = channel();
    let Stage { mut screen, sender, inputs } = stage(&place, name, pokes)?;
    let running = Running { place, sender, inputs, poke, color: cx.out.color };
    running.run(&mut screen, State::new(name, Instant::now(), wall_now()))
}

/// The terminal, and the threads that watch and follow.
fn stage(place: &Place, name: GuestName, pokes: Receiver<Poke>) -> Result<Stage<Input>, Failure> {
    let stage = Stage::take()?;
    let (watched, followed) = (place.clone(), place.clone());
    stage.spawn("watch", move |inputs| feed::watch(&watched, name, &pokes, inputs));
    stage.spawn("events", move |inputs| follow(&followed, &KINDS, None, inputs));
    Ok(stage)
}

/// The guest: the one that was named, or the one in which this runs.
fn name(place: &Place, given: Option<GuestName>) -> Result<GuestName, Failure> {
    match (given, feed::introduce(place)) {
        (None, Ok((_, Some(own)))) => Ok(own),
        (None, Ok((_, None))) => {
            Err(Failure::usage("which guest? castra console NAME; castra status lists all"))
        }
        (None, Err(error)) => Err(error.into()),
        (Some(name), Ok((Role::Agent, Some(own)))) if name != own => Err(Failure::usage(format!(
            "this is the agent of {own}: it shows nobody else's peers and messages, and so not those of {name}"
        ))),
        // Without a broker the console says so, and waits for one.
        (Some(name), _) => Ok(name),
    }
}

/// What the loop works with.
struct Running {
    place: Place,
    sender: Sender<Input>,
    inputs: Receiver<Input>,
    poke: Sender<Poke>,
    color: bool,
}

impl Running {
    fn run(&self, screen: &mut Screen, mut state: State) -> Outcome {
        let mut next_tick = Instant::now() + TICK;
        loop {
            if std::mem::take(&mut state.is_stale) {
                let drawn = screen.draw(|frame| draw::draw(frame, &mut state, self.color));
                // The terminal went away; its signal may be on its way.
                if drawn.is_err() {
                    return Ok(Exit::Signalled(SIGHUP));
                }
            }
            let wake = state.notices.ends().map_or(next_tick, |end| end.min(next_tick));
            let first = self.inputs.recv_timeout(wake.saturating_duration_since(Instant::now()));
            let now = Instant::now();
            state.tick(now, wall_now());
            if now >= next_tick {
                next_tick = now + TICK;
                state.is_stale = true;
            }
            let first = match first {
                Ok(input) => input,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(Exit::Yes),
            };
            for input in std::iter::once(first).chain(self.inputs.try_iter()).take(INPUTS) {
                for effect in state.apply(input) {
                    match effect {
                        Effect::Ask(action) => ask(&self.place, action, &self.sender),
                        // Without its thread the console is about to end.
                        Effect::Refresh { inbox } => drop(self.poke.send(Poke { inbox })),
                        Effect::End(end) => return end.outcome(),
                    }
                }
            }
        }
    }
}
