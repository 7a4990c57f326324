//! The way of a decoded call from an edge to the node: checked, with a deadline, and answered in any case.

use crate::api::budget::Budget;
use crate::api::limits::{self, Limits, less_margin};
use crate::api::{
    Answer, Failure, LeaseId, LocalStatus, Publish, Reason, Recover, RecoveryInfo, Request, Settle,
    Settlement, StorageInfo, Take, TakeKind,
};
use crate::edges::sent::{self, Outgoing};
use crate::edges::service::{Begun, Service};
use crate::edges::workers::Workers;
use crate::traces::Exporter;
use std::sync::Arc;
use std::time::Duration;

/// How much longer than its deadline a call may take before the edge answers for the node. A node answers in time by
/// itself; this is for one that does not.
const GRACE: Duration = Duration::from_millis(50);

/// How long giving back messages that were leased for nobody may take.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// Larger requests are decoded on a thread of their own, so that no other call waits for that.
const LONG_BYTES: usize = 256 << 10;
/// How many are decoded at a time on such threads. During that a request is held twice.
const LONG_MAX: usize = 1;

/// Bytes of a token of a forced recovery: far more than any has.
const TOKEN_BYTES_MAX: usize = 64;

/// For whom a receive leases messages.
pub(crate) struct Leasing {
    topic: String,
    subscription: String,
    lease: Duration,
}

/// A node with the limits that its edges check, and the budget that all of them share.
#[derive(Clone, Debug)]
pub struct Edge<S> {
    service: S,
    limits: Limits,
    budget: Budget,
    decoders: Workers,
    exporter: Option<Exporter>,
}

impl<S: Service> Edge<S> {
    /// The edges of `service`, with a budget of their own.
    pub fn new(service: S, limits: Limits) -> Self {
        let decoders = Workers::new(LONG_MAX);
        Self { service, limits, budget: Budget::default(), decoders, exporter: None }
    }

    /// The same with this budget for what is held for clients.
    #[must_use]
    pub fn with_budget(self, budget: Budget) -> Self {
        Self { budget, ..self }
    }

    /// The same with spans of its calls given to this exporter.
    #[must_use]
    pub fn with_traces(self, exporter: Option<Exporter>) -> Self {
        Self { exporter, ..self }
    }

    /// Who takes spans of calls, if anybody does.
    pub fn traces(&self) -> Option<&Exporter> {
        self.exporter.as_ref()
    }

    /// What is held for clients.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Decodes a request of so many bytes: here, or on a thread where it holds up nobody.
    ///
    /// # Errors
    ///
    /// The errors of `decode`.
    pub async fn decode<T: Send + 'static>(
        &self,
        bytes: usize,
        decode: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        if bytes < LONG_BYTES { decode() } else { self.decoders.run(decode).await? }
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The node's own view of itself.
    pub fn local_status(&self) -> Arc<LocalStatus> {
        self.service.local_status()
    }

    /// What the node keeps on its disk and in memory.
    pub async fn storage(&self) -> StorageInfo {
        let service = self.service.clone();
        // Fails only when the process ends.
        tokio::task::spawn_blocking(move || service.storage()).await.unwrap_or_default()
    }

    /// Asks the node itself, and no other, what it knows that may have to go on alone; with a token it does.
    ///
    /// # Errors
    ///
    /// It may not be done, or the node does not answer.
    pub async fn recover(&self, asked: Recover) -> Result<RecoveryInfo, Failure> {
        if let Some(token) = &asked.token
            && token.len() > TOKEN_BYTES_MAX
        {
            let text = format!("token: {} bytes, at most {TOKEN_BYTES_MAX} are allowed", token.len());
            return Err(limits::invalid(text));
        }
        self.service.recover(asked).await
    }

    /// Checks a call of a client and passes it to the node. A long poll is cut, so that it ends and can be answered
    /// within the deadline.
    ///
    /// # Errors
    ///
    /// The node's failure, or that of a limit, to be passed to the client.
    pub async fn call(&self, request: Request, deadline: Duration) -> Result<Answer, Failure> {
        self.call_as(request, deadline, false).await
    }

    /// The same for a call that a peer passed on: the node answers it itself or not at all. A deadline longer than any
    /// client can ask for is cut.
    ///
    /// # Errors
    ///
    /// As [`Edge::call`].
    pub async fn call_forwarded(&self, request: Request, deadline: Duration) -> Result<Answer, Failure> {
        self.call_as(request, limits::deadline(Some(deadline), 0), true).await
    }

    /// Begins batches that were [checked](Limits::check_publish), in this order, at this node or not at all. If the
    /// node works, it answers each by its deadline. For a node that does not, the caller has [`overdue_after`].
    pub fn begin(&self, batches: Vec<Publish>, deadline: Duration) -> Vec<Begun<S::Driven>> {
        self.service.begin(batches, deadline)
    }

    /// What is needed to give back what a receive leases; `None` for any other call.
    pub(crate) fn leasing(&self, request: &Request) -> Option<Leasing> {
        let Request::Take(Take { topic, subscription, kind: TakeKind::Receive { lease_ms }, .. }) = request
        else {
            return None;
        };
        let lease = self.limits.lease(*lease_ms);
        Some(Leasing { topic: topic.clone(), subscription: subscription.clone(), lease })
    }

    /// What goes with the answer to a receive, so that its messages go back if it does not get through.
    pub(crate) fn outgoing(&self, leasing: Option<Leasing>, answer: &Answer) -> Option<Outgoing> {
        let (Some(Leasing { topic, subscription, lease }), Answer::Deliveries(deliveries)) =
            (leasing, answer)
        else {
            return None;
        };
        if deliveries.messages.is_empty() {
            return None;
        }
        let leases: Vec<LeaseId> = deliveries
            .messages
            .iter()
            .map(|delivery| LeaseId { message: delivery.message.id, token: delivery.message.token })
            .collect();
        let edge = self.clone();
        Some(Outgoing::or_else(sent::patience(lease), leases.len(), move || {
            let release =
                Request::Settle(Settle { topic, subscription, leases, settlement: Settlement::Release });
            // If the process ends, or if this fails, the leases end by themselves.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { edge.call(release, GIVE_BACK).await });
            }
        }))
    }

    async fn call_as(
        &self,
        mut request: Request,
        deadline: Duration,
        forwarded: bool,
    ) -> Result<Answer, Failure> {
        self.limits.check(&request)?;
        if let Request::Take(take) = &mut request {
            let longest_ms = u64::try_from(less_margin(deadline).as_millis()).unwrap_or(u64::MAX);
            take.wait_ms = take.wait_ms.min(longest_ms);
        }
        let call = self.service.call(request, deadline, forwarded);
        tokio::time::timeout(overdue_after(deadline), call).await.unwrap_or_else(|_| Err(overdue(deadline)))
    }
}

/// How long a call may take before the edge answers for the node, with [`overdue`].
pub fn overdue_after(deadline: Duration) -> Duration {
    deadline + GRACE
}

/// The answer to a call that the node did not answer in time.
pub fn overdue(deadline: Duration) -> Failure {
    let text = format!("no answer within {} ms; the call may still be carried out", deadline.as_millis());
    Failure::unknown(Reason::DeadlineExceeded, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Look, Outcome, Response, Write};
    use std::future::pending;

    /// Answers a listing with its deadline as a count, and a pop with its wait. Never answers anything else.
    #[derive(Clone)]
    struct Mirror;

    impl Service for Mirror {
        type Driven = std::future::Ready<Result<Answer, Failure>>;

        async fn call(&self, request: Request, deadline: Duration, _: bool) -> Result<Answer, Failure> {
            match request {
                Request::Look(Look::ListTopics { .. }) => {
                    Ok(Answer::Response(Response::Count(u64::try_from(deadline.as_millis()).unwrap())))
                }
                Request::Take(Take { wait_ms, kind: TakeKind::Pop { .. }, .. }) => {
                    Ok(Answer::Response(Response::Count(wait_ms)))
                }
                _ => pending().await,
            }
        }

        fn local_status(&self) -> Arc<LocalStatus> {
            Arc::default()
        }
    }

    fn edge() -> Edge<Mirror> {
        Edge::new(Mirror, Limits::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_answer_is_answered_for_and_the_outcome_is_unknown() {
        let request = Request::Write(Write::DeleteTopic { topic: "orders".into() });
        let failure = edge().call(request, Duration::from_millis(900)).await.expect_err("nobody answers");
        assert_eq!((failure.reason, failure.outcome), (Reason::DeadlineExceeded, Outcome::Unknown));
    }

    #[tokio::test]
    async fn a_long_poll_ends_before_the_deadline() {
        let pop = |wait_ms| {
            Request::Take(Take {
                topic: "orders".into(),
                subscription: String::new(),
                messages_max: 1,
                bytes_max: 1,
                wait_ms,
                kind: TakeKind::Pop { request_id: None },
            })
        };
        for (asked, given) in [(0, 0), (700, 700), (u64::MAX, 810)] {
            let answer = edge().call(pop(asked), Duration::from_millis(900)).await;
            assert_eq!(answer, Ok(Answer::Response(Response::Count(given))));
        }
    }

    #[tokio::test]
    async fn the_deadline_of_a_peer_is_cut_as_that_of_a_client() {
        let listing = Request::Look(Look::ListTopics { after: None, topics_max: 1 });
        for (asked, given) in [(900, 900), (u64::MAX, limits::DEADLINE_MS_MAX)] {
            let answer = edge().call_forwarded(listing.clone(), Duration::from_millis(asked)).await;
            assert_eq!(answer, Ok(Answer::Response(Response::Count(given))));
        }
    }

    #[tokio::test]
    async fn what_a_limit_refuses_never_reaches_the_node() {
        let request = Request::Look(Look::ListTopics { after: None, topics_max: 0 });
        let failure = edge().call(request, Duration::from_millis(900)).await.expect_err("zero topics");
        assert_eq!((failure.reason, failure.outcome), (Reason::InvalidArgument, Outcome::NotDone));
    }

    #[tokio::test]
    async fn a_long_request_is_decoded_while_others_are_served() {
        let (edge, (go, gone)) = (edge(), std::sync::mpsc::channel());
        let decode = move || Ok(gone.recv_timeout(Duration::from_secs(20)).is_ok());
        // All of this runs on one thread, which the decoder does not hold.
        let (decoded, ()) =
            tokio::join!(edge.decode(LONG_BYTES, decode), async { go.send(()).expect("it waits") });
        assert_eq!(decoded, Ok(true));
    }
}
