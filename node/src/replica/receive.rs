//! Receives and pops: choosing candidates, setting them aside, waiting for more.
//!
//! Runs of waiting messages hold no sizes or deadlines, so a receive takes two steps. First the leader chooses offsets
//! that look ready, and has the shell look up the rest in the log. Then it proposes a command with what was found.
//! Messages on their way are set aside, so that two receives never offer the same one. They are given back when the
//! command is applied or the term ends. "Empty" is answered only if nothing is ready and nothing is set aside, at a
//! confirmed read index.

use super::aside::{Aside, Target, runs};
use super::calls::{CallId, Kept, Stage};
use super::due::DueBlock;
use super::lines::Lines;
use super::{LookedUp, Lookup, LookupId, Replica, commands, unread};
use crate::api::codec;
use crate::api::{Dead, DeadAction, Failure, Reason, Response, TakeKind};
use raftqueue_queue::{Candidate, Command, DeadSelection, MessageSize, SubscriptionId, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// If messages are offered to others when the time of a long poll is up, it is looked at again after this.
const PUT_OFF_MS: u64 = 50;

#[derive(Debug, Default)]
pub(super) struct Receives {
    last_lookup: u64,
    lookups: BTreeMap<LookupId, Purpose>,
    /// Offered to calls whose commands are not applied yet.
    aside: BTreeMap<Target, Aside>,
    /// Calls that wait for messages.
    lines: Lines,
    /// Targets where something became ready or was given back.
    woken: BTreeSet<Target>,
    /// The target that was served last: the others come first.
    served: Target,
}

/// What a lookup is for.
#[derive(Debug)]
enum Purpose {
    Receive { call: CallId, target: Target, offsets: Vec<u64> },
    Dead { call: CallId, topic: TopicId, subscription: SubscriptionId, action: DeadAction },
    Overdue { block: DueBlock },
}

/// A receive or pop in the words of the queue.
struct Plan {
    target: Target,
    messages_max: usize,
    bytes_max: usize,
    kind: TakeKind,
}

impl Receives {
    pub(super) fn clear(&mut self) {
        *self = Self { last_lookup: self.last_lookup, ..Self::default() };
    }

    /// The blocks of lookups that are out because of deadlines.
    pub(super) fn overdue_blocks(&self) -> impl Iterator<Item = DueBlock> {
        self.lookups.values().filter_map(|purpose| match purpose {
            Purpose::Overdue { block } => Some(*block),
            Purpose::Receive { .. } | Purpose::Dead { .. } => None,
        })
    }

    /// Lookups that are out, messages set aside, and calls in line.
    pub(super) fn outstanding(&self) -> (usize, usize, usize) {
        let aside = self.aside.values().map(Aside::count).sum();
        (self.lookups.len(), aside, self.lines.len())
    }

    /// Messages became ready, none of them before this offset.
    pub(super) fn wake(&mut self, target: Target, lowest: u64) {
        if let Some(aside) = self.aside.get_mut(&target) {
            aside.is_free_from(lowest);
        }
        self.woken.insert(target);
    }

    /// A topic is gone: calls that wait there must hear of it.
    pub(super) fn wake_topic(&mut self, topic: TopicId) {
        self.woken.extend(self.lines.targets_of(topic));
    }

    pub(super) fn waiting_count(&self) -> usize {
        self.lines.len()
    }

    #[cfg(test)]
    pub(super) fn lines_are_empty(&self) -> bool {
        self.lines.len() == 0
    }

    /// Keeps messages out of what is offered, until they are given back.
    pub(super) fn keep_aside(&mut self, target: Target, offsets: impl Iterator<Item = u64>) {
        let aside = self.aside.entry(target).or_default();
        runs(offsets).for_each(|run| aside.keep(run));
    }

    pub(super) fn give_back(&mut self, target: Target, offsets: impl Iterator<Item = u64>) {
        let Some(aside) = self.aside.get_mut(&target) else { return };
        runs(offsets).for_each(|run| aside.remove(run));
        if aside.count() == 0 {
            self.aside.remove(&target);
        }
        self.woken.insert(target);
    }

    /// A target to be served: each in its turn.
    fn next_woken(&self) -> Option<Target> {
        let behind = (Bound::Excluded(self.served), Bound::Unbounded);
        self.woken.range(behind).next().or_else(|| self.woken.first()).copied()
    }
}

impl Replica {
    /// Takes a receive or pop one step further. `confirmed`: the state is known to be fresh.
    pub(super) fn try_receive(&mut self, id: CallId, confirmed: bool) {
        let plan = match self.plan(id) {
            None => return, // It takes nothing any more.
            Some(Ok(plan)) => plan,
            Some(Err(failure)) if failure.reason == Reason::TopicNotFound && !confirmed => {
                return self.read(id);
            }
            Some(Err(failure)) => return self.answer(id, Err(failure)),
        };
        if let TakeKind::Pop { request_id: Some(request_id) } = plan.kind
            && self.state.knows_pop(request_id)
        {
            // It was applied before. Its repeat takes nothing, so it needs no candidates.
            return self.propose_pop(id, plan.target, Vec::new(), Some(request_id));
        }
        let offsets = self.choose(plan.target, plan.messages_max);
        if !offsets.is_empty() {
            self.call_mut(id).stage = Stage::LookingUp;
            let purpose = Purpose::Receive { call: id, target: plan.target, offsets: offsets.clone() };
            let is_taken = matches!(plan.kind, TakeKind::Pop { .. });
            return self.look_up_for(plan.target.0, offsets, purpose, Some(plan.bytes_max), is_taken);
        }
        if self.is_something_offered(plan.target) || self.now.mono_ms < self.call_mut(id).wait_until_ms {
            let call = self.call_mut(id);
            call.stage = Stage::Waiting;
            let end_ms = call.wait_until_ms;
            self.receives.lines.join(id, plan.target, end_ms);
        } else if confirmed && self.unread.is_any_at(plan.target) {
            self.answer(id, Err(unread::failure()));
        } else if confirmed {
            self.answer(id, Ok(Response::Messages(Vec::new())));
        } else {
            self.read(id);
        }
    }

    /// What a call must take, and where; `None` for a call that takes nothing any more.
    fn plan(&self, id: CallId) -> Option<Result<Plan, Failure>> {
        let Some(Kept::Take(take)) = self.calls.get(&id).map(|call| &call.kept) else { return None };
        let messages_max = take.messages_max.clamp(1, raftqueue_queue::RECEIVE_MESSAGES_MAX);
        let plan = |target| Plan { target, messages_max, bytes_max: take.bytes_max, kind: take.kind };
        Some(self.target(&take.topic, &take.subscription).map(plan))
    }

    fn target(&self, topic: &str, subscription: &str) -> Result<Target, Failure> {
        Ok((self.topic_id(topic)?, Self::subscription(subscription)?))
    }

    /// Sets messages aside that are ready and not offered to anybody else.
    fn choose(&mut self, target: Target, messages_max: usize) -> Vec<u64> {
        let Some(subscription) = self.state.subscription(target.0, target.1) else { return Vec::new() };
        if !subscription.has_ready() || self.unread.rests(target) {
            return Vec::new();
        }
        let aside = self.receives.aside.entry(target).or_default();
        let ready = subscription.ready_runs_from(aside.first_free());
        let (chosen, looked_at) = aside.choose(ready, messages_max);
        self.steps.take(looked_at + chosen.len());
        chosen
    }

    /// True if messages there are offered to a call and may come back.
    fn is_something_offered(&self, target: Target) -> bool {
        let aside = self.receives.aside.get(&target).map_or(0, Aside::count);
        aside > self.unread.count_at(target)
    }

    fn look_up(&mut self, topic: TopicId, offsets: Vec<u64>, purpose: Purpose) {
        self.look_up_for(topic, offsets, purpose, None, false);
    }

    fn look_up_for(
        &mut self,
        topic: TopicId,
        offsets: Vec<u64>,
        purpose: Purpose,
        bytes_max: Option<usize>,
        is_taken: bool,
    ) {
        self.receives.last_lookup += 1;
        let id = LookupId(self.receives.last_lookup);
        self.receives.lookups.insert(id, purpose);
        self.actions.lookups.push(Lookup { id, topic, offsets, bytes_max, is_taken });
    }

    /// Looks up messages whose time may be over.
    pub(super) fn look_up_overdue(&mut self, block: DueBlock, offsets: Vec<u64>) {
        self.look_up(block.topic, offsets, Purpose::Overdue { block });
    }

    pub(super) fn on_looked_up(&mut self, id: LookupId, looked_up: LookedUp) {
        let LookedUp { found, missing } = looked_up;
        self.steps.take(1 + found.len() + missing.len());
        match self.receives.lookups.remove(&id) {
            Some(Purpose::Receive { call, target, offsets }) => {
                self.on_candidates(call, target, offsets, found, &missing);
            }
            Some(Purpose::Dead { call, topic, subscription, action }) => {
                self.on_dead(call, (topic, subscription), action, &found);
            }
            Some(Purpose::Overdue { block }) => self.on_overdue(block, found, missing.len()),
            None => {} // Of an earlier term.
        }
    }

    fn on_candidates(
        &mut self,
        id: CallId,
        target: Target,
        offsets: Vec<u64>,
        mut found: Vec<Candidate>,
        missing: &[u64],
    ) {
        // Messages that were purged or died since they were chosen cannot be found, and do not count as missing.
        let subscription = self.state.subscription(target.0, target.1);
        let is_wanted =
            |offset: &u64| subscription.is_some_and(|subscription| subscription.is_ready(*offset));
        let missing: Vec<u64> = missing.iter().copied().filter(is_wanted).collect();
        self.keep_unread(target, missing);
        if !self.calls.get(&id).is_some_and(|call| call.stage == Stage::LookingUp) {
            return self.give_back_offered(target, offsets.into_iter());
        }
        if found.is_empty() {
            // There may be others behind them.
            self.give_back_offered(target, offsets.into_iter());
            return self.try_receive(id, false);
        }
        let Some(Ok(plan)) = self.plan(id) else {
            self.give_back_offered(target, offsets.into_iter());
            // As far as this node knows, the topic has gone meanwhile. It says so only once a read confirms it.
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
        if found.len() < offsets.len() {
            // The messages found are some of those asked for, in the same order.
            let mut taken = found.iter().map(|candidate| candidate.offset).peekable();
            let left = offsets.into_iter().filter(|offset| taken.next_if_eq(offset).is_none());
            self.give_back_offered(target, left);
        }
        let (topic, subscription) = target;
        match plan.kind {
            TakeKind::Receive { lease_ms } => {
                let lease_ms = lease_ms.unwrap_or(self.settings.lease_ms_default);
                self.propose_later(
                    Some(id),
                    Command::Receive { topic, subscription, candidates: found, lease_ms },
                );
            }
            TakeKind::Pop { request_id } => self.propose_pop(id, target, found, request_id),
        }
    }

    fn propose_pop(
        &mut self,
        id: CallId,
        target: Target,
        candidates: Vec<Candidate>,
        request_id: Option<u128>,
    ) {
        let count_max = candidates.len().max(1) as u32;
        let (topic, subscription) = target;
        self.propose_later(Some(id), Command::Pop { topic, subscription, candidates, count_max, request_id });
    }

    /// A command was applied, or will never be proposed: messages that it would have taken may be offered again.
    pub(super) fn give_back(&mut self, command: &Command) {
        if let Command::Receive { topic, subscription, candidates, .. }
        | Command::Pop { topic, subscription, candidates, .. } = command
            && self.receives.aside.contains_key(&(*topic, *subscription))
        {
            let offsets = candidates.iter().map(|candidate| candidate.offset);
            self.give_back_offered((*topic, *subscription), offsets);
        }
    }

    /// The same for offsets. Messages that cannot be read here stay aside.
    fn give_back_offered(&mut self, target: Target, offsets: impl Iterator<Item = u64>) {
        let unread = &self.unread;
        self.receives.give_back(target, offsets.filter(|offset| !unread.is_kept(target, *offset)));
    }

    /// Lets calls that wait try again where something changed.
    pub(super) fn serve_waiting(&mut self) {
        while let Some(target) = self.receives.next_woken() {
            if !self.steps.may_go_on() {
                return;
            }
            self.steps.take(1);
            self.receives.served = target;
            self.receives.woken.remove(&target);
            while let Some((ticket, id)) = self.receives.lines.pop(target) {
                self.steps.take(1);
                self.try_receive(id, false);
                if self.receives.lines.is_back(id, ticket) {
                    // Nothing is left here: the others keep their numbers behind it.
                    break;
                }
                if !self.steps.may_go_on() {
                    self.receives.woken.insert(target);
                    return;
                }
            }
        }
    }

    /// Ends the long polls whose time is up: they are answered "empty" once that is confirmed. Returns whether all were
    /// ended.
    pub(super) fn end_waits(&mut self) -> bool {
        let now_ms = self.now.mono_ms;
        while let Some((id, target)) = self.receives.lines.first_over(now_ms) {
            if !self.steps.may_go_on() {
                return false;
            }
            self.steps.take(1);
            if self.is_something_offered(target) {
                // Messages that are offered to others may come back.
                self.receives.lines.put_off(id, now_ms.saturating_add(PUT_OFF_MS));
            } else {
                self.receives.lines.remove(id);
                self.try_receive(id, false);
            }
        }
        true
    }

    /// A call that waits, or whose candidates are looked up, has ended. Messages that it was offered come back with the
    /// answer to its lookup.
    pub(super) fn stop_receiving(&mut self, id: CallId) {
        self.receives.lines.remove(id);
    }

    /// Redrives or purges dead messages. The sizes of listed ones are looked up first.
    pub(super) fn act_on_dead(&mut self, id: CallId, dead: Dead) {
        let (topic, subscription) = match self.target(&dead.topic, &dead.subscription) {
            Ok(target) => target,
            Err(failure) => return self.answer(id, Err(failure)),
        };
        if dead.offsets.is_empty() {
            let command = commands::dead((topic, subscription), dead.action, DeadSelection::All);
            return self.propose_asked(id, Ok(command));
        }
        self.call_mut(id).stage = Stage::LookingUp;
        let purpose = Purpose::Dead { call: id, topic, subscription, action: dead.action };
        self.look_up(topic, dead.offsets, purpose);
    }

    /// The command names the topic that was looked up by its id: by now its name may lead to another topic, with other
    /// sizes.
    fn on_dead(&mut self, id: CallId, target: Target, action: DeadAction, found: &[Candidate]) {
        if !self.calls.contains_key(&id) {
            return;
        }
        let listed =
            found.iter().map(|found| MessageSize { offset: found.offset, size: found.size }).collect();
        self.propose_later(Some(id), commands::dead(target, action, DeadSelection::Listed(listed)));
    }
}
