//! Messages that tell where they come from: who published them, as which of theirs, and what every byte must be.

use super::random::{Random, chain};
use bytes::Bytes;
use raftqueue_node::api::{Delivery, NewMessage};

/// Names one message for ever: who published it, and which of theirs it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    pub(super) producer: u32,
    pub(super) number: u32,
}

/// Bytes that name the origin at the front of every body.
const FRONT_BYTES: usize = 12;

impl Origin {
    /// The message, the same whenever it is asked for.
    pub(super) fn message(self, seed: u64, body_bytes_max: u64) -> NewMessage {
        let mut random = Random::new(chain(chain(seed, u64::from(self.producer)), u64::from(self.number)));
        let size = match random.below(4) {
            0 => FRONT_BYTES as u64,
            _ => random.between(FRONT_BYTES as u64, body_bytes_max.max(FRONT_BYTES as u64)),
        };
        let mut body = Vec::with_capacity(usize::try_from(size).expect("small"));
        body.extend(self.producer.to_le_bytes());
        body.extend(self.number.to_le_bytes());
        body.extend(u32::try_from(size).expect("small").to_le_bytes());
        while (body.len() as u64) < size {
            body.push(random.bits() as u8);
        }
        let has_attributes = random.one_in(4);
        NewMessage {
            body_crc: crc32c::crc32c(&body),
            body: body.into(),
            key: if has_attributes { Bytes::from(format!("key-{}", self.number)) } else { Bytes::new() },
            headers: if has_attributes {
                vec![("from".into(), Bytes::from(self.producer.to_string()))]
            } else {
                Vec::new()
            },
            delay_ms: if random.one_in(12) { random.between(1, 1_500) } else { 0 },
            ttl_ms: random.one_in(12).then(|| random.between(100, 4_000)),
        }
    }

    /// Whose message a body is.
    pub(super) fn of(body: &[u8]) -> Option<Origin> {
        let producer = u32::from_le_bytes(*body.first_chunk::<4>()?);
        let number = u32::from_le_bytes(*body.get(4..)?.first_chunk::<4>()?);
        Some(Origin { producer, number })
    }

    /// True if what was delivered is what was published.
    pub(super) fn is_whole(self, seed: u64, body_bytes_max: u64, delivery: &Delivery) -> bool {
        let message = self.message(seed, body_bytes_max);
        (&message.body, message.body_crc, &message.key, &message.headers)
            == (&delivery.body, delivery.body_crc, &delivery.key, &delivery.headers)
    }
}
