//! How long nobody leads after a leader's process died.

use crate::cluster::Cluster;
use raftqueue_raft::{Event, NodeId, Settings};

const SEEDS: u64 = 300;

/// Ticks until somebody leads again, with the settings that the shell uses, an ideal network and ideal disks.
fn ticks_without_leader(seed: u64, voters: u64, hints: bool) -> u32 {
    let mut cluster = Cluster::new(seed);
    cluster.template = Settings::new(NodeId(1), seed);
    cluster.add_members(&(1..=voters).collect::<Vec<_>>(), &[]);
    while cluster.leaders().is_empty() {
        cluster.run_tick();
    }
    for _ in 0..cluster.template.election_ticks {
        cluster.run_tick();
    }
    let leader = cluster.leaders()[0];
    cluster.crash(leader, 0);
    for id in cluster.live() {
        if hints {
            cluster.step(id, Event::PeerGone(leader));
        }
    }
    for ticks in 0..20 * cluster.template.election_ticks {
        if !cluster.leaders().is_empty() {
            return ticks;
        }
        cluster.run_tick();
    }
    panic!("seed {seed}: nobody leads");
}

#[test]
fn a_leader_whose_death_is_seen_is_replaced_within_a_quarter_of_a_timeout() {
    let timeout = Settings::new(NodeId(1), 0).election_ticks;
    for (seed, voters) in (0..SEEDS).flat_map(|seed| [(seed, 3), (seed, 5)]) {
        let ticks = ticks_without_leader(seed, voters, true);
        assert!(ticks <= timeout / 4 + 1, "seed {seed}, {voters} voters: {ticks} ticks");
    }
}

#[test]
fn a_leader_that_falls_silent_is_replaced_within_two_timeouts() {
    let timeout = Settings::new(NodeId(1), 0).election_ticks;
    for (seed, voters) in (0..SEEDS).flat_map(|seed| [(seed, 3), (seed, 5)]) {
        let ticks = ticks_without_leader(seed, voters, false);
        assert!(ticks <= 2 * timeout, "seed {seed}, {voters} voters: {ticks} ticks");
    }
}
