//! Who the directory belongs to, through every crash.

use super::support::*;
use crate::disk::fake::{FakeDisk, Operation};
use crate::format::wrap_version;
use crate::{Binding, DataDir, Identity, IdentityError, OpenError};
use raftqueue_raft::NodeId;

fn dir(disk: &FakeDisk) -> DataDir {
    DataDir::open(shared(disk), Some("a")).unwrap()
}

fn binding(seed: u64) -> Binding {
    Binding { seed_id: NodeId(seed), members: vec![("a".into(), None), ("b".into(), Some(NodeId(3)))] }
}

#[test]
fn rule_1_1_a_directory_is_formatted_once_and_says_who_it_is() {
    let disk = FakeDisk::new(1);
    let mut blank = dir(&disk);
    assert_eq!(blank.identity(), None);
    assert!(matches!(blank.open_log(options(1)), Err(OpenError::NotFormatted)));
    assert!(matches!(blank.bind(5, binding(9)), Err(IdentityError::NotFormatted)));
    assert!(matches!(blank.unbind(), Err(IdentityError::NotFormatted)));
    blank.format(NodeId(7), "a").unwrap();
    assert!(matches!(blank.format(NodeId(8), "a"), Err(IdentityError::AlreadyFormatted { .. })));
    drop(blank);
    let identity = dir(&disk).identity().cloned().unwrap();
    let expected = Identity {
        formation_id: 0,
        generation: 0,
        node_id: NodeId(7),
        name: "a".into(),
        binding: None,
        format_version: 1,
    };
    assert_eq!(identity, expected);
}

#[test]
fn rule_1_1_a_crash_at_every_call_of_formatting_leaves_a_blank_or_a_whole_directory() {
    let whole = FakeDisk::new(1);
    dir(&whole).format(NodeId(7), "a").unwrap();
    for call in 1..=whole.calls() {
        for seed in 0..12 {
            let disk = FakeDisk::new(seed);
            disk.crash_at_call(call);
            let done = DataDir::open(shared(&disk), Some("a"))
                .map_err(IdentityError::from)
                .and_then(|mut dir| dir.format(NodeId(7), "a"));
            assert!(done.is_err());
            if seed % 3 == 0 {
                disk.crash_process();
            } else {
                disk.power_cut(seed);
            }
            let mut dir = dir(&disk);
            if dir.identity().is_none() {
                dir.format(NodeId(8), "a").unwrap();
            }
            assert!(!dir.is_hard_state_lost().unwrap(), "call {call}, seed {seed}");
            let reported = dir.identity().cloned();
            let (wal, recovered) = dir.open_log(options(1)).unwrap();
            assert_eq!(recovered.hard_state, Some(hard(0, 0)));
            drop((wal, dir));
            let cut = disk.durable_view();
            assert_eq!(super::identity::dir(&cut).identity().cloned(), reported, "call {call}, seed {seed}");
        }
    }
}

#[test]
fn rule_1_2_a_binding_is_durable_before_it_is_answered_and_excludes_every_other() {
    let fresh = || {
        let disk = FakeDisk::new(1);
        dir(&disk).format(NodeId(7), "a").unwrap();
        disk
    };
    let whole = fresh();
    let mut bound = dir(&whole);
    let before = whole.calls();
    bound.bind(5, binding(9)).unwrap();
    let calls = whole.calls() - before;
    bound.bind(5, binding(9)).unwrap();
    assert_eq!(whole.calls() - before, calls, "bound already");
    for (formation, binding) in [(6, binding(9)), (5, binding(8))] {
        assert!(matches!(
            bound.bind(formation, binding),
            Err(IdentityError::BoundElsewhere { bound: 5, .. })
        ));
    }
    let mut known = binding(9);
    known.members[0].1 = Some(NodeId(7));
    bound.bind(5, known.clone()).unwrap();
    drop(bound);
    assert_eq!(dir(&whole.durable_view()).identity().unwrap().binding, Some(known));

    for call in 1..=calls {
        for seed in 0..12 {
            let disk = fresh();
            let mut unbound = dir(&disk);
            disk.crash_at_call(call);
            unbound.bind(5, binding(9)).unwrap_err();
            assert_eq!(unbound.identity().unwrap().formation_id, 0);
            drop(unbound);
            if seed % 3 == 0 {
                disk.crash_process();
            } else {
                disk.power_cut(seed);
            }
            let reported = dir(&disk).identity().cloned().unwrap();
            assert_eq!(reported.formation_id != 0, reported.binding.is_some());
            let later = disk.durable_view();
            assert_eq!(
                dir(&later).identity(),
                Some(&reported),
                "what was reported stays, call {call}, seed {seed}"
            );
        }
    }
}

#[test]
fn rule_1_2_a_binding_is_taken_back_only_without_a_log() {
    let disk = formatted(1);
    let mut dir = dir(&disk);
    dir.bind(5, binding(9)).unwrap();
    let (mut wal, _) = dir.open_log(options(1)).unwrap();
    wal.append(&batch(hard(1, 7), &[])).unwrap();
    drop(wal);
    dir.unbind().unwrap();
    assert_eq!((dir.identity().unwrap().formation_id, dir.identity().unwrap().node_id), (0, NodeId(7)));
    dir.bind(6, binding(9)).unwrap();
    dir.reformat(NodeId(70)).unwrap();
    assert_eq!(
        (dir.identity().unwrap().binding.clone(), dir.identity().unwrap().node_id),
        (None, NodeId(70))
    );
    dir.bind(6, binding(9)).unwrap();
    let (mut wal, recovered) = dir.open_log(options(2)).unwrap();
    assert_eq!(recovered.hard_state, Some(hard(1, 7)));
    wal.append(&batch(hard(1, 7), &entries(1..2, 1, 10))).unwrap();
    drop(wal);
    assert!(matches!(dir.unbind(), Err(IdentityError::HasLog)), "an entry that nothing proves yet");
    let (mut wal, _) = dir.open_log(options(3)).unwrap();
    wal.append(&truncating(hard(2, 0), 1, &[])).unwrap();
    wal.append(&batch(hard(2, 0), &entries(1..2, 2, 10))).unwrap();
    cut(&mut wal, raftqueue_raft::Index(2)).unwrap();
    drop(wal);
    assert!(matches!(dir.reformat(NodeId(71)), Err(IdentityError::HasLog)));
    assert_eq!(dir.identity().unwrap().formation_id, 6);
}

#[test]
fn a_second_process_is_refused_until_the_first_is_gone() {
    let disk = formatted(1);
    let mut first = dir(&disk);
    let (wal, _) = first.open_log(options(1)).unwrap();
    assert!(matches!(DataDir::open(shared(&disk), None), Err(OpenError::AnotherProcess)));
    drop(first);
    let error = DataDir::open(shared(&disk), None).err().unwrap();
    assert_eq!(error.to_string(), "another process uses this directory", "the writer still lives");
    drop(wal);
    dir(&disk);
}

#[test]
fn a_foreign_a_newer_and_a_damaged_directory_are_refused_with_both_sides_named() {
    let disk = formatted(1);
    drop(open(&disk, 1).unwrap());
    let error = DataDir::open(shared(&disk), Some("b")).err().unwrap();
    assert_eq!(
        error.to_string(),
        "the directory belongs to node \"a\", and this node is \"b\": mount its own disk there, or a blank one"
    );

    for (file, magic) in [("IDENTITY", *b"RQid"), ("HARDSTATE", *b"RQhs"), ("MANIFEST", *b"RQmf")] {
        let newer = disk.deep_clone();
        newer.put(file, &wrap_version(magic, 2, b"what a later build knows"));
        let before = newer.names();
        match open(&newer, 2) {
            Err(error @ OpenError::Newer { found: 2, supported: 1, .. }) => {
                assert_eq!(
                    error.to_string(),
                    format!("{file} has format version 2, this build reads up to 1")
                );
            }
            other => panic!("{:?}", other.map(|opened| opened.1)),
        }
        assert_eq!(newer.names(), before);
    }
    let newer = disk.deep_clone();
    newer.put(&crate::segment::segment_name(1), &wrap_version(*b"RQsg", 3, &[]));
    assert!(matches!(open(&newer, 2), Err(OpenError::Newer { found: 3, supported: 1, .. })));

    let damaged = disk.deep_clone();
    damaged.corrupt("IDENTITY", 30, 1);
    assert!(matches!(DataDir::open(shared(&damaged), None), Err(OpenError::Damaged { .. })));
    for file in ["MANIFEST", "segment-0000000000000001"] {
        let gone = formatted(1);
        drop(open(&gone, 1).unwrap());
        gone.take("IDENTITY");
        gone.take(if file == "MANIFEST" { "segment-0000000000000001" } else { "MANIFEST" });
        match DataDir::open(shared(&gone), None) {
            Err(OpenError::IdentityMissing { file: found }) => assert_eq!(found, file),
            other => panic!("{:?}", other.map(drop)),
        }
    }
}

#[test]
fn rule_1_1_an_identity_without_a_hard_state_is_damaged_and_never_formatted_over() {
    for is_gone in [false, true] {
        let disk = formatted(1);
        if is_gone {
            disk.take("HARDSTATE");
        } else {
            disk.put("HARDSTATE", &[0; 8192]);
        }
        let mut damaged = dir(&disk);
        assert!(damaged.is_hard_state_lost().unwrap());
        assert!(matches!(damaged.format(NodeId(9), "a"), Err(IdentityError::AlreadyFormatted { .. })));
        let (wal, recovered) = damaged.open_log(options(1)).unwrap();
        assert_eq!(recovered.hard_state, None);
        drop(wal);
        assert!(damaged.is_hard_state_lost().unwrap(), "opening does not heal it");
    }
}

#[test]
fn a_failed_disk_is_not_taken_for_a_blank_one() {
    let disk = formatted(1);
    disk.inject(crate::disk::fake::Refusal {
        operation: Operation::Read,
        file_prefix: "IDENTITY".into(),
        skip: 0,
        count: 1,
        error: std::io::ErrorKind::Other,
    });
    assert!(matches!(DataDir::open(shared(&disk), None), Err(OpenError::Io { .. })));
}
