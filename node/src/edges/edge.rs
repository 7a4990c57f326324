//! The way of a decoded call from an edge to the node: checked, with a deadline, and answered in any case.

use crate::api::budget::Budget;
use crate::api::limits::{self, Limits, less_margin};
use crate::api::{
    Answer, Failure, LeaseId, LocalStatus, Look, Publish, Reason, Recover, RecoveryInfo, Request, Response,
    Settle, Settlement, StorageInfo, Take, TakeKind, Write,
};
use crate::edges::gate::{Call, Called, Gate, Needs, Origin};
use crate::edges::sent::{self, Outgoing};
use crate::edges::service::{Begun, Service};
use crate::edges::workers::Workers;
use crate::traces::Exporter;
use raftqueue_access::Permission;
use raftqueue_proto::v1;
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

/// A batch that the limits and the gate let through. Only [`Edge::admit_batch`] makes one.
#[derive(Debug)]
pub(crate) struct Admitted(Publish);

impl Admitted {
    /// What was let through.
    pub(crate) fn batch(&self) -> &Publish {
        &self.0
    }
}

/// A node with the limits that its edges check, and the budget that all of them share.
#[derive(Clone, Debug)]
pub struct Edge<S> {
    service: S,
    limits: Limits,
    budget: Budget,
    decoders: Workers,
    exporter: Option<Exporter>,
    gate: Option<Gate>,
}

impl<S: Service> Edge<S> {
    /// The edges of `service`, with a budget of their own.
    pub fn new(service: S, limits: Limits) -> Self {
        let decoders = Workers::new(LONG_MAX);
        Self { service, limits, budget: Budget::default(), decoders, exporter: None, gate: None }
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

    /// The same behind this gate; without one everybody may do everything.
    #[must_use]
    pub fn behind(self, gate: Option<Gate>) -> Self {
        Self { gate, ..self }
    }

    /// The gate, if there is one.
    pub fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
    }

    /// Lets somebody do what is no call of the API: see something of this very node.
    ///
    /// # Errors
    /// It may not.
    pub fn admit(&self, called: &Called, what: &str, needs: Needs<'_>) -> Result<(), Failure> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate.admit(called, what, needs))
    }

    /// Whether somebody may do something, asked by itself.
    ///
    /// # Errors
    /// There is no such permission.
    pub fn can_i(&self, called: &Called, asked: &v1::CanIRequest) -> Result<v1::CanIResponse, Failure> {
        let permission: Permission = asked.permission.parse().map_err(limits::invalid)?;
        if permission == Permission::Administer && !asked.topic.is_empty() {
            return Err(limits::invalid("administer is of the cluster: leave the topic out"));
        }
        let Some(gate) = &self.gate else {
            let reason = "this node has no file of rights: everybody may do everything".into();
            return Ok(v1::CanIResponse {
                allowed: true,
                caller: "anybody".into(),
                reason,
                ..Default::default()
            });
        };
        let needs = match &asked.topic[..] {
            "" => Needs::Somewhere(permission),
            topic => Needs::On(permission, topic),
        };
        let answered = gate.asked(called, needs);
        let (role, reason) = answered
            .as_ref()
            .map_or_else(|reason| (String::new(), reason.clone()), |role| (role.clone(), String::new()));
        Ok(v1::CanIResponse { allowed: answered.is_ok(), caller: called.caller.to_string(), role, reason })
    }

    /// Looks again at who began a stream.
    ///
    /// # Errors
    /// What it showed counts no more.
    pub(crate) fn look_again(&self, called: &Called) -> Result<(), Failure> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate.look_again(called))
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
    pub async fn recover(&self, called: &Called, asked: Recover) -> Result<RecoveryInfo, Failure> {
        self.admit(called, "recover", Needs::Everywhere(Permission::Administer))?;
        if let Some(token) = &asked.token
            && token.len() > TOKEN_BYTES_MAX
        {
            let text = format!("token: {} bytes, at most {TOKEN_BYTES_MAX} are allowed", token.len());
            return Err(limits::invalid(text));
        }
        self.service.recover(asked).await
    }

    /// Checks a call and passes it to the node. A long poll is cut, so that it ends and can be answered
    /// within the deadline. So is a peer's deadline that is longer than any client can ask for.
    ///
    /// # Errors
    ///
    /// The node's failure, or that of a limit or of the gate, to be passed to the client.
    pub async fn call(&self, mut call: Call) -> Result<Answer, Failure> {
        self.check(&call.called, &call.request, call.origin)?;
        if call.origin == Origin::Peer {
            call.deadline = limits::deadline(Some(call.deadline), 0);
        }
        let deadline = call.deadline;
        let is_client = self.gate.is_some() && call.origin == Origin::Client;
        let leasing = if is_client { self.leasing(&call.request) } else { None };
        let leasing = leasing.map(|leasing| (call.called.clone(), leasing));
        if let (Some(_), Origin::Client, Request::Write(Write::OpenSession { name: Some(name) })) =
            (&self.gate, call.origin, &mut call.request)
        {
            // The names of producers are each caller's own: nobody fences those of somebody else.
            *name = format!("{}/{name}", call.called.caller);
            self.limits.check(&call.request)?;
        }
        if let Request::Take(take) = &mut call.request {
            let longest_ms = u64::try_from(less_margin(deadline).as_millis()).unwrap_or(u64::MAX);
            take.wait_ms = take.wait_ms.min(longest_ms);
        }
        let answered = async {
            match &self.gate {
                Some(gate) if matches!(call.request, Request::Look(Look::ListTopics { .. })) => {
                    Box::pin(self.list_what_is_seen(gate, call)).await
                }
                _ => self.service.call(call).await,
            }
        };
        let answered = tokio::time::timeout(overdue_after(deadline), answered).await;
        let answer = answered.unwrap_or_else(|_| Err(overdue(deadline)))?;
        let Some((called, leasing)) = leasing else { return Ok(answer) };
        // It may have waited for long, and its caller may have lost the right meanwhile. Then its messages go back.
        let admitted = self
            .look_again(&called)
            .and_then(|()| self.admit(&called, "receive", Needs::On(Permission::Receive, &leasing.topic)));
        if let Err(failure) = admitted {
            drop(self.outgoing(Some(leasing), &answer));
            return Err(failure);
        }
        Ok(answer)
    }

    /// The same for a call on a stream, whose caller is looked at again.
    ///
    /// # Errors
    ///
    /// As [`Edge::call`], or what the caller showed counts no more.
    pub(crate) async fn call_on_stream(&self, call: Call) -> Result<Answer, Failure> {
        self.look_again(&call.called)?;
        self.call(call).await
    }

    /// Whether somebody may ask for that, and in this way: the limits, and the gate.
    pub(crate) fn check(&self, called: &Called, request: &Request, origin: Origin) -> Result<(), Failure> {
        self.limits.check(request)?;
        match (&self.gate, origin) {
            (Some(gate), Origin::Client) => gate.admit(called, request.method().label(), Needs::of(request)),
            // A peer admitted it, or there is no gate.
            _ => Ok(()),
        }
    }

    /// A page of topics that its caller may see. One on which there is none would look like the last, so the next one is taken.
    async fn list_what_is_seen(&self, gate: &Gate, mut call: Call) -> Result<Answer, Failure> {
        let in_force = gate.in_force();
        let seen = in_force.policy().filter(&call.called.caller, Permission::Browse);
        loop {
            let answer = self.service.call(call.clone()).await?;
            let Answer::Response(Response::Topics { mut topics, more }) = answer else { return Ok(answer) };
            let last = topics.last().map(|topic| topic.id);
            topics.retain(|topic| call.origin != Origin::Client || seen.allows(&topic.name));
            match (&mut call.request, last) {
                (Request::Look(Look::ListTopics { after, .. }), Some(_)) if topics.is_empty() && more => {
                    *after = last;
                }
                _ => return Ok(Answer::Response(Response::Topics { topics, more })),
            }
        }
    }

    /// Checks a batch of a stream, and who began that.
    ///
    /// # Errors
    ///
    /// The failure of a limit or of the gate.
    pub(crate) fn admit_batch(&self, called: &Called, batch: Publish) -> Result<Admitted, Failure> {
        self.look_again(called)?;
        let request = Request::Publish(batch);
        self.check(called, &request, Origin::Client)?;
        let Request::Publish(batch) = request else { unreachable!("it was made here") };
        Ok(Admitted(batch))
    }

    /// Begins batches, in this order, next to each other, at this node or not at all. If the node works, it answers each by its
    /// deadline. For a node that does not, the caller has [`overdue_after`].
    pub(crate) fn begin(&self, batches: Vec<Admitted>, deadline: Duration) -> Vec<Begun<S::Driven>> {
        self.service.begin(batches.into_iter().map(|Admitted(batch)| batch).collect(), deadline)
    }

    /// As a call of its own, which may be passed on.
    pub(crate) async fn call_admitted(
        &self,
        called: Called,
        Admitted(batch): Admitted,
        deadline: Duration,
    ) -> Result<Answer, Failure> {
        self.call(Call::of_client(called, Request::Publish(batch), deadline)).await
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
                runtime.spawn(async move { edge.call(Call::own(release, GIVE_BACK)).await });
            }
        }))
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
    use crate::api::Outcome;
    use std::future::pending;

    /// Answers a listing with its deadline as a count, and a pop with its wait. Never answers anything else.
    #[derive(Clone)]
    struct Mirror;

    impl Service for Mirror {
        type Driven = std::future::Ready<Result<Answer, Failure>>;

        async fn call(&self, Call { request, deadline, .. }: Call) -> Result<Answer, Failure> {
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

    fn by_anybody(request: Request, deadline_ms: u64) -> Call {
        Call::of_client(Called::by_anybody(), request, Duration::from_millis(deadline_ms))
    }

    fn edge() -> Edge<Mirror> {
        Edge::new(Mirror, Limits::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_answer_is_answered_for_and_the_outcome_is_unknown() {
        let request = Request::Write(Write::DeleteTopic { topic: "orders".into() });
        let failure = edge().call(by_anybody(request, 900)).await.expect_err("nobody answers");
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
            let answer = edge().call(by_anybody(pop(asked), 900)).await;
            assert_eq!(answer, Ok(Answer::Response(Response::Count(given))));
        }
    }

    #[tokio::test]
    async fn the_deadline_of_a_peer_is_cut_as_that_of_a_client() {
        let listing = Request::Look(Look::ListTopics { after: None, topics_max: 1 });
        for (asked, given) in [(900, 900), (u64::MAX, limits::DEADLINE_MS_MAX)] {
            let answer = edge().call(Call::of_peer(listing.clone(), Duration::from_millis(asked))).await;
            assert_eq!(answer, Ok(Answer::Response(Response::Count(given))));
        }
    }

    #[tokio::test]
    async fn what_a_limit_refuses_never_reaches_the_node() {
        let request = Request::Look(Look::ListTopics { after: None, topics_max: 0 });
        let failure = edge().call(by_anybody(request, 900)).await.expect_err("zero topics");
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
