//! Forced recoveries: the old node or the new one, through every crash.

use super::support::*;
use crate::disk::fake::FakeDisk;
use crate::format::recovery::{decode_recovery, encode_recovery};
use crate::{DataDir, IdentityError, OpenError, Recovered, Recovery, Wal};
use raftqueue_raft::{Configuration, Index, Member, MemberKind, NodeId, Payload, Term};

/// A member of a cluster of its own, with five entries of term 3; it has voted for another one in term 4.
fn member() -> FakeDisk {
    let disk = formatted(1);
    let mut dir = dir(&disk);
    dir.join(5, 2).unwrap();
    let (mut wal, _) = dir.open_log(options(1)).unwrap();
    wal.append(&batch(hard(3, 0), &entries(1..6, 3, 600))).unwrap();
    wal.append(&batch(hard(4, 9), &[])).unwrap();
    disk
}

fn dir(disk: &FakeDisk) -> DataDir {
    DataDir::open(shared(disk), Some("a")).unwrap()
}

fn alone(id: u64) -> Configuration {
    let member = Member { name: "a".into(), address: "a:7421".into(), kind: MemberKind::Voter };
    Configuration { members: [(NodeId(id), member)].into(), outgoing: [].into(), version: 1 }
}

pub(super) fn recovery() -> Recovery {
    Recovery {
        node_id: NodeId(7),
        generation: 3,
        last: (Index(5), Term(3)),
        term: Term(5),
        configuration: alone(7),
    }
}

fn open_log(dir: &mut DataDir) -> Result<(Wal, Recovered), OpenError> {
    dir.open_log(options(9))
}

/// What a start finds: the generation, and how the log ends. The two never contradict each other.
fn look(disk: &FakeDisk, context: &str) -> u32 {
    let mut dir = dir(disk);
    let (wal, recovered) = open_log(&mut dir).unwrap_or_else(|error| panic!("{context}: {error}"));
    let generation = dir.identity().unwrap().generation;
    let log = read_all(&wal.reader());
    assert_eq!(log[..5], entries(1..6, 3, 600), "{context}");
    match generation {
        2 => {
            assert_eq!(log.len(), 5, "{context}");
            assert_eq!(recovered.hard_state, Some(hard(4, 9)), "{context}");
        }
        3 => {
            assert_eq!((log.len(), log[5].term), (6, Term(5)), "{context}");
            assert_eq!(log[5].payload, Payload::Config(alone(7).into()), "{context}");
            assert_eq!(recovered.hard_state, Some(hard(5, 7)), "{context}");
            assert_eq!((recovered.last_index, recovered.last_term), (Index(6), Term(5)), "{context}");
            assert_eq!(recovered.term_runs, [(Index(1), Term(3)), (Index(6), Term(5))], "{context}");
            let [(at, configuration)] = &recovered.configurations[..] else { panic!("{context}") };
            assert_eq!((*at, &**configuration), (Index(6), &alone(7)), "{context}");
        }
        other => panic!("{context}: generation {other}"),
    }
    assert!(!disk.names().contains(&"RECOVERY".to_owned()), "{context}");
    generation
}

#[test]
fn rule_1_6_what_was_decided_is_there_at_the_next_start_and_ever_after() {
    let disk = member();
    dir(&disk).decide_recovery(&recovery()).unwrap();
    assert_eq!(dir(&disk).identity().unwrap().generation, 2, "nothing has happened yet");
    for start in 0..3 {
        assert_eq!(look(&disk, &format!("start {start}")), 3);
        assert_eq!(look(&disk.durable_view(), &format!("start {start}, then a power cut")), 3);
    }
    // The log goes on behind it.
    let (mut wal, _) = open(&disk, 4).unwrap();
    wal.append(&batch(hard(6, 7), &entries(7..9, 6, 100))).unwrap();
    assert_eq!(open(&disk.durable_view(), 5).unwrap().1.last_index, Index(8));
}

/// Whom it promised something is of a generation that is past.
#[test]
fn rule_1_6_who_lost_what_it_promised_goes_on_all_the_same() {
    for crash in [0, 20, 40] {
        let disk = member();
        dir(&disk).decide_recovery(&recovery()).unwrap();
        if crash > 0 {
            assert!(crashes_opening(&disk, crash));
        }
        disk.put("HARDSTATE", &[0; 8192]);
        assert_eq!(look(&disk, &format!("both slots are lost, crash at {crash}")), 3);
        assert_eq!(look(&disk.durable_view(), "and after a power cut"), 3);
    }
}

#[test]
fn rule_1_6_a_crash_at_every_call_leaves_the_old_node_or_the_new_one() {
    let whole = member();
    let before = whole.calls();
    let mut directory = dir(&whole);
    directory.decide_recovery(&recovery()).unwrap();
    let decided = whole.calls() - before;
    drop(open_log(&mut directory).unwrap());
    let calls = whole.calls() - before;
    let mut seen = [0; 2];
    for call in 1..=calls {
        let crashed = member();
        crashed.crash_at_call(call);
        let done =
            DataDir::open(shared(&crashed), Some("a")).map_err(IdentityError::from).and_then(|mut dir| {
                dir.decide_recovery(&recovery())?;
                dir.open_log(options(9)).map(drop).map_err(IdentityError::from)
            });
        assert!(done.is_err(), "call {call} of {calls}");
        for seed in 0..8 {
            let disk = crashed.deep_clone();
            match seed {
                0 => disk.crash_process(),
                _ => disk.power_cut(seed),
            }
            let context = format!("call {call} of {calls}, seed {seed}");
            let generation = look(&disk, &context);
            assert!(call <= decided || generation == 3, "{context}: what was decided is lost");
            assert_eq!(look(&disk.durable_view(), &context), generation, "{context}, then a power cut");
            seen[generation as usize - 2] += 1;
        }
    }
    assert!(seen.iter().all(|times| *times > 8), "{seen:?}");
}

/// Opens the log while the disk crashes at a call; false if it was opened before that.
fn crashes_opening(disk: &FakeDisk, call: u64) -> bool {
    disk.crash_at_call(call);
    let opened =
        DataDir::open(shared(disk), Some("a")).and_then(|mut dir| dir.open_log(options(9)).map(drop));
    let is_crashed = opened.is_err();
    disk.power_cut(call);
    is_crashed
}

#[test]
fn rule_1_6_a_crash_at_every_call_of_a_second_attempt_loses_nothing_of_it() {
    for first in 1.. {
        let disk = member();
        dir(&disk).decide_recovery(&recovery()).unwrap();
        if !crashes_opening(&disk, first) {
            break;
        }
        for second in (1..).step_by(3) {
            let disk = disk.deep_clone();
            let is_crashed = crashes_opening(&disk, second);
            assert_eq!(look(&disk, &format!("call {first}, then {second}")), 3);
            if !is_crashed {
                break;
            }
        }
    }
}

#[test]
fn rule_1_6_a_node_without_an_entry_goes_over_to_a_later_generation() {
    let disk = formatted(1);
    let mut waiting = dir(&disk);
    for (asked, held) in [(2, 2), (3, 3), (1, 3)] {
        waiting.join(5, asked).unwrap();
        assert_eq!(waiting.identity().unwrap().generation, held);
    }
    drop(waiting);
    assert_eq!(dir(&disk.durable_view()).identity().unwrap().generation, 3);
    let mut old = dir(&member());
    assert!(matches!(old.join(5, 3), Err(IdentityError::HasLog)));
    assert_eq!(old.identity().unwrap().generation, 2);
}

#[test]
fn what_is_no_recovery_of_this_node_is_not_decided() {
    let disk = member();
    let mut directory = dir(&disk);
    let learner = {
        let mut alone = alone(7);
        alone.members.get_mut(&NodeId(7)).unwrap().kind = MemberKind::Learner;
        alone
    };
    let mut two = alone(7);
    two.outgoing.insert(NodeId(9));
    for wrong in [
        Recovery { node_id: NodeId(8), configuration: alone(8), ..recovery() },
        Recovery { generation: 2, ..recovery() },
        Recovery { generation: 4, ..recovery() },
        Recovery { term: Term(3), ..recovery() },
        Recovery { last: (Index(0), Term(0)), ..recovery() },
        Recovery { configuration: alone(8), ..recovery() },
        Recovery { configuration: learner, ..recovery() },
        Recovery { configuration: two, ..recovery() },
    ] {
        let refused = directory.decide_recovery(&wrong);
        assert!(matches!(refused, Err(IdentityError::NoSuchRecovery)), "{wrong:?}");
    }
    drop(directory);
    assert_eq!(look(&disk, "nothing was decided"), 2);
    let blank = FakeDisk::new(1);
    let refused = DataDir::open(shared(&blank), Some("a")).unwrap().decide_recovery(&recovery());
    assert!(matches!(refused, Err(IdentityError::NotFormatted)));
}

/// A build that does not know the file went on with the log: what was decided is past.
#[test]
fn what_a_log_has_left_behind_is_not_carried_out() {
    for (hard_state, more) in [(hard(4, 9), entries(6..7, 3, 10)), (hard(5, 9), Vec::new())] {
        let disk = member();
        let mut directory = dir(&disk);
        let (mut wal, _) = open_log(&mut directory).unwrap();
        directory.decide_recovery(&recovery()).unwrap();
        wal.append(&batch(hard_state, &more)).unwrap();
        drop((wal, directory));
        let mut directory = dir(&disk);
        let (_, recovered) = open_log(&mut directory).unwrap();
        assert_eq!(directory.identity().unwrap().generation, 2);
        assert_eq!((recovered.hard_state, recovered.last_index.0), (Some(hard_state), 5 + more.len() as u64));
        assert!(!disk.names().contains(&"RECOVERY".to_owned()));
    }
}

#[test]
fn a_damaged_decision_stops_the_node_and_a_dump_names_it() {
    let disk = member();
    dir(&disk).decide_recovery(&recovery()).unwrap();
    let told = |disk: &FakeDisk| {
        let mut out = Vec::new();
        crate::dump(disk, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert!(told(&disk).contains("RECOVERY   decided"), "{}", told(&disk));
    assert!(disk.corrupt("RECOVERY", 30, 4));
    assert!(told(&disk).contains("DAMAGED RECOVERY"), "{}", told(&disk));
    assert!(matches!(open(&disk, 3), Err(OpenError::Damaged { file, .. }) if file == "RECOVERY"));
    disk.take("RECOVERY");
    assert_eq!(look(&disk, "without it the old node is there"), 2);
}

#[test]
fn its_form_comes_back() {
    assert_eq!(decode_recovery(&encode_recovery(&recovery())), Ok(recovery()));
}

/// Whoever opens a log may refuse what there is, and so does a decision that cannot be read: not a byte is another one then.
#[test]
fn rule_3_5_what_is_refused_when_it_is_opened_is_not_changed() {
    let disk = member();
    let contents = |disk: &FakeDisk| -> Vec<_> {
        disk.names().into_iter().filter(|name| name != "LOCK").map(|name| (disk.bytes(&name), name)).collect()
    };
    let before = contents(&disk);
    let refused = dir(&disk).open_log_if(options(9), |found| {
        assert_eq!((found.start, found.configuration), (Index(0), None));
        Err(OpenError::StateLost { start: found.start, why: "it is asked for".into() })
    });
    assert!(matches!(refused, Err(OpenError::StateLost { .. })));
    assert_eq!(contents(&disk), before);
    dir(&disk).decide_recovery(&recovery()).unwrap();
    let decided = contents(&disk);
    let refused = dir(&disk).open_log_if(options(9), |found| {
        assert_eq!(found.configuration, Some(&alone(7)), "the members that there will be");
        Err(OpenError::StateLost { start: found.start, why: "it is asked for".into() })
    });
    assert!(refused.is_err() && contents(&disk) == decided);
    assert!(disk.corrupt("RECOVERY", 20, 1));
    let rotten = contents(&disk);
    let Err(error) = open_log(&mut dir(&disk)) else { panic!("what is decided cannot be read") };
    assert!(matches!(&error, OpenError::Damaged { file, .. } if file == "RECOVERY"), "{error}");
    assert!(error.way_out().is_some_and(|way| way.contains("raftq recover")));
    assert_eq!(contents(&disk), rotten);
}
