//! Makes entries of calls: one entry carries everything that waited.

use super::calls::{CallId, Stage};
use super::commands::{self, COMMAND_BYTES, COMMAND_STEPS};
use super::{Replica, mutants};
use crate::api::codec::{self, EntryWriter};
use crate::api::{Failure, Publish, Reason};
use bytes::{Bytes, BytesMut};
use raftqueue_queue::{
    Command, EXPIRED_PER_APPLY_MAX, Generation, MessageMeta, Sequenced, SessionId, TopicId,
};
use raftqueue_raft::Payload;
use std::collections::VecDeque;

/// Most items that were given up and are kept, besides as many as there are others.
const GONE_MAX: usize = 64;

/// What waits to be proposed, in the order in which it came.
///
/// Numbers rise along `items`, and the first of them is not given up. Ten thousand may be given up at once, so an item
/// in the middle stays, empty, until it comes to the front or there are too many of them.
#[derive(Debug, Default)]
pub(super) struct Unproposed {
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
    /// What proposing or applying it costs.
    steps: usize,
    /// `None`: it was given up.
    work: Option<Work>,
}

#[derive(Debug)]
enum Work {
    Command(Command),
    /// Becomes a command when its entry is made, so that the messages are copied only once.
    Publish(Publish),
}

impl Unproposed {
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

    /// Drops a part of what will never be proposed. Returns the steps.
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
        self.items.push_back(Item { number, call, bytes, steps, work: Some(work) });
        number
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes;
        self.count -= 1;
        self.drop_gone();
        Some(item)
    }

    /// Gives up the item of this call, if it is still there.
    fn remove(&mut self, call: CallId, number: u64) -> Option<Work> {
        let at = self.items.binary_search_by_key(&number, |item| item.number).ok()?;
        let item = self.items.get_mut(at).filter(|item| item.call == Some(call))?;
        let work = item.work.take()?;
        self.bytes -= item.bytes;
        self.count -= 1;
        self.drop_gone();
        if self.items.len() > 2 * self.count + GONE_MAX {
            self.items.retain(|item| item.work.is_some());
        }
        Some(work)
    }

    fn drop_gone(&mut self) {
        while self.items.front().is_some_and(|item| item.work.is_none()) {
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
    /// Notes messages to be published.
    pub(super) fn publish(&mut self, id: CallId, publish: Publish) {
        if !self.has_quorum_room() {
            let reserve = self.settings.reserve_bytes >> 20;
            let text = format!(
                "the disks of a majority have less than the reserve of {reserve} MiB free: receive and acknowledge, purge, or give \
                 them more room"
            );
            let failure = Failure::not_done(Reason::DiskFull, text).retry_after_ms(1_000);
            return self.answer(id, Err(failure));
        }
        let messages = &publish.messages;
        let bytes = COMMAND_BYTES + messages.iter().map(codec::stored_size_max).sum::<usize>();
        let steps = COMMAND_STEPS + messages.len();
        self.add_work(id, bytes, steps, Work::Publish(publish));
    }

    /// Notes the command that a call asks for, if there is one.
    pub(super) fn propose_asked(&mut self, id: CallId, command: Result<Command, Failure>) {
        match command {
            Ok(command) => {
                let (bytes, steps) = (commands::bytes(&command), commands::steps(&command));
                self.add_work(id, bytes, steps, Work::Command(command));
            }
            Err(failure) => self.answer(id, Err(failure)),
        }
    }

    fn add_work(&mut self, id: CallId, bytes: usize, steps: usize, work: Work) {
        self.steps.take(steps);
        if self.unproposed.bytes + bytes > self.settings.queued_bytes_max && !self.unproposed.is_empty() {
            self.counters.calls_refused += 1;
            let text = format!(
                "{} bytes wait to be written here, the limit is {}: the disks are slower than the producers",
                self.unproposed.bytes, self.settings.queued_bytes_max
            );
            return self.answer(id, Err(Failure::not_done(Reason::Overloaded, text).retry_after_ms(100)));
        }
        let number = self.unproposed.push(Some(id), bytes, steps, work);
        let call = self.call_mut(id);
        (call.stage, call.number) = (Stage::Unproposed, number);
    }

    /// Notes a command to be proposed, for a call or for the node itself.
    pub(super) fn propose_later(&mut self, call: Option<CallId>, command: Command) {
        let (bytes, steps) = (commands::bytes(&command), commands::steps(&command));
        let number = self.unproposed.push(call, bytes, steps, Work::Command(command));
        if let Some(id) = call {
            let call = self.call_mut(id);
            (call.stage, call.number) = (Stage::Unproposed, number);
        }
    }

    /// Takes back the command of a call; `number` is the number that it waits under.
    pub(super) fn withdraw(&mut self, id: CallId, number: u64) {
        if let Some(Work::Command(command)) = self.unproposed.remove(id, number) {
            self.give_back(&command);
        }
    }

    /// The topic of that name, in the state that this leader has applied. A leader that has applied all of its
    /// predecessors' entries knows every topic that was acknowledged. Until then it waits.
    pub(super) fn topic_id(&self, name: &str) -> Result<TopicId, Failure> {
        self.state
            .topic_id(name)
            .ok_or_else(|| Failure::not_done(Reason::TopicNotFound, format!("there is no topic `{name}`")))
    }

    /// Makes entries of what waits, while the pipeline has room. A new leader first applies what its predecessors
    /// committed, so that it knows every acknowledged topic. After a forced recovery the generation rises before all else.
    pub(super) fn propose_waiting(&mut self) {
        if self.raft.term_start().is_none_or(|start| self.applied < start) {
            return;
        }
        // A version that rises is in force where it is applied: what is written until then would have the old form.
        if self.raft.configuration().version != self.version() {
            return;
        }
        if !self.is_of_own_generation() {
            return self.raise_generation();
        }
        while self.may_begin_entry() && self.raft.may_propose().is_ok() && self.steps.may_go_on() {
            self.propose_entry();
        }
    }

    fn may_begin_entry(&self) -> bool {
        self.pipeline.may_begin(self.unproposed.count, self.unproposed.bytes, &self.settings)
    }

    fn propose_entry(&mut self) {
        let mut writer = EntryWriter::default();
        let bytes =
            self.unproposed.bytes.min(self.settings.entry_bytes_target + self.unproposed.items[0].bytes);
        let mut bodies = BytesMut::with_capacity(bytes);
        let own = self.raft.id();
        let stamp_ms = self.clock.stamp(own, self.raft.configuration().voters(), self.now);
        let mut entry = Proposed { stamp_ms, commands: Vec::new(), calls: Vec::new() };
        // An entry is applied in one turn. Each command first ends some of the leases and delays that are over at the
        // stamp.
        let steps_max = usize::try_from(self.steps.bound()).unwrap_or(usize::MAX);
        let mut due = self.state.due_count(stamp_ms, steps_max);
        let mut steps = 0;
        while let Some(next) = self.unproposed.items.front() {
            let full = writer.size() + bodies.len() + next.bytes > self.settings.entry_bytes_target
                || steps + next.steps + self.more_steps(next.work.as_ref()) > steps_max;
            if full && !entry.commands.is_empty() {
                break;
            }
            let expires = due.min(EXPIRED_PER_APPLY_MAX);
            due -= expires;
            steps += next.steps + self.more_steps(next.work.as_ref()) + expires;
            self.steps.take(next.steps);
            let Item { call, work, .. } = self.unproposed.pop().expect("just seen");
            let command = match work {
                None => continue,
                Some(Work::Command(command)) => match self.check_version(&command) {
                    Ok(()) => command,
                    Err(failure) => {
                        call.into_iter().for_each(|call| self.answer(call, Err(failure.clone())));
                        continue;
                    }
                },
                Some(Work::Publish(publish)) => self.write_publish(publish, &mut bodies),
            };
            writer.push(&command);
            entry.commands.push(command);
            entry.calls.push(call);
            if let Some(call) = call.and_then(|id| self.calls.get_mut(&id)) {
                call.stage = Stage::Proposed;
            }
        }
        if entry.commands.is_empty() {
            return;
        }
        let payload =
            Payload::Command { meta: writer.finish(self.version(), stamp_ms), bodies: Bytes::from(bodies) };
        let (term, index) = self.raft.propose(payload).expect("just asked whether it may");
        self.counters.entries_proposed += 1;
        self.pipeline.began(entry.commands.len());
        if mutants::is(mutants::Mutant::AcknowledgeBeforeApply) {
            self.acknowledge_early(&entry);
        }
        self.proposed.insert((index, term), entry);
    }

    /// What applying would cost besides what is listed.
    fn more_steps(&self, work: Option<&Work>) -> usize {
        match work {
            Some(Work::Command(command)) => self.state.command_steps(command),
            Some(Work::Publish(_)) | None => 0,
        }
    }

    fn write_publish(&self, publish: Publish, bodies: &mut BytesMut) -> Command {
        let Publish { topic, session, messages } = publish;
        let ttl_ms_default = self
            .state
            .topic_id(&topic)
            .and_then(|id| self.state.topic(id))
            .and_then(|t| t.settings().ttl_ms_default);
        let metas: Vec<MessageMeta> = messages
            .iter()
            .map(|message| {
                let (size, crc) = codec::write_message(bodies, message);
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
        Command::Publish { topic, session, messages: metas }
    }
}
