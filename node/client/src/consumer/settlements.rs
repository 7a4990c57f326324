//! What was settled and not confirmed yet, in the order in which it goes to the node.
//!
//! Waiting settlements of one kind are sent as one. What was on a stream that broke is sent again on the next: doing it
//! twice has the same effect as doing it once. The outcome is called unknown only if the second answer cannot tell
//! whether the first request arrived.

use super::Settled;
use crate::{Error, Outcome};
use bytes::Bytes;
use raftqueue_proto::v1;
use std::collections::VecDeque;
use tokio::sync::oneshot;

/// Leases in one settlement, at most.
pub(super) const LEASES_MAX: usize = 1_000;

/// What is to be done with messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ack,
    Nack {
        delay_ms: u64,
        reason: String,
    },
    Release,
    /// Done by the task alone.
    Extend {
        lease_ms: u64,
    },
    /// The message is no longer held. The node keeps the lease as it is.
    Forget,
}

/// Somebody settled messages.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) kind: Kind,
    pub(super) leases: Vec<Bytes>,
    pub(super) reply: Option<Reply>,
}

type Reply = oneshot::Sender<Result<Settled, Error>>;

impl Order {
    pub(super) fn fail(self, error: &Error) {
        if let Some(reply) = self.reply {
            // Fails only if nobody waits for it.
            let _ = reply.send(Err(error.clone()));
        }
    }
}

/// One request of the stream.
#[derive(Debug)]
struct Sent {
    kind: Kind,
    leases: Vec<Bytes>,
    /// In the order of the leases.
    callers: Vec<Caller>,
    /// How often it was put on a stream.
    times: u32,
}

/// Who settled leases of a request.
#[derive(Debug)]
struct Caller {
    reply: Option<Reply>,
    /// How many of the leases are this caller's.
    count: usize,
    /// The next request has more of them.
    goes_on: bool,
}

/// What a node answered to one settlement.
pub(super) struct Answered {
    pub(super) kind: Kind,
    /// Each lease, and what became of it.
    pub(super) results: Vec<(Bytes, v1::LeaseResult)>,
}

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Settlements {
    /// Oldest first.
    queue: VecDeque<Sent>,
    /// How many of them are on the stream that is open.
    on_stream: usize,
    /// What became of the part of the oldest order that is answered.
    so_far: Option<Result<Settled, Error>>,
}

impl Settlements {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many are on the stream and not answered.
    pub(super) fn on_stream(&self) -> usize {
        self.on_stream
    }

    /// Takes an order in. It joins the last request if that still waits and is of the same kind.
    pub(super) fn push(&mut self, order: Order) {
        let Order { kind, mut leases, mut reply } = order;
        if leases.is_empty() {
            if let Some(reply) = reply {
                let _ = reply.send(Ok(Settled::default()));
            }
            return;
        }
        while !leases.is_empty() {
            let rest = leases.split_off(leases.len().min(LEASES_MAX));
            let count = leases.len();
            // Nobody waits for extensions: each part is answered by itself.
            let goes_on = !rest.is_empty() && reply.is_some();
            // The caller hears when the last part is done.
            let caller = Caller { reply: if goes_on { None } else { reply.take() }, count, goes_on };
            let is_waiting = self.queue.len() > self.on_stream;
            match self.queue.back_mut().filter(|_| is_waiting) {
                Some(last)
                    if last.times == 0 && last.kind == kind && last.leases.len() + count <= LEASES_MAX =>
                {
                    last.leases.append(&mut leases);
                    last.callers.push(caller);
                }
                _ => {
                    let kind = kind.clone();
                    self.queue.push_back(Sent { kind, leases, callers: vec![caller], times: 0 });
                }
            }
            leases = rest;
        }
    }

    /// The oldest request that is not on the stream, to be sent now.
    pub(super) fn send_next(&mut self) -> Option<v1::Settlement> {
        let sent = self.queue.get_mut(self.on_stream)?;
        sent.times += 1;
        self.on_stream += 1;
        Some(write(&sent.kind, sent.leases.clone()))
    }

    /// The stream broke: everything must be sent again, except extensions, which would be out of date.
    pub(super) fn start_over(&mut self) {
        self.on_stream = 0;
        self.queue.retain(|sent| !matches!(sent.kind, Kind::Extend { .. }));
    }

    /// The oldest request on the stream was answered. `None`: the answer does not belong to it.
    pub(super) fn answer(&mut self, answer: &v1::AckResponse) -> Option<Answered> {
        if self.on_stream == 0 || self.queue.front()?.leases.len() != answer.results.len() {
            return None;
        }
        let sent = self.queue.pop_front()?;
        self.on_stream -= 1;
        let results: Vec<v1::LeaseResult> = answer
            .results
            .iter()
            .map(|result| v1::LeaseResult::try_from(*result).unwrap_or(v1::LeaseResult::Unspecified))
            .collect();
        let mut left = results.as_slice();
        for caller in sent.callers {
            let (own, rest) = left.split_at(caller.count);
            left = rest;
            let judged = judge(&sent.kind, own, sent.times);
            let judged = match self.so_far.take() {
                Some(so_far) => so_far.and_then(|so_far| judged.map(|judged| so_far + judged)),
                None => judged,
            };
            if caller.goes_on {
                self.so_far = Some(judged);
            } else if let Some(reply) = caller.reply {
                let _ = reply.send(judged);
            }
        }
        Some(Answered { kind: sent.kind, results: sent.leases.into_iter().zip(results).collect() })
    }

    /// Fails everything: what was sent may have been done. Returns the leases.
    pub(super) fn give_up(&mut self, error: &Error) -> Vec<Bytes> {
        self.on_stream = 0;
        let mut leases = Vec::new();
        // Whether an earlier part of this order was sent, or answered.
        let mut is_begun = self.so_far.take().is_some();
        for sent in self.queue.drain(..) {
            for caller in sent.callers {
                let may_be_done = sent.times > 0 || is_begun;
                is_begun = may_be_done && caller.goes_on;
                if let Some(reply) = caller.reply {
                    let outcome = if may_be_done { Outcome::Unknown } else { Outcome::NotDone };
                    let _ = reply.send(Err(Error { outcome, ..error.clone() }));
                }
            }
            leases.extend(sent.leases);
        }
        leases
    }
}

/// What a caller is told.
fn judge(kind: &Kind, results: &[v1::LeaseResult], times: u32) -> Result<Settled, Error> {
    let is_done = |result: &&v1::LeaseResult| match result {
        // Gone counts as done, also for a caller that returns a message: there is nothing left to do.
        v1::LeaseResult::Done | v1::LeaseResult::Gone => true,
        v1::LeaseResult::Stale | v1::LeaseResult::Invalid | v1::LeaseResult::Unspecified => false,
    };
    let done = results.iter().filter(is_done).count();
    let stale = results.len() - done;
    if stale > 0 && times > 1 && *kind != Kind::Ack {
        return Err(Error::unheard(
            "the lease is not current any more: the message was returned by this very request, sent before on a \
             connection that broke, or its lease had ended",
        ));
    }
    Ok(Settled { done, stale })
}

fn write(kind: &Kind, leases: Vec<Bytes>) -> v1::Settlement {
    use v1::settlement::Kind as Wire;
    let settlement = |kind: Wire| v1::Settlement { kind: kind.into(), ..v1::Settlement::default() };
    let settlement = match kind {
        Kind::Ack => settlement(Wire::Ack),
        Kind::Nack { delay_ms, reason } => {
            v1::Settlement { delay_ms: *delay_ms, reason: reason.clone(), ..settlement(Wire::Nack) }
        }
        Kind::Release => settlement(Wire::Release),
        Kind::Extend { lease_ms } => v1::Settlement { lease_ms: Some(*lease_ms), ..settlement(Wire::Extend) },
        Kind::Forget => settlement(Wire::Forget),
    };
    v1::Settlement { leases, ..settlement }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(kind: Kind, leases: std::ops::Range<u16>) -> (Order, oneshot::Receiver<Result<Settled, Error>>) {
        let (reply, settled) = oneshot::channel();
        let leases = leases.map(|lease| lease.to_be_bytes().to_vec().into()).collect();
        (Order { kind, leases, reply: Some(reply) }, settled)
    }

    fn answer(results: &[v1::LeaseResult]) -> v1::AckResponse {
        v1::AckResponse { results: results.iter().map(|result| (*result).into()).collect() }
    }

    #[test]
    fn what_waits_shares_a_request_and_each_caller_hears_of_its_own() {
        let mut settlements = Settlements::default();
        let (first, mut first_settled) = order(Kind::Ack, 0..2);
        let (second, mut second_settled) = order(Kind::Ack, 2..3);
        let (other, _) = order(Kind::Release, 3..4);
        for order in [first, second, other] {
            settlements.push(order);
        }
        assert_eq!(settlements.send_next().expect("the acks").leases.len(), 3);
        assert_eq!(settlements.send_next().expect("the release").leases.len(), 1);
        assert!(settlements.send_next().is_none());
        let (done, stale) = (v1::LeaseResult::Done, v1::LeaseResult::Stale);
        assert!(settlements.answer(&answer(&[done])).is_none(), "not an answer to three");
        settlements.answer(&answer(&[done, v1::LeaseResult::Gone, stale])).expect("an answer");
        assert_eq!(first_settled.try_recv().unwrap(), Ok(Settled { done: 2, stale: 0 }));
        assert_eq!(second_settled.try_recv().unwrap(), Ok(Settled { done: 0, stale: 1 }));
        assert_eq!(settlements.on_stream(), 1);
    }

    #[test]
    fn what_is_on_the_stream_is_not_added_to() {
        let mut settlements = Settlements::default();
        settlements.push(order(Kind::Ack, 0..1).0);
        assert_eq!(settlements.send_next().expect("one").leases.len(), 1);
        settlements.push(order(Kind::Ack, 1..2).0);
        assert_eq!(settlements.send_next().expect("another").leases.len(), 1);
        settlements.start_over();
        settlements.push(order(Kind::Ack, 2..3).0);
        let again: Vec<_> = std::iter::from_fn(|| settlements.send_next()).collect();
        assert_eq!(again.iter().map(|settlement| settlement.leases.len()).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn a_large_order_goes_out_in_parts_and_is_answered_with_the_last() {
        let mut settlements = Settlements::default();
        let (large, mut settled) = order(Kind::Ack, 0..2_500);
        settlements.push(large);
        for count in [1_000, 1_000, 500] {
            assert!(settled.try_recv().is_err(), "not before the last part");
            assert_eq!(settlements.send_next().expect("a part").leases.len(), count);
            settlements.answer(&answer(&vec![v1::LeaseResult::Done; count])).expect("an answer");
        }
        assert_eq!(settled.try_recv().expect("answered"), Ok(Settled { done: 2_500, stale: 0 }));
    }

    #[test]
    fn an_order_of_which_a_part_was_sent_is_of_unknown_outcome_when_it_is_given_up() {
        for (sent, answered) in [(0, 0), (1, 0), (1, 1), (2, 2)] {
            let mut settlements = Settlements::default();
            let (large, mut settled) = order(Kind::Ack, 0..2_500);
            let (other, mut other_settled) = order(Kind::Ack, 3_000..3_001);
            settlements.push(large);
            settlements.push(other);
            (0..sent).for_each(|_| drop(settlements.send_next().expect("a part")));
            for _ in 0..answered {
                settlements.answer(&answer(&vec![v1::LeaseResult::Done; 1_000])).expect("an answer");
            }
            assert_eq!(settlements.give_up(&Error::unheard("gone")).len(), 2_501 - 1_000 * answered);
            let expected = if sent > 0 { Outcome::Unknown } else { Outcome::NotDone };
            assert_eq!(settled.try_recv().unwrap().unwrap_err().outcome, expected, "{sent} {answered}");
            assert_eq!(other_settled.try_recv().unwrap().unwrap_err().outcome, Outcome::NotDone);
        }
    }

    #[test]
    fn extensions_of_many_leases_are_added_to_nobodys_answer() {
        let mut settlements = Settlements::default();
        let leases = (0..1_500u16).map(|lease| lease.to_be_bytes().to_vec().into()).collect();
        settlements.push(Order { kind: Kind::Extend { lease_ms: 1 }, leases, reply: None });
        settlements.send_next().expect("a part");
        settlements.answer(&answer(&[v1::LeaseResult::Stale; 1_000])).expect("an answer");
        settlements.start_over();
        let (own, mut settled) = order(Kind::Ack, 2_000..2_001);
        settlements.push(own);
        settlements.send_next().expect("the ack");
        settlements.answer(&answer(&[v1::LeaseResult::Done])).expect("an answer");
        assert_eq!(settled.try_recv().unwrap(), Ok(Settled { done: 1, stale: 0 }));
    }

    #[test]
    fn a_repeated_return_that_finds_nothing_is_of_unknown_outcome_and_a_repeated_ack_is_not() {
        let nack = Kind::Nack { delay_ms: 0, reason: String::new() };
        for (kind, result, expected) in [
            (Kind::Release, v1::LeaseResult::Stale, Err(Outcome::Unknown)),
            (nack, v1::LeaseResult::Stale, Err(Outcome::Unknown)),
            (Kind::Release, v1::LeaseResult::Done, Ok(Settled { done: 1, stale: 0 })),
            (Kind::Ack, v1::LeaseResult::Gone, Ok(Settled { done: 1, stale: 0 })),
            (Kind::Ack, v1::LeaseResult::Stale, Ok(Settled { done: 0, stale: 1 })),
        ] {
            let mut settlements = Settlements::default();
            let (order, mut settled) = order(kind, 0..1);
            settlements.push(order);
            settlements.send_next();
            settlements.start_over();
            settlements.send_next();
            settlements.answer(&answer(&[result])).expect("an answer");
            assert_eq!(settled.try_recv().unwrap().map_err(|error| error.outcome), expected);
        }
    }
}
