//! The queue as one would explain it: a list of topics, each a list of messages, each with a status.
//!
//! Nothing here is fast, or bounded beyond what callers are told. It shares only the words of commands and replies with
//! the real queue.

use raftqueue_queue::{
    Candidate, Command, DeadReason, DeadSelection, Delivery, Dropped, Effects, Extension, Generation,
    LeaseId, LeaseResult, Limit, MessageSize, Refused, Reply, SESSION_REPLIES_MAX, Sequenced, SessionId,
    SubscriptionId, Token, TopicId, TopicSettings,
};
use std::collections::BTreeSet;

const HOUR_MS: u64 = 3_600_000;

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) now_ms: u64,
    pub(crate) generation: u32,
    last_id: u64,
    pub(crate) last_token: u64,
    pub(crate) topics: Vec<Topic>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) pops: Vec<Pop>,
}

pub(crate) struct Topic {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) settings: TopicSettings,
    request_id: Option<u128>,
    pub(crate) messages: Vec<Message>,
}

#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) generation: u32,
    pub(crate) size: u32,
    /// As published.
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) was_redriven: bool,
    pub(crate) attempts: u32,
    /// The token of the last lease, if it ran out.
    pub(crate) ran_out: Option<u64>,
    pub(crate) status: Status,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Status {
    Ready,
    Leased { token: u64, granted_ms: u64, expires_ms: u64 },
    Delayed { due_ms: u64 },
    Dead(DeadReason),
    Done,
}

pub(crate) struct Session {
    pub(crate) id: SessionId,
    name: Option<String>,
    pub(crate) epoch: u64,
    used_ms: u64,
    pairs_max: u64,
    /// (topic, first offset, count, CRC) of every batch.
    pub(crate) batches: Vec<(u64, u64, u32, u32)>,
}

pub(crate) struct Pop {
    pub(crate) request_id: u128,
    popped_ms: u64,
    pub(crate) topic: u64,
    pub(crate) deliveries: Vec<Delivery>,
}

/// What happened, as the leader wants to know it.
#[derive(Default)]
struct Happened {
    ready: BTreeSet<u64>,
    deleted: Vec<TopicId>,
    leases_expired: u32,
    died: u32,
    sessions_expired: u32,
}

impl Message {
    fn is_overdue(&self, now_ms: u64) -> bool {
        !self.was_redriven && self.deadline_ms.is_some_and(|deadline| deadline <= now_ms)
    }

    pub(crate) fn is_live(&self) -> bool {
        self.status != Status::Done
    }

    fn die(&mut self, reason: DeadReason, happened: &mut Happened) {
        self.status = Status::Dead(reason);
        happened.died += 1;
    }

    fn return_to(&mut self, topic: u64, now_ms: u64, happened: &mut Happened) {
        if self.is_overdue(now_ms) {
            self.die(DeadReason::Expired, happened);
        } else {
            self.status = Status::Ready;
            happened.ready.insert(topic);
        }
    }

    fn lease_in_force(&self, token: Token, now_ms: u64) -> bool {
        matches!(self.status, Status::Leased { token: held, expires_ms, .. } if held == token.0 && expires_ms > now_ms)
    }
}

impl Session {
    pub(crate) fn last_sequence(&self, topic: u64) -> u64 {
        self.batches.iter().filter(|batch| batch.0 == topic).count() as u64
    }

    pub(crate) fn topics(&self) -> BTreeSet<u64> {
        self.batches.iter().map(|batch| batch.0).collect()
    }

    pub(crate) fn end_ms(&self) -> u64 {
        self.used_ms + HOUR_MS
    }
}

impl Pop {
    pub(crate) fn is_kept(&self, now_ms: u64) -> bool {
        now_ms < self.popped_ms + 60_000
    }

    pub(crate) fn next_end_ms(&self, now_ms: u64) -> u64 {
        if self.is_kept(now_ms) { self.popped_ms + 60_000 } else { self.popped_ms + HOUR_MS }
    }
}

impl Model {
    pub(crate) fn apply(&mut self, index: u64, now_ms: u64, command: &Command) -> (Reply, Effects) {
        let mut happened = Happened::default();
        let ended = self.pops.iter().filter(|pop| pop.is_kept(self.now_ms) && !pop.is_kept(now_ms));
        let released: BTreeSet<u64> = ended
            .map(|pop| pop.topic)
            .filter(|topic| self.topics.iter().any(|held| held.id == *topic))
            .collect();
        self.now_ms = now_ms;
        self.pass_time(&mut happened);
        let reply = self.perform(index, command, &mut happened).unwrap_or_else(Reply::Refused);
        let effects = Effects {
            ready: happened.ready.iter().map(|&topic| (TopicId(topic), SubscriptionId::DEFAULT, 0)).collect(),
            deleted: happened.deleted,
            released: released.into_iter().map(TopicId).collect(),
            dropped: Dropped::default(),
            leases_expired: happened.leases_expired,
            died: happened.died,
            sessions_expired: happened.sessions_expired,
            steps: 0,
        };
        (reply, effects)
    }

    /// An answer of the queue as far as the model can know it. The model does not know how much there was to do, nor
    /// which message became ready first.
    pub(crate) fn knowable((reply, mut effects): (Reply, Effects)) -> (Reply, Effects) {
        effects.steps = 0;
        effects.ready.iter_mut().for_each(|ready| ready.2 = 0);
        (reply, effects)
    }

    fn pass_time(&mut self, happened: &mut Happened) {
        let now_ms = self.now_ms;
        for topic in &mut self.topics {
            for message in &mut topic.messages {
                match message.status {
                    Status::Leased { token, expires_ms, .. } if expires_ms <= now_ms => {
                        message.attempts += 1;
                        message.ran_out = Some(token);
                        happened.leases_expired += 1;
                        if message.attempts >= topic.settings.attempts_max {
                            message.die(DeadReason::LeaseExpired, happened);
                        } else {
                            message.return_to(topic.id, now_ms, happened);
                        }
                    }
                    Status::Delayed { due_ms } if due_ms <= now_ms => {
                        message.return_to(topic.id, now_ms, happened);
                    }
                    _ => {}
                }
            }
        }
        let before = self.sessions.len();
        self.sessions.retain(|session| session.end_ms() > now_ms);
        happened.sessions_expired += (before - self.sessions.len()) as u32;
        self.pops.retain(|pop| pop.popped_ms + HOUR_MS > now_ms);
    }

    fn perform(&mut self, index: u64, command: &Command, happened: &mut Happened) -> Result<Reply, Refused> {
        let now_ms = self.now_ms;
        match command {
            Command::CreateTopic { name, settings, topics_max, request_id } => {
                if let Some(topic) = self.topics.iter().find(|topic| topic.name == *name) {
                    let id = TopicId(topic.id);
                    let is_repeat = request_id.is_some() && *request_id == topic.request_id;
                    return match is_repeat {
                        true => Ok(Reply::Created { topic: id, repeated: true }),
                        false => Err(Refused::TopicExists { topic: id }),
                    };
                }
                over(Limit::Topics, *topics_max, self.topics.len() as u64 + 1)?;
                self.last_id = index.max(self.last_id + 1);
                let (name, request_id) = (name.clone(), *request_id);
                let topic =
                    Topic { id: self.last_id, name, settings: *settings, request_id, messages: Vec::new() };
                self.topics.push(topic);
                Ok(Reply::Created { topic: TopicId(self.last_id), repeated: false })
            }
            Command::UpdateTopic { name, change } => {
                let topic = self.topics.iter_mut().find(|topic| topic.name == *name);
                let settings = &mut topic.ok_or(Refused::NoSuchTopic)?.settings;
                if change.attempts_max == Some(0) {
                    return Err(Refused::UnderLimit { limit: Limit::Attempts, min: 1, value: 0 });
                }
                if let Some(attempts_max) = change.attempts_max {
                    settings.attempts_max = attempts_max;
                }
                if let Some(messages_max) = change.messages_max {
                    settings.messages_max = messages_max;
                }
                if let Some(bytes_max) = change.bytes_max {
                    settings.bytes_max = bytes_max;
                }
                if let Some(ttl_ms) = change.ttl_ms_default {
                    settings.ttl_ms_default = ttl_ms;
                }
                Ok(Reply::Updated { settings: *settings })
            }
            Command::DeleteTopic { name } => {
                let position =
                    self.topics.iter().position(|topic| topic.name == *name).ok_or(Refused::NoSuchTopic)?;
                let id = self.topics.remove(position).id;
                for session in &mut self.sessions {
                    session.batches.retain(|batch| batch.0 != id);
                }
                happened.deleted.push(TopicId(id));
                Ok(Reply::Deleted { topic: TopicId(id) })
            }
            Command::Publish { topic, session, messages } => {
                if let Some(given) = session {
                    self.hold(given.session, given.epoch)?;
                }
                let generation = self.generation;
                let position =
                    self.topics.iter().position(|held| held.name == *topic).ok_or(Refused::NoSuchTopic)?;
                if let Some(given) = session
                    && let Some(reply) = self.repeat_of(given, position)?
                {
                    return Ok(reply);
                }
                let topic = &mut self.topics[position];
                let live = || topic.messages.iter().filter(|message| message.is_live());
                if let Some(max) = topic.settings.messages_max {
                    over(Limit::TopicMessages, max, (live().count() + messages.len()) as u64)?;
                }
                if let Some(max) = topic.settings.bytes_max {
                    let held: u64 = live().map(|message| u64::from(message.size)).sum();
                    let added: u64 = messages.iter().map(|message| u64::from(message.size)).sum();
                    over(Limit::TopicBytes, max, held + added)?;
                }
                let first_offset = topic.messages.len() as u64;
                for message in messages {
                    let status = match message.delay_ms {
                        0 => Status::Ready,
                        delay_ms => Status::Delayed { due_ms: now_ms + delay_ms },
                    };
                    if status == Status::Ready {
                        happened.ready.insert(topic.id);
                    }
                    topic.messages.push(Message {
                        generation,
                        size: message.size,
                        deadline_ms: message.ttl_ms.map(|ttl_ms| now_ms + message.delay_ms + ttl_ms),
                        was_redriven: false,
                        attempts: 0,
                        ran_out: None,
                        status,
                    });
                }
                let count = messages.len() as u32;
                let id = topic.id;
                if let Some(given) = session {
                    let held = self.session(given.session).expect("it was just held");
                    held.batches.push((id, first_offset, count, given.batch_crc));
                }
                let generation = Generation(generation);
                Ok(Reply::Published { topic: TopicId(id), generation, first_offset, count, repeated: false })
            }
            Command::Receive { topic, candidates, lease_ms, .. } => {
                let expires_ms = now_ms + lease_ms;
                let token = self.last_token + 1;
                let lease = Status::Leased { token, granted_ms: now_ms, expires_ms };
                let deliveries = self.take(*topic, candidates, usize::MAX, &lease, happened)?;
                let token = if deliveries.is_empty() { 0 } else { token };
                self.last_token = self.last_token.max(token);
                Ok(Reply::Received { topic: *topic, token: Token(token), expires_ms, deliveries })
            }
            Command::Pop { topic, candidates, count_max, request_id, .. } => {
                if let Some(pop) = self.pops.iter().find(|pop| Some(pop.request_id) == *request_id) {
                    if pop.topic != topic.0 {
                        return Err(Refused::RequestIdReused);
                    }
                    if !pop.is_kept(now_ms) || self.topics.iter().all(|held| held.id != topic.0) {
                        return Ok(Reply::AlreadyDone);
                    }
                    return Ok(Reply::Popped {
                        topic: *topic,
                        deliveries: pop.deliveries.clone(),
                        repeated: true,
                    });
                }
                let deliveries =
                    self.take(*topic, candidates, *count_max as usize, &Status::Done, happened)?;
                if let (Some(request_id), false) = (*request_id, deliveries.is_empty()) {
                    let deliveries = deliveries.clone();
                    self.pops.push(Pop { request_id, popped_ms: now_ms, topic: topic.0, deliveries });
                }
                Ok(Reply::Popped { topic: *topic, deliveries, repeated: false })
            }
            Command::Ack { topic, leases, .. } => Ok(self.settle(*topic, leases, |_, message, lease| {
                let late = message.status == Status::Ready && message.ran_out == Some(lease.token.0);
                let held = matches!(message.status, Status::Leased { token, .. } if token == lease.token.0);
                if late || held {
                    message.status = Status::Done;
                }
                late || held
            })),
            Command::Nack { topic, leases, delay_ms, reason, .. } => {
                let reason = match reason {
                    Some(text) => DeadReason::NackedBecause(text.as_str().into()),
                    None => DeadReason::Nacked,
                };
                Ok(self.settle(*topic, leases, |topic, message, lease| {
                    let is_held = message.lease_in_force(lease.token, now_ms);
                    if is_held {
                        message.attempts += 1;
                        message.ran_out = None;
                        if message.attempts >= topic.1.attempts_max {
                            message.die(reason.clone(), happened);
                        } else if *delay_ms > 0 {
                            message.status = Status::Delayed { due_ms: now_ms + delay_ms };
                        } else {
                            message.return_to(topic.0, now_ms, happened);
                        }
                    }
                    is_held
                }))
            }
            Command::Release { topic, leases, .. } => {
                Ok(self.settle(*topic, leases, |topic, message, lease| {
                    let is_held = message.lease_in_force(lease.token, now_ms);
                    if is_held {
                        message.ran_out = None;
                        message.return_to(topic.0, now_ms, happened);
                    }
                    is_held
                }))
            }
            Command::Extend { topic, leases, lease_ms, .. } => {
                let mut ends = Vec::new();
                let reply = self.settle(*topic, leases, |_, message, lease| {
                    let is_held = message.lease_in_force(lease.token, now_ms);
                    if let (true, Status::Leased { granted_ms, expires_ms, .. }) =
                        (is_held, &mut message.status)
                    {
                        *expires_ms = (*expires_ms).max((now_ms + lease_ms).min(*granted_ms + 12 * HOUR_MS));
                        ends.push(*expires_ms);
                    }
                    is_held
                });
                let Reply::Settled { results } = reply else { panic!("settle settles") };
                let mut ends = ends.into_iter();
                let mut extension = |result| {
                    let end = if result == LeaseResult::Done { ends.next() } else { Some(0) };
                    Extension { result, expires_ms: end.expect("each lease that was extended has an end") }
                };
                Ok(Reply::Extended { extensions: results.into_iter().map(&mut extension).collect() })
            }
            Command::RedriveDead { topic, selection, .. } => {
                let mut count = 0;
                for message in self.dead(*topic, selection)? {
                    message.status = Status::Ready;
                    message.attempts = 0;
                    message.ran_out = None;
                    message.was_redriven = true;
                    count += 1;
                }
                if count > 0 {
                    happened.ready.insert(topic.0);
                }
                Ok(Reply::Redriven { count })
            }
            Command::PurgeDead { topic, selection, .. } => Ok(purged(self.dead(*topic, selection)?)),
            Command::Purge { topic, .. } => {
                let topic =
                    self.topics.iter_mut().find(|held| held.name == *topic).ok_or(Refused::NoSuchTopic)?;
                let waits =
                    |message: &&mut Message| matches!(message.status, Status::Ready | Status::Delayed { .. });
                Ok(purged(topic.messages.iter_mut().filter(waits).collect()))
            }
            Command::OpenSession { name, sessions_max, pairs_max } => {
                let named = self.sessions.iter_mut().find(|held| name.is_some() && held.name == *name);
                if let Some(held) = named {
                    held.epoch += 1;
                    held.used_ms = now_ms;
                    held.pairs_max = *pairs_max;
                    return Ok(Reply::SessionOpened { session: held.id, epoch: held.epoch, resumed: true });
                }
                over(Limit::Sessions, *sessions_max, self.sessions.len() as u64 + 1)?;
                self.last_id = index.max(self.last_id + 1);
                let id = SessionId { generation: Generation(self.generation), number: self.last_id };
                let (name, pairs_max) = (name.clone(), *pairs_max);
                self.sessions.push(Session {
                    id,
                    name,
                    epoch: 0,
                    used_ms: now_ms,
                    pairs_max,
                    batches: Vec::new(),
                });
                Ok(Reply::SessionOpened { session: id, epoch: 0, resumed: false })
            }
            Command::CloseSession { session, epoch } => {
                self.hold(*session, *epoch)?;
                self.sessions.retain(|held| held.id != *session);
                Ok(Reply::SessionClosed)
            }
            Command::Time { overdue } => {
                for overdue in overdue {
                    let topic = self.topics.iter_mut().find(|topic| topic.id == overdue.topic.0);
                    let Some(topic) = topic else { continue };
                    for candidate in &overdue.candidates {
                        if let Some(message) = topic.messages.get_mut(candidate.offset as usize)
                            && message.status == Status::Ready
                            && message.is_overdue(now_ms)
                        {
                            message.die(DeadReason::Expired, happened);
                        }
                    }
                }
                Ok(Reply::Done)
            }
            Command::RaiseGeneration { generation } => {
                let held = Generation(self.generation);
                if *generation <= held {
                    return Err(Refused::GenerationNotAbove { held, given: *generation });
                }
                self.generation = generation.0;
                self.last_token += 1 << 40;
                Ok(Reply::Done)
            }
        }
    }

    pub(crate) fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    fn hold(&mut self, id: SessionId, epoch: u64) -> Result<(), Refused> {
        let now_ms = self.now_ms;
        let session = self.session(id).ok_or(Refused::SessionExpired { session: id })?;
        if session.epoch != epoch {
            return Err(Refused::Fenced { session: id, held: session.epoch, given: epoch });
        }
        session.used_ms = now_ms;
        Ok(())
    }

    /// The answer to a batch that is not the next one.
    fn repeat_of(&mut self, given: &Sequenced, position: usize) -> Result<Option<Reply>, Refused> {
        let pair_count: usize = self.sessions.iter().map(|session| session.topics().len()).sum();
        let id = self.topics[position].id;
        let session = self.session(given.session).expect("it was just held");
        let batches: Vec<_> = session.batches.iter().filter(|batch| batch.0 == id).copied().collect();
        let expected = batches.len() as u64 + 1;
        if given.sequence == expected {
            if batches.is_empty() {
                over(Limit::SessionPairs, session.pairs_max, pair_count as u64 + 1)?;
            }
            return Ok(None);
        }
        if given.sequence == 0 || given.sequence > expected {
            return Err(Refused::OutOfSequence { expected, given: given.sequence });
        }
        if expected - given.sequence > SESSION_REPLIES_MAX as u64 {
            return Ok(Some(Reply::AlreadyDone));
        }
        let (_, first_offset, count, held_crc) = batches[given.sequence as usize - 1];
        if held_crc != given.batch_crc {
            let (sequence, given_crc) = (given.sequence, given.batch_crc);
            return Err(Refused::SequenceReused { sequence, held_crc, given_crc });
        }
        let generation = Generation(self.topics[position].messages[first_offset as usize].generation);
        Ok(Some(Reply::Published { topic: TopicId(id), generation, first_offset, count, repeated: true }))
    }

    fn take(
        &mut self,
        topic: TopicId,
        candidates: &[Candidate],
        count_max: usize,
        status: &Status,
        happened: &mut Happened,
    ) -> Result<Vec<Delivery>, Refused> {
        let now_ms = self.now_ms;
        let topic = self.topics.iter_mut().find(|held| held.id == topic.0).ok_or(Refused::NoSuchTopic)?;
        let mut deliveries = Vec::new();
        for candidate in candidates {
            let Some(message) = topic.messages.get_mut(candidate.offset as usize) else { continue };
            if message.status != Status::Ready || deliveries.len() == count_max {
                continue;
            }
            if message.is_overdue(now_ms) {
                message.die(DeadReason::Expired, happened);
                continue;
            }
            message.status = status.clone();
            message.ran_out = None;
            let Message { generation, size, attempts, .. } = *message;
            let generation = Generation(generation);
            deliveries.push(Delivery { generation, offset: candidate.offset, size, attempts });
        }
        Ok(deliveries)
    }

    /// Judges each lease; `end` says whether it was one that could be ended so, and ends it.
    fn settle(
        &mut self,
        topic: TopicId,
        leases: &[LeaseId],
        mut end: impl FnMut((u64, TopicSettings), &mut Message, &LeaseId) -> bool,
    ) -> Reply {
        let (current, last_id, last_token) = (self.generation, self.last_id, self.last_token);
        let mut held = self.topics.iter_mut().find(|held| held.id == topic.0);
        let mut judge = |lease: &LeaseId| {
            if lease.generation.0 > current {
                return LeaseResult::Invalid;
            }
            let Some(held) = &mut held else {
                let was_never = topic.0 > last_id && lease.generation.0 == current;
                return if was_never { LeaseResult::Invalid } else { LeaseResult::Gone };
            };
            let topic = (held.id, held.settings);
            let Some(message) = held.messages.get_mut(lease.offset as usize) else {
                return if lease.generation.0 < current { LeaseResult::Gone } else { LeaseResult::Invalid };
            };
            if message.generation != lease.generation.0 {
                LeaseResult::Gone
            } else if lease.token.0 == 0 || lease.token.0 > last_token {
                LeaseResult::Invalid
            } else if message.status == Status::Done {
                LeaseResult::Gone
            } else if end(topic, message, lease) {
                LeaseResult::Done
            } else {
                LeaseResult::Stale
            }
        };
        Reply::Settled { results: leases.iter().map(&mut judge).collect() }
    }

    fn dead(&mut self, topic: TopicId, selection: &DeadSelection) -> Result<Vec<&mut Message>, Refused> {
        let topic = self.topics.iter_mut().find(|held| held.id == topic.0).ok_or(Refused::NoSuchTopic)?;
        let is_chosen = |offset: u64| match selection {
            DeadSelection::All => true,
            DeadSelection::Listed(listed) => listed.iter().any(|size: &MessageSize| size.offset == offset),
        };
        let messages = (0..).zip(&mut topic.messages);
        let dead = messages
            .filter(|(offset, message)| is_chosen(*offset) && matches!(message.status, Status::Dead(_)));
        Ok(dead.map(|(_, message)| message).collect())
    }
}

fn purged(messages: Vec<&mut Message>) -> Reply {
    let count = messages.len() as u64;
    let bytes = messages.iter().map(|message| u64::from(message.size)).sum();
    for message in messages {
        message.status = Status::Done;
    }
    Reply::Purged { count, bytes }
}

fn over(limit: Limit, max: u64, value: u64) -> Result<(), Refused> {
    if value > max { Err(Refused::OverLimit { limit, max, value }) } else { Ok(()) }
}
