//! Bytes as they stand on the disk: fixed forms, and decoders that survive anything.

use super::support::*;
use crate::batch::{Draft, FrameContext, encode_seal};
use crate::disk::Disk;
use crate::disk::fake::FakeDisk;
use crate::format::manifest::*;
use crate::format::recovery::*;
use crate::format::segment::*;
use crate::format::small::*;
use crate::format::snapshot::*;
use crate::format::{Malformed, configuration, unwrap, wrap, wrap_version};
use crate::{Binding, FileId, Identity, KeptFile, Manifest, OpenError, PlacesFile, Retired, SnapshotFile};
use proptest::prelude::*;
use raftqueue_raft::{Configuration, Entry, Index, Member, MemberKind, NodeId, Payload, Term};

const SALT: u64 = 0x1122_3344_5566_7788;

fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(16)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
        .collect()
}

/// Compares with a golden: changing one is changing the format. `RAFTQUEUE_RECORD=1` writes them anew.
pub(super) fn golden(bytes: &[u8], name: &str) {
    let path = format!("{}/src/tests/goldens/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("RAFTQUEUE_RECORD").is_some() {
        std::fs::write(&path, hex(bytes)).unwrap();
    }
    assert_eq!(hex(bytes), std::fs::read_to_string(path).unwrap(), "{name}");
}

fn identity() -> Identity {
    Identity {
        formation_id: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        generation: 3,
        node_id: NodeId(0xabcd),
        name: "queue-0".into(),
        binding: Some(Binding {
            seed_id: NodeId(5),
            members: vec![("queue-0".into(), None), ("queue-1".into(), Some(NodeId(6)))],
        }),
        format_version: 1,
    }
}

fn cluster() -> Configuration {
    let member = |name: &str, kind| Member { name: name.into(), address: format!("{name}:7421"), kind };
    Configuration {
        members: [
            (NodeId(1), member("a", MemberKind::Voter)),
            (NodeId(2), member("bb", MemberKind::Learner)),
        ]
        .into(),
        outgoing: [NodeId(1), NodeId(9)].into(),
        version: 4,
    }
}

fn manifest() -> Manifest {
    Manifest {
        first_segment: 17,
        next_file: 10,
        released: vec![11, 13],
        places: vec![PlacesFile {
            number: 6,
            size: 8192,
            crc: 0xabcd,
            segment: 13,
            to: Index(44),
            messages: 100,
        }],
        kept: vec![KeptFile { number: 3, size: 4096, crc: 0xdead_beef, since: Index(40) }],
        snapshots: vec![
            SnapshotFile { number: 4, size: 99, crc: 7, index: Index(40), term: Term(2) },
            SnapshotFile { number: 9, size: 98, crc: 8, index: Index(60), term: Term(5) },
        ],
        retired: vec![
            Retired { file: FileId::Segment(11), at: Index(40) },
            Retired { file: FileId::Kept(3), at: Index(60) },
        ],
        is_incomplete: true,
    }
}

fn snapshot_head() -> SnapshotHead {
    SnapshotHead {
        index: Index(60),
        term: Term(5),
        configuration_index: Index(7),
        configuration: cluster().into(),
        stamp_ms: 1_700_000_000_123,
        term_runs: vec![(Index(3), Term(1)), (Index(44), Term(5))],
    }
}

/// A snapshot file with one section, as the writer makes it.
fn snapshot_file() -> Vec<u8> {
    let disk = FakeDisk::new(1);
    let mut writer = crate::SnapshotWriter::create(&disk, 9, &snapshot_head()).unwrap();
    writer.section(b"content").unwrap();
    writer.finish(&disk).unwrap();
    disk.bytes("snapshot-0000000000000009").unwrap()
}

fn head() -> SegmentHead {
    SegmentHead {
        number: 18,
        salt: SALT,
        predecessor: 17,
        predecessor_end: 4096,
        predecessor_sealed: true,
        born_to: 1024,
        first_batch: 33,
        previous_index: Index(70),
        previous_term: Term(6),
    }
}

fn draft() -> Draft {
    let mut draft = Draft::default();
    draft.push_truncation(Index(69), Term(5));
    draft.push_entry(&Entry { index: Index(69), term: Term(6), payload: Payload::Noop });
    draft.push_entry(&Entry { index: Index(70), term: Term(6), payload: Payload::Config(cluster().into()) });
    let command = Payload::Command { meta: "meta".as_bytes().into(), bodies: "bodies".as_bytes().into() };
    draft.push_entry(&Entry { index: Index(71), term: Term(6), payload: command });
    draft
}

/// The bytes of a batch at 512, and of the seal behind it.
fn batch_and_seal() -> (Vec<u8>, Vec<u8>) {
    let disk = FakeDisk::new(1);
    let file = disk.create("x").unwrap();
    let before = draft().identities();
    let context = FrameContext { batch: 33, hard_state: hard(6, 5), identities: &before[3..] };
    draft().write(&*file, SALT, 512, &context, None).unwrap();
    let context = FrameContext { batch: 34, hard_state: hard(6, 0), identities: &before[..1] };
    let seal = encode_seal(SALT, 1024, &context, &draft().places(512, 1)[2..]);
    (disk.bytes("x").unwrap()[512..].to_vec(), seal)
}

#[test]
fn goldens_of_the_small_files() {
    golden(&encode_identity(&identity()), "identity");
    golden(&encode_hard_state(hard(6, 5)), "hard_state");
    golden(&encode_manifest(&manifest()), "manifest");
    golden(&encode_recovery(&super::forced::recovery()), "recovery");
    golden(&snapshot_file(), "snapshot");
    golden(&configuration::encode(&cluster()), "configuration");
}

#[test]
fn goldens_of_the_log() {
    let head = head().encode();
    assert_eq!(head.len(), 512);
    assert!(head[112..].iter().all(|byte| *byte == 0));
    golden(&head[..112], "segment_head");
    let (batch, seal) = batch_and_seal();
    golden(&batch, "batch");
    golden(&seal, "seal");
}

/// The golden of a form as the builds before the first release wrote it.
fn before(name: &str) -> Vec<u8> {
    let path = format!("{}/src/tests/goldens/before/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let digits = std::fs::read_to_string(path).unwrap().replace('\n', "");
    digits
        .as_bytes()
        .chunks(2)
        .map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn what_a_build_before_the_first_release_wrote_is_refused_by_name_and_never_formatted_over() {
    let refused = |disk: &FakeDisk, file: &str| {
        let held = |disk: &FakeDisk| {
            let names = disk.names().into_iter().filter(|name| name != "LOCK");
            names.map(|name| (disk.bytes(&name), name)).collect::<Vec<_>>()
        };
        let before = held(disk);
        let error = open(disk, 2).err().expect("refused");
        assert!(matches!(&error, OpenError::Unreleased { file: found } if found == file), "{error}");
        let said = error.to_string();
        assert!(said.starts_with(file), "{said}");
        assert!(
            said.contains("before the first release") && said.ends_with("start with an empty folder"),
            "{said}"
        );
        assert!(held(disk) == before, "nothing changes");
    };
    let disk = formatted(1);
    drop(open(&disk, 1).unwrap());
    let segment = crate::segment::segment_name(1);
    for (file, golden) in [
        ("IDENTITY", "identity"),
        ("HARDSTATE", "hard_state"),
        ("MANIFEST", "manifest"),
        (&segment, "segment_head"),
    ] {
        let mut bytes = before(golden);
        if file == "HARDSTATE" {
            // Both slots, or only one that a torn write of this build would leave beside a good one.
            for slots in [2, 1] {
                let mut both = disk.bytes(file).unwrap();
                for slot in 0..slots {
                    both[slot * 4096..slot * 4096 + bytes.len()].copy_from_slice(&bytes);
                }
                let old = disk.deep_clone();
                old.put(file, &both);
                refused(&old, file);
            }
        }
        bytes.resize(8192, 0);
        let old = disk.deep_clone();
        old.put(file, &bytes);
        refused(&old, file);
    }
    // The whole folder of such a build, and one that it did not come to the end of formatting.
    let old = FakeDisk::new(1);
    for (file, golden) in [
        ("HARDSTATE", "hard_state"),
        ("IDENTITY", "identity"),
        ("MANIFEST", "manifest"),
        (&segment, "segment_head"),
    ] {
        old.put(file, &before(golden));
        if file == "HARDSTATE" {
            refused(&old, "HARDSTATE");
        }
    }
    refused(&old, "IDENTITY");
    // What follows a head verifies no more either: the mark of a frame is another.
    let (batch, _) = batch_and_seal();
    let mut frame = batch[..88].to_vec();
    frame[..4].copy_from_slice(b"RQFR");
    let crc = crate::format::salted_crc(SALT, &frame[..84]);
    frame[84..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Frame::decode(&frame, SALT, 512), Err(Malformed::Magic));
}

#[test]
fn a_group_that_this_build_does_not_know_is_refused() {
    let mut manifest = encode_manifest(&manifest())[16..].to_vec();
    let mut hard_state = encode_hard_state(hard(6, 5))[16..].to_vec();
    let mut head = head().encode()[16..85].to_vec();
    (manifest[0], hard_state[0], head[48]) = (1, 1, 1);
    let group = Malformed::Field("group");
    assert_eq!(decode_manifest(&wrap(*b"RQmf", &manifest)), Err(group));
    assert_eq!(decode_hard_state(&wrap(*b"RQhs", &hard_state)), Err(group));
    assert_eq!(SegmentHead::decode(&wrap(*b"RQsg", &head)), Err(group));
    let mut snapshot = encode_head(&snapshot_head());
    snapshot[0] = 1;
    assert_eq!(decode_head(&snapshot), Err(group));
    // In records and frames behind salted checksums.
    let (batch, seal) = batch_and_seal();
    let frame = Frame::decode(&batch, SALT, 512).unwrap();
    let mut identities = batch[88..128].to_vec();
    identities[16] = 1;
    let crc = crate::format::salted_crc(SALT, &identities);
    assert_eq!(decode_identities(&identities, SALT, &Frame { identities_crc: crc, ..frame }), Err(group));
    let frame = Frame::decode(&seal, SALT, 1024).unwrap();
    let mut index = seal[128..].to_vec();
    index[16] = 1;
    let crc = crate::format::salted_crc(SALT, &index);
    assert_eq!(decode_index(&index, SALT, &Frame { records_crc: crc, ..frame }), Err(group));
    for (at, size) in [(0, 88), (128, 48)] {
        let mut bytes = batch[at..at + size].to_vec();
        bytes[if size == 88 { 80 } else { 4 }] = 1;
        let salt = if size == 88 { SALT } else { SALT + 640 };
        let crc = crate::format::salted_crc(salt, &bytes[..size - 4]);
        bytes[size - 4..].copy_from_slice(&crc.to_le_bytes());
        let decoded = if size == 88 {
            Frame::decode(&bytes, SALT, 512).err()
        } else {
            RecordHeader::decode(&bytes, SALT, 640).err()
        };
        assert_eq!(decoded, Some(group));
    }
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let refused = |change: &dyn Fn(&mut Manifest), field: &'static str| {
        let mut manifest = manifest();
        change(&mut manifest);
        assert_eq!(decode_manifest(&encode_manifest(&manifest)), Err(Malformed::Field(field)));
    };
    refused(&|manifest| manifest.first_segment = 0, "first segment");
    refused(&|manifest| manifest.released = vec![13, 11], "released segments");
    refused(&|manifest| manifest.first_segment = 13, "released segments");
    refused(&|manifest| manifest.next_file = 9, "file number");
    refused(&|manifest| manifest.kept[0].number = 9, "file number");
    refused(
        &|manifest| manifest.places.extend([PlacesFile { number: 7, ..manifest.places[0] }]),
        "segments of places files",
    );
    refused(&|manifest| manifest.snapshots.swap(0, 1), "snapshots");
    refused(
        &|manifest| manifest.snapshots.insert(0, SnapshotFile { number: 1, ..manifest.snapshots[0] }),
        "snapshots",
    );
    refused(&|manifest| manifest.retired[0].file = FileId::Segment(12), "retired files");
    refused(&|manifest| manifest.retired[1].file = FileId::Kept(6), "retired files");
}

#[test]
fn a_frame_that_would_end_beyond_all_files_is_refused() {
    let whole = Frame::decode(&batch_and_seal().0, SALT, 512).unwrap();
    for (offset, length, identities) in [(u64::MAX - 9, 88, 0), (u64::MAX, 0, u32::MAX), (512, u64::MAX, 0)] {
        let frame = Frame { offset, length, identities, durable_to: 0, ..whole };
        let read = Frame::decode(&frame.encode(SALT), SALT, offset);
        assert_eq!(read, Err(Malformed::Field("frame length")), "{frame:?}");
    }
}

#[test]
fn everything_decodes_to_what_was_encoded() {
    assert_eq!(decode_identity(&encode_identity(&identity())), Ok(identity()));
    assert_eq!(decode_hard_state(&encode_hard_state(hard(6, 5))), Ok(hard(6, 5)));
    assert_eq!(decode_manifest(&encode_manifest(&manifest())), Ok(manifest()));
    assert_eq!(configuration::decode(&configuration::encode(&cluster())), Ok(cluster()));
    assert_eq!(SegmentHead::decode(&head().encode()), Ok(head()));
    assert_eq!(decode_head(&encode_head(&snapshot_head())), Ok(snapshot_head()));
    let (batch, seal) = batch_and_seal();
    let frame = Frame::decode(&batch, SALT, 512).unwrap();
    assert_eq!((frame.batch, frame.records, frame.length), (33, 4, batch.len() as u64));
    let identities = decode_identities(&batch[88..128], SALT, &frame).unwrap();
    assert_eq!(identities, draft().identities()[3..]);
    for place in draft().places(512, 1) {
        let at = place.offset as usize - 512;
        assert_eq!(
            RecordHeader::decode(&batch[at..], SALT, place.offset).unwrap().identity(),
            place.identity
        );
    }
    let frame = Frame::decode(&seal, SALT, 1024).unwrap();
    assert_eq!(decode_index(&seal[128..], SALT, &frame).unwrap(), draft().places(512, 1)[2..]);
}

#[test]
fn salted_checksums_hold_only_under_their_salt_and_place() {
    let (batch, _) = batch_and_seal();
    assert_eq!(Frame::decode(&batch, SALT + 1, 512), Err(Malformed::Checksum));
    assert_eq!(Frame::decode(&batch, SALT, 1024), Err(Malformed::Field("frame offset")));
    assert!(RecordHeader::decode(&batch[128..], SALT, 640).is_ok());
    assert_eq!(RecordHeader::decode(&batch[128..], SALT + 1, 640), Err(Malformed::Checksum));
    assert_eq!(RecordHeader::decode(&batch[128..], SALT, 1152), Err(Malformed::Checksum));
    let frame = Frame::decode(&batch, SALT, 512).unwrap();
    assert_eq!(decode_identities(&batch[88..128], SALT + 1, &frame), Err(Malformed::Checksum));
    // The salt is in the checksum itself, not only beside it: the field set to another salt does not verify either.
    let mut other = batch.clone();
    other[8..16].copy_from_slice(&(SALT + 1).to_le_bytes());
    assert_eq!(Frame::decode(&other, SALT + 1, 512), Err(Malformed::Checksum));
}

#[test]
fn the_frame_tells_valid_headers_of_other_records_from_its_own() {
    let headers = |terms: [u64; 2]| -> Vec<u8> {
        let mut draft = Draft::default();
        for (index, term) in (1..).zip(terms) {
            draft.push_entry(&entry(index, term, 10));
        }
        draft.records.iter().flat_map(|record| record.header.encode(SALT, 640)).collect()
    };
    let all = [[1, 1], [1, 2], [2, 2], [2, 3]].map(|terms| records_crc(SALT, &headers(terms)));
    assert_eq!(std::collections::BTreeSet::from(all).len(), 4);
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let newer = wrap_version(*b"ABCD", 7, b"anything");
    assert_eq!(unwrap(*b"ABCD", &newer), Err(Malformed::Newer { found: 7 }));
    let mut damaged = newer.clone();
    damaged[20] ^= 1;
    assert_eq!(unwrap(*b"ABCD", &damaged), Err(Malformed::Checksum));
    assert_eq!(unwrap(*b"ABCE", &newer), Err(Malformed::Magic));
    assert_eq!(unwrap(*b"ABCD", &wrap(*b"ABCD", b"anything")), Ok(b"anything".as_slice()));
}

/// Runs every decoder; none may panic. True if any took the bytes.
fn decode_all(bytes: &[u8]) -> bool {
    let frame = Frame::decode(bytes, SALT, 512);
    let mut taken = frame.is_ok();
    if let Ok(frame) = &frame {
        let rest = bytes.get(88..).unwrap_or_default();
        taken |= decode_identities(rest, SALT, frame).is_ok() | decode_index(rest, SALT, frame).is_ok();
    }
    taken
        | decode_identity(bytes).is_ok()
        | decode_hard_state(bytes).is_ok()
        | decode_manifest(bytes).is_ok()
        | decode_recovery(bytes).is_ok()
        | SegmentHead::decode(bytes).is_ok()
        | (decode_front(bytes, 9).is_ok() && decode_head(bytes).is_ok())
        | RecordHeader::decode(bytes, SALT, 640).is_ok()
}

fn valid() -> Vec<Vec<u8>> {
    let (batch, seal) = batch_and_seal();
    vec![
        encode_identity(&identity()),
        encode_hard_state(hard(6, 5)),
        encode_manifest(&manifest()),
        head().encode()[..85].to_vec(),
        batch[128..176].to_vec(),
        batch,
        seal,
        encode_recovery(&super::forced::recovery()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_panics_and_never_passes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!decode_all(&bytes));
        let _ = configuration::decode(&bytes);
    }

    #[test]
    fn garbage_behind_a_good_checksum_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        for magic in [*b"RQid", *b"RQhs", *b"RQmf", *b"RQsg", *b"RQrc"] {
            decode_all(&wrap(magic, &payload));
        }
        // A frame and a record header with any fields at all, and checksums that hold.
        for (size, magic) in [(84, b"RQfr".as_slice()), (44, b"")] {
            let mut bytes = [magic, &payload].concat();
            bytes.resize(size, 0);
            if size == 84 {
                bytes[8..16].copy_from_slice(&SALT.to_le_bytes());
            }
            let crc = crate::format::salted_crc(SALT, &bytes);
            bytes.extend_from_slice(&crc.to_le_bytes());
            bytes.extend_from_slice(&payload);
            decode_all(&bytes);
        }
    }

    #[test]
    fn a_changed_or_shortened_form_never_passes(
        which in 0..8_usize, place in any::<prop::sample::Index>(), mask in 1..=255_u8, cut in any::<bool>()
    ) {
        let mut bytes = valid().swap_remove(which);
        let fixed = match which {
            5 | 6 => 88,
            _ => bytes.len(),
        };
        let place = place.index(fixed);
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] ^= mask;
        }
        prop_assert!(!decode_all(&bytes));
    }

    #[test]
    fn a_configuration_survives_its_encoding_and_its_damage_never_panics(
        names in proptest::collection::btree_map(any::<u64>(), ("[a-z]{0,9}", any::<bool>()), 0..9),
        outgoing in proptest::collection::btree_set(any::<u64>(), 0..5),
        version in any::<u32>(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let kind = |is_voter| if is_voter { MemberKind::Voter } else { MemberKind::Learner };
        let member = |(id, (name, is_voter))| (NodeId(id), Member { address: format!("{name}:1"), name, kind: kind(is_voter) });
        let members = names.into_iter().map(member).collect();
        let configuration = Configuration { members, outgoing: outgoing.into_iter().map(NodeId).collect(), version };
        let mut bytes = configuration::encode(&configuration);
        prop_assert_eq!(configuration::decode(&bytes), Ok(configuration));
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok(other) = configuration::decode(&bytes) {
            prop_assert_eq!(configuration::encode(&other), bytes, "one configuration, one encoding");
        }
    }
}
