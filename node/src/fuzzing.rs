//! What is asked of the decoders of a node when they are fuzzed: `tests/fuzz` has a target for each function here.
//!
//! Each takes any bytes at all. It panics where a promise is broken: a decoder panics, or what was read does not come back
//! when it is written and read again. Where a checksum stands before what is to be decoded it is made right first, since no
//! fuzzer guesses one.

mod edges;
mod files;
mod seeds;
mod stored;
mod wire;

pub use edges::{console, grpc, http, publish_shape};
pub use files::settings;
pub use seeds::seeds;
pub use stored::{entry, message, sections};
pub use wire::{calls, given, ids, peer_messages, replies};

/// Takes a part off the front: two bytes of length, and so many bytes or as many as there are. `None` at the end.
fn part<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = data.split_first_chunk::<2>()?;
    let (part, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*length))));
    *data = rest;
    Some(part)
}

/// Parts as [`part`] takes them.
fn parts(parts: &[Vec<u8>]) -> Vec<u8> {
    let length = |part: &Vec<u8>| u16::try_from(part.len()).expect("seeds are small").to_le_bytes();
    parts.iter().flat_map(|part| [&length(part), part.as_slice()].concat()).collect()
}
