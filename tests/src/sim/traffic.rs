//! Calls between clients and nodes.

use super::Violation;
use super::calls::{Answer, Call, Stage};
use super::clients::NOBODY;
use super::coverage::Rare;
use super::ledger::key;
use super::members::ADMIN;
use super::message::Origin;
use super::nodes::fingerprint;
use super::oracle::{Excuse, Verdict};
use super::plan::{MS, Micros};
use super::world::{Event, World};
use raftqueue_node::api::{
    Delivery, Failure, Look, MessageId, MessageRef, Method, Outcome, Publish, Reason, Request, Response,
};
use raftqueue_node::driver::bodies::Readings;
use raftqueue_node::replica::{self, CallId};
use raftqueue_raft::NodeId;
use std::ops::RangeInclusive;

/// A client waits this much longer than it allows the node.
const GRACE: Micros = 300 * MS;
/// A node that runs answers at the latest so much after the deadline.
const LATENESS_MAX: Micros = 100 * MS;

impl World {
    /// A node that should lead, as a client believes.
    fn believed_leader(&mut self) -> usize {
        let asked = self.random.index(self.nodes.len());
        if self.random.percent(8) {
            return asked;
        }
        let hint = self.nodes[asked].raft().and_then(|raft| raft.role_state().leader);
        let hinted = self.nodes.iter().position(|node| Some(node.id) == hint && node.is_up());
        hinted.or_else(|| self.leader()).unwrap_or(asked)
    }

    pub(super) fn place_call(&mut self, client: usize, request: Request, allowed: Micros) -> CallId {
        let kept = self.endpoints.get(&client).copied().filter(|_| self.random.percent(95));
        let node = kept.unwrap_or_else(|| self.believed_leader());
        self.endpoints.insert(client, node);
        self.place_call_at(client, node, request, allowed)
    }

    pub(super) fn place_call_at(
        &mut self,
        client: usize,
        node: usize,
        request: Request,
        allowed: Micros,
    ) -> CallId {
        self.last_call += 1;
        let id = CallId(self.last_call);
        self.summary.calls += 1;
        self.trace.note(self.now, &[20, id.0, node as u64], || {
            let who = if client == NOBODY { "the simulator".into() } else { format!("client {client}") };
            format!("{who} asks node {node} (call {}): {}", id.0, short(&request))
        });
        let call = Call {
            client,
            request,
            node,
            stage: Stage::OnItsWay,
            allowed,
            committed_before: self.oracle.committed(),
            acknowledged_before: self.oracle.acknowledged(),
            due: 0,
            is_abandoned: false,
            is_cancelled: false,
        };
        self.calls.insert(id, call);
        let delay = self.delay();
        self.schedule.add(self.now + delay, Event::CallArrives { call: id });
        self.schedule.add(self.now + allowed + GRACE, Event::Patience { call: id });
        id
    }

    fn delay(&mut self) -> Micros {
        self.plan.packet_delay / 4 + self.random.waiting(self.plan.packet_delay)
    }

    pub(super) fn call_arrives(&mut self, id: CallId) {
        let now = self.now;
        let Some(call) = self.calls.get_mut(&id) else { return };
        let node = &self.nodes[call.node];
        if !node.is_up() {
            return self.answer(id, Answer::Refused);
        }
        call.stage = Stage::AtNode(node.boot);
        call.due = now + call.allowed;
        let deadline_ms = node.mono_ms(now) + call.allowed / MS;
        let (node, request) = (call.node, call.request.clone());
        self.hand(node, replica::Event::Call { id, request, deadline_ms });
    }

    fn answer(&mut self, id: CallId, answer: Answer) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.is_abandoned {
            self.calls.remove(&id);
            return;
        }
        call.stage = Stage::Answered;
        let delay = self.delay();
        self.schedule.add(self.now + delay, Event::Answer { call: id, answer: Box::new(answer) });
    }

    /// A node answers a call.
    pub(super) fn reply(
        &mut self,
        node: usize,
        id: CallId,
        result: Result<Response, Failure>,
    ) -> Result<(), Violation> {
        let boot = self.nodes[node].boot;
        let Some(call) = self.calls.get(&id).filter(|call| call.stage == Stage::AtNode(boot)) else {
            return Err(Violation(format!("node {node} answers call {} twice: {result:?}", id.0)));
        };
        // A slow clock makes all waiting longer.
        let is_late = self.now > call.due + LATENESS_MAX + call.allowed / 16
            && self.now > self.nodes[node].resumed + LATENESS_MAX + call.allowed;
        Violation::unless(!is_late, || {
            format!("call {} was due at {} and is answered only now", id.0, call.due)
        })?;
        let excuse = Excuse { is_unreadable: self.may_not_read(node), is_full: self.may_be_full(node) };
        self.check_members(call, &result)?;
        let verdict = self.oracle.answered(id, call, &result, excuse)?;
        if let Err(failure) = &result {
            match failure.reason {
                Reason::NotLeader => self.coverage.rare(Rare::NotLeader),
                Reason::NoLeader => self.coverage.rare(Rare::CallOverdue),
                Reason::DeadlineExceeded if failure.outcome == Outcome::NotDone => {
                    self.coverage.rare(Rare::CallOverdue);
                }
                Reason::DiskFull => self.coverage.rare(Rare::PublishDiskFull),
                Reason::DataUnreadable => self.coverage.rare(Rare::ReadFailure),
                _ => {}
            }
        }
        self.coverage.rare_if(verdict == Verdict::Unknown, Rare::CallUnknown);
        match verdict {
            Verdict::Done => self.summary.calls_done += 1,
            Verdict::Looked => self.summary.looks += 1,
            Verdict::Unknown => self.summary.calls_unknown += 1,
            Verdict::NotDone => {}
        }
        self.trace.note(self.now, &[21, id.0, fingerprint(&format!("{result:?}"))], || {
            format!("node {node} answers call {}: {}", id.0, told(&result))
        });
        match result {
            Ok(Response::Messages(messages)) if !messages.is_empty() => {
                let bytes_max = match &call.request {
                    Request::Look(Look::Peek { bytes_max, .. }) => *bytes_max,
                    _ => usize::MAX,
                };
                self.calls.get_mut(&id).expect("just seen").stage = Stage::Reading(boot);
                self.read_bodies(node, id, messages, bytes_max)?;
            }
            Ok(response) => self.answer(id, Answer::Response(response)),
            Err(failure) => self.answer(id, Answer::Failure(failure)),
        }
        Ok(())
    }

    /// The bodies of an answer were read, as far as they can be. They were located when it was given, so only a disk that
    /// fails or rots excuses that one cannot; the replica is told, and what a receive leased of them goes back.
    pub(super) fn bodies_read(
        &mut self,
        node: usize,
        id: CallId,
        messages: &[MessageRef],
        readings: Readings,
    ) -> Result<(), Violation> {
        let Readings { deliveries, lost } = readings;
        let request = self.calls.get(&id).map(|call| &call.request);
        if let Some(first) = lost.first() {
            Violation::unless(self.may_not_read(node), || {
                format!("node {node} cannot read {first:?} for call {} ({request:?})", id.0)
            })?;
            self.coverage.rare(Rare::ReadFailure);
            let are_leased = request.as_ref().is_some_and(|request| request.leases());
            if request.as_ref().is_some_and(|request| request.method() == Method::Pop) {
                // They could be read before they were taken, and not any more: a pop gives at most once.
                for lost in &lost {
                    self.ledger.perhaps_take(key(lost.message.id));
                }
            }
            let messages: Vec<MessageRef> = lost.iter().map(|lost| lost.message.clone()).collect();
            if are_leased {
                self.oracle.may_give_back(&messages);
            }
            self.hand(node, replica::Event::MessagesUnreadable { messages, are_leased });
        }
        let Some(call) = self.calls.get(&id) else { return Ok(()) };
        let is_peek = call.request.method() == Method::Peek;
        Violation::unless(is_peek || deliveries.len() + lost.len() == messages.len(), || {
            format!("{} messages were read for {}", deliveries.len(), messages.len())
        })?;
        let mut wanted = messages.iter();
        for delivery in &deliveries {
            let asked = wanted.find(|asked| **asked == delivery.message);
            let asked =
                asked.ok_or_else(|| Violation(format!("{delivery:?} was not asked for, or before")))?;
            self.check_delivery(delivery, asked)?;
        }
        self.summary.deliveries += deliveries.len() as u64;
        let answer = match lost.first() {
            Some(first) if deliveries.is_empty() => {
                Answer::Failure(Failure::unknown(Reason::DataUnreadable, first.why.to_string()))
            }
            _ => Answer::Deliveries(deliveries),
        };
        self.answer(id, answer);
        Ok(())
    }

    /// Whether a node may say of a message that it cannot be read: one that lacks messages leads only where nobody else can.
    fn may_not_read(&self, node: usize) -> bool {
        let at = &self.nodes[node];
        at.is_failing || at.is_damaged || at.replica().is_some_and(replica::Replica::is_incomplete)
    }

    /// Whether a leader may believe that no quorum has room.
    fn may_be_full(&self, node: usize) -> bool {
        let has_room = |id: NodeId| self.nodes.iter().any(|at| at.id == id && !at.was_tight);
        self.nodes[node].raft().is_none_or(|raft| !raft.configuration().is_quorum(has_room))
    }

    pub(super) fn check_delivery(&self, delivery: &Delivery, asked: &MessageRef) -> Result<(), Violation> {
        let origin = Origin::of(&delivery.body);
        let expected = self.oracle.origin_at(asked.id.topic, asked.id.offset);
        let is_whole = origin.is_some_and(|origin| {
            delivery.message == *asked && origin.is_whole(self.plan.seed, self.plan.body_bytes, delivery)
        });
        Violation::unless(is_whole && origin == expected, || {
            format!("for {asked:?}, which is of {expected:?}, came {delivery:?}")
        })
    }

    pub(super) fn answer_arrives(&mut self, id: CallId, answer: &Answer) -> Result<(), Violation> {
        match self.calls.remove(&id) {
            Some(call) if !call.is_abandoned => self.client_hears(id, &call, answer),
            _ => Ok(()),
        }
    }

    /// The client gives up waiting.
    pub(super) fn patience_ends(&mut self, id: CallId) -> Result<(), Violation> {
        let Some(call) = self.calls.get_mut(&id) else { return Ok(()) };
        call.is_abandoned = true;
        let call = call.clone();
        if call.stage == Stage::Answered {
            self.calls.remove(&id);
        }
        if let Stage::AtNode(boot) = call.stage
            && call.client != ADMIN
            && self.nodes[call.node].lives(boot)
            && self.random.percent(50)
        {
            self.calls.entry(id).and_modify(|call| call.is_cancelled = true);
            self.hand(call.node, replica::Event::Cancel(id));
        }
        self.client_hears(id, &call, &Answer::Broken)
    }

    /// A node has gone with all its connections.
    pub(super) fn break_calls(&mut self, node: usize) {
        let boot = self.nodes[node].boot;
        let here = |call: &Call| {
            call.node == node && [Stage::AtNode(boot), Stage::Reading(boot)].contains(&call.stage)
        };
        let broken: Vec<CallId> = self.calls.iter().filter(|(_, c)| here(c)).map(|(id, _)| *id).collect();
        for id in broken {
            let call = &self.calls[&id];
            if call.stage == Stage::AtNode(boot) {
                self.oracle.unanswered(call);
            }
            self.answer(id, Answer::Broken);
        }
    }
}

/// An answer in a few words: fifty messages are one run of offsets for each topic.
fn told(result: &Result<Response, Failure>) -> String {
    let messages = match result {
        Ok(Response::Messages(messages)) if !messages.is_empty() => messages,
        other => return format!("{other:?}"),
    };
    let mut runs: Vec<(u64, RangeInclusive<u64>)> = Vec::new();
    for MessageId { topic, offset, .. } in messages.iter().map(|message| message.id) {
        match runs.last_mut() {
            Some((of, run)) if *of == topic && run.end() + 1 == offset => *run = *run.start()..=offset,
            _ => runs.push((topic, offset..=offset)),
        }
    }
    let runs = runs.iter().map(|(topic, run)| match run.start() == run.end() {
        true => format!("{topic}/{}", run.start()),
        false => format!("{topic}/{} to {}", run.start(), run.end()),
    });
    format!("{} messages: {}", messages.len(), runs.collect::<Vec<_>>().join(", "))
}

fn short(request: &Request) -> String {
    match request {
        Request::Publish(Publish { topic, session, messages }) => {
            let first = messages.first().and_then(|message| Origin::of(&message.body));
            format!("publish {} to {topic} from {first:?} on, {session:?}", messages.len())
        }
        other => format!("{other:?}"),
    }
}
