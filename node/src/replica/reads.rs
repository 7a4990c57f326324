//! Calls that only look. They are answered from the applied state, once this node is known to lead still.

use super::calls::{CallId, Kept, Stage};
use super::{Replica, commands};
use crate::api::{Failure, Look, MessageRef, MessageState, Reason, Response};
use raftqueue_queue::{Subscription, Topic, TopicId};
use raftqueue_raft::{Index, ReadId, Refused};
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Calls that came since the last round.
    wanted: Vec<CallId>,
    /// One read of the core for all calls of a batch.
    asked: BTreeMap<ReadId, Vec<CallId>>,
    /// Confirmed, and waiting for the index to be applied.
    confirmed: Vec<(Index, Vec<CallId>)>,
    /// To be answered.
    ready: VecDeque<CallId>,
}

impl Reads {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Calls that are in it.
    pub(super) fn outstanding(&self) -> usize {
        let confirmed = self.confirmed.iter().map(|(_, calls)| calls.len());
        let asked = self.asked.values().map(Vec::len).chain(confirmed).sum::<usize>();
        self.wanted.len() + asked + self.ready.len()
    }
}

impl Replica {
    /// Lets a call wait for a read index.
    pub(super) fn read(&mut self, id: CallId) {
        self.call_mut(id).stage = Stage::Reading;
        self.reads.wanted.push(id);
    }

    pub(super) fn start_reads(&mut self) {
        if self.reads.wanted.is_empty() {
            return;
        }
        match self.raft.read() {
            Ok(read) => {
                let calls = std::mem::take(&mut self.reads.wanted);
                self.reads.asked.insert(read, calls);
            }
            // It is asked again when the hand-over has ended. If that succeeds, losing the lead clears everything.
            Err(Refused::Transferring) => {}
            Err(_) => {
                for id in std::mem::take(&mut self.reads.wanted) {
                    self.refuse(id, Reason::NotLeader, "this node no longer leads");
                }
            }
        }
    }

    pub(super) fn on_read(&mut self, read: ReadId, result: Result<Index, Refused>) {
        let Some(calls) = self.reads.asked.remove(&read) else { return };
        match result {
            Ok(index) => self.reads.confirmed.push((index, calls)),
            Err(_) => {
                for id in calls {
                    self.refuse(id, Reason::NotLeader, "this node no longer leads");
                }
            }
        }
    }

    /// Answers the calls whose index is applied.
    pub(super) fn answer_reads(&mut self) {
        let applied = self.applied;
        let ready = self.reads.confirmed.extract_if(.., |(index, _)| *index <= applied);
        self.reads.ready.extend(ready.flat_map(|(_, calls)| calls));
        while !self.reads.ready.is_empty() && self.steps.may_go_on() {
            let id = self.reads.ready.pop_front().expect("just seen");
            self.steps.take(1);
            let Some(call) = self.calls.get_mut(&id) else { continue };
            match std::mem::take(&mut call.kept) {
                take @ Kept::Take(_) => {
                    call.kept = take;
                    self.try_receive(id, true);
                }
                Kept::Dead(dead) => self.act_on_dead(id, dead),
                Kept::Look(look) => self.look(id, look),
                Kept::Members(asked) => self.change_members(id, &asked),
                // It waits for no read any more.
                Kept::Nothing => {}
            }
        }
    }

    /// Answers a call that only looks, or has the shell do it.
    fn look(&mut self, id: CallId, look: Look) {
        let result = match look {
            Look::ListTopics { after, topics_max } => Ok(self.list_topics(after, topics_max)),
            Look::DescribeTopic { topic } => {
                self.topic_id(&topic).map(|id| Response::Topic(commands::topic_info(self.topic_at(id))))
            }
            Look::Peek { topic, subscription, state, from_offset, messages_max, .. } => {
                self.peek(&topic, &subscription, state, from_offset, messages_max)
            }
            Look::ClusterStatus => return self.confirm(id),
            Look::Members => Ok(Response::Members(self.members_info())),
        };
        self.steps.take(match &result {
            Ok(Response::Messages(messages)) => messages.len(),
            Ok(Response::Topics { topics, .. }) => topics.len(),
            Ok(Response::Members(members)) => members.members.len() + members.waiting.len(),
            _ => 0,
        });
        self.answer(id, result);
    }

    fn list_topics(&self, after: Option<u64>, topics_max: usize) -> Response {
        let from = TopicId(after.map_or(0, |id| id.saturating_add(1)));
        let all = self.state.topics_from(from).take(topics_max.saturating_add(1));
        let mut topics: Vec<_> = all.map(commands::topic_info).collect();
        let more = topics.len() > topics_max;
        topics.truncate(topics_max);
        Response::Topics { topics, more }
    }

    fn peek(
        &self,
        topic: &str,
        subscription: &str,
        state: MessageState,
        from_offset: u64,
        messages_max: usize,
    ) -> Result<Response, Failure> {
        let topic = self.topic_at(self.topic_id(topic)?);
        let subscription = topic
            .subscription(Self::subscription(subscription)?)
            .expect("the default subscription is always there");
        Ok(Response::Messages(peek(topic, subscription, state, from_offset, messages_max)))
    }

    fn topic_at(&self, id: TopicId) -> &Topic {
        self.state.topic(id).expect("a name leads to a topic")
    }
}

fn peek(
    topic: &Topic,
    subscription: &Subscription,
    state: MessageState,
    from: u64,
    count: usize,
) -> Vec<MessageRef> {
    let message = |offset: u64, attempts: u32| MessageRef {
        id: commands::message_id(
            topic.id(),
            topic.generation_of(offset).expect("a live offset was given"),
            offset,
        ),
        token: 0,
        attempts,
        deadline_ms: 0,
        reason: String::new(),
    };
    match state {
        MessageState::Ready => subscription
            .ready_from(from)
            .take(count)
            .map(|offset| message(offset, subscription.attempts(offset)))
            .collect(),
        MessageState::Leased => subscription
            .leased_from(from)
            .take(count)
            .map(|m| MessageRef {
                token: m.token.0,
                deadline_ms: m.expires_ms,
                ..message(m.offset, m.attempts)
            })
            .collect(),
        MessageState::Delayed => subscription
            .delayed_from(from)
            .take(count)
            .map(|m| MessageRef { deadline_ms: m.due_ms, ..message(m.offset, m.attempts) })
            .collect(),
        MessageState::Dead => subscription
            .dead_from(from)
            .flat_map(|run| {
                let reason = commands::dead_reason(&run.reason);
                run.offsets.map(move |offset| (offset, run.attempts, reason.clone()))
            })
            .take(count)
            .map(|(offset, attempts, reason)| MessageRef { reason, ..message(offset, attempts) })
            .collect(),
    }
}
