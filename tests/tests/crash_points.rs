//! A crash at every call to a disk of short lives of whole clusters.
//!
//! - `RAFTQUEUE_SIM_SECONDS=n`: other lives too, as many as fit into so many seconds; `RAFTQUEUE_SIM_FIRST=n`: the first.

use raftqueue_raft::mutants as raft_mutants;
use raftqueue_tests::sim::{self, Enumerated, History};
use std::time::{Duration, Instant};

#[allow(clippy::disallowed_methods, reason = "a test has no other way to be told how long it may take")]
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(format!("RAFTQUEUE_SIM_{name}")).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("RAFTQUEUE_SIM_{name} is a number, not `{text}`")))
}

fn crash_everywhere(history: History) {
    let begun = Instant::now();
    let seconds = number("SECONDS").map(Duration::from_secs);
    let first = number("FIRST").unwrap_or(0);
    for seed in first.. {
        let goes_on = || seconds.is_none_or(|seconds| begun.elapsed() < seconds);
        match sim::crash_at_every_call(history, seed, goes_on) {
            Ok(done) => {
                println!("{history:?}, seed {seed}: {done}");
                println!("  in {:.1} s", begun.elapsed().as_secs_f64());
                if seconds.is_none() {
                    expect_much_of(history, &done);
                }
            }
            Err(broken) => panic!("{broken}"),
        }
        if seconds.is_none_or(|seconds| begun.elapsed() > seconds) {
            return;
        }
    }
}

/// A crash that hits nothing shows nothing.
fn expect_much_of(history: History, done: &Enumerated) {
    let (points, summary): (u64, _) = (done.calls.iter().sum(), &done.summary);
    assert_eq!(done.lives, points * sim::ways(1).count() as u64, "every call is met in every way");
    assert!(done.calls.iter().all(|calls| *calls > 50), "{done}");
    assert!(summary.leader_crashes > 100 && summary.lossy_cuts > 100 && summary.all_down > 100, "{done}");
    assert!(history != History::CutOff || summary.entries_cut > 1_000, "{done}");
}

#[test]
fn a_crash_at_every_io_point_around_a_hand_over_loses_nothing() {
    crash_everywhere(History::HandOver);
}

#[test]
fn a_crash_at_every_io_point_while_a_leader_is_cut_off_loses_nothing() {
    crash_everywhere(History::CutOff);
}

/// A bug that the calm life does not show: it takes a crash at the right moment.
#[test]
fn a_vote_for_a_shorter_log_is_noticed_by_a_crash() {
    let mutant = raft_mutants::Mutant::VoteForShorterLog;
    raft_mutants::activate(Some(mutant));
    let outcome = sim::crash_at_every_call(History::HandOver, 0, || true);
    raft_mutants::activate(None);
    let broken = outcome.expect_err("a member with a shorter log leads, and overwrites what was committed");
    println!("{mutant:?}: {}", broken.rule);
    assert!(broken.rule.contains("crash inside call"), "{broken}");
}
