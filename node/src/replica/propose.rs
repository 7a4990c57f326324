//! From calls to entries: one entry carries everything that waited.

use super::calls::{CallId, Stage};
use super::{Replica, mutants};
use crate::api::{Failure, LeaseId, NewMessage, Reason, Request, SessionStep};
use crate::codec::{self, EntryWriter};
use bytes::{Bytes, BytesMut};
use raftqueue_queue::{
    self as queue, Command, DeadSelection, Generation, MessageMeta, Sequenced, SessionId, SubscriptionId,
    Token, TopicId, TopicSettings,
};
use raftqueue_raft::Payload;
use std::collections::VecDeque;

/// An estimate of the bytes that a command without messages costs.
const COMMAND_BYTES: usize = 64;

/// What waits to be proposed, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
}

#[derive(Debug)]
struct Item {
    /// The call that it answers; `None` for what this node does by itself.
    call: Option<CallId>,
    bytes: usize,
    work: Work,
}

#[derive(Debug)]
enum Work {
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
        self.items.clear();
        self.bytes = 0;
    }

    fn push(&mut self, item: Item) {
        self.bytes += item.bytes;
        self.items.push_back(item);
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes;
        Some(item)
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
        let bytes = match &work {
            Work::Publish { messages, .. } => {
                COMMAND_BYTES + messages.iter().map(codec::record_size_max).sum::<usize>()
            }
            Work::Command(command) => command_bytes(command),
        };
        if self.queue.bytes + bytes > self.settings.queued_bytes_max && !self.queue.items.is_empty() {
            self.counters.calls_refused += 1;
            let text = format!(
                "{} bytes wait to be written here, the limit is {}: the disks are slower than the producers",
                self.queue.bytes, self.settings.queued_bytes_max
            );
            return self.answer(id, Err(Failure::not_done(Reason::Overloaded, text).retry_after_ms(100)));
        }
        self.call_mut(id).stage = Stage::Queued;
        self.queue.push(Item { call: Some(id), bytes, work });
    }

    /// Queues a command, for a call or for the node itself.
    pub(super) fn enqueue(&mut self, call: Option<CallId>, command: Command) {
        if let Some(id) = call {
            self.call_mut(id).stage = Stage::Queued;
        }
        let bytes = command_bytes(&command);
        self.queue.push(Item { call, bytes, work: Work::Command(command) });
    }

    pub(super) fn unqueue(&mut self, id: CallId) {
        if let Some(at) = self.queue.items.iter().position(|item| item.call == Some(id)) {
            let item = self.queue.items.remove(at).expect("just found");
            self.queue.bytes -= item.bytes;
            if let Work::Command(command) = &item.work {
                self.give_back(command);
            }
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
        while !self.queue.items.is_empty()
            && self.in_flight < self.settings.entries_in_flight_max
            && self.raft.may_propose().is_ok()
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
        while let Some(next) = self.queue.items.front() {
            let full = writer.size() + bodies.len() + next.bytes > self.settings.entry_bytes_target;
            if full && !entry.commands.is_empty() {
                break;
            }
            let Item { call, work, .. } = self.queue.pop().expect("just seen");
            let command = match work {
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
        let messages: Vec<MessageMeta> = messages
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
            batch_crc: codec::batch_crc(&messages),
        });
        Command::Publish { topic, session, messages }
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
