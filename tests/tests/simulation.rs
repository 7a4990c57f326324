//! Lives of whole clusters, many seeds; and deliberate bugs that these lives must find.
//!
//! - `RAFTQUEUE_SIM_SEEDS=n`: so many seeds; `RAFTQUEUE_SIM_SECONDS=n`: as many as fit into so many seconds;
//! - `RAFTQUEUE_SIM_FIRST=n`: the first of them;
//! - `RAFTQUEUE_SIM_SEED=n`: this one only, with `RAFTQUEUE_SIM_TRACE=1` for all that happens in it.

use raftqueue_node::replica::mutants as replica_mutants;
use raftqueue_raft::mutants as raft_mutants;
use raftqueue_tests::sim::{self, Coverage, Summary, Telling};
use std::time::{Duration, Instant};

/// Seeds of the default run.
const SEEDS: u64 = 300;
/// The first of them.
const FIRST: u64 = 1_300;
/// The default run goes on up to here until every kind of fault and every rare branch was met: a change of the product makes all
/// lives others, and what is met once in some hundred of them may not be met in these.
const SEEDS_MAX: u64 = 3 * SEEDS;
/// Seeds in which a deliberate bug must show.
const MUTANT_SEEDS_MAX: u64 = 400;

#[allow(clippy::disallowed_methods, reason = "a test has no other way to be told how long it may take")]
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(format!("RAFTQUEUE_SIM_{name}")).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("RAFTQUEUE_SIM_{name} is a number, not `{text}`")))
}

#[test]
fn no_seed_breaks_a_rule() {
    if let Some(seed) = number("SEED") {
        let telling = if number("TRACE").is_some() { Telling::Aloud } else { Telling::LastLines };
        match sim::live_telling(seed, telling) {
            Ok(life) => return println!("seed {seed} ends well\n{}\n{}", life.summary, life.coverage),
            Err(broken) => panic!("{broken}"),
        }
    }
    let begun = Instant::now();
    let seconds = number("SECONDS").map(Duration::from_secs);
    let count = number("SEEDS").unwrap_or(if seconds.is_some() { u64::MAX } else { SEEDS });
    let first = number("FIRST").unwrap_or(FIRST);
    let (mut sum, mut coverage) = (Summary::default(), Coverage::default());
    for seed in first.. {
        let is_enough = sum.seeds >= count && (count < SEEDS || coverage.unseen().is_empty());
        let is_late = seconds.is_some_and(|seconds| begun.elapsed() > seconds);
        if is_enough || is_late || sum.seeds >= count.max(SEEDS_MAX) {
            break;
        }
        match sim::live(seed) {
            Ok(life) => {
                let Summary { events, leader_crashes, lossy_cuts, .. } = life.summary;
                assert!(
                    sim::Plan::new(seed).is_reckless
                        || events >= 5_000 && leader_crashes > 0 && lossy_cuts > 0,
                    "seed {seed} is too quiet a life:\n{}",
                    life.summary
                );
                sum.add(&life.summary);
                coverage.add(&life.coverage);
            }
            Err(broken) => {
                println!("{broken}\nnow it is made smaller");
                let shrunk = sim::shrink(seed).expect("one seed is one life");
                panic!("\n{shrunk}\nthe whole life: RAFTQUEUE_SIM_SEED={seed} RAFTQUEUE_SIM_TRACE=1")
            }
        }
    }
    println!("{sum}\n{coverage}  in {:.1} s", begun.elapsed().as_secs_f64());
    // A rule that was never put to the test is not known to hold.
    if sum.seeds >= SEEDS {
        assert_eq!(coverage.unseen(), [""; 0], "never met in {} seeds", sum.seeds);
    }
}

/// Lives that once broke, each with what it showed then.
const FOUND: &[(u64, &str)] = &[
    (
        3_011_413,
        "the checker held a promise of an earlier term against a log that had moved on in the same turn",
    ),
    (3_001_724, "the checker gave a node too little time to take 600 entries one by one"),
    (
        6_102_061,
        "a producer repeated under a new session of its name what it had published under the one it closed",
    ),
    (
        10_004_495,
        "the checker asked a node that had slept through its election for what the next leader had committed",
    ),
    (
        20_002_257,
        "the books of the clients did not know that a pop is forgotten when a majority of clocks jumps by an hour",
    ),
    (
        30_004_982,
        "the places of messages that a kept pop let go stayed in memory until the topic was used again",
    ),
    (40_004_096, "a disk went on stalling for seconds after all faults had stopped"),
    (61_015_415, "the simulator expected haste of a node that still had a hundred entries to write"),
    (
        70_024_040,
        "a life that loses its quorum forgot the receive that its client gave up and nobody answered",
    ),
    (70_024_295, "a life that loses its quorum forgot the pop that its client gave up and nobody answered"),
    (70_025_991, "the simulator let a process live whose disk had crashed in the call for free space"),
    (
        83_003_599,
        "the simulator held the end of all that an hour's jump of the clock ended against a bound without it",
    ),
    (7_000_891, "the simulator waited for a leader to strike where the only copy of an entry had rotted"),
    (
        82_894,
        "the simulator asked a leader that was on its way out by a change from before all faults stopped",
    ),
    (
        90_318,
        "a torn record that a recycled segment completed with a command of its past life passed for whole",
    ),
    (
        90_873,
        "a node whose log was cut off behind a start waited for what was gone before it took snapshots of an idle queue",
    ),
    (1_603, "a leader that lacked messages gave no snapshot to the only other node, which had them"),
    (1_899, "a node that lost the only configuration that it had found nobody to ask in the harness"),
];

#[test]
fn what_was_found_stays_mended() {
    for (seed, was) in FOUND {
        if let Err(broken) = sim::live(*seed) {
            panic!("{broken}\nthis life once showed that {was}");
        }
    }
}

#[test]
fn one_seed_is_one_life() {
    for seed in [3, 1_000_003] {
        let (one, other) = (sim::live(seed), sim::live(seed));
        let (one, other) = (one.unwrap_or_else(|b| panic!("{b}")), other.unwrap_or_else(|b| panic!("{b}")));
        assert_eq!(one, other, "two runs of seed {seed} differ");
    }
    let (one, other) = (sim::live(4).map(|life| life.hash), sim::live(5).map(|life| life.hash));
    assert_ne!(one.ok(), other.ok(), "two seeds are two lives");
}

#[test]
fn one_seed_is_one_story() {
    let (one, other) = (sim::story(7), sim::story(7));
    let apart = one.iter().zip(&other).find(|(one, other)| one != other);
    assert_eq!(apart, None, "two stories of one seed part here");
    assert!(one.len() == other.len() && one.len() > 1_000, "{} and {} lines", one.len(), other.len());
}

#[test]
fn a_broken_life_is_made_smaller() {
    raft_mutants::activate(Some(raft_mutants::Mutant::CountSelfEarly));
    let seed = (0..MUTANT_SEEDS_MAX).find(|seed| sim::live_telling(*seed, Telling::Silent).is_err());
    let whole = sim::live(seed.expect("it is noticed")).expect_err("one seed is one life");
    let shrunk = sim::shrink(whole.seed).expect("one seed is one life");
    raft_mutants::activate(None);
    println!("{shrunk}");
    assert!(shrunk.left_out.kinds.len() > 15, "few kinds of faults matter: {shrunk}");
    let span = shrunk.left_out.from.unwrap_or(whole.when) - shrunk.left_out.before;
    assert!(span < whole.when, "not all of the time matters: {shrunk}");
    assert!(!shrunk.broken.story.is_empty() && shrunk.broken.seed == whole.seed);
    // Without the bug the same seed ends well.
    assert!(sim::live(whole.seed).is_ok());
}

/// Breaks a rule in every node and counts the seeds until somebody notices.
fn is_noticed(what: &str, activate: impl Fn(bool)) {
    let found = (0..MUTANT_SEEDS_MAX).find_map(|seed| {
        activate(true);
        let outcome = sim::live_telling(seed, Telling::Silent);
        activate(false);
        outcome.err().map(|broken| (seed + 1, broken.rule))
    });
    match found {
        Some((seeds, rule)) => println!("{what}: noticed after {seeds} seeds: {rule}"),
        None => panic!("{what}: not noticed in {MUTANT_SEEDS_MAX} seeds"),
    }
}

fn raft_bug(mutant: raft_mutants::Mutant) {
    is_noticed(&format!("{mutant:?}"), |active| raft_mutants::activate(active.then_some(mutant)));
}

#[test]
fn a_vote_that_is_not_synced_is_noticed() {
    raft_bug(raft_mutants::Mutant::SkipVoteSync);
}

#[test]
fn a_second_vote_in_a_term_is_noticed() {
    raft_bug(raft_mutants::Mutant::VoteTwice);
}

#[test]
fn a_leader_that_counts_itself_too_early_is_noticed() {
    raft_bug(raft_mutants::Mutant::CountSelfEarly);
}

#[test]
fn entries_of_old_terms_committed_by_counting_are_noticed() {
    raft_bug(raft_mutants::Mutant::CommitOldTerm);
}

#[test]
fn a_durable_index_that_outlives_a_truncation_is_noticed() {
    raft_bug(raft_mutants::Mutant::StaleDurableAfterTruncation);
}

/// If no majority has a good disk, a leader must stop. Nothing else shows that it leads on.
#[test]
fn a_leader_that_leads_on_without_a_quorum_is_noticed() {
    raft_mutants::activate(Some(raft_mutants::Mutant::NoCheckQuorum));
    let mut reckless = (0..10 * MUTANT_SEEDS_MAX).filter(|seed| sim::Plan::new(*seed).is_reckless);
    let broken = reckless.find_map(|seed| {
        let broken = sim::live_telling(seed, Telling::Silent).err()?;
        broken.rule.contains("no majority has a good disk").then_some(broken)
    });
    raft_mutants::activate(None);
    println!("{}", broken.expect("a leader of nobody is noticed"));
}

#[test]
fn a_joint_configuration_that_only_the_new_voters_decide_is_noticed() {
    raft_bug(raft_mutants::Mutant::IgnoreOutgoing);
}

#[test]
fn a_configuration_that_outlives_its_truncation_is_noticed() {
    raft_bug(raft_mutants::Mutant::KeepTruncatedConfiguration);
}

#[test]
fn a_read_that_asks_no_quorum_is_noticed() {
    raft_bug(raft_mutants::Mutant::ReadWithoutQuorum);
}

#[test]
fn a_peer_that_is_never_asked_again_is_noticed() {
    raft_bug(raft_mutants::Mutant::NeverAskAgain);
}

#[test]
fn a_peer_that_waits_for_an_old_load_is_noticed() {
    raft_bug(raft_mutants::Mutant::WaitForOldLoad);
}

fn replica_bug(mutant: replica_mutants::Mutant) {
    is_noticed(&format!("{mutant:?}"), |active| replica_mutants::activate(active.then_some(mutant)));
}

#[test]
fn a_publish_acknowledged_before_it_is_applied_is_noticed() {
    replica_bug(replica_mutants::Mutant::AcknowledgeBeforeApply);
}

#[test]
fn places_that_stay_in_memory_for_each_message_are_noticed() {
    replica_bug(replica_mutants::Mutant::KeepFreshBlocks);
}

#[test]
fn dead_messages_that_are_looked_at_again_and_again_are_noticed() {
    replica_bug(replica_mutants::Mutant::LookAgainAtDead);
}

#[test]
fn acknowledged_messages_that_are_looked_at_again_and_again_are_noticed() {
    replica_bug(replica_mutants::Mutant::LookAgainAtGone);
}

#[test]
fn a_message_that_keeps_what_came_after_it_is_noticed() {
    replica_bug(replica_mutants::Mutant::PinByOldest);
}

#[test]
fn a_start_that_reads_all_of_the_log_is_noticed() {
    replica_bug(replica_mutants::Mutant::ReadEveryMeta);
}
