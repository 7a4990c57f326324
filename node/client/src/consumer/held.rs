//! What a consumer holds, how much more may come, and which leases must be extended.
//!
//! Pure book-keeping: time is an argument. Invariants: held messages and bytes are the sums over `leases`. The credit
//! that the node has, plus what is held, never exceeds the limits, except by the one message by which a node may exceed
//! the bytes.

use bytes::Bytes;
use raftqueue_proto::v1;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Held {
    limits: Credit,
    /// What the node may still send.
    granted: Credit,
    holds: Credit,
    leases: BTreeMap<Bytes, Lease>,
}

/// Messages and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Credit {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct Lease {
    bytes: usize,
    granted: Instant,
    extended: Instant,
    /// Nothing extends this lease any more: it is being settled, or it was lost.
    is_over: bool,
}

impl Held {
    pub(super) fn new(limits: Credit) -> Self {
        Self { limits, granted: Credit::default(), holds: Credit::default(), leases: BTreeMap::new() }
    }

    /// Messages have come.
    pub(super) fn receive(&mut self, deliveries: &[v1::Delivery], now: Instant) {
        let mut bytes = 0;
        for delivery in deliveries {
            let size = size(delivery);
            bytes += size;
            let lease = Lease { bytes: size, granted: now, extended: now, is_over: false };
            if let Some(old) = self.leases.insert(delivery.lease.clone(), lease) {
                // If a node gives the same lease twice, it counts once.
                self.holds.messages -= 1;
                self.holds.bytes -= old.bytes;
            }
        }
        self.holds.messages += deliveries.len();
        self.holds.bytes += bytes;
        self.granted.messages = self.granted.messages.saturating_sub(deliveries.len());
        self.granted.bytes = self.granted.bytes.saturating_sub(bytes);
    }

    /// The lease must not be extended any more. It counts until it is forgotten.
    pub(super) fn finish(&mut self, lease: &Bytes) {
        if let Some(held) = self.leases.get_mut(lease) {
            held.is_over = true;
        }
    }

    /// The message is held no longer.
    pub(super) fn forget(&mut self, lease: &Bytes) {
        if let Some(held) = self.leases.remove(lease) {
            self.holds.messages -= 1;
            self.holds.bytes -= held.bytes;
        }
    }

    /// A new stream is open, on which nothing is granted.
    pub(super) fn start_over(&mut self) {
        self.granted = Credit::default();
    }

    /// What to grant now: nothing until it is worth a request.
    pub(super) fn grant(&mut self) -> Option<Credit> {
        let Credit { messages, bytes } = self.limits;
        let room = Credit {
            messages: messages.saturating_sub(self.holds.messages + self.granted.messages),
            bytes: bytes.saturating_sub(self.holds.bytes + self.granted.bytes),
        };
        let is_worth = |room: usize, limit: usize, granted: usize| {
            room > 0 && (room >= limit.div_ceil(4) || granted == 0)
        };
        if !is_worth(room.messages, messages, self.granted.messages)
            && !is_worth(room.bytes, bytes, self.granted.bytes)
        {
            return None;
        }
        self.granted.messages += room.messages;
        self.granted.bytes += room.bytes;
        Some(room)
    }

    /// Leases that were not extended for `after` and are not held for longer than `hold`. From now on they count as
    /// extended.
    pub(super) fn extend(&mut self, now: Instant, after: Duration, hold: Duration) -> Vec<Bytes> {
        let mut due = Vec::new();
        for (lease, held) in &mut self.leases {
            if !held.is_over && now - held.extended >= after && now - held.granted < hold {
                held.extended = now;
                due.push(lease.clone());
            }
        }
        due
    }

    /// Every lease that nobody has settled.
    pub(super) fn open(&self) -> Vec<Bytes> {
        self.leases.iter().filter(|(_, held)| !held.is_over).map(|(lease, _)| lease.clone()).collect()
    }
}

fn size(delivery: &v1::Delivery) -> usize {
    let headers = delivery.headers.iter().map(|header| header.name.len() + header.value.len());
    delivery.body.len() + delivery.key.len() + headers.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliveries(leases: std::ops::Range<u8>, size: usize) -> Vec<v1::Delivery> {
        let delivery = |lease| v1::Delivery {
            lease: vec![lease].into(),
            body: vec![0; size].into(),
            ..v1::Delivery::default()
        };
        leases.map(delivery).collect()
    }

    fn credit(messages: usize, bytes: usize) -> Credit {
        Credit { messages, bytes }
    }

    #[test]
    fn credit_is_granted_again_only_as_messages_are_let_go() {
        let mut held = Held::new(credit(8, 800));
        assert_eq!(held.grant(), Some(credit(8, 800)));
        assert_eq!(held.grant(), None, "all of it is out");
        held.receive(&deliveries(0..8, 10), Instant::now());
        assert_eq!(held.grant(), None, "as many are held as may be");
        held.forget(&vec![0].into());
        assert_eq!(held.grant(), Some(credit(1, 10)), "the node has none left, so one is worth it");
        held.forget(&vec![1].into());
        assert_eq!(held.grant(), None, "one of eight is not worth a request while the node has some");
        held.forget(&vec![2].into());
        assert_eq!(held.grant(), Some(credit(2, 20)));
    }

    #[test]
    fn bytes_bound_as_messages_do_and_one_message_may_exceed_them() {
        let mut held = Held::new(credit(100, 100));
        assert_eq!(held.grant(), Some(credit(100, 100)));
        held.receive(&deliveries(0..1, 250), Instant::now());
        assert_eq!(held.grant(), None);
        held.receive(&[], Instant::now());
        held.forget(&vec![0].into());
        assert_eq!(held.grant(), Some(credit(1, 100)));
    }

    #[test]
    fn a_new_stream_has_no_credit_of_the_old_one() {
        let mut held = Held::new(credit(8, 800));
        held.grant();
        held.receive(&deliveries(0..3, 10), Instant::now());
        held.start_over();
        assert_eq!(held.grant(), Some(credit(5, 770)));
    }

    #[test]
    fn leases_are_extended_until_they_are_settled_or_held_for_too_long() {
        let (second, begun) = (Duration::from_secs(1), Instant::now());
        let mut held = Held::new(credit(8, 800));
        held.receive(&deliveries(0..2, 1), begun);
        let due = |held: &mut Held, at: u32| held.extend(begun + at * second, 10 * second, 35 * second).len();
        assert_eq!(due(&mut held, 9), 0);
        assert_eq!(due(&mut held, 10), 2);
        assert_eq!(due(&mut held, 19), 0, "they were extended a moment ago");
        held.finish(&vec![0].into());
        assert_eq!(due(&mut held, 20), 1);
        assert_eq!(held.open(), [Bytes::from_static(&[1])]);
        assert_eq!(due(&mut held, 34), 1);
        assert_eq!(due(&mut held, 60), 0, "held for too long");
    }
}
