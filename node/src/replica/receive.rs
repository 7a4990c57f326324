//! Receives and pops: choosing candidates, setting them aside, waiting for more.
//!
//! Runs of waiting messages hold no sizes or deadlines, so a receive takes two steps: the leader chooses offsets that look
//! ready and has the shell look up the rest in the log; then it proposes a command with what was found. What is on its
//! way is set aside, so that two receives never offer the same message; it is given back when the command is applied or
//! the term ends. "Empty" is answered only when nothing is ready and nothing is set aside, at a confirmed read index.

use super::calls::{CallId, Stage};
use super::expiry::Block;
use super::mutants::{self, Mutant};
use super::unread;
use super::{LookedUp, Lookup, LookupId, Replica};
use crate::api::{Failure, Reason, Request, Response};
use crate::codec;
use raftqueue_queue::{Candidate, Command, DeadSelection, MessageSize, SubscriptionId, TopicId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A subscription of a topic.
pub(super) type Place = (TopicId, SubscriptionId);

#[derive(Debug, Default)]
pub(super) struct Receives {
    last_lookup: u64,
    lookups: BTreeMap<LookupId, Purpose>,
    /// Offered to calls whose commands are not applied yet.
    aside: BTreeMap<Place, BTreeSet<u64>>,
    /// Calls that wait for messages, first come first served.
    waiting: BTreeMap<Place, VecDeque<CallId>>,
    /// Places where something became ready or was given back.
    woken: BTreeSet<Place>,
    /// A call ended while it waited: the lines still name it.
    ended_in_line: bool,
}

/// What a lookup is for.
#[derive(Debug)]
enum Purpose {
    Receive { call: CallId, place: Place, offsets: Vec<u64> },
    Dead { call: CallId, topic: TopicId },
    Overdue { block: Block },
}

/// A receive or pop in the words of the queue.
struct Plan {
    place: Place,
    messages_max: usize,
    bytes_max: usize,
}

impl Receives {
    pub(super) fn clear(&mut self) {
        *self = Self { last_lookup: self.last_lookup, ..Self::default() };
    }

    /// Lookups that are out, messages set aside, and calls in line.
    pub(super) fn outstanding(&self) -> (usize, usize, usize) {
        let aside = self.aside.values().map(BTreeSet::len).sum();
        (self.lookups.len(), aside, self.waiting.values().map(VecDeque::len).sum())
    }

    pub(super) fn wake(&mut self, places: Vec<Place>) {
        self.woken.extend(places);
    }

    /// A topic is gone: who waits there must hear of it.
    pub(super) fn wake_topic(&mut self, topic: TopicId) {
        self.woken.extend(self.waiting.keys().filter(|place| place.0 == topic));
    }

    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    #[cfg(test)]
    pub(super) fn lines_are_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes calls out of the lines they wait in.
    fn leave_lines(&mut self, leaves: impl Fn(&CallId) -> bool) {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|id| !leaves(id));
            !waiting.is_empty()
        });
    }

    /// Keeps messages out of what is offered, until they are given back.
    pub(super) fn keep_aside(&mut self, place: Place, offsets: impl Iterator<Item = u64>) {
        self.aside.entry(place).or_default().extend(offsets);
    }

    pub(super) fn give_back(&mut self, place: Place, offsets: impl Iterator<Item = u64>) {
        let Some(aside) = self.aside.get_mut(&place) else { return };
        for offset in offsets {
            aside.remove(&offset);
        }
        if aside.is_empty() {
            self.aside.remove(&place);
        }
        self.woken.insert(place);
    }
}

impl Replica {
    /// Takes a receive or pop one step further. `confirmed`: the state is known to be fresh.
    pub(super) fn try_receive(&mut self, id: CallId, confirmed: bool) {
        let plan = match self.plan(id) {
            Ok(plan) => plan,
            Err(failure) if failure.reason == Reason::TopicNotFound && !confirmed => return self.read(id),
            Err(failure) => return self.answer(id, Err(failure)),
        };
        if let Some(request_id) = self.repeated_pop(id) {
            return self.enqueue_pop(id, plan.place, Vec::new(), Some(request_id));
        }
        let offsets = self.choose(plan.place, plan.messages_max);
        if !offsets.is_empty() {
            self.receives.aside.entry(plan.place).or_default().extend(&offsets);
            self.call_mut(id).stage = Stage::LookingUp;
            let purpose = Purpose::Receive { call: id, place: plan.place, offsets: offsets.clone() };
            let takes =
                matches!(self.calls[&id].request, Some(Request::Pop { .. })).then_some(plan.bytes_max);
            return self.look_up_for(plan.place.0, offsets, purpose, takes);
        }
        if self.is_something_offered(plan.place) || self.now.mono_ms < self.call_mut(id).wait_until_ms {
            self.call_mut(id).stage = Stage::Waiting;
            self.receives.waiting.entry(plan.place).or_default().push_back(id);
        } else if confirmed && self.unread.is_any_at(plan.place) {
            self.answer(id, Err(unread::failure()));
        } else if confirmed {
            self.answer(id, Ok(Response::Messages(Vec::new())));
        } else {
            self.read(id);
        }
    }

    fn plan(&self, id: CallId) -> Result<Plan, Failure> {
        let (topic, subscription, messages_max, bytes_max) = match &self.calls[&id].request {
            Some(Request::Receive { topic, subscription, messages_max, bytes_max, .. })
            | Some(Request::Pop { topic, subscription, messages_max, bytes_max, .. }) => {
                (topic, subscription, *messages_max, *bytes_max)
            }
            other => unreachable!("a receive keeps its request, this is {other:?}"),
        };
        let place = (self.topic_id(topic)?, Self::subscription(subscription)?);
        let messages_max = messages_max.clamp(1, raftqueue_queue::RECEIVE_MESSAGES_MAX);
        Ok(Plan { place, messages_max, bytes_max })
    }

    /// The request id of a pop that had been applied before: its repeat takes nothing, so it needs no candidates.
    fn repeated_pop(&self, id: CallId) -> Option<u128> {
        match self.calls[&id].request {
            Some(Request::Pop { request_id: Some(request_id), .. }) if self.state.knows_pop(request_id) => {
                Some(request_id)
            }
            _ => None,
        }
    }

    /// Messages that are ready and not offered to anybody else.
    fn choose(&self, place: Place, messages_max: usize) -> Vec<u64> {
        let Some(subscription) = self.state.subscription(place.0, place.1) else { return Vec::new() };
        match self.receives.aside.get(&place) {
            None => subscription.ready_from(0).take(messages_max).collect(),
            Some(aside) => subscription
                .ready_from(0)
                .filter(|offset| !aside.contains(offset))
                .take(messages_max)
                .collect(),
        }
    }

    /// True if a call is offered messages there that may come back.
    fn is_something_offered(&self, place: Place) -> bool {
        let aside = self.receives.aside.get(&place).map_or(0, BTreeSet::len);
        aside > self.unread.count_at(place)
    }

    fn look_up(&mut self, topic: TopicId, offsets: Vec<u64>, purpose: Purpose) {
        self.look_up_for(topic, offsets, purpose, None);
    }

    fn look_up_for(
        &mut self,
        topic: TopicId,
        offsets: Vec<u64>,
        purpose: Purpose,
        takes_bytes_max: Option<usize>,
    ) {
        self.receives.last_lookup += 1;
        let id = LookupId(self.receives.last_lookup);
        self.receives.lookups.insert(id, purpose);
        self.actions.lookups.push(Lookup { id, topic, offsets, takes_bytes_max });
    }

    /// Looks up messages whose time may be over.
    pub(super) fn look_up_overdue(&mut self, block: Block, offsets: Vec<u64>) {
        self.look_up(block.1, offsets, Purpose::Overdue { block });
    }

    pub(super) fn on_looked_up(&mut self, id: LookupId, looked_up: LookedUp) {
        let LookedUp { found, missing } = looked_up;
        match self.receives.lookups.remove(&id) {
            Some(Purpose::Receive { call, place, offsets }) => {
                self.on_candidates(call, place, offsets, found, &missing);
            }
            Some(Purpose::Dead { call, topic }) => self.on_dead(call, topic, &found),
            Some(Purpose::Overdue { block }) => self.on_overdue(block, found),
            None => {} // Of an earlier term.
        }
    }

    fn on_candidates(
        &mut self,
        id: CallId,
        place: Place,
        offsets: Vec<u64>,
        mut found: Vec<Candidate>,
        missing: &[u64],
    ) {
        // What was purged or has died since it was chosen cannot be found, and is not missed.
        let subscription = self.state.subscription(place.0, place.1);
        let is_wanted = |offset: &u64| {
            subscription.is_some_and(|subscription| subscription.is_ready(*offset))
                || mutants::is(Mutant::GoneIsUnreadable)
        };
        let missing: Vec<u64> = missing.iter().copied().filter(is_wanted).collect();
        self.keep_unread(place, missing);
        if !self.calls.get(&id).is_some_and(|call| call.stage == Stage::LookingUp) {
            return self.give_back_offered(place, offsets.into_iter());
        }
        if found.is_empty() {
            // Others may be behind those.
            self.give_back_offered(place, offsets.into_iter());
            return self.try_receive(id, false);
        }
        let Ok(plan) = self.plan(id) else {
            self.give_back_offered(place, offsets.into_iter());
            // The topic has gone meanwhile, as far as is known here: said only once a read confirms it.
            return self.try_receive(id, false);
        };
        let mut bytes = 0;
        let fitting = found
            .iter()
            .take_while(|candidate| {
                bytes += codec::content_bytes(candidate.size);
                bytes <= plan.bytes_max
            })
            .count();
        found.truncate(fitting.max(1));
        let taken: BTreeSet<u64> = found.iter().map(|candidate| candidate.offset).collect();
        self.give_back_offered(place, offsets.into_iter().filter(|offset| !taken.contains(offset)));
        let (topic, subscription) = place;
        match self.calls[&id].request {
            Some(Request::Receive { lease_ms, .. }) => {
                let lease_ms = lease_ms.unwrap_or(self.settings.lease_ms_default);
                self.enqueue(Some(id), Command::Receive { topic, subscription, candidates: found, lease_ms });
            }
            Some(Request::Pop { request_id, .. }) => self.enqueue_pop(id, place, found, request_id),
            _ => unreachable!("a receive keeps its request"),
        }
    }

    fn enqueue_pop(
        &mut self,
        id: CallId,
        place: Place,
        candidates: Vec<Candidate>,
        request_id: Option<u128>,
    ) {
        let count_max = candidates.len().max(1) as u32;
        let (topic, subscription) = place;
        self.enqueue(Some(id), Command::Pop { topic, subscription, candidates, count_max, request_id });
    }

    /// A command was applied, or will never be proposed: what it would have taken may be offered again.
    pub(super) fn give_back(&mut self, command: &Command) {
        if let Command::Receive { topic, subscription, candidates, .. }
        | Command::Pop { topic, subscription, candidates, .. } = command
            && self.receives.aside.contains_key(&(*topic, *subscription))
        {
            let offsets = candidates.iter().map(|candidate| candidate.offset);
            self.give_back_offered((*topic, *subscription), offsets);
        }
    }

    /// The same for offsets; what cannot be read here stays aside.
    fn give_back_offered(&mut self, place: Place, offsets: impl Iterator<Item = u64>) {
        let unread = &self.unread;
        self.receives.give_back(place, offsets.filter(|offset| !unread.is_kept(place, *offset)));
    }

    /// Lets calls that wait try again where something changed.
    pub(super) fn serve_waiting(&mut self) {
        while let Some(place) = self.receives.woken.pop_first() {
            let Some(mut waiting) = self.receives.waiting.remove(&place) else { continue };
            while let Some(id) = waiting.pop_front() {
                if !self.calls.get(&id).is_some_and(|call| call.stage == Stage::Waiting) {
                    continue;
                }
                self.try_receive(id, false);
                let waits_again = self.calls.get(&id).is_some_and(|call| call.stage == Stage::Waiting);
                if waits_again {
                    // Nothing is left here: the others keep their places behind it.
                    self.receives.waiting.entry(place).or_default().append(&mut waiting);
                }
            }
        }
    }

    /// Ends the long polls whose time is up: they are answered "empty" once that is confirmed. The lines are gone through
    /// once for all of them, since ten thousand may have come, and end, together.
    pub(super) fn end_waits(&mut self) {
        if std::mem::take(&mut self.receives.ended_in_line) {
            let calls = &self.calls;
            self.receives.leave_lines(|id| !calls.contains_key(id));
        }
        let now_ms = self.now.mono_ms;
        let over: BTreeSet<CallId> = self
            .receives
            .waiting
            .values()
            .flatten()
            .filter(|id| self.calls.get(id).is_some_and(|call| call.wait_until_ms <= now_ms))
            .filter(|id| {
                let offered = self.plan(**id).is_ok_and(|plan| self.is_something_offered(plan.place));
                !offered
            })
            .copied()
            .collect();
        if over.is_empty() {
            return;
        }
        self.receives.leave_lines(|id| over.contains(id));
        for id in over {
            self.try_receive(id, false);
        }
    }

    /// A call that waits, or whose candidates are looked up, has ended. What it was offered comes back with the answer to
    /// its lookup; the lines pass over it, and are rid of it at the next tick.
    pub(super) fn stop_receiving(&mut self) {
        self.receives.ended_in_line = true;
    }

    /// Redrives or purges dead messages: those listed need their sizes first.
    pub(super) fn settle_dead(&mut self, id: CallId, request: Request) {
        let (Request::RedriveDead { topic, offsets, .. } | Request::PurgeDead { topic, offsets, .. }) =
            &request
        else {
            unreachable!("only these settle dead messages")
        };
        if offsets.is_empty() {
            return self.enqueue_request(id, request);
        }
        match self.topic_id(topic) {
            Ok(topic) => {
                let offsets = offsets.clone();
                let call = self.call_mut(id);
                call.stage = Stage::LookingUp;
                call.request = Some(request);
                self.look_up(topic, offsets, Purpose::Dead { call: id, topic });
            }
            Err(failure) => self.answer(id, Err(failure)),
        }
    }

    /// The command names the topic that was looked up: by now its name may lead to another, of other sizes.
    fn on_dead(&mut self, id: CallId, topic: TopicId, found: &[Candidate]) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let listed =
            found.iter().map(|found| MessageSize { offset: found.offset, size: found.size }).collect();
        let selection = DeadSelection::Listed(listed);
        let command = match call.request.take() {
            Some(Request::RedriveDead { subscription, .. }) => Self::subscription(&subscription)
                .map(|subscription| Command::RedriveDead { topic, subscription, selection }),
            Some(Request::PurgeDead { subscription, .. }) => Self::subscription(&subscription)
                .map(|subscription| Command::PurgeDead { topic, subscription, selection }),
            other => unreachable!("only these look up dead messages, not {other:?}"),
        };
        match command {
            Ok(command) => self.enqueue(Some(id), command),
            Err(failure) => self.answer(id, Err(failure)),
        }
    }

    fn on_overdue(&mut self, block: Block, found: Vec<Candidate>) {
        let now_ms = self.log_time_ms();
        let (overdue, later): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|candidate| candidate.deadline_ms.is_some_and(|deadline| deadline <= now_ms));
        self.deadlines.looked_up(block, &later);
        self.propose_overdue(block.1, &overdue);
    }
}
