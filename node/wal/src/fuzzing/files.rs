//! Whole files, read as a node reads them, on a disk in memory.

use super::seal;
use crate::disk::fake::FakeDisk;
use crate::format::places::decode_head;
use crate::format::snapshot::{FRONT_BYTES, SECTION_HEAD_BYTES, decode_head as decode_snapshot_head};
use crate::names::{SNAPSHOT, numbered};
use crate::{
    DataDir, Options, PageCache, Places, PlacesKind, SnapshotFile, SnapshotReader, SnapshotWriter, Wal,
    Written, dump,
};
use raftqueue_raft::{Entry, Index, NodeId};
use std::sync::Arc;

/// The number of the one snapshot, places file or kept file.
pub(super) const FILE: u64 = 5;
/// The segment that a fuzzer writes.
pub(super) const SEGMENT: &str = "segment-0000000000000001";
/// Entries that are read back at most, one by one.
const ENTRIES_MAX: usize = 256;

thread_local! {
    /// A node's directory whose log is about to be replaced.
    static FORMATTED: FakeDisk = formatted().0;
}

pub(super) fn options() -> Options {
    Options { segment_bytes: 8 << 10, entropy: 1, ..Options::default() }
}

/// A directory with an empty log, which is open.
pub(super) fn formatted() -> (FakeDisk, Wal) {
    let disk = FakeDisk::new(1);
    let mut directory = DataDir::open(Arc::new(disk.clone()), Some("a")).expect("an empty disk");
    directory.format(NodeId(7), "a").expect("a disk without faults");
    let (wal, _) = directory.open_log(options()).expect("a disk without faults");
    (disk, wal)
}

/// A log of one segment: the first byte says which checksums stay as they are, the rest is the file. It is opened as a start
/// does it, and shown as `raftq wal dump` does.
///
/// # Panics
/// Where a decoder breaks its promise, or a second start finds another log than the first one.
pub fn log(data: &[u8]) {
    let Some((flags, segment)) = data.split_first() else { return };
    let mut segment = segment.to_vec();
    seal::segment(&mut segment, *flags);
    let disk = FORMATTED.with(FakeDisk::deep_clone);
    disk.put(SEGMENT, &segment);
    dump(&disk, &mut std::io::sink()).expect("neither disk nor sink fails");
    let Some(first) = opened(&disk) else { return };
    assert_eq!(opened(&disk).as_ref(), Some(&first), "a second start finds what the first one found");
    dump(&disk, &mut std::io::sink()).expect("neither disk nor sink fails");
}

/// What a start finds: where the log begins and ends, and its entries, `None` for those that are damaged.
fn opened(disk: &FakeDisk) -> Option<(Index, Index, Vec<Option<Entry>>)> {
    let mut directory = DataDir::open(Arc::new(disk.clone()), Some("a")).expect("the small files are whole");
    let (wal, recovered) = directory.open_log(options()).ok()?;
    let reader = wal.reader();
    let (mut entries, mut index) = (Vec::new(), recovered.start.0);
    while index < recovered.last_index && entries.len() < ENTRIES_MAX {
        index = index.next();
        let read = reader.entries(index, Index(u64::MAX), 0);
        entries.push(read.ok().and_then(|read| read.into_iter().next()));
    }
    Some((recovered.start.0, recovered.last_index, entries))
}

/// A snapshot file, read to its end.
///
/// # Panics
/// Where a decoder breaks its promise, or a snapshot is written otherwise than it was read.
pub fn snapshot(data: &[u8]) {
    let mut bytes = data.to_vec();
    let crc = seal::snapshot(&mut bytes, FILE);
    let head = bytes.get(FRONT_BYTES + SECTION_HEAD_BYTES..).unwrap_or_default();
    let length = bytes.get(FRONT_BYTES..FRONT_BYTES + 4).and_then(|length| length.try_into().ok());
    let length = length.map_or(0, |length| u32::from_le_bytes(length) as usize);
    let head = decode_snapshot_head(head.get(..length).unwrap_or_default());
    let (index, term) = head.as_ref().map_or_else(|_| Default::default(), |head| (head.index, head.term));
    let file = SnapshotFile { number: FILE, size: bytes.len() as u64, crc, index, term };
    let disk = FakeDisk::new(1);
    disk.put(&numbered(SNAPSHOT, FILE), &bytes);
    let Ok((head, mut reader)) = SnapshotReader::open(&disk, &file) else { return };
    let other = FakeDisk::new(1);
    let mut writer = SnapshotWriter::create(&other, FILE, &head).expect("a disk without faults");
    loop {
        match reader.next() {
            Ok(Some(section)) => writer.section(&section).expect("a disk without faults"),
            Ok(None) => break,
            Err(_) => return,
        }
    }
    let written = writer.finish(&other).expect("a disk without faults");
    assert_eq!(written, file, "what the manifest would say of it");
    assert_eq!(other.bytes(&numbered(SNAPSHOT, FILE)), Some(bytes), "it is written as it was read");
}

/// A places file or a kept file: everything that can be asked of it.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn places(data: &[u8]) {
    let mut bytes = data.to_vec();
    seal::places(&mut bytes, FILE);
    let Ok((kind, number)) = decode_head(&bytes) else { return };
    let disk = FakeDisk::new(1);
    disk.put(&kind.file_name(number), &bytes);
    let _ = dump(&disk, &mut std::io::sink());
    let crc = crate::format::places::tail_crc(&bytes[bytes.len().saturating_sub(72)..]);
    let written = Written { number, size: bytes.len() as u64, crc };
    let Ok(places) = Places::open(&disk, kind, written, &PageCache::new(8 << 10)) else { return };
    for block in places.all_blocks().flatten() {
        assert!(block.count > 0, "{block:?}");
        let _ = places.find(block.topic, block.first_offset);
        let _ = places.find(block.topic, block.end() - 1);
        if kind == PlacesKind::Kept {
            let _ = places.body(&block);
        }
    }
    for topic in places.topics() {
        let _ = (topic.deadline_ms(), places.find(topic.topic, topic.end - 1));
        places.blocks(topic.topic, topic.first..topic.end).for_each(drop);
    }
    for page in 0..places.pages() {
        let _ = (places.page(page), places.page_deadline(page));
    }
}
