//! The state as a sequence of sections, for whoever writes and reads snapshots.
//!
//! [`State::sections`] makes them one by one, each no larger than [`SECTION_ITEMS_MAX`] and [`SECTION_BYTES_MAX`] say, so
//! that a state is never held beside a copy of itself. [`StateBuilder`](crate::StateBuilder) takes them back. The sequence
//! is complete: what was built of all sections of a state equals it. They hold what cannot be derived; everything else
//! (names, ends, who counts in a topic, what is kept of it) is built again.
//!
//! ```text
//! Head  ( Topic  Generations*  ( Subscription  Ready*  Retried*  Waived*  Leased*  Delayed*  Dead*  Redriven* )* )*
//!       ( Session  Pair* )*  Pops*
//! ```
//!
//! Where everything that a node must know again has its home, of the state and beside it:
//!
//! | what | home |
//! |---|---|
//! | index and term of the snapshot, the configuration in force there and its index | the head of the snapshot |
//! | the active version | the configuration in the head of the snapshot |
//! | later configurations | the log behind the snapshot |
//! | the base of log time: the greatest stamp applied | section `Head` |
//! | the generation, the last id, the last token | section `Head` |
//! | which messages are ready, leased, delayed, dead; attempts; late acks | sections of the subscription |
//! | deadlines of leased and delayed messages | sections `Leased` and `Delayed` |
//! | deadlines that do not count | sections `Waived` and `Redriven`, and in `Leased` and `Delayed` |
//! | deadlines of ready messages | footers: the files of places and kept files; the log's tail by replay |
//! | sizes of ready messages | their sum in section `Subscription`, each in the footers |
//! | where bodies stand | footers; the log's tail by replay |
//! | what pops keep | section `Pops` |
//! | who counts in a topic, what of it is kept, names, ends | derived by [`StateBuilder`](crate::StateBuilder) |
//! | redrives that go on | section `Redriven` |
//! | what sessions count in topics that are gone | section `Pair` of a topic that does not stand here |
//! | who waits, what is offered or set aside, overdue messages that were proposed | nowhere: it ends with the lead |
//! | counters of what happened | nowhere: they count what this process did |
//!
//! Heads say how many of each follow, so that nothing can be left out unseen. Topics, subscriptions, sessions, pairs and
//! whatever stands in the sections of one kind come in rising order.

use crate::pops::Pop;
use crate::sessions::{KeptReply, Pair, Session};
use crate::state::State;
use crate::subscription::Subscription;
use crate::topic::Topic;
use crate::{
    DeadReason, DeadRun, DelayedMessage, Delivery, Generation, LeasedMessage, RetriedMessage, SessionId,
    SubscriptionId, Token, TopicId, TopicSettings,
};
use std::ops::Bound;

/// Most runs, messages, generations or pops of one section.
pub const SECTION_ITEMS_MAX: usize = 1_000;
/// About the most bytes of one section; one item more may stand in it.
pub const SECTION_BYTES_MAX: usize = 64 << 10;

/// A piece of a [`State`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// What belongs to nothing else. The first one.
    Head(Head),
    /// A topic begins.
    Topic(TopicHead),
    /// Of this topic: the first offset of each generation in which something was published.
    Generations(Vec<(Generation, u64)>),
    /// A subscription of this topic begins.
    Subscription(SubscriptionHead),
    /// Of this subscription: ready messages as (first offset, offset behind the last), rising and apart.
    Ready(Vec<(u64, u64)>),
    /// Of the ready ones, those that were leased before.
    Retried(Vec<RetriedMessage>),
    /// Of the ready ones, those whose deadline is waived, in the form of `Ready`.
    Waived(Vec<(u64, u64)>),
    /// Leased messages.
    Leased(Vec<LeasedMessage>),
    /// Delayed messages.
    Delayed(Vec<DelayedMessage>),
    /// Dead messages.
    Dead(Vec<DeadRun>),
    /// Redriven messages that are not ready yet, as they died.
    Redriven(Vec<DeadRun>),
    /// A session begins.
    Session(SessionHead),
    /// Of this session: what it counts in one topic.
    Pair(PairSection),
    /// Pops with a request id, the oldest first.
    Pops(Vec<PopSection>),
}

impl Section {
    /// What it holds, in a word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Section::Head(_) => "head",
            Section::Topic(_) => "topic",
            Section::Generations(_) => "generations",
            Section::Subscription(_) => "subscription",
            Section::Ready(_) => "ready",
            Section::Retried(_) => "retried",
            Section::Waived(_) => "waived",
            Section::Leased(_) => "leased",
            Section::Delayed(_) => "delayed",
            Section::Dead(_) => "dead",
            Section::Redriven(_) => "redriven",
            Section::Session(_) => "session",
            Section::Pair(_) => "pair",
            Section::Pops(_) => "pops",
        }
    }
}

/// What of a [`State`] belongs to nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The greatest stamp applied, in milliseconds.
    pub now_ms: u64,
    /// The generation in force.
    pub generation: Generation,
    /// The greatest id given to a topic or session.
    pub last_id: u64,
    /// The last token granted.
    pub last_token: Token,
    /// How many topics follow.
    pub topics: u64,
    /// How many sessions follow.
    pub sessions: u64,
    /// How many pops follow.
    pub pops: u64,
    /// How many of these, at the end, are kept with their messages. The others are only remembered.
    pub pops_kept: u64,
    /// How many pops were forgotten before the first.
    pub pops_forgotten: u64,
}

/// A [`Topic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicHead {
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
    /// How many generations follow.
    pub generations: u64,
    /// How many subscriptions follow.
    pub subscriptions: u64,
}

/// A [`Subscription`]: what it is, and how many of each follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionHead {
    /// Its id.
    pub id: SubscriptionId,
    /// Bytes of all its messages, whatever their state.
    pub bytes: u64,
    /// Bytes of the dead messages.
    pub dead_bytes: u64,
    /// Runs of ready messages.
    pub ready: u64,
    /// Messages that were leased before.
    pub retried: u64,
    /// Runs of messages whose deadline is waived.
    pub waived: u64,
    /// Leased messages.
    pub leased: u64,
    /// Delayed messages.
    pub delayed: u64,
    /// Runs of dead messages.
    pub dead: u64,
    /// Runs of redriven messages that are not ready yet.
    pub redriven: u64,
}

/// A [`Session`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionHead {
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
    /// How many pairs follow.
    pub pairs: u64,
}

/// The sequences of one session in one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairSection {
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
pub struct PopSection {
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
    /// All of it, section by section, as it is now: the iterator holds a clone, which shares everything with the state.
    /// Each step costs time by the section it makes. Takes no clone where [`State::into_sections`] will do.
    pub fn sections(&self) -> Sections {
        self.clone().into_sections()
    }

    /// All of it, section by section.
    #[must_use]
    pub fn into_sections(self) -> Sections {
        Sections { state: self, cursor: Some(Cursor::Head) }
    }
}

/// The sections of a [`State`], made one by one.
#[derive(Debug)]
pub struct Sections {
    state: State,
    cursor: Option<Cursor>,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Cursor {
    Head,
    /// The first topic from this id on.
    Topic(TopicId),
    /// Generations from this one on.
    Generations(TopicId, usize),
    /// The first subscription after this one.
    Subscription(TopicId, Option<SubscriptionId>),
    /// What the subscription holds of one kind from this offset on.
    Held(TopicId, SubscriptionId, Kind, u64),
    /// The first session from this id on.
    Session(SessionId),
    /// The first pair from this topic on.
    Pair(SessionId, TopicId),
    /// Pops from this number on.
    Pops(u64),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ready,
    Retried,
    Waived,
    Leased,
    Delayed,
    Dead,
    Redriven,
}

impl Kind {
    fn next(self) -> Option<Kind> {
        Some(match self {
            Kind::Ready => Kind::Retried,
            Kind::Retried => Kind::Waived,
            Kind::Waived => Kind::Leased,
            Kind::Leased => Kind::Delayed,
            Kind::Delayed => Kind::Dead,
            Kind::Dead => Kind::Redriven,
            Kind::Redriven => return None,
        })
    }
}

impl Iterator for Sections {
    type Item = Section;

    fn next(&mut self) -> Option<Section> {
        while let Some(cursor) = self.cursor {
            let (section, next) = self.state.section_at(cursor);
            self.cursor = next;
            if section.is_some() {
                return section;
            }
        }
        None
    }
}

impl State {
    /// The section at a cursor, if there is anything, and where to go on.
    fn section_at(&self, cursor: Cursor) -> (Option<Section>, Option<Cursor>) {
        let (section, next) = match cursor {
            Cursor::Head => (Some(Section::Head(self.head())), Cursor::Topic(TopicId(0))),
            Cursor::Topic(from) => match self.topics.ceiling(&from) {
                Some((&id, topic)) => (Some(Section::Topic(topic_head(topic))), Cursor::Generations(id, 0)),
                None => (None, Cursor::Session(SessionId::default())),
            },
            Cursor::Generations(id, from) => {
                let all = self.topics.get(&id).map_or(&[][..], |topic| &topic.offsets.generations);
                let some: Vec<_> = all.iter().skip(from).take(SECTION_ITEMS_MAX).copied().collect();
                if some.is_empty() {
                    (None, Cursor::Subscription(id, None))
                } else {
                    let next = Cursor::Generations(id, from + some.len());
                    (Some(Section::Generations(some)), next)
                }
            }
            Cursor::Subscription(id, after) => {
                let after = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
                let topic = self.topics.get(&id);
                match topic.and_then(|topic| topic.subscriptions.range(after).next()) {
                    Some((&of, held)) => {
                        let head = subscription_head(of, held);
                        (Some(Section::Subscription(head)), Cursor::Held(id, of, Kind::Ready, 0))
                    }
                    None => (None, Cursor::Topic(TopicId(id.0.saturating_add(1)))),
                }
            }
            Cursor::Held(id, of, kind, from) => {
                let held = self.topics.get(&id).and_then(|topic| topic.subscriptions.get(&of));
                match held.and_then(|held| held_section(held, kind, from)) {
                    Some((section, end)) => (Some(section), Cursor::Held(id, of, kind, end)),
                    None => {
                        let next = |kind| Cursor::Held(id, of, kind, 0);
                        (None, kind.next().map_or(Cursor::Subscription(id, Some(of)), next))
                    }
                }
            }
            Cursor::Session(from) => match self.sessions.by_id.ceiling(&from) {
                Some((&id, session)) => {
                    (Some(Section::Session(session_head(id, session))), Cursor::Pair(id, TopicId(0)))
                }
                None => (None, Cursor::Pops(0)),
            },
            Cursor::Pair(id, from) => {
                let pair = self.sessions.by_id.get(&id).and_then(|session| session.pairs.ceiling(&from));
                let after = SessionId { number: id.number.saturating_add(1), ..id };
                match pair {
                    Some((&topic, pair)) => {
                        let next = Cursor::Pair(id, TopicId(topic.0.saturating_add(1)));
                        (Some(Section::Pair(pair_section(topic, pair))), next)
                    }
                    None => (None, Cursor::Session(after)),
                }
            }
            Cursor::Pops(from) => {
                let pops = self.pops.by_number.iter_from(&from).map(|(_, pop)| pop_section(pop));
                let some = fill(pops, |pop| 48 + 24 * pop.deliveries.len());
                // Numbers are dense.
                let first = self.pops.by_number.ceiling(&from).map_or(from, |(&number, _)| number);
                let next = Cursor::Pops(first + some.len() as u64);
                return match some.is_empty() {
                    true => (None, None),
                    false => (Some(Section::Pops(some)), Some(next)),
                };
            }
        };
        (section, Some(next))
    }

    fn head(&self) -> Head {
        Head {
            now_ms: self.now_ms,
            generation: self.generation,
            last_id: self.last_id,
            last_token: self.last_token,
            topics: self.topics.len() as u64,
            sessions: self.sessions.by_id.len() as u64,
            pops: self.pops.by_number.len() as u64,
            pops_kept: self.pops.kept_count as u64,
            pops_forgotten: self.pops.next_number - self.pops.by_number.len() as u64,
        }
    }
}

fn topic_head(topic: &Topic) -> TopicHead {
    TopicHead {
        id: topic.id,
        name: topic.name.to_string(),
        settings: topic.settings,
        request_id: topic.request_id,
        created_ms: topic.created_ms,
        next_offset: topic.offsets.next,
        generations: topic.offsets.generations.len() as u64,
        subscriptions: topic.subscriptions.len() as u64,
    }
}

fn subscription_head(id: SubscriptionId, held: &Subscription) -> SubscriptionHead {
    SubscriptionHead {
        id,
        bytes: held.bytes,
        dead_bytes: held.dead.bytes(),
        ready: held.ready.run_count() as u64,
        retried: held.retried.len() as u64,
        waived: held.waived.run_count() as u64,
        leased: held.leased.len() as u64,
        delayed: held.delayed.len() as u64,
        dead: held.dead.run_count() as u64,
        redriven: held.redriven.run_count() as u64,
    }
}

/// What there is of one kind from an offset on, and behind which offset to go on.
fn held_section(held: &Subscription, kind: Kind, from: u64) -> Option<(Section, u64)> {
    let run = |run: std::ops::Range<u64>| (run.start, run.end);
    Some(match kind {
        Kind::Ready => {
            let runs = fill(held.ready.iter_from(from).map(run), |_| 16);
            let end = runs.last()?.1;
            (Section::Ready(runs), end)
        }
        Kind::Retried => {
            let some = fill(held.retried_from(from), |_| 32);
            let end = some.last()?.offset.saturating_add(1);
            (Section::Retried(some), end)
        }
        Kind::Waived => {
            let runs = fill(held.waived.iter_from(from).map(run), |_| 16);
            let end = runs.last()?.1;
            (Section::Waived(runs), end)
        }
        Kind::Leased => {
            let some = fill(held.leased_from(from), |_| 64);
            let end = some.last()?.offset.saturating_add(1);
            (Section::Leased(some), end)
        }
        Kind::Delayed => {
            let some = fill(held.delayed_from(from), |_| 48);
            let end = some.last()?.offset.saturating_add(1);
            (Section::Delayed(some), end)
        }
        Kind::Dead => {
            let runs = fill(held.dead_from(from), dead_bytes);
            let end = runs.last()?.offsets.end;
            (Section::Dead(runs), end)
        }
        Kind::Redriven => {
            let runs = fill(held.redriven_from(from), dead_bytes);
            let end = runs.last()?.offsets.end;
            (Section::Redriven(runs), end)
        }
    })
}

fn dead_bytes(run: &DeadRun) -> usize {
    match &run.reason {
        DeadReason::NackedBecause(text) => 32 + text.len(),
        DeadReason::Expired | DeadReason::LeaseExpired | DeadReason::Nacked => 32,
    }
}

fn session_head(id: SessionId, session: &Session) -> SessionHead {
    SessionHead {
        id,
        name: session.name().map(str::to_string),
        epoch: session.epoch,
        used_ms: session.used_ms,
        pairs_max: session.pairs_max,
        pairs: session.pairs.len() as u64,
    }
}

fn pair_section(topic: TopicId, pair: &Pair) -> PairSection {
    PairSection { topic, last_sequence: pair.last_sequence, replies: pair.replies.iter().copied().collect() }
}

fn pop_section(pop: &Pop) -> PopSection {
    PopSection {
        request_id: pop.request_id,
        popped_ms: pop.popped_ms,
        topic: pop.topic,
        subscription: pop.subscription,
        deliveries: pop.deliveries.to_vec(),
    }
}

/// As many items as a section may have.
fn fill<T>(items: impl Iterator<Item = T>, bytes_of: impl Fn(&T) -> usize) -> Vec<T> {
    let mut some = Vec::new();
    let mut bytes = 0;
    for item in items {
        bytes += bytes_of(&item);
        some.push(item);
        if some.len() == SECTION_ITEMS_MAX || bytes >= SECTION_BYTES_MAX {
            break;
        }
    }
    some
}
