//! A data directory as the first build of version 1 wrote it: what is read of it is written today byte by byte as it was.
//!
//! One thing is not, since it could not be left: the checksums of what stands in a record (`part_crc`). Those of that build are
//! read, and it takes the ones of today for damage. It was changed before the forms were used by anybody.
//!
//! `goldens/version-1/folder` was recorded once from a real node, by `tests/tests/versions`. It is never recorded again for
//! this version.

use super::support::*;
use crate::batch::{Draft, FrameContext, encode_seal, record_of};
use crate::disk::fake::FakeDisk;
use crate::disk::{Disk, SECTOR_BYTES};
use crate::format::configuration;
use crate::format::manifest::{decode_manifest, encode_manifest};
use crate::format::segment::{RECORD_BYTES, RecordHeader, RecordIdentity, RecordKind, SegmentHead};
use crate::format::small::{decode_hard_state, decode_identity, encode_hard_state, encode_identity};
use crate::log::name_of;
use crate::scan::{BatchScan, Behind, Depth, Scanner};
use crate::segment::segment_name;
use crate::{
    DataDir, KeptFile, Manifest, Mended, Options, PageCache, Places, PlacesFile, PlacesKind, PlacesWriter,
    RecordName, SnapshotReader, SnapshotWriter, Written,
};
use bytes::Bytes;
use raftqueue_raft::{Entry, Index, Payload};
use std::collections::BTreeSet;

/// The folder, and what its manifest says.
fn folder() -> (FakeDisk, Manifest) {
    let path = format!("{}/src/tests/goldens/version-1/folder", env!("CARGO_MANIFEST_DIR"));
    let disk = FakeDisk::of_folder(&std::fs::read_to_string(path).unwrap());
    let manifest = decode_manifest(&disk.bytes("MANIFEST").unwrap()).unwrap();
    (disk, manifest)
}

/// The numbers of its segments.
fn segments(disk: &FakeDisk, manifest: &Manifest) -> Vec<u64> {
    let names = disk.names();
    let numbers = names.iter().filter_map(|name| crate::segment::segment_number(name));
    numbers.filter(|number| manifest.counts_segment(*number)).collect()
}

#[test]
fn rule_9_1_the_small_files_of_version_1_are_written_as_they_were() {
    let (disk, manifest) = folder();
    let identity = disk.bytes("IDENTITY").unwrap();
    assert_eq!(encode_identity(&decode_identity(&identity).unwrap()), identity);
    let bytes = disk.bytes("MANIFEST").unwrap();
    assert_eq!(encode_manifest(&manifest), bytes);
    let slots = disk.bytes("HARDSTATE").unwrap();
    for slot in slots.chunks(4096) {
        let written = encode_hard_state(decode_hard_state(slot).unwrap());
        assert_eq!(written, slot[..written.len()]);
    }
    assert!(manifest.snapshots.len() == 2 && !manifest.kept.is_empty() && !manifest.released.is_empty());
    assert!(!manifest.places.is_empty());
}

#[test]
fn rule_9_1_the_log_of_version_1_is_written_as_it_was() {
    let (disk, manifest) = folder();
    let (mut kinds, mut seals) = (BTreeSet::new(), 0);
    let numbers = segments(&disk, &manifest);
    for (place, number) in numbers.iter().enumerate() {
        let name = segment_name(*number);
        let bytes = disk.bytes(&name).unwrap();
        let head = SegmentHead::decode(&bytes).unwrap();
        assert_eq!(head.encode(), bytes[..SECTOR_BYTES as usize], "{name}");
        let file = disk.open(&name).unwrap();
        let mut scanner = Scanner::new(&*file, &name, head, Depth::Contents).unwrap();
        let next = numbers.get(place + 1).map(|next| {
            let next = SegmentHead::decode(&disk.bytes(&segment_name(*next)).unwrap()).unwrap();
            assert_eq!(next.predecessor, *number);
            next
        });
        let end = next.map(|next| next.predecessor_end);
        let scan = scanner.walk(end, &Behind::default(), None).unwrap();
        let mut before: Option<Vec<RecordIdentity>> = None;
        let mut index = Vec::new();
        for batch in &scan.batches {
            assert!(batch.damage.is_empty(), "{name}: {:?}", batch.damage);
            let frame = batch.frame.as_ref().unwrap();
            let draft = draft(&bytes, batch, head.salt, &mut kinds);
            // The first batch of a segment names records of the one before.
            let identities = scanner.identities(Some(frame)).unwrap().unwrap();
            assert_eq!(*before.get_or_insert_with(|| identities.clone()), identities);
            let context =
                FrameContext { batch: frame.batch, hard_state: frame.hard_state, identities: &identities };
            let other = FakeDisk::new(1);
            let copy = other.create("x").unwrap();
            draft.write(&*copy, head.salt, frame.offset, &context, None).unwrap();
            let written = other.bytes("x").unwrap();
            let (from, to) = (frame.offset as usize, (frame.offset + frame.length) as usize);
            assert!(
                written[from..] == bytes[from..to],
                "{name}: batch {} at {from} is written otherwise",
                frame.batch
            );
            before = Some(draft.identities());
            index.extend(draft.places(frame.offset, identities.len()));
        }
        let seal = match (scan.seal, next) {
            (Some(seal), _) => Some(seal),
            (None, Some(next)) if next.predecessor_sealed => scanner.frame(next.predecessor_end).unwrap(),
            _ => None,
        };
        if let Some(seal) = seal {
            let identities = before.unwrap();
            let context =
                FrameContext { batch: seal.batch, hard_state: seal.hard_state, identities: &identities };
            let written = encode_seal(head.salt, seal.offset, &context, &index);
            let from = seal.offset as usize;
            assert!(written == bytes[from..from + written.len()], "{name}: its seal is written otherwise");
            seals += 1;
        }
    }
    // The other two are in the goldens beside: `batch`.
    assert!(kinds.len() == 2 && seals > 1, "{kinds:?}, {seals} seals");
}

/// The records of a batch, made again from what they say.
fn draft(bytes: &[u8], batch: &BatchScan, salt: u64, kinds: &mut BTreeSet<String>) -> Draft {
    let mut draft = Draft::default();
    for record in &batch.records {
        let at = record.offset as usize;
        let header = RecordHeader::decode(&bytes[at..], salt, record.offset).unwrap();
        kinds.insert(format!("{:?}", header.kind));
        let meta_at = at + RECORD_BYTES as usize;
        let bodies_at = meta_at + header.meta_bytes as usize;
        let meta = Bytes::copy_from_slice(&bytes[meta_at..bodies_at]);
        let bodies = Bytes::copy_from_slice(&bytes[bodies_at..bodies_at + header.bodies_bytes as usize]);
        let payload = match header.kind {
            RecordKind::Truncation => {
                draft.push_truncation(header.index, header.term);
                continue;
            }
            RecordKind::Noop => Payload::Noop,
            RecordKind::Configuration => Payload::Config(configuration::decode(&meta).unwrap().into()),
            RecordKind::Command => Payload::Command { meta, bodies },
        };
        draft.push_entry(&Entry { index: header.index, term: header.term, payload });
        let record = draft.records.last_mut().expect("just pushed");
        record.header = record.header.as_before(&record.meta, &record.bodies);
        assert_eq!(record.header, header);
    }
    draft
}

#[test]
fn rule_9_1_snapshots_of_version_1_are_written_as_they_were() {
    let (disk, manifest) = folder();
    for file in &manifest.snapshots {
        let (head, mut reader) = SnapshotReader::open(&disk, file).unwrap();
        let other = FakeDisk::new(1);
        let mut writer = SnapshotWriter::create(&other, file.number, &head).unwrap();
        while let Some(section) = reader.next().unwrap() {
            writer.section(&section).unwrap();
        }
        assert_eq!(writer.finish(&other).unwrap(), *file);
        assert!(other.bytes(&file.name()) == disk.bytes(&file.name()), "{}", file.name());
    }
}

#[test]
fn rule_9_1_places_and_kept_files_of_version_1_are_written_as_they_were() {
    let (disk, manifest) = folder();
    let places = manifest.places.iter().map(|&PlacesFile { number, size, crc, segment, .. }| {
        (PlacesKind::Segment(segment), Written { number, size, crc })
    });
    let kept = manifest
        .kept
        .iter()
        .map(|&KeptFile { number, size, crc, .. }| (PlacesKind::Kept, Written { number, size, crc }));
    for (kind, written) in places.chain(kept) {
        let cache = PageCache::new(1 << 20);
        let source = Places::open(&disk, kind, written, &cache).unwrap();
        let other = FakeDisk::new(1);
        let mut writer = PlacesWriter::create(&other, written.number, kind).unwrap();
        for block in source.all_blocks() {
            let block = block.unwrap();
            if kind == PlacesKind::Kept {
                writer.body(&source.body(&block).unwrap()).unwrap();
            }
            writer.push(&block).unwrap();
        }
        assert_eq!(writer.finish(&other).unwrap(), written);
        let name = kind.file_name(written.number);
        assert!(other.bytes(&name) == disk.bytes(&name), "{name}");
    }
}

#[test]
fn rule_9_1_a_log_of_version_1_is_opened_and_goes_on() {
    let (disk, manifest) = folder();
    let options = Options { segment_bytes: 1 << 20, ..options(5) };
    let mut directory = DataDir::open(shared(&disk), None).unwrap();
    let (mut wal, recovered) = directory.open_log(options).unwrap();
    assert!(recovered.damaged_files.is_empty() && recovered.cut.is_none(), "{recovered:?}");
    assert!(recovered.start.0 > Index(0) && recovered.start.0 <= manifest.snapshots[0].index);
    let all = read_all(&wal.reader());
    assert_eq!(all.last().map(|entry| entry.index), Some(recovered.last_index));
    let more = entry(recovered.last_index.0 + 1, recovered.last_term.0, 100);
    wal.append(&batch(recovered.hard_state.unwrap(), std::slice::from_ref(&more))).unwrap();
    assert_eq!(read_all(&wal.reader()).last(), Some(&more));
}

/// Its records have checksums that are computed otherwise today. They are named, given and mended all the same.
#[test]
fn rule_2_5_a_record_of_a_build_before_is_given_by_either_name_and_mended_as_it_was() {
    let (disk, _) = folder();
    let open = |disk: &FakeDisk| {
        let mut directory = DataDir::open(shared(disk), None).unwrap();
        directory.open_log(Options { verify_all: true, ..options(9) }).unwrap()
    };
    // Only what is behind the last start is written anew by an opening.
    let (wal, recovered) = open(&disk.deep_clone());
    assert!(recovered.holes.is_empty());
    let bodies_of = |entry: &Entry| match &entry.payload {
        Payload::Command { bodies, .. } => bodies.clone(),
        _ => Bytes::new(),
    };
    let all = read_all(&wal.reader());
    let entry = all.iter().find(|entry| bodies_of(entry).len() > 100).unwrap();
    let record = record_of(entry);
    let named = |header: RecordHeader| name_of(&header.identity());
    let names = [named(record.header), named(record.header.as_before(&record.meta, &record.bodies))];
    assert_eq!(wal.reader().name(entry.index), Some(names[1]), "it stands there as it was written");
    for name in names {
        assert_eq!(wal.reader().read_exact(name).unwrap().as_ref(), Some(entry));
        let other = RecordName { crc: name.crc ^ 1, ..name };
        assert_eq!(wal.reader().read_exact(other).unwrap(), None);
    }
    let place = segments(&disk, &folder().1).into_iter().find_map(|number| {
        let name = segment_name(number);
        let bytes = disk.bytes(&name).unwrap();
        let at = bytes.windows(record.bodies.len()).position(|bytes| bytes == record.bodies)?;
        Some((name, at as u64))
    });
    let (file, at) = place.expect("it stands in a segment");
    assert!(disk.corrupt(&file, at + 20, 4));
    let (wal, _) = open(&disk);
    let reader = wal.reader();
    let hole = reader.holes()[0];
    assert_eq!((hole.name, reader.holes().len()), (names[1], 1));
    assert_eq!(reader.mend_alone(&hole).unwrap(), Mended::Lacking);
    assert!(matches!(reader.mend(&hole, entry).unwrap(), Mended::Whole { is_written: true, .. }));
    assert_eq!(read_all(&reader), all);
}
