//! The rules that every state keeps, checked from scratch.
//!
//! Tests and the simulator call [`State::check`] after every step. A state read from a snapshot is checked before it is
//! used. The cost is by everything in memory, so the node does not call it while it serves.

use crate::limits::COUNTER_MAX;
use crate::map::Map;
use crate::sessions::Session;
use crate::state::{State, check_name};
use crate::subscription::Subscription;
use crate::topic::Topic;
use crate::{
    DeadReason, LEASE_MS_MAX, NACK_REASON_BYTES_MAX, POP_KEPT_MAX, POP_REMEMBERED_MAX, SESSION_REPLIES_MAX,
    SESSION_TOPICS_MAX, SessionId, SubscriptionId, Token,
};
use std::fmt;
use std::ops::Range;

/// A rule that a state does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The rule.
    pub rule: &'static str,
    /// Where, and what was found there.
    pub detail: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the queue state breaks the rule \"{}\": {}", self.rule, self.detail)
    }
}

impl std::error::Error for Broken {}

pub(crate) fn hold(is_kept: bool, rule: &'static str, detail: impl FnOnce() -> String) -> Result<(), Broken> {
    if is_kept { Ok(()) } else { Err(Broken { rule, detail: detail() }) }
}

impl State {
    /// Whether every rule of the state is kept: counters equal what they count, runs are apart, every offset stands in
    /// one place, everything derived follows from its source.
    ///
    /// # Errors
    ///
    /// The first rule that is broken. In a living state that is a bug; in a state read from bytes it is damage.
    pub fn check(&self) -> Result<(), Broken> {
        let is_believable = self.last_id <= COUNTER_MAX && self.last_token.0 <= COUNTER_MAX;
        hold(is_believable, "counters are believable", || {
            format!("last id {}, last token {}", self.last_id, self.last_token)
        })?;
        for (&id, topic) in self.topics.iter() {
            let is_given = id == topic.id && id.0 != 0 && id.0 <= self.last_id;
            hold(is_given, "topic ids were given", || format!("topic {id}, last id {}", self.last_id))?;
            self.check_topic(topic)?;
        }
        let names = self.topics.iter().map(|(&id, topic)| (topic.name.clone(), id)).collect();
        hold(self.names == names && names.len() == self.topics.len(), "each name has its topic", || {
            format!("{:?} for {names:?}", self.names)
        })?;
        let ends: Map<_, ()> = self.topics().flat_map(Topic::ends).map(|end| (end, ())).collect();
        let redriving: Map<_, ()> = self.topics().flat_map(Topic::redriving).collect();
        hold(self.redriving == redriving, "unfinished redrives are known", || {
            format!("{:?} for {redriving:?}", self.redriving)
        })?;
        hold(self.ends == ends, "ends are the earliest of each subscription", || {
            format!("{:?} for {ends:?}", self.ends)
        })?;
        self.check_sessions()?;
        self.check_pops()
    }

    fn check_topic(&self, topic: &Topic) -> Result<(), Broken> {
        let inside = |detail: String| format!("topic {}, {detail}", topic.id);
        hold(check_name(&topic.name).is_ok(), "names are valid", || inside(format!("{:?}", topic.name)))?;
        hold(topic.settings.attempts_max > 0, "a message has an attempt", || inside("none".into()))?;
        let offsets = &topic.offsets;
        let firsts = &offsets.generations;
        let is_rising = firsts.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let starts_at_0 = firsts.first().is_none_or(|first| first.1 == 0);
        let ends_inside = firsts.last().map_or(offsets.next == 0, |&(generation, first)| {
            generation <= self.generation && first < offsets.next && offsets.next <= COUNTER_MAX
        });
        hold(is_rising && starts_at_0 && ends_inside, "generations cover the offsets", || {
            inside(format!("{firsts:?} for {}", offsets.next))
        })?;
        hold(topic.subscriptions.contains_key(&SubscriptionId::DEFAULT), "a topic has a default", || {
            inside("none".into())
        })?;
        for (&id, subscription) in &topic.subscriptions {
            let checked = self.check_subscription(topic, subscription);
            checked.map_err(|Broken { rule, detail }| {
                let detail = inside(format!("subscription {id}, {detail}"));
                Broken { rule, detail }
            })?;
        }
        Ok(())
    }

    fn check_subscription(&self, topic: &Topic, held: &Subscription) -> Result<(), Broken> {
        check_states(held, topic.offsets.next)?;
        check_ends(held)?;
        check_bytes(held)?;
        // What a topic allows may be less than what was allowed when a message failed last.
        let attempts_max = u32::MAX;
        let is_granted = |token: Token| token != Token(0) && token <= self.last_token;
        for (&offset, retried) in held.retried.iter() {
            let is_right = (1..attempts_max).contains(&retried.attempts)
                && (retried.late_ack == Token(0) || is_granted(retried.late_ack))
                && held.ready.contains(offset);
            hold(is_right, "a retried message is ready", || format!("offset {offset}, {retried:?}"))?;
        }
        for run in held.waived.iter() {
            let is_ready = held.ready.run_of(run.start).is_some_and(|ready| run.end <= ready.end);
            hold(is_ready, "a waived message is ready", || format!("{run:?}"))?;
        }
        for (&offset, lease) in held.leased.iter() {
            let is_right = is_granted(lease.token)
                && lease.attempts < attempts_max
                && lease.granted_ms <= self.now_ms
                && lease.granted_ms <= lease.expires_ms
                && lease.expires_ms - lease.granted_ms <= LEASE_MS_MAX;
            hold(is_right, "a lease is one that can be granted", || format!("offset {offset}, {lease:?}"))?;
        }
        for (&offset, delayed) in held.delayed.iter() {
            let is_right = delayed.attempts < attempts_max;
            hold(is_right, "a delayed message has attempts left", || {
                format!("offset {offset}, {delayed:?}")
            })?;
        }
        for run in held.dead_from(0).chain(held.redriven_from(0)) {
            let is_right = match &run.reason {
                DeadReason::NackedBecause(text) => (1..=NACK_REASON_BYTES_MAX).contains(&text.len()),
                DeadReason::Expired | DeadReason::LeaseExpired | DeadReason::Nacked => true,
            };
            hold(is_right, "a dead message died of something", || format!("{run:?}"))?;
        }
        Ok(())
    }

    fn check_sessions(&self) -> Result<(), Broken> {
        let sessions = &self.sessions;
        let mut by_name = Map::default();
        let mut ends = Map::default();
        let mut pair_count = 0;
        for (&id, session) in sessions.by_id.iter() {
            self.check_session(id, session)?;
            if let Some(name) = &session.name {
                by_name.insert(name.clone(), id);
            }
            ends.insert((session.end_ms(), id), ());
            pair_count += session.pairs.len() as u64;
        }
        hold(sessions.by_name == by_name, "each producer has its session", || {
            format!("{:?}", sessions.by_name)
        })?;
        hold(sessions.ends == ends, "each session has its end", || format!("{:?}", sessions.ends))?;
        hold(sessions.pair_count == pair_count, "pairs are counted", || {
            format!("{} for {pair_count}", sessions.pair_count)
        })?;
        let listed: u64 = self.topics().map(|topic| topic.sessions.len() as u64).sum();
        let listed: u64 =
            listed + self.leaving.iter().map(|(_, sessions)| sessions.len() as u64).sum::<u64>();
        hold(listed == pair_count, "topics list who counts in them", || format!("{listed} for {pair_count}"))
    }

    fn check_session(&self, id: SessionId, session: &Session) -> Result<(), Broken> {
        let is_right = (1..=self.last_id).contains(&id.number)
            && id.generation <= self.generation
            && session.used_ms <= self.now_ms
            && session.epoch <= COUNTER_MAX
            && session.pairs.len() <= SESSION_TOPICS_MAX
            && session.name().is_none_or(|name| check_name(name).is_ok());
        hold(is_right, "a session is one that can be open", || format!("session {id}"))?;
        for (&topic, pair) in session.pairs.iter() {
            let count = pair.last_sequence.min(SESSION_REPLIES_MAX as u64);
            let is_full =
                pair.replies.len() as u64 == count && (1..=COUNTER_MAX).contains(&pair.last_sequence);
            // Of a topic that is gone, only that it was once made is known.
            let next_offset = self.topic(topic).map_or(COUNTER_MAX, Topic::next_offset);
            let mut behind = 0;
            let is_rising = pair.replies.iter().all(|reply| {
                let is_after =
                    reply.first_offset >= behind && reply.first_offset < next_offset && reply.count > 0;
                behind = reply.first_offset.saturating_add(u64::from(reply.count));
                is_after && behind <= next_offset
            });
            let is_leaving = self.leaving.get(&topic).is_some_and(|sessions| sessions.contains_key(&id));
            let is_listed = match self.topic(topic) {
                Some(topic) => topic.sessions.contains_key(&id),
                None => is_leaving && (1..=self.last_id).contains(&topic.0),
            };
            hold(is_full && is_rising && is_listed, "a session keeps the replies it gave", || {
                format!("session {id}, topic {topic}, {pair:?}")
            })?;
        }
        Ok(())
    }

    fn check_pops(&self) -> Result<(), Broken> {
        let pops = &self.pops;
        let count = pops.by_number.len();
        let first = pops.next_number.wrapping_sub(count as u64);
        let remembered = count.wrapping_sub(pops.kept_count);
        let is_bounded = pops.kept_count <= POP_KEPT_MAX
            && remembered <= POP_REMEMBERED_MAX
            && pops.next_number <= COUNTER_MAX
            && pops.numbers.len() == count;
        hold(is_bounded, "pops are bounded", || {
            format!("{} kept, {remembered} remembered", pops.kept_count)
        })?;
        let mut before_ms = 0;
        let mut kept = 0;
        for (position, (&number, pop)) in pops.by_number.iter().enumerate() {
            let is_kept = position >= remembered;
            let is_right = number == first + position as u64
                && pops.numbers.get(&pop.request_id) == Some(&number)
                && (before_ms..=self.now_ms).contains(&pop.popped_ms)
                && pop.topic.0 <= self.last_id
                && pop.deliveries.is_empty() != is_kept;
            hold(is_right, "pops stand in order", || format!("{number}, {pop:?}"))?;
            before_ms = pop.popped_ms;
            let Some(topic) = self.topic(pop.topic) else { continue };
            let subscription = topic.subscription(pop.subscription);
            for delivery in pop.deliveries.iter() {
                let is_gone = subscription.is_some_and(|held| !held.is_live(delivery.offset));
                let is_right = is_gone
                    && topic.generation_of(delivery.offset) == Some(delivery.generation)
                    && topic.kept.contains(delivery.offset);
                hold(is_right, "a kept pop took its messages", || format!("{number}, {delivery:?}"))?;
                kept += 1;
            }
        }
        let all = pops.kept().fold((0, 0), |(messages, bytes), pop| {
            (messages + pop.deliveries.len() as u64, bytes + pop.bytes())
        });
        hold(all == (pops.kept_messages, pops.kept_bytes), "what pops keep is counted", || {
            format!("{all:?}, not {} messages of {} bytes", pops.kept_messages, pops.kept_bytes)
        })?;
        let listed: u64 = self.topics().map(|topic| topic.kept.count()).sum();
        hold(listed == kept, "topics list what is kept", || format!("{listed} for {kept}"))
    }
}

/// Every offset is in one state, and was given.
fn check_states(held: &Subscription, next_offset: u64) -> Result<(), Broken> {
    let one = |&offset: &u64| offset..offset.saturating_add(1);
    let mut runs: Vec<Range<u64>> =
        held.ready.iter().chain(held.dead.offsets()).chain(held.redriven.offsets()).collect();
    runs.extend(held.leased.iter().map(|(offset, _)| one(offset)));
    runs.extend(held.delayed.iter().map(|(offset, _)| one(offset)));
    runs.sort_unstable_by_key(|run| run.start);
    let mut behind = 0;
    for run in runs {
        let is_apart = behind <= run.start && run.start < run.end && run.end <= next_offset;
        hold(is_apart, "every offset stands in one state", || {
            format!("{run:?} behind {behind} of {next_offset}")
        })?;
        behind = run.end;
    }
    let ready: u64 = held.ready.iter().map(|run| run.end - run.start).sum();
    hold(ready == held.ready.count(), "ready messages are counted", || {
        format!("{} for {ready}", held.ready.count())
    })?;
    let mut behind = None;
    for run in held.ready.iter() {
        hold(behind.is_none_or(|behind| behind < run.start), "runs do not touch", || format!("{run:?}"))?;
        behind = Some(run.end);
    }
    for (what, runs) in [("dead", &held.dead), ("redriven", &held.redriven)] {
        let count: u64 = runs.offsets().map(|run| run.end - run.start).sum();
        hold(count == runs.count(), "dead messages are counted", || {
            format!("{} {what} for {count}", runs.count())
        })?;
    }
    let is_listed = held.redriven.is_empty() || !held.ready.is_empty();
    hold(is_listed && held.redriven.bytes() == 0, "a redrive goes on behind what is ready", || {
        format!("{} redriven, {} ready", held.redriven.count(), held.ready.count())
    })
}

/// Every lease and every delay has its end, and nothing else has.
fn check_ends(held: &Subscription) -> Result<(), Broken> {
    let leases: Map<_, ()> =
        held.leased.iter().map(|(&offset, lease)| ((lease.expires_ms, offset), ())).collect();
    hold(held.lease_ends == leases, "each lease has its end", || {
        format!("{:?} for {leases:?}", held.lease_ends)
    })?;
    let delays: Map<_, ()> =
        held.delayed.iter().map(|(&offset, delayed)| ((delayed.due_ms, offset), ())).collect();
    hold(held.delay_ends == delays, "each delay has its end", || {
        format!("{:?} for {delays:?}", held.delay_ends)
    })
}

/// Bytes are the sum of their parts, and what is left for the ready messages is possible.
fn check_bytes(held: &Subscription) -> Result<(), Broken> {
    let leased: u64 = held.leased.iter().map(|(_, lease)| u64::from(lease.size)).sum();
    let delayed: u64 = held.delayed.iter().map(|(_, delayed)| u64::from(delayed.size)).sum();
    hold((held.leased_bytes, held.delayed_bytes) == (leased, delayed), "bytes are summed", || {
        format!("{} for {leased}, {} for {delayed}", held.leased_bytes, held.delayed_bytes)
    })?;
    let largest = |count: u64| count.saturating_mul(u64::from(u32::MAX));
    let dead = held.dead.bytes();
    hold(dead <= largest(held.dead.count()), "dead bytes belong to messages", || format!("{dead}"))?;
    let others = leased.saturating_add(delayed).saturating_add(dead);
    let ready = held.bytes.checked_sub(others);
    let retried: u64 = held.retried.iter().map(|(_, retried)| u64::from(retried.size)).sum();
    hold(held.retried_bytes == retried, "retried bytes are summed", || {
        format!("{} for {retried}", held.retried_bytes)
    })?;
    let is_possible = held.bytes <= COUNTER_MAX
        && ready.and_then(|ready| ready.checked_sub(retried)).is_some_and(|plain| {
            plain <= largest(held.ready_count().saturating_sub(held.retried.len() as u64))
        });
    hold(is_possible, "ready bytes belong to messages", || {
        format!("{} in all, {others} elsewhere, {retried} retried, {} ready", held.bytes, held.ready.count())
    })
}
