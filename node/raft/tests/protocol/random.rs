//! Thousands of short random lives of clusters of three and five.

use crate::chaos::{Chaos, FAULTS_END};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Schedules in a run without `RAFTQUEUE_RAFT_SECONDS`.
const SCHEDULES: u64 = 3_000;
const STEPS: usize = 600;

fn live(seed: u64, told: bool) -> Chaos {
    let mut chaos = Chaos::new(seed, if seed.is_multiple_of(2) { 3 } else { 5 });
    chaos.cluster.story = told.then(Vec::new);
    chaos
}

/// Runs one schedule. Returns what went wrong.
pub(crate) fn run(seed: u64) -> Result<(), String> {
    let mut chaos = live(seed, false);
    catch_unwind(AssertUnwindSafe(|| {
        chaos.rage(STEPS);
        chaos.heal_and_rest();
        chaos.refuses_when_not_leading();
    }))
    .map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// The story of a schedule that failed, around the end of its faults.
fn retell(seed: u64) -> String {
    let mut chaos = live(seed, true);
    chaos.cluster.show_messages = true;
    let _ = catch_unwind(AssertUnwindSafe(|| {
        chaos.rage(STEPS);
        chaos.heal_and_rest();
    }));
    let story = chaos.cluster.story.unwrap_or_default();
    let healed = story.iter().position(|line| line == FAULTS_END).unwrap_or(story.len());
    story[healed.saturating_sub(300)..(healed + 100).min(story.len())].join("\n")
}

fn check(seed: u64) {
    if let Err(why) = run(seed) {
        panic!("seed {seed}: {why}\n{}", retell(seed));
    }
}

/// `RAFTQUEUE_RAFT_SECONDS` makes it run for so long instead, from a seed of the moment.
#[test]
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a longer run is measured in wall time"
)]
fn random_schedules_keep_every_promise_and_come_to_rest() {
    match std::env::var("RAFTQUEUE_RAFT_SECONDS") {
        Ok(seconds) => {
            let budget = std::time::Duration::from_secs(seconds.parse().expect("a number of seconds"));
            let start = std::time::Instant::now();
            let first = u64::from(std::process::id()) << 32;
            let mut seeds = first..;
            while start.elapsed() < budget {
                check(seeds.next().expect("seeds do not end"));
            }
            println!("{} schedules", seeds.start - first);
        }
        Err(_) => (0..SCHEDULES).for_each(check),
    }
}

#[test]
fn one_seed_is_one_life() {
    for seed in 0..20 {
        let stories = [(); 2].map(|()| {
            let mut chaos = live(seed, true);
            chaos.cluster.show_messages = true;
            chaos.rage(STEPS);
            chaos.cluster.story
        });
        assert!(stories[0] == stories[1] && stories[0].is_some(), "seed {seed} has two lives");
    }
}
