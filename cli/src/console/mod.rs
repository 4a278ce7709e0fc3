//! `castra console`: one guest, its peers and its messages, on a terminal.
//!
//! One loop: threads bring keys, answers and events as inputs, the state takes
//! them and says what is to be asked, and what changed is drawn.

mod action;
mod command;
mod draw;
#[cfg(test)]
mod draw_tests;
mod feed;
mod inputs;
mod keys;
mod line;
mod orders;
mod panels;
mod screen;
mod state;
#[cfg(test)]
mod state_tests;
mod text;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use castra_core::id::GuestName;
use signal_hook::consts::SIGHUP;

use crate::Context;
use crate::args::Console;
use crate::exit::{Exit, Failure, Outcome};
use crate::offline::wall_now;
use crate::paths::{Place, Surroundings, peer_place};
use feed::Poke;
use inputs::{Effect, End, Input, Role};
use screen::Screen;
use state::State;

/// Ages move on once a second.
const TICK: Duration = Duration::from_secs(1);

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
    let (sender, inputs) = channel();
    let (poke, pokes) = channel();
    let mut signals = screen::signals().map_err(|error| Failure::io("can't listen for signals", &error))?;
    let mut screen = Screen::take().map_err(|error| Failure::io("can't draw on this terminal", &error))?;
    spawn("signals", &sender, move |inputs| {
        for signal in signals.forever() {
            let _ = inputs.send(Input::End(End::Signal(signal)));
        }
    });
    spawn("keys", &sender, screen::read);
    let (watched, followed) = (place.clone(), place.clone());
    spawn("watch", &sender, move |inputs| feed::watch(&watched, name, &pokes, inputs));
    spawn("events", &sender, move |inputs| feed::follow(&followed, inputs));
    let running = Running { place, sender, inputs, poke, color: cx.out.color };
    running.run(&mut screen, State::new(name, Instant::now(), wall_now()))
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

/// A thread that lasts as long as the console; if it breaks, the console ends.
fn spawn(what: &'static str, inputs: &Sender<Input>, work: impl FnOnce(&Sender<Input>) + Send + 'static) {
    struct Broken(&'static str, Sender<Input>);
    impl Drop for Broken {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let _ = self.1.send(Input::End(End::Broken(self.0)));
            }
        }
    }
    let broken = Broken(what, inputs.clone());
    std::thread::spawn(move || work(&broken.1));
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
            let wake = state.notice_ends().map_or(next_tick, |end| end.min(next_tick));
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
                        Effect::Ask(action) => feed::ask(&self.place, action, &self.sender),
                        // Without its thread the console is about to end.
                        Effect::Refresh { inbox } => drop(self.poke.send(Poke { inbox })),
                        Effect::End(End::Quit) => return Ok(Exit::Yes),
                        Effect::End(End::Signal(signal)) => return Ok(Exit::Signalled(signal)),
                        Effect::End(End::Broken(what)) => {
                            let text = format!("the console's {what} thread broke");
                            return Err(Failure::new(Exit::Internal, text));
                        }
                    }
                }
            }
        }
    }
}
