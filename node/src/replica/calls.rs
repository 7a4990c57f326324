//! The calls that are open: where each of them stands, and how it ends.

use super::steps::Part;
use super::{Replica, commands};
use crate::api::{ChangeMembers, Dead, Failure, Look, Reason, Request, Response, Settle, Take};
use raftqueue_queue::TopicId;
use raftqueue_raft::NodeId;

/// Names one call of one client, for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One open call.
#[derive(Debug)]
pub(super) struct Call {
    /// When it must be answered, on the monotonic clock.
    pub(super) deadline_ms: u64,
    /// When a long poll stops waiting.
    pub(super) wait_until_ms: u64,
    pub(super) stage: Stage,
    /// Its number among those that wait to be proposed, if it does.
    pub(super) number: u64,
    pub(super) kept: Kept,
}

/// What is kept of the request, for a call that has not begun or may have to begin again.
#[derive(Debug, Default)]
pub(super) enum Kept {
    /// Nothing: the call has become a command, or waits for another node.
    #[default]
    Nothing,
    /// Until it is answered: messages that it was offered may be gone.
    Take(Take),
    /// Until this node is known to lead still.
    Dead(Dead),
    /// The same.
    Look(Look),
    /// The same.
    Members(ChangeMembers),
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits to be proposed.
    Unproposed,
    /// In an entry. From here on it may happen, whatever this node does.
    Proposed,
    /// Waits for a confirmed read index.
    Reading,
    /// Waits for messages.
    Waiting,
    /// Its candidates are being looked up.
    LookingUp,
    /// Waits until the node that is to lead has replayed its log.
    TransferHeld,
    /// Waits for another node to lead.
    Transferring,
}

/// A transfer of leadership to a node that has not said yet that it has replayed its log.
#[derive(Debug)]
pub(super) struct HeldTransfer {
    call: CallId,
    target: NodeId,
    /// Until it is refused.
    ticks_left: u32,
}

impl Replica {
    pub(super) fn on_call(&mut self, id: CallId, request: Request, deadline_ms: u64) {
        self.steps.take(1);
        if !self.raft.is_leader() {
            return self.reply(id, Err(Failure::not_done(Reason::NotLeader, "this node does not lead")));
        }
        if self.calls.len() >= self.settings.calls_max {
            self.counters.calls_refused += 1;
            let text = format!("{} calls are open here, the limit is {0}", self.calls.len());
            return self.reply(id, Err(Failure::not_done(Reason::Overloaded, text).retry_after_ms(100)));
        }
        // A long poll ends a little before its deadline, so that "empty" can still be confirmed.
        const CONFIRM_MS: u64 = 100;
        let wait_until_ms =
            self.now.mono_ms.saturating_add(request.wait_ms()).min(deadline_ms.saturating_sub(CONFIRM_MS));
        let kept = Kept::Nothing;
        self.calls.insert(id, Call { deadline_ms, wait_until_ms, stage: Stage::Unproposed, number: 0, kept });
        match request {
            Request::Publish(publish) => self.publish(id, publish),
            Request::Take(take) => {
                self.call_mut(id).kept = Kept::Take(take);
                self.try_receive(id, false);
            }
            Request::Settle(settle) => {
                let asked =
                    self.of_the_named_topic(&settle).and_then(|()| commands::settle(settle, &self.settings));
                self.propose_asked(id, asked);
            }
            Request::Write(write) => self.propose_asked(id, commands::write(write, &self.settings)),
            Request::Dead(dead) => {
                self.call_mut(id).kept = Kept::Dead(dead);
                self.read(id);
            }
            Request::Look(look) => {
                self.call_mut(id).kept = Kept::Look(look);
                self.read(id);
            }
            Request::TransferLeadership { to } => self.transfer(id, to.as_deref()),
            Request::Members(asked) => self.ask_change(id, asked),
        }
    }

    /// Leases name their topic by its id; who may settle them was judged by its name. One that is gone is nobody's.
    fn of_the_named_topic(&self, settle: &Settle) -> Result<(), Failure> {
        let topic = settle.leases.first().and_then(|lease| self.state.topic(TopicId(lease.message.topic)));
        match topic {
            Some(topic) if topic.name() != settle.topic => {
                let text =
                    format!("these leases are not of the topic `{}`: name the one they are of", settle.topic);
                Err(Failure::not_done(Reason::InvalidArgument, text))
            }
            _ => Ok(()),
        }
    }

    /// An entry has what this call asks for: from here on it may happen, whatever this node does.
    #[must_use]
    pub fn is_proposed(&self, id: CallId) -> bool {
        self.calls.get(&id).is_some_and(|call| call.stage == Stage::Proposed)
    }

    pub(super) fn call_mut(&mut self, id: CallId) -> &mut Call {
        self.calls.get_mut(&id).expect("an open call")
    }

    /// Answers a call and forgets it. A call that is gone already needs no answer.
    pub(super) fn answer(&mut self, id: CallId, result: Result<Response, Failure>) {
        if self.calls.remove(&id).is_some() {
            self.steps.take(1);
            self.reply(id, result);
        }
    }

    /// Leaves the answer to the shell, now that this node is known to have led when the call came.
    pub(super) fn confirm(&mut self, id: CallId) {
        if self.calls.remove(&id).is_some() {
            self.steps.take(1);
            self.actions.results.add_confirmed(id);
        }
    }

    fn reply(&mut self, id: CallId, result: Result<Response, Failure>) {
        self.actions.results.add_reply(id, result);
    }

    /// Ends a call that was not proposed.
    pub(super) fn refuse(&mut self, id: CallId, reason: Reason, text: &str) {
        self.answer(id, Err(Failure::not_done(reason, text)));
    }

    /// The client has gone. A call that was not proposed is dropped. One that was proposed needs no reply.
    pub(super) fn cancel(&mut self, id: CallId) {
        self.steps.take(1);
        if let Some(call) = self.calls.remove(&id) {
            self.abandon(id, call.stage, call.number);
        }
    }

    /// Takes a call that ends early out of the line or list in which it waits.
    fn abandon(&mut self, id: CallId, stage: Stage, number: u64) {
        match stage {
            Stage::Unproposed => self.withdraw(id, number),
            Stage::LookingUp | Stage::Waiting => self.stop_receiving(id),
            Stage::Proposed => self.members.forget(id),
            Stage::Reading | Stage::TransferHeld | Stage::Transferring => {}
        }
    }

    /// Ends calls and long polls for which nobody needs to wait any more, as many as a turn may. A tick begins it.
    pub(super) fn end_calls(&mut self) {
        self.steps.enter(Part::Ends);
        while !self.endings.is_empty() && self.steps.may_go_on() {
            let (id, text) = self.endings.pop_front().expect("just seen");
            self.steps.take(1);
            self.refuse(id, Reason::NotLeader, text);
        }
        while self.unproposed.has_discarded() && self.steps.may_go_on() {
            let steps = self.unproposed.drop_discarded();
            self.steps.take(steps);
        }
        if self.ends_calls {
            let all = self.expire_calls();
            self.steps.enter(Part::Waits);
            self.ends_calls = !(self.end_waits() && all);
        }
    }

    /// Answers every call whose deadline has come, and says whether it may have happened. False if some are left.
    fn expire_calls(&mut self) -> bool {
        let now_ms = self.now.mono_ms;
        let due: Vec<CallId> =
            self.calls.iter().filter(|(_, call)| call.deadline_ms <= now_ms).map(|(id, _)| *id).collect();
        for id in due {
            if !self.steps.may_go_on() {
                return false;
            }
            self.counters.calls_expired += 1;
            let &mut Call { stage, number, .. } = self.call_mut(id);
            let failure = match stage {
                Stage::Proposed => Failure::unknown(
                    Reason::DeadlineExceeded,
                    "the deadline passed before a majority had confirmed the call; it may still happen",
                ),
                Stage::Transferring => {
                    Failure::unknown(Reason::DeadlineExceeded, "no other node has taken over in time")
                }
                Stage::TransferHeld => {
                    Failure::not_done(Reason::FailedPrecondition, "the other node still replays its log")
                }
                Stage::Unproposed | Stage::Reading | Stage::Waiting | Stage::LookingUp => {
                    self.too_late(stage)
                }
            };
            self.answer(id, Err(failure));
            self.abandon(id, stage, number);
        }
        self.steps.look_at(self.calls.len());
        true
    }

    /// The answer to a call that was not proposed in time. If a majority answers this leader, it was too busy, and says
    /// with what.
    fn too_late(&self, stage: Stage) -> Failure {
        let status = self.raft.status();
        let answers =
            |id: NodeId| id == self.raft.id() || status.peers.iter().any(|peer| peer.id == id && peer.active);
        if !self.raft.configuration().is_quorum(answers) {
            let text = "the deadline passed, and no majority answers this leader any more; nothing was done";
            return Failure::not_done(Reason::NoLeader, text);
        }
        let text = match stage {
            Stage::Waiting => {
                "every message that was ready was on its way to a caller before this one; none was taken"
            }
            Stage::LookingUp => "the disk did not find the messages before the deadline; none was taken",
            Stage::Reading => {
                "the deadline passed before all that was committed had been applied; nothing was done"
            }
            _ => "the deadline passed while the call waited to be written; nothing was done",
        };
        Failure::not_done(Reason::DeadlineExceeded, text).retry_after_ms(100)
    }

    fn transfer(&mut self, id: CallId, to: Option<&str>) {
        let members = &self.raft.configuration().members;
        let target = match to {
            None => self.raft.best_successor(),
            Some(name) => {
                let named = members.iter().find(|(_, member)| member.name == name).map(|(id, _)| *id);
                let by_id = || u64::from_str_radix(name, 16).ok().map(NodeId);
                named.or_else(|| by_id().filter(|id| members.contains_key(id)))
            }
        };
        let Some(target) = target else {
            let names: Vec<&str> = members.values().map(|member| member.name.as_str()).collect();
            let (reason, text) = match to {
                None => (Reason::FailedPrecondition, "no other voter answers at the moment".to_owned()),
                Some(name) => (
                    Reason::NodeNotFound,
                    format!("there is no member `{name}`; the members are {}", names.join(", ")),
                ),
            };
            return self.refuse(id, reason, &text);
        };
        if target == self.raft.id() {
            return self.answer(id, Ok(Response::Transferred { leader: target.0 }));
        }
        if self.is_peer_replaying(target) {
            self.call_mut(id).stage = Stage::TransferHeld;
            let ticks_left = self.settings.raft.election_ticks;
            return self.held_transfers.push(HeldTransfer { call: id, target, ticks_left });
        }
        self.begin_transfer(id, target);
    }

    /// On a tick: a new leader has not heard yet how far its peers are. So a target that seems to replay is given an
    /// election timeout to say that it does not.
    pub(super) fn begin_held_transfers(&mut self) {
        for mut held in std::mem::take(&mut self.held_transfers) {
            held.ticks_left = held.ticks_left.saturating_sub(1);
            if !self.calls.contains_key(&held.call) {
                continue;
            }
            if !self.is_peer_replaying(held.target) {
                self.begin_transfer(held.call, held.target);
            } else if held.ticks_left == 0 {
                let member = self.raft.configuration().members.get(&held.target);
                let name = member.map_or_else(|| held.target.to_string(), |member| member.name.clone());
                let text = format!(
                    "`{name}` has yet to apply what was committed when it started, and every call would wait for that: \
                     ask again when it is ready"
                );
                self.refuse(held.call, Reason::FailedPrecondition, &text);
            } else {
                self.held_transfers.push(held);
            }
        }
    }

    fn begin_transfer(&mut self, id: CallId, target: NodeId) {
        match self.raft.transfer_leadership(target) {
            Ok(()) => {
                self.call_mut(id).stage = Stage::Transferring;
                self.transfers.push(id);
            }
            Err(refused) => self.refuse(id, Reason::FailedPrecondition, &refused.to_string()),
        }
    }

    /// Answers the calls that asked for a transfer once somebody else leads, or the attempt has ended.
    pub(super) fn answer_transfers(&mut self) {
        if self.transfers.is_empty() {
            return;
        }
        let status = self.raft.status();
        let result = match status.role.leader {
            Some(leader) if leader != self.raft.id() => Ok(Response::Transferred { leader: leader.0 }),
            Some(_) if !status.transferring => Err(Failure::not_done(
                Reason::FailedPrecondition,
                "the other node did not take over within an election timeout; this one goes on leading",
            )),
            _ => return,
        };
        for id in std::mem::take(&mut self.transfers) {
            self.answer(id, result.clone());
        }
    }
}
