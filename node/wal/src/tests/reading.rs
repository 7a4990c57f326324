//! Readers: limits, metas, bodies, and reading while the writer goes on.

use super::support::*;
use crate::disk::fake::{Operation, Refusal};
use crate::format::segment::SegmentHead;
use crate::{AppendError, MetaPayload, OpenError, ReadError, RecordName, RottenPart};
use raftqueue_raft::{Configuration, Entry, Found, Index, Member, MemberKind, NodeId, Payload, Term};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn configuration(nodes: u64) -> Arc<Configuration> {
    let member = |id| {
        (NodeId(id), Member { name: format!("node-{id}"), address: String::new(), kind: MemberKind::Voter })
    };
    Arc::new(Configuration {
        members: (1..=nodes).map(member).collect(),
        version: 1,
        ..Configuration::default()
    })
}

#[test]
fn a_read_is_bounded_and_gives_at_least_one() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let all = entries(1..60, 1, 400);
    all.chunks(4).for_each(|chunk| assert!(wal.append(&batch(hard(1, 7), chunk)).is_ok()));
    let reader = wal.reader();
    assert_eq!(reader.entries(Index(5), Index(9), u64::MAX).unwrap(), all[4..8]);
    assert_eq!(reader.entries(Index(5), Index(9), 0).unwrap(), all[4..5]);
    let size = all[4].size() as u64 + all[5].size() as u64;
    assert_eq!(reader.entries(Index(5), Index(90), size).unwrap(), all[4..6]);
    assert_eq!(reader.entries(Index(5), Index(90), size - 1).unwrap(), all[4..5]);
    assert_eq!(reader.entries(Index(50), Index(900), u64::MAX).unwrap(), all[49..]);
    assert!(matches!(
        reader.entries(Index(60), Index(61), 1),
        Err(ReadError::Beyond { last: Index(59), .. })
    ));
    assert!(matches!(
        reader.entries(Index(0), Index(61), 1),
        Err(ReadError::Released { first: Index(1), .. })
    ));
    cut(&mut wal, Index(40)).unwrap();
    let first = reader.first_index();
    assert!(first > Index(1) && first <= Index(40));
    assert!(matches!(reader.metas(first.prev(), first, 1), Err(ReadError::Released { .. })));
    assert_eq!(reader.find(first.prev(), 1).unwrap(), Found::Released);
    assert_eq!(reader.find(Index(59), 1).unwrap(), Found::Entries(all[58..].to_vec()));
    assert!(matches!(reader.find(Index(60), 1), Err(ReadError::Beyond { .. })));
    assert_eq!(reader.term(first.prev()), Some(Term(1)));
    assert_eq!(
        (reader.term(Index(59)), reader.term(Index(60)), reader.term(Index(1))),
        (Some(Term(1)), None, None)
    );
}

#[test]
fn the_last_batch_costs_a_start_as_many_calls_with_one_record_as_with_many() {
    let reads = |records: u64| {
        let disk = formatted(1);
        let (mut wal, _) = open(&disk, 1).unwrap();
        let written = entries(1..records + 1, 1, 50);
        wal.append(&batch(hard(1, 7), &written)).unwrap();
        drop(wal);
        let before = disk.calls_of(Operation::Read);
        let (wal, _) = open(&disk, 2).unwrap();
        let reads = disk.calls_of(Operation::Read) - before;
        assert_eq!(read_all(&wal.reader()), written);
        reads
    };
    assert_eq!(reads(60), reads(1));
}

#[test]
fn neighbours_are_read_with_one_call_and_metas_without_their_bodies() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let small = entries(1..20, 1, 50);
    small.chunks(3).for_each(|chunk| assert!(wal.append(&batch(hard(1, 7), chunk)).is_ok()));
    let before = disk.calls_of(Operation::Read);
    assert_eq!(wal.reader().entries(Index(1), Index(20), u64::MAX).unwrap(), small);
    assert_eq!(disk.calls_of(Operation::Read) - before, 1);

    let large = entries(20..22, 1, 60_000);
    large.chunks(1).for_each(|chunk| assert!(wal.append(&batch(hard(1, 7), chunk)).is_ok()));
    let metas = wal.reader().metas(Index(1), Index(22), u64::MAX).unwrap();
    for (entry, found) in small.iter().chain(&large).zip(&metas) {
        let Payload::Command { meta, bodies } = &entry.payload else { panic!("{entry:?}") };
        let expected = MetaPayload::Command { meta: meta.clone(), bodies_bytes: bodies.len() as u32 };
        assert_eq!((found.index, found.term, &found.payload), (entry.index, entry.term, &expected));
    }
    assert_eq!(metas.len(), 21);
    assert_eq!(wal.reader().metas(Index(1), Index(22), 0).unwrap().len(), 1);

    let Payload::Command { bodies, .. } = &large[0].payload else { panic!() };
    assert_eq!(wal.reader().bodies(Index(20), 1000, 3000).unwrap(), bodies.slice(1000..4000));
    assert_eq!(wal.reader().bodies(Index(20), 60_000, 0).unwrap().len(), 0);
    let beyond = wal.reader().bodies(Index(20), 59_999, 2);
    assert!(matches!(beyond, Err(ReadError::OutOfBodies { size: 60_000, end: 60_001, .. })));
    assert!(matches!(wal.reader().bodies(Index(20), u64::MAX, 2), Err(ReadError::OutOfBodies { .. })));
}

#[test]
fn every_kind_of_entry_comes_back_and_configurations_are_reported() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let config = |index, nodes| Entry {
        index: Index(index),
        term: Term(1),
        payload: Payload::Config(configuration(nodes)),
    };
    let noop = Entry { index: Index(2), term: Term(1), payload: Payload::Noop };
    let all = [config(1, 3), noop, config(3, 5), entry(4, 1, 0), config(5, 7)];
    wal.append(&batch(hard(1, 7), &all)).unwrap();
    assert_eq!(read_all(&wal.reader()), all);
    wal.append(&truncating(hard(2, 0), 5, &entries(5..6, 2, 10))).unwrap();
    drop(wal);
    let (wal, recovered) = open(&disk, 2).unwrap();
    assert_eq!(recovered.configurations, [(Index(1), configuration(3)), (Index(3), configuration(5))]);
    assert_eq!(recovered.term_runs, [(Index(1), Term(1)), (Index(5), Term(2))]);
    let metas = wal.reader().metas(Index(1), Index(3), u64::MAX).unwrap();
    assert_eq!(metas[0].payload, MetaPayload::Config(configuration(3)));
    assert_eq!(metas[1].payload, MetaPayload::Noop);
}

#[test]
fn only_exactly_the_named_record_is_given_for_a_repair() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(1, 7), &entries(1..4, 1, 100))).unwrap();
    let reader = wal.reader();
    let name = reader.name(Index(2)).unwrap();
    assert_eq!(reader.read_exact(name).unwrap(), Some(entry(2, 1, 100)));
    for other in [
        RecordName { crc: name.crc ^ 1, ..name },
        RecordName { term: Term(2), ..name },
        RecordName { index: Index(3), ..name },
        RecordName { index: Index(9), ..name },
    ] {
        assert_eq!(reader.read_exact(other).unwrap(), None);
    }
    wal.append(&truncating(hard(2, 0), 2, &entries(2..3, 2, 100))).unwrap();
    assert_eq!(reader.read_exact(name).unwrap(), None, "truncated");
    assert_eq!(reader.last_index(), Index(2));
}

#[test]
fn nothing_is_visible_before_it_is_synced() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(1, 7), &entries(1..4, 1, 100))).unwrap();
    let reader = wal.reader();
    disk.inject(Refusal {
        operation: Operation::Sync,
        file_prefix: String::new(),
        skip: 0,
        count: 1,
        error: std::io::ErrorKind::StorageFull,
    });
    let refused = wal.append(&truncating(hard(1, 7), 2, &entries(2..6, 1, 200)));
    assert!(matches!(refused, Err(AppendError::NoSpace { .. })));
    assert_eq!(read_all(&reader), entries(1..4, 1, 100), "neither the truncation nor the entries");
    wal.append(&truncating(hard(1, 7), 2, &entries(2..6, 1, 200))).unwrap();
    assert_eq!(reader.last_index(), Index(5));
}

#[test]
fn readers_go_on_while_the_writer_appends_rolls_over_and_recycles() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let is_done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (reader, is_done) = (wal.reader(), Arc::clone(&is_done));
            std::thread::spawn(move || {
                let mut count = 0_u64;
                while !is_done.load(Ordering::Relaxed) || count == 0 {
                    let from = reader.first_index();
                    match reader.entries(from, Index(u64::MAX), 20_000) {
                        Ok(read) => {
                            for (index, found) in (from.0..).zip(read) {
                                assert_eq!(found, entry(index, 1, 700));
                                count += 1;
                            }
                        }
                        Err(ReadError::Released { .. } | ReadError::Beyond { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            })
        })
        .collect();
    for index in 1..1500 {
        wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, 700))).unwrap();
        cut(&mut wal, Index(index.saturating_sub(20))).unwrap();
    }
    is_done.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

/// A copy that leaves out zeros at the end of a file, or a file system that was mended, makes such a file.
#[test]
fn a_segment_cut_off_behind_its_first_batch_opens_again_and_again() {
    const NAME: &str = "segment-0000000000000001";
    let disk = formatted(1);
    drop(open(&disk, 1).unwrap());
    let whole = disk.bytes(NAME).unwrap();
    disk.put(NAME, &whole[..700]);
    for start in 2..5 {
        let (_, recovered) = open(&disk, start).unwrap_or_else(|error| panic!("start {start}: {error}"));
        assert!(recovered.holes.is_empty() && recovered.damaged_copies.is_empty(), "nothing is lacking");
    }
    // Within its frame it lacks something, and every start says so.
    let disk = formatted(1);
    disk.put(NAME, &whole[..550]);
    for start in 2..4 {
        open(&disk, start).map(drop).expect_err("the frame is cut off");
    }
}

#[test]
fn what_a_segment_was_born_with_is_missed() {
    const NAME: &str = "segment-0000000000000001";
    let disk = formatted(1);
    drop(open(&disk, 1).unwrap());
    let head = SegmentHead::decode(&disk.bytes(NAME).unwrap()).unwrap();
    assert!(disk.smear(NAME, 0, &SegmentHead { born_to: 4096, ..head }.encode()));
    match open(&disk, 2).map(drop).expect_err("three sectors have nothing in them") {
        OpenError::Rot { places } => {
            assert_eq!((places[0].offset, places[0].part), (1024, RottenPart::Frame));
        }
        other => panic!("{other}"),
    }
}
