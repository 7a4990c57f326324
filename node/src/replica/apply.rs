//! From committed entries to replies.

use super::calls::{CallId, Stage};
use super::propose::Proposed;
use super::{AppliedEntry, LoadedEntry, Placement, Replica, commands};
use crate::api::Reason;
use crate::api::codec::{self, EntryMeta, VERSION_MIN};
use bytes::Bytes;
use raftqueue_queue::{ApplyMeta, Command, Delivery, Effects, LeaseId, LeaseResult, Reply};
use raftqueue_raft::{Event as RaftEvent, Index, Payload, Term};

impl Replica {
    /// Applies entries that are committed and in memory. Asks for the others to be read back.
    pub(super) fn apply_committed(&mut self) {
        if self.is_stateless {
            return;
        }
        while self.applied < self.raft.commit() && self.actions.fatal.is_none() {
            if self.has_next() && !self.steps.may_go_on() {
                break;
            }
            let Some(entry) = self.next_to_apply() else { break };
            self.apply(entry);
        }
    }

    /// Whether the next entry to be applied is in memory.
    fn has_next(&self) -> bool {
        let index = self.applied.next();
        self.raft.entry(index).is_some() || self.loaded.front().is_some_and(|entry| entry.index == index)
    }

    fn next_to_apply(&mut self) -> Option<LoadedEntry> {
        let index = self.applied.next();
        if let Some(entry) = self.raft.entry(index) {
            self.loaded.clear();
            let (term, bytes) = (entry.term, entry.size() as u64);
            return Some(LoadedEntry { index, term, payload: entry.payload.clone(), bytes });
        }
        if let Some(entry) = self.loaded.pop_front() {
            if entry.index == index && self.raft.term_at(index) == Some(entry.term) {
                return Some(entry);
            }
            self.loaded.clear(); // Read before something else was applied or cut: asked for again.
        }
        if !self.loading_to_apply {
            self.loading_to_apply = true;
            self.actions.load_to_apply = Some((index, self.raft.commit()));
        }
        None
    }

    fn apply(&mut self, entry: LoadedEntry) {
        let LoadedEntry { index, term, payload, bytes } = entry;
        let steps = self.steps.taken();
        match payload {
            Payload::Noop => {}
            Payload::Config(configuration) if configuration.version > codec::version_max() => {
                self.actions.fatal = Some(format!(
                    "entry {index} of term {term} puts version {} of commands and formats in force; this binary knows {VERSION_MIN} to \
                     {}: run a newer one",
                    configuration.version,
                    codec::version_max()
                ));
                return;
            }
            Payload::Config(configuration) => self.apply_configuration(index, term, configuration),
            Payload::Command { meta, bodies } => {
                if let Err(unreadable) = self.apply_commands(index, term, &meta, bodies) {
                    // Skipping it would make two truths, so this node stops here.
                    self.actions.fatal =
                        Some(format!("entry {index} of term {term} cannot be applied: {unreadable}"));
                    return;
                }
            }
        }
        self.applied = index;
        self.snapshots.applied(super::freeze::log_bytes(bytes), self.steps.taken() - steps);
        if self.raft.is_replaying() {
            // Raft is told of each entry, so that exactly those after the replay are counted.
            self.raft.step(RaftEvent::Applied(index));
        }
        self.overtake_proposals(index, term);
    }

    fn apply_commands(
        &mut self,
        index: Index,
        term: Term,
        meta: &Bytes,
        bodies: Bytes,
    ) -> Result<(), codec::Unreadable> {
        let proposed = match self.proposed.remove(&(index, term)) {
            Some(proposed) => proposed,
            None => {
                let EntryMeta { stamp_ms, commands } = codec::read_entry(meta)?;
                // The cost of decoding a list is part of applying it. This is for its items.
                self.steps.take(commands.len());
                Proposed { stamp_ms, commands, calls: Vec::new() }
            }
        };
        let stamp_ms = proposed.stamp_ms;
        if !proposed.calls.is_empty() && term == self.raft.term() {
            self.pipeline.ended(proposed.commands.len());
        }
        self.clock.passed(stamp_ms, self.now);
        let apply_meta = ApplyMeta { index: index.0, now_ms: stamp_ms, version: self.version() };
        let mut placements = Vec::new();
        let mut position = 0;
        let mut refused = 0;
        let mut calls = proposed.calls.into_iter();
        for (mut command, ordinal) in proposed.commands.into_iter().zip(0..) {
            let (reply, effects) = self.state.apply(&apply_meta, &command);
            if !self.raft.is_replaying() {
                self.count(&command, &reply, &effects);
            }
            self.steps.take(1 + usize::try_from(effects.steps).unwrap_or(usize::MAX));
            for (topic, subscription, lowest) in effects.ready {
                self.receives.wake((topic, subscription), lowest);
            }
            for topic in effects.deleted {
                self.receives.wake_topic(topic);
                self.actions.results.add_deleted(topic);
            }
            if !effects.dropped.is_empty() {
                self.actions.results.add_dropped(effects.dropped);
            }
            self.give_back(&command);
            if let Command::Publish { topic: topic_name, messages, .. } = &mut command {
                let bytes = messages.iter().map(|message| u64::from(message.size)).sum::<u64>();
                if let Reply::Published { topic, first_offset, repeated: false, .. } = reply {
                    let published_ms = self.state.now_ms();
                    placements.push(Placement {
                        topic,
                        topic_name: std::mem::take(topic_name),
                        first_offset,
                        command: ordinal,
                        position,
                        published_ms,
                        messages: std::mem::take(messages).into(),
                        refused,
                    });
                } else {
                    refused += 1;
                }
                position += bytes;
            }
            if let Some(id) = calls.next().flatten() {
                self.answer_applied(id, &command, reply);
            } else if matches!(command, Command::Time { .. }) {
                self.deadlines.time_applied();
            }
        }
        let bodies = (!bodies.is_empty()).then_some(bodies);
        if !placements.is_empty() {
            self.actions.results.add_applied(AppliedEntry { index, bodies, placements });
        }
        Ok(())
    }

    fn answer_applied(&mut self, id: CallId, command: &Command, reply: Reply) {
        if !self.calls.contains_key(&id) {
            return self.give_back_unheard(command, &reply);
        }
        let nothing_left = match &reply {
            Reply::Received { deliveries, .. } => deliveries.is_empty(),
            Reply::Popped { deliveries, repeated, .. } => deliveries.is_empty() && !repeated,
            _ => false,
        };
        if !nothing_left {
            return self.answer(id, commands::respond(command, reply));
        }
        // All candidates had gone meanwhile. That is not the answer "empty".
        if self.raft.is_leader() {
            self.try_receive(id, false);
        } else {
            self.refuse(id, Reason::NotLeader, "this node no longer leads");
        }
    }

    /// A receive was given up before it was applied. Nobody has heard of its leases, so the messages go back at once
    /// instead of staying away for the length of a lease.
    fn give_back_unheard(&mut self, command: &Command, reply: &Reply) {
        let (Command::Receive { topic, subscription, .. }, Reply::Received { token, deliveries, .. }) =
            (command, reply)
        else {
            return;
        };
        if deliveries.is_empty() || !self.raft.is_leader() {
            return;
        }
        let lease = |delivery: &Delivery| LeaseId {
            generation: delivery.generation,
            offset: delivery.offset,
            token: *token,
        };
        let leases = deliveries.iter().map(lease).collect();
        self.propose_later(None, Command::Release { topic: *topic, subscription: *subscription, leases });
    }

    /// If something else is committed now at an index where this node made a proposal, that proposal did not happen and
    /// never will. The same holds for proposals behind it of an earlier term, since terms never fall along a log.
    fn overtake_proposals(&mut self, index: Index, term: Term) {
        let overtaken: Vec<Proposed> = self
            .proposed
            .extract_if(.., |(at, of), _| *at <= index || *of < term)
            .map(|(_, proposed)| proposed)
            .collect();
        self.counters.entries_overtaken += overtaken.len() as u64;
        let text = "another leader took over before a majority had the call";
        let calls = overtaken.into_iter().flat_map(|proposed| proposed.calls).flatten();
        self.endings.extend(calls.map(|id| (id, text)));
    }

    /// Counts what happened to messages. Entries that are only applied again after a start were counted by an earlier
    /// process, or elsewhere.
    fn count(&mut self, command: &Command, reply: &Reply, effects: &Effects) {
        let counters = &mut self.counters;
        counters.commands_applied += 1;
        counters.leases_expired += u64::from(effects.leases_expired);
        counters.messages_died += u64::from(effects.died);
        match (command, reply) {
            (Command::Publish { messages, .. }, Reply::Published { repeated: false, .. }) => {
                counters.messages_published += messages.len() as u64;
                counters.bytes_published +=
                    messages.iter().map(|message| u64::from(message.size)).sum::<u64>();
            }
            (_, Reply::Received { deliveries, .. } | Reply::Popped { deliveries, repeated: false, .. }) => {
                counters.messages_delivered += deliveries.len() as u64;
                counters.messages_redelivered += deliveries.iter().filter(|d| d.attempts > 0).count() as u64;
                if matches!(command, Command::Pop { .. }) {
                    counters.messages_acknowledged += deliveries.len() as u64;
                }
            }
            (command, Reply::Settled { results }) => {
                let done = results.iter().filter(|result| **result == LeaseResult::Done).count() as u64;
                match command {
                    Command::Ack { .. } => counters.messages_acknowledged += done,
                    Command::Nack { .. } => counters.messages_nacked += done,
                    Command::Release { .. } => counters.messages_released += done,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// For a deliberate bug: says that a call is done when it is only proposed.
    pub(super) fn acknowledge_early(&mut self, entry: &Proposed) {
        for (command, call) in entry.commands.iter().zip(&entry.calls) {
            if let (Command::Publish { messages, .. }, Some(id)) = (command, call)
                && self.calls.get(id).is_some_and(|call| call.stage == Stage::Proposed)
            {
                let reply = Reply::Published {
                    topic: raftqueue_queue::TopicId(0),
                    generation: self.state.generation(),
                    first_offset: 0,
                    count: messages.len() as u32,
                    repeated: false,
                };
                self.answer(*id, commands::respond(command, reply));
            }
        }
    }
}
