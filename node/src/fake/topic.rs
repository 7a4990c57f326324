//! One topic of the node in memory, with the one subscription that it knows.

use crate::api::{
    Delivery, LeaseId, LeaseResult, MessageId, MessageRef, MessageState, NewMessage, Response, Settlement,
    SubscriptionInfo, TopicChange, TopicInfo, TopicOptions,
};
use std::collections::BTreeMap;

/// Failed attempts after which a message is dead, where the topic does not say.
const ATTEMPTS_MAX: u32 = 16;

/// A topic.
pub(super) struct Topic {
    pub(super) id: u64,
    pub(super) request_id: Option<u128>,
    options: TopicOptions,
    next_offset: u64,
    last_token: u64,
    messages: BTreeMap<u64, Message>,
}

struct Message {
    content: NewMessage,
    state: MessageState,
    token: u64,
    attempts: u32,
    reason: String,
}

impl Topic {
    pub(super) fn new(id: u64, options: TopicOptions, request_id: Option<u128>) -> Self {
        Self { id, request_id, options, next_offset: 0, last_token: 0, messages: BTreeMap::new() }
    }

    pub(super) fn update(&mut self, change: &TopicChange) -> TopicOptions {
        let options = &mut self.options;
        options.attempts_max = change.attempts_max.unwrap_or(options.attempts_max);
        options.messages_max = change.messages_max.unwrap_or(options.messages_max);
        options.bytes_max = change.bytes_max.unwrap_or(options.bytes_max);
        options.ttl_ms = change.ttl_ms.unwrap_or(options.ttl_ms);
        self.options.clone()
    }

    pub(super) fn info(&self, name: &str) -> TopicInfo {
        let count = |state| self.messages.values().filter(|message| message.state == state).count() as u64;
        let subscription = SubscriptionInfo {
            name: "default".into(),
            ready: count(MessageState::Ready),
            leased: count(MessageState::Leased),
            delayed: count(MessageState::Delayed),
            dead: count(MessageState::Dead),
        };
        TopicInfo {
            id: self.id,
            name: name.to_owned(),
            created_ms: 1_700_000_000_000,
            options: self.options.clone(),
            next_offset: self.next_offset,
            bytes: self.messages.values().map(|message| message.content.body.len() as u64).sum(),
            subscriptions: vec![subscription],
        }
    }

    pub(super) fn publish(&mut self, messages: Vec<NewMessage>) -> Response {
        let (first_offset, count) = (self.next_offset, messages.len() as u64);
        for content in messages {
            let state = if content.delay_ms > 0 { MessageState::Delayed } else { MessageState::Ready };
            let message = Message { content, state, token: 0, attempts: 0, reason: String::new() };
            self.messages.insert(self.next_offset, message);
            self.next_offset += 1;
        }
        Response::Published { topic: self.id, generation: 0, first_offset, count, deduplicated: false }
    }

    pub(super) fn receive(&mut self, messages_max: usize, bytes_max: usize) -> Vec<Delivery> {
        let chosen = self.choose(MessageState::Ready, 0, messages_max, bytes_max);
        for offset in &chosen {
            self.last_token += 1;
            let message = self.messages.get_mut(offset).expect("it was chosen");
            message.state = MessageState::Leased;
            message.token = self.last_token;
        }
        chosen.iter().map(|offset| self.delivery(*offset)).collect()
    }

    pub(super) fn pop(&mut self, messages_max: usize, bytes_max: usize) -> Vec<Delivery> {
        let chosen = self.choose(MessageState::Ready, 0, messages_max, bytes_max);
        let popped = chosen.iter().map(|offset| self.delivery(*offset)).collect();
        chosen.iter().for_each(|offset| drop(self.messages.remove(offset)));
        popped
    }

    pub(super) fn peek(
        &self,
        state: MessageState,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> Vec<Delivery> {
        let chosen = self.choose(state, from, messages_max, bytes_max);
        chosen
            .into_iter()
            .map(|offset| Delivery { message: self.unleased(offset), ..self.delivery(offset) })
            .collect()
    }

    pub(super) fn settle(&mut self, leases: &[LeaseId], settlement: &Settlement) -> Vec<LeaseResult> {
        leases.iter().map(|lease| self.settle_one(lease, settlement)).collect()
    }

    pub(super) fn end_leases(&mut self) {
        for message in self.messages.values_mut().filter(|message| message.state == MessageState::Leased) {
            message.state = MessageState::Ready;
            message.attempts += 1;
        }
    }

    pub(super) fn redrive(&mut self, offsets: &[u64]) -> u64 {
        let dead = self.dead(offsets);
        for offset in &dead {
            let message = self.messages.get_mut(offset).expect("it was found");
            (message.state, message.attempts, message.reason) = (MessageState::Ready, 0, String::new());
        }
        dead.len() as u64
    }

    pub(super) fn purge_dead(&mut self, offsets: &[u64]) -> u64 {
        let dead = self.dead(offsets);
        dead.iter().for_each(|offset| drop(self.messages.remove(offset)));
        dead.len() as u64
    }

    pub(super) fn purge(&mut self) -> u64 {
        let before = self.messages.len();
        self.messages.retain(|_, message| matches!(message.state, MessageState::Leased | MessageState::Dead));
        (before - self.messages.len()) as u64
    }

    fn dead(&self, offsets: &[u64]) -> Vec<u64> {
        let asked = |offset: &u64| offsets.is_empty() || offsets.contains(offset);
        let dead = self.messages.iter().filter(|(_, message)| message.state == MessageState::Dead);
        dead.map(|(offset, _)| *offset).filter(asked).collect()
    }

    /// Offsets of messages in `state`: as many as allowed, and at least one where there is one.
    fn choose(&self, state: MessageState, from: u64, messages_max: usize, bytes_max: usize) -> Vec<u64> {
        let mut bytes = 0;
        let mut chosen = Vec::new();
        for (offset, message) in self.messages.range(from..).filter(|(_, message)| message.state == state) {
            bytes += message.content.body.len();
            if chosen.len() == messages_max || (bytes > bytes_max && !chosen.is_empty()) {
                break;
            }
            chosen.push(*offset);
        }
        chosen
    }

    fn settle_one(&mut self, lease: &LeaseId, settlement: &Settlement) -> LeaseResult {
        let offset = lease.message.offset;
        if lease.message.topic != self.id || offset >= self.next_offset {
            return LeaseResult::Invalid;
        }
        let Some(message) = self.messages.get_mut(&offset) else { return LeaseResult::Gone };
        if message.state != MessageState::Leased || message.token != lease.token {
            return LeaseResult::Stale;
        }
        match settlement {
            Settlement::Ack => drop(self.messages.remove(&offset)),
            Settlement::Nack { reason, .. } => {
                message.attempts += 1;
                if message.attempts < self.options.attempts_max.unwrap_or(ATTEMPTS_MAX) {
                    message.state = MessageState::Ready;
                } else {
                    message.state = MessageState::Dead;
                    message.reason = if reason.is_empty() { "attempts".into() } else { reason.clone() };
                }
            }
            Settlement::Extend { .. } => {}
            Settlement::Release => message.state = MessageState::Ready,
        }
        LeaseResult::Done
    }

    fn unleased(&self, offset: u64) -> MessageRef {
        let message = &self.messages[&offset];
        MessageRef {
            id: MessageId { generation: 0, topic: self.id, offset },
            token: 0,
            attempts: message.attempts,
            deadline_ms: 0,
            reason: message.reason.clone(),
        }
    }

    fn delivery(&self, offset: u64) -> Delivery {
        let message = &self.messages[&offset];
        let leased = message.state == MessageState::Leased;
        let (token, deadline_ms) = if leased { (message.token, 1_700_000_030_000) } else { (0, 0) };
        Delivery {
            message: MessageRef { token, deadline_ms, ..self.unleased(offset) },
            published_ms: 1_700_000_000_000,
            body: message.content.body.clone(),
            body_crc: message.content.body_crc,
            key: message.content.key.clone(),
            headers: message.content.headers.clone(),
        }
    }
}
