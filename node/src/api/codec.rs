//! Commands of the queue as bytes: the `meta` of a log entry, and the messages in its `bodies`; and the sections of its state.
//!
//! The form follows the *active version* of the cluster, not the binary's: an old binary can read whatever is written
//! before the version is raised. Version 2 has one command more than version 1, to change a topic, and is the same otherwise.
//! An entry that this binary does not know is an [`Unreadable`]. It stops the node before it applies anything: skipping it would
//! make two truths.
//!
//! ```text
//! meta    u8 version | varint stamp_ms | varint count | count x command | u32 CRC32C of everything before
//! command u8 kind | fields in the order of the enum, numbers as LEB128 varints, strings and lists with their length in
//!         front, options as u8 0 or 1
//! message body | key and headers | u32 length of key and headers        one for each published message, in order
//! ```
//!
//! The CRC of a stored message covers all of it and starts with the CRC of the body, so a body's CRC given by a producer can be
//! checked at every step from there to the consumer.

mod entry;
mod message;
mod parts;
mod snapshot;

pub use entry::{EntryMeta, EntryWriter, read_entry};
pub use message::{Stored, batch_crc, content_bytes, read_message, stored_size_max, write_message};
pub use snapshot::{read_section, write_section};

use std::fmt;

/// The oldest version of commands and formats that this binary can run.
pub const VERSION_MIN: u32 = 1;
/// The newest version that this binary can run.
pub const VERSION_MAX: u32 = 2;
/// The version from which on topics can be changed.
pub const VERSION_OF_UPDATE_TOPIC: u32 = 2;

#[cfg(feature = "mutants")]
thread_local! {
    static FAKED_VERSION_MAX: std::cell::Cell<u32> = const { std::cell::Cell::new(VERSION_MAX) };
}

/// On this thread entries up to another version, of the same form, can be read: for tests of raising it.
#[cfg(feature = "mutants")]
pub fn fake_version_max(version_max: u32) {
    FAKED_VERSION_MAX.set(version_max);
}

/// The newest version that this binary can run, or that the thread is told to know.
#[cfg(feature = "mutants")]
pub(crate) fn version_max() -> u32 {
    FAKED_VERSION_MAX.get()
}

#[cfg(not(feature = "mutants"))]
pub(crate) const fn version_max() -> u32 {
    VERSION_MAX
}

const CRC_BYTES: usize = 4;
const TRAILER_BYTES: usize = 4;

/// Bytes that are not what they should be. The text says what was expected. A node that meets such bytes in a committed
/// entry stops, since it cannot know what the others do with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

#[cfg(test)]
mod tests;
