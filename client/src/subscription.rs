//! What happened, and what happens: the stream of events.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use castra_core::control::reply::Gap;
use castra_core::event::{Cursor, Event};
use castra_core::id::GuestName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::connection::Client;
use crate::error::Error;

/// Which events, and from where on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Filter {
    /// After this one; `None`: what happens from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Cursor>,
    /// Only these kinds (`session.closed`), or families (`handshake.*`); empty: all. At most 64.
    pub kinds: Vec<String>,
    /// Only about these guests; empty: all. At most 4096.
    pub guests: Vec<GuestName>,
}

/// What a subscription brings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// Something happened.
    Event(Box<Event>),
    /// Something happened that is newer than this program.
    Other(OtherEvent),
    /// Events were lost here: this reader was too slow, or came too late, and the broker keeps
    /// the newest only (its `info` says how many), or it was started anew. The stream goes on behind
    /// this cursor; what is so now, [`Client::status`] says on another connection.
    Gap(Cursor),
    /// Nothing happened for as long as the bound is: a moment to look at something else.
    Quiet,
}

/// An event of a kind that this program doesn't know.
#[derive(Clone, Debug)]
pub struct OtherEvent {
    /// Its place in the stream.
    pub cursor: Cursor,
    /// What happened.
    pub kind: String,
    /// All of it.
    pub json: Box<RawValue>,
}

/// Events one after another, for as long as the broker serves. Each step of the iterator
/// takes at most the client's bound: then it is [`Notice::Quiet`].
///
/// After an error the iterator ends. [`Subscription::resume`] goes on where it was: nothing comes
/// twice, and what is lost is told as [`Notice::Gap`].
///
/// A reader that is too slow slows down nobody: the broker goes on, and once its ring has
/// passed the reader's place, the reader gets [`Notice::Gap`] and the newest.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    socket: PathBuf,
    filter: Filter,
    bound: Duration,
    came: Came,
    ended: bool,
}

/// What came with the first answer, and where it ends: behind all that the filter left out.
#[derive(Debug)]
struct Came {
    notices: VecDeque<Notice>,
    until: Cursor,
}

#[derive(Deserialize)]
struct First {
    events: Vec<Box<RawValue>>,
    cursor: Cursor,
    #[serde(default)]
    gap: bool,
}

#[derive(Deserialize)]
struct Head {
    cursor: Cursor,
    kind: String,
}

impl Client {
    /// Connects to `socket` and follows its events; connecting, the first answer and each step
    /// of the iterator within `bound`.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use castra_client::{Client, Filter, Notice, Place};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let filter = Filter { kinds: vec!["verdict.changed".into()], ..Filter::default() };
    /// for notice in Client::subscribe(&Place::find()?.socket, filter, Duration::from_secs(5))? {
    ///     match notice? {
    ///         Notice::Event(event) => println!("{event}"),
    ///         Notice::Gap(cursor) => println!("some were lost; going on at {cursor}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::connect`] and [`Client::request`].
    pub fn subscribe(socket: &Path, filter: Filter, bound: Duration) -> Result<Subscription, Error> {
        let (client, filter, came) = follow(socket, filter, bound)?;
        Ok(Subscription { client, socket: socket.to_path_buf(), filter, bound, came, ended: false })
    }
}

impl Subscription {
    /// Where it is: everything up to here was returned. Kept in a file, it is where the next
    /// process begins ([`Filter::since`]).
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.filter.since
    }

    /// Connects anew and goes on behind [`Subscription::cursor`], within the bound.
    ///
    /// # Errors
    /// As [`Client::subscribe`]; then it may be tried again. There is no wait in it: whoever
    /// tries again pauses before.
    pub fn resume(&mut self) -> Result<(), Error> {
        let (client, filter, came) = follow(&self.socket, self.filter.clone(), self.bound)?;
        (self.client, self.filter, self.came, self.ended) = (client, filter, came, false);
        Ok(())
    }

    fn step(&mut self) -> Result<Notice, Error> {
        if let Some(notice) = self.came.notices.pop_front() {
            return Ok(notice);
        }
        let Some(line) = self.client.next_line(self.bound)? else { return Ok(Notice::Quiet) };
        if line.event == "gap" {
            return Ok(Notice::Gap(line.parse::<Gap>()?.cursor));
        }
        event(line.data)
    }
}

impl Iterator for Subscription {
    type Item = Result<Notice, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step();
        match &step {
            Ok(notice) => self.filter.since = place(notice).or(self.filter.since).max(self.came.end()),
            Err(_) => self.ended = true,
        }
        Some(step)
    }
}

impl Came {
    /// Where it ends, once all of it was taken.
    fn end(&self) -> Option<Cursor> {
        self.notices.is_empty().then_some(self.until)
    }
}

/// The connection, where it is, and what came with the first answer.
fn follow(socket: &Path, mut filter: Filter, bound: Duration) -> Result<(Client, Filter, Came), Error> {
    #[derive(Serialize)]
    struct Params<'a> {
        #[serde(flatten)]
        filter: &'a Filter,
        follow: bool,
    }
    let mut client = Client::connect(socket, bound)?;
    let first: First = client.call("events", Params { filter: &filter, follow: true }, bound)?;
    let mut notices = first.events.into_iter().map(event).collect::<Result<VecDeque<_>, _>>()?;
    if first.gap {
        // The place just before the first: whoever ends there and comes again loses none.
        let before = |cursor: Cursor| Cursor { number: cursor.number.saturating_sub(1), ..cursor };
        notices.push_front(Notice::Gap(notices.front().and_then(place).map_or(first.cursor, before)));
    }
    let came = Came { notices, until: first.cursor };
    filter.since = came.end().or(filter.since);
    Ok((client, filter, came))
}

const fn place(notice: &Notice) -> Option<Cursor> {
    match notice {
        Notice::Event(event) => Some(event.cursor),
        Notice::Other(event) => Some(event.cursor),
        Notice::Gap(cursor) => Some(*cursor),
        Notice::Quiet => None,
    }
}

fn event(json: Box<RawValue>) -> Result<Notice, Error> {
    if let Ok(event) = serde_json::from_str::<Event>(json.get()) {
        return Ok(Notice::Event(Box::new(event)));
    }
    match serde_json::from_str::<Head>(json.get()) {
        Ok(Head { cursor, kind }) => Ok(Notice::Other(OtherEvent { cursor, kind, json })),
        Err(error) => Err(Error::Protocol { path: "events".into(), what: error.to_string() }),
    }
}
