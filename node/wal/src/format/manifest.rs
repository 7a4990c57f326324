//! MANIFEST: the list of live files, an envelope (see [`super`]) around the fields shown here.

use super::{Cursor, GROUP, Malformed, unwrap, wrap};
use crate::manifest::{FileId, KeptFile, Manifest, PlacesFile, Retired, SNAPSHOTS_MAX, SnapshotFile};
use raftqueue_raft::{Index, Term};

const MANIFEST_MAGIC: [u8; 4] = *b"RQmf";

/// ```text
/// u32 group | u64 first segment | u64 next file
/// u32 released  | each: u64 segment
/// u32 places    | each: u64 number | u64 size | u32 crc | u64 segment | u64 to | u64 messages
/// u32 kept      | each: u64 number | u64 size | u32 crc | u64 since
/// u32 snapshots | each: u64 number | u64 size | u32 crc | u64 index | u64 term
/// u32 retired   | each: u8 kind (1 segment, 2 kept file) | u64 number | u64 at
/// u8 incomplete (0 or 1)
/// ```
pub(crate) fn encode_manifest(manifest: &Manifest) -> Vec<u8> {
    let mut bytes = GROUP.to_le_bytes().to_vec();
    put(&mut bytes, [manifest.first_segment, manifest.next_file]);
    put_count(&mut bytes, manifest.released.len());
    put(&mut bytes, manifest.released.iter().copied());
    put_count(&mut bytes, manifest.places.len());
    for PlacesFile { number, size, crc, segment, to, messages } in &manifest.places {
        put_file(&mut bytes, *number, *size, *crc);
        put(&mut bytes, [*segment, to.0, *messages]);
    }
    put_count(&mut bytes, manifest.kept.len());
    for KeptFile { number, size, crc, since } in &manifest.kept {
        put_file(&mut bytes, *number, *size, *crc);
        put(&mut bytes, [since.0]);
    }
    put_count(&mut bytes, manifest.snapshots.len());
    for SnapshotFile { number, size, crc, index, term } in &manifest.snapshots {
        put_file(&mut bytes, *number, *size, *crc);
        put(&mut bytes, [index.0, term.0]);
    }
    put_count(&mut bytes, manifest.retired.len());
    for Retired { file, at } in &manifest.retired {
        let (kind, number) = match file {
            FileId::Segment(number) => (1, *number),
            FileId::Kept(number) => (2, *number),
        };
        bytes.push(kind);
        put(&mut bytes, [number, at.0]);
    }
    bytes.push(u8::from(manifest.is_incomplete));
    wrap(MANIFEST_MAGIC, &bytes)
}

fn put(bytes: &mut Vec<u8>, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
}

fn put_file(bytes: &mut Vec<u8>, number: u64, size: u64, crc: u32) {
    put(bytes, [number, size]);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("far fewer files than 4 billion");
    bytes.extend_from_slice(&count.to_le_bytes());
}

pub(crate) fn decode_manifest(bytes: &[u8]) -> Result<Manifest, Malformed> {
    let mut cursor = Cursor(unwrap(MANIFEST_MAGIC, bytes)?);
    cursor.group()?;
    let mut manifest =
        Manifest { first_segment: cursor.u64()?, next_file: cursor.u64()?, ..Manifest::default() };
    for _ in 0..cursor.u32()? {
        manifest.released.push(cursor.u64()?);
    }
    for _ in 0..cursor.u32()? {
        manifest.places.push(PlacesFile {
            number: cursor.u64()?,
            size: cursor.u64()?,
            crc: cursor.u32()?,
            segment: cursor.u64()?,
            to: Index(cursor.u64()?),
            messages: cursor.u64()?,
        });
    }
    for _ in 0..cursor.u32()? {
        manifest.kept.push(KeptFile {
            number: cursor.u64()?,
            size: cursor.u64()?,
            crc: cursor.u32()?,
            since: Index(cursor.u64()?),
        });
    }
    for _ in 0..cursor.u32()? {
        manifest.snapshots.push(SnapshotFile {
            number: cursor.u64()?,
            size: cursor.u64()?,
            crc: cursor.u32()?,
            index: Index(cursor.u64()?),
            term: Term(cursor.u64()?),
        });
    }
    for _ in 0..cursor.u32()? {
        let file = match cursor.u8()? {
            1 => FileId::Segment(cursor.u64()?),
            2 => FileId::Kept(cursor.u64()?),
            _ => return Err(Malformed::Field("kind of a retired file")),
        };
        manifest.retired.push(Retired { file, at: Index(cursor.u64()?) });
    }
    manifest.is_incomplete = cursor.bool("incomplete")?;
    cursor.end("manifest length")?;
    check(&manifest).map_err(Malformed::Field)?;
    Ok(manifest)
}

/// What must hold of every manifest that this build writes; the name of the field where it does not.
fn check(manifest: &Manifest) -> Result<(), &'static str> {
    let Manifest { first_segment, next_file, released, places, kept, snapshots, retired, .. } = manifest;
    let is_rising = |numbers: &[u64]| numbers.is_sorted_by(|one, next| one < next);
    if *first_segment == 0 {
        return Err("first segment");
    }
    if !is_rising(released) || released.last().is_some_and(|last| last >= first_segment) {
        return Err("released segments");
    }
    let numbers = places.iter().map(|file| file.number).chain(kept.iter().map(|file| file.number));
    let mut numbers: Vec<u64> = numbers.chain(snapshots.iter().map(|file| file.number)).collect();
    numbers.sort_unstable();
    if !is_rising(&numbers) || numbers.last().is_some_and(|last| last >= next_file) {
        return Err("file number");
    }
    let segments: Vec<u64> = places.iter().map(|file| file.segment).collect();
    if !is_rising(&segments) {
        return Err("segments of places files");
    }
    if snapshots.len() > SNAPSHOTS_MAX || !snapshots.is_sorted_by_key(|file| file.index) {
        return Err("snapshots");
    }
    let is_known = |retired: &Retired| match retired.file {
        FileId::Segment(number) => number >= *first_segment || released.binary_search(&number).is_ok(),
        FileId::Kept(number) => kept.iter().any(|file| file.number == number),
    };
    if retired.iter().all(is_known) { Ok(()) } else { Err("retired files") }
}
