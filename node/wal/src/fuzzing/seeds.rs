//! What fuzzing begins with: bytes that this crate itself has written.

use super::files::{FILE, SEGMENT, formatted};
use crate::disk::fake::FakeDisk;
use crate::format::manifest::encode_manifest;
use crate::format::recovery::encode_recovery;
use crate::format::small::{encode_hard_state, encode_identity};
use crate::format::{ENVELOPE_BYTES, configuration};
use crate::names::{SNAPSHOT, numbered};
use crate::{
    Batch, Binding, Block, FileId, Identity, KeptFile, Manifest, PlacesFile, PlacesKind, PlacesWriter,
    Recovery, Retired, SnapshotFile, SnapshotHead, SnapshotWriter, Spot,
};
use raftqueue_raft::{Configuration, Entry, HardState, Index, Member, MemberKind, NodeId, Payload, Term};

const SECTOR: usize = 512;

/// Seeds: the target that each is for, its name, and its bytes.
///
/// # Panics
/// If the disk in memory fails, which it does not.
#[must_use]
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut seeds = vec![
        ("small_files", "identity", small(0, &encode_identity(&identity(None)))),
        ("small_files", "identity-bound", small(0, &encode_identity(&identity(Some(binding()))))),
        ("small_files", "hard-state", small(1, &encode_hard_state(hard_state()))),
        ("small_files", "manifest-empty", small(2, &encode_manifest(&Manifest::default()))),
        ("small_files", "manifest", small(2, &encode_manifest(&manifest()))),
        ("small_files", "recovery", small(3, &encode_recovery(&recovery()))),
        ("configuration", "none", configuration::encode(&Configuration::default())),
        ("configuration", "three", configuration::encode(&members())),
        ("snapshot", "empty", snapshot(&[])),
        ("snapshot", "sections", snapshot(&[&[1; 30], &[], &[2; 300]])),
        ("places", "kept", places(PlacesKind::Kept, 3)),
        ("places", "kept-empty", places(PlacesKind::Kept, 0)),
        ("places", "segment", places(PlacesKind::Segment(9), 4)),
    ];
    let segment = log();
    let salt = &segment[24..32];
    let part = |kind: u8, bytes: &[u8]| [&[kind][..], salt, bytes].concat();
    seeds.extend([
        ("segment", "head", part(0, &segment[ENVELOPE_BYTES..ENVELOPE_BYTES + 69])),
        ("segment", "frame", part(1, &segment[SECTOR..SECTOR + 88])),
        ("segment", "record", part(2, &segment[SECTOR + 88..SECTOR + 88 + 64])),
        ("segment", "identities", part(3, &segment[2 * SECTOR + 88..2 * SECTOR + 128])),
        ("log", "whole", [&[0][..], &segment].concat()),
        ("log", "damaged", [&[4][..], &segment].concat()),
        ("log", "torn", [&[0][..], &segment[..3 * SECTOR + 100]].concat()),
    ]);
    seeds
}

/// Which of the small files it is, and what stands in its envelope.
fn small(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind][..], &bytes[ENVELOPE_BYTES..]].concat()
}

fn binding() -> Binding {
    Binding { seed_id: NodeId(9), members: vec![("a".into(), Some(NodeId(7))), ("b".into(), None)] }
}

fn identity(binding: Option<Binding>) -> Identity {
    let formation_id = if binding.is_some() { 0xabc } else { 0 };
    let format_version = crate::format::FORMAT_VERSION;
    Identity { formation_id, generation: 2, node_id: NodeId(7), name: "a".into(), binding, format_version }
}

fn hard_state() -> HardState {
    HardState { term: Term(4), vote: Some(NodeId(7)) }
}

fn manifest() -> Manifest {
    let snapshot =
        |number, index| SnapshotFile { number, size: 90, crc: 3, index: Index(index), term: Term(2) };
    Manifest {
        first_segment: 4,
        next_file: 20,
        released: vec![1, 3],
        places: vec![PlacesFile { number: 5, size: 8264, crc: 1, segment: 1, to: Index(9), messages: 4 }],
        kept: vec![KeptFile { number: 6, size: 5000, crc: 2, since: Index(8) }],
        snapshots: vec![snapshot(7, 10), snapshot(8, 12)],
        retired: vec![
            Retired { file: FileId::Segment(3), at: Index(11) },
            Retired { file: FileId::Kept(6), at: Index(12) },
        ],
        is_incomplete: true,
    }
}

fn members() -> Configuration {
    let member = |name: &str, kind| Member { name: name.into(), address: format!("{name}:1"), kind };
    Configuration {
        version: 2,
        members: [
            (NodeId(7), member("a", MemberKind::Voter)),
            (NodeId(8), member("b", MemberKind::Voter)),
            (NodeId(9), member("c", MemberKind::Learner)),
        ]
        .into(),
        outgoing: [NodeId(7)].into(),
    }
}

fn recovery() -> Recovery {
    Recovery {
        node_id: NodeId(7),
        generation: 3,
        last: (Index(9), Term(4)),
        term: Term(5),
        configuration: members(),
    }
}

fn snapshot(sections: &[&[u8]]) -> Vec<u8> {
    let head = SnapshotHead {
        index: Index(40),
        term: Term(3),
        configuration_index: Index(1),
        configuration: members().into(),
        stamp_ms: 12,
        term_runs: vec![(Index(1), Term(1)), (Index(8), Term(3))],
    };
    let disk = FakeDisk::new(1);
    let mut writer = SnapshotWriter::create(&disk, FILE, &head).expect("a disk without faults");
    sections.iter().for_each(|section| writer.section(section).expect("a disk without faults"));
    writer.finish(&disk).expect("a disk without faults");
    disk.bytes(&numbered(SNAPSHOT, FILE)).expect("it was written")
}

fn places(kind: PlacesKind, blocks: u64) -> Vec<u8> {
    let disk = FakeDisk::new(1);
    let mut writer = PlacesWriter::create(&disk, FILE, kind).expect("a disk without faults");
    for at in 0..blocks {
        let body = vec![at as u8; 20];
        let (count, spot) = match kind {
            PlacesKind::Segment(_) => (5, Spot::Entry { offset: 600, command: at as u32 }),
            PlacesKind::Kept => {
                let offset = writer.body(&body).expect("a disk without faults");
                (1, Spot::Kept { offset, crc: crc32c::crc32c(&body) })
            }
        };
        let block = Block {
            topic: 1 + at / 2,
            first_offset: 10 * at,
            count,
            spot,
            published_ms: 7,
            deadline_ms: (at > 1).then_some(50),
            bytes: 20,
        };
        writer.push(&block).expect("a disk without faults");
    }
    writer.finish(&disk).expect("a disk without faults");
    disk.bytes(&kind.file_name(FILE)).expect("it was written")
}

/// A segment with batches of every kind of record.
fn log() -> Vec<u8> {
    let (disk, mut wal) = formatted();
    let command = |index| Entry {
        index: Index(index),
        term: Term(1),
        payload: Payload::Command { meta: vec![1; 5].into(), bodies: vec![2; 20].into() },
    };
    let first = Entry { index: Index(1), term: Term(1), payload: Payload::Config(members().into()) };
    let noop = |index| Entry { index: Index(index), term: Term(2), payload: Payload::Noop };
    for (term, from, entries) in [
        (1, None, vec![first]),
        (1, None, vec![command(2), command(3)]),
        (2, Some(3), vec![noop(3)]),
        (2, None, vec![noop(4)]),
    ] {
        let hard_state = HardState { term: Term(term), vote: Some(NodeId(7)) };
        let truncate_from = from.map(Index);
        wal.append(&Batch { hard_state, hard_state_changed: true, truncate_from, entries: &entries })
            .expect("a disk without faults");
    }
    let mut bytes = disk.bytes(SEGMENT).expect("it was written");
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default();
    bytes.truncate((end + 1).next_multiple_of(SECTOR));
    bytes
}
