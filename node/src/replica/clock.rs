//! Log time: the stamp that a leader writes into every entry.
//!
//! All time in the queue comes from these stamps, so one wrong clock must not end every lease or keep one for ever. A
//! leader knows the wall clocks of the other voters from their replies, and keeps its own within half a second of the
//! median. A stamp never goes back. If the clocks were set back, log time runs on at nine tenths of the monotonic rate
//! until they have caught up. So it never stands still, and a time span measured by it is at most a ninth longer.

use raftqueue_raft::NodeId;
use std::collections::BTreeMap;

/// How far a leader's own clock may lead or trail the median of the voters' clocks, in milliseconds.
const SKEW_MS_MAX: u64 = 500;

/// A moment as the shell sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never goes back; where it starts does not matter.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch, as this machine's clock says; may jump.
    pub wall_ms: u64,
}

/// The clocks of the group, as this node knows them.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Wall clock minus this node's monotonic clock, of each peer, as of its last reply.
    offsets: BTreeMap<NodeId, i128>,
    /// The last stamp that came from the clocks, and when that was. Log time runs on from here.
    base: (u64, u64),
    /// By how much the last stamp made here was ahead of the clocks.
    ahead_ms: u64,
}

impl Clock {
    /// A reply of `peer` carried its wall clock.
    pub(super) fn note_clock(&mut self, peer: NodeId, wall_ms: u64, now: Now) {
        self.offsets.insert(peer, i128::from(wall_ms) - i128::from(now.mono_ms));
    }

    /// An entry with this stamp is in the log.
    pub(super) fn passed(&mut self, stamp_ms: u64, now: Now) {
        if stamp_ms > self.running(now) {
            self.base = (stamp_ms, now.mono_ms);
        }
    }

    /// The stamp for an entry made now. `voters` are those of the configuration in force.
    pub(super) fn stamp(&mut self, own: NodeId, voters: impl Iterator<Item = NodeId>, now: Now) -> u64 {
        let mut clocks: Vec<u64> = voters
            .filter_map(|voter| {
                if voter == own {
                    return Some(now.wall_ms);
                }
                let clock = self.offsets.get(&voter)? + i128::from(now.mono_ms);
                Some(u64::try_from(clock.max(0)).unwrap_or(u64::MAX))
            })
            .collect();
        clocks.sort_unstable();
        let median = clocks.get(clocks.len().saturating_sub(1) / 2).copied().unwrap_or(now.wall_ms);
        let wall = now.wall_ms.clamp(median.saturating_sub(SKEW_MS_MAX), median.saturating_add(SKEW_MS_MAX));
        let running = self.running(now);
        if wall > running {
            self.base = (wall, now.mono_ms);
        }
        self.ahead_ms = running.saturating_sub(wall);
        wall.max(running)
    }

    /// By how much log time was ahead of the clocks when this node last made a stamp.
    pub(super) fn ahead_ms(&self) -> u64 {
        self.ahead_ms
    }

    /// Log time at nine tenths of the speed since the last stamp that came from a clock.
    fn running(&self, now: Now) -> u64 {
        let (stamp_ms, mono_ms) = self.base;
        let passed_ms = now.mono_ms.saturating_sub(mono_ms);
        stamp_ms.saturating_add(passed_ms - passed_ms / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn now(mono_ms: u64, wall_ms: u64) -> Now {
        Now { mono_ms, wall_ms }
    }

    fn stamp(clock: &mut Clock, at: Now) -> u64 {
        clock.stamp(NODES[0], NODES.into_iter(), at)
    }

    #[test]
    fn rule_5_1_a_clock_an_hour_ahead_on_a_minority_moves_time_by_half_a_second() {
        const HOUR: u64 = 3_600_000;
        // The leader's own.
        let mut clock = Clock::default();
        clock.note_clock(NODES[1], 1_000_000, now(0, 0));
        clock.note_clock(NODES[2], 1_000_010, now(0, 0));
        assert_eq!(stamp(&mut clock, now(0, 1_000_000 + HOUR)), 1_000_510);
        // A follower's.
        let mut clock = Clock::default();
        clock.note_clock(NODES[1], 1_000_000 + HOUR, now(0, 0));
        clock.note_clock(NODES[2], 1_000_010, now(0, 0));
        assert_eq!(stamp(&mut clock, now(0, 1_000_000)), 1_000_000);
        // Behind.
        let mut clock = Clock::default();
        clock.note_clock(NODES[1], 10_000_000, now(0, 0));
        clock.note_clock(NODES[2], 10_000_010, now(0, 0));
        assert_eq!(stamp(&mut clock, now(0, 10_000_000 - HOUR)), 9_999_500);
    }

    #[test]
    fn rule_5_1_of_two_known_clocks_the_lower_one_is_the_median() {
        let mut clock = Clock::default();
        clock.note_clock(NODES[1], 5_000, now(0, 0));
        assert_eq!(stamp(&mut clock, now(0, 9_000)), 5_500);
    }

    #[test]
    fn rule_5_1_where_clocks_were_set_back_what_lasts_ten_seconds_lasts_at_most_a_ninth_more() {
        for clocks in [&NODES[..1], &NODES[..]] {
            let mut clock = Clock::default();
            let mut at = |mono_ms, wall_ms| {
                let now = now(mono_ms, wall_ms);
                clocks[1..].iter().for_each(|node| clock.note_clock(*node, wall_ms, now));
                (clock.stamp(NODES[0], clocks.iter().copied(), now), clock.ahead_ms())
            };
            assert_eq!(at(0, 9_000_000), (9_000_000, 0));
            // All of them at once, by an hour.
            assert_eq!(at(10_000, 5_410_000), (9_009_000, 3_599_000), "{} clocks", clocks.len());
            assert_eq!(at(11_112, 5_411_112), (9_010_001, 3_598_889));
            // The gap closes at a tenth of the rate, and then the clocks are followed again.
            assert_eq!(at(35_990_000, 41_390_000), (41_391_000, 1_000));
            assert_eq!(at(36_001_000, 41_401_000), (41_401_000, 0));
            assert_eq!(at(36_002_000, 41_402_000), (41_402_000, 0));
        }
    }

    #[test]
    fn rule_5_1_a_clock_set_back_slows_time_but_never_stops_it() {
        let mut clock = Clock::default();
        let alone = |clock: &mut Clock, at| clock.stamp(NODES[0], NODES[..1].iter().copied(), at);
        assert_eq!(alone(&mut clock, now(100, 50_000)), 50_000);
        let stamps: Vec<u64> = (1..=1_000).map(|ms| alone(&mut clock, now(100 + ms, 10_000 + ms))).collect();
        assert!(
            stamps.is_sorted() && stamps[999] == 50_900,
            "a second of stamps every millisecond: {}",
            stamps[999]
        );
        // The clock is set right again and log time follows it at once.
        assert_eq!(alone(&mut clock, now(1_200, 51_300)), 51_300);
    }

    #[test]
    fn rule_5_1_a_new_leader_goes_on_from_the_last_stamp_in_the_log() {
        let mut clock = Clock::default();
        clock.passed(80_000, now(10, 0));
        assert_eq!(stamp(&mut clock, now(30, 70_000)), 80_018);
    }
}
