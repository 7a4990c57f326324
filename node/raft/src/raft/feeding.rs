//! Sending entries to the peers of a leader, and taking what they answer.

use super::{Raft, Role};
use crate::event::{Alarm, Found, LoadRequest, LogSlice};
use crate::mutants::{self, Mutant};
use crate::progress::ProgressState;
use crate::{AppendOutcome, Entry, Index, Message, NodeId};

impl Raft {
    /// Sends every peer what its window has room for.
    pub(super) fn feed_peers(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let peers: Vec<_> = leader.progress.keys().copied().collect();
        for peer in peers {
            while self.feed(peer) {}
        }
    }

    /// Sends one message to `to` if there is something to send; returns true if there may be more.
    pub(super) fn feed(&mut self, to: NodeId) -> bool {
        let settings = &self.settings;
        let (start, last) = (self.log.start(), self.log.last());
        let Role::Leader(leader) = &mut self.role else { return false };
        let Some(progress) = leader.progress.get_mut(&to) else { return false };
        if progress.next <= start.0 {
            if progress.enter_snapshot() {
                self.send_to(to, Message::Install { start });
            }
            return false;
        }
        progress.leave_snapshot();
        if std::mem::take(&mut progress.ask) && !mutants::is(Mutant::NeverAskAgain) {
            self.send_append(to, Vec::new());
            return true;
        }
        let probe = progress.state == ProgressState::Probe;
        if !progress.has_room(settings.window_messages_max, settings.window_bytes_max)
            || (progress.next > last && !probe)
        {
            return false;
        }
        let entries = if progress.next > last || probe && progress.probed {
            Vec::new()
        } else if let Some(entries) = self.log.slice(progress.next, settings.append_bytes_max) {
            entries
        } else {
            progress.loading = true;
            self.load.push(LoadRequest { to, from: progress.next, bytes_max: settings.append_bytes_max });
            return false;
        };
        self.send_append(to, entries);
        true
    }

    fn send_append(&mut self, to: NodeId, entries: Vec<Entry>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        let prev_index = progress.next.prev();
        let prev_term = self.log.term_at(prev_index).expect("a peer is fed from within the log");
        let bytes = entries.iter().map(Entry::size).sum();
        progress.sent(Index(prev_index.0 + entries.len() as u64), bytes);
        self.send_to(to, Message::Append { prev_index, prev_term, entries, commit: self.commit });
    }

    /// Old entries were read for a peer. They are sent if that peer still waits for them and the log still holds them.
    pub(super) fn on_loaded(&mut self, slice: LogSlice) {
        let LogSlice { to, from, found } = slice;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        if !progress.loading || progress.next != from {
            return;
        }
        progress.loading = false;
        let mut entries = match found {
            Found::Entries(entries) => entries,
            // Where the log begins now is still on its way here: without that there is nothing to tell the peer.
            Found::Unreadable | Found::Released => Vec::new(),
        };
        let log = &self.log;
        let valid = entries
            .iter()
            .zip(from.0..)
            .take_while(|(entry, index)| {
                entry.index.0 == *index && log.term_at(entry.index) == Some(entry.term)
            })
            .count();
        entries.truncate(valid);
        if entries.is_empty() {
            // They cannot be read now. The core asks again after the next answer to a heartbeat.
            progress.become_probe(from);
            progress.probe_sent = true;
        } else {
            self.send_append(to, entries);
        }
    }

    pub(super) fn on_append_reply(&mut self, from: NodeId, outcome: AppendOutcome, disk_stalled: bool) {
        let last = self.log.last();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        progress.silent_ticks = 0;
        progress.disk_stalled = disk_stalled;
        match outcome {
            AppendOutcome::Accepted { durable } if durable <= last => {
                progress.accepted(durable);
                self.finish_transfer();
            }
            AppendOutcome::Accepted { .. } => self.alarms.push(Alarm::Malformed { from }),
            AppendOutcome::Rejected { prev_index, hint_index, hint_term } => {
                let agreement = self.log.find_agreement(hint_index.min(prev_index), hint_term);
                let begin = mutants::is(Mutant::ProbeForGone).then_some(self.log.start());
                progress.rejected(prev_index, agreement.or(begin).map(|(index, _)| index));
            }
        }
    }

    pub(super) fn on_heartbeat_reply(&mut self, from: NodeId, round: u64, received: Index) {
        let last = self.log.last();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        progress.silent_ticks = 0;
        progress.read_round = progress.read_round.max(round);
        progress.beat_answered(received.min(last));
    }

    /// What a peer says of itself.
    pub(super) fn on_peer_state(
        &mut self,
        from: NodeId,
        disk_stalled: bool,
        replaying: bool,
        incomplete: bool,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        progress.disk_stalled = disk_stalled;
        progress.replaying = replaying;
        progress.incomplete = incomplete;
        self.settle_configuration();
    }
}
