//! Makes checksums right in bytes that a fuzzer made, and leaves everything else as it is.

use crate::format::part_crc;
use crate::format::places::{
    BLOCK_BYTES, ENTRY_BYTES, HEAD_BYTES, PAGE_BLOCKS, PAGE_BYTES, TAIL_BYTES, page_count,
};
use crate::format::salted_crc;
use crate::format::segment::{FRAME_BYTES, IDENTITY_BYTES, INDEXED_BYTES, RECORD_BYTES, records_crc};
use crate::format::snapshot::{FRONT_BYTES, SECTION_HEAD_BYTES, decode_section_head, section_crc};
use std::ops::Range;

const FRAME: usize = FRAME_BYTES as usize;
const RECORD: usize = RECORD_BYTES as usize;
const SECTOR: usize = 512;
/// Bytes in the envelope of a segment's head, of the head of a places file (all that is left of its sector), and of its tail.
const SEGMENT_HEAD: usize = 69;
const PLACES_HEAD: usize = HEAD_BYTES as usize - 16;
const PLACES_TAIL: usize = TAIL_BYTES as usize - 16;
/// What a byte before a segment leaves unsealed: its head, its frames, its records.
const OPEN_HEAD: u8 = 1;
const OPEN_FRAMES: u8 = 2;
const OPEN_RECORDS: u8 = 4;

/// The number at a place, if there are bytes for it.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?))
}

fn small(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..).and_then(<[u8]>::first_chunk::<4>).map_or(0, |four| u32::from_le_bytes(*four) as usize)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(value.len())) {
        place.copy_from_slice(value);
    }
}

/// The range from `at` of so many bytes, if they are there.
fn range(bytes: &[u8], at: usize, count: usize) -> Option<Range<usize>> {
    let end = at.checked_add(count)?;
    (end <= bytes.len()).then_some(at..end)
}

/// The envelope at a place, of this version, around so many bytes.
fn envelope(bytes: &mut [u8], at: usize, magic: &[u8; 4], payload: usize) {
    let Some(whole) = range(bytes, at, 16 + payload) else { return };
    put(bytes, at, magic);
    put(bytes, at + 4, &1u32.to_le_bytes());
    put(bytes, at + 8, &(payload as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[at..at + 12]), &bytes[at + 16..whole.end]);
    put(bytes, at + 12, &crc.to_le_bytes());
}

/// A frame at the front of the bytes.
pub(super) fn frame(bytes: &mut [u8], salt: u64) {
    put(bytes, 0, b"RQfr");
    put(bytes, 8, &salt.to_le_bytes());
    let crc = salted_crc(salt, &bytes[..84]);
    put(bytes, 84, &crc.to_le_bytes());
}

/// A frame of a batch without records.
pub(super) fn empty_frame(salt: u64) -> [u8; FRAME] {
    let mut bytes = [0; FRAME];
    bytes[4] = 1;
    bytes[32] = FRAME as u8;
    frame(&mut bytes, salt);
    bytes
}

/// The record at a place; says where the next one begins.
pub(super) fn record(bytes: &mut [u8], at: usize, salt: u64) -> Option<usize> {
    range(bytes, at, RECORD)?;
    let (meta, bodies) = (small(bytes, at + 24), small(bytes, at + 32));
    if let (Some(meta), Some(bodies)) =
        (range(bytes, at + RECORD, meta), range(bytes, at + RECORD + meta, bodies))
    {
        let (meta, bodies) = (part_crc(&bytes[meta]), part_crc(&bytes[bodies]));
        put(bytes, at + 28, &meta.to_le_bytes());
        put(bytes, at + 36, &bodies.to_le_bytes());
    }
    let entry = crc32c::crc32c_append(crc32c::crc32c(&bytes[at..=at]), &bytes[at + 24..at + 40]);
    put(bytes, at + 40, &entry.to_le_bytes());
    let crc = salted_crc(salt, &bytes[at..at + 44]);
    put(bytes, at + 44, &crc.to_le_bytes());
    Some(at + (RECORD + meta + bodies).next_multiple_of(8))
}

/// A segment with all of its batches, but for what the flags leave open.
pub(super) fn segment(bytes: &mut [u8], flags: u8) {
    if flags & OPEN_HEAD == 0 {
        envelope(bytes, 0, b"RQsg", SEGMENT_HEAD);
    }
    let salt = number(bytes, 24).unwrap_or_default();
    for at in (SECTOR..bytes.len()).step_by(SECTOR) {
        if bytes.len() - at < FRAME || &bytes[at..at + 4] != b"RQfr" || flags & OPEN_FRAMES != 0 {
            continue;
        }
        put(bytes, at + 24, &(at as u64).to_le_bytes());
        let (records, identities) = (small(bytes, at + 64), small(bytes, at + 68));
        let copies = identities.saturating_mul(IDENTITY_BYTES as usize);
        let mut next = at + FRAME + copies;
        if let Some(copies) = range(bytes, at + FRAME, copies) {
            let crc = salted_crc(salt, &bytes[copies]);
            put(bytes, at + 72, &crc.to_le_bytes());
        }
        if bytes[at + 4] == 2 {
            if let Some(index) = range(bytes, next, records.saturating_mul(INDEXED_BYTES as usize)) {
                let crc = salted_crc(salt, &bytes[index]);
                put(bytes, at + 76, &crc.to_le_bytes());
            }
        } else if flags & OPEN_RECORDS == 0 {
            let mut headers = Vec::new();
            for _ in 0..records {
                let Some(behind) = record(bytes, next, salt.wrapping_add(next as u64)) else { break };
                headers.extend_from_slice(&bytes[next..next + RECORD]);
                next = behind;
            }
            let crc = records_crc(salt, &headers);
            put(bytes, at + 76, &crc.to_le_bytes());
        }
        frame(&mut bytes[at..], salt);
    }
}

/// Snapshot `file`: its front and every section that can be found. Gives the checksum of its head.
pub(super) fn snapshot(bytes: &mut [u8], file: u64) -> u32 {
    if bytes.len() < FRONT_BYTES {
        return 0;
    }
    put(bytes, 0, b"RQsn");
    put(bytes, 8, &file.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..16]);
    put(bytes, 16, &crc.to_le_bytes());
    let (mut at, mut head_crc) = (FRONT_BYTES, 0);
    for ordinal in 0.. {
        let Some(head) = range(bytes, at, SECTION_HEAD_BYTES) else { break };
        let Ok((length, _, kind)) = decode_section_head(&bytes[head.clone()]) else { break };
        let Some(content) = range(bytes, head.end, length) else { break };
        let crc = section_crc(file, ordinal, kind, &bytes[content.clone()]);
        put(bytes, at + 4, &crc.to_le_bytes());
        if ordinal == 0 {
            head_crc = crc;
        }
        at = content.end;
    }
    head_crc
}

/// Places file or kept file `file`: head, bodies that blocks name, pages that the directory names, tables and tail.
pub(super) fn places(bytes: &mut [u8], file: u64) {
    let Some(tail) = bytes.len().checked_sub(TAIL_BYTES as usize) else { return };
    envelope(bytes, 0, b"RQPL", PLACES_HEAD);
    put(bytes, tail + 16, &file.to_le_bytes());
    let at = |bytes: &[u8], field: usize| {
        number(bytes, tail + 16 + 8 * field).and_then(|at| usize::try_from(at).ok()).unwrap_or(usize::MAX)
    };
    let (topics_at, directory_at) = (at(bytes, 1), at(bytes, 3));
    let is_kept = bytes.get(16) == Some(&2);
    for entry in (directory_at.min(tail)..tail).step_by(ENTRY_BYTES as usize) {
        let page = number(bytes, entry + 24).and_then(|at| usize::try_from(at).ok());
        let Some(page) = page.and_then(|at| range(bytes, at, PAGE_BYTES as usize)) else { continue };
        page_of(bytes, page, file, is_kept);
    }
    for (table, field) in [(topics_at..directory_at, 64), (directory_at..tail, 68)] {
        if table.start <= table.end && table.end <= tail {
            let crc = crc32c::crc32c(&bytes[table]);
            put(bytes, tail + field, &crc.to_le_bytes());
        }
    }
    envelope(bytes, tail, b"RQPT", PLACES_TAIL);
}

fn page_of(bytes: &mut [u8], page: Range<usize>, file: u64, is_kept: bool) {
    for at in 0..page_count(&bytes[page.clone()]).min(PAGE_BLOCKS) {
        let block = page.start + BLOCK_BYTES * (at + 1);
        let body = number(bytes, block + 24).zip(number(bytes, block + 48));
        let body =
            body.and_then(|(at, size)| range(bytes, usize::try_from(at).ok()?, usize::try_from(size).ok()?));
        if let Some(body) = body.filter(|_| is_kept) {
            let crc = crc32c::crc32c(&bytes[body]);
            put(bytes, block + 20, &crc.to_le_bytes());
        }
    }
    let seed = crc32c::crc32c(&file.to_le_bytes());
    let seed = crc32c::crc32c_append(seed, &(page.start as u64).to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &bytes[page.start + 4..page.end]);
    put(bytes, page.start, &crc.to_le_bytes());
}
