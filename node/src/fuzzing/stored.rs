//! What a node stores: commands, messages, and the sections of a snapshot.

use super::part;
use crate::api::NewMessage;
use crate::api::codec::{
    EntryWriter, VERSION_MAX, VERSION_MIN, read_entry, read_message, read_section, write_message,
    write_section,
};
use bytes::{Bytes, BytesMut};
use raftqueue_queue::{State, StateBuilder};

/// The `meta` of an entry, as it is and with a checksum that verifies.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn entry(data: &[u8]) {
    let _ = read_entry(data);
    let sealed = [data, &crc32c::crc32c(data).to_le_bytes()].concat();
    let Ok(read) = read_entry(&sealed) else { return };
    let mut writer = EntryWriter::default();
    read.commands.iter().for_each(|command| writer.push(command));
    let written = writer.finish(u32::from(data[0]), read.stamp_ms);
    assert_eq!(read_entry(&written), Ok(read), "it comes back");
}

/// A stored message, with a checksum that verifies.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn message(data: &[u8]) {
    let stored = Bytes::copy_from_slice(data);
    let _ = read_message(&stored, 0);
    let Ok(read) = read_message(&stored, crc32c::crc32c(data)) else { return };
    let message = NewMessage {
        body: read.body.clone(),
        body_crc: read.body_crc,
        key: read.key.clone(),
        headers: read.headers.clone(),
        ..NewMessage::default()
    };
    let mut written = BytesMut::new();
    let (size, crc) = write_message(&mut written, &message);
    assert_eq!(size as usize, written.len());
    assert_eq!(read_message(&written.freeze(), crc), Ok(read), "it comes back");
}

/// A snapshot's content: a version, then its sections in parts. What a state can be made of must make one that keeps all of
/// its rules, and that comes back.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn sections(data: &[u8]) {
    let Some((version, mut rest)) = data.split_first() else { return };
    let version = VERSION_MIN + u32::from(*version) % (VERSION_MAX - VERSION_MIN + 2);
    let mut builder = StateBuilder::default();
    let mut is_whole = true;
    while let Some(part) = part(&mut rest) {
        let Ok(section) = read_section(version, part) else { continue };
        let mut written = BytesMut::new();
        write_section(&mut written, version, &section);
        assert_eq!(read_section(version, &written).as_ref(), Ok(&section), "it comes back");
        is_whole &= builder.push(section).is_ok();
    }
    let Ok(state) = builder.finish() else { return };
    assert!(is_whole, "a section that was refused is not passed over");
    state.check().expect("a state that was taken keeps its rules");
    assert_eq!(State::from_sections(state.sections()), Ok(state), "it comes back");
}
