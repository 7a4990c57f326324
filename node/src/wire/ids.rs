//! Ids as clients carry them: opaque, short, and one spelling for each.
//!
//! ```text
//! message id   0x01 | generation | topic | offset
//! lease        0x02 | generation | topic | offset | token
//! session      0x03 | generation | number | epoch
//! ```
//!
//! After the format byte come LEB128 numbers in their shortest form; anything else is refused, so that equal ids are
//! equal bytes. In JSON and on the command line the same bytes are written in hexadecimal. Then no character has a
//! meaning to a shell, and a double click marks the whole id.

use crate::api::limits::invalid;
use crate::api::{Failure, LeaseId, MessageId, SessionId};
use bytes::Bytes;

const MESSAGE_ID_FORMAT: u8 = 1;
const LEASE_FORMAT: u8 = 2;
const SESSION_FORMAT: u8 = 3;

/// The bytes of a message id.
#[must_use]
pub fn encode_message_id(id: MessageId) -> Bytes {
    encode(MESSAGE_ID_FORMAT, &[u64::from(id.generation), id.topic, id.offset])
}

/// The bytes of a lease.
#[must_use]
pub fn encode_lease(lease: LeaseId) -> Bytes {
    let id = lease.message;
    encode(LEASE_FORMAT, &[u64::from(id.generation), id.topic, id.offset, lease.token])
}

/// The bytes of a session.
#[must_use]
pub fn encode_session(session: SessionId) -> Bytes {
    encode(SESSION_FORMAT, &[u64::from(session.generation), session.number, session.epoch])
}

/// The message that `bytes` name.
///
/// # Errors
///
/// Not a message id: the caller made it up or mixed things up.
pub fn decode_message_id(bytes: &[u8]) -> Result<MessageId, Failure> {
    let [generation, topic, offset] = decode("message id", MESSAGE_ID_FORMAT, bytes)?;
    Ok(MessageId { generation: narrow("message id", generation)?, topic, offset })
}

/// The lease that `bytes` name.
///
/// # Errors
///
/// Not a lease: the caller made it up or mixed things up.
pub fn decode_lease(bytes: &[u8]) -> Result<LeaseId, Failure> {
    let [generation, topic, offset, token] = decode("lease", LEASE_FORMAT, bytes)?;
    let message = MessageId { generation: narrow("lease", generation)?, topic, offset };
    Ok(LeaseId { message, token })
}

/// The session that `bytes` name.
///
/// # Errors
///
/// Not a session: the caller made it up or mixed things up.
pub fn decode_session(bytes: &[u8]) -> Result<SessionId, Failure> {
    let [generation, number, epoch] = decode("session", SESSION_FORMAT, bytes)?;
    Ok(SessionId { generation: narrow("session", generation)?, number, epoch })
}

fn narrow(what: &str, generation: u64) -> Result<u32, Failure> {
    u32::try_from(generation).map_err(|_| garbage(what))
}

fn encode(format: u8, numbers: &[u64]) -> Bytes {
    let mut bytes = Vec::with_capacity(16);
    bytes.push(format);
    for number in numbers {
        let mut rest = *number;
        while rest >= 0x80 {
            bytes.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
            rest >>= 7;
        }
        bytes.push(u8::try_from(rest).expect("seven bits"));
    }
    bytes.into()
}

fn decode<const COUNT: usize>(what: &str, format: u8, bytes: &[u8]) -> Result<[u64; COUNT], Failure> {
    let mut numbers = [0; COUNT];
    let Some((first, mut rest)) = bytes.split_first() else { return Err(garbage(what)) };
    for number in &mut numbers {
        *number = take_number(&mut rest).ok_or_else(|| garbage(what))?;
    }
    if *first == format && rest.is_empty() { Ok(numbers) } else { Err(garbage(what)) }
}

/// Takes one number off the front; `None` if there is none in its shortest form.
fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return (bits != 0 || shift == 0).then_some(number);
        }
    }
    None
}

fn garbage(what: &str) -> Failure {
    invalid(format!("{what}: these bytes were never given out as a {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lease(generation: u32, topic: u64, offset: u64, token: u64) -> LeaseId {
        LeaseId { message: MessageId { generation, topic, offset }, token }
    }

    proptest! {
        #[test]
        fn every_id_comes_back_and_has_one_spelling(generation: u32, topic: u64, offset: u64, token: u64) {
            let lease = lease(generation, topic, offset, token);
            prop_assert_eq!(decode_lease(&encode_lease(lease)), Ok(lease));
            prop_assert_eq!(decode_message_id(&encode_message_id(lease.message)), Ok(lease.message));
            let session = SessionId { generation, number: topic, epoch: token };
            prop_assert_eq!(decode_session(&encode_session(session)), Ok(session));
        }

        #[test]
        fn what_can_be_decoded_is_what_was_encoded(mut bytes: Vec<u8>, format in 0u8..5) {
            bytes.insert(0, format);
            bytes.truncate(8);
            if let Ok(lease) = decode_lease(&bytes) {
                prop_assert_eq!(encode_lease(lease), bytes);
            } else if let Ok(id) = decode_message_id(&bytes) {
                prop_assert_eq!(encode_message_id(id), bytes);
            } else if let Ok(session) = decode_session(&bytes) {
                prop_assert_eq!(encode_session(session), bytes);
            }
        }
    }

    #[test]
    fn the_layout_is_this_and_stays_so() {
        assert_eq!(encode_message_id(lease(1, 300, 5, 0).message), vec![1, 1, 0xac, 2, 5]);
        assert_eq!(encode_lease(lease(0, 12, 127, 128)), vec![2, 0, 12, 127, 0x80, 1]);
        assert_eq!(encode_session(SessionId { generation: 2, number: 7, epoch: 0 }), vec![3, 2, 7, 0]);
    }

    #[test]
    fn garbage_is_refused() {
        let overflow = [&[2u8, 0, 0, 0][..], &[0xff; 9], &[2]].concat();
        let generation = [2, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0, 0];
        for bytes in
            [&b""[..], b"\x02", b"\x01\x00\x00\x00\x00", b"\x02\x00\x00\x00\x00\x00", &overflow, &generation]
        {
            assert!(decode_lease(bytes).is_err(), "{bytes:?}");
        }
        assert!(decode_lease(&[2, 0, 0, 0, 0x80, 0]).is_err(), "a number in a longer form than needed");
        assert!(decode_lease(&[2, 0, 0, 0, 0]).is_ok());
    }
}
