//! What a consumer has room for.

use crate::api::Failure;
use crate::api::limits::invalid;
use raftqueue_proto::v1;

/// What the consumer has room for. It is never short of a kind that it does not grant.
#[derive(Default)]
pub(super) struct Credit {
    messages: Option<u64>,
    bytes: Option<u64>,
}

impl Credit {
    /// The consumer grants more.
    ///
    /// # Errors
    /// It grants nothing.
    pub(super) fn add(&mut self, credit: &v1::Credit) -> Result<(), Failure> {
        if credit.messages == 0 && credit.bytes == 0 {
            return Err(invalid("a credit must grant `messages`, `bytes` or both"));
        }
        for (held, granted) in [(&mut self.messages, credit.messages), (&mut self.bytes, credit.bytes)] {
            if granted > 0 {
                *held = Some(held.unwrap_or(0).saturating_add(granted));
            }
        }
        Ok(())
    }

    /// So much was sent.
    pub(super) fn take(&mut self, messages: u64, bytes: u64) {
        for (held, taken) in [(&mut self.messages, messages), (&mut self.bytes, bytes)] {
            *held = held.map(|held| held.saturating_sub(taken));
        }
    }

    /// Messages and bytes that may be sent; nothing before anything was granted.
    pub(super) fn room(&self) -> (usize, usize) {
        if self.messages.is_none() && self.bytes.is_none() {
            return (0, 0);
        }
        let room =
            |held: Option<u64>| held.map_or(usize::MAX, |held| usize::try_from(held).unwrap_or(usize::MAX));
        (room(self.messages), room(self.bytes))
    }
}
