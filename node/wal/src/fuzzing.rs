//! What is asked of the decoders of this crate when they are fuzzed: `tests/fuzz` has a target for each function here.
//!
//! Each takes any bytes at all. It panics where a promise is broken: a decoder panics, or what was read is not what is
//! written again. Nearly everything on a disk has a checksum, which no fuzzer guesses. So a function also makes the
//! checksums right (`seal`) before it decodes: what a decoder must withstand is what stands behind them.

mod files;
mod seal;
mod seeds;

pub use files::{log, places, snapshot};
pub use seeds::seeds;

use crate::format::manifest::{decode_manifest, encode_manifest};
use crate::format::recovery::{decode_recovery, encode_recovery};
use crate::format::segment::{
    FRAME_BYTES, Frame, RECORD_BYTES, RecordHeader, SegmentHead, decode_identities, decode_index,
};
use crate::format::small::{decode_hard_state, decode_identity, encode_hard_state, encode_identity};
use crate::format::{Malformed, configuration as configurations, salted_crc, wrap};
use std::fmt::Debug;

/// IDENTITY, HARDSTATE, MANIFEST and RECOVERY: the first byte says which, the rest is what stands in its envelope.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn small_files(data: &[u8]) {
    let Some((kind, payload)) = data.split_first() else { return };
    match kind % 4 {
        0 => comes_back(*b"RQid", payload, decode_identity, encode_identity),
        1 => comes_back(*b"RQhs", payload, decode_hard_state, |state| encode_hard_state(*state)),
        2 => comes_back(*b"RQmf", payload, decode_manifest, encode_manifest),
        _ => comes_back(*b"RQrc", payload, decode_recovery, encode_recovery),
    }
}

/// A small file whose envelope is any bytes, and one whose envelope verifies.
fn comes_back<T: PartialEq + Debug>(
    magic: [u8; 4],
    payload: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, Malformed>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let _ = decode(payload);
    let bytes = wrap(magic, payload);
    if let Ok(value) = decode(&bytes) {
        assert_eq!(encode(&value), bytes, "{value:?} is written as it was read");
    }
}

/// A cluster configuration: only what is written in the one way that there is can be read.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn configuration(data: &[u8]) {
    if let Ok(configuration) = configurations::decode(data) {
        assert_eq!(
            configurations::encode(&configuration),
            data,
            "{configuration:?} is written as it was read"
        );
    }
}

/// The parts of a segment, each by itself: the first byte says which, the next eight are the salt.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn segment(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    let Some((salt, rest)) = rest.split_first_chunk::<8>() else { return };
    let salt = u64::from_le_bytes(*salt);
    match kind % 4 {
        0 => {
            let _ = SegmentHead::decode(rest);
            if let Ok(head) = SegmentHead::decode(&wrap(*b"RQsg", rest)) {
                assert_eq!(SegmentHead::decode(&head.encode()), Ok(head));
            }
        }
        1 => {
            let offset = seal::number(rest, 24).unwrap_or_default();
            let _ = Frame::decode(rest, salt, offset);
            let mut bytes = rest.to_vec();
            if bytes.len() < FRAME_BYTES as usize {
                return;
            }
            seal::frame(&mut bytes, salt);
            if let Ok(frame) = Frame::decode(&bytes, salt, offset) {
                assert_eq!(&frame.encode(salt)[..], &bytes[..FRAME_BYTES as usize]);
                copies(&bytes[FRAME_BYTES as usize..], salt, frame);
            }
        }
        2 => {
            let offset = u64::from(kind);
            let _ = RecordHeader::decode(rest, salt, offset);
            let mut bytes = rest.to_vec();
            seal::record(&mut bytes, 0, salt.wrapping_add(offset));
            if let Ok(header) = RecordHeader::decode(&bytes, salt, offset) {
                assert_eq!(&header.encode(salt, offset)[..], &bytes[..RECORD_BYTES as usize]);
                assert!(header.identity().record_bytes() >= RECORD_BYTES);
            }
        }
        _ => {
            let frame = Frame::decode(&seal::empty_frame(salt), salt, 0).expect("one without anything");
            copies(rest, salt, frame);
        }
    }
}

/// What stands behind a frame, as the identities and as the index that it introduces: as many as there are bytes for, and as
/// many as the frame says.
fn copies(bytes: &[u8], salt: u64, frame: Frame) {
    let crc = salted_crc(salt, bytes);
    let frame = Frame { identities_crc: crc, records_crc: crc, ..frame };
    for (identities, records) in
        [(frame.identities, frame.records), ((bytes.len() / 40) as u32, (bytes.len() / 48) as u32)]
    {
        let frame = Frame { identities, records, ..frame };
        let mut written = Vec::new();
        if let Ok(read) = decode_identities(bytes, salt, &frame) {
            read.iter().for_each(|identity| identity.put(&mut written));
            assert_eq!(written, bytes);
        }
        written.clear();
        if let Ok(read) = decode_index(bytes, salt, &frame) {
            read.iter().for_each(|record| record.put(&mut written));
            assert_eq!(written, bytes);
        }
    }
}
