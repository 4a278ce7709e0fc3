//! A server of terminals that does what a test says, and remembers what it was asked.

mod terminal;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use castra_core::terminals::Exit;
use castra_core::terminals::wire::{
    CAPABILITIES, ErrorCode, Event, FRAME_MAX, Frames, Granted, Request, Role, append_error, append_event,
    append_granted, append_welcome,
};

use crate::PATIENCE;
use terminal::Terminal;

/// What clients must show, unless they come by a tunnel.
pub(crate) const TOKEN: &str = "aaaaaaaabbbbbbbbccccccccddddddddaaaaaaaabbbbbbbbccccccccdddddddd";

struct Connection {
    stream: UnixStream,
    client: String,
    role: Role,
    attached: Vec<u32>,
}

#[derive(Default)]
struct Inner {
    terminals: BTreeMap<u32, Terminal>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    /// Every request but handshakes, as text.
    asked: Vec<String>,
    /// Nobody is let in.
    closed: bool,
    /// Requests are heard, and nothing is said.
    silent: bool,
}

/// The fake.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    inner: Arc<(Mutex<Inner>, Condvar)>,
}

impl Fake {
    /// Serves at `terminals.sock` in a state directory.
    pub(crate) fn serve(dir: &Path) -> Self {
        std::fs::write(dir.join("terminals.token"), TOKEN).unwrap();
        let listener = UnixListener::bind(dir.join("terminals.sock")).unwrap();
        let fake = Self::default();
        let accepting = fake.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if !accepting.lock().closed {
                    accepting.talk(stream, TOKEN);
                }
            }
        });
        fake
    }

    /// Converses on a stream, in a thread of its own.
    pub(crate) fn talk(&self, stream: UnixStream, token: &'static str) {
        let fake = self.clone();
        thread::spawn(move || fake.converse(stream, token));
    }

    /// A running terminal of that name.
    pub(crate) fn add(&self, key: &str) -> u32 {
        let terminal = Terminal { cwd: Some("/src".into()), ..Terminal::new(Some(key.into())) };
        let mut inner = self.lock();
        let id = inner.terminals.keys().next_back().map_or(1, |id| id + 1);
        inner.terminals.insert(id, terminal);
        id
    }

    /// Changes a terminal.
    pub(crate) fn change(&self, id: u32, change: impl FnOnce(&mut Terminal)) {
        change(self.lock().terminals.get_mut(&id).unwrap());
    }

    /// The terminal now.
    pub(crate) fn terminal(&self, id: u32) -> Terminal {
        self.lock().terminals[&id].clone()
    }

    /// Waits until the terminal is as `is` wants it.
    pub(crate) fn until(&self, id: u32, what: &str, is: impl Fn(&Terminal) -> bool) {
        self.wait(what, |inner| inner.terminals.get(&id).is_some_and(&is));
    }

    /// Waits until somebody is attached to the terminal.
    pub(crate) fn until_attached(&self, id: u32) {
        self.wait("an attach", |inner| inner.connections.values().any(|one| one.attached.contains(&id)));
    }

    fn wait(&self, what: &str, is: impl Fn(&Inner) -> bool) {
        let end = Instant::now() + PATIENCE;
        let mut inner = self.lock();
        while !is(&inner) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not come about: {:?} {:?}", inner.asked, inner.terminals);
            inner = self.inner.1.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The program writes.
    pub(crate) fn output(&self, id: u32, bytes: &[u8]) {
        let mut inner = self.lock();
        let terminal = inner.terminals.get_mut(&id).unwrap();
        let offset = terminal.output.len() as u64;
        terminal.output.extend_from_slice(bytes);
        inner.tell(id, &Event::Output { session: id, data: bytes, offset: Some(offset) });
    }

    /// The program writes, and whoever is attached is too slow for it.
    pub(crate) fn skip(&self, id: u32, bytes: &[u8]) {
        let mut inner = self.lock();
        let terminal = inner.terminals.get_mut(&id).unwrap();
        terminal.output.extend_from_slice(bytes);
        terminal.gone = terminal.output.len();
        let snapshot = terminal.snapshot();
        let offset = snapshot.offset;
        let event = Event::Resync {
            session: id,
            snapshot: Cow::Owned(snapshot),
            offset,
            skipped_bytes: bytes.len() as u64,
        };
        inner.tell(id, &event);
    }

    /// The program ends.
    pub(crate) fn exit(&self, id: u32, code: i32, signal: Option<i32>) {
        let mut inner = self.lock();
        let exit = Exit { code, signal };
        inner.terminals.get_mut(&id).unwrap().exit = Some(exit);
        inner.tell(id, &Event::Exit { session: id, exit });
    }

    /// Its owner gives it another size.
    pub(crate) fn resize(&self, id: u32, cols: u16, rows: u16) {
        let mut inner = self.lock();
        let terminal = inner.terminals.get_mut(&id).unwrap();
        (terminal.cols, terminal.rows) = (cols, rows);
        inner.tell(id, &Event::Resized { session: id, cols, rows });
    }

    /// Somebody else owns it from now on.
    pub(crate) fn own(&self, id: u32, owner: Option<&str>) {
        let mut inner = self.lock();
        inner.terminals.get_mut(&id).unwrap().owner = owner.map(str::to_owned);
        inner.tell(id, &Event::OwnerChanged { session: id, owner });
    }

    /// Every connection is lost; nobody is let in until [`Fake::back`].
    pub(crate) fn lose(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.drop_all();
    }

    /// Every connection is lost, and may be made again at once.
    pub(crate) fn cut(&self) {
        self.lock().drop_all();
    }

    pub(crate) fn back(&self) {
        self.lock().closed = false;
    }

    /// From now on nothing is answered.
    pub(crate) fn silence(&self) {
        self.lock().silent = true;
    }

    /// What was asked so far, and forgotten by asking.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().asked)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn converse(&self, mut stream: UnixStream, token: &str) {
        let mut frames = Frames::default();
        let mut chunk = [0; 64 * 1024];
        let own = {
            let mut inner = self.lock();
            inner.next_connection += 1;
            inner.next_connection
        };
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            let mut bytes = &chunk[..count];
            while let Some(frame) = frames.next(&mut bytes, FRAME_MAX).unwrap() {
                let (seq, request) = Request::parse(frame).unwrap();
                let mut inner = self.lock();
                if let Request::Handshake(handshake) = &request {
                    let mut reply = vec![];
                    if handshake.token.0 == token.as_bytes() {
                        let connection = Connection {
                            stream: stream.try_clone().unwrap(),
                            client: handshake.client_id.into(),
                            role: handshake.role,
                            attached: vec![],
                        };
                        inner.connections.insert(own, connection);
                        append_welcome(seq, "0.2.0", 4711, &CAPABILITIES, &mut reply);
                    } else {
                        append_error(seq, ErrorCode::AuthFailed, "the token is wrong", &mut reply);
                    }
                    let _ = stream.write_all(&reply);
                } else {
                    inner.asked.push(format!("{request:?}"));
                    if !inner.silent {
                        inner.answer(own, seq, &request);
                    }
                }
                self.inner.1.notify_all();
            }
        }
        self.lock().connections.remove(&own);
        self.inner.1.notify_all();
    }
}

impl Inner {
    /// Tells whoever is attached.
    fn tell(&mut self, id: u32, event: &Event<'_>) {
        let mut bytes = vec![];
        append_event(event, &mut bytes);
        for connection in self.connections.values_mut().filter(|one| one.attached.contains(&id)) {
            let _ = connection.stream.write_all(&bytes);
        }
    }

    fn drop_all(&mut self) {
        for connection in std::mem::take(&mut self.connections).into_values() {
            let _ = connection.stream.shutdown(Shutdown::Both);
            for terminal in self.terminals.values_mut() {
                if terminal.owner.as_deref() == Some(&*connection.client) {
                    terminal.owner = None;
                }
            }
        }
    }

    fn answer(&mut self, own: u64, seq: u32, request: &Request<'_>) {
        let mut reply = vec![];
        if let Request::Snapshot { session, .. } = request
            && let Some(terminal) = self.terminals.get_mut(session)
        {
            if terminal.blind {
                return;
            }
            let (offset, burst) = (terminal.output.len() as u64, std::mem::take(&mut terminal.burst));
            terminal.output.extend_from_slice(&burst);
            if !burst.is_empty() {
                self.tell(*session, &Event::Output { session: *session, data: &burst, offset: Some(offset) });
            }
        }
        match self.granted(own, request) {
            Ok(granted) => append_granted(seq, &granted, &mut reply),
            Err(code) => append_error(seq, code, &format!("the server says {code}"), &mut reply),
        }
        let Some(connection) = self.connections.get_mut(&own) else { return };
        let _ = connection.stream.write_all(&reply);
        // What follows the answer.
        if let Request::Attach(attach) = request
            && let Some(terminal) = self.terminals.get(&attach.session)
        {
            let mut more = vec![];
            let from = attach.resume_from.filter(|from| terminal.has(*from));
            let from = from.map_or(terminal.output.len(), |from| usize::try_from(from).unwrap());
            if from < terminal.output.len() {
                let (offset, data) = (Some(from as u64), &terminal.output[from..]);
                append_event(&Event::Output { session: attach.session, data, offset }, &mut more);
            }
            if let Some(exit) = terminal.exit {
                append_event(&Event::Exit { session: attach.session, exit }, &mut more);
            }
            let _ = connection.stream.write_all(&more);
        }
        if let Request::Takeover { session } = request {
            let owner = connection.client.clone();
            self.tell(*session, &Event::OwnerChanged { session: *session, owner: Some(&owner) });
        }
    }

    fn granted(&mut self, own: u64, request: &Request<'_>) -> Result<Granted<'static>, ErrorCode> {
        let connection = self.connections.get_mut(&own).ok_or(ErrorCode::NotAuthenticated)?;
        let me = connection.client.clone();
        let mut granted = Granted::default();
        match request {
            Request::List => {
                let rows = self.terminals.iter().map(|(id, terminal)| terminal.row(*id, &me)).collect();
                return Ok(Granted { sessions: Some(rows), ..granted });
            }
            Request::Metrics => {
                granted.metrics = Some(vec![("sessions".into(), 1), ("owner_denials".into(), 12)]);
                return Ok(granted);
            }
            Request::Create(create) => {
                let key = create.session_key.map(str::to_owned);
                if self.terminals.values().any(|one| one.key == key && one.exit.is_none()) {
                    return Err(ErrorCode::AlreadyExists);
                }
                if create.cwd == Some("/nonexistent") {
                    return Err(ErrorCode::CwdMissing);
                }
                let id = self.terminals.keys().next_back().map_or(1, |id| id + 1);
                let terminal = Terminal {
                    command: create.command.iter().map(|word| (*word).to_owned()).collect(),
                    cwd: create.cwd.map(str::to_owned),
                    cols: create.cols.unwrap_or(80),
                    rows: create.rows.unwrap_or(24),
                    owner: Some(me),
                    env: create.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
                    ..Terminal::new(key)
                };
                self.terminals.insert(id, terminal);
                return Ok(Granted { session: Some(id), created: Some(true), ..granted });
            }
            _ => {}
        }
        let session = match request {
            Request::Attach(attach) => attach.session,
            Request::Detach { session }
            | Request::Input { session, .. }
            | Request::Resize { session, .. }
            | Request::Signal { session, .. }
            | Request::Kill { session }
            | Request::Takeover { session }
            | Request::Snapshot { session, .. } => *session,
            other => panic!("{other:?}"),
        };
        let terminal = self.terminals.get_mut(&session).ok_or(ErrorCode::NotFound)?;
        granted.session = Some(session);
        let changes = matches!(
            request,
            Request::Input { .. } | Request::Resize { .. } | Request::Signal { .. } | Request::Kill { .. }
        );
        if changes {
            if terminal.exit.is_some() {
                return Err(ErrorCode::NotFound);
            }
            if connection.role == Role::Stream {
                return Err(ErrorCode::RoleForbidden);
            }
            if *terminal.owner.get_or_insert_with(|| me.clone()) != me {
                return Err(ErrorCode::OwnerRequired);
            }
        }
        match request {
            Request::Attach(attach) => {
                connection.attached.push(session);
                if !attach.observe && connection.role == Role::Control {
                    terminal.owner.get_or_insert_with(|| me.clone());
                }
                let resumed = attach.resume_from.is_some_and(|from| terminal.has(from));
                granted.resumed = Some(resumed);
                granted.owner_is_you = Some(terminal.owner.as_ref() == Some(&me));
                // Leaked: a test is short.
                granted.owner = terminal.owner.clone().map(|owner| &*owner.leak());
                if resumed {
                    granted.offset = attach.resume_from;
                } else {
                    granted.offset = Some(terminal.output.len() as u64);
                    granted.snapshot = Some(Cow::Owned(terminal.snapshot()));
                }
            }
            Request::Detach { .. } => {
                connection.attached.retain(|attached| *attached != session);
                if terminal.owner.as_ref() == Some(&me) {
                    terminal.owner = None;
                }
            }
            Request::Input { data, .. } => {
                if terminal.full {
                    return Err(ErrorCode::LimitReached);
                }
                terminal.typed.extend_from_slice(data.0);
            }
            Request::Resize { cols, rows, .. } => (terminal.cols, terminal.rows) = (*cols, *rows),
            Request::Signal { signal, .. } => {
                if *signal == "NONSENSE" {
                    return Err(ErrorCode::InvalidSignal);
                }
                terminal.signals.push((*signal).into());
            }
            Request::Kill { .. } => terminal.exit = Some(Exit { code: 143, signal: Some(15) }),
            Request::Takeover { .. } => terminal.owner = Some(me),
            Request::Snapshot { .. } => granted.snapshot = Some(Cow::Owned(terminal.snapshot())),
            _ => {}
        }
        Ok(granted)
    }
}
