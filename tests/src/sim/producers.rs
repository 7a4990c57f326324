//! Producers: plain ones never repeat a publish of unknown outcome, those with a session always do. Now and then one of
//! those breaks the rules of sessions, and must be told so.

use super::Violation;
use super::calls::Answer;
use super::clients::{Ask, allowed, any_topic, lasting_topic};
use super::ledger::Ledger;
use super::message::Origin;
use super::plan::Plan;
use super::random::Random;
use raftqueue_node::api::{Publish, Reason, Request, Response, SessionId, SessionStep, Write};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Producer {
    number: u32,
    /// The number of the next message.
    next: u32,
    sessions: Option<Sessions>,
    /// The batch that waits for its answer, or must be sent again.
    batch: Option<Batch>,
}

/// How a producer with sessions stands.
#[derive(Debug)]
struct Sessions {
    is_named: bool,
    /// How many it had to give up.
    lost: u32,
    open: Option<SessionId>,
    /// The one before, of an older epoch if the producer is named.
    old: Option<SessionId>,
    /// The last sequence by topic.
    sequences: BTreeMap<String, u64>,
    /// The last batch that was acknowledged.
    done: Option<Batch>,
}

#[derive(Clone, Debug)]
struct Batch {
    topic: String,
    origins: Vec<Origin>,
    sequence: Option<u64>,
}

impl Producer {
    pub(super) fn new(number: u32, has_sessions: bool, random: &mut Random) -> Self {
        let sessions = has_sessions.then(|| Sessions {
            is_named: random.percent(50),
            lost: 0,
            open: None,
            old: None,
            sequences: BTreeMap::new(),
            done: None,
        });
        Self { number, next: 0, sessions, batch: None }
    }

    pub(super) fn next(&mut self, plan: &Plan, random: &mut Random) -> Ask {
        let allowed = allowed(random);
        if let Some(sessions) = &self.sessions
            && (sessions.open.is_none() || sessions.is_named && random.one_in(60))
        {
            let name = sessions.is_named.then(|| format!("producer-{}-{}", self.number, sessions.lost));
            return (Request::Write(Write::OpenSession { name }), allowed);
        }
        if let Some(session) = self.sessions.as_ref().and_then(|sessions| sessions.open)
            && self.batch.is_none()
            && random.one_in(150)
        {
            // It goes on as if it had not: the session is unknown from then on.
            return (Request::Write(Write::CloseSession { session }), allowed);
        }
        let batch = self.batch.take().unwrap_or_else(|| self.new_batch(plan, random));
        let is_old = random.one_in(20);
        let session = self
            .sessions
            .as_ref()
            .and_then(|sessions| if is_old { sessions.old.or(sessions.open) } else { sessions.open });
        let session = session.zip(batch.sequence);
        let request = Request::Publish(Publish {
            topic: batch.topic.clone(),
            session: session.map(|(session, sequence)| SessionStep { session, sequence }),
            messages: batch.origins.iter().map(|o| o.message(plan.seed, plan.body_bytes)).collect(),
        });
        self.batch = Some(batch);
        (request, allowed)
    }

    fn new_batch(&mut self, plan: &Plan, random: &mut Random) -> Batch {
        if let Some(done) = self.sessions.as_ref().and_then(|sessions| sessions.done.clone())
            && random.one_in(40)
        {
            return done;
        }
        let topic = match self.sessions {
            Some(_) => lasting_topic(plan, random),
            None => any_topic(plan, random),
        };
        let count = if random.percent(60) { 1 } else { random.between(2, 6) };
        let numbers = self.next..self.next + u32::try_from(count).expect("small");
        self.next = numbers.end;
        let origins = numbers.map(|number| Origin { producer: self.number, number }).collect();
        let last =
            self.sessions.as_ref().map(|sessions| sessions.sequences.get(&topic).copied().unwrap_or(0));
        // Mostly the next one; else one that is taken, or one too many.
        let sequence = last.map(|last| match random.below(80) {
            0 if last > 0 => last,
            1 => last + 2,
            _ => last + 1,
        });
        Batch { topic, origins, sequence }
    }

    /// Returns true if the call will be repeated.
    pub(super) fn hear(
        &mut self,
        answer: &Answer,
        random: &mut Random,
        ledger: &mut Ledger,
    ) -> Result<bool, Violation> {
        match answer {
            Answer::Response(Response::SessionOpened { session }) => {
                if let Some(sessions) = &mut self.sessions {
                    sessions.old = sessions.open.replace(*session);
                    let is_same =
                        |old: SessionId| (old.generation, old.number) == (session.generation, session.number);
                    if !sessions.old.is_none_or(is_same) {
                        // The name's session had ended, and the new one remembers nothing of it: what was sent under
                        // the old one must not be sent under this one.
                        sessions.sequences.clear();
                        sessions.done = None;
                        self.batch = None;
                    }
                }
            }
            Answer::Response(Response::SessionClosed) => {}
            Answer::Response(Response::Published { topic, first_offset, count, .. }) => {
                let Some(batch) = self.batch.take() else { return Ok(false) };
                Violation::unless(*count == batch.origins.len() as u64, || {
                    format!("{count} messages are said to be published of {batch:?}")
                })?;
                for (origin, ordinal) in batch.origins.iter().zip(0..) {
                    ledger.keep((*topic, first_offset + ordinal), *origin);
                }
                self.count(&batch);
            }
            Answer::Response(Response::AlreadyDone) => {
                if let Some(batch) = self.batch.take() {
                    self.count(&batch);
                }
            }
            Answer::Failure(failure)
                if matches!(
                    failure.reason,
                    Reason::SessionExpired | Reason::Fenced | Reason::OutOfSequence | Reason::SequenceReused
                ) =>
            {
                // What was unknown stays unknown.
                self.batch = None;
                if let Some(sessions) = &mut self.sessions {
                    (sessions.open, sessions.old, sessions.done) = (None, None, None);
                    sessions.lost += 1;
                    sessions.sequences.clear();
                }
            }
            Answer::Failure(failure)
                if matches!(failure.reason, Reason::TopicNotFound | Reason::LimitReached) =>
            {
                self.batch = None;
            }
            answer => {
                let repeats = if answer.is_not_done() {
                    self.sessions.is_some() || random.percent(50)
                } else {
                    self.sessions.is_some()
                };
                if !repeats {
                    self.batch = None;
                }
                return Ok(self.batch.is_some());
            }
        }
        Ok(false)
    }

    fn count(&mut self, batch: &Batch) {
        if let (Some(sessions), Some(sequence)) = (&mut self.sessions, batch.sequence) {
            let last = sessions.sequences.entry(batch.topic.clone()).or_default();
            *last = sequence.max(*last);
            sessions.done = Some(batch.clone());
        }
    }
}
