//! The state of all topics, and how commands change it.

use crate::dropped::Piece;
use crate::limits::COUNTER_MAX;
use crate::map::Map;
use crate::offsets::Offsets;
use crate::pops::{Pop, Pops};
use crate::sessions::{Admitted, KeptReply, Sessions};
use crate::subscription::{Moves, Subscription};
use crate::topic::Topic;
use crate::{
    ApplyMeta, Candidate, Command, DEAD_LISTED_MAX, DeadReason, DeadSelection, EXPIRED_PER_APPLY_MAX,
    Effects, Extension, Generation, LEASE_MS_MAX, LEASE_MS_MIN, LeaseId, LeaseResult, Limit, MessageMeta,
    NACK_REASON_BYTES_MAX, NAME_BYTES_MAX, PUBLISH_MESSAGES_MAX, RECEIVE_MESSAGES_MAX,
    REDRIVEN_PER_APPLY_MAX, Refused, Reply, SETTLE_LEASES_MAX, Sequenced, SessionId, SubscriptionId, Token,
    TopicChange, TopicId, TopicSettings,
};
use std::sync::Arc;

/// The whole queue. Every node of the cluster holds the same after the same entries.
///
/// Cloning is cheap, for snapshots: a clone shares everything. What changes afterwards is copied piece by piece, at
/// most 64 entries at a time. Two states that hold the same are equal, however they came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The greatest stamp seen.
    pub(crate) now_ms: u64,
    pub(crate) generation: Generation,
    /// The greatest id given to a topic or session.
    pub(crate) last_id: u64,
    pub(crate) last_token: Token,
    pub(crate) topics: Map<TopicId, Arc<Topic>>,
    /// Follows from `topics`.
    pub(crate) names: Map<Arc<str>, TopicId>,
    /// (earliest end of a lease or delay, where). Follows from `topics`.
    pub(crate) ends: Map<(u64, TopicId, SubscriptionId), ()>,
    /// Subscriptions with redriven messages that are not listed yet. Follows from `topics`.
    pub(crate) redriving: Map<(TopicId, SubscriptionId), ()>,
    pub(crate) sessions: Sessions,
    /// Sessions that still count in topics that are gone. Follows from `sessions` and `topics`.
    pub(crate) leaving: Map<TopicId, Map<SessionId, ()>>,
    pub(crate) pops: Pops,
}

/// One subscription and what surrounds it, open to be changed.
pub(crate) struct Scope<'a> {
    pub(crate) settings: &'a TopicSettings,
    offsets: &'a Offsets,
    pub(crate) subscription: &'a mut Subscription,
    pub(crate) moves: &'a mut Moves,
}

impl State {
    /// Applies one command: ends first what is over at the stamp (at most
    /// [`EXPIRED_PER_APPLY_MAX`] items, the earliest first), then does what the command says.
    ///
    /// Never fails, and never panics on what a command says: what cannot be done is refused in the reply, the same on
    /// every node. The cost is by what the command lists, never by the backlog: deleting and purging move what they
    /// drop away whole, into [`Effects::dropped`], and a redrive of many runs goes on with the next commands.
    pub fn apply(&mut self, meta: &ApplyMeta, command: &Command) -> (Reply, Effects) {
        let mut effects = Effects::default();
        let mut budget = EXPIRED_PER_APPLY_MAX;
        self.now_ms = self.now_ms.max(meta.now_ms);
        self.expire(&mut budget, &mut effects);
        let reply = self.perform(meta.index, command, &mut budget, &mut effects);
        // For each subscription the lowest offset comes first, and is the one that stays.
        effects.ready.sort_unstable();
        effects.ready.dedup_by_key(|ready| (ready.0, ready.1));
        effects.released.sort_unstable();
        effects.released.dedup();
        (reply.unwrap_or_else(Reply::Refused), effects)
    }

    fn perform(
        &mut self,
        index: u64,
        command: &Command,
        budget: &mut usize,
        effects: &mut Effects,
    ) -> Result<Reply, Refused> {
        match command {
            Command::CreateTopic { name, settings, topics_max, request_id } => {
                self.create_topic(index, name, settings, *topics_max, *request_id)
            }
            Command::UpdateTopic { name, change } => self.update_topic(name, change),
            Command::DeleteTopic { name } => self.delete_topic(name, budget, effects),
            Command::Publish { topic, session, messages } => {
                self.publish(topic, session.as_ref(), messages, effects)
            }
            Command::Receive { topic, subscription, candidates, lease_ms } => {
                self.receive((*topic, *subscription), candidates, *lease_ms, effects)
            }
            Command::Pop { topic, subscription, candidates, count_max, request_id } => {
                self.pop((*topic, *subscription), candidates, *count_max, *request_id, effects)
            }
            Command::Ack { topic, subscription, leases } => {
                self.settle((*topic, *subscription), leases, effects, |scope, lease| {
                    scope.subscription.ack(lease.offset, lease.token)
                })
            }
            Command::Nack { topic, subscription, leases, delay_ms, reason } => {
                self.nack((*topic, *subscription), leases, *delay_ms, reason.as_deref(), effects)
            }
            Command::Extend { topic, subscription, leases, lease_ms } => {
                self.extend((*topic, *subscription), leases, *lease_ms, effects)
            }
            Command::Release { topic, subscription, leases } => {
                let now_ms = self.now_ms;
                self.settle((*topic, *subscription), leases, effects, |scope, lease| {
                    scope.subscription.release(lease.offset, lease.token, now_ms, scope.moves)
                })
            }
            Command::RedriveDead { topic, subscription, selection } => {
                check_selection(selection)?;
                let count = self.with_subscription((*topic, *subscription), effects, |scope| {
                    scope.subscription.redrive(selection, scope.moves)
                })??;
                Ok(Reply::Redriven { count })
            }
            Command::PurgeDead { topic, subscription, selection } => {
                check_selection(selection)?;
                let (count, bytes) =
                    self.with_subscription((*topic, *subscription), effects, |scope| {
                        scope.subscription.purge_dead(selection, scope.moves)
                    })??;
                Ok(Reply::Purged { count, bytes })
            }
            Command::Purge { topic, subscription } => {
                let topic = *self.names.get(topic.as_str()).ok_or(Refused::NoSuchTopic)?;
                let (count, bytes) = self.with_subscription((topic, *subscription), effects, |scope| {
                    scope.subscription.purge(scope.moves)
                })?;
                Ok(Reply::Purged { count, bytes })
            }
            Command::OpenSession { name, sessions_max, pairs_max } => {
                self.open_session(index, name.as_deref(), (*sessions_max, *pairs_max), effects)
            }
            Command::CloseSession { session, epoch } => {
                self.sessions.hold(*session, *epoch, self.now_ms)?;
                self.end_session(*session, effects);
                Ok(Reply::SessionClosed)
            }
            Command::Time { overdue } => {
                self.expire_overdue(overdue, budget, effects);
                Ok(Reply::Done)
            }
            Command::RaiseGeneration { generation } => self.raise_generation(*generation),
        }
    }

    fn create_topic(
        &mut self,
        index: u64,
        name: &str,
        settings: &TopicSettings,
        topics_max: u64,
        request_id: Option<u128>,
    ) -> Result<Reply, Refused> {
        check_name(name)?;
        check_attempts(settings)?;
        if let Some(&topic) = self.names.get(name) {
            let held = self.topics.get(&topic).expect("every name leads to a topic");
            if request_id.is_some() && held.request_id == request_id {
                return Ok(Reply::Created { topic, repeated: true });
            }
            return Err(Refused::TopicExists { topic });
        }
        let value = self.topics.len() as u64 + 1;
        if value > topics_max {
            return Err(Refused::OverLimit { limit: Limit::Topics, max: topics_max, value });
        }
        let id = TopicId(self.next_id(index)?);
        self.last_id = id.0;
        let topic = Topic::new(id, name, *settings, request_id, self.now_ms);
        self.names.insert(Arc::clone(&topic.name), id);
        self.topics.insert(id, Arc::new(topic));
        Ok(Reply::Created { topic: id, repeated: false })
    }

    fn update_topic(&mut self, name: &str, change: &TopicChange) -> Result<Reply, Refused> {
        let id = *self.names.get(name).ok_or(Refused::NoSuchTopic)?;
        let topic = self.topics.get_mut(&id).expect("every name leads to a topic");
        let settings = change.of(&topic.settings);
        check_attempts(&settings)?;
        if settings != topic.settings {
            Arc::make_mut(topic).settings = settings;
        }
        Ok(Reply::Updated { settings })
    }

    fn delete_topic(
        &mut self,
        name: &str,
        budget: &mut usize,
        effects: &mut Effects,
    ) -> Result<Reply, Refused> {
        let id = self.names.remove(name).ok_or(Refused::NoSuchTopic)?;
        let topic = self.topics.remove(&id).expect("every name leads to a topic");
        for (&subscription, held) in &topic.subscriptions {
            move_end(&mut self.ends, (id, subscription), held.next_end_ms(), None);
            self.redriving.remove(&(id, subscription));
        }
        if !topic.sessions.is_empty() {
            self.leaving.insert(id, topic.sessions.clone());
            self.drop_leaving(budget, effects);
        }
        let entries = topic.entries();
        effects.steps += effects.dropped.add(Piece::Topic(topic), entries);
        effects.deleted.push(id);
        Ok(Reply::Deleted { topic: id })
    }

    fn publish(
        &mut self,
        name: &str,
        session: Option<&Sequenced>,
        messages: &[MessageMeta],
        effects: &mut Effects,
    ) -> Result<Reply, Refused> {
        if messages.is_empty() {
            return Err(Refused::Empty);
        }
        check_limit(Limit::PublishMessages, PUBLISH_MESSAGES_MAX as u64, messages.len() as u64)?;
        if let Some(given) = session {
            self.sessions.hold(given.session, given.epoch, self.now_ms)?;
        }
        let id = *self.names.get(name).ok_or(Refused::NoSuchTopic)?;
        let topic = self.topics.get_mut(&id).expect("every name leads to a topic");
        if let Some(given) = session {
            match self.sessions.admit(given, id)? {
                Admitted::New => {}
                Admitted::Repeat(KeptReply { first_offset, count, .. }) => {
                    let generation = topic.offsets.generation_of(first_offset);
                    return Ok(Reply::Published {
                        topic: id,
                        generation,
                        first_offset,
                        count,
                        repeated: true,
                    });
                }
                Admitted::AlreadyDone => return Ok(Reply::AlreadyDone),
            }
        }
        topic.admit(messages)?;
        let topic = Arc::make_mut(topic);
        let first_offset = topic.offsets.give(self.generation, messages.len());
        for (&subscription, held) in &mut topic.subscriptions {
            let before = held.next_end_ms();
            let mut moves = Moves::default();
            held.publish(first_offset, messages, self.now_ms, &mut moves);
            move_end(&mut self.ends, (id, subscription), before, held.next_end_ms());
            note(effects, (id, subscription), moves);
        }
        let count = messages.len() as u32;
        if let Some(given) = session {
            let reply = KeptReply { first_offset, count, batch_crc: given.batch_crc };
            if self.sessions.keep(given, id, reply) {
                topic.sessions.insert(given.session, ());
            }
        }
        Ok(Reply::Published { topic: id, generation: self.generation, first_offset, count, repeated: false })
    }

    fn receive(
        &mut self,
        target: (TopicId, SubscriptionId),
        candidates: &[Candidate],
        lease_ms: u64,
        effects: &mut Effects,
    ) -> Result<Reply, Refused> {
        check_lease_ms(lease_ms)?;
        check_limit(Limit::ReceiveMessages, RECEIVE_MESSAGES_MAX as u64, candidates.len() as u64)?;
        let now_ms = self.now_ms;
        let expires_ms = now_ms.saturating_add(lease_ms);
        let token = Token(next_number(self.last_token.0, 1)?);
        let taken = self.with_subscription(target, effects, |scope| {
            scope.subscription.lease(candidates, token, (now_ms, expires_ms), scope.moves)
        })??;
        if taken.is_empty() {
            return Ok(Reply::Received {
                topic: target.0,
                token: Token(0),
                expires_ms,
                deliveries: Vec::new(),
            });
        }
        self.last_token = token;
        let deliveries = self.topics.get(&target.0).expect("it was just changed").deliveries(&taken);
        Ok(Reply::Received { topic: target.0, token, expires_ms, deliveries })
    }

    fn pop(
        &mut self,
        target: (TopicId, SubscriptionId),
        candidates: &[Candidate],
        count_max: u32,
        request_id: Option<u128>,
        effects: &mut Effects,
    ) -> Result<Reply, Refused> {
        check_limit(Limit::ReceiveMessages, RECEIVE_MESSAGES_MAX as u64, candidates.len() as u64)?;
        if let Some(known) = request_id.and_then(|request_id| self.pops.get(request_id)) {
            if (known.topic, known.subscription) != target {
                return Err(Refused::RequestIdReused);
            }
            if known.deliveries.is_empty() || !self.topics.contains_key(&known.topic) {
                return Ok(Reply::AlreadyDone);
            }
            let deliveries = known.deliveries.to_vec();
            return Ok(Reply::Popped { topic: target.0, deliveries, repeated: true });
        }
        let now_ms = self.now_ms;
        let taken = self.with_subscription(target, effects, |scope| {
            scope.subscription.pop(candidates, count_max as usize, now_ms, scope.moves)
        })??;
        let topic = self.topics.get_mut(&target.0).expect("it was just changed");
        let deliveries = topic.deliveries(&taken);
        if let Some(request_id) = request_id.filter(|_| !deliveries.is_empty()) {
            let kept = &mut Arc::make_mut(topic).kept;
            let (topic, subscription) = target;
            let deliveries = deliveries.as_slice().into();
            let pop = Pop { request_id, popped_ms: now_ms, topic, subscription, deliveries };
            pop.runs().for_each(|run| kept.insert(run));
            self.pops.keep(pop);
            // Pops whose time is over were ended before, as far as the budget went. Here the oldest gives way to this
            // one.
            self.release_pop(0, effects);
            self.pops.forget(0);
        }
        Ok(Reply::Popped { topic: target.0, deliveries, repeated: false })
    }

    fn nack(
        &mut self,
        target: (TopicId, SubscriptionId),
        leases: &[LeaseId],
        delay_ms: u64,
        reason: Option<&str>,
        effects: &mut Effects,
    ) -> Result<Reply, Refused> {
        let length = reason.map_or(0, str::len) as u64;
        check_limit(Limit::NackReasonBytes, NACK_REASON_BYTES_MAX as u64, length)?;
        let reason = match reason {
            Some(text) if !text.is_empty() => DeadReason::NackedBecause(text.into()),
            _ => DeadReason::Nacked,
        };
        let times = (self.now_ms, delay_ms);
        self.settle(target, leases, effects, |scope, lease| {
            let attempts_max = scope.settings.attempts_max;
            scope.subscription.nack(lease.offset, lease.token, times, attempts_max, &reason, scope.moves)
        })
    }

    fn extend(
        &mut self,
        target: (TopicId, SubscriptionId),
        leases: &[LeaseId],
        lease_ms: u64,
        effects: &mut Effects,
    ) -> Result<Reply, Refused> {
        check_lease_ms(lease_ms)?;
        let now_ms = self.now_ms;
        let mut ends = Vec::with_capacity(leases.len());
        let results = self.judge_each(target, leases, effects, |scope, lease| {
            match scope.subscription.extend(lease.offset, lease.token, now_ms, lease_ms) {
                Ok(expires_ms) => {
                    ends.push(expires_ms);
                    LeaseResult::Done
                }
                Err(result) => result,
            }
        })?;
        let mut ends = ends.into_iter();
        let extension = |result| {
            let expires_ms = match result {
                LeaseResult::Done => ends.next().expect("there is an end for each lease that was extended"),
                _ => 0,
            };
            Extension { result, expires_ms }
        };
        Ok(Reply::Extended { extensions: results.into_iter().map(extension).collect() })
    }

    fn settle(
        &mut self,
        target: (TopicId, SubscriptionId),
        leases: &[LeaseId],
        effects: &mut Effects,
        act: impl FnMut(&mut Scope<'_>, &LeaseId) -> LeaseResult,
    ) -> Result<Reply, Refused> {
        let results = self.judge_each(target, leases, effects, act)?;
        Ok(Reply::Settled { results })
    }

    /// Judges every lease alone: first whether message and token were given out at all, then what `act` makes of it.
    fn judge_each(
        &mut self,
        target: (TopicId, SubscriptionId),
        leases: &[LeaseId],
        effects: &mut Effects,
        mut act: impl FnMut(&mut Scope<'_>, &LeaseId) -> LeaseResult,
    ) -> Result<Vec<LeaseResult>, Refused> {
        check_limit(Limit::SettleLeases, SETTLE_LEASES_MAX as u64, leases.len() as u64)?;
        let (generation, last_token) = (self.generation, self.last_token);
        if !self.topics.contains_key(&target.0) {
            effects.steps += leases.len() as u64;
            let result = |lease: &LeaseId| self.result_without_topic(target.0, lease.generation);
            return Ok(leases.iter().map(result).collect());
        }
        self.with_subscription(target, effects, |scope| {
            scope.moves.steps += leases.len() as u64;
            let mut judge = |lease| match scope.offsets.judge(lease, generation, last_token) {
                Some(result) => result,
                None => act(scope, lease),
            };
            leases.iter().map(&mut judge).collect()
        })
    }

    /// The result for a lease of a topic that is not there: it was deleted, lost in a forced recovery, or never made.
    fn result_without_topic(&self, topic: TopicId, generation: Generation) -> LeaseResult {
        let is_lost = generation < self.generation;
        let is_known = generation == self.generation && topic.0 <= self.last_id;
        if is_lost || is_known { LeaseResult::Gone } else { LeaseResult::Invalid }
    }

    fn open_session(
        &mut self,
        index: u64,
        name: Option<&str>,
        maxima: (u64, u64),
        effects: &mut Effects,
    ) -> Result<Reply, Refused> {
        if let Some(name) = name {
            check_name(name)?;
        }
        if let Some(overdue) = self.sessions.overdue(name, self.now_ms) {
            self.end_session(overdue, effects);
        }
        let new_id = SessionId { generation: self.generation, number: self.next_id(index)? };
        let (session, epoch, resumed) = self.sessions.open(new_id, name, maxima, self.now_ms)?;
        if !resumed {
            self.last_id = new_id.number;
        }
        Ok(Reply::SessionOpened { session, epoch, resumed })
    }

    fn raise_generation(&mut self, generation: Generation) -> Result<Reply, Refused> {
        if generation <= self.generation {
            return Err(Refused::GenerationNotAbove { held: self.generation, given: generation });
        }
        self.last_token.0 = next_number(self.last_token.0, Token::GENERATION_STRIDE)?;
        self.generation = generation;
        Ok(Reply::Done)
    }

    /// The id for something that the entry at `index` makes.
    fn next_id(&self, index: u64) -> Result<u64, Refused> {
        let next = next_number(self.last_id, 1)?;
        if index > COUNTER_MAX { Err(Refused::NumbersSpent) } else { Ok(index.max(next)) }
    }

    /// Opens a subscription to `act`, and keeps in step what follows from it.
    pub(crate) fn with_subscription<R>(
        &mut self,
        target: (TopicId, SubscriptionId),
        effects: &mut Effects,
        act: impl FnOnce(&mut Scope<'_>) -> R,
    ) -> Result<R, Refused> {
        let topic = Arc::make_mut(self.topics.get_mut(&target.0).ok_or(Refused::NoSuchTopic)?);
        let subscription = topic.subscriptions.get_mut(&target.1).ok_or(Refused::NoSuchSubscription)?;
        let before = subscription.next_end_ms();
        let was_redriving = !subscription.redriven.is_empty();
        let mut moves = Moves::default();
        let (settings, offsets) = (&topic.settings, &topic.offsets);
        let result = act(&mut Scope { settings, offsets, subscription, moves: &mut moves });
        if subscription.ready.is_empty() {
            // Nobody shall be told that nothing is ready.
            subscription.list_redriven(REDRIVEN_PER_APPLY_MAX, &mut moves);
        }
        move_end(&mut self.ends, target, before, subscription.next_end_ms());
        match (was_redriving, !subscription.redriven.is_empty()) {
            (false, true) => drop(self.redriving.insert(target, ())),
            (true, false) => drop(self.redriving.remove(&target)),
            _ => {}
        }
        note(effects, target, moves);
        Ok(result)
    }
}

/// Keeps a subscription in `ends` under its earliest end.
fn move_end(
    ends: &mut Map<(u64, TopicId, SubscriptionId), ()>,
    (topic, subscription): (TopicId, SubscriptionId),
    before: Option<u64>,
    after: Option<u64>,
) {
    if before == after {
        return;
    }
    if let Some(ms) = before {
        ends.remove(&(ms, topic, subscription));
    }
    if let Some(ms) = after {
        ends.insert((ms, topic, subscription), ());
    }
}

fn note(effects: &mut Effects, target: (TopicId, SubscriptionId), moves: Moves) {
    if let Some(lowest) = moves.ready {
        effects.ready.push((target.0, target.1, lowest));
    }
    effects.steps += moves.steps;
    for held in moves.dropped {
        let entries = held.entries();
        effects.steps += effects.dropped.add(Piece::Subscription(Box::new(held)), entries);
    }
    effects.died += moves.died;
    effects.leases_expired += moves.leases_expired;
}

/// The next value of a number that only rises.
fn next_number(last: u64, step: u64) -> Result<u64, Refused> {
    let next = last.saturating_add(step);
    if next > COUNTER_MAX { Err(Refused::NumbersSpent) } else { Ok(next) }
}

fn check_limit(limit: Limit, max: u64, value: u64) -> Result<(), Refused> {
    if value > max { Err(Refused::OverLimit { limit, max, value }) } else { Ok(()) }
}

fn check_attempts(settings: &TopicSettings) -> Result<(), Refused> {
    match settings.attempts_max {
        0 => Err(Refused::UnderLimit { limit: Limit::Attempts, min: 1, value: 0 }),
        _ => Ok(()),
    }
}

fn check_lease_ms(value: u64) -> Result<(), Refused> {
    if value < LEASE_MS_MIN {
        return Err(Refused::UnderLimit { limit: Limit::LeaseMs, min: LEASE_MS_MIN, value });
    }
    check_limit(Limit::LeaseMs, LEASE_MS_MAX, value)
}

fn check_selection(selection: &DeadSelection) -> Result<(), Refused> {
    match selection {
        DeadSelection::All => Ok(()),
        DeadSelection::Listed(listed) => {
            check_limit(Limit::DeadListed, DEAD_LISTED_MAX as u64, listed.len() as u64)
        }
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Refused> {
    let is_valid = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if is_valid { Ok(()) } else { Err(Refused::InvalidName) }
}
