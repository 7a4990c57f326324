//! The way of a call through this node: to its own driver while it leads, else once to the leader.

mod answering;
mod passing;
pub(crate) mod reading;
mod recovering;
mod refusals;

use crate::api::budget::{Held, Share};
use crate::api::{
    Answer, Failure, LocalStatus, Method, Outcome, Publish, Reason, Recover, RecoveryInfo, Request,
    StorageInfo, Take, TakeKind,
};
use crate::driver::bodies::{Bodies, Located, Lost, Readings};
use crate::driver::inbox::{Asked, Driven, Leadership, Leased, NewCall, Order, Replied};
use crate::edges::gate::{Call, Origin};
use crate::edges::grpc::guard::{Charged, Patience, ReplyTicket, SETTLING_KEY};
use crate::edges::service::{Begun, Service};
use crate::entropy;
use crate::metrics::Metrics;
use crate::peers::discovery::describe;
use crate::peers::own::Own;
use crate::peers::transport::Transport;
use crate::replica::CallId;
use crate::traces::{self, PARENT_HEADER, Steps};
use crate::wire::errors;
use crate::wire::forward;
use passing::{Passed, replaced, request_bytes};
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::peer_client::PeerClient;
use raftqueue_raft::NodeId;
use reading::{Readers, Wanted};
use refusals::{overloaded, unreadable};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OnceCell, mpsc, oneshot, watch};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

/// What is kept of the deadline of a forwarded call for the way back.
const WAY_BACK: Duration = Duration::from_millis(20);

/// How long a call waits for a leader at most, whatever its deadline: other nodes may know a leader that this one
/// cannot reach. It is longer if elections take longer.
const LEADER_WAIT: Duration = Duration::from_secs(2);
/// The same in election timeouts.
const LEADER_WAIT_ELECTIONS: u32 = 4;
/// How long connecting to a leader may hold up a call before it looks for the leader again.
const CONNECT_MAX: Duration = Duration::from_millis(200);

/// How often a receive is begun again because none of its messages can be read.
const UNREADABLE_ROUNDS_MAX: usize = 10;
/// Pops whose failure is remembered.
const FAILED_POPS_MAX: usize = 1_024;

/// A node, as its edges use it.
#[derive(Clone)]
pub struct NodeService {
    inner: Arc<Inner>,
}

struct Inner {
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<Arc<LocalStatus>>,
    leadership: watch::Receiver<Leadership>,
    bodies: OnceLock<Arc<Bodies>>,
    readers: Readers,
    transport: Transport,
    own: Arc<Own>,
    metrics: Arc<Metrics>,
    next_call: AtomicU64,
    /// Connections for calls that are passed on, by peer. If many calls want one, a single one of them makes it.
    channels: Mutex<BTreeMap<NodeId, Way>>,
    /// Request ids of pops that were not answered because a part of them could not be read.
    failed_pops: Mutex<VecDeque<u128>>,
    stopping: AtomicBool,
    left_behind: AtomicBool,
    /// How long a call waits for a leader before it is told that there is none.
    leader_wait: Duration,
}

/// A connection for calls that are passed on, once it is made.
type Way = Arc<OnceCell<PeerClient<Charged<Channel>>>>;

/// What became of a call that was to be passed on.
enum Forwarded {
    /// It was answered, or its outcome is unknown.
    Ended(Result<Answer, Failure>),
    /// There is no way to the leader; nothing was done.
    NoWay {
        /// Whether news of the leader or a connection to it may come. Else it just refused a connection.
        is_cut_off: bool,
    },
}

impl NodeService {
    #[expect(clippy::too_many_arguments, reason = "it is made once, of everything that it stands between")]
    pub(crate) fn new(
        orders: mpsc::Sender<Order>,
        status: watch::Receiver<Arc<LocalStatus>>,
        leadership: watch::Receiver<Leadership>,
        readers: Readers,
        transport: Transport,
        own: Arc<Own>,
        metrics: Arc<Metrics>,
        election_timeout: Duration,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                orders,
                status,
                leadership,
                bodies: OnceLock::new(),
                readers,
                transport,
                own,
                metrics,
                // Other nodes know calls by these numbers, too. They must not take this process for an earlier one.
                next_call: AtomicU64::new((entropy::random() >> 1).max(1)),
                channels: Mutex::default(),
                failed_pops: Mutex::default(),
                stopping: AtomicBool::new(false),
                left_behind: AtomicBool::new(false),
                leader_wait: LEADER_WAIT.max(LEADER_WAIT_ELECTIONS * election_timeout),
            }),
        }
    }

    /// Messages can be read from now on.
    pub(crate) fn set_bodies(&self, bodies: Arc<Bodies>) {
        // Called once, when the node starts.
        let _ = self.inner.bodies.set(bodies);
    }

    /// Refuses new calls from now on.
    pub(crate) fn stop(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
    }

    /// Asks the driver to give leadership away.
    pub(crate) async fn hand_over(&self) {
        let _ = self.inner.orders.send(Order::HandOver).await;
    }

    /// Asks the driver to end.
    pub(crate) async fn stop_driver(&self) {
        let _ = self.inner.orders.send(Order::Stop).await;
    }

    /// True while this node leads.
    pub(crate) fn leads(&self) -> bool {
        self.inner.leadership.borrow().is_own
    }

    /// Asks this node's own driver.
    async fn ask_driver(&self, request: &Request, deadline: Instant) -> Result<Answer, Failure> {
        let wanted = self.inner.readers.admit(Share::Replies, request)?;
        for _ in 0..UNREADABLE_ROUNDS_MAX {
            match (self.ask_once(request.clone(), deadline).await?, &wanted) {
                (Replied::Messages(located), Some(wanted)) => {
                    if let Some(answer) = self.read(request, wanted, located, deadline).await {
                        return answer;
                    }
                }
                (replied, _) => return Ok(replied.unread()),
            }
        }
        Err(unreadable(Outcome::NotDone, "the messages that were to be received cannot be read here"))
    }

    async fn ask_once(&self, request: Request, deadline: Instant) -> Result<Replied, Failure> {
        let id = CallId(self.inner.next_call.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let leases = request.leases();
        let traced = traces::traced().map(|traced| (traced, Arc::<Steps>::default()));
        let steps = traced.as_ref().map(|(_, steps)| Arc::clone(steps));
        let order = Order::Call(NewCall { id, request, deadline, reply, steps });
        if self.inner.orders.try_send(order).is_err() {
            return Err(overloaded());
        }
        let result = Asked { id, orders: &self.inner.orders, leases, answer, is_taken: false }.await;
        if let Some((traced, steps)) = traced {
            traced.tell(&steps);
        }
        result
    }

    /// Hands batches to this node's own driver.
    fn begin_here(&self, batches: Vec<Publish>, deadline: Duration) -> Vec<Begun<Driven>> {
        if self.inner.stopping.load(Ordering::Relaxed) {
            return batches.iter().map(|_| Begun::Failed(Some(self.why_stopping()))).collect();
        }
        let begun = Instant::now();
        let count = batches.len();
        let first = self.inner.next_call.fetch_add(count as u64, Ordering::Relaxed);
        let mut calls = Vec::with_capacity(count);
        let mut answers = Vec::with_capacity(count);
        for (id, batch) in (first..).map(CallId).zip(batches) {
            let (reply, answer) = oneshot::channel();
            let traced = traces::traced().and_then(|stream| stream.batch());
            let traced = traced.map(|traced| (traced, Arc::<Steps>::default()));
            let steps = traced.as_ref().map(|(_, steps)| Arc::clone(steps));
            answers.push(Begun::Driven(Driven {
                orders: self.inner.orders.clone(),
                metrics: Arc::clone(&self.inner.metrics),
                id,
                method: Method::Publish,
                begun,
                answer: Some(answer),
                traced,
            }));
            let request = Request::Publish(batch);
            calls.push(NewCall { id, request, deadline: begun + deadline, reply, steps });
        }
        if self.inner.orders.try_send(Order::Calls(calls)).is_err() {
            return (0..count).map(|_| Begun::Failed(Some(overloaded()))).collect();
        }
        answers
    }

    /// The messages of an answer, as far as they can be read: one that cannot be read harms no other. `None` if none
    /// can be read and the call must begin again: its leases go back, and there may be other messages behind.
    async fn read(
        &self,
        request: &Request,
        wanted: &Wanted,
        located: Located,
        deadline: Instant,
    ) -> Option<Result<Answer, Failure>> {
        let bodies = self.inner.bodies.get().expect("a driver that answers has its bodies");
        let readers = &self.inner.readers;
        let read = match readers.read_now(bodies, wanted, &located) {
            Some(read) => read,
            None => {
                let leases = request.leases();
                let messages = if leases { located.clone().into_messages() } else { Vec::new() };
                let mut leased = Leased { orders: &self.inner.orders, messages };
                // If that fails, or nobody waits for it any more, the leased messages go back.
                match Box::pin(readers.read(bodies, wanted, located, deadline)).await {
                    Ok(read) => {
                        leased.messages.clear();
                        read
                    }
                    Err(failure) => return Some(Err(failure)),
                }
            }
        };
        let (Readings { deliveries, lost }, held) = read;
        let deliveries = readers.held_by(deliveries, held);
        if lost.is_empty() {
            return Some(Ok(Answer::Deliveries(deliveries)));
        }
        let text = self.tell_unreadable(request, lost);
        let is_empty = deliveries.messages.is_empty();
        match request {
            Request::Take(Take { kind: TakeKind::Receive { .. }, .. }) if is_empty => None,
            // Its repeat may find a leader that reads all of it. If that fails again, it gets what there is.
            Request::Take(Take { kind: TakeKind::Pop { request_id: Some(request_id) }, .. })
                if self.is_first_failure(*request_id) =>
            {
                Some(Err(unreadable(Outcome::Unknown, &text)))
            }
            Request::Take(Take { kind: TakeKind::Pop { .. }, .. }) if is_empty => {
                Some(Err(unreadable(Outcome::Unknown, &text)))
            }
            _ if is_empty => Some(Err(unreadable(Outcome::NotDone, &text))),
            _ => Some(Ok(Answer::Deliveries(deliveries))),
        }
    }

    /// Tells the driver, and the log, of messages that could not be read. Returns what can be said of them.
    fn tell_unreadable(&self, request: &Request, lost: Vec<Lost>) -> String {
        let (count, first) = (lost.len(), &lost[0]);
        let text = format!("{count} messages cannot be read here; of the first: {}", first.why);
        let trace_id = traces::id().map(tracing::field::display);
        tracing::error!(trace_id, topic = first.message.id.topic, offset = first.message.id.offset, "{text}");
        let messages = lost.into_iter().map(|lost| lost.message).collect();
        let are_leased = request.leases();
        // If the driver is too busy to take this, the leases end by themselves.
        let _ = self.inner.orders.try_send(Order::Unreadable { messages, are_leased });
        text
    }

    /// True the first time that a pop of this id could not be answered in full.
    fn is_first_failure(&self, request_id: u128) -> bool {
        let mut failed = self.inner.failed_pops.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.contains(&request_id) {
            return false;
        }
        if failed.len() >= FAILED_POPS_MAX {
            failed.pop_front();
        }
        failed.push_back(request_id);
        true
    }

    /// Passes a call on to the leader.
    async fn forward(&self, leader: NodeId, request: &Request, deadline: Instant) -> Forwarded {
        let own = *self.inner.own.identity.borrow();
        let Some((own, cluster_id)) = own.and_then(|own| Some((own, own.cluster_id?))) else {
            return Forwarded::NoWay { is_cut_off: true };
        };
        if !self.inner.transport.is_connected(leader) {
            return Forwarded::NoWay { is_cut_off: true };
        }
        let (_held, ticket) = match self.hold_forwarded(request, deadline) {
            Ok(held) => held,
            Err(failure) => return Forwarded::Ended(Err(failure)),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        // A leader that cannot be reached may be replaced before the deadline, so connecting gets only a part of it.
        let connecting = tokio::time::timeout(left.min(CONNECT_MAX), self.way(leader));
        let Ok(Some((way, client))) = connecting.await else {
            return Forwarded::NoWay { is_cut_off: false };
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let call = pb::ForwardRequest {
            cluster_id: cluster_id.to_be_bytes().to_vec().into(),
            generation: own.generation,
            from: own.node_id.0,
            to: leader.0,
            deadline_ms: u64::try_from(left.saturating_sub(WAY_BACK).as_millis()).unwrap_or(u64::MAX),
            call_id: self.inner.next_call.fetch_add(1, Ordering::Relaxed),
            call: Some(forward::write_call(request.clone())),
        };
        let mut call = tonic::Request::new(call);
        call.extensions_mut().insert(ticket.clone());
        if request.method().share() == Share::Settling {
            call.metadata_mut().insert(SETTLING_KEY, MetadataValue::from_static("1"));
        }
        let traced = traces::traced().and_then(|traced| traced.pass_on(&leader.to_string()));
        let parent = traced.as_ref().map(|(_, parent)| *parent).or_else(traces::unexported_parent);
        if let Some(parent) = parent {
            let parent = parent.to_string().parse().expect("hexadecimal digits");
            call.metadata_mut().insert(PARENT_HEADER, parent);
        }
        let mut ending = traced.map(|(traced, _)| traced.until_dropped());
        let expected = forward::Expected::of(request);
        self.inner.metrics.call_forwarded();
        let replaced = replaced(self.inner.leadership.clone(), leader);
        let passed = Passed::new(client, call, deadline);
        let failure = tokio::select! {
            biased;
            reply = tokio::time::timeout(left, passed) => match reply {
                Ok(Ok(reply)) => {
                    let answer = expected.read_reply(reply.into_inner().reply);
                    if let (Some(ending), Err(failure)) = (&mut ending, &answer) {
                        ending.fails(&failure.text);
                    }
                    return Forwarded::Ended(answer.map(|answer| ticket.held_by(answer)));
                }
                // The leader has no room for the call, or this node has none for its answer.
                Ok(Err(status)) if let Some(detail) = raftqueue_proto::status::detail(&status) => {
                    let failure = errors::failure(&detail, status.message().to_owned());
                    if failure.outcome == Outcome::NotDone && ticket.is_refused() && !request.is_read() {
                        self.broken(request, Reason::Overloaded, failure.text)
                    } else {
                        failure
                    }
                }
                Ok(Err(status)) => {
                    self.forget(leader, &way);
                    let text = format!("the connection to the leader broke: {}", describe(&status));
                    self.broken(request, Reason::ForwardingBroken, text)
                }
                Err(_) => {
                    let text = "the leader did not answer before the deadline";
                    self.broken(request, Reason::DeadlineExceeded, text.into())
                }
            },
            () = replaced => {
                let text = "another node leads now, and the one that had the call does not answer";
                self.broken(request, Reason::ForwardingBroken, text.into())
            }
        };
        ending.iter_mut().for_each(|ending| ending.fails(&failure.text));
        Forwarded::Ended(Err(failure))
    }

    /// Room for a call that is passed on, and for its answer when that comes.
    fn hold_forwarded(&self, request: &Request, deadline: Instant) -> Result<(Held, ReplyTicket), Failure> {
        let readers = &self.inner.readers;
        let wanted = readers.admit(Share::Forwarded, request)?;
        let share = match request.method().share() {
            Share::Settling => Share::Settling,
            _ => Share::Forwarded,
        };
        let held = readers.budget().charge(share, request_bytes(request))?;
        let patience = match wanted {
            Some(wanted) if wanted.is_peek() => Patience::None,
            Some(wanted) if wanted.is_pop() => Patience::ThenForce,
            _ => Patience::Until(deadline),
        };
        Ok((held, ReplyTicket::new(readers.budget(), patience)))
    }

    /// A call that only looks has no outcome that could be unknown.
    fn broken(&self, request: &Request, reason: Reason, text: String) -> Failure {
        let outcome = if request.is_read() { Outcome::NotDone } else { Outcome::Unknown };
        Failure { reason, outcome, text, retry_after_ms: None }
    }
}

impl Service for NodeService {
    type Driven = Driven;

    async fn call(&self, call: Call) -> Result<Answer, Failure> {
        let (begun, method) = (Instant::now(), call.method());
        let Call { called: _, request, deadline, origin } = call;
        let result = self.answer(request, begun + deadline, origin == Origin::Peer).await;
        self.inner.metrics.call_ended(method, begun.elapsed(), result.as_ref().err());
        result
    }

    fn begin(&self, batches: Vec<Publish>, deadline: Duration) -> Vec<Begun<Driven>> {
        self.begin_here(batches, deadline)
    }

    fn local_status(&self) -> Arc<LocalStatus> {
        Arc::clone(&self.inner.status.borrow())
    }

    fn storage(&self) -> StorageInfo {
        self.inner.metrics.storage()
    }

    async fn recover(&self, asked: Recover) -> Result<RecoveryInfo, Failure> {
        self.ask_to_recover(asked).await
    }
}
