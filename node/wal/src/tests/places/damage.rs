//! Damage anywhere: named, never a panic, never a wrong answer.

use super::*;
use crate::{ReadError, RottenPart};
use std::collections::BTreeSet;

/// Asks for everything; says which parts were found damaged.
fn parts(places: &Places, model: &Model) -> BTreeSet<RottenPart> {
    let mut parts = BTreeSet::new();
    let mut rot = |error: ReadError| match error {
        ReadError::Rot(rotten) => {
            assert_eq!(rotten.file, places.kind().file_name(places.number()));
            parts.insert(rotten.part);
        }
        other => panic!("{other}"),
    };
    for (expected, body) in model.values() {
        match places.find(expected.topic, expected.first_offset) {
            Ok(found) => {
                let found = found.expect("it is there");
                assert!(same(&found, expected), "{found:?} is not {expected:?}");
                if places.kind() == PlacesKind::Kept {
                    match places.body(&found) {
                        Ok(found) => assert_eq!(found, *body),
                        Err(error) => rot(error),
                    }
                }
            }
            Err(error) => rot(error),
        }
    }
    let mut expected = model.values();
    for block in places.all_blocks() {
        match block {
            Ok(block) => assert!(expected.any(|(expected, _)| same(&block, expected)), "{block:?}"),
            Err(error) => rot(error),
        }
    }
    (0..places.pages()).for_each(|page| assert!(places.page(page).is_ok() || !parts.is_empty()));
    parts
}

fn part_of(error: &OpenError, name: &str) -> RottenPart {
    match error {
        OpenError::Rot { places } => {
            assert_eq!(places[0].file, name);
            assert!(error.to_string().contains(name), "{error}");
            places[0].part
        }
        other => panic!("{other}"),
    }
}

#[test]
fn damage_at_any_byte_is_named_and_never_a_wrong_answer() {
    for kind in [PlacesKind::Kept, PlacesKind::Segment(9)] {
        let disk = FakeDisk::new(1);
        let model = plain(kind, 70);
        let written = write(&disk, kind, 5, &model).unwrap();
        let name = kind.file_name(5);
        let mut met = BTreeSet::new();
        for offset in 0..written.size {
            let mask = 1 << (offset % 8);
            assert!(disk.corrupt(&name, offset, mask));
            let parts = match open(&disk, kind, written, 1 << 20) {
                Ok(places) => parts(&places, &model),
                Err(error) => BTreeSet::from([part_of(&error, &name)]),
            };
            let is_gap = kind == PlacesKind::Segment(9) && (512..4096).contains(&offset);
            assert_eq!(parts.len(), usize::from(!is_gap), "byte {offset}: {parts:?}");
            met.extend(parts);
            assert!(disk.corrupt(&name, offset, mask), "and back");
        }
        let mut all = BTreeSet::from([
            RottenPart::Head,
            RottenPart::Page,
            RottenPart::Topics,
            RottenPart::Directory,
            RottenPart::Tail,
        ]);
        all.extend((kind == PlacesKind::Kept).then_some(RottenPart::KeptBody));
        assert_eq!(met, all);
    }
}

#[test]
fn a_file_that_was_cut_off_or_grew_does_not_open() {
    let disk = FakeDisk::new(1);
    let model = plain(PlacesKind::Kept, 70);
    let written = write(&disk, PlacesKind::Kept, 5, &model).unwrap();
    let (name, whole) = (PlacesKind::Kept.file_name(5), disk.bytes("kept-0000000000000005").unwrap());
    for size in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        disk.put(&name, &whole[..size]);
        part_of(&open(&disk, PlacesKind::Kept, written, 0).unwrap_err(), &name);
        // Nor if the length were taken for right.
        let shorter = Written { size: size as u64, ..written };
        part_of(&open(&disk, PlacesKind::Kept, shorter, 0).unwrap_err(), &name);
    }
    disk.put(&name, &[whole.as_slice(), b"more"].concat());
    assert_eq!(part_of(&open(&disk, PlacesKind::Kept, written, 0).unwrap_err(), &name), RottenPart::Tail);
    let longer = Written { size: written.size + 4, ..written };
    assert_eq!(part_of(&open(&disk, PlacesKind::Kept, longer, 0).unwrap_err(), &name), RottenPart::Tail);
}

#[test]
fn another_file_under_the_name_is_not_taken_for_it() {
    let disk = FakeDisk::new(1);
    let (kept, places) = (PlacesKind::Kept, PlacesKind::Segment(9));
    let written = write(&disk, kept, 5, &plain(kept, 70)).unwrap();
    let other = write(&disk, kept, 6, &plain(kept, 70)).unwrap();
    let name = kept.file_name(5);
    let bytes = disk.bytes(&name).unwrap();
    disk.put(&name, &disk.bytes(&kept.file_name(6)).unwrap());
    assert_eq!(
        part_of(&open(&disk, kept, Written { number: 5, ..other }, 0).unwrap_err(), &name),
        RottenPart::Head
    );
    disk.put(&name, &bytes);
    let crc = written.crc ^ 1;
    assert_eq!(
        part_of(&open(&disk, kept, Written { crc, ..written }, 0).unwrap_err(), &name),
        RottenPart::Tail
    );
    let size = written.size + 8;
    assert_eq!(
        part_of(&open(&disk, kept, Written { size, ..written }, 0).unwrap_err(), &name),
        RottenPart::Tail
    );
    let of_segment = write(&disk, places, 7, &plain(places, 70)).unwrap();
    let other = PlacesKind::Segment(8);
    let refused = open(&disk, other, of_segment, 0).unwrap_err();
    assert_eq!(part_of(&refused, &other.file_name(7)), RottenPart::Head, "the places of another segment");
    disk.take(&name);
    let missing = open(&disk, kept, written, 0).unwrap_err();
    assert!(missing.to_string().contains(&name), "{missing}");
}

#[test]
fn a_page_of_another_place_never_verifies() {
    let disk = FakeDisk::new(1);
    let kind = PlacesKind::Segment(9);
    let model = plain(kind, 130);
    let written = write(&disk, kind, 5, &model).unwrap();
    write(&disk, kind, 6, &model).unwrap();
    let (name, other) = (kind.file_name(5), disk.bytes(&kind.file_name(6)).unwrap());
    let mine = disk.bytes(&name).unwrap();
    // The same blocks, written to another file: a write that was meant for that one.
    assert!(disk.smear(&name, 4096, &other[4096..8192]));
    let places = open(&disk, kind, written, 0).unwrap();
    assert!(matches!(places.page(0), Err(ReadError::Rot(rotten)) if rotten.offset == 4096));
    assert!(places.page(1).is_ok());
    let read = places.all_blocks().filter(Result::is_ok).count();
    assert_eq!((read, places.all_blocks().count()), (130 - 63, 130 - 63 + 1), "the other pages are read");
    // The page behind it, one place too early.
    assert!(disk.smear(&name, 4096, &mine[8192..12288]));
    assert!(matches!(places.page(0), Err(ReadError::Rot(_))));
}

#[test]
fn bytes_that_rot_on_reading_are_read_again() {
    let disk = FakeDisk::new(1);
    let model = plain(PlacesKind::Kept, 10);
    let places = file(&disk, PlacesKind::Kept, 5, &model);
    disk.rot_reads(1);
    assert!(places.page(0).is_err(), "and what is damaged is not kept");
    check(&places, &model);
}
