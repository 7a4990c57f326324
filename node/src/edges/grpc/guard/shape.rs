//! How many messages and headers a publish has, counted while its bytes pass.
//!
//! Two bytes on the wire may stand for a message of a hundred bytes in memory, and the library decodes everything
//! before anybody can judge it. So a publish with more messages or headers than allowed is refused while it arrives.

use crate::api::Failure;
use crate::api::limits::{check_size, invalid};
use raftqueue_queue::{HEADERS_MAX, PUBLISH_MESSAGES_MAX};

/// `messages`, field 3 of a publish, and `headers`, field 4 of a message: their tags.
const MESSAGES_TAG: u64 = 3 << 3 | 2;
const HEADERS_TAG: u64 = 4 << 3 | 2;

/// What a message takes in memory besides its content, in bytes. The same for a header, with what surrounds its name
/// and value.
const MESSAGE_BYTES: usize = 160;
const HEADER_BYTES: usize = 112;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The tag of a field.
    Tag,
    /// A number that is passed over.
    Number,
    /// The length of the field with this tag.
    Length(u64),
    /// So many bytes that are passed over.
    Bytes(u64),
    /// Bytes that have no meaning here. The library will say so.
    Nonsense,
}

/// Counts one publish after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    next: Next,
    /// A number that has begun, and its bits so far.
    number: (u64, u32),
    messages: usize,
    /// Headers of the message that has begun, and of all messages.
    headers: usize,
    headers_all: usize,
    /// Bytes of the message that has begun, still to come; `None` outside of messages.
    message_left: Option<u64>,
}

impl Default for Shape {
    fn default() -> Self {
        Self { next: Next::Tag, number: (0, 0), messages: 0, headers: 0, headers_all: 0, message_left: None }
    }
}

impl Shape {
    /// These bytes pass.
    ///
    /// # Errors
    /// There are too many messages, too many headers of one message, or something that hides what is behind it.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            if self.message_left == Some(0) && self.next == Next::Tag {
                self.message_left = None;
            }
            if let Next::Bytes(left) = self.next {
                let passed = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                bytes = &bytes[passed..];
                self.within(passed as u64);
                let left = left - passed as u64;
                self.next = if left == 0 { Next::Tag } else { Next::Bytes(left) };
                continue;
            }
            if self.next == Next::Nonsense {
                return Ok(());
            }
            let byte = bytes[0];
            bytes = &bytes[1..];
            self.within(1);
            let (value, bits) = self.number;
            let value = value | u64::from(byte & 0x7f).checked_shl(bits).unwrap_or_default();
            if byte & 0x80 != 0 {
                self.number = (value, bits + 7);
                if bits + 7 >= 70 {
                    self.next = Next::Nonsense;
                }
                continue;
            }
            self.number = (0, 0);
            self.read(value)?;
        }
        Ok(())
    }

    /// Messages so far, and the headers of all of them.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn counted(&self) -> (usize, usize) {
        (self.messages, self.headers_all)
    }

    /// Bytes that messages and headers take once they are decoded, besides their content.
    pub(super) fn decoded_bytes(&self) -> usize {
        self.messages * MESSAGE_BYTES + self.headers_all * HEADER_BYTES
    }

    /// A number is complete.
    fn read(&mut self, value: u64) -> Result<(), Failure> {
        self.next = match self.next {
            Next::Tag => match value & 7 {
                0 => Next::Number,
                1 => Next::Bytes(8),
                2 => Next::Length(value),
                5 => Next::Bytes(4),
                // The library passes over a group with all that it has, and goes on behind it. The contract has none, and
                // whoever sends one could hide any number of messages from this count.
                3 | 4 => {
                    return Err(invalid("groups (wire types 3 and 4 of protobuf) are no part of a publish"));
                }
                _ => Next::Nonsense,
            },
            Next::Length(tag) => {
                let is_outside = self.message_left.is_none();
                if is_outside && tag == MESSAGES_TAG {
                    self.messages += 1;
                    check_size("messages of a publish", self.messages, PUBLISH_MESSAGES_MAX)?;
                    self.headers = 0;
                    self.message_left = Some(value);
                    Next::Tag
                } else {
                    if !is_outside && tag == HEADERS_TAG {
                        self.headers += 1;
                        self.headers_all += 1;
                        check_size("headers", self.headers, HEADERS_MAX as usize)?;
                    }
                    if value == 0 { Next::Tag } else { Next::Bytes(value) }
                }
            }
            Next::Number | Next::Bytes(_) | Next::Nonsense => Next::Tag,
        };
        Ok(())
    }

    /// So many bytes of the message that has begun have passed.
    fn within(&mut self, bytes: u64) {
        if let Some(left) = &mut self.message_left {
            match left.checked_sub(bytes) {
                Some(less) => *left = less,
                None => self.next = Next::Nonsense,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reason;
    use proptest::prelude::*;
    use prost::Message;
    use raftqueue_proto::v1;

    fn publish(headers: &[usize]) -> Vec<u8> {
        let header = || v1::Header { name: "n".into(), value: vec![0xff; 3].into() };
        let message = |count: &usize| v1::NewMessage {
            body: vec![0x1a; 200].into(),
            body_crc32c: Some(7),
            key: vec![0x22; 2].into(),
            headers: (0..*count).map(|_| header()).collect(),
            delay_ms: 1 << 40,
            ttl_ms: Some(1),
        };
        let session = Some(v1::SessionStep { session: vec![0x1a; 20].into(), sequence: 300 });
        let messages = headers.iter().map(message).collect();
        v1::PublishRequest { topic: "t".into(), session, messages }.encode_to_vec()
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_is_there_however_it_is_cut(
            headers in prop::collection::vec(0_usize..64, 0..40),
            cut in 1_usize..500,
        ) {
            let mut shape = Shape::default();
            for bytes in publish(&headers).chunks(cut) {
                shape.pass(bytes).expect("within the limits");
            }
            prop_assert_eq!(shape.messages, headers.len());
            prop_assert_eq!(shape.headers, headers.last().copied().unwrap_or_default());
        }

        #[test]
        fn any_bytes_are_passed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 1_usize..70) {
            let mut shape = Shape::default();
            let _ = bytes.chunks(cut).try_for_each(|bytes| shape.pass(bytes));
        }
    }

    #[test]
    fn nothing_is_hidden_behind_a_group() {
        // An unknown field 12 that is a group with an unknown number in it, then a message: the library reads one message.
        let group = [0x63, 0x08, 0x01, 0x64];
        let message = [0x1a, 0x00];
        for bytes in [[&group[..], &message].concat(), [&message[..], &group].concat(), group[3..].to_vec()] {
            let refusal = Shape::default().pass(&bytes).expect_err("a group");
            assert_eq!(refusal.reason, Reason::InvalidArgument, "{bytes:?}");
        }
        let read =
            v1::PublishRequest::decode(&[&group[..], &message].concat()[..]).expect("it passes over groups");
        assert_eq!(read.messages.len(), 1, "which is why they are refused");
    }

    #[test]
    fn more_than_there_may_be_is_refused_while_it_passes() {
        let refusal = Shape::default().pass(&publish(&[65])).expect_err("65 headers");
        assert_eq!(refusal.reason, Reason::TooLarge);
        Shape::default().pass(&publish(&[64; 100])).expect("64 headers are allowed");
        let empty = [0x1a, 0].repeat(PUBLISH_MESSAGES_MAX);
        let mut shape = Shape::default();
        shape.pass(&empty).expect("so many are allowed");
        let refusal = shape.pass(&[0x1a, 0]).expect_err("one more");
        assert_eq!(refusal.reason, Reason::TooLarge);
        assert!(refusal.text.contains("10001 is over the limit of 10000"), "{refusal:?}");
    }
}
