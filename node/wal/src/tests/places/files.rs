//! Writing and reading whole files.

use super::*;
use crate::disk::RealDisk;
use crate::disk::fake::{Crashed, Operation, Refusal};
use raftqueue_raft::Index;
use std::io;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_file_is_what_was_written(
        (kind, model) in any_model(400),
        cache_bytes in prop_oneof![Just(0_usize), Just(5000), Just(1 << 20)],
        topic in 0..5_u64, from in 0..300_u64, to in 0..300_u64,
    ) {
        let disk = FakeDisk::new(1);
        let written = write(&disk, kind, 5, &model).unwrap();
        let places = open(&disk, kind, written, cache_bytes).unwrap();
        check(&places, &model);
        let found: Vec<Block> = places.blocks(topic, from..to).map(Result::unwrap).collect();
        let is_asked = |block: &&Block| block.topic == topic && block.first_offset < to && block.end() > from && from < to;
        let asked: Vec<Block> = places.all_blocks().map(Result::unwrap).collect();
        prop_assert_eq!(found, asked.iter().filter(is_asked).copied().collect::<Vec<_>>());
        prop_assert!(places.cache_held_bytes() <= cache_bytes);
    }
}

#[test]
fn a_lookup_reads_one_page_and_a_page_that_is_held_none() {
    let disk = FakeDisk::new(1);
    let model = plain(PlacesKind::Segment(9), 630);
    let places = file(&disk, PlacesKind::Segment(9), 5, &model);
    assert_eq!(places.pages(), 10);
    let reads = |what: &dyn Fn()| {
        let before = disk.calls_of(Operation::Read);
        what();
        disk.calls_of(Operation::Read) - before
    };
    let (topic, offset) = *model.keys().nth(400).unwrap();
    assert_eq!(reads(&|| assert!(places.find(topic, offset).unwrap().is_some())), 1);
    assert_eq!(reads(&|| assert!(places.find(topic, offset + 1).unwrap().is_some())), 0);
    assert_eq!(reads(&|| assert!(places.find(topic, u64::MAX).unwrap().is_none())), 0, "out of its range");
    assert_eq!(reads(&|| assert!(places.find(7, 0).unwrap().is_none())), 0, "a topic that is not here");
    // Ranges that end with a page do not read the next one; nor does what is asked for outside.
    let end = places.page(3).unwrap().last().unwrap().end();
    let fresh = open(&disk, places.kind(), places.written(), 0).unwrap();
    assert_eq!(reads(&|| assert_eq!(fresh.blocks(1, end - 1..end).count(), 1)), 1);
    assert_eq!(reads(&|| assert_eq!(fresh.blocks(1, 100_000..200_000).count(), 0)), 0);
    assert_eq!(reads(&|| assert_eq!(fresh.all_blocks().count(), 630)), 10);
    assert_eq!(fresh.held_bytes(), 10 * 32 + 2 * 48);
}

#[test]
fn the_cache_keeps_what_was_used_last_and_no_more_than_its_bytes() {
    let disk = FakeDisk::new(1);
    let model = plain(PlacesKind::Segment(9), 630);
    let written = write(&disk, PlacesKind::Segment(9), 5, &model).unwrap();
    let other = write(&disk, PlacesKind::Segment(8), 6, &model).unwrap();
    let cache = PageCache::new(3 * (4096 + 256));
    let places = Places::open(&disk, PlacesKind::Segment(9), written, &cache).unwrap();
    let other = Places::open(&disk, PlacesKind::Segment(8), other, &cache).unwrap();
    let reads = |places: &Places, page| {
        let before = disk.calls_of(Operation::Read);
        places.page(page).unwrap();
        disk.calls_of(Operation::Read) - before
    };
    let all = [(0, 1), (1, 1), (0, 0), (2, 1), (0, 0), (3, 1), (0, 0), (1, 1), (3, 0)];
    for (step, (page, expected)) in all.into_iter().enumerate() {
        assert_eq!(reads(&places, page), expected, "step {step}, page {page}");
        assert!(cache.held_bytes() <= 3 * (4096 + 256));
    }
    assert_eq!(reads(&other, 0), 1, "the page of another file is another page");
    assert_eq!(reads(&other, 0), 0);
    assert_eq!(cache.held_bytes(), 3 * (4096 + 256));
}

#[test]
fn many_threads_read_one_file() {
    fn is_shared<T: Send + Sync>(_: &T) {}
    let disk = FakeDisk::new(1);
    let model = plain(PlacesKind::Kept, 630);
    let written = write(&disk, PlacesKind::Kept, 5, &model).unwrap();
    let places = open(&disk, PlacesKind::Kept, written, 2 * 4500).unwrap();
    is_shared(&places);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (places, model) = (&places, &model);
            scope.spawn(move || {
                for (block, body) in model.values().skip(thread).step_by(3) {
                    let found = places.find(block.topic, block.first_offset).unwrap().unwrap();
                    assert!(same(&found, block) && places.body(&found).unwrap() == *body);
                }
            });
        }
    });
}

#[test]
fn the_manifest_keeps_what_opens_a_file_again() {
    let disk = FakeDisk::new(1);
    let cache = PageCache::new(0);
    for kind in [PlacesKind::Segment(9), PlacesKind::Kept] {
        let model = plain(kind, 70);
        let written = write(&disk, kind, 5, &model).unwrap();
        let places = match kind {
            PlacesKind::Segment(segment) => {
                Places::of_segment(&disk, &written.of_segment(segment, Index(7), 140), &cache).unwrap()
            }
            PlacesKind::Kept => Places::of_kept(&disk, &written.of_kept(Index(7)), &cache).unwrap(),
        };
        check(&places, &model);
        let messages = if kind == PlacesKind::Kept { 70 } else { 140 };
        assert_eq!((places.written(), places.messages()), (written, messages));
    }
}

#[test]
fn a_file_is_readable_after_its_name_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(folder.path()).unwrap();
    let model = plain(PlacesKind::Kept, 200);
    let written = write(&disk, PlacesKind::Kept, 5, &model).unwrap();
    let places = Places::open(&disk, PlacesKind::Kept, written, &PageCache::new(0)).unwrap();
    disk.remove("kept-0000000000000005").unwrap();
    check(&places, &model);
}

#[test]
fn each_call_writes_once_at_most_and_about_a_mebibyte() {
    let disk = FakeDisk::new(1);
    let calls = |what: &mut dyn FnMut()| {
        let before = disk.calls_of(Operation::Write);
        what();
        disk.calls_of(Operation::Write) - before
    };
    let mut writer = PlacesWriter::create(&disk, 5, PlacesKind::Segment(1)).unwrap();
    let spot = Spot::Entry { offset: 512, command: 0 };
    let block = |first_offset, spot| Block {
        topic: 1,
        first_offset,
        count: 1,
        spot,
        published_ms: 0,
        deadline_ms: None,
        bytes: 1,
    };
    // 63 blocks a page of 4 KiB, and 256 pages a mebibyte.
    let writes: Vec<u64> =
        (0..63 * 1024).map(|offset| calls(&mut || writer.push(&block(offset, spot)).unwrap())).collect();
    assert_eq!((writes.iter().max(), writes.iter().sum::<u64>()), (Some(&1), 4));
    assert_eq!(disk.calls_of(Operation::Sync), 0);
    writer.finish(&disk).unwrap();
    assert_eq!((disk.calls_of(Operation::Sync), disk.calls_of(Operation::SyncDir)), (1, 1));

    let mut writer = PlacesWriter::create(&disk, 6, PlacesKind::Kept).unwrap();
    for (size, writes) in [(700 << 10, 0), (700 << 10, 1), (16 << 20, 1), (10, 0)] {
        let body = vec![1; size];
        assert_eq!(calls(&mut || assert!(writer.body(&body).unwrap() >= 512)), writes, "{size} bytes");
    }
}

#[test]
fn a_crash_at_any_call_leaves_nothing_or_the_whole_file() {
    let mut model = plain(PlacesKind::Kept, 70);
    for (number, (block, body)) in model.values_mut().enumerate().skip(5).step_by(15) {
        *body = vec![number as u8; 700 << 10].into();
        let spot = Spot::Kept { offset: 0, crc: crc32c::crc32c(body) };
        *block = Block { bytes: body.len() as u64, spot, ..*block };
    }
    let whole = FakeDisk::new(1);
    let written = write(&whole, PlacesKind::Kept, 5, &model).unwrap();
    assert!(whole.calls() >= 6, "more than one write");
    check(&open(&whole.durable_view(), PlacesKind::Kept, written, 0).unwrap(), &model);
    let (mut whole_ones, mut opened) = (0, 0);
    for call in 1..=whole.calls() {
        let disk = FakeDisk::new(call);
        disk.crash_at_call(call);
        let error = write(&disk, PlacesKind::Kept, 5, &model).expect_err("the crash");
        assert!(Crashed::is(&error));
        let mut after = vec![disk.durable_view(), disk.deep_clone()];
        let seeds = if call + 2 > whole.calls() { 24 } else { 4 };
        after.extend((0..seeds).map(|seed| {
            let disk = disk.deep_clone();
            disk.power_cut_keeping(3, seed);
            disk
        }));
        for disk in after {
            // Nobody knows its size and checksum, since they were never given. Even so it is whole, or rot, or nothing.
            let Ok(places) = open(&disk, PlacesKind::Kept, written, 0) else { continue };
            opened += 1;
            let mut is_whole = true;
            for block in places.all_blocks() {
                let body = block.and_then(|block| Ok((block, places.body(&block)?)));
                match body {
                    Ok((block, body)) => assert_eq!(body, model[&(block.topic, block.first_offset)].1),
                    Err(error) => {
                        assert!(matches!(error, crate::ReadError::Rot(_)), "{error}");
                        is_whole = false;
                    }
                }
            }
            whole_ones += usize::from(is_whole);
        }
    }
    assert!(opened > whole_ones && whole_ones > 0, "{opened} opened, {whole_ones} whole: both were met");
}

#[test]
fn after_a_failed_write_the_file_is_never_finished_and_can_be_taken_away() {
    for error in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        let disk = FakeDisk::new(1);
        disk.inject(Refusal {
            operation: Operation::Write,
            file_prefix: String::new(),
            skip: 1,
            count: 1,
            error,
        });
        let mut writer = PlacesWriter::create(&disk, 5, PlacesKind::Kept).unwrap();
        let body = vec![1; 1 << 20];
        writer.body(&body).unwrap();
        assert_eq!(writer.body(&body).unwrap_err().kind(), error);
        let later = writer.body(&body[..5]).unwrap_err();
        assert!(later.to_string().contains("an earlier write of this file failed"), "{later}");
        writer.abandon(&disk).unwrap();
        assert!(disk.names().is_empty());

        let mut writer = PlacesWriter::create(&disk, 6, PlacesKind::Kept).unwrap();
        disk.inject(Refusal {
            operation: Operation::Write,
            file_prefix: String::new(),
            skip: 0,
            count: 1,
            error,
        });
        writer.body(&body).unwrap_err();
        writer.finish(&disk).unwrap_err();
        assert!(disk.names().is_empty(), "what cannot be finished takes no room");
    }
    for operation in [Operation::Sync, Operation::SyncDir, Operation::Write] {
        let disk = FakeDisk::new(1);
        let error = io::ErrorKind::Other;
        disk.inject(Refusal { operation, file_prefix: String::new(), skip: 0, count: 1, error });
        write(&disk, PlacesKind::Kept, 5, &plain(PlacesKind::Kept, 10)).expect_err("refused");
        assert!(disk.names().is_empty(), "{operation:?}: {:?}", disk.names());
    }
}

#[test]
fn a_number_that_is_taken_is_not_written_over() {
    let disk = FakeDisk::new(1);
    let model = plain(PlacesKind::Kept, 10);
    let places = file(&disk, PlacesKind::Kept, 5, &model);
    let again = PlacesWriter::create(&disk, 5, PlacesKind::Kept).err().unwrap();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    check(&places, &model);
}

#[test]
fn what_cannot_stand_in_a_file_is_refused_at_once() {
    let block = |first_offset, spot| Block {
        topic: 4,
        first_offset,
        count: 1,
        spot,
        published_ms: 0,
        deadline_ms: None,
        bytes: 1,
    };
    let (entry, kept) = (Spot::Entry { offset: 512, command: 0 }, Spot::Kept { offset: 512, crc: 0 });
    let refused = |kind, blocks: &[Block]| {
        let disk = FakeDisk::new(1);
        let mut writer = PlacesWriter::create(&disk, 5, kind).unwrap();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            blocks.iter().for_each(|block| writer.push(block).unwrap());
        }))
        .is_err()
    };
    let places = PlacesKind::Segment(1);
    assert!(!refused(places, &[block(5, entry), block(6, entry)]));
    assert!(refused(places, &[block(5, entry), block(5, entry)]), "twice");
    assert!(refused(places, &[block(5, entry), Block { topic: 3, ..block(6, entry) }]), "backwards");
    assert!(refused(places, &[Block { count: 2, ..block(5, entry) }, block(6, entry)]), "overlapping");
    assert!(refused(places, &[Block { count: 0, ..block(5, entry) }]), "of nothing");
    assert!(refused(places, &[block(u64::MAX, entry)]), "an offset that no message has");
    assert!(refused(places, &[block(5, kept)]) && refused(PlacesKind::Kept, &[block(5, entry)]));
    assert!(refused(PlacesKind::Kept, &[block(5, kept)]), "a body that was not written");
}
