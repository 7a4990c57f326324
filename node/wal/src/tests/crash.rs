//! A crash at every call of short lives, in every way that the fake disk knows, once and twice.

use super::life::*;
use super::support::*;
use crate::disk::fake::{FakeDisk, Operation, Refusal};
use std::io;

/// Power cuts tried per point by default.
const SEEDS: u64 = 3;

/// Power cuts tried per point. `RAFTQUEUE_WAL_SEEDS` asks for more; with more, every point is crashed at twice.
fn seeds() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a longer budget for this test, asked for by hand")]
    let asked = std::env::var("RAFTQUEUE_WAL_SEEDS");
    asked.ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

fn append(term: u64, vote: u64, truncate_from: u64, range: std::ops::Range<u64>, size: usize) -> Step {
    Step::Append {
        hard_state: hard(term, vote),
        truncate_from: (truncate_from != 0).then_some(truncate_from),
        entries: entries(range, term, size),
    }
}

/// Short lives that together use everything: small and large batches, several records in one, truncations, changes of
/// the hard state with and without entries, proofs, roll-overs, a record larger than a segment, releases, restarts.
fn lives() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        (
            "appends",
            vec![
                append(1, 7, 0, 1..1, 0),
                Step::Upkeep,
                append(1, 7, 0, 1..4, 700),
                append(1, 7, 0, 4..6, 10),
                Step::Prove,
                append(2, 0, 0, 6..7, 1500),
                append(2, 9, 0, 7..7, 0),
                Step::Upkeep,
            ],
        ),
        (
            "truncations",
            vec![
                append(1, 7, 0, 1..6, 200),
                append(2, 0, 4, 4..6, 300),
                Step::Upkeep,
                append(3, 0, 6, 6..8, 900),
                append(4, 0, 1, 1..3, 100),
                Step::Reopen,
                append(5, 0, 2, 2..2, 0),
                append(5, 0, 0, 2..4, 50),
            ],
        ),
        (
            "roll-overs",
            vec![
                append(1, 7, 0, 1..4, 3000),
                Step::Upkeep,
                append(1, 7, 0, 4..7, 3000),
                Step::Upkeep,
                append(1, 7, 6, 6..8, 5000),
                append(2, 7, 0, 8..9, 20_000),
                append(2, 7, 0, 9..10, 10),
                Step::Release(8),
                append(2, 7, 0, 10..14, 4000),
                Step::Upkeep,
                append(2, 7, 0, 14..16, 5000),
                Step::Release(14),
                append(2, 7, 0, 16..19, 3000),
            ],
        ),
        (
            "restarts",
            vec![
                append(1, 7, 0, 1..3, 100),
                Step::Reopen,
                Step::Reopen,
                append(1, 7, 0, 3..5, 600),
                Step::Prove,
                Step::Reopen,
                append(2, 0, 0, 5..8, 1000),
                Step::Release(5),
                Step::Reopen,
                append(2, 8, 0, 8..9, 100),
            ],
        ),
    ]
}

/// The disks that a crash may leave: the process gone, or the power cut in several ways.
fn aftermaths(crashed: &FakeDisk) -> Vec<(String, FakeDisk)> {
    let mut disks =
        vec![("process".to_owned(), crashed.deep_clone()), ("worst cut".to_owned(), crashed.durable_view())];
    for seed in 0..seeds() {
        let disk = crashed.deep_clone();
        disk.power_cut(seed * 7919 + crashed.calls());
        disks.push((format!("cut {seed}"), disk));
    }
    disks
}

fn must_recover(disk: &FakeDisk, entropy: u64, end: &End, context: &dyn Fn() -> String) -> End {
    match recover_and_check(disk, entropy, end, context) {
        Ok(end) => end,
        Err(error) => panic!("{}: {error}", context()),
    }
}

/// After a recovery: the log goes on, a power cut takes nothing of what was reported, and it goes on again.
fn must_go_on(disk: &FakeDisk, end: &End, context: &dyn Fn() -> String) {
    let worst = disk.durable_view();
    must_recover(&worst, 21, end, &|| format!("{}, then a power cut", context()));
    let last = end.acknowledged.log.len() as u64;
    let mut hard_state = end.acknowledged.hard_state;
    hard_state.term = hard_state.term.next();
    let step =
        Step::Append { hard_state, truncate_from: None, entries: entries(last + 1..last + 3, 90, 600) };
    let more = live(disk, &[step, Step::Upkeep], &end.acknowledged);
    assert!(more.is_done, "{}", context());
    must_recover(&disk.durable_view(), 22, &more, &|| format!("{}, then appended", context()));
}

#[test]
fn a_crash_at_every_call_loses_nothing_and_invents_nothing() {
    for (name, steps) in lives() {
        let whole = formatted(1);
        let before = whole.calls();
        assert!(live(&whole, &steps, &Model::default()).is_done, "{name}");
        let calls = whole.calls() - before;
        for call in 1..=calls {
            let disk = formatted(call);
            disk.crash_at_call(call);
            let end = live(&disk, &steps, &Model::default());
            for (how, disk) in aftermaths(&disk) {
                let context = || format!("{name}, crash at call {call} of {calls}, {how}");
                let reported = must_recover(&disk, 20, &end, &context);
                must_go_on(&disk, &reported, &context);
            }
        }
    }
}

#[test]
fn a_crash_at_every_call_of_a_recovery_loses_nothing_and_invents_nothing() {
    for (name, steps) in lives() {
        let whole = formatted(1);
        let before = whole.calls();
        live(&whole, &steps, &Model::default());
        let calls = whole.calls() - before;
        // Every fifth point by default; each comes with every point of the recovery that follows.
        for call in (1..=calls).step_by(if seeds() > SEEDS { 1 } else { 5 }) {
            let disk = formatted(call);
            disk.crash_at_call(call);
            let end = live(&disk, &steps, &Model::default());
            for (how, first) in aftermaths(&disk).into_iter().take(4) {
                let probe = first.deep_clone();
                let before = probe.calls();
                open(&probe, 20).unwrap();
                for second in 1..=probe.calls() - before {
                    let disk = first.deep_clone();
                    disk.crash_at_call(second);
                    open(&disk, 20).err().expect("the crash");
                    let cut = disk.deep_clone();
                    cut.power_cut(call * 1000 + second);
                    for (then, disk) in
                        [("process", disk.deep_clone()), ("cut", cut), ("worst", disk.durable_view())]
                    {
                        let context = || {
                            format!(
                                "{name}, crash at call {call} of {calls}, {how}, again at call {second}, {then}"
                            )
                        };
                        let reported = must_recover(&disk, 23, &end, &context);
                        must_recover(&disk.durable_view(), 24, &reported, &context);
                    }
                }
            }
        }
    }
}

#[test]
fn rule_2_7_a_failed_call_poisons_and_a_restart_trusts_nothing_cached() {
    for operation in [Operation::Sync, Operation::Write, Operation::SyncDir, Operation::Rename] {
        for (name, steps) in lives() {
            for skip in 0.. {
                let disk = formatted(skip);
                let refusal = Refusal {
                    operation,
                    file_prefix: String::new(),
                    skip,
                    count: 1,
                    error: io::ErrorKind::Other,
                };
                disk.inject(refusal);
                let before = disk.calls_of(operation);
                let end = live(&disk, &steps, &Model::default());
                let is_unused = disk.calls_of(operation) - before <= skip;
                // The process ends by itself and comes back: the cache still shows what the medium lost.
                disk.crash_process();
                let context = || format!("{name}, {operation:?} {skip} refused");
                let reported = must_recover(&disk, 20, &end, &context);
                must_go_on(&disk, &reported, &context);
                if is_unused {
                    break;
                }
            }
        }
    }
}

#[test]
fn rule_2_7_a_full_disk_undoes_the_batch_and_the_same_again_succeeds() {
    for (name, steps) in lives() {
        for operation in
            [Operation::Write, Operation::Sync, Operation::Allocate, Operation::Create, Operation::Rename]
        {
            for skip in 0.. {
                let disk = formatted(skip);
                let (mut wal, _) = open(&disk, 1).unwrap();
                let before = disk.calls_of(operation);
                disk.inject(Refusal {
                    operation,
                    file_prefix: String::new(),
                    skip,
                    count: 1,
                    error: io::ErrorKind::StorageFull,
                });
                let mut model = Model::default();
                for step in steps.iter().filter(|step| !matches!(step, Step::Reopen)) {
                    let asked = model.after(step);
                    if take(&mut wal, step).is_err() {
                        let end = End { acknowledged: model.clone(), asked: asked.clone(), is_done: false };
                        let context = || format!("{name}, {operation:?} {skip}: no space");
                        for (_, disk) in aftermaths(&disk) {
                            must_recover(&disk, 20, &end, &context);
                        }
                        take(&mut wal, step).unwrap_or_else(|error| panic!("{}: {error}", context()));
                    }
                    model = asked;
                }
                let end = End { acknowledged: model.clone(), asked: model, is_done: true };
                drop(wal);
                must_recover(&disk.durable_view(), 20, &end, &|| format!("{name}, {operation:?} {skip}"));
                if disk.calls_of(operation) - before <= skip {
                    break;
                }
            }
        }
    }
}
