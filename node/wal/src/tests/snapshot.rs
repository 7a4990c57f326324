//! Snapshot files: what is written is read back, and whatever happens to one is called by its name.

use crate::disk::Disk;
use crate::disk::fake::{FakeDisk, Operation, Refusal};
use crate::format::Malformed;
use crate::{SECTION_BYTES_MAX, SnapshotError, SnapshotFile, SnapshotHead, SnapshotReader, SnapshotWriter};
use bytes::Bytes;
use proptest::prelude::*;
use raftqueue_raft::{Configuration, Index, Term};
use std::io;

const NAME: &str = "snapshot-0000000000000005";

fn head() -> SnapshotHead {
    SnapshotHead {
        index: Index(40),
        term: Term(3),
        configuration_index: Index(1),
        configuration: Configuration::default().into(),
        stamp_ms: 12,
        term_runs: vec![(Index(1), Term(3))],
    }
}

fn write(disk: &FakeDisk, number: u64, sections: &[Vec<u8>]) -> io::Result<SnapshotFile> {
    let mut writer = SnapshotWriter::create(disk, number, &head())?;
    for section in sections {
        if let Err(error) = writer.section(section) {
            writer.abandon(disk);
            return Err(error);
        }
    }
    let size = writer.size();
    let file = writer.finish(disk)?;
    assert!(file.size > size, "and the tail");
    Ok(file)
}

/// Every section, as far as they can be read; then what went wrong, if anything did.
fn read(disk: &FakeDisk, file: &SnapshotFile) -> (Vec<Bytes>, Result<SnapshotHead, SnapshotError>) {
    let mut sections = Vec::new();
    let opened = SnapshotReader::open(disk, file);
    let done = opened.and_then(|(head, mut reader)| {
        while let Some(section) = reader.next()? {
            sections.push(section);
        }
        assert!(matches!(reader.next(), Ok(None)), "the end stays the end");
        Ok(head)
    });
    (sections, done)
}

fn some_sections() -> Vec<Vec<u8>> {
    vec![vec![1; 300], vec![], vec![7; 300], vec![3; 10], vec![4; 70]]
}

#[test]
fn a_snapshot_is_durable_once_finished_and_has_its_size_and_head_in_what_the_manifest_keeps() {
    let disk = FakeDisk::new(1);
    // More than one write, more than one sync, and a section of every size that matters.
    let mut sections: Vec<Vec<u8>> = (0..12_u8).map(|fill| vec![fill; SECTION_BYTES_MAX]).collect();
    sections.extend(some_sections());
    let syncs = disk.calls_of(Operation::Sync);
    let file = write(&disk, 5, &sections).unwrap();
    assert!(disk.calls_of(Operation::Sync) - syncs >= 2, "never all of it with one sync");
    assert_eq!(file.size, disk.bytes(NAME).unwrap().len() as u64);
    assert_eq!((file.number, file.index, file.term), (5, Index(40), Term(3)));
    let (found, done) = read(&disk.durable_view(), &file);
    assert_eq!(done.unwrap(), head());
    assert!(found == sections);
}

#[test]
fn every_changed_bit_is_noticed_and_nothing_damaged_is_given() {
    let disk = FakeDisk::new(1);
    let sections = some_sections();
    let file = write(&disk, 5, &sections).unwrap();
    for offset in 0..file.size {
        for bit in 0..8 {
            let damaged = disk.deep_clone();
            assert!(damaged.corrupt(NAME, offset, 1 << bit));
            let (found, done) = read(&damaged, &file);
            assert!(sections.starts_with(&found.iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>()));
            match done {
                Err(SnapshotError::Damaged { file, offset: at, .. }) => {
                    assert!(file == NAME && at <= offset, "{at} for {offset}");
                }
                other => panic!("{offset}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_missing_a_truncated_a_longer_and_a_newer_one_have_errors_of_their_own() {
    let disk = FakeDisk::new(1);
    let file = write(&disk, 5, &some_sections()).unwrap();
    let said = |disk: &FakeDisk, file: &SnapshotFile| read(disk, file).1.unwrap_err();

    let missing = said(&disk, &SnapshotFile { number: 6, ..file });
    assert_eq!(missing.to_string(), "snapshot-0000000000000006 is missing");
    let whole = disk.bytes(NAME).unwrap();
    for size in 0..whole.len() {
        let cut = FakeDisk::new(1);
        cut.put(NAME, &whole[..size]);
        match said(&cut, &file) {
            SnapshotError::Truncated { size: found, expected, .. } => {
                assert_eq!((found, expected), (size as u64, file.size));
            }
            other => panic!("{other}"),
        }
        // Where only the file itself says how long it is: never the end.
        let (_, done) = read(&cut, &SnapshotFile { size: size as u64, ..file });
        assert!(matches!(done, Err(SnapshotError::Damaged { .. })), "{size}");
    }
    disk.put(NAME, &[whole.as_slice(), b"x"].concat());
    assert!(matches!(said(&disk, &file), SnapshotError::Damaged { offset, .. } if offset == file.size));
    let longer = SnapshotFile { size: file.size + 1, ..file };
    assert!(matches!(said(&disk, &longer), SnapshotError::Damaged { .. }), "bytes behind the tail");

    let mut newer = whole.clone();
    newer[4] = 2;
    let crc = crc32c::crc32c(&newer[..16]);
    newer[16..20].copy_from_slice(&crc.to_le_bytes());
    disk.put(NAME, &newer);
    let error = said(&disk, &file);
    assert!(matches!(error, SnapshotError::Newer { found: 2, supported: 1, .. }));
    assert_eq!(error.to_string(), format!("{NAME} has format version 2, this build reads up to 1"));
    newer.truncate(200);
    disk.put(NAME, &newer);
    let longer = SnapshotFile { size: 200, ..file };
    assert!(matches!(said(&disk, &longer), SnapshotError::Newer { .. }), "of another length, too");

    disk.put(NAME, &whole);
    disk.inject(Refusal {
        operation: Operation::Read,
        file_prefix: "snapshot-".into(),
        skip: 0,
        count: 1,
        error: io::ErrorKind::Other,
    });
    assert!(matches!(said(&disk, &file), SnapshotError::Io { .. }));
}

#[test]
fn a_snapshot_or_a_section_in_the_place_of_another_does_not_verify() {
    let disk = FakeDisk::new(1);
    let file = write(&disk, 5, &some_sections()).unwrap();
    let other = write(&disk, 6, &some_sections()).unwrap();
    let whole = disk.bytes(NAME).unwrap();
    // The file of another number under this name, and what the manifest says of another.
    disk.put(NAME, &disk.bytes("snapshot-0000000000000006").unwrap());
    assert!(matches!(
        read(&disk, &file).1,
        Err(SnapshotError::Damaged { reason: Malformed::Field("snapshot number"), .. })
    ));
    disk.put(NAME, &whole);
    assert!(matches!(
        read(&disk, &SnapshotFile { crc: other.crc, ..file }).1,
        Err(SnapshotError::Damaged { .. })
    ));
    assert!(matches!(
        read(&disk, &SnapshotFile { index: Index(41), ..file }).1,
        Err(SnapshotError::Damaged { .. })
    ));
    // The first and the third section are of one length: exchanged, and one written over the other.
    let at =
        |fill: u8| whole.windows(300).position(|bytes| bytes.iter().all(|byte| *byte == fill)).unwrap() - 9;
    let (first, third) = (at(1), at(7));
    for both in [true, false] {
        let mut mixed = whole.clone();
        mixed[third..third + 309].copy_from_slice(&whole[first..first + 309]);
        if both {
            mixed[first..first + 309].copy_from_slice(&whole[third..third + 309]);
        }
        disk.put(NAME, &mixed);
        let (found, done) = read(&disk, &file);
        assert!(matches!(done, Err(SnapshotError::Damaged { reason: Malformed::Checksum, .. })), "{done:?}");
        assert_eq!(found.len(), if both { 0 } else { 2 });
    }
    // A section left out, with all that is left whole.
    let mut shorter = whole[..third].to_vec();
    shorter.extend_from_slice(&whole[third + 309..]);
    disk.put(NAME, &shorter);
    assert!(matches!(
        read(&disk, &SnapshotFile { size: file.size - 309, ..file }).1,
        Err(SnapshotError::Damaged { .. })
    ));
}

#[test]
fn a_full_disk_gives_back_the_room_and_the_next_snapshot_succeeds() {
    let sections: Vec<Vec<u8>> = (0..4_u8).map(|fill| vec![fill; 600_000]).collect();
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::SyncDir] {
        for skip in 0.. {
            let disk = FakeDisk::new(1);
            let error = io::ErrorKind::StorageFull;
            disk.inject(Refusal { operation, file_prefix: String::new(), skip, count: 1, error });
            let before = disk.calls_of(operation);
            if write(&disk, 5, &sections).is_ok() {
                assert!(disk.calls_of(operation) - before <= skip);
                break;
            }
            assert_eq!(disk.names(), Vec::<String>::new(), "{operation:?} {skip}");
            let file = write(&disk, 6, &sections).unwrap();
            assert!(read(&disk.durable_view(), &file).1.is_ok());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sections_come_back_as_they_were(
        sizes in proptest::collection::vec(prop_oneof![0..50_usize, 0..300_000_usize], 0..12), seed in any::<u8>()
    ) {
        let disk = FakeDisk::new(1);
        let sections: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(place, size)| vec![seed.wrapping_add(place as u8); *size]).collect();
        let file = write(&disk, 5, &sections).unwrap();
        let (found, done) = read(&disk.durable_view(), &file);
        prop_assert_eq!(done.unwrap(), head());
        prop_assert!(found == sections);
    }

    #[test]
    fn garbage_is_damage_and_never_a_panic(
        garbage in proptest::collection::vec(any::<u8>(), 0..400), keep in any::<prop::sample::Index>()
    ) {
        let disk = FakeDisk::new(1);
        let file = write(&disk, 5, &some_sections()).unwrap();
        let mut bytes = disk.bytes(NAME).unwrap();
        bytes.truncate(keep.index(bytes.len()));
        bytes.extend_from_slice(&garbage);
        disk.put(NAME, &bytes);
        let (_, done) = read(&disk, &SnapshotFile { size: bytes.len() as u64, ..file });
        prop_assert!(done.is_err());
    }
}

#[test]
fn an_allocation_follows_what_the_file_has_and_not_what_it_says() {
    // A section head that promises a MiB in a file of a few bytes.
    let disk = FakeDisk::new(1);
    let file = write(&disk, 5, &[]).unwrap();
    let mut bytes = disk.bytes(NAME).unwrap();
    bytes[20..24].copy_from_slice(&(1_u32 << 20).to_le_bytes());
    disk.put(NAME, &bytes);
    assert!(matches!(read(&disk, &file).1, Err(SnapshotError::Damaged { reason: Malformed::Short, .. })));
    bytes[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
    disk.put(NAME, &bytes);
    assert!(matches!(
        read(&disk, &file).1,
        Err(SnapshotError::Damaged { reason: Malformed::Field("section length"), .. })
    ));
    assert!(Disk::list(&disk).unwrap().len() == 1);
}
