//! Whether deliveries keep the entry that they are part of in memory.

use crate::api::Delivery;
use bytes::{Bytes, BytesMut};
use raftqueue_raft::Index;

/// What deliveries share with an entry that is in memory.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The entry; `None` before the first.
    pub(super) index: Option<Index>,
    entry_bytes: usize,
    /// How much of it the deliveries are, and the first of them.
    bytes: usize,
    first: usize,
}

impl Shared {
    /// The next delivery is so many bytes of this entry.
    pub(super) fn take(&mut self, index: Index, entry_bytes: usize, bytes: usize, at: usize) {
        if self.index != Some(index) {
            *self = Self { index: Some(index), entry_bytes, bytes: 0, first: at };
        }
        self.bytes += bytes;
    }

    /// The deliveries so far are all of this entry: unless they are half of it at least, they become copies.
    pub(super) fn end(&mut self, deliveries: &mut [Delivery]) {
        let Self { index, entry_bytes, bytes, first } = std::mem::take(self);
        if index.is_none() || bytes >= entry_bytes / 2 {
            return;
        }
        let deliveries = &mut deliveries[first..];
        let mut copy = BytesMut::with_capacity(bytes);
        for delivery in &mut *deliveries {
            each_part(delivery, |part| copy.extend_from_slice(part));
        }
        let mut copy = copy.freeze();
        for delivery in deliveries {
            each_part(delivery, |part| *part = copy.split_to(part.len()));
        }
    }
}

/// Everything of a delivery that shares bytes with the entry.
fn each_part(delivery: &mut Delivery, each: impl FnMut(&mut Bytes)) {
    let values = delivery.headers.iter_mut().map(|(_, value)| value);
    let parts = [&mut delivery.body, &mut delivery.key].into_iter().chain(values);
    parts.filter(|part| !part.is_empty()).for_each(each);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{MessageId, MessageRef};

    fn deliveries(entry: &Bytes, count: usize, bytes: usize) -> Vec<Delivery> {
        let id = |offset| MessageId { generation: 0, topic: 1, offset };
        let message = |offset| MessageRef {
            id: id(offset),
            token: 0,
            attempts: 0,
            deadline_ms: 0,
            reason: String::new(),
        };
        let delivery = |number: usize| {
            let part = entry.slice(number * bytes..(number + 1) * bytes);
            Delivery {
                message: message(number as u64),
                published_ms: 0,
                body_crc: 0,
                body: part.slice(..bytes - 2),
                key: part.slice(bytes - 2..bytes - 1),
                headers: vec![("n".into(), part.slice(bytes - 1..))],
            }
        };
        (0..count).map(delivery).collect()
    }

    #[test]
    fn rule_10_2_a_few_messages_do_not_keep_their_entry_in_memory_and_most_of_them_are_not_copied() {
        let entry: Bytes = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<u8>>().into();
        for (count, is_copied) in [(1, true), (49, true), (50, false), (100, false)] {
            let before = deliveries(&entry, count, 1_000);
            let mut after = before.clone();
            let mut shared = Shared::default();
            (0..count).for_each(|at| shared.take(Index(7), entry.len(), 1_000, at));
            shared.end(&mut after);
            assert!(before == after, "{count} messages are the same");
            let within = entry.as_ptr_range();
            let mut parts = 0;
            for delivery in &mut after {
                each_part(delivery, |part| {
                    assert_eq!(!within.contains(&part.as_ptr()), is_copied, "{count} messages");
                    parts += 1;
                });
            }
            assert_eq!(parts, 3 * count);
        }
    }
}
