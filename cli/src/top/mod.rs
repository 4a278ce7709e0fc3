//! `castra top`: all guests, live, on a terminal.
//!
//! One loop: threads bring keys, answers and events as inputs, the state takes
//! them and says what is to be asked, and what changed is drawn. The broker is
//! asked for the rows that are on the screen every second, and for all of them
//! as seldom as there are many; what changes in between comes as events.

mod columns;
mod command;
mod draw;
#[cfg(test)]
mod draw_tests;
mod feed;
mod guest;
mod guest_draw;
mod inputs;
mod keys;
mod look;
mod orders;
#[cfg(test)]
mod picture_tests;
mod pulse;
mod state;
#[cfg(test)]
mod state_tests;
mod table;

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use castra_core::event::Cursor;
use clap::Args;
use signal_hook::consts::SIGHUP;

use crate::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::offline::wall_now;
use crate::paths::Place;
use crate::tui::Stage;
use crate::tui::feed::{ask, follow};
use crate::tui::screen::Screen;
use inputs::{Ask, Effect, Input};
use look::Look;
use state::State;

/// Ages move on twice a second.
const TICK: Duration = Duration::from_millis(500);

/// From one drawing to the next, at least, unless a key was pressed.
const REST: Duration = Duration::from_millis(50);

/// Most inputs between two drawings: a flood of events can't stop the screen.
const INPUTS: usize = 1000;

/// What changes rows between two answers. Handshakes do not: there may be thousands a second.
const KINDS: [&str; 5] = ["verdict.changed", "session.closed", "guest.forgotten", "broker.*", "peer.*"];

/// Before every event of every broker: a stream from here begins with all that is kept.
const BEGINNING: Cursor = Cursor { incarnation: 0, number: 0 };

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Top {}

pub(crate) fn run(cx: &Context, _: Top) -> Outcome {
    let place = cx.place()?;
    if !Screen::is_possible() {
        return Err(Failure::usage(
            "castra top needs a terminal to draw on; castra status --watch prints the same as lines",
        ));
    }
    let Stage { mut screen, sender, inputs } = {
        let stage = Stage::take()?;
        let followed = place.clone();
        stage.spawn("events", move |inputs| follow(&followed, &KINDS, Some(BEGINNING), inputs));
        stage
    };
    let (asks, asked) = channel();
    let (answering, answers) = (place.clone(), sender.clone());
    crate::tui::spawn("answers", answers, move |inputs| feed::answer(&answering, &asked, inputs));
    let look = Look::new(cx.out.color, |name| std::env::var(name).ok());
    let mut state = State::new(Instant::now(), wall_now());
    let (mut next_tick, mut drawn_at) = (Instant::now(), Instant::now());
    loop {
        let now = Instant::now();
        let next_drawing = drawn_at + REST;
        if state.is_stale && (now >= next_drawing || state.is_pressed) {
            (state.is_stale, state.is_pressed, drawn_at) = (false, false, now);
            // The terminal went away; its signal may be on its way.
            if screen.draw(|frame| draw::draw(frame, &mut state, look)).is_err() {
                return Ok(Exit::Signalled(SIGHUP));
            }
        }
        let wakes = [Some(next_tick), state.next_ask(), state.is_stale.then_some(next_drawing)];
        let wake = wakes.into_iter().flatten().min().unwrap_or(next_tick);
        let first = inputs.recv_timeout(wake.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        state.tick(now, wall_now());
        if now >= next_tick {
            next_tick = now + TICK;
            state.is_stale = true;
        }
        let first = match first {
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(Exit::Yes),
        };
        let mut effects: Vec<Effect> = vec![];
        for input in first.into_iter().chain(inputs.try_iter()).take(INPUTS) {
            effects.extend(state.apply(input));
        }
        effects.extend(state.due());
        for effect in effects {
            if let Some(end) = carry_out(effect, &place, &asks, &sender) {
                return end;
            }
        }
    }
}

/// Does it; the program's end if that was it.
fn carry_out(effect: Effect, place: &Place, asks: &Sender<Ask>, sender: &Sender<Input>) -> Option<Outcome> {
    match effect {
        // Without its thread the program is about to end.
        Effect::Poll(what) => drop(asks.send(what)),
        Effect::Ask(action) => ask(place, action, sender),
        Effect::Terminals(guest) => feed::terminals(place, guest, sender),
        Effect::End(end) => return Some(end.outcome()),
    }
    None
}
