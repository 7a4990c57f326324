//! What the queue must answer. The order of commits is known here, so no search is needed: every committed command goes
//! through the queue itself and through a naive model of it, and each answer to a client must be the one to a command
//! that was committed after the call began and before the answer left, and that answers no other call.

use super::Violation;
use super::calls::Call;
use super::coverage::{Coverage, Rare};
use super::matching::{Content, answer_to, is_of};
use super::message::Origin;
use super::queue_model::{Model, Status};
use super::upgrades::OLD_VERSION;
use super::view;
use bytes::Bytes;
use raftqueue_node::api::codec;
use raftqueue_node::api::{self, Failure, MessageRef, Method, Publish, Reason, Request, Response, TakeKind};
use raftqueue_node::replica::CallId;
use raftqueue_queue::{
    self as queue, ApplyMeta, Command, Effects, MessageMeta, Refused, Reply, State, SubscriptionId, TopicId,
};
use raftqueue_raft::{Entry, Index, Payload};
use std::collections::BTreeMap;

/// A command that is committed, and what came of it.
#[derive(Debug)]
struct Decided {
    command: Command,
    reply: Reply,
    claimed: Option<CallId>,
}

/// What a producer knows of one of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Acknowledged: it stands in the log once.
    Kept,
    /// Refused: it stands there never.
    Refused,
    /// Either, and never twice.
    Unknown,
}

/// Failures that faults excuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Excuse {
    /// The node's disk cannot be read everywhere.
    pub(super) is_unreadable: bool,
    /// So many disks are full that no quorum has room.
    pub(super) is_full: bool,
}

/// What an answer turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The answer to a command.
    Done,
    /// An answer that only looked.
    Looked,
    /// The call did not happen.
    NotDone,
    /// The call may have happened.
    Unknown,
}

/// The truth about the queue, entry by entry.
pub(super) struct Oracle {
    seed: u64,
    body_bytes_max: u64,
    model: Model,
    /// The state after each index, from 0 on; the last one is the present.
    states: Vec<State>,
    /// The active version after each index, from 0 on.
    versions: Vec<u32>,
    /// By index, from 1 on.
    decided: Vec<Vec<Decided>>,
    names: BTreeMap<TopicId, String>,
    origins: BTreeMap<(TopicId, u64), Origin>,
    /// How often a message stands in the log.
    published: BTreeMap<Origin, u32>,
    pub(super) fates: BTreeMap<Origin, Fate>,
    /// How often a content is committed, and how often it may be.
    contents: BTreeMap<Content, (u64, u64)>,
    /// Receives and pops of unknown outcome, by kind and topic.
    open_takes: BTreeMap<(bool, String), u64>,
    /// The greatest index that an answer spoke of.
    acknowledged: Index,
    pub(super) messages: u64,
    coverage: Coverage,
}

impl Oracle {
    pub(super) fn new(seed: u64, body_bytes_max: u64) -> Self {
        Self {
            seed,
            body_bytes_max,
            model: Model::default(),
            states: vec![State::default()],
            versions: vec![0],
            decided: Vec::new(),
            names: BTreeMap::new(),
            origins: BTreeMap::new(),
            published: BTreeMap::new(),
            fates: BTreeMap::new(),
            contents: BTreeMap::new(),
            open_takes: BTreeMap::new(),
            acknowledged: Index(0),
            messages: 0,
            coverage: Coverage::default(),
        }
    }

    /// The queue as of the last committed entry.
    pub(super) fn state(&self) -> &State {
        self.states.last().expect("there is always the empty one")
    }

    /// The queue as of `index`, which is committed.
    pub(super) fn state_at(&self, index: Index) -> &State {
        &self.states[usize::try_from(index.0).expect("small")]
    }

    /// The active version as of the last committed entry.
    pub(super) fn version(&self) -> u32 {
        *self.versions.last().expect("there is always the first one")
    }

    /// The active version as of `index`, which is committed.
    pub(super) fn version_at(&self, index: Index) -> u32 {
        self.versions[usize::try_from(index.0).expect("small")]
    }

    pub(super) fn committed(&self) -> Index {
        Index(self.decided.len() as u64)
    }

    /// The rare answers that were committed.
    pub(super) fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    pub(super) fn acknowledged(&self) -> Index {
        self.acknowledged
    }

    /// What was committed behind an index is lost: the queue is what it was there. All calls have ended.
    pub(super) fn go_back(&mut self, index: Index) {
        let count = usize::try_from(index.0).expect("small");
        self.states.truncate(count + 1);
        self.versions.truncate(count + 1);
        self.decided.truncate(count);
        self.acknowledged = self.acknowledged.min(index);
        self.model = Model::default();
        for (index, decided) in (1..).zip(&self.decided) {
            let now_ms = self.states[index].now_ms();
            for Decided { command, .. } in decided {
                self.model.apply(index as u64, now_ms, command);
            }
        }
        let state = self.states.last().expect("there is always the empty one");
        let is_there = |topic: TopicId, offset| {
            state.topic(topic).is_some_and(|topic| topic.generation_of(offset).is_some())
        };
        self.origins.retain(|(topic, offset), _| is_there(*topic, *offset));
    }

    /// Whose message has an offset.
    pub(super) fn origin_at(&self, topic: u64, offset: u64) -> Option<Origin> {
        self.origins.get(&(TopicId(topic), offset)).copied()
    }

    /// The next entry is committed.
    pub(super) fn commit(&mut self, entry: &Entry) -> Result<(), Violation> {
        let mut state = self.state().clone();
        let mut version = self.version();
        let mut decided = Vec::new();
        match &entry.payload {
            Payload::Noop => {}
            Payload::Config(configuration) => {
                Violation::unless(configuration.version >= version, || {
                    format!("entry {} lowers the version from {version}", entry.index)
                })?;
                self.coverage.rare_if(version > 0 && configuration.version > version, Rare::VersionRaised);
                version = configuration.version;
            }
            Payload::Command { meta, bodies } => {
                // Whoever proposed it may not have applied the raise yet.
                let form = meta.first().copied().map_or(0, u32::from);
                Violation::unless(form == version || version > 1 && form == version - 1, || {
                    format!("entry {} has the form of version {form} where {version} is active", entry.index)
                })?;
                self.coverage.rare_if(form > OLD_VERSION, Rare::NewForm);
                let entry_meta = codec::read_entry(meta)
                    .map_err(|error| Violation(format!("entry {} cannot be read: {error}", entry.index)))?;
                let mut position = 0;
                for command in entry_meta.commands {
                    let apply_meta = ApplyMeta { index: entry.index.0, now_ms: entry_meta.stamp_ms, version };
                    let answer = state.apply(&apply_meta, &command);
                    let expected = self.model.apply(entry.index.0, state.now_ms(), &command);
                    let known = Model::knowable(answer);
                    Violation::unless(known == expected, || {
                        format!("the queue says {known:?} to {command:?}, the model {expected:?}")
                    })?;
                    self.note(&command, known, bodies, &mut position)?;
                    decided.push(Decided { command, reply: expected.0, claimed: None });
                }
            }
        }
        self.decided.push(decided);
        if entry.index.0.is_multiple_of(64) {
            state.check().map_err(|broken| Violation(broken.to_string()))?;
            self.compare_counts(&state)?;
        }
        self.states.push(state);
        self.versions.push(version);
        Ok(())
    }

    fn note(
        &mut self,
        command: &Command,
        (reply, effects): (Reply, Effects),
        bodies: &Bytes,
        position: &mut usize,
    ) -> Result<(), Violation> {
        self.cover(command, &reply, &effects);
        if let Some(content) = Content::of_command(command)
            && !matches!(reply, Reply::Published { repeated: true, .. })
        {
            self.contents.entry(content).or_default().0 += 1;
        }
        match (command, &reply) {
            (Command::CreateTopic { name, .. }, Reply::Created { topic, .. }) => {
                self.names.insert(*topic, name.clone());
            }
            // A leader whose client has gone gives back what it leased for it, once.
            (Command::Receive { topic, .. }, Reply::Received { token, deliveries, .. })
                if !deliveries.is_empty() =>
            {
                let leases = deliveries.iter().map(|delivery| (delivery.offset, token.0)).collect();
                let given_back = Content::Settle("release", topic.0, leases, String::new());
                self.contents.entry(given_back).or_default().1 += 1;
            }
            (Command::Publish { messages, .. }, reply) => {
                let first = match reply {
                    Reply::Published { topic, first_offset, repeated: false, .. } => {
                        Some((*topic, *first_offset))
                    }
                    _ => None,
                };
                for (message, ordinal) in messages.iter().zip(0..) {
                    let origin = self.read(message, bodies, position)?;
                    if let Some((topic, first_offset)) = first {
                        self.origins.insert((topic, first_offset + ordinal), origin);
                        *self.published.entry(origin).or_default() += 1;
                        self.messages += 1;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn cover(&mut self, command: &Command, reply: &Reply, effects: &Effects) {
        let coverage = &mut self.coverage;
        coverage.rare_if(effects.leases_expired > 0, Rare::LeaseExpired);
        coverage.rare_if(effects.died > 0, Rare::Died);
        coverage.rare_if(matches!(command, Command::Time { .. }), Rare::TimeCommand);
        let rare = match (command, reply) {
            (_, Reply::Created { repeated: true, .. }) => Rare::CreateRepeated,
            (_, Reply::Updated { .. }) => Rare::TopicUpdated,
            (_, Reply::Published { repeated: true, .. }) => Rare::SessionRetry,
            (_, Reply::SessionOpened { resumed: true, .. }) => Rare::SessionResumed,
            (_, Reply::Popped { repeated: true, .. }) => Rare::PopRepeated,
            (_, Reply::Redriven { count }) if *count > 0 => Rare::Redriven,
            (Command::Receive { .. }, Reply::Received { deliveries, .. }) if deliveries.is_empty() => {
                Rare::SkippedCandidates
            }
            (Command::Ack { .. }, Reply::Settled { results }) => {
                coverage.rare_if(results.contains(&queue::LeaseResult::Gone), Rare::AckGone);
                coverage.rare_if(results.contains(&queue::LeaseResult::Stale), Rare::AckStale);
                return;
            }
            (_, Reply::Refused(refused)) => match refused {
                Refused::TopicExists { .. } => Rare::TopicExists,
                Refused::NoSuchTopic => Rare::NoSuchTopic,
                Refused::OverLimit { .. } => Rare::LimitReached,
                Refused::SequenceReused { .. } => Rare::SequenceReused,
                Refused::OutOfSequence { .. } => Rare::OutOfSequence,
                Refused::SessionExpired { .. } => Rare::SessionExpired,
                Refused::Fenced { .. } => Rare::Fenced,
                _ => return,
            },
            _ => return,
        };
        coverage.rare(rare);
    }

    /// Reads one message out of an entry and checks every byte of it.
    fn read(&self, message: &MessageMeta, bodies: &Bytes, position: &mut usize) -> Result<Origin, Violation> {
        let end = *position + message.size as usize;
        Violation::unless(end <= bodies.len(), || {
            format!("an entry has {} bytes of bodies, its messages {end}", bodies.len())
        })?;
        let message = codec::read_message(&bodies.slice(*position..end), message.crc)
            .map_err(|error| Violation(format!("a committed message cannot be read: {error}")))?;
        *position = end;
        let origin =
            Origin::of(&message.body).ok_or_else(|| Violation("a committed message is of nobody".into()))?;
        let expected = origin.message(self.seed, self.body_bytes_max);
        Violation::unless(message.body == expected.body, || {
            format!("the committed message {origin:?} has other bytes than were published")
        })?;
        Ok(origin)
    }

    fn compare_counts(&self, state: &State) -> Result<(), Violation> {
        for topic in &self.model.topics {
            let mut counts = [0; 4];
            for message in &topic.messages {
                match message.status {
                    Status::Ready => counts[0] += 1,
                    Status::Leased { .. } => counts[1] += 1,
                    Status::Delayed { .. } => counts[2] += 1,
                    Status::Dead(_) => counts[3] += 1,
                    Status::Done => {}
                }
            }
            let found = state
                .subscription(TopicId(topic.id), SubscriptionId::DEFAULT)
                .map(|held| held.stats())
                .map(|stats| [stats.ready, stats.leased, stats.delayed, stats.dead]);
            Violation::unless(found == Some(counts), || {
                format!("topic {} holds {found:?}, the model {counts:?}", topic.id)
            })?;
        }
        Ok(())
    }

    /// An answer leaves a node. Says what it was, or why it is wrong. Some failures need an excuse: a disk that cannot be
    /// read, or disks that are full.
    pub(super) fn answered(
        &mut self,
        id: CallId,
        call: &Call,
        result: &Result<Response, Failure>,
        excuse: Excuse,
    ) -> Result<Verdict, Violation> {
        let verdict = self.judge(id, call, result, excuse)?;
        match verdict {
            Verdict::Unknown => self.may_have_happened(&call.request),
            Verdict::Done => self.count_possible(&call.request),
            Verdict::Looked | Verdict::NotDone => {}
        }
        if let Request::Publish(Publish { messages, .. }) = &call.request {
            let fate = match (verdict, result.is_ok()) {
                (Verdict::Unknown, _) => Fate::Unknown,
                (Verdict::Done, true) => Fate::Kept,
                _ => Fate::Refused,
            };
            messages.iter().filter_map(|message| Origin::of(&message.body)).for_each(|o| self.meet(o, fate));
        }
        Ok(verdict)
    }

    /// A call ends without an answer.
    pub(super) fn unanswered(&mut self, call: &Call) {
        self.may_have_happened(&call.request);
        if let Request::Publish(Publish { messages, .. }) = &call.request {
            for origin in messages.iter().filter_map(|message| Origin::of(&message.body)) {
                self.meet(origin, Fate::Unknown);
            }
        }
    }

    fn meet(&mut self, origin: Origin, fate: Fate) {
        let known = self.fates.entry(origin).or_insert(fate);
        // A repeat that is refused says nothing about what came before; one that succeeds says all.
        if fate == Fate::Kept || (*known == Fate::Refused && fate == Fate::Unknown) {
            *known = fate;
        }
    }

    fn may_have_happened(&mut self, request: &Request) {
        self.count_possible(request);
        if let Request::Take(take) = request {
            let is_pop = matches!(take.kind, TakeKind::Pop { .. });
            *self.open_takes.entry((is_pop, take.topic.clone())).or_default() += 1;
        }
    }

    /// A leader gives these back by itself, as a receive has leased them and they cannot be read.
    pub(super) fn may_give_back(&mut self, messages: &[MessageRef]) {
        let leases = messages.iter().map(|message| (message.id.offset, message.token)).collect();
        let given_back = Content::Settle("release", messages[0].id.topic, leases, String::new());
        self.contents.entry(given_back).or_default().1 += 1;
    }

    fn count_possible(&mut self, request: &Request) {
        if let Some(content) = Content::of_request(request) {
            self.contents.entry(content).or_default().1 += 1;
        }
    }

    fn judge(
        &mut self,
        id: CallId,
        call: &Call,
        result: &Result<Response, Failure>,
        excuse: Excuse,
    ) -> Result<Verdict, Violation> {
        let wrong = |why: &str| {
            Err(Violation(format!(
                "the answer {result:?} to {:?}, asked after index {}, is wrong: {why}",
                call.request, call.committed_before
            )))
        };
        let takes = matches!(call.request, Request::Take(_));
        match result {
            Ok(Response::Messages(messages)) if messages.is_empty() && takes => {
                let is_empty = |state: &State| view::has_nothing_ready(state, &call.request);
                if self.was_so(call, is_empty) { Ok(Verdict::Looked) } else { wrong("something was ready") }
            }
            // What is said of members is checked where these are known.
            Ok(
                Response::Transferred { .. }
                | Response::Cluster(_)
                | Response::Members(_)
                | Response::MembersChanged { .. },
            ) => Ok(Verdict::Looked),
            Err(failure)
                if matches!(call.request, Request::Members(_))
                    && failure.outcome == api::Outcome::NotDone =>
            {
                Ok(Verdict::NotDone)
            }
            Ok(Response::Topics { .. } | Response::Topic(_) | Response::Messages(_)) if !takes => {
                let response = result.as_ref().expect("just seen");
                let is_seen = |state: &State| view::shows(state, &call.request, response);
                if self.was_so(call, is_seen) {
                    Ok(Verdict::Looked)
                } else {
                    wrong("no state since then looks so")
                }
            }
            Ok(_) => match self.claim(id, call, result) {
                true => Ok(Verdict::Done),
                false => wrong("no command answers it"),
            },
            Err(failure) if failure.outcome == api::Outcome::Unknown => Ok(Verdict::Unknown),
            Err(failure) => match failure.reason {
                Reason::NotLeader | Reason::NoLeader | Reason::DeadlineExceeded | Reason::Overloaded => {
                    Ok(Verdict::NotDone)
                }
                Reason::FailedPrecondition | Reason::NodeNotFound
                    if call.request.method() == Method::TransferLeadership =>
                {
                    Ok(Verdict::NotDone)
                }
                Reason::FailedPrecondition
                    if call.request.method() == Method::UpdateTopic
                        && self.version_at(call.committed_before) == OLD_VERSION =>
                {
                    Ok(Verdict::NotDone)
                }
                Reason::DataUnreadable if excuse.is_unreadable => Ok(Verdict::NotDone),
                Reason::DiskFull if excuse.is_full && call.request.method() == Method::Publish => {
                    Ok(Verdict::NotDone)
                }
                _ if self.claim(id, call, result) => Ok(Verdict::Done),
                Reason::TopicNotFound => {
                    let is_gone = |state: &State| view::has_no_topic(state, &call.request);
                    if self.was_so(call, is_gone) { Ok(Verdict::Looked) } else { wrong("there was one") }
                }
                // The messages that were looked up may have gone with their topic.
                Reason::DataUnreadable if self.was_so(call, |s| view::has_no_topic(s, &call.request)) => {
                    Ok(Verdict::NotDone)
                }
                _ => wrong("nothing was refused so"),
            },
        }
    }

    /// Whether the state was so at some index that the call had to know, up to now.
    fn was_so(&self, call: &Call, is_so: impl Fn(&State) -> bool) -> bool {
        let from = usize::try_from(call.acknowledged_before.0).expect("small");
        self.states[from..].iter().rev().any(is_so)
    }

    /// Finds the command that this answers, and takes it, so that it answers nothing else.
    fn claim(&mut self, id: CallId, call: &Call, result: &Result<Response, Failure>) -> bool {
        let from = usize::try_from(call.committed_before.0).expect("small");
        let names = &self.names;
        let said = result.as_ref().map_err(|failure| failure.reason);
        for (decided, index) in self.decided[from..].iter_mut().zip(call.committed_before.0 + 1..) {
            let found = decided.iter_mut().find(|decided| {
                decided.claimed.is_none()
                    && is_of(&call.request, &decided.command, names)
                    && answer_to(&decided.command, &decided.reply)
                        .is_some_and(|answer| answer.as_ref().map_err(|reason| *reason) == said)
            });
            if let Some(found) = found {
                found.claimed = Some(id);
                self.acknowledged = self.acknowledged.max(Index(index));
                return true;
            }
        }
        false
    }

    /// All calls have ended: what was said and what is in the log must add up.
    pub(super) fn finish(&self) -> Result<(), Violation> {
        for (origin, fate) in &self.fates {
            let count = self.published.get(origin).copied().unwrap_or(0);
            let fits = match fate {
                Fate::Kept => count == 1,
                Fate::Refused => count == 0,
                Fate::Unknown => count <= 1,
            };
            Violation::unless(fits, || {
                format!("{origin:?} stands in the log {count} times, its producer was told {fate:?}")
            })?;
        }
        for (content, (committed, possible)) in &self.contents {
            Violation::unless(committed <= possible, || {
                format!("committed {committed} times where {possible} calls may have been it: {content:?}")
            })?;
        }
        let mut unclaimed: BTreeMap<(bool, String), u64> = BTreeMap::new();
        for decided in self.decided.iter().flatten().filter(|decided| decided.claimed.is_none()) {
            let (is_pop, topic) = match (&decided.command, &decided.reply) {
                (Command::Pop { topic, .. }, Reply::Popped { deliveries, .. }) if !deliveries.is_empty() => {
                    (true, topic)
                }
                (Command::Receive { topic, .. }, Reply::Received { deliveries, .. })
                    if !deliveries.is_empty() =>
                {
                    (false, topic)
                }
                _ => continue,
            };
            *unclaimed.entry((is_pop, self.names[topic].clone())).or_default() += 1;
        }
        for (target, count) in unclaimed {
            let possible = self.open_takes.get(&target).copied().unwrap_or(0);
            Violation::unless(count <= possible, || {
                format!(
                    "{count} times messages of {target:?} (pop or receive) went to nobody, {possible} calls do not know"
                )
            })?;
        }
        Ok(())
    }
}
