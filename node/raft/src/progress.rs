//! What a leader knows of one peer, and how much it may send there.

use crate::Index;
use crate::mutants::{self, Mutant};
use std::collections::VecDeque;

/// So many answers to heartbeats in a row must show the same gap before a loss is suspected. One is not enough:
/// heartbeats and entries travel on different streams, and a heartbeat may overtake entries that were sent before it.
const QUIET_REPLIES_MAX: u32 = 3;

/// How a peer is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressState {
    /// Where its log agrees with the leader's is not known: one message at a time.
    Probe,
    /// It agrees: as many messages as the window holds, without waiting for answers.
    Replicate,
    /// What it lacks is gone from the leader's log: it is told so, and gets no entries until it has got over that.
    Snapshot,
}

/// Invariant: `matched < next`; everything between them is in flight.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) state: ProgressState,
    /// The last index known to be durable there, in the leader's log.
    pub(crate) matched: Index,
    /// The next index to send.
    pub(crate) next: Index,
    /// Ticks since it was heard from.
    pub(crate) silent_ticks: u32,
    /// Its disk does not answer, it says.
    pub(crate) disk_stalled: bool,
    /// It has not applied yet what was committed when it started. Assumed until it says otherwise.
    pub(crate) replaying: bool,
    /// It lacks bodies of messages, it says.
    pub(crate) incomplete: bool,
    /// The greatest read round that it confirmed.
    pub(crate) read_round: u64,
    /// In `Probe`: a probe is out; another leaves after the next answer to a beat. In `Snapshot`: so is the word.
    pub(crate) probe_sent: bool,
    /// In `Probe`: entries from `next` on were sent already. Further probes carry none: the peer may only be slow.
    pub(crate) probed: bool,
    /// In `Replicate`: entries or the answers to them may be lost, so an append without entries must leave even if the
    /// window is full.
    pub(crate) ask: bool,
    /// Entries from `next` on are being loaded from disk for it.
    pub(crate) loading: bool,
    /// (last index, bytes) of each message in flight.
    in_flight: VecDeque<(Index, usize)>,
    in_flight_bytes: usize,
    received: Index,
    quiet_replies: u32,
    /// The last beat was not answered yet. Rounds of reads send heartbeats as well, as many as there are reads. Only
    /// one answer for each beat says something about losses.
    beat_unanswered: bool,
}

impl Progress {
    /// A peer of a new leader, to be probed at `next`. It counts as heard just now, since it had no chance to answer
    /// yet.
    pub(crate) fn new(next: Index) -> Self {
        Self {
            state: ProgressState::Probe,
            matched: Index(0),
            next,
            silent_ticks: 0,
            disk_stalled: false,
            replaying: true,
            incomplete: false,
            read_round: 0,
            probe_sent: false,
            probed: false,
            ask: false,
            loading: false,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            received: Index(0),
            quiet_replies: 0,
            beat_unanswered: false,
        }
    }

    pub(crate) fn become_probe(&mut self, next: Index) {
        self.restart(ProgressState::Probe, next);
    }

    /// It must not be handed the lead: it could not deliver.
    pub(crate) fn lacks_messages(&self) -> bool {
        self.incomplete && !mutants::is(Mutant::HandOverToIncomplete)
    }

    fn become_snapshot(&mut self) {
        self.restart(ProgressState::Snapshot, self.matched.next());
    }

    /// What it lacks next is gone. Returns true if it is to be told so now.
    pub(crate) fn enter_snapshot(&mut self) -> bool {
        if self.state != ProgressState::Snapshot {
            self.become_snapshot();
        }
        !std::mem::replace(&mut self.probe_sent, true)
    }

    /// What it lacks next is there, after all if it was not: it has come further by itself, or by a snapshot.
    pub(crate) fn leave_snapshot(&mut self) {
        if self.state == ProgressState::Snapshot {
            let next = self.next;
            let agrees = next == self.matched.next();
            self.restart(if agrees { ProgressState::Replicate } else { ProgressState::Probe }, next);
            // It may have gone over to a snapshot since it last said how it is: it lacks messages then.
            self.replaying = true;
        }
    }

    fn restart(&mut self, state: ProgressState, next: Index) {
        self.state = state;
        self.next = next.max(self.matched.next());
        self.probe_sent = false;
        self.probed = false;
        self.ask = false;
        self.loading = false;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.quiet_replies = 0;
    }

    /// True if another message may leave now.
    pub(crate) fn has_room(&self, messages_max: usize, bytes_max: usize) -> bool {
        !self.loading
            && match self.state {
                ProgressState::Probe | ProgressState::Snapshot => !self.probe_sent,
                ProgressState::Replicate => {
                    self.in_flight.len() < messages_max && self.in_flight_bytes < bytes_max
                }
            }
    }

    /// Notes that a message up to `last` has left. One without entries takes no room.
    pub(crate) fn sent(&mut self, last: Index, bytes: usize) {
        match self.state {
            ProgressState::Probe | ProgressState::Snapshot => (self.probe_sent, self.probed) = (true, true),
            ProgressState::Replicate if bytes == 0 => {}
            ProgressState::Replicate => {
                self.next = last.next();
                self.in_flight.push_back((last, bytes));
                self.in_flight_bytes += bytes;
            }
        }
    }

    /// Everything up to `durable` is on the peer's disk. Returns true if that is news.
    pub(crate) fn accepted(&mut self, durable: Index) -> bool {
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(last, _)| *last <= durable) {
            self.in_flight_bytes -= bytes;
        }
        let news = durable > self.matched;
        self.matched = self.matched.max(durable);
        let mut next = self.next.max(self.matched.next());
        if self.state == ProgressState::Probe && durable >= self.matched {
            self.state = ProgressState::Replicate;
            self.probe_sent = false;
            next = self.matched.next();
        }
        if next != self.next {
            // What is being loaded begins at another index and will not be sent, so nothing may wait for it.
            self.loading &= mutants::is(Mutant::WaitForOldLoad);
            self.next = next;
        }
        news
    }

    /// The peer refused a message that followed `prev`; `agreement` is the greatest index at which the two logs can
    /// agree, `None` if that is gone. Returns false if the answer no longer matters.
    pub(crate) fn rejected(&mut self, prev: Index, agreement: Option<Index>) -> bool {
        // A peer refuses what it has matched only if it lost its disk: do not ask it again at once.
        let stale = prev <= self.matched
            || match self.state {
                ProgressState::Probe => prev != self.next.prev(),
                ProgressState::Replicate => false,
                ProgressState::Snapshot => true,
            };
        if !stale {
            match agreement {
                Some(agreement) => self.become_probe(agreement.next().min(prev)),
                None => self.become_snapshot(),
            }
        }
        !stale
    }

    /// A heartbeat leaves because it is time for one.
    pub(crate) fn beat(&mut self) {
        self.beat_unanswered = true;
    }

    /// A heartbeat was answered: the peer has this log up to `received`.
    ///
    /// If everything was sent and several answers show the same gap, the leader asks by an append without entries. That
    /// one travels behind the entries, so a peer that lacks some of them when it comes has lost them; it says where to
    /// go on. To send them again on mere suspicion would choke a slow link for good. If there is no gap, the answer
    /// that says how much is durable may be lost: the leader asks then, too.
    pub(crate) fn beat_answered(&mut self, received: Index) {
        if !std::mem::take(&mut self.beat_unanswered) {
            return;
        }
        match self.state {
            ProgressState::Probe => return self.probe_sent = false,
            ProgressState::Snapshot => {
                self.probe_sent = mutants::is(Mutant::TellGoneOnce);
                return self.next = self.next.max(received.next());
            }
            ProgressState::Replicate => {}
        }
        let missing = received < self.next.prev();
        self.quiet_replies = if missing && received <= self.received { self.quiet_replies + 1 } else { 0 };
        self.received = received;
        if self.quiet_replies >= QUIET_REPLIES_MAX || !missing && self.matched < self.next.prev() {
            self.quiet_replies = 0;
            self.ask = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_counters_never_leak() {
        let mut progress = Progress::new(Index(1));
        progress.accepted(Index(0));
        assert_eq!(progress.state, ProgressState::Replicate);
        for last in 1..=4 {
            assert!(progress.has_room(4, 1000));
            progress.sent(Index(last), 100);
        }
        assert!(!progress.has_room(4, 1000));
        progress.accepted(Index(3));
        assert!(progress.has_room(4, 101) && !progress.has_room(4, 100));
        progress.become_probe(Index(4));
        assert_eq!((progress.in_flight.len(), progress.in_flight_bytes), (0, 0));
    }

    #[test]
    fn a_loss_is_seen_only_after_several_quiet_answers() {
        let mut progress = Progress::new(Index(1));
        progress.accepted(Index(0));
        progress.sent(Index(5), 100);
        let answer = |progress: &mut Progress, received| {
            progress.beat();
            progress.beat_answered(Index(received));
        };
        for _ in 0..QUIET_REPLIES_MAX - 1 {
            answer(&mut progress, 0);
            assert_eq!(progress.state, ProgressState::Replicate);
        }
        answer(&mut progress, 3);
        assert!(!progress.ask, "the peer still has a gap");
        answer(&mut progress, 5);
        assert_eq!(progress.state, ProgressState::Replicate, "received but not durable is not lost");
        assert!(progress.ask, "what it said of its disk may be lost");
        progress.ask = false;
        progress.sent(Index(6), 100);
        for _ in 0..QUIET_REPLIES_MAX {
            assert!(!progress.ask);
            answer(&mut progress, 5);
        }
        assert!(progress.ask, "the peer is asked what it lacks");
        assert_eq!(
            (progress.state, progress.next),
            (ProgressState::Replicate, Index(7)),
            "and nothing is sent twice"
        );
    }

    #[test]
    fn answers_to_reads_say_nothing_about_losses() {
        let mut progress = Progress::new(Index(1));
        progress.sent(Index(1), 100);
        progress.beat();
        progress.beat_answered(Index(0));
        assert!(progress.has_room(1, 1), "the beat was answered, so the probe is repeated");
        progress.sent(Index(1), 0);
        for _ in 0..10 {
            progress.beat_answered(Index(0));
            assert!(!progress.has_room(1, 1), "one probe a beat");
        }
    }

    #[test]
    fn what_is_loaded_for_another_index_is_not_waited_for() {
        let mut progress = Progress::new(Index(1));
        progress.accepted(Index(4));
        progress.loading = true;
        progress.accepted(Index(9));
        assert_eq!(progress.next, Index(10));
        assert!(progress.has_room(1, 1));
    }

    #[test]
    fn stale_rejections_change_nothing() {
        let mut progress = Progress::new(Index(10));
        assert!(!progress.rejected(Index(5), Some(Index(2))), "not the probe that is out");
        assert!(progress.rejected(Index(9), Some(Index(4))));
        assert_eq!(progress.next, Index(5));
        progress.accepted(Index(7));
        assert!(!progress.rejected(Index(7), Some(Index(2))), "matched meanwhile");
        assert_eq!(progress.state, ProgressState::Replicate);
    }
}
