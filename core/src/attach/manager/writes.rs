//! Durable changes: prepared in order, and what becomes of memory when they are done.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::adopt::not_adopted;
use super::lanes::{Op, Why, Write};
use super::requests::Kind;
use super::{AGAIN, Manager, Post, Reply, SeatStage, Who};
use crate::attach::Stage;
use crate::attach::wire::AttachErrorCode;
use crate::boundary::{Change, Effect, EffectError};
use crate::broker::clients::problem;
use crate::broker::cx::Cx;
use crate::broker::facts::CommandId;
use crate::broker::guests::Guests;
use crate::control::reply::{ErrorBody, ErrorCode};
use crate::event::{Fact, MESSAGE_MAX, Storage, shortened};
use crate::id::{EffectId, GuestName};

impl Manager {
    /// Writes what may be written. A guest that is being forgotten waits.
    pub(crate) fn advance(&mut self, cx: &mut Cx, guests: &Guests, forgetting: impl Fn(&GuestName) -> bool) {
        if cx.draining {
            return self.lanes.abandon();
        }
        for guest in self.lanes.ready() {
            if !forgetting(&guest) {
                self.advance_lane(cx, guests, guest);
            }
        }
    }

    fn advance_lane(&mut self, cx: &mut Cx, guests: &Guests, guest: GuestName) {
        loop {
            let ops = self.lanes.take(guest);
            if ops.is_empty() {
                return;
            }
            let writes: Vec<Write> =
                ops.into_iter().filter_map(|op| self.prepare(cx, guests, guest, op)).collect();
            if !writes.is_empty() {
                let changes = writes.iter().map(|write| change(guest, write)).collect();
                let effect = cx.out.effect(Effect::Persist(changes));
                return self.effect_of(guest, effect, writes);
            }
        }
    }

    /// What an operation comes to now; `None`: nothing is to be written, and whoever
    /// waits has been answered.
    fn prepare(&mut self, cx: &mut Cx, guests: &Guests, guest: GuestName, op: Op) -> Option<Write> {
        match op {
            // Whoever was told that it failed, or left, must not find it done later.
            Op::Adopt { command, .. } | Op::Release { command } if self.requests.get(command).is_none() => {
                None
            }
            Op::Adopt { command, beach, link } => {
                self.prepare_adoption(cx, guests, guest, command, (beach, link))
            }
            Op::Renew => {
                let adopted = self.adopted.get_mut(&guest)?;
                if adopted.seat.is_none() {
                    adopted.renewing = false;
                    return None;
                }
                let record = adopted.record.clone();
                let record = self.renewed(cx, record, false);
                Some(Write::Record {
                    record: record.into(),
                    why: Why::Renewed { command: None, refresh: false },
                })
            }
            Op::Attach { who, session, handshake, code } => {
                self.prepare_attach(cx, guest, who, (&session, &handshake, &code))
            }
            Op::Lapse { handshake } => self.prepare_lapse(guest, &handshake),
            Op::Release { command } => {
                if self.adopted.contains_key(&guest) {
                    return Some(Write::Release { command });
                }
                self.fail(cx, command, not_adopted(&guest));
                None
            }
            Op::Enqueue { command, action } => {
                if self.requests.get(command).is_none() {
                    self.turn_away(&action);
                    return None;
                }
                if self.adopted.get(&guest).is_none_or(|adopted| adopted.record.stage == Stage::Pending) {
                    self.turn_away(&action);
                    self.fail(cx, command, not_adopted(&guest));
                    return None;
                }
                Some(Write::Enqueue { command, action })
            }
            Op::Settle { number, status, code, acked } => {
                self.adopted.get(&guest)?.queue.get(&number)?;
                Some(Write::Settle { number, status, code, acked })
            }
        }
    }

    /// It won't happen: the guest is forgotten.
    pub(super) fn drop_op(&mut self, cx: &mut Cx, guest: GuestName, op: Op) {
        match op {
            Op::Attach { who: who @ Who::Http(_), .. } => {
                self.answer_attach(cx, guest, who, Err(AttachErrorCode::UnknownSession));
            }
            Op::Enqueue { action, .. } => self.turn_away(&action),
            Op::Attach { .. }
            | Op::Adopt { .. }
            | Op::Renew
            | Op::Lapse { .. }
            | Op::Release { .. }
            | Op::Settle { .. } => {}
        }
    }

    /// An effect of ours ended; false: it isn't ours.
    pub(crate) fn on_done(
        &mut self,
        cx: &mut Cx,
        guests: &mut Guests,
        effect: EffectId,
        result: &Result<(), EffectError>,
    ) -> bool {
        let Some((guest, writes, counts)) = self.lanes.end(effect) else { return false };
        if let Err(error) = result {
            let message = shortened(&error.message, MESSAGE_MAX);
            cx.event(None, Fact::StorageFailed { what: Storage::Database, message });
        }
        for write in writes {
            match result {
                Ok(()) if counts => self.apply(cx, guests, guest, write),
                Ok(()) => match write {
                    Write::Record { why: Why::Attached { who }, .. } => {
                        self.answer_attach(cx, guest, who, Err(AttachErrorCode::UnknownSession));
                    }
                    Write::Enqueue { action, .. } => self.turn_away(&action),
                    Write::Record { .. } | Write::Release { .. } | Write::Settle { .. } => {}
                },
                Err(error) => self.undo(cx, guest, write, error),
            }
        }
        true
    }

    /// It is durable: memory follows, and whoever has to know is told.
    fn apply(&mut self, cx: &mut Cx, guests: &mut Guests, guest: GuestName, write: Write) {
        match write {
            Write::Record { record, why: Why::Adopted { command, fresh } } => {
                if fresh {
                    let ttl = cx.config.manager.code_ttl;
                    self.insert(cx, guests, *record, ttl);
                    if let Some((conn, true)) = super::seats::session_of(guests, &guest) {
                        self.seat(guest, conn, SeatStage::Told);
                        self.send_handshake(cx, guest, false);
                    }
                } else if let Some(adopted) = self.adopted.get_mut(&guest) {
                    adopted.record = *record;
                }
                self.adopted_durably(cx, guest, command);
            }
            Write::Record { record, why: Why::Renewed { command, refresh } } => {
                let Some(adopted) = self.adopted.get_mut(&guest) else { return };
                adopted.renewing = false;
                adopted.record = *record;
                if !refresh {
                    adopted.state = None;
                    adopted.lease_until = None;
                }
                self.date_code(cx, guest, cx.config.manager.code_ttl);
                if !refresh {
                    self.end_polls(guest, &super::Answer::unauthorized());
                }
                let seat = self.adopted.get(&guest).and_then(|adopted| adopted.seat.as_ref());
                // A session that began meanwhile may still say that it is attached.
                if seat.is_some_and(|seat| !matches!(seat.stage, SeatStage::Settling(_))) {
                    if !refresh {
                        self.set_stage(guest, SeatStage::Told);
                    }
                    self.send_handshake(cx, guest, refresh);
                }
                if let Some(command) = command {
                    self.adopted_durably(cx, guest, command);
                }
            }
            Write::Record { record, why: Why::Attached { who } } => {
                let Some(adopted) = self.adopted.get_mut(&guest) else { return };
                adopted.record = *record;
                self.on_attached(cx, guest, who);
            }
            Write::Record { record, why: Why::Lapsed } => {
                if let Some(adopted) = self.adopted.get_mut(&guest) {
                    adopted.record = *record;
                }
            }
            Write::Release { command } => {
                if let Some(released) = self.let_go(cx, guests, guest) {
                    self.conclude(cx, command, Ok(Reply::Released(released)));
                }
            }
            Write::Enqueue { command, action } => {
                self.leave_entrance(guest);
                self.on_enqueued(cx, command, *action);
            }
            Write::Settle { number, status, code, acked } => {
                self.on_settled(cx, guest, number, (status, code, acked));
            }
        }
    }

    /// It is not durable: nothing changed.
    fn undo(&mut self, cx: &mut Cx, guest: GuestName, write: Write, error: &EffectError) {
        let failed = || {
            let because = shortened(&error.message, MESSAGE_MAX);
            let text = format!("nothing changed ({because}); see that the disk has room and works");
            problem(ErrorCode::StorageFailed, text)
        };
        if let Some(command) = write.command() {
            self.fail(cx, command, failed());
        }
        match write {
            Write::Record { why: Why::Renewed { command: None, .. }, .. } => {
                if let Some(adopted) = self.adopted.get_mut(&guest) {
                    adopted.renewing = false;
                }
                self.set_stage(guest, SeatStage::Settling(cx.at() + AGAIN));
            }
            Write::Record { why: Why::Attached { who }, .. } => {
                self.answer_attach(cx, guest, who, Err(AttachErrorCode::StorageFailed));
            }
            Write::Enqueue { action, .. } => self.turn_away(&action),
            Write::Settle { number, .. } => self.unsettle(cx, guest, number),
            Write::Record { .. } | Write::Release { .. } => {}
        }
    }

    /// Answers a request, if it has no answer yet.
    pub(super) fn conclude(&mut self, cx: &mut Cx, command: CommandId, result: Result<Reply, ErrorBody>) {
        if let Some(request) = self.requests.close(cx, command) {
            self.post.push_back(Post::Reply(request.asker, result));
        }
    }

    pub(super) fn fail(&mut self, cx: &mut Cx, command: CommandId, error: ErrorBody) {
        self.conclude(cx, command, Err(error));
    }

    /// The bound of a request passed: it is told how far it got.
    pub(super) fn give_up_waiting(&mut self, cx: &mut Cx, command: CommandId) {
        let Some(request) = self.requests.get(command) else { return };
        let guest = request.guest;
        let text = match request.kind {
            Kind::Send { number, durable: true, .. } => return self.say_queued(cx, guest, command, number),
            Kind::Adopt { durable: true, .. } => format!(
                "{guest} did not attach in time; it stays adopted, and is told again: \
                 castra attachments shows attempt, next retry and last error"
            ),
            Kind::Adopt { .. } | Kind::Send { .. } | Kind::Release => String::from(
                "not durable in time; it may still become so: castra attachments shows what there is",
            ),
        };
        self.fail(cx, command, problem(ErrorCode::Timeout, text));
    }

    /// The broker stops: a request is told how far it got.
    pub(super) fn stop_waiting(&mut self, cx: &mut Cx, command: CommandId) {
        let Some(request) = self.requests.get(command) else { return };
        let guest = request.guest;
        if let Kind::Send { number, durable: true, .. } = request.kind {
            return self.say_queued(cx, guest, command, number);
        }
        self.fail(cx, command, problem(ErrorCode::ShuttingDown, "the broker is stopping"));
    }
}

fn change(guest: GuestName, write: &Write) -> Change {
    match write {
        Write::Record { record, .. } => Change::SetAttachment(record.clone()),
        Write::Release { .. } => Change::DropAttachment { guest },
        Write::Enqueue { action, .. } => Change::SetAction(action.clone()),
        Write::Settle { number, .. } => Change::DropAction { number: *number },
    }
}
