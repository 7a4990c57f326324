//! Every byte that this crate puts on a disk, and its way back.
//!
//! All integers are little endian, all checksums CRC32C. A decoder takes any bytes at all: it answers [`Malformed`],
//! never panics, and never allocates more than the bytes at hand justify.
//!
//! - here: the envelope of the small files, and the two tools (cursor, salted checksum) of all forms;
//! - [`segment`]: the log itself: segment head, frames, records, the sealed index;
//! - [`small`]: IDENTITY and HARDSTATE;
//! - [`mod@manifest`]: the list of live files;
//! - [`snapshot`]: the front, sections and end of a snapshot file;
//! - [`configuration`]: a cluster configuration inside a record;
//! - [`places`]: places files and kept files;
//! - [`mod@recovery`]: the file `RECOVERY`.
//!
//! On purpose it is not said here what the bytes mean for a log (`scan`, `recover`), and when they become durable.

pub mod configuration;
pub mod manifest;
pub mod places;
pub mod recovery;
pub mod segment;
pub mod small;
pub mod snapshot;

use std::fmt;

/// The version of every form that this build writes. It reads this one and no newer.
pub const FORMAT_VERSION: u32 = 1;

/// The group of everything that this build writes. The forms name it so that topics can one day be spread over several
/// groups that share a log.
pub(crate) const GROUP: u32 = 0;

/// What the small files and segments began with in the builds before the first release, whose forms had no groups and
/// named no files but segments. They are known only to be refused by name.
const UNRELEASED: [[u8; 4]; 4] = [*b"RQID", *b"RQHS", *b"RQMF", *b"RQSG"];

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// They end too early.
    Short,
    /// They do not begin with the mark of this form.
    Magic,
    /// A checksum differs.
    Checksum,
    /// They were written by a newer build.
    Newer {
        /// The version found.
        found: u32,
    },
    /// They were written by a build before the first release.
    Unreleased,
    /// The checksum holds, but a field has a value that this form does not allow.
    Field(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Short => f.write_str("too short"),
            Malformed::Magic => f.write_str("wrong magic number"),
            Malformed::Checksum => f.write_str("checksum mismatch"),
            Malformed::Newer { found } => {
                write!(f, "format version {found}, this build reads up to {FORMAT_VERSION}")
            }
            Malformed::Unreleased => f.write_str("written by a build before the first release"),
            Malformed::Field(field) => write!(f, "impossible value of {field}"),
        }
    }
}

/// Length of the envelope's own fields.
pub(crate) const ENVELOPE_BYTES: usize = 16;

/// Wraps a payload.
///
/// ```text
///  0        4         8          12      16
///  | magic  | version | length   | crc   | payload ...
///  crc is over bytes 0..12 and the payload; length is the payload's
/// ```
///
/// The envelope is the same in every version, so that a newer one is told from a damaged one.
pub(crate) fn wrap(magic: [u8; 4], payload: &[u8]) -> Vec<u8> {
    wrap_version(magic, FORMAT_VERSION, payload)
}

pub(crate) fn wrap_version(magic: [u8; 4], version: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENVELOPE_BYTES + payload.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&version.to_le_bytes());
    let length = u32::try_from(payload.len()).expect("small files are far below 4 GiB");
    bytes.extend_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), payload);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Takes the payload out of an envelope; bytes behind it are ignored.
pub(crate) fn unwrap(magic: [u8; 4], bytes: &[u8]) -> Result<&[u8], Malformed> {
    let mut cursor = Cursor(bytes);
    let found = cursor.bytes(4)?;
    let is_unreleased = UNRELEASED.iter().any(|magic| magic == found);
    if found != magic && !is_unreleased {
        return Err(Malformed::Magic);
    }
    let version = cursor.u32()?;
    let length = cursor.u32()?;
    let crc = cursor.u32()?;
    let payload = cursor.bytes(length as usize)?;
    if crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), payload) != crc {
        return Err(Malformed::Checksum);
    }
    if is_unreleased {
        return Err(Malformed::Unreleased);
    }
    match version {
        FORMAT_VERSION => Ok(payload),
        0 => Err(Malformed::Field("version")),
        found => Err(Malformed::Newer { found }),
    }
}

/// The checksum of a part of a record: the CRC32C of its bytes and of the last four of them once more.
///
/// What a command says ends with a CRC32C of its own, and so may a message. The CRC of anything that is followed by its own is
/// one and the same number, whatever it says: of two such parts one could stand for the other. With the last four bytes
/// repeated it differs where they do.
pub(crate) fn part_crc(part: &[u8]) -> u32 {
    let last = part.len().saturating_sub(4);
    crc32c::crc32c_append(crc32c::crc32c(part), &part[last..])
}

/// Whether a part of a record has this checksum, as it is written now or as builds before did: the CRC32C of its bytes alone.
pub(crate) fn is_part(part: &[u8], crc: u32) -> bool {
    part_crc(part) == crc || crc32c::crc32c(part) == crc
}

/// A checksum that verifies only under the salt of the segment's present life.
pub(crate) fn salted_crc(salt: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), bytes)
}

/// Reads fields off the front of bytes that may end anywhere.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(self.bytes(N)?.try_into().expect("exactly N bytes were taken"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Malformed> {
        self.array().map(u128::from_le_bytes)
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Field(field)),
        }
    }

    /// The group that something belongs to: 0 as long as there is only one.
    pub(crate) fn group(&mut self) -> Result<(), Malformed> {
        if self.u32()? == GROUP { Ok(()) } else { Err(Malformed::Field("group")) }
    }

    /// A string with its length (u16) before it.
    pub(crate) fn string(&mut self, field: &'static str) -> Result<String, Malformed> {
        let length = self.u16()?;
        let bytes = self.bytes(usize::from(length))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed::Field(field))
    }

    /// Fails unless everything has been read.
    pub(crate) fn end(&self, field: &'static str) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Field(field)) }
    }
}

/// Appends a string with its length (u16) before it.
///
/// # Panics
/// If the string is longer than 65,535 bytes. Names are limited far below that where they enter.
pub(crate) fn put_string(bytes: &mut Vec<u8>, string: &str) {
    let length = u16::try_from(string.len()).expect("names are limited far below 64 KiB");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(string.as_bytes());
}
