//! A state built of sections, whatever they say.

use crate::check::{Broken, hold};
use crate::dead::DeadRuns;
use crate::deadline::Deadline;
use crate::map::Map;
use crate::offsets::Offsets;
use crate::pops::{Pop, Pops};
use crate::sections::{Head, PairSection, PopSection, Section, SessionHead, SubscriptionHead, TopicHead};
use crate::sessions::{Pair, Session, Sessions};
use crate::state::State;
use crate::subscription::{Delayed, Lease, Retried, Subscription};
use crate::topic::Topic;
use crate::{
    DeadRun, DelayedMessage, LeasedMessage, RetriedMessage, SessionId, SubscriptionId, Token, TopicId,
};
use std::sync::Arc;

const IN_ORDER: &str = "sections come in order";
const COMPLETE: &str = "as many follow as the head says";
const RISING: &str = "what stands in sections rises";

/// Builds a [`State`] of its sections, as [`State::sections`] gave them.
///
/// Takes any sections: it never panics, and never returns a state that breaks its own rules. After the first error it
/// only repeats it.
#[derive(Debug, Default)]
pub struct StateBuilder {
    head: Option<Head>,
    topics: Map<TopicId, Arc<Topic>>,
    sessions: Sessions,
    pops: Pops,
    stage: Stage,
    /// The topic that is being built.
    topic: Option<Box<OpenTopic>>,
    /// The session that is being built.
    session: Option<OpenSession>,
    broken: Option<Broken>,
}

/// What may come next: this or something behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Head,
    Topics,
    Sessions,
    Pops,
}

#[derive(Debug)]
struct OpenTopic {
    head: TopicHead,
    topic: Topic,
    subscription: Option<OpenSubscription>,
}

#[derive(Debug)]
struct OpenSubscription {
    head: SubscriptionHead,
    held: Subscription,
    /// Of the kind that came last.
    rank: u8,
    lease_ends: Vec<(u64, u64)>,
    delay_ends: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct OpenSession {
    head: SessionHead,
    pairs: Map<TopicId, Arc<Pair>>,
}

impl State {
    /// The state made of these sections: all of [`StateBuilder`] at once.
    ///
    /// # Errors
    ///
    /// As [`StateBuilder::push`] and [`StateBuilder::finish`].
    pub fn from_sections(sections: impl IntoIterator<Item = Section>) -> Result<State, Broken> {
        let mut builder = StateBuilder::default();
        sections.into_iter().try_for_each(|section| builder.push(section))?;
        builder.finish()
    }
}

impl StateBuilder {
    /// Takes the next section. Costs time by what is in it, and by the leases and delays of a subscription that it ends.
    ///
    /// # Errors
    ///
    /// [`Broken`] if it cannot follow what came before, or contradicts itself. Its source is damaged: take the older
    /// snapshot, or another node's.
    pub fn push(&mut self, section: Section) -> Result<(), Broken> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let taken = self.take(section);
        self.broken = taken.clone().err();
        taken
    }

    /// The state that all sections made. Costs time by everything that is in memory.
    ///
    /// # Errors
    ///
    /// [`Broken`] if something is missing or contradicts something else, and what [`StateBuilder::push`] said before.
    pub fn finish(mut self) -> Result<State, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        self.close()?;
        let Some(head) = self.head else {
            return Err(Broken { rule: IN_ORDER, detail: "there is no head".into() });
        };
        let (mut topics, sessions, mut pops) = (self.topics, self.sessions, self.pops);
        hold_count("topics", head.topics, topics.len())?;
        hold_count("sessions", head.sessions, sessions.by_id.len())?;
        hold_count("pops", head.pops, pops.by_number.len())?;
        let mut leaving: Map<TopicId, Map<SessionId, ()>> = Map::default();
        for (&id, session) in sessions.by_id.iter() {
            for (topic, _) in session.sequences() {
                if let Some(topic) = topics.get_mut(&topic) {
                    Arc::make_mut(topic).sessions.insert(id, ());
                } else if let Some(sessions) = leaving.get_mut(&topic) {
                    sessions.insert(id, ());
                } else {
                    leaving.insert(topic, [(id, ())].into_iter().collect());
                }
            }
        }
        let mut kept = (0, 0);
        for pop in pops.kept() {
            kept = (kept.0 + pop.deliveries.len() as u64, kept.1 + pop.bytes());
            if let Some(topic) = topics.get_mut(&pop.topic) {
                let topic = Arc::make_mut(topic);
                for run in pop.runs() {
                    let detail = format!("pop {:032x}, {run:?}", pop.request_id);
                    hold(topic.kept.insert_new(run), "a message is popped once", || detail)?;
                }
            }
        }
        (pops.kept_messages, pops.kept_bytes) = kept;
        let mut ends: Vec<_> = topics.iter().flat_map(|(_, topic)| topic.ends()).collect();
        ends.sort_unstable();
        let state = State {
            now_ms: head.now_ms,
            generation: head.generation,
            last_id: head.last_id,
            last_token: head.last_token,
            names: topics.iter().map(|(&id, topic)| (Arc::clone(&topic.name), id)).collect(),
            ends: ends.into_iter().map(|end| (end, ())).collect(),
            redriving: topics.iter().flat_map(|(_, topic)| topic.redriving()).collect(),
            topics,
            sessions,
            leaving,
            pops,
        };
        state.check()?;
        Ok(state)
    }

    fn take(&mut self, section: Section) -> Result<(), Broken> {
        let (stage, name) = (self.stage, section.name());
        match section {
            Section::Head(head) if stage == Stage::Head => self.begin(head),
            _ if stage == Stage::Head => Err(out_of_order(name, "nothing")),
            Section::Topic(head) if stage == Stage::Topics => self.begin_topic(head),
            Section::Session(head) if stage <= Stage::Sessions => self.begin_session(head),
            Section::Pops(some) => {
                self.close()?;
                self.stage = Stage::Pops;
                some.into_iter().try_for_each(|pop| self.take_pop(pop))
            }
            section => match (&mut self.topic, &mut self.session) {
                (Some(open), _) => open.take(section),
                (_, Some(open)) => open.take(section),
                (None, None) => Err(out_of_order(name, "what it is no part of")),
            },
        }
    }

    fn begin(&mut self, head: Head) -> Result<(), Broken> {
        let Head { pops, pops_kept, pops_forgotten, .. } = head;
        let is_possible = pops_kept <= pops && pops_forgotten <= u64::MAX / 2;
        hold(is_possible, "kept pops are some of all", || {
            format!("{pops_kept} of {pops} after {pops_forgotten}")
        })?;
        self.pops.next_number = pops_forgotten;
        self.pops.kept_count = usize::try_from(pops_kept).unwrap_or(usize::MAX);
        self.head = Some(head);
        self.stage = Stage::Topics;
        Ok(())
    }

    fn begin_topic(&mut self, head: TopicHead) -> Result<(), Broken> {
        self.close()?;
        let before = self.topics.last().map_or(TopicId(0), |(&id, _)| id);
        hold(before < head.id, RISING, || format!("topic {} after {before}", head.id))?;
        let mut topic = Topic::new(head.id, &head.name, head.settings, head.request_id, head.created_ms);
        topic.offsets = Offsets { next: head.next_offset, generations: Vec::new() };
        topic.subscriptions.clear();
        self.topic = Some(Box::new(OpenTopic { head, topic, subscription: None }));
        Ok(())
    }

    fn begin_session(&mut self, head: SessionHead) -> Result<(), Broken> {
        self.close()?;
        let before = self.sessions.by_id.last().map_or(SessionId::default(), |(&id, _)| id);
        hold(before < head.id, RISING, || format!("session {} after {before}", head.id))?;
        self.stage = Stage::Sessions;
        self.session = Some(OpenSession { head, pairs: Map::default() });
        Ok(())
    }

    fn take_pop(&mut self, pop: PopSection) -> Result<(), Broken> {
        let PopSection { request_id, popped_ms, topic, subscription, deliveries } = pop;
        let number = self.pops.next_number;
        let is_new = self.pops.numbers.insert(request_id, number).is_none();
        hold(is_new, "a request id stands once", || format!("pop {request_id:032x}"))?;
        let deliveries = deliveries.into();
        self.pops.by_number.insert(number, Pop { request_id, popped_ms, topic, subscription, deliveries });
        self.pops.next_number += 1;
        Ok(())
    }

    /// Ends the topic or session that is being built.
    fn close(&mut self) -> Result<(), Broken> {
        if let Some(mut open) = self.topic.take() {
            open.close_subscription()?;
            let OpenTopic { head, topic, .. } = *open;
            let of = |broken: Broken| broken.of(&format!("topic {}", head.id));
            hold_count("generations", head.generations, topic.offsets.generations.len()).map_err(of)?;
            hold_count("subscriptions", head.subscriptions, topic.subscriptions.len()).map_err(of)?;
            self.topics.insert(head.id, Arc::new(topic));
        }
        if let Some(OpenSession { head, pairs }) = self.session.take() {
            let SessionHead { id, name, epoch, used_ms, pairs_max, pairs: count } = head;
            hold_count("pairs", count, pairs.len()).map_err(|broken| broken.of(&format!("session {id}")))?;
            let name: Option<Arc<str>> = name.map(Arc::from);
            if let Some(name) = &name {
                let is_new = self.sessions.by_name.insert(Arc::clone(name), id).is_none();
                hold(is_new, "a producer has one session", || format!("session {id}"))?;
            }
            self.sessions.pair_count += pairs.len() as u64;
            let session = Session { name, epoch, used_ms, pairs_max, pairs };
            self.sessions.ends.insert((session.end_ms(), id), ());
            self.sessions.by_id.insert(id, Arc::new(session));
        }
        Ok(())
    }
}

impl OpenTopic {
    fn take(&mut self, section: Section) -> Result<(), Broken> {
        let name = section.name();
        match (section, &mut self.subscription) {
            (Section::Subscription(head), _) => self.begin_subscription(head),
            (Section::Generations(some), None) => {
                self.topic.offsets.generations.extend(some);
                Ok(())
            }
            (section, Some(open)) => {
                let taken = open.take(section);
                taken.map_err(|broken| broken.inside(self.head.id, open.head.id))
            }
            (_, None) => Err(out_of_order(name, "a topic without a subscription")),
        }
    }

    fn begin_subscription(&mut self, head: SubscriptionHead) -> Result<(), Broken> {
        self.close_subscription()?;
        let before = self.topic.subscriptions.last_key_value().map(|(&id, _)| id);
        hold(before.is_none_or(|before| before < head.id), RISING, || {
            format!("topic {}, subscription {}", self.head.id, head.id)
        })?;
        let dead = DeadRuns::with_bytes(head.dead_bytes);
        let held = Subscription { bytes: head.bytes, dead, ..Subscription::default() };
        let (lease_ends, delay_ends) = (Vec::new(), Vec::new());
        self.subscription = Some(OpenSubscription { head, held, rank: 0, lease_ends, delay_ends });
        Ok(())
    }

    fn close_subscription(&mut self) -> Result<(), Broken> {
        let Some(open) = self.subscription.take() else { return Ok(()) };
        let id = open.head.id;
        let held = open.close().map_err(|broken| broken.inside(self.head.id, id))?;
        self.topic.subscriptions.insert(id, held);
        Ok(())
    }
}

impl OpenSubscription {
    fn take(&mut self, section: Section) -> Result<(), Broken> {
        let name = section.name();
        let rank = match &section {
            Section::Ready(_) => 1,
            Section::Retried(_) => 2,
            Section::Waived(_) => 3,
            Section::Leased(_) => 4,
            Section::Delayed(_) => 5,
            Section::Dead(_) => 6,
            Section::Redriven(_) => 7,
            _ => 0,
        };
        if rank < self.rank.max(1) {
            return Err(out_of_order(name, "what a subscription holds"));
        }
        self.rank = rank;
        let held = &mut self.held;
        match section {
            Section::Ready(runs) => runs.into_iter().try_for_each(|run| {
                hold(held.ready.append(run.0..run.1), RISING, || format!("ready run {run:?}"))
            }),
            Section::Waived(runs) => runs.into_iter().try_for_each(|run| {
                hold(held.waived.append(run.0..run.1), RISING, || format!("waived run {run:?}"))
            }),
            Section::Dead(runs) => runs.into_iter().try_for_each(|run: DeadRun| {
                let offsets = run.offsets.clone();
                hold(held.dead.append(run), RISING, || format!("dead run {offsets:?}"))
            }),
            Section::Redriven(runs) => runs.into_iter().try_for_each(|run| {
                let offsets = run.offsets.clone();
                hold(held.redriven.append(run), RISING, || format!("redriven run {offsets:?}"))
            }),
            Section::Retried(some) => some.into_iter().try_for_each(|message| self.take_retried(message)),
            Section::Leased(some) => some.into_iter().try_for_each(|message| self.take_leased(message)),
            Section::Delayed(some) => some.into_iter().try_for_each(|message| self.take_delayed(message)),
            _ => Err(out_of_order(name, "what a subscription holds")),
        }
    }

    fn take_retried(&mut self, message: RetriedMessage) -> Result<(), Broken> {
        let RetriedMessage { offset, size, attempts, late_ack } = message;
        let held = &mut self.held;
        hold_rising(&held.retried, offset, "retried")?;
        held.retried.insert(offset, Retried { attempts, size, late_ack: late_ack.unwrap_or(Token(0)) });
        held.retried_bytes = held.retried_bytes.saturating_add(u64::from(size));
        Ok(())
    }

    fn take_leased(&mut self, message: LeasedMessage) -> Result<(), Broken> {
        let LeasedMessage { offset, size, attempts, token, granted_ms, expires_ms, .. } = message;
        let deadline = deadline(message.deadline_ms, message.is_waived, offset)?;
        let held = &mut self.held;
        hold_rising(&held.leased, offset, "leased")?;
        held.leased.insert(offset, Lease { token, granted_ms, expires_ms, deadline, size, attempts });
        held.leased_bytes = held.leased_bytes.saturating_add(u64::from(size));
        self.lease_ends.push((expires_ms, offset));
        Ok(())
    }

    fn take_delayed(&mut self, message: DelayedMessage) -> Result<(), Broken> {
        let DelayedMessage { offset, size, attempts, due_ms, .. } = message;
        let deadline = deadline(message.deadline_ms, message.is_waived, offset)?;
        let held = &mut self.held;
        hold_rising(&held.delayed, offset, "delayed")?;
        held.delayed.insert(offset, Delayed { due_ms, deadline, size, attempts });
        held.delayed_bytes = held.delayed_bytes.saturating_add(u64::from(size));
        self.delay_ends.push((due_ms, offset));
        Ok(())
    }

    fn close(self) -> Result<Subscription, Broken> {
        let OpenSubscription { head, mut held, mut lease_ends, mut delay_ends, .. } = self;
        hold_count("ready runs", head.ready, held.ready.run_count())?;
        hold_count("retried messages", head.retried, held.retried.len())?;
        hold_count("waived runs", head.waived, held.waived.run_count())?;
        hold_count("leased messages", head.leased, held.leased.len())?;
        hold_count("delayed messages", head.delayed, held.delayed.len())?;
        hold_count("dead runs", head.dead, held.dead.run_count())?;
        hold_count("redriven runs", head.redriven, held.redriven.run_count())?;
        // In order they fill their maps without moving anything.
        lease_ends.sort_unstable();
        delay_ends.sort_unstable();
        held.lease_ends = lease_ends.into_iter().map(|end| (end, ())).collect();
        held.delay_ends = delay_ends.into_iter().map(|end| (end, ())).collect();
        Ok(held)
    }
}

impl OpenSession {
    fn take(&mut self, section: Section) -> Result<(), Broken> {
        let name = section.name();
        let Section::Pair(PairSection { topic, last_sequence, replies }) = section else {
            return Err(out_of_order(name, "a session"));
        };
        let is_rising = self.pairs.last().is_none_or(|(&before, _)| before < topic);
        hold(is_rising, RISING, || format!("session {}, topic {topic}", self.head.id))?;
        self.pairs.insert(topic, Arc::new(Pair { last_sequence, replies: replies.into() }));
        Ok(())
    }
}

impl Broken {
    fn of(self, of: &str) -> Broken {
        Broken { detail: format!("{of}, {}", self.detail), ..self }
    }

    fn inside(self, topic: TopicId, subscription: SubscriptionId) -> Broken {
        self.of(&format!("topic {topic}, subscription {subscription}"))
    }
}

fn out_of_order(section: &str, after: &str) -> Broken {
    Broken { rule: IN_ORDER, detail: format!("{section} after {after}") }
}

fn hold_count(what: &str, told: u64, found: usize) -> Result<(), Broken> {
    hold(told == found as u64, COMPLETE, || format!("{found} {what} where the head says {told}"))
}

fn hold_rising<V: Clone>(map: &Map<u64, V>, offset: u64, what: &str) -> Result<(), Broken> {
    let is_rising = map.last().is_none_or(|(&before, _)| before < offset);
    hold(is_rising, RISING, || format!("{what} message {offset}"))
}

fn deadline(deadline_ms: Option<u64>, is_waived: bool, offset: u64) -> Result<Deadline, Broken> {
    let is_one = !is_waived || deadline_ms.is_none();
    hold(is_one, "a waived deadline is none", || format!("offset {offset}"))?;
    Ok(if is_waived { Deadline::WAIVED } else { Deadline::new(deadline_ms) })
}
