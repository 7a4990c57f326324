//! Sessions: what makes a repeated publish harmless.
//!
//! A session counts the batches of one producer in each topic, from 1 without gaps. The last replies are kept, so a
//! repeat gets the first answer again. A repeat of an older batch is told that it was done.

use crate::limits::COUNTER_MAX;
use crate::map::Map;
use crate::{
    Limit, Refused, SESSION_IDLE_MS, SESSION_REPLIES_MAX, SESSION_TOPICS_MAX, Sequenced, SessionId, TopicId,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// All open sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    pub(crate) by_id: Map<SessionId, Arc<Session>>,
    /// Follows from `by_id`.
    pub(crate) by_name: Map<Arc<str>, SessionId>,
    /// (when it ends if nothing is heard of it, session). Follows from `by_id`.
    pub(crate) ends: Map<(u64, SessionId), ()>,
    /// (session, topic) pairs in all. Follows from `by_id`.
    pub(crate) pair_count: u64,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) epoch: u64,
    pub(crate) used_ms: u64,
    pub(crate) pairs_max: u64,
    pub(crate) pairs: Map<TopicId, Arc<Pair>>,
}

/// What a session knows of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The sequence of the last batch that was taken; not 0.
    pub(crate) last_sequence: u64,
    /// The replies to the last batches, the newest at the back; that one has `last_sequence`.
    pub(crate) replies: VecDeque<KeptReply>,
}

/// The reply to one batch of a session, kept for its repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptReply {
    /// The offset of the first message.
    pub first_offset: u64,
    /// How many messages.
    pub count: u32,
    /// The CRC of the batch.
    pub batch_crc: u32,
}

/// What a sequence means, if it is not refused.
pub(crate) enum Admitted {
    /// The next batch.
    New,
    /// A repeat of a batch whose reply is kept.
    Repeat(KeptReply),
    /// A repeat of an older batch.
    AlreadyDone,
}

impl Session {
    /// When it ends if nothing is heard of it.
    pub(crate) fn end_ms(&self) -> u64 {
        self.used_ms.saturating_add(SESSION_IDLE_MS)
    }

    /// The name of the producer, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The epoch in force.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The last sequence taken in each topic that this session published to: where a resumed producer goes on.
    pub fn sequences(&self) -> impl Iterator<Item = (TopicId, u64)> {
        self.pairs.iter().map(|(&topic, pair)| (topic, pair.last_sequence))
    }
}

impl Sessions {
    /// The session of this name, if its time is over but it still stands in the table.
    pub(crate) fn overdue(&self, name: Option<&str>, now_ms: u64) -> Option<SessionId> {
        let id = *self.by_name.get(name?)?;
        (self.by_id.get(&id)?.end_ms() <= now_ms).then_some(id)
    }

    /// Opens a session, or resumes the one of this name. Returns its id, its epoch, and whether it was resumed.
    pub(crate) fn open(
        &mut self,
        new_id: SessionId,
        name: Option<&str>,
        (sessions_max, pairs_max): (u64, u64),
        now_ms: u64,
    ) -> Result<(SessionId, u64, bool), Refused> {
        if let Some(&id) = name.and_then(|name| self.by_name.get(name)) {
            self.touch(id, now_ms);
            let session = Arc::make_mut(self.by_id.get_mut(&id).expect("every name leads to a session"));
            if session.epoch >= COUNTER_MAX {
                return Err(Refused::NumbersSpent);
            }
            session.epoch += 1;
            session.pairs_max = pairs_max;
            return Ok((id, session.epoch, true));
        }
        let value = self.by_id.len() as u64 + 1;
        if value > sessions_max {
            return Err(Refused::OverLimit { limit: Limit::Sessions, max: sessions_max, value });
        }
        let name: Option<Arc<str>> = name.map(Arc::from);
        if let Some(name) = &name {
            self.by_name.insert(Arc::clone(name), new_id);
        }
        let session = Session { name, epoch: 0, used_ms: now_ms, pairs_max, pairs: Map::default() };
        self.ends.insert((session.end_ms(), new_id), ());
        self.by_id.insert(new_id, Arc::new(session));
        Ok((new_id, 0, false))
    }

    /// Checks that the caller holds the session, and notes that it was used. A session whose time is over counts as
    /// gone, even if it still waits to be removed.
    pub(crate) fn hold(&mut self, id: SessionId, epoch: u64, now_ms: u64) -> Result<(), Refused> {
        let session = self.by_id.get(&id).filter(|session| session.end_ms() > now_ms);
        let session = session.ok_or(Refused::SessionExpired { session: id })?;
        if session.epoch != epoch {
            return Err(Refused::Fenced { session: id, held: session.epoch, given: epoch });
        }
        self.touch(id, now_ms);
        Ok(())
    }

    /// Judges the sequence of a batch for a topic. The caller holds the session.
    pub(crate) fn admit(&self, given: &Sequenced, topic: TopicId) -> Result<Admitted, Refused> {
        let session = self.by_id.get(&given.session).expect("the caller holds the session");
        let pair = session.pairs.get(&topic);
        let last = pair.map_or(0, |pair| pair.last_sequence);
        if given.sequence == 0 || given.sequence > last + 1 {
            return Err(Refused::OutOfSequence { expected: last + 1, given: given.sequence });
        }
        let Some(pair) = pair else { return self.admit_pair(session) };
        if given.sequence == last + 1 {
            return Ok(Admitted::New);
        }
        let age = last - given.sequence;
        let kept = usize::try_from(age).ok().and_then(|age| pair.replies.iter().rev().nth(age));
        match kept {
            None => Ok(Admitted::AlreadyDone),
            Some(reply) if reply.batch_crc == given.batch_crc => Ok(Admitted::Repeat(*reply)),
            Some(reply) => Err(Refused::SequenceReused {
                sequence: given.sequence,
                held_crc: reply.batch_crc,
                given_crc: given.batch_crc,
            }),
        }
    }

    /// Whether the session may count in one more topic.
    fn admit_pair(&self, session: &Session) -> Result<Admitted, Refused> {
        let value = session.pairs.len() as u64 + 1;
        let max = SESSION_TOPICS_MAX as u64;
        if value > max {
            return Err(Refused::OverLimit { limit: Limit::SessionTopics, max, value });
        }
        let value = self.pair_count + 1;
        if value > session.pairs_max {
            return Err(Refused::OverLimit { limit: Limit::SessionPairs, max: session.pairs_max, value });
        }
        Ok(Admitted::New)
    }

    /// Notes that the batch was taken. Returns whether this was the session's first batch in the topic.
    pub(crate) fn keep(&mut self, given: &Sequenced, topic: TopicId, reply: KeptReply) -> bool {
        let session =
            Arc::make_mut(self.by_id.get_mut(&given.session).expect("the caller holds the session"));
        let pair = match session.pairs.get_mut(&topic) {
            Some(pair) => pair,
            None => {
                session.pairs.insert(topic, Arc::default());
                session.pairs.get_mut(&topic).expect("it was just put there")
            }
        };
        let pair = Arc::make_mut(pair);
        let is_new = pair.last_sequence == 0;
        self.pair_count += u64::from(is_new);
        pair.last_sequence = given.sequence;
        if pair.replies.len() == SESSION_REPLIES_MAX {
            pair.replies.pop_front();
        }
        pair.replies.push_back(reply);
        is_new
    }

    /// Ends a session; returns it.
    pub(crate) fn end(&mut self, id: SessionId) -> Arc<Session> {
        let session = self.by_id.remove(&id).expect("the caller saw the session");
        self.ends.remove(&(session.end_ms(), id));
        if let Some(name) = &session.name {
            self.by_name.remove(name);
        }
        self.pair_count -= session.pairs.len() as u64;
        session
    }

    /// How many sessions are over, each with the topics it counts in; stops counting at `max`.
    pub(crate) fn due_count(&self, now_ms: u64, max: usize) -> usize {
        let mut due = 0;
        for (&(ms, id), ()) in self.ends.iter() {
            if ms > now_ms || due >= max {
                break;
            }
            due += 1 + self.by_id.get(&id).map_or(0, |session| session.pairs.len());
        }
        due
    }

    /// The session that ends first, and when.
    pub(crate) fn next_end(&self) -> Option<(u64, SessionId)> {
        self.ends.first().map(|(&end, ())| end)
    }

    /// Forgets what a session counted in a topic that is gone.
    pub(crate) fn drop_pair(&mut self, id: SessionId, topic: TopicId) {
        let session = self.by_id.get_mut(&id).expect("a topic lists open sessions only");
        Arc::make_mut(session).pairs.remove(&topic).expect("a topic lists sessions that count in it only");
        self.pair_count -= 1;
    }

    fn touch(&mut self, id: SessionId, now_ms: u64) {
        let session = self.by_id.get_mut(&id).expect("the caller saw the session");
        if session.used_ms == now_ms {
            return;
        }
        let session = Arc::make_mut(session);
        self.ends.remove(&(session.end_ms(), id));
        session.used_ms = now_ms;
        self.ends.insert((session.end_ms(), id), ());
    }
}
