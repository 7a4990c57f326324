//! The state as plain data, for whoever writes and reads snapshots.
//!
//! [`Parts`] is complete: [`State::from_parts`] of [`State::to_parts`] gives an equal state. It holds what cannot be
//! derived; everything else (names, ends) is built again. Whatever it is given, [`State::from_parts`] never
//! panics and never returns a state that breaks its own rules.

use crate::check::{Broken, hold};
use crate::dead::{DeadRun, DeadRuns};
use crate::deadline::Deadline;
use crate::map::Map;
use crate::offsets::Offsets;
use crate::pops::{Pop, Pops};
use crate::runs::Runs;
use crate::sessions::{KeptReply, Pair, Session, Sessions};
use crate::state::State;
use crate::subscription::{Delayed, Lease, Retried, Subscription};
use crate::topic::Topic;
use crate::view::{DelayedMessage, LeasedMessage, RetriedMessage};
use crate::{Delivery, Generation, SessionId, SubscriptionId, Token, TopicId, TopicSettings};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A whole [`State`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The greatest stamp applied, in milliseconds.
    pub now_ms: u64,
    /// The generation in force.
    pub generation: Generation,
    /// The greatest id given to a topic or session.
    pub last_id: u64,
    /// The last token granted.
    pub last_token: Token,
    /// All topics by rising id.
    pub topics: Vec<TopicParts>,
    /// All open sessions by rising id.
    pub sessions: Vec<SessionParts>,
    /// Pops with a request id, the oldest first.
    pub pops: Vec<PopParts>,
    /// How many of `pops`, at the end, are kept with their messages. The others are only remembered.
    pub pops_kept: u64,
    /// How many pops were forgotten before the first of `pops`.
    pub pops_forgotten: u64,
}

/// A [`Topic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicParts {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// What it allows.
    pub settings: TopicSettings,
    /// The request id of its creation.
    pub request_id: Option<u128>,
    /// When it was created, in log time.
    pub created_ms: u64,
    /// The offset that the next message gets.
    pub next_offset: u64,
    /// The first offset of each generation in which something was published.
    pub generations: Vec<(Generation, u64)>,
    /// Its subscriptions by rising id.
    pub subscriptions: Vec<SubscriptionParts>,
}

/// A [`Subscription`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionParts {
    /// Its id.
    pub id: SubscriptionId,
    /// Bytes of all its messages, wherever they are.
    pub bytes: u64,
    /// Ready messages as (first offset, offset behind the last), rising and apart.
    pub ready: Vec<(u64, u64)>,
    /// Of the ready ones, those that were leased before.
    pub retried: Vec<RetriedMessage>,
    /// Of the ready ones, those whose deadline is waived, in the form of `ready`.
    pub waived: Vec<(u64, u64)>,
    /// Leased messages by rising offset.
    pub leased: Vec<LeasedMessage>,
    /// Delayed messages by rising offset.
    pub delayed: Vec<DelayedMessage>,
    /// Dead messages by rising offset.
    pub dead: Vec<DeadRun>,
    /// Bytes of the dead messages.
    pub dead_bytes: u64,
}

/// A [`Session`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionParts {
    /// Its id.
    pub id: SessionId,
    /// The name of its producer.
    pub name: Option<String>,
    /// The epoch in force.
    pub epoch: u64,
    /// The stamp of the last call that named it, in milliseconds.
    pub used_ms: u64,
    /// Most (session, topic) pairs of the cluster, as its opening said.
    pub pairs_max: u64,
    /// What it counts, by rising topic id.
    pub pairs: Vec<PairParts>,
}

/// The sequences of one session in one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairParts {
    /// The topic.
    pub topic: TopicId,
    /// The last sequence taken.
    pub last_sequence: u64,
    /// The last replies, the newest at the end: `last_sequence` of them, at most
    /// [`SESSION_REPLIES_MAX`](crate::SESSION_REPLIES_MAX).
    pub replies: Vec<KeptReply>,
}

/// A pop with a request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PopParts {
    /// The request id.
    pub request_id: u128,
    /// The stamp of the pop, in milliseconds.
    pub popped_ms: u64,
    /// The topic, which may be gone.
    pub topic: TopicId,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// What it took; empty for one that is only remembered.
    pub deliveries: Vec<Delivery>,
}

impl State {
    /// Everything, as plain data. The cost in time and memory is by entries, so do it with a clone and off the driver.
    #[must_use]
    pub fn to_parts(&self) -> Parts {
        Parts {
            now_ms: self.now_ms,
            generation: self.generation,
            last_id: self.last_id,
            last_token: self.last_token,
            topics: self.topics().map(topic_to_parts).collect(),
            sessions: self
                .sessions
                .by_id
                .iter()
                .map(|(&id, session)| session_to_parts(id, session))
                .collect(),
            pops: self.pops.by_number.iter().map(|(_, pop)| pop_to_parts(pop)).collect(),
            pops_kept: self.pops.kept_count as u64,
            pops_forgotten: self.pops.next_number - self.pops.by_number.len() as u64,
        }
    }

    /// The state made of these parts.
    ///
    /// # Errors
    ///
    /// [`Broken`] if the parts break a rule of the state. Their source is then damaged: take the older snapshot, or
    /// that of another node.
    pub fn from_parts(parts: Parts) -> Result<State, Broken> {
        let mut topics: Map<TopicId, Arc<Topic>> = Map::default();
        let mut before = TopicId(0);
        for parts in parts.topics {
            let id = parts.id;
            hold(before < id, "topic ids rise", || format!("{id} after {before}"))?;
            before = id;
            topics.insert(id, Arc::new(topic_from_parts(parts)?));
        }
        let sessions = sessions_from_parts(parts.sessions)?;
        let pops = pops_from_parts(parts.pops, parts.pops_kept, parts.pops_forgotten)?;
        for (&id, session) in sessions.by_id.iter() {
            for (topic, _) in session.sequences() {
                if let Some(topic) = topics.get_mut(&topic) {
                    Arc::make_mut(topic).sessions.insert(id, ());
                }
            }
        }
        for pop in pops.kept() {
            if let Some(topic) = topics.get_mut(&pop.topic) {
                let topic = Arc::make_mut(topic);
                for run in pop.runs() {
                    let detail = format!("pop {:032x}, {run:?}", pop.request_id);
                    hold(topic.kept.insert_new(run), "a message is popped once", || detail)?;
                }
            }
        }
        let state = State {
            now_ms: parts.now_ms,
            generation: parts.generation,
            last_id: parts.last_id,
            last_token: parts.last_token,
            names: topics.iter().map(|(&id, topic)| (Arc::clone(&topic.name), id)).collect(),
            ends: topics.iter().flat_map(|(_, topic)| topic.ends()).map(|end| (end, ())).collect(),
            topics,
            sessions,
            pops,
        };
        state.check()?;
        Ok(state)
    }
}

impl Topic {
    /// The earliest end in each of its subscriptions.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (u64, TopicId, SubscriptionId)> {
        let end = |(&id, held): (&SubscriptionId, &Subscription)| Some((held.next_end_ms()?, self.id, id));
        self.subscriptions.iter().filter_map(end)
    }
}

fn topic_to_parts(topic: &Topic) -> TopicParts {
    TopicParts {
        id: topic.id,
        name: topic.name.to_string(),
        settings: topic.settings,
        request_id: topic.request_id,
        created_ms: topic.created_ms,
        next_offset: topic.offsets.next,
        generations: topic.offsets.generations.clone(),
        subscriptions: topic.subscriptions().map(|(id, held)| subscription_to_parts(id, held)).collect(),
    }
}

fn topic_from_parts(parts: TopicParts) -> Result<Topic, Broken> {
    let topic = parts.id;
    let mut subscriptions = BTreeMap::new();
    for parts in parts.subscriptions {
        let id = parts.id;
        let held = subscription_from_parts(topic, &parts)?;
        let is_new = subscriptions.insert(id, held).is_none();
        hold(is_new, "a subscription stands once", || format!("topic {topic}, subscription {id}"))?;
    }
    let offsets = Offsets { next: parts.next_offset, generations: parts.generations };
    let mut topic = Topic::new(topic, &parts.name, parts.settings, parts.request_id, parts.created_ms);
    topic.offsets = offsets;
    topic.subscriptions = subscriptions;
    Ok(topic)
}

fn subscription_to_parts(id: SubscriptionId, held: &Subscription) -> SubscriptionParts {
    SubscriptionParts {
        id,
        bytes: held.bytes,
        ready: held.ready.iter().map(|run| (run.start, run.end)).collect(),
        retried: held.retried_from(0).collect(),
        waived: held.waived.iter().map(|run| (run.start, run.end)).collect(),
        leased: held.leased_from(0).collect(),
        delayed: held.delayed_from(0).collect(),
        dead: held.dead_from(0).collect(),
        dead_bytes: held.dead.bytes(),
    }
}

fn subscription_from_parts(topic: TopicId, parts: &SubscriptionParts) -> Result<Subscription, Broken> {
    let inside = |detail: String| format!("topic {topic}, subscription {}, {detail}", parts.id);
    let runs = |runs: &[(u64, u64)]| {
        Runs::from_runs(runs).map_err(|run| Broken {
            rule: "runs rise and stand apart",
            detail: inside(format!("run {run:?}")),
        })
    };
    let dead = DeadRuns::from_runs(&parts.dead, parts.dead_bytes).map_err(|run| Broken {
        rule: "dead runs rise and stand apart",
        detail: inside(format!("run {run:?}")),
    })?;
    let mut held = Subscription {
        ready: runs(&parts.ready)?,
        waived: runs(&parts.waived)?,
        dead,
        ..Subscription::default()
    };
    held.bytes = parts.bytes;
    for message in &parts.retried {
        let &RetriedMessage { offset, size, attempts, late_ack } = message;
        let retried = Retried { attempts, size, late_ack: late_ack.unwrap_or(Token(0)) };
        let is_new = held.retried.insert(offset, retried).is_none();
        hold(is_new, "a retried message stands once", || inside(format!("offset {offset}")))?;
        held.retried_bytes = held.retried_bytes.saturating_add(u64::from(size));
    }
    for message in &parts.leased {
        let &LeasedMessage { offset, size, attempts, token, granted_ms, expires_ms, .. } = message;
        let deadline = deadline_from_parts(message.deadline_ms, message.is_waived, || {
            inside(format!("offset {offset}"))
        })?;
        let lease = Lease { token, granted_ms, expires_ms, deadline, size, attempts };
        let is_new = held.leased.insert(offset, lease).is_none();
        hold(is_new, "a leased message stands once", || inside(format!("offset {offset}")))?;
        held.lease_ends.insert((expires_ms, offset), ());
        held.leased_bytes = held.leased_bytes.saturating_add(u64::from(size));
    }
    for message in &parts.delayed {
        let &DelayedMessage { offset, size, attempts, due_ms, .. } = message;
        let deadline = deadline_from_parts(message.deadline_ms, message.is_waived, || {
            inside(format!("offset {offset}"))
        })?;
        let is_new = held.delayed.insert(offset, Delayed { due_ms, deadline, size, attempts }).is_none();
        hold(is_new, "a delayed message stands once", || inside(format!("offset {offset}")))?;
        held.delay_ends.insert((due_ms, offset), ());
        held.delayed_bytes = held.delayed_bytes.saturating_add(u64::from(size));
    }
    Ok(held)
}

fn deadline_from_parts(
    deadline_ms: Option<u64>,
    is_waived: bool,
    detail: impl FnOnce() -> String,
) -> Result<Deadline, Broken> {
    hold(!is_waived || deadline_ms.is_none(), "a waived deadline is none", detail)?;
    Ok(if is_waived { Deadline::WAIVED } else { Deadline::new(deadline_ms) })
}

fn session_to_parts(id: SessionId, session: &Session) -> SessionParts {
    let pair = |(&topic, pair): (&TopicId, &Arc<Pair>)| PairParts {
        topic,
        last_sequence: pair.last_sequence,
        replies: pair.replies.iter().copied().collect(),
    };
    SessionParts {
        id,
        name: session.name().map(str::to_string),
        epoch: session.epoch,
        used_ms: session.used_ms,
        pairs_max: session.pairs_max,
        pairs: session.pairs.iter().map(pair).collect(),
    }
}

fn sessions_from_parts(parts: Vec<SessionParts>) -> Result<Sessions, Broken> {
    let mut sessions = Sessions::default();
    for parts in parts {
        let id = parts.id;
        let name: Option<Arc<str>> = parts.name.map(Arc::from);
        if let Some(name) = &name {
            let is_new = sessions.by_name.insert(Arc::clone(name), id).is_none();
            hold(is_new, "a producer has one session", || format!("session {id}"))?;
        }
        let mut pairs = Map::default();
        for PairParts { topic, last_sequence, replies } in parts.pairs {
            let pair = Pair { last_sequence, replies: replies.into() };
            let is_new = pairs.insert(topic, Arc::new(pair)).is_none();
            hold(is_new, "a session counts once in a topic", || format!("session {id}, topic {topic}"))?;
        }
        sessions.pair_count += pairs.len() as u64;
        let session =
            Session { name, epoch: parts.epoch, used_ms: parts.used_ms, pairs_max: parts.pairs_max, pairs };
        sessions.ends.insert((session.end_ms(), id), ());
        let is_new = sessions.by_id.insert(id, Arc::new(session)).is_none();
        hold(is_new, "a session stands once", || format!("session {id}"))?;
    }
    Ok(sessions)
}

fn pop_to_parts(pop: &Pop) -> PopParts {
    PopParts {
        request_id: pop.request_id,
        popped_ms: pop.popped_ms,
        topic: pop.topic,
        subscription: pop.subscription,
        deliveries: pop.deliveries.to_vec(),
    }
}

fn pops_from_parts(parts: Vec<PopParts>, kept: u64, forgotten: u64) -> Result<Pops, Broken> {
    let count = parts.len() as u64;
    let is_possible = kept <= count && forgotten <= u64::MAX / 2;
    hold(is_possible, "kept pops are some of all", || format!("{kept} of {count} after {forgotten}"))?;
    let mut pops = Pops { kept_count: kept as usize, next_number: forgotten, ..Pops::default() };
    for PopParts { request_id, popped_ms, topic, subscription, deliveries } in parts {
        let is_new = pops.numbers.insert(request_id, pops.next_number).is_none();
        hold(is_new, "a request id stands once", || format!("pop {request_id:032x}"))?;
        let deliveries = deliveries.into();
        pops.by_number
            .insert(pops.next_number, Pop { request_id, popped_ms, topic, subscription, deliveries });
        pops.next_number += 1;
    }
    Ok(pops)
}
