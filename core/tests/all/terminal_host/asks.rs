//! What clients do to a daemon, in a word each.

use castra_core::Input;
use castra_core::boundary::{CloseCause, Origin, PeerCred, Remote, Via};
use castra_core::id::ConnId;
use castra_core::terminals::wire::{
    Answer, Attach, Create, ErrorCode, Granted, Handshake, Message, Request, Role, Secret,
};

use super::{Host, Peer, TOKEN, UID};

impl Host {
    pub(crate) fn open_as(&mut self, cred: Option<PeerCred>, capacity: usize) -> ConnId {
        let conn = ConnId { index: self.next_conn, generation: 0 };
        self.next_conn += 1;
        self.peers.insert(conn, Peer::new(capacity));
        let (via, origin, remote) = (Via::Terminals, Origin::Accepted, Remote::Unknown);
        self.handle(Input::Opened {
            conn,
            via,
            origin,
            local: None,
            remote,
            peer_cred: cred,
            room: capacity,
        });
        conn
    }

    pub(crate) fn open(&mut self) -> ConnId {
        self.open_as(Some(PeerCred { uid: UID, gid: UID, pid: 4 }), 128 * 1024)
    }

    /// A client that is known.
    pub(crate) fn client(&mut self, id: &str, role: Role) -> ConnId {
        let conn = self.open();
        let seq = self.ask(conn, &Request::Handshake(Handshake::new(TOKEN, id, role)));
        assert!(matches!(self.answer(conn, seq), Some(Answer::Handshake { .. })));
        conn
    }

    pub(crate) fn control(&mut self, id: &str) -> ConnId {
        self.client(id, Role::Control)
    }

    pub(crate) fn close(&mut self, conn: ConnId) {
        self.handle(Input::Closed { conn, why: CloseCause::Eof });
        self.peers.get_mut(&conn).unwrap().open = false;
        self.run();
    }

    pub(crate) fn ask(&mut self, conn: ConnId, request: &Request<'_>) -> u32 {
        let peer = self.peers.get_mut(&conn).unwrap();
        peer.seq += 1;
        let seq = peer.seq;
        let mut frame = Vec::new();
        request.append(seq, &mut frame);
        self.send(conn, &frame);
        seq
    }

    pub(crate) fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.handle(Input::Bytes { conn, bytes });
        self.run();
    }

    pub(crate) fn answer(&self, conn: ConnId, seq: u32) -> Option<Answer<'_>> {
        match Message::parse(self.peers[&conn].answers.get(&seq)?).unwrap() {
            Message::Reply { answer, .. } => Some(answer),
            other => panic!("{other:?}"),
        }
    }

    /// Asks, and expects a yes at once.
    pub(crate) fn granted(&mut self, conn: ConnId, request: &Request<'_>) -> Granted<'_> {
        let seq = self.ask(conn, request);
        match self.answer(conn, seq) {
            Some(Answer::Granted(granted)) => *granted,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    /// Asks, and expects a no at once.
    pub(crate) fn refused(&mut self, conn: ConnId, request: &Request<'_>) -> ErrorCode {
        let seq = self.ask(conn, request);
        self.answer(conn, seq).and_then(|answer| answer.code()).unwrap_or_else(|| panic!("{request:?}"))
    }

    pub(crate) fn create(&mut self, conn: ConnId) -> u32 {
        self.granted(conn, &Request::Create(Box::default())).session.unwrap()
    }

    pub(crate) fn keyed(&mut self, conn: ConnId, key: &str) -> u32 {
        let create = Create { session_key: Some(key), ..Create::default() };
        self.granted(conn, &Request::Create(Box::new(create))).session.unwrap()
    }

    pub(crate) fn attach(&mut self, conn: ConnId, session: u32) -> Granted<'_> {
        self.granted(conn, &Request::Attach(Attach { session, ..Attach::default() }))
    }

    pub(crate) fn input(&mut self, conn: ConnId, session: u32, data: &[u8]) -> Result<(), ErrorCode> {
        let seq = self.ask(conn, &Request::Input { session, data: Secret(data) });
        match self.answer(conn, seq) {
            Some(Answer::Granted(_)) => Ok(()),
            Some(answer) => Err(answer.code().unwrap()),
            None => panic!("no answer"),
        }
    }

    /// Events so far, which are forgotten.
    pub(crate) fn events(&mut self, conn: ConnId) -> Vec<String> {
        let frames = std::mem::take(&mut self.peers.get_mut(&conn).unwrap().events);
        frames
            .iter()
            .map(|frame| match Message::parse(frame).unwrap() {
                Message::Event(event) => format!("{event:?}"),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        self.happened.iter().map(|event| event.fact.kind()).collect()
    }
}
