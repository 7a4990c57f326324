//! The dump tells what is there and points at damage.

use super::support::*;
use crate::disk::fake::FakeDisk;
use crate::disk::{Disk, DiskFile, DiskLock};
use crate::{Binding, DataDir, DumpSummary, Wal, dump};
use raftqueue_raft::{Index, NodeId};
use std::io;
use std::sync::{Arc, Mutex};

fn text(disk: &FakeDisk) -> (String, DumpSummary) {
    let mut out = Vec::new();
    let summary = dump(disk, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), summary)
}

#[test]
fn a_dump_shows_everything_and_changes_nothing() {
    let disk = formatted(1);
    let mut dir = DataDir::open(shared(&disk), None).unwrap();
    dir.bind(
        0xabc,
        Binding { seed_id: NodeId(9), members: vec![("b".into(), Some(NodeId(3))), ("a".into(), None)] },
    )
    .unwrap();
    let (mut wal, _) = dir.open_log(options(1)).unwrap();
    for index in 1..30 {
        wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, 1000))).unwrap();
    }
    cut(&mut wal, Index(14)).unwrap();
    wal.append(&truncating(hard(2, 0), 28, &entries(28..31, 2, 10))).unwrap();
    let before: Vec<_> = disk.names().into_iter().map(|name| disk.bytes(&name)).collect();
    let (shown, summary) = text(&disk);
    let after: Vec<_> = disk.names().into_iter().map(|name| disk.bytes(&name)).collect();
    assert!(before == after, "and the lock of the living process is no obstacle");
    for part in [
        "node 7 \"a\", formation 00000000000000000000000000000abc",
        "bound to seed 9",
        "\"a\" unknown",
        "HARDSTATE  slot 0: term 2, vote none",
        "HARDSTATE  slot 1: term 1, vote 7",
        "first segment 0000000000000002",
        "record index 29 term 1",
        "record index 28 term 1 at",
        "Truncation, 0 bytes of meta",
        "record index 30 term 2",
        "index whole",
        "not proven",
        "0 damaged places, 0 torn",
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    assert_eq!((summary.segments, summary.damaged, summary.torn), (3, 0, 0));
}

#[test]
fn a_dump_points_at_damage_with_file_and_offset() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    for index in 1..6 {
        wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, 1000))).unwrap();
    }
    let file = crate::segment::segment_name(1);
    // The first batch with a record begins behind the one that the segment was born with.
    assert!(disk.corrupt(&file, 1024 + 88 + 48 + 300, 1));
    let end = wal.synced_to().offset;
    assert!(disk.corrupt(&file, end - 600, 1), "in the last batch");
    assert!(disk.corrupt("HARDSTATE", 5, 1));
    let (shown, summary) = text(&disk);
    assert!(shown.contains("DAMAGED segment-0000000000000001 at 1161: Bodies of index 1 term 1"), "{shown}");
    assert!(shown.contains("TORN segment-0000000000000001 at "), "{shown}");
    assert!(shown.contains("DAMAGED HARDSTATE slot 0"), "{shown}");
    assert_eq!((summary.damaged, summary.torn), (2, 1));
    assert!(disk.corrupt(&file, 20, 1) && disk.corrupt("IDENTITY", 20, 1) && disk.corrupt("MANIFEST", 20, 1));
    let (shown, summary) = text(&disk);
    assert!(summary.damaged == 4 && shown.contains("segment head"), "{shown}");
}

#[test]
fn a_dump_of_a_blank_directory_says_so() {
    let (shown, summary) = text(&FakeDisk::new(1));
    assert!(shown.contains("not formatted") && summary.segments == 0, "{shown}");
}

type Happening<'a> = Box<dyn FnOnce(&FakeDisk) + Send + 'a>;

/// A disk of a node that goes on while somebody reads it: something happens right before a file is opened, or the files are
/// listed.
struct Moving<'a> {
    disk: FakeDisk,
    before: Mutex<Option<(&'a str, Happening<'a>)>>,
}

impl Moving<'_> {
    fn happen(&self, before: &str) {
        let due = self.before.lock().unwrap().take_if(|(what, _)| *what == before);
        if let Some((_, happen)) = due {
            happen(&self.disk);
        }
    }
}

impl Disk for Moving<'_> {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.happen(name);
        self.disk.open(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.happen("the list");
        self.disk.list()
    }
    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        unreachable!("a dump only reads")
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        unreachable!("a dump only reads")
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        unreachable!("a dump only reads")
    }
    fn sync_dir(&self) -> io::Result<()> {
        unreachable!("a dump only reads")
    }
    fn lock(&self, _: &str) -> io::Result<Option<Box<dyn DiskLock>>> {
        unreachable!("a dump only reads")
    }
    fn free_bytes(&self) -> io::Result<u64> {
        unreachable!("a dump only reads")
    }
}

#[test]
fn what_a_node_changes_while_it_is_dumped_is_no_damage() {
    let happens = |before: &str, happen: &(dyn Fn(&mut Wal) + Send + Sync)| {
        let disk = formatted(1);
        let (mut wal, _) = open(&disk, 1).unwrap();
        for index in 1..40 {
            wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, 1000))).unwrap();
        }
        cut(&mut wal, Index(10)).unwrap();
        let then = move |_: &FakeDisk| happen(&mut wal);
        let moving = Moving { disk, before: Mutex::new(Some((before, Box::new(then)))) };
        let mut out = Vec::new();
        let summary = dump(&moving, &mut out).unwrap();
        assert!(moving.before.lock().unwrap().is_none(), "{before} was looked at");
        let shown = String::from_utf8(out).unwrap();
        assert_eq!(summary.damaged, 0, "{before}:\n{shown}");
        shown
    };
    let cut_more = |wal: &mut Wal| assert!(cut(wal, Index(30)).unwrap() > 0);
    // Between the manifest and the list of files, and when both are known.
    let first = happens("the list", &cut_more);
    assert!(!first.contains("GONE"), "{first}");
    let name = crate::segment::segment_name(3);
    let gone = happens(&name, &cut_more);
    assert!(gone.contains(&format!("GONE       {name}")), "{gone}");
}
