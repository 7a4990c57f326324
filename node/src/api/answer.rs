//! What comes back from a call, with its messages and what is held for them.

use super::{Delivery, Response};
use crate::api::budget::Account;
use std::sync::Arc;

/// What comes back from a call that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Everything but messages. Never [`Response::Messages`], whose bodies are read before an edge sees them.
    Response(Response),
    /// The messages of a receive, pop or peek.
    Deliveries(Deliveries),
}

/// Messages, with what the budget holds for them until they are sent.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    /// The messages.
    pub messages: Vec<Delivery>,
    /// What is held; `None` if nobody counts, as in tests.
    pub held: Option<Arc<Account>>,
}

impl From<Vec<Delivery>> for Deliveries {
    fn from(messages: Vec<Delivery>) -> Self {
        Self { messages, held: None }
    }
}

impl PartialEq for Deliveries {
    fn eq(&self, other: &Self) -> bool {
        self.messages == other.messages
    }
}

impl Eq for Deliveries {}

/// What a message takes besides its bytes, while it waits to be sent.
pub const DELIVERY_BYTES: usize = 512;

/// Bytes that messages take while they wait to be sent.
#[must_use]
pub fn deliveries_bytes(messages: &[Delivery]) -> usize {
    let headers = |delivery: &Delivery| {
        delivery.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    };
    messages
        .iter()
        .map(|delivery| DELIVERY_BYTES + delivery.body.len() + delivery.key.len() + headers(delivery))
        .sum()
}
