//! One published message as it stands in the `bodies` of an entry.

use super::parts::{Reader, put_bytes, put_number};
use super::{TRAILER_BYTES, Unreadable};
use crate::api::NewMessage;
use bytes::{BufMut, Bytes, BytesMut};

/// A published message taken apart again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The content.
    pub body: Bytes,
    /// CRC32C of `body`.
    pub body_crc: u32,
    /// Ordering key.
    pub key: Bytes,
    /// Headers in the order given.
    pub headers: Vec<(String, Bytes)>,
}

/// Appends a message and returns its size and CRC. The CRC of the body is taken as given: who decoded the
/// message computed or checked it.
pub fn write_message(out: &mut BytesMut, message: &NewMessage) -> (u32, u32) {
    let start = out.len();
    out.extend_from_slice(&message.body);
    let attributes_start = out.len();
    if !message.key.is_empty() || !message.headers.is_empty() {
        put_bytes(out, &message.key);
        put_number(out, message.headers.len() as u64);
        for (name, value) in &message.headers {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value);
        }
    }
    let attributes = u32::try_from(out.len() - attributes_start).expect("keys and headers are limited");
    out.put_u32_le(attributes);
    let crc = crc32c::crc32c_append(message.body_crc, &out[attributes_start..]);
    (u32::try_from(out.len() - start).expect("messages are limited"), crc)
}

/// The CRC32C of what a producer published as one batch, so that a repeat can be told from other content. It covers the CRC
/// and size of each body, the keys and the headers, as they were given, and nothing else of their stored form: a batch that is repeated
/// under a newer form of messages is still the same.
#[must_use]
pub fn batch_crc(messages: &[NewMessage]) -> u32 {
    let sized = |crc, bytes: &[u8]| {
        let crc = crc32c::crc32c_append(crc, &(bytes.len() as u64).to_le_bytes());
        crc32c::crc32c_append(crc, bytes)
    };
    messages.iter().fold(0, |crc, message| {
        let mut head = [0; 28];
        head[..4].copy_from_slice(&message.body_crc.to_le_bytes());
        head[4..12].copy_from_slice(&(message.body.len() as u64).to_le_bytes());
        head[12..20].copy_from_slice(&(message.headers.len() as u64).to_le_bytes());
        head[20..].copy_from_slice(&(message.key.len() as u64).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &head), &message.key);
        let header = |crc, (name, value): &(String, Bytes)| sized(sized(crc, name.as_bytes()), value);
        message.headers.iter().fold(crc, header)
    })
}

/// What a stored message of this size counts if a caller limits the bytes of a reply: body, key and headers, and the lengths
/// that stand before each of the latter two. Without key and headers exactly the body.
#[must_use]
pub fn content_bytes(stored_size: u32) -> usize {
    (stored_size as usize).saturating_sub(TRAILER_BYTES)
}

/// Upper bound of the bytes that [`write_message`] appends for a message.
#[must_use]
pub fn stored_size_max(message: &NewMessage) -> usize {
    const LENGTH_BYTES_MAX: usize = 5;
    let headers: usize = message.headers.iter().map(|(n, v)| n.len() + v.len() + 2 * LENGTH_BYTES_MAX).sum();
    message.body.len() + message.key.len() + headers + 2 * LENGTH_BYTES_MAX + TRAILER_BYTES
}

/// Takes a stored message apart, sharing its bytes.
///
/// # Errors
/// [`Unreadable`] if the CRC is not `crc`, or the message contradicts itself.
pub fn read_message(stored: &Bytes, crc: u32) -> Result<Stored, Unreadable> {
    let length = stored.len();
    let Some((_, trailer)) = stored.split_last_chunk::<TRAILER_BYTES>() else {
        return Err(Unreadable(format!("a message of {length} bytes is too short to have a trailer")));
    };
    let attributes = u32::from_le_bytes(*trailer) as usize;
    let Some(body_end) = (length - TRAILER_BYTES).checked_sub(attributes) else {
        return Err(Unreadable(format!("a message of {length} bytes claims {attributes} bytes of headers")));
    };
    let body_crc = crc32c::crc32c(&stored[..body_end]);
    let found = crc32c::crc32c_append(body_crc, &stored[body_end..]);
    if found != crc {
        return Err(Unreadable(format!("a message's CRC is {found:08x} where its entry says {crc:08x}")));
    }
    let body = stored.slice(..body_end);
    let (mut key, mut headers) = (Bytes::new(), Vec::new());
    if attributes > 0 {
        let bytes = stored.slice(body_end..length - TRAILER_BYTES);
        let mut reader = Reader::new(&bytes);
        key = bytes.slice_ref(reader.slice()?);
        headers = reader.list(|reader| {
            let name = reader.text()?;
            Ok((name, bytes.slice_ref(reader.slice()?)))
        })?;
        reader.end()?;
    }
    Ok(Stored { body, body_crc, key, headers })
}
