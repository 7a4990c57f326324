//! How long entries take: from proposal to commit on the leader, from commit to apply on every node.
//!
//! The replica has no clock. So after each turn of its loop the driver tells how far the log has come, and when that
//! turn began. Entries that moved on in one turn share one mark. Nothing is measured for single messages, and
//! [`MARKS_MAX`] bounds what is remembered.

use crate::replica::Replica;
use prometheus::{Histogram, Registry};
use raftqueue_raft::Index;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Marks kept of each kind. If more are needed, entries count as begun with those before them.
const MARKS_MAX: usize = 4_096;

/// Where a node's log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The first entry of the own term, while this node leads.
    led_from: Option<Index>,
    last: Index,
    commit: Index,
    applied: Index,
}

impl Progress {
    pub(crate) fn of(replica: &Replica) -> Self {
        let raft = replica.raft();
        Self {
            led_from: raft.term_start(),
            last: raft.last_index(),
            commit: raft.commit(),
            applied: replica.applied(),
        }
    }
}

/// Histograms of what [`EntryTimes`] measures.
#[derive(Debug)]
pub(super) struct Series {
    propose_to_commit: Histogram,
    commit_to_apply: Histogram,
}

impl Series {
    pub(super) fn new(registry: &Registry) -> Self {
        let buckets = || prometheus::exponential_buckets(0.000_1, 2.0, 18).expect("valid buckets");
        Self {
            propose_to_commit: super::histogram(
                registry,
                "raftqueue_raft_propose_to_commit_seconds",
                "Time from proposing an entry to knowing it committed, on the leader that proposed it.",
                buckets(),
            ),
            commit_to_apply: super::histogram(
                registry,
                "raftqueue_raft_commit_to_apply_seconds",
                "Time from knowing an entry committed to having applied it.",
                buckets(),
            ),
        }
    }
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct EntryTimes {
    led_from: Option<Index>,
    proposed: Marks,
    committed: Marks,
}

impl EntryTimes {
    /// Measures entries after `last`: those that a start finds are only applied again.
    pub(crate) fn new(last: Index) -> Self {
        Self { led_from: None, proposed: Marks::after(last), committed: Marks::after(last) }
    }

    /// The log stands like this after a turn that began at `begun` and ends now.
    pub(super) fn turned(&mut self, now: Progress, begun: Instant, series: &Series) {
        if self.led_from != now.led_from {
            // Another leader decides on these entries now. This node does not measure them.
            self.led_from = now.led_from;
            let before = now.led_from.map_or(now.last.0, |first| first.0.saturating_sub(1));
            self.proposed = Marks::after(Index(before));
        }
        if now.led_from.is_some() {
            self.proposed.extend(now.last, begun);
        }
        self.proposed.pass(now.commit, begun, &series.propose_to_commit);
        self.committed.extend(now.commit, begun);
        if self.committed.holds(now.applied) {
            self.committed.pass(now.applied, Instant::now(), &series.commit_to_apply);
        }
    }
}

/// Entries that are on their way, in runs that began at the same time.
#[derive(Debug)]
struct Marks {
    /// The last entry that was passed.
    passed: u64,
    /// The last entry of each run, and when the run began; both rise.
    runs: VecDeque<(u64, Instant)>,
}

impl Marks {
    fn after(last: Index) -> Self {
        Self { passed: last.0, runs: VecDeque::new() }
    }

    /// True if there is something to pass up to `index`.
    fn holds(&self, index: Index) -> bool {
        !self.runs.is_empty() && self.passed < index.0
    }

    /// Entries up to `last` have begun, if they had not before.
    fn extend(&mut self, last: Index, at: Instant) {
        let before = self.runs.back().map_or(self.passed, |run| run.0);
        if last.0 <= before {
            return;
        }
        let has_room = self.runs.len() < MARKS_MAX;
        match self.runs.back_mut() {
            Some(run) if run.1 == at || !has_room => run.0 = last.0,
            _ => self.runs.push_back((last.0, at)),
        }
    }

    /// Entries up to `index` are through.
    fn pass(&mut self, index: Index, at: Instant, seconds: &Histogram) {
        while self.passed < index.0
            && let Some(&(last, begun)) = self.runs.front()
        {
            let until = last.min(index.0);
            let took = at.saturating_duration_since(begun);
            for _ in self.passed..until {
                seconds.observe(Duration::as_secs_f64(&took));
            }
            self.passed = until;
            if until == last {
                self.runs.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader from entry 11 on, whose clock is turned by hand.
    struct Bench {
        times: EntryTimes,
        series: Series,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let series = Series::new(&Registry::new());
            Self { times: EntryTimes::new(Index(10)), series, start: Instant::now() }
        }

        fn turn(&mut self, at_ms: u64, led_from: Option<u64>, [last, commit, applied]: [u64; 3]) {
            let led_from = led_from.map(Index);
            let now =
                Progress { led_from, last: Index(last), commit: Index(commit), applied: Index(applied) };
            self.times.turned(now, self.start + Duration::from_millis(at_ms), &self.series);
        }

        /// Entries and milliseconds from proposal to commit so far, and entries from commit to apply.
        fn seen(&self) -> (u64, f64, u64) {
            let Series { propose_to_commit, commit_to_apply } = &self.series;
            let ms = (propose_to_commit.get_sample_sum() * 1_000.0).round();
            (propose_to_commit.get_sample_count(), ms, commit_to_apply.get_sample_count())
        }
    }

    #[test]
    fn every_entry_is_measured_once() {
        let mut bench = Bench::new();
        bench.turn(0, None, [10, 0, 0]);
        bench.turn(100, Some(11), [13, 0, 0]);
        bench.turn(105, Some(11), [14, 12, 8]);
        assert_eq!(
            bench.seen(),
            (2, 10.0, 0),
            "entries 11 and 12 took 5 ms; 1 to 10 are from before the start"
        );
        bench.turn(109, Some(11), [14, 14, 11]);
        assert_eq!(bench.seen(), (4, 23.0, 1), "13 took 9 ms, 14 took 4 ms, and 11 is applied");
        bench.turn(110, Some(11), [14, 14, 14]);
        bench.turn(120, Some(11), [14, 14, 14]);
        assert_eq!(bench.seen(), (4, 23.0, 4));
    }

    #[test]
    fn what_a_lost_leadership_had_under_way_is_forgotten() {
        let mut bench = Bench::new();
        bench.turn(0, Some(11), [15, 10, 10]);
        bench.turn(50, None, [13, 10, 10]);
        bench.turn(60, None, [13, 13, 13]);
        assert_eq!(bench.seen(), (0, 0.0, 3), "a follower measures only what it applies");
        // It leads again. Entries of other leaders are not its own.
        bench.turn(100, Some(14), [15, 13, 13]);
        bench.turn(107, Some(14), [15, 15, 15]);
        assert_eq!(bench.seen(), (2, 14.0, 5));
    }

    #[test]
    fn marks_are_bounded() {
        let mut bench = Bench::new();
        let entries = 3 * MARKS_MAX as u64;
        for n in 1..=entries {
            bench.turn(n, Some(11), [10 + n, 10, 10]);
        }
        assert_eq!(bench.times.proposed.runs.len(), MARKS_MAX);
        bench.turn(entries + 1, Some(11), [10 + entries; 3]);
        assert_eq!((bench.seen().0, bench.seen().2), (entries, entries));
    }
}
