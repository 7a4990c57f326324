//! What a leader knows of one peer, and how much it may send there.

use crate::Index;
use std::collections::VecDeque;

/// Heartbeat answers in a row that show the same gap before what is missing counts as lost. One is not enough:
/// heartbeats and entries travel on different streams, so a heartbeat may overtake the entries sent before it.
const QUIET_REPLIES_MAX: u32 = 3;

/// How a peer is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressState {
    /// Where its log agrees with the leader's is not known: one message at a time.
    Probe,
    /// It agrees: as many messages as the window holds, without waiting for answers.
    Replicate,
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
    /// The greatest read round that it confirmed.
    pub(crate) read_round: u64,
    /// In `Probe`: a probe is out; another leaves after the next heartbeat answer.
    pub(crate) probe_sent: bool,
    /// Entries for it are being loaded from disk.
    pub(crate) loading: bool,
    /// (last index, bytes) of each message in flight.
    in_flight: VecDeque<(Index, usize)>,
    in_flight_bytes: usize,
    received: Index,
    quiet_replies: u32,
}

impl Progress {
    /// A peer of a new leader: counts as just heard, since it had no chance to answer yet, and is probed at `next`.
    pub(crate) fn new(next: Index) -> Self {
        Self {
            state: ProgressState::Probe,
            matched: Index(0),
            next,
            silent_ticks: 0,
            disk_stalled: false,
            read_round: 0,
            probe_sent: false,
            loading: false,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            received: Index(0),
            quiet_replies: 0,
        }
    }

    pub(crate) fn become_probe(&mut self, next: Index) {
        self.state = ProgressState::Probe;
        self.next = next.max(self.matched.next());
        self.probe_sent = false;
        self.loading = false;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.quiet_replies = 0;
    }

    /// True if another message may leave now.
    pub(crate) fn has_room(&self, messages_max: usize, bytes_max: usize) -> bool {
        !self.loading
            && match self.state {
                ProgressState::Probe => !self.probe_sent,
                ProgressState::Replicate => {
                    self.in_flight.len() < messages_max && self.in_flight_bytes < bytes_max
                }
            }
    }

    /// Records that a message up to `last` has left.
    pub(crate) fn sent(&mut self, last: Index, bytes: usize) {
        match self.state {
            ProgressState::Probe => self.probe_sent = true,
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
        self.next = self.next.max(self.matched.next());
        if self.state == ProgressState::Probe && durable >= self.matched {
            self.state = ProgressState::Replicate;
            self.next = self.matched.next();
            self.probe_sent = false;
            self.loading = false;
        }
        news
    }

    /// The peer refused a message that followed `prev`; `agreement` is where the logs could agree at the earliest.
    /// Returns false for an answer to something that is settled by now.
    pub(crate) fn rejected(&mut self, prev: Index, agreement: Index) -> bool {
        let stale = match self.state {
            ProgressState::Replicate => prev <= self.matched,
            ProgressState::Probe => prev != self.next.prev(),
        };
        if !stale {
            self.become_probe(agreement.next().min(prev));
        }
        !stale
    }

    /// A heartbeat was answered: the peer has `received` of this log. Where the same gap shows again and again although
    /// everything was sent, the rest was lost on the way and is sent anew.
    pub(crate) fn heard(&mut self, received: Index) {
        self.probe_sent = false;
        if self.state == ProgressState::Probe {
            return;
        }
        let missing = received < self.next.prev();
        self.quiet_replies = if missing && received <= self.received { self.quiet_replies + 1 } else { 0 };
        self.received = received;
        if self.quiet_replies >= QUIET_REPLIES_MAX {
            self.become_probe(self.matched.next());
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
        for _ in 0..QUIET_REPLIES_MAX - 1 {
            progress.heard(Index(0));
            assert_eq!(progress.state, ProgressState::Replicate);
        }
        progress.heard(Index(3));
        progress.heard(Index(5));
        assert_eq!(progress.state, ProgressState::Replicate, "received but not durable is not lost");
        progress.sent(Index(6), 100);
        for _ in 0..QUIET_REPLIES_MAX {
            progress.heard(Index(5));
        }
        assert_eq!((progress.state, progress.next), (ProgressState::Probe, Index(1)));
    }

    #[test]
    fn stale_rejections_change_nothing() {
        let mut progress = Progress::new(Index(10));
        assert!(!progress.rejected(Index(5), Index(2)), "not the probe that is out");
        assert!(progress.rejected(Index(9), Index(4)));
        assert_eq!(progress.next, Index(5));
        progress.accepted(Index(7));
        assert!(!progress.rejected(Index(7), Index(2)), "matched meanwhile");
        assert_eq!(progress.state, ProgressState::Replicate);
    }
}
