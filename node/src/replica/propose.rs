//! From calls to entries: one entry carries everything that waited.

use super::calls::{CallId, Stage};
use super::{Replica, mutants};
use crate::api::codec::{self, EntryWriter};
use crate::api::{Failure, LeaseId, NewMessage, Reason, Request, SessionStep};
use bytes::{Bytes, BytesMut};
use raftqueue_queue::{
    self as queue, Command, DeadSelection, EXPIRED_PER_APPLY_MAX, Generation, MessageMeta, Sequenced,
    SessionId, SubscriptionId, Token, TopicId, TopicSettings,
};
use raftqueue_raft::Payload;
use std::collections::VecDeque;

/// Steps of a command and its answer, besides what it lists.
const COMMAND_STEPS: usize = 2;
/// Places in the queue of what was given up, besides as many as there are others.
const GONE_MAX: usize = 64;
/// An estimate of the bytes that a command without messages costs.
const COMMAND_BYTES: usize = 64;

/// What waits to be proposed, in the order in which it came.
///
/// Numbers rise along `items`, and the first of them is not gone. What is given up in the midst stays as an empty place
/// until it comes to the front or there are too many: ten thousand may be given up at once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    /// Those that are not gone.
    count: usize,
    bytes: usize,
    last_number: u64,
    /// What will never be proposed, to be dropped piece by piece.
    discarded: VecDeque<Item>,
}

#[derive(Debug)]
struct Item {
    number: u64,
    /// The call that it answers; `None` for what this node does by itself.
    call: Option<CallId>,
    bytes: usize,
    /// What it costs to propose or to apply.
    steps: usize,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// It was given up.
    Gone,
    Command(Command),
    /// Becomes a command when its entry is made, so that the messages are copied once.
    Publish {
        topic: String,
        session: Option<SessionStep>,
        messages: Vec<NewMessage>,
    },
}

impl Queue {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.discarded.append(&mut self.items);
        (self.count, self.bytes) = (0, 0);
    }

    pub(super) fn has_discarded(&self) -> bool {
        !self.discarded.is_empty()
    }

    /// Drops a piece of what will never be proposed; returns the steps.
    pub(super) fn drop_discarded(&mut self) -> usize {
        self.discarded.pop_front().map_or(0, |item| item.steps)
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the number of the new one.
    fn push(&mut self, call: Option<CallId>, bytes: usize, steps: usize, work: Work) -> u64 {
        self.last_number += 1;
        let number = self.last_number;
        self.bytes += bytes;
        self.count += 1;
        self.items.push_back(Item { number, call, bytes, steps, work });
        number
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes;
        self.count -= 1;
        self.drop_gone();
        Some(item)
    }

    /// Gives one up, of this call, if it is still there.
    fn remove(&mut self, call: CallId, number: u64) -> Option<Work> {
        let at = self.items.binary_search_by_key(&number, |item| item.number).ok()?;
        let item = self.items.get_mut(at).filter(|item| item.call == Some(call))?;
        if matches!(item.work, Work::Gone) {
            return None;
        }
        let work = std::mem::replace(&mut item.work, Work::Gone);
        self.bytes -= item.bytes;
        self.count -= 1;
        self.drop_gone();
        if self.items.len() > 2 * self.count + GONE_MAX {
            self.items.retain(|item| !matches!(item.work, Work::Gone));
        }
        Some(work)
    }

    fn drop_gone(&mut self) {
        while self.items.front().is_some_and(|item| matches!(item.work, Work::Gone)) {
            self.items.pop_front();
        }
    }
}

/// An entry made by this node.
#[derive(Debug)]
pub(super) struct Proposed {
    /// Its stamp.
    pub(super) stamp_ms: u64,
    /// Its commands, so that they need not be decoded again.
    pub(super) commands: Vec<Command>,
    /// Which calls they answer.
    pub(super) calls: Vec<Option<CallId>>,
}

impl Replica {
    /// Queues a request that becomes exactly one command.
    pub(super) fn enqueue_request(&mut self, id: CallId, request: Request) {
        let work = match self.work(request) {
            Ok(work) => work,
            Err(failure) => return self.answer(id, Err(failure)),
        };
        let (bytes, steps) = match &work {
            Work::Publish { messages, .. } => {
                let bytes = messages.iter().map(codec::record_size_max).sum::<usize>();
                (COMMAND_BYTES + bytes, COMMAND_STEPS + messages.len())
            }
            Work::Command(command) => (command_bytes(command), command_steps(command)),
            Work::Gone => unreachable!("nothing asks for nothing"),
        };
        self.steps.take(steps);
        if self.queue.bytes + bytes > self.settings.queued_bytes_max && !self.queue.is_empty() {
            self.counters.calls_refused += 1;
            let text = format!(
                "{} bytes wait to be written here, the limit is {}: the disks are slower than the producers",
                self.queue.bytes, self.settings.queued_bytes_max
            );
            return self.answer(id, Err(Failure::not_done(Reason::Overloaded, text).retry_after_ms(100)));
        }
        let number = self.queue.push(Some(id), bytes, steps, work);
        let call = self.call_mut(id);
        (call.stage, call.number) = (Stage::Queued, number);
    }

    /// Queues a command, for a call or for the node itself.
    pub(super) fn enqueue(&mut self, call: Option<CallId>, command: Command) {
        let (bytes, steps) = (command_bytes(&command), command_steps(&command));
        let number = self.queue.push(call, bytes, steps, Work::Command(command));
        if let Some(id) = call {
            let call = self.call_mut(id);
            (call.stage, call.number) = (Stage::Queued, number);
        }
    }

    /// Takes a call out of the queue; `number` is its place there.
    pub(super) fn unqueue(&mut self, id: CallId, number: u64) {
        if let Some(Work::Command(command)) = self.queue.remove(id, number) {
            self.give_back(&command);
        }
    }

    fn work(&self, request: Request) -> Result<Work, Failure> {
        let settings = &self.settings;
        Ok(Work::Command(match request {
            Request::Publish { topic, session, messages } => {
                if !self.has_quorum_room() {
                    return Err(Failure::not_done(
                        Reason::DiskFull,
                        "the disks of a majority are nearly full: publishing waits until consumers or an operator \
                         have made room",
                    )
                    .retry_after_ms(1_000));
                }
                return Ok(Work::Publish { topic, session, messages });
            }
            Request::CreateTopic { topic, options, request_id } => Command::CreateTopic {
                name: topic,
                settings: TopicSettings {
                    attempts_max: options.attempts_max.unwrap_or(settings.attempts_max_default),
                    messages_max: options.messages_max,
                    bytes_max: options.bytes_max,
                    ttl_ms_default: options.ttl_ms,
                },
                topics_max: settings.topics_max,
                request_id,
            },
            Request::DeleteTopic { topic } => Command::DeleteTopic { name: topic },
            Request::Ack { subscription, leases, .. } => {
                let (topic, subscription, leases) = place(&subscription, &leases)?;
                Command::Ack { topic, subscription, leases }
            }
            Request::Nack { subscription, leases, delay_ms, reason, .. } => {
                let (topic, subscription, leases) = place(&subscription, &leases)?;
                let reason = (!reason.is_empty()).then_some(reason);
                Command::Nack { topic, subscription, leases, delay_ms, reason }
            }
            Request::Extend { subscription, leases, lease_ms, .. } => {
                let (topic, subscription, leases) = place(&subscription, &leases)?;
                Command::Extend {
                    topic,
                    subscription,
                    leases,
                    lease_ms: lease_ms.unwrap_or(settings.lease_ms_default),
                }
            }
            Request::Release { subscription, leases, .. } => {
                let (topic, subscription, leases) = place(&subscription, &leases)?;
                Command::Release { topic, subscription, leases }
            }
            Request::Purge { topic, subscription } => {
                Command::Purge { topic, subscription: Self::subscription(&subscription)? }
            }
            Request::RedriveDead { topic, subscription, .. } => Command::RedriveDead {
                topic: self.topic_id(&topic)?,
                subscription: Self::subscription(&subscription)?,
                selection: DeadSelection::All,
            },
            Request::PurgeDead { topic, subscription, .. } => Command::PurgeDead {
                topic: self.topic_id(&topic)?,
                subscription: Self::subscription(&subscription)?,
                selection: DeadSelection::All,
            },
            Request::OpenSession { name } => Command::OpenSession {
                name,
                sessions_max: settings.sessions_max,
                pairs_max: settings.session_pairs_max,
            },
            Request::CloseSession { session } => Command::CloseSession {
                session: SessionId { generation: Generation(session.generation), number: session.number },
                epoch: session.epoch,
            },
            Request::Receive { .. }
            | Request::Pop { .. }
            | Request::Peek { .. }
            | Request::ListTopics { .. }
            | Request::DescribeTopic { .. }
            | Request::ClusterStatus
            | Request::TransferLeadership { .. } => unreachable!("taken care of where calls come in"),
        }))
    }

    /// The topic of that name, in the state that this leader has applied. A leader that has applied all of its
    /// predecessors' entries cannot miss a topic that was acknowledged, and until then it waits.
    pub(super) fn topic_id(&self, name: &str) -> Result<TopicId, Failure> {
        self.state
            .topic_id(name)
            .ok_or_else(|| Failure::not_done(Reason::TopicNotFound, format!("there is no topic `{name}`")))
    }

    /// Makes entries of what is queued, while the pipeline has room. A new leader first applies what its predecessors
    /// committed, so that it knows every topic that was acknowledged.
    pub(super) fn propose_queued(&mut self) {
        if self.raft.term_start().is_none_or(|start| self.applied < start) {
            return;
        }
        while !self.queue.is_empty()
            && self.in_flight < self.settings.entries_in_flight_max
            && self.raft.may_propose().is_ok()
            && self.steps.may_go_on()
        {
            self.propose_entry();
        }
    }

    fn propose_entry(&mut self) {
        let mut writer = EntryWriter::default();
        let bytes = self.queue.bytes.min(self.settings.entry_bytes_target + self.queue.items[0].bytes);
        let mut bodies = BytesMut::with_capacity(bytes);
        let own = self.raft.id();
        let stamp_ms = self.clock.stamp(own, self.raft.configuration().voters(), self.now);
        let mut entry = Proposed { stamp_ms, commands: Vec::new(), calls: Vec::new() };
        // An entry is applied in one turn. Each command first ends some of what is over at the stamp.
        let steps_max = usize::try_from(self.steps.target()).unwrap_or(usize::MAX);
        let mut due = self.state.due_count(stamp_ms, steps_max);
        let mut steps = 0;
        while let Some(next) = self.queue.items.front() {
            let full = writer.size() + bodies.len() + next.bytes > self.settings.entry_bytes_target
                || steps + next.steps + self.drop_steps(&next.work) > steps_max;
            if full && !entry.commands.is_empty() {
                break;
            }
            let expires = due.min(EXPIRED_PER_APPLY_MAX);
            due -= expires;
            steps += next.steps + self.drop_steps(&next.work) + expires;
            self.steps.take(next.steps);
            let Item { call, work, .. } = self.queue.pop().expect("just seen");
            let command = match work {
                Work::Gone => continue,
                Work::Command(command) => command,
                Work::Publish { topic, session, messages } => {
                    self.publish(topic, session, &messages, &mut bodies)
                }
            };
            writer.push(&command);
            entry.commands.push(command);
            entry.calls.push(call);
            if let Some(call) = call.and_then(|id| self.calls.get_mut(&id)) {
                call.stage = Stage::Proposed;
            }
        }
        let payload =
            Payload::Command { meta: writer.finish(self.version, stamp_ms), bodies: Bytes::from(bodies) };
        let (term, index) = self.raft.propose(payload).expect("just asked whether it may");
        self.counters.entries_proposed += 1;
        self.in_flight += 1;
        if mutants::is(mutants::Mutant::AcknowledgeBeforeApply) {
            self.acknowledge_early(&entry);
        }
        self.proposed.insert((index, term), entry);
    }

    /// What applying would cost besides what is listed: by what is there to be dropped.
    fn drop_steps(&self, work: &Work) -> usize {
        match work {
            Work::Command(
                Command::RedriveDead { topic, selection: DeadSelection::All, .. }
                | Command::PurgeDead { topic, selection: DeadSelection::All, .. },
            ) => self.state.drop_steps(*topic),
            Work::Command(Command::DeleteTopic { name } | Command::Purge { topic: name, .. }) => {
                self.state.topic_id(name).map_or(0, |topic| self.state.drop_steps(topic))
            }
            Work::Command(Command::CloseSession { session, .. }) => {
                self.state.session(*session).map_or(0, |session| session.sequences().count())
            }
            Work::Command(_) | Work::Publish { .. } | Work::Gone => 0,
        }
    }

    fn publish(
        &self,
        topic: String,
        session: Option<SessionStep>,
        messages: &[NewMessage],
        bodies: &mut BytesMut,
    ) -> Command {
        let ttl_ms_default = self
            .state
            .topic_id(&topic)
            .and_then(|id| self.state.topic(id))
            .and_then(|t| t.settings().ttl_ms_default);
        let metas: Vec<MessageMeta> = messages
            .iter()
            .map(|message| {
                let (size, crc) = codec::write_record(bodies, message);
                MessageMeta {
                    size,
                    crc,
                    delay_ms: message.delay_ms,
                    ttl_ms: message.ttl_ms.or(ttl_ms_default),
                }
            })
            .collect();
        let session = session.map(|step| Sequenced {
            session: SessionId {
                generation: Generation(step.session.generation),
                number: step.session.number,
            },
            epoch: step.session.epoch,
            sequence: step.sequence,
            batch_crc: codec::batch_crc(messages),
        });
        Command::Publish { topic, session, messages: metas }
    }
}

/// What a command costs to propose or to apply, as far as it lists what it is about.
fn command_steps(command: &Command) -> usize {
    COMMAND_STEPS
        + match command {
            Command::Publish { messages, .. } => messages.len(),
            Command::Receive { candidates, .. } | Command::Pop { candidates, .. } => candidates.len(),
            Command::Ack { leases, .. }
            | Command::Nack { leases, .. }
            | Command::Extend { leases, .. }
            | Command::Release { leases, .. } => leases.len(),
            Command::Time { overdue } => overdue.iter().map(|o| o.candidates.len()).sum(),
            Command::RedriveDead { selection: DeadSelection::Listed(listed), .. }
            | Command::PurgeDead { selection: DeadSelection::Listed(listed), .. } => listed.len(),
            _ => 0,
        }
}

fn command_bytes(command: &Command) -> usize {
    COMMAND_BYTES
        + match command {
            Command::Receive { candidates, .. } | Command::Pop { candidates, .. } => 24 * candidates.len(),
            Command::Ack { leases, .. }
            | Command::Nack { leases, .. }
            | Command::Extend { leases, .. }
            | Command::Release { leases, .. } => 24 * leases.len(),
            Command::Time { overdue } => overdue.iter().map(|o| 24 * o.candidates.len()).sum(),
            _ => 0,
        }
}

/// The topic that all the leases are of, and the leases in the queue's own words.
fn place(
    subscription: &str,
    leases: &[LeaseId],
) -> Result<(TopicId, SubscriptionId, Vec<queue::LeaseId>), Failure> {
    let subscription = Replica::subscription(subscription)?;
    let topic = leases.first().map_or(0, |lease| lease.message.topic);
    if let Some(other) = leases.iter().find(|lease| lease.message.topic != topic) {
        return Err(Failure::not_done(
            Reason::InvalidArgument,
            format!(
                "one call settles leases of one topic; these are of topics {topic} and {}",
                other.message.topic
            ),
        ));
    }
    let leases = leases
        .iter()
        .map(|lease| queue::LeaseId {
            generation: Generation(lease.message.generation),
            offset: lease.message.offset,
            token: Token(lease.token),
        })
        .collect();
    Ok((TopicId(topic), subscription, leases))
}
