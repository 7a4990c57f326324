//! Appends, truncations, releases and restarts at random, against a list in memory.

use super::life::*;
use super::support::*;
use proptest::prelude::*;
use raftqueue_raft::{Index, Term};

#[derive(Clone, Debug)]
enum Action {
    Append { count: u64, size: usize, term_up: u64 },
    Truncate { back: u64, count: u64, size: usize },
    Vote,
    Prove,
    Upkeep,
    Release { keep: u64 },
    Reopen,
    PowerCut,
}

fn action() -> impl Strategy<Value = Action> {
    let size = prop_oneof![Just(0_usize), 1..2000_usize, Just(20_000_usize)];
    prop_oneof![
        8 => (0..6_u64, size.clone(), 0..2_u64)
            .prop_map(|(count, size, term_up)| Action::Append { count, size, term_up }),
        2 => (0..12_u64, 0..4_u64, size).prop_map(|(back, count, size)| Action::Truncate { back, count, size }),
        1 => Just(Action::Vote),
        1 => Just(Action::Prove),
        3 => Just(Action::Upkeep),
        2 => (0..15_u64).prop_map(|keep| Action::Release { keep }),
        1 => Just(Action::Reopen),
        1 => Just(Action::PowerCut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_the_list(actions in proptest::collection::vec(action(), 1..60), seed in any::<u64>()) {
        let disk = formatted(seed);
        let mut wal = Some(open(&disk, seed).unwrap().0);
        let mut model = Model::default();
        for (position, action) in actions.into_iter().enumerate() {
            let last = model.log.len() as u64;
            let mut next = model.hard_state;
            let step = match action {
                Action::Append { count, size, term_up } => {
                    if term_up > 0 {
                        next = hard(next.term.0 + term_up, 0);
                    }
                    let more = entries(last + 1..last + 1 + count, next.term.0, size);
                    Step::Append { hard_state: next, truncate_from: None, entries: more }
                }
                Action::Truncate { back, count, size } => {
                    let first = wal.as_ref().unwrap().first_index().0;
                    let from = (last + 1).saturating_sub(back).max(first).max(model.released);
                    next = hard(next.term.0 + 1, 0);
                    let more = entries(from..from + count, next.term.0, size);
                    Step::Append { hard_state: next, truncate_from: Some(from), entries: more }
                }
                Action::Vote => {
                    let hard_state = hard(next.term.0 + u64::from(next.vote.is_some()), 7);
                    Step::Append { hard_state, truncate_from: None, entries: Vec::new() }
                }
                Action::Prove => Step::Prove,
                Action::Upkeep => Step::Upkeep,
                Action::Release { keep } => Step::Release(last.saturating_sub(keep)),
                Action::Reopen => Step::Reopen,
                Action::PowerCut => {
                    drop(wal.take());
                    disk.power_cut(seed ^ position as u64);
                    Step::Reopen
                }
            };
            model = model.after(&step);
            if let Step::Reopen = step {
                drop(wal.take());
                let end = End { acknowledged: model.clone(), asked: model.clone(), is_done: true };
                let (again, recovered) = open(&disk, seed ^ position as u64).unwrap();
                end.check(&recovered, &again, &|| format!("step {position}"));
                wal = Some(again);
            } else {
                take(wal.as_mut().unwrap(), &step).unwrap();
            }
            let wal = wal.as_ref().unwrap();
            let first = wal.first_index().0 as usize;
            prop_assert!(first <= (model.released as usize).max(1));
            prop_assert_eq!(wal.last_index(), Index(model.log.len() as u64));
            prop_assert_eq!(wal.hard_state(), Some(model.hard_state));
            let last_term = model.log.last().map_or(Term(0), |entry| entry.term);
            prop_assert_eq!(wal.reader().term(wal.last_index()), Some(last_term));
            prop_assert_eq!(read_all(&wal.reader()), &model.log[first - 1..]);
        }
    }
}
