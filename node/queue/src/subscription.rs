//! One subscription: where each message of its topic is, and how it moves.
//!
//! ```text
//!              publish                    receive                 ack
//!    ─────────────┬──────────▶  ready  ───────────▶  leased  ────────────▶  (none)
//!                 │ delay       ▲ ▲ │ deadline        │ │ nack, expiry        ▲
//!                 ▼             │ │ └───────────┐     │ │ release             │
//!              delayed  ────────┘ │             ▼     │ │                     │ pop, purge,
//!                 ▲     time      └──────────  dead  ◀┘ │                     │ late ack
//!                 └──────── nack with a delay ──────────┘        from ready ──┘
//! ```

use crate::dead::DeadRuns;
use crate::deadline::Deadline;
use crate::map::Map;
use crate::runs::Runs;
use crate::tally::Tally;
use crate::{Candidate, DeadReason, LEASE_MS_MAX, LeaseResult, MessageMeta, Refused, Token};

/// The messages of one subscription. Each offset that is not done with is in exactly one state: ready, leased, delayed
/// or dead.
///
/// The sizes of ready messages are not in memory. Their sum is what is left of `bytes` after the others. That is why
/// the others keep their sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Messages that can be received.
    pub(crate) ready: Runs,
    /// Of the ready ones, those that were leased before without success.
    pub(crate) retried: Map<u64, Retried>,
    /// Bytes of the retried ones, the only ready ones whose sizes are known here.
    pub(crate) retried_bytes: u64,
    /// Of the ready ones, those whose deadline does not count because they were redriven.
    pub(crate) waived: Runs,
    pub(crate) leased: Map<u64, Lease>,
    /// (end, offset) of every lease.
    pub(crate) lease_ends: Map<(u64, u64), ()>,
    pub(crate) delayed: Map<u64, Delayed>,
    /// (end, offset) of every delay.
    pub(crate) delay_ends: Map<(u64, u64), ()>,
    pub(crate) dead: DeadRuns,
    /// Messages that were redriven and are not among the ready ones yet, because they are too many runs for one command.
    /// They count as ready. Not empty only while `ready` is not.
    pub(crate) redriven: DeadRuns,
    /// Bytes of all messages, whatever their state.
    pub(crate) bytes: u64,
    pub(crate) leased_bytes: u64,
    pub(crate) delayed_bytes: u64,
}

/// What a ready message keeps from earlier leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retried {
    pub(crate) attempts: u32,
    pub(crate) size: u32,
    /// The token under which the message can still be acknowledged although the lease ran out; 0 if there is none.
    pub(crate) late_ack: Token,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) token: Token,
    pub(crate) granted_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) deadline: Deadline,
    pub(crate) size: u32,
    pub(crate) attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delayed {
    pub(crate) due_ms: u64,
    pub(crate) deadline: Deadline,
    pub(crate) size: u32,
    pub(crate) attempts: u32,
}

/// A message on its way from one state to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) offset: u64,
    pub(crate) size: u32,
    pub(crate) attempts: u32,
    deadline: Deadline,
}

/// What others must know of changes in a subscription.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    /// The lowest offset that became ready.
    pub(crate) ready: Option<u64>,
    pub(crate) died: u32,
    pub(crate) leases_expired: u32,
    /// Steps taken, about a hundred nanoseconds each.
    pub(crate) steps: u64,
    /// What was taken out whole, to be freed elsewhere.
    pub(crate) dropped: Vec<Subscription>,
}

impl Moves {
    pub(crate) fn made_ready(&mut self, offset: u64) {
        self.ready = Some(self.ready.map_or(offset, |lowest| lowest.min(offset)));
    }
}

impl Subscription {
    /// How many messages are held, whatever their state.
    pub(crate) fn count(&self) -> u64 {
        self.ready_count() + self.leased.len() as u64 + self.delayed.len() as u64 + self.dead.count()
    }

    /// How many messages are ready, those included that were redriven and are not listed yet.
    pub(crate) fn ready_count(&self) -> u64 {
        self.ready.count() + self.redriven.count()
    }

    /// Bytes of the ready messages: what is left after the others.
    pub(crate) fn ready_bytes(&self) -> u64 {
        let others = self.leased_bytes + self.delayed_bytes + self.dead.bytes();
        self.bytes.checked_sub(others).expect("what is leased, delayed or dead is part of what is held")
    }

    /// The earliest end of a lease or delay.
    pub(crate) fn next_end_ms(&self) -> Option<u64> {
        let lease = self.lease_ends.first().map(|(&(ms, _), ())| ms);
        let delay = self.delay_ends.first().map(|(&(ms, _), ())| ms);
        match (lease, delay) {
            (Some(lease), Some(delay)) => Some(lease.min(delay)),
            (lease, delay) => lease.or(delay),
        }
    }

    /// How many leases and delays are over at `until_ms`; stops counting at `max`.
    pub(crate) fn due_count(&self, until_ms: u64, max: usize) -> usize {
        let leases = self.lease_ends.iter().take_while(|((ms, _), ())| *ms <= until_ms);
        let delays = self.delay_ends.iter().take_while(|((ms, _), ())| *ms <= until_ms);
        leases.chain(delays).take(max).count()
    }

    /// What dropping all of it would cost, in steps.
    pub(crate) fn entries(&self) -> usize {
        self.ready.run_count()
            + self.retried.len()
            + self.waived.run_count()
            + self.leased.len()
            + self.delayed.len()
            + self.dead.run_count()
            + self.redriven.run_count()
    }

    /// Takes a batch in.
    pub(crate) fn publish(
        &mut self,
        first_offset: u64,
        messages: &[MessageMeta],
        now_ms: u64,
        moves: &mut Moves,
    ) {
        let mut run = first_offset..first_offset;
        moves.steps += messages.len() as u64;
        for message in messages {
            self.bytes += u64::from(message.size);
            if message.delay_ms > 0 {
                self.make_ready_new(run.clone(), moves);
                let delayed = Delayed {
                    due_ms: now_ms.saturating_add(message.delay_ms),
                    deadline: Deadline::new(message.deadline_ms(now_ms)),
                    size: message.size,
                    attempts: 0,
                };
                self.make_delayed(run.end, delayed);
                run.start = run.end + 1;
            }
            run.end += 1;
        }
        self.make_ready_new(run, moves);
    }

    /// Whether these sizes can be true, as far as can be told: only the sum of the ready messages is known.
    fn fit(&self, candidates: &[Candidate]) -> Result<(), Refused> {
        let tally = Tally {
            count: self.ready_count() - self.retried.len() as u64,
            bytes: self.ready_bytes() - self.retried_bytes,
        };
        let is_plain = |offset| self.ready.contains(offset) && !self.retried.contains_key(&offset);
        let sizes = candidates.iter().map(|candidate| (candidate.offset, candidate.size));
        if tally.can_spare(sizes, is_plain) { Ok(()) } else { Err(Refused::SizesImpossible) }
    }

    /// Leases the candidates that are still ready. Those that outlived their deadline die instead.
    pub(crate) fn lease(
        &mut self,
        candidates: &[Candidate],
        token: Token,
        (now_ms, expires_ms): (u64, u64),
        moves: &mut Moves,
    ) -> Result<Vec<Taken>, Refused> {
        self.fit(candidates)?;
        let taken = self.take_ready(candidates, candidates.len(), now_ms, moves);
        for &Taken { offset, size, attempts, deadline } in &taken {
            let lease = Lease { token, granted_ms: now_ms, expires_ms, deadline, size, attempts };
            self.leased.insert(offset, lease);
            self.lease_ends.insert((expires_ms, offset), ());
            self.leased_bytes += u64::from(size);
        }
        Ok(taken)
    }

    /// Takes out for good the first candidates that are still ready. Those that outlived their deadline die instead.
    pub(crate) fn pop(
        &mut self,
        candidates: &[Candidate],
        count_max: usize,
        now_ms: u64,
        moves: &mut Moves,
    ) -> Result<Vec<Taken>, Refused> {
        self.fit(candidates)?;
        let taken = self.take_ready(candidates, count_max, now_ms, moves);
        for message in &taken {
            self.drop_bytes(message.size);
        }
        Ok(taken)
    }

    /// Ends a lease with success. One that ran out counts until the message is leased again or dead.
    pub(crate) fn ack(&mut self, offset: u64, token: Token) -> LeaseResult {
        if self.leased.get(&offset).is_some_and(|lease| lease.token == token) {
            let lease = self.end_lease(offset);
            self.drop_bytes(lease.size);
            return LeaseResult::Done;
        }
        match self.retried.get(&offset) {
            Some(retried) if retried.late_ack == token => {
                let size = retried.size;
                self.ready.remove(offset..offset + 1);
                self.forget_retries(offset);
                self.waived.remove_one(offset);
                self.drop_bytes(size);
                LeaseResult::Done
            }
            _ => self.result_without_lease(offset),
        }
    }

    /// Ends a lease with failure.
    pub(crate) fn nack(
        &mut self,
        offset: u64,
        token: Token,
        (now_ms, delay_ms): (u64, u64),
        attempts_max: u32,
        reason: &DeadReason,
        moves: &mut Moves,
    ) -> LeaseResult {
        if !self.is_held(offset, token, now_ms) {
            return self.result_without_lease(offset);
        }
        let mut lease = self.end_lease(offset);
        lease.attempts += 1;
        if lease.attempts >= attempts_max {
            self.make_dead(offset, lease.size, lease.attempts, reason.clone(), moves);
        } else if delay_ms > 0 {
            let Lease { deadline, size, attempts, .. } = lease;
            self.make_delayed(
                offset,
                Delayed { due_ms: now_ms.saturating_add(delay_ms), deadline, size, attempts },
            );
        } else {
            self.return_ready(offset, &lease, Token(0), now_ms, moves);
        }
        LeaseResult::Done
    }

    /// Moves the end of a lease; says where it is now.
    pub(crate) fn extend(
        &mut self,
        offset: u64,
        token: Token,
        now_ms: u64,
        lease_ms: u64,
    ) -> Result<u64, LeaseResult> {
        if !self.is_held(offset, token, now_ms) {
            return Err(self.result_without_lease(offset));
        }
        let lease = self.leased.get_mut(&offset).expect("it was just seen to be held");
        let last_ms = lease.granted_ms.saturating_add(LEASE_MS_MAX);
        let expires_ms = now_ms.saturating_add(lease_ms).min(last_ms).max(lease.expires_ms);
        if expires_ms > lease.expires_ms {
            self.lease_ends.remove(&(lease.expires_ms, offset));
            self.lease_ends.insert((expires_ms, offset), ());
            lease.expires_ms = expires_ms;
        }
        Ok(expires_ms)
    }

    /// Ends a lease as if it had never been.
    pub(crate) fn release(
        &mut self,
        offset: u64,
        token: Token,
        now_ms: u64,
        moves: &mut Moves,
    ) -> LeaseResult {
        if !self.is_held(offset, token, now_ms) {
            return self.result_without_lease(offset);
        }
        let lease = self.end_lease(offset);
        self.return_ready(offset, &lease, Token(0), now_ms, moves);
        LeaseResult::Done
    }

    /// Ends leases and delays that are over at `until_ms`, the earliest first, at most `budget` of them. Returns how
    /// many.
    pub(crate) fn expire(
        &mut self,
        (now_ms, until_ms): (u64, u64),
        budget: usize,
        attempts_max: u32,
        moves: &mut Moves,
    ) -> usize {
        let mut spent = 0;
        while spent < budget {
            let lease = self.lease_ends.first().map(|(&end, ())| end).filter(|end| end.0 <= until_ms);
            let delay = self.delay_ends.first().map(|(&end, ())| end).filter(|end| end.0 <= until_ms);
            match (lease, delay) {
                (Some(lease), delay) if delay.is_none_or(|delay| lease < delay) => {
                    self.expire_lease(lease.1, now_ms, attempts_max, moves);
                }
                (_, Some((_, offset))) => self.expire_delay(offset, now_ms, moves),
                (_, None) => break,
            }
            spent += 1;
        }
        moves.steps += spent as u64;
        spent
    }

    /// Ends candidates that are ready and outlived their deadline, at most `budget` of them. Returns how many: none, if
    /// the sizes cannot be true.
    pub(crate) fn expire_overdue(
        &mut self,
        candidates: &[Candidate],
        budget: usize,
        now_ms: u64,
        moves: &mut Moves,
    ) -> usize {
        let mut spent = 0;
        moves.steps += candidates.len() as u64;
        if self.fit(candidates).is_err() {
            return spent;
        }
        for candidate in candidates {
            if spent == budget {
                break;
            }
            let overdue = Deadline::new(candidate.deadline_ms).has_passed(now_ms);
            if overdue && self.ready.contains(candidate.offset) && !self.waived.contains(candidate.offset) {
                let taken = self.take_ready(std::slice::from_ref(candidate), 1, now_ms, moves);
                assert!(taken.is_empty(), "what is overdue dies instead of being taken");
                spent += 1;
            }
        }
        spent
    }

    /// Takes candidates out of the ready messages. Neighbours cost one change of the runs.
    fn take_ready(
        &mut self,
        candidates: &[Candidate],
        count_max: usize,
        now_ms: u64,
        moves: &mut Moves,
    ) -> Vec<Taken> {
        let mut taken = Vec::with_capacity(count_max.min(candidates.len()));
        moves.steps += candidates.len() as u64;
        // These are known to be ready, in a run that ends at `run_end`, and are not taken out of it yet.
        let mut pending = 0..0;
        let mut run_end = 0;
        for &Candidate { offset, size, deadline_ms } in candidates {
            if taken.len() == count_max {
                break;
            }
            if offset == pending.end && offset < run_end {
                pending.end += 1;
            } else {
                if !pending.is_empty() {
                    self.ready.remove(pending);
                }
                pending = 0..0;
                run_end = 0;
                let Some(run) = self.ready.run_of(offset) else { continue };
                pending = offset..offset + 1;
                run_end = run.end;
            }
            let retried = self.forget_retries(offset);
            let waived = self.waived.remove_one(offset);
            let size = retried.map_or(size, |retried| retried.size);
            let attempts = retried.map_or(0, |retried| retried.attempts);
            let deadline = if waived { Deadline::WAIVED } else { Deadline::new(deadline_ms) };
            if deadline.has_passed(now_ms) {
                self.make_dead(offset, size, attempts, DeadReason::Expired, moves);
            } else {
                taken.push(Taken { offset, size, attempts, deadline });
            }
        }
        if !pending.is_empty() {
            self.ready.remove(pending);
        }
        taken
    }

    fn expire_lease(&mut self, offset: u64, now_ms: u64, attempts_max: u32, moves: &mut Moves) {
        let mut lease = self.end_lease(offset);
        lease.attempts += 1;
        moves.leases_expired += 1;
        if lease.attempts >= attempts_max {
            self.make_dead(offset, lease.size, lease.attempts, DeadReason::LeaseExpired, moves);
        } else {
            self.return_ready(offset, &lease, lease.token, now_ms, moves);
        }
    }

    fn expire_delay(&mut self, offset: u64, now_ms: u64, moves: &mut Moves) {
        let delayed = self.delayed.remove(&offset).expect("every end belongs to a delay");
        self.delay_ends.remove(&(delayed.due_ms, offset));
        self.delayed_bytes -= u64::from(delayed.size);
        let Delayed { deadline, size, attempts, .. } = delayed;
        self.make_ready(Taken { offset, size, attempts, deadline }, Token(0), now_ms, moves);
    }

    /// Whether the lease is in force: granted under this token and not over, whether its end was processed or not.
    fn is_held(&self, offset: u64, token: Token, now_ms: u64) -> bool {
        self.leased.get(&offset).is_some_and(|lease| lease.token == token && lease.expires_ms > now_ms)
    }

    fn result_without_lease(&self, offset: u64) -> LeaseResult {
        if self.is_live(offset) { LeaseResult::Stale } else { LeaseResult::Gone }
    }

    fn end_lease(&mut self, offset: u64) -> Lease {
        let lease = self.leased.remove(&offset).expect("the caller saw the lease");
        self.lease_ends.remove(&(lease.expires_ms, offset));
        self.leased_bytes -= u64::from(lease.size);
        lease
    }

    fn drop_bytes(&mut self, size: u32) {
        self.bytes =
            self.bytes.checked_sub(u64::from(size)).expect("a message is no larger than all together");
    }

    /// A ready message leaves that state. Returns what it had kept from earlier leases.
    fn forget_retries(&mut self, offset: u64) -> Option<Retried> {
        let retried = self.retried.remove(&offset)?;
        self.retried_bytes -= u64::from(retried.size);
        Some(retried)
    }

    fn return_ready(&mut self, offset: u64, lease: &Lease, late_ack: Token, now_ms: u64, moves: &mut Moves) {
        let &Lease { deadline, size, attempts, .. } = lease;
        self.make_ready(Taken { offset, size, attempts, deadline }, late_ack, now_ms, moves);
    }

    /// Makes a message ready, unless it outlived its deadline in another state.
    fn make_ready(&mut self, message: Taken, late_ack: Token, now_ms: u64, moves: &mut Moves) {
        let Taken { offset, size, attempts, deadline } = message;
        if deadline.has_passed(now_ms) {
            self.make_dead(offset, size, attempts, DeadReason::Expired, moves);
            return;
        }
        self.ready.insert(offset..offset + 1);
        if attempts > 0 {
            self.retried.insert(offset, Retried { attempts, size, late_ack });
            self.retried_bytes += u64::from(size);
        }
        if deadline.is_waived() {
            self.waived.insert(offset..offset + 1);
        }
        moves.made_ready(offset);
    }

    fn make_ready_new(&mut self, run: std::ops::Range<u64>, moves: &mut Moves) {
        if !run.is_empty() {
            moves.made_ready(run.start);
            self.ready.insert(run);
        }
    }

    fn make_delayed(&mut self, offset: u64, delayed: Delayed) {
        self.delay_ends.insert((delayed.due_ms, offset), ());
        self.delayed_bytes += u64::from(delayed.size);
        self.delayed.insert(offset, delayed);
    }

    fn make_dead(&mut self, offset: u64, size: u32, attempts: u32, reason: DeadReason, moves: &mut Moves) {
        self.dead.insert(offset, size, attempts, reason);
        moves.died += 1;
    }
}
