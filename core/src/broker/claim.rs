//! From a proof to a session: who gets the name.

use crate::boundary::CloseReason;
use crate::broker::cx::Cx;
use crate::broker::facts::{Notice, RowId, Urgency};
use crate::broker::guests::{Guests, Row};
use crate::broker::links::{Attempt, Links, Stage};
use crate::broker::session::Session;
use crate::event::{Fact, Failure, SessionEnd};
use crate::id::{BootTag, ConnId};
use crate::link::line;
use crate::liveness::{Evidence, Standing};
use crate::time::{WallTime, millis};

impl Links {
    /// `conn` proved itself. Nothing changes for anybody before it gets its `ok`.
    pub(crate) fn claim(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId) {
        let Some(Stage::Proving(attempt)) = self.table.get(conn).map(|link| &link.stage) else { return };
        let (epoch, once, keyed) = (attempt.epoch, attempt.hello.once, attempt.keys.is_some());
        let Ok(id) = attempt.row.map_or_else(|| guests.ensure(cx, attempt.hello.name), Ok) else {
            return self.refuse(cx, guests, conn, Failure::Busy);
        };
        let Some(row) = guests.get_mut(id) else { return };
        let overtaken = row.proven && row.epoch().is_some_and(|established| epoch < established);
        if overtaken && !planted!(cx.config, EpochNotFenced) {
            return self.refuse(cx, guests, conn, Failure::NameInUse);
        }
        let incumbent = row.session.filter(|other| *other != conn);
        let Some((incumbent, session)) =
            incumbent.and_then(|other| Some((other, self.table.get(other)?.session.as_ref()?)))
        else {
            return self.establish(cx, guests, conn);
        };
        if session.is_legacy() {
            return self.establish(cx, guests, conn);
        }
        if once {
            return self.refuse(cx, guests, conn, Failure::NameInUse);
        }
        if row.rare().contender.is_some() {
            return self.refuse(cx, guests, conn, Failure::Busy);
        }
        self.announce_conflict(cx, row, conn);
        if keyed {
            return self.establish(cx, guests, conn);
        }
        row.rare_mut().contender = Some(conn);
        let until = cx.at() + cx.config.conflict_timeout;
        if let Some(link) = self.table.get_mut(conn)
            && let Stage::Proving(attempt) = &mut link.stage
        {
            attempt.conflict_until = Some(until);
            if attempt.row.replace(id).is_none() {
                row.handshaking += 1;
            }
        }
        self.challenge_incumbent(cx, incumbent);
        self.rearm(cx, Some(guests), incumbent);
        self.rearm(cx, Some(guests), conn);
    }

    /// The proof counts: an older session of the name ends, this one begins.
    pub(crate) fn establish(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId) {
        let now = cx.at();
        let Some(link) = self.table.get_mut(conn) else { return };
        let (transport, remote) = (link.transport, link.remote());
        let Stage::Proving(attempt) = &link.stage else { return };
        let Ok(id) = attempt.row.map_or_else(|| guests.ensure(cx, attempt.hello.name), Ok) else {
            return self.refuse(cx, guests, conn, Failure::Busy);
        };
        let Stage::Proving(attempt) = core::mem::replace(&mut link.stage, Stage::Frames) else { return };
        let Attempt { hello, sent_at, epoch, keys, row, .. } = *attempt;
        let sent_at = if planted!(cx.config, AgeFromReceipt) { now } else { sent_at };
        if row.is_some() {
            self.end_attempt(guests, id, conn);
        }
        self.make_way(cx, guests, conn, id);
        let Some(row) = guests.get_mut(id) else { return };
        row.evidence = Some(Evidence { at: sent_at, received: now });
        row.proven = true;
        row.authenticated = keys.is_some();
        row.claimed = false;
        row.refused = false;
        row.handshakes += 1;
        row.last_wall = Some(WallTime::from_unix_millis(
            cx.now.wall.unix_millis().saturating_sub_unsigned(millis(now.since(sent_at))),
        ));
        row.set_epoch(epoch);
        row.boot = hello.boot.map(|[a, b, c, d, ..]| BootTag([a, b, c, d]));
        row.set_remote(transport, remote);
        if row.capabilities != hello.capabilities {
            row.capabilities = hello.capabilities.clone();
        }
        let authenticated = keys.is_some();
        let once = hello.once;
        if once {
            row.standing = Standing::OneShot;
        } else {
            row.standing = Standing::Open;
            row.session = Some(conn);
            row.since = now;
        }
        let greeting = Fact::HandshakeSuccess {
            epoch,
            transport,
            remote,
            capabilities: hello.capabilities,
            proven: true,
            authenticated,
            once,
        };
        if planted!(cx.config, DoubleGreeting) && row.rare().takeovers > 0 {
            cx.event(Some(hello.name), greeting.clone());
        }
        if planted!(cx.config, GreetingAfterVerdict) {
            guests.announce(cx, id);
        }
        cx.event(Some(hello.name), greeting);
        let answer = line::Ok {
            epoch,
            interval: cx.config.interval,
            window: cx.config.window,
            proof: keys.as_ref().map(|keys| keys.answer),
        };
        if let Some(link) = self.table.get_mut(conn) {
            link.transmit(cx, conn, |out| answer.append(out));
            if !once {
                let key = keys.map(|keys| keys.session);
                link.session = Some(Session::new(cx, id, epoch, key));
                cx.notify(Notice::Established { conn, row: id });
            }
        }
        self.leave_door(cx, conn);
        if once {
            guests.mark_idle(id);
            self.hang_up(cx, conn, CloseReason::Finished);
        }
        guests.announce(cx, id);
        cx.notify(Notice::Evidence(id, Urgency::Transition));
        // The incumbent of a conflict proved itself anew, on its own stream.
        if let Some(contender) = guests.get(id).and_then(|row| row.rare().contender) {
            self.refuse(cx, guests, contender, Failure::NameInUse);
        }
        self.rearm(cx, Some(guests), conn);
    }

    /// Ends whatever session stands under the name, and the stream's own. The
    /// newcomer's greeting follows at once, so the name's verdict is not
    /// announced in between.
    fn make_way(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, id: RowId) {
        let own = self.table.get(conn).and_then(|link| link.session.as_ref());
        if own.is_some_and(|session| session.row == Some(id)) {
            self.drop_session(cx, guests, conn, SessionEnd::Replaced);
        } else {
            // Serial: the guest behind the stream has another name now.
            self.end_session(cx, guests, conn, SessionEnd::Replaced);
        }
        let Some(row) = guests.get_mut(id) else { return };
        let (session, legacy) = (row.session, row.rare().legacy);
        if session.is_some() {
            row.note_takeover(&cx.config, cx.now.boot);
        }
        for other in session.into_iter().chain(legacy.filter(|other| Some(*other) != session)) {
            self.say_bye(cx, other, SessionEnd::Superseded);
            if planted!(cx.config, SupersededRefreshes) {
                continue;
            }
            self.drop_session(cx, guests, other, SessionEnd::Superseded);
            self.part(cx, other, CloseReason::Ended);
        }
    }

    fn announce_conflict(&self, cx: &mut Cx, row: &Row, conn: ConnId) {
        let Some(link) = self.table.get(conn) else { return };
        let fact = Fact::NameConflict {
            transport: link.transport,
            remote: link.remote(),
            takeovers: row.rare().takeovers,
        };
        cx.event(Some(row.name()), fact);
    }
}
