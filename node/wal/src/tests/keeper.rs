//! A small keeper on the fake disk: snapshots, places files, kept files and installs of a queue whose rule is fixed, so that
//! everything that must still be readable follows from an index alone.

use super::support::*;
use crate::disk::fake::FakeDisk;
use crate::{
    AppendError, Batch, Block, Change, FileId, KeptFile, OpenError, PageCache, Places, PlacesFile,
    PlacesKind, PlacesWriter, ReadError, Reader, Recovered, Retired, SnapshotReader, Spot, Wal, Written,
};
use bytes::Bytes;
use raftqueue_raft::{Entry, Index, Payload, Term};
use std::io;
use std::sync::Arc;

/// All entries of these lives are of this term, and every entry is one message of this topic.
const TERM: u64 = 1;
const TOPIC: u64 = 1;

#[derive(Clone, Debug)]
pub(super) enum Work {
    /// Appends so many entries.
    Append(u64),
    /// Places files for all that is snapshotted, a snapshot at the end of the log, and the switch.
    Snapshot,
    /// Copies what is live out of files that are less than half live, and retires them.
    Compact,
    /// An install that moves the log so many indexes ahead.
    Install(u64),
    Prove,
    /// Everything that waits, one file at a time.
    Upkeep,
    Reopen,
}

/// The message of an entry.
pub(super) fn message(index: u64) -> Entry {
    entry(index, TERM, 300 + (index as usize * 97) % 900)
}

pub(super) fn body(index: u64) -> Bytes {
    match message(index).payload {
        Payload::Command { bodies, .. } => bodies,
        _ => unreachable!("messages are commands"),
    }
}

/// True if message `index` waits as of a snapshot at `at`: most are consumed soon, some late.
pub(super) fn is_live(index: u64, at: u64) -> bool {
    let stays = if index.is_multiple_of(5) { 45 } else { 4 };
    index <= at && index + stays > at
}

fn on_disk<T>(result: io::Result<T>) -> Result<T, AppendError> {
    result.map_err(|source| AppendError::Failed { operation: "write a file", source })
}

fn write_file(
    wal: &Wal,
    kind: PlacesKind,
    blocks: &[Block],
    bodies: &[Bytes],
) -> Result<Written, AppendError> {
    let disk = wal.disk();
    let mut writer = on_disk(PlacesWriter::create(&*disk, wal.next_file(), kind))?;
    for (place, block) in blocks.iter().enumerate() {
        let mut block = *block;
        if let Some(body) = bodies.get(place) {
            let offset = on_disk(writer.body(body))?;
            block.spot = Spot::Kept { offset, crc: crc32c::crc32c(body) };
        }
        on_disk(writer.push(&block))?;
    }
    on_disk(writer.finish(&*disk))
}

fn block(index: u64, spot: Spot) -> Block {
    let bytes = body(index).len() as u64;
    Block { topic: TOPIC, first_offset: index, count: 1, spot, published_ms: 0, deadline_ms: None, bytes }
}

fn write_places(wal: &Wal, at: Index) -> Result<Vec<PlacesFile>, AppendError> {
    let reader = wal.reader();
    let mut files = Vec::new();
    for segment in reader.segments() {
        let span = reader.segment_span(segment).expect("one of the log");
        let to = span.last.min(at);
        let known = wal.manifest().places_of(segment).map_or(Index(0), |file| file.to);
        if to < span.first || known >= to {
            continue;
        }
        let pinned = reader.pin(segment).expect("one of the log");
        let mut blocks = Vec::new();
        for index in span.first.0..=to.0 {
            let (found, offset) = reader.location(Index(index)).expect("inside the span");
            assert_eq!(found, segment);
            let meta = of_disk(pinned.meta_at(offset))?;
            assert_eq!(meta.index, Index(index));
            blocks.push(block(index, Spot::Entry { offset, command: 0 }));
        }
        let Written { number, size, crc } = write_file(wal, PlacesKind::Segment(segment), &blocks, &[])?;
        files.push(PlacesFile { number, size, crc, segment, to, messages: blocks.len() as u64 });
    }
    Ok(files)
}

/// Reads fail only because the process ends: what stands there is whole.
fn of_disk<T>(result: Result<T, ReadError>) -> Result<T, AppendError> {
    result.map_err(|error| match error {
        ReadError::Io { source, .. } => AppendError::Failed { operation: "read a file", source },
        other => panic!("{other}"),
    })
}

fn open_places(disk: &FakeDisk, kind: PlacesKind, written: Written) -> Result<Arc<Places>, AppendError> {
    Places::open(disk, kind, written, &PageCache::new(1 << 20)).map_err(|error| match error {
        OpenError::Io { source, .. } => AppendError::Failed { operation: "open a file", source },
        other => panic!("{other}"),
    })
}

/// The indexes of the messages in a file.
fn messages_in(places: &Places) -> Result<Vec<Block>, AppendError> {
    places.all_blocks().map(of_disk).collect()
}

fn places_of(disk: &FakeDisk, file: &PlacesFile) -> Result<Arc<Places>, AppendError> {
    let written = Written { number: file.number, size: file.size, crc: file.crc };
    open_places(disk, PlacesKind::Segment(file.segment), written)
}

fn kept_of(disk: &FakeDisk, file: &KeptFile) -> Result<Arc<Places>, AppendError> {
    open_places(disk, PlacesKind::Kept, Written { number: file.number, size: file.size, crc: file.crc })
}

fn compact(disk: &FakeDisk, wal: &mut Wal) -> Result<(), AppendError> {
    let manifest = wal.manifest().clone();
    let Some(newest) = manifest.snapshots.last() else { return Ok(()) };
    let (at, reader) = (newest.index, wal.reader());
    let is_retired = |file: FileId| manifest.retired.iter().any(|retired| retired.file == file);
    let mut change = Change::default();
    let mut kept: Vec<(Block, Bytes)> = Vec::new();
    for file in &manifest.places {
        let id = FileId::Segment(file.segment);
        let is_whole = match reader.segment_span(file.segment) {
            Some(span) => span.is_sealed && file.to >= span.last,
            None => true,
        };
        let blocks = messages_in(&*places_of(disk, file)?)?;
        let live: Vec<&Block> = blocks.iter().filter(|block| is_live(block.first_offset, at.0)).collect();
        if is_retired(id) || !is_whole || live.len() * 2 >= blocks.len() {
            continue;
        }
        let pinned = reader.pin(file.segment).expect("the manifest names it");
        for block in live {
            let Spot::Entry { offset, .. } = block.spot else { panic!("{block:?}") };
            let size = usize::try_from(block.bytes).unwrap();
            kept.push((*block, of_disk(pinned.bodies_at(offset, 0, size))?));
        }
        change.retire.push(Retired { file: id, at });
    }
    for file in &manifest.kept {
        let (id, places) = (FileId::Kept(file.number), kept_of(disk, file)?);
        let blocks = messages_in(&places)?;
        let live: Vec<&Block> = blocks.iter().filter(|block| is_live(block.first_offset, at.0)).collect();
        if is_retired(id) || live.len() * 2 >= blocks.len() {
            continue;
        }
        for block in live {
            kept.push((*block, of_disk(places.body(block))?));
        }
        change.retire.push(Retired { file: id, at });
    }
    kept.sort_by_key(|(block, _)| block.first_offset);
    kept.dedup_by_key(|(block, _)| block.first_offset);
    if !kept.is_empty() {
        let (blocks, bodies): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
        let Written { number, size, crc } = write_file(wal, PlacesKind::Kept, &blocks, &bodies)?;
        change.kept.push(KeptFile { number, size, crc, since: at });
    }
    if change != Change::default() {
        wal.switch(&change)?;
    }
    Ok(())
}

/// A snapshot at an index beyond the log, and all that waits there in a kept file of its own.
fn install(wal: &mut Wal, ahead: u64) -> Result<(), AppendError> {
    let at = Index(wal.last_index().0 + ahead);
    let live: Vec<u64> = (1..=at.0).filter(|index| is_live(*index, at.0)).collect();
    let blocks: Vec<_> = live.iter().map(|index| block(*index, Spot::Kept { offset: 0, crc: 0 })).collect();
    let bodies: Vec<_> = live.iter().map(|index| body(*index)).collect();
    let Written { number, size, crc } = write_file(wal, PlacesKind::Kept, &blocks, &bodies)?;
    let snapshot = write_snapshot(wal, at, Term(TERM))?;
    let kept = vec![KeptFile { number, size, crc, since: at }];
    let reset = Some((at, Term(TERM)));
    let switched = wal.switch(&Change { snapshot: Some(snapshot), kept, reset, ..Change::default() })?;
    assert_eq!(switched.start, (at, Term(TERM)));
    Ok(())
}

pub(super) fn work(disk: &FakeDisk, wal: &mut Wal, work: &Work) -> Result<(), AppendError> {
    match work {
        Work::Append(count) => {
            let last = wal.last_index().0;
            let entries: Vec<_> = (last + 1..=last + count).map(message).collect();
            let hard_state_changed = wal.hard_state() != Some(hard(TERM, 7));
            let hard_state = hard(TERM, 7);
            wal.append(&Batch { hard_state, hard_state_changed, truncate_from: None, entries: &entries })?;
            match wal.upkeep() {
                // As the log's thread takes it: what was left out is done later.
                Err(AppendError::NoSpace { .. }) => Ok(()),
                other => other,
            }
        }
        Work::Snapshot => {
            let at = wal.last_index();
            let places = write_places(wal, at)?;
            let snapshot = Some(write_snapshot(wal, at, Term(TERM))?);
            wal.switch(&Change { snapshot, places, ..Change::default() }).map(drop)
        }
        Work::Compact => compact(disk, wal),
        Work::Install(ahead) => install(wal, *ahead),
        Work::Prove => wal.prove().map(drop),
        Work::Upkeep => tidy(wal),
        Work::Reopen => unreachable!("the caller reopens"),
    }
}

/// Everything that must hold of a log that is open, whatever led there: the files that the manifest names are there and
/// no others are, the log is whole, and from either snapshot on every message that waits can be read.
pub(super) fn check(disk: &FakeDisk, wal: &Wal, context: &dyn Fn() -> String) {
    let (manifest, reader) = (wal.manifest(), wal.reader());
    let (first, last) = (reader.first_index(), reader.last_index());
    for found in read_all(&reader) {
        assert_eq!(found, message(found.index.0), "{}", context());
    }
    let start = first.prev();
    assert!(
        manifest.snapshots.first().map_or(start == Index(0), |older| older.index >= start),
        "{}",
        context()
    );
    for snapshot in &manifest.snapshots {
        assert!(snapshot.index <= last, "{}", context());
        let (head, mut content) = SnapshotReader::open(disk, snapshot).expect("whole");
        assert_eq!((head.index, head.stamp_ms), (snapshot.index, snapshot.index.0));
        assert_eq!(content.next().unwrap().unwrap(), snapshot.index.0.to_le_bytes().as_slice());
        assert!(content.next().unwrap().is_none());
    }
    for snapshot in &manifest.snapshots {
        check_bodies(disk, &reader, wal, snapshot.index.0, context);
    }
}

fn check_bodies(disk: &FakeDisk, reader: &Reader, wal: &Wal, at: u64, context: &dyn Fn() -> String) {
    let manifest = wal.manifest();
    let places: Vec<_> =
        manifest.places.iter().map(|file| (file.segment, places_of(disk, file).unwrap())).collect();
    // As of this snapshot, later kept files are not known, and nothing that was retired later is.
    let kept = manifest.kept.iter().filter(|file| file.since.0 <= at);
    let kept: Vec<_> = kept.map(|file| kept_of(disk, file).unwrap()).collect();
    for index in (1..=at).filter(|index| is_live(*index, at)) {
        let in_log = reader.location(Index(index)).map(|(segment, offset)| (segment, offset, true));
        let in_segment = places.iter().find_map(|(segment, places)| {
            match places.find(TOPIC, index).expect("whole")?.spot {
                Spot::Entry { offset, .. } => Some((*segment, offset, false)),
                Spot::Kept { .. } => None,
            }
        });
        let size = body(index).len();
        for (segment, offset, _) in [in_log, in_segment].into_iter().flatten() {
            let pinned = reader.pin(segment);
            let pinned = pinned.unwrap_or_else(|| panic!("{}: {index} in {segment}", context()));
            assert_eq!(pinned.bodies_at(offset, 0, size).expect("whole"), body(index), "{}", context());
        }
        let in_kept = kept.iter().find_map(|places| {
            let block = places.find(TOPIC, index).expect("whole")?;
            Some(places.body(&block).expect("whole"))
        });
        if let Some(found) = &in_kept {
            assert_eq!(*found, body(index), "{}", context());
        }
        let is_found = in_log.is_some() || in_segment.is_some() || in_kept.is_some();
        assert!(is_found, "{}: message {index} as of {at} is nowhere\n{manifest:?}", context());
    }
}

/// After an opening: nothing is on the disk that counts for nothing, and nothing that counts is damaged.
pub(super) fn check_opened(disk: &FakeDisk, wal: &Wal, recovered: &Recovered, context: &dyn Fn() -> String) {
    assert_eq!(recovered.damaged_files, [], "{}", context());
    assert_eq!(&recovered.manifest, wal.manifest());
    let Recovered { manifest, .. } = recovered;
    let mut expected: Vec<String> = ["HARDSTATE", "IDENTITY", "LOCK", "MANIFEST"].map(String::from).into();
    let named = |prefix: &'static str, number: u64| crate::names::numbered(prefix, number);
    expected.extend(manifest.snapshots.iter().map(|file| named("snapshot-", file.number)));
    expected.extend(manifest.places.iter().map(|file| named("places-", file.number)));
    expected.extend(manifest.kept.iter().map(|file| named("kept-", file.number)));
    expected.extend(manifest.released.iter().map(|segment| named("segment-", *segment)));
    expected.extend(wal.reader().segments().iter().map(|segment| named("segment-", *segment)));
    expected.sort();
    let mut found = disk.names();
    found.retain(|name| !name.starts_with("spare-"));
    assert_eq!(found, expected, "{}", context());
    assert!(disk.names().len() - found.len() <= 2, "{}: spares", context());
    check(disk, wal, context);
}
