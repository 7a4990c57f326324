//! The way of a call through this node: to its own driver while it leads, else to the leader, once.

use crate::api::{Failure, Outcome, Reason, Request, Response};
use crate::bodies::{Bodies, Located};
use crate::driver::{Leadership, NewCall, Order, Replied};
use crate::grpc::forward;
use crate::handle::{Answer, Begun, LocalStatus, Service};
use crate::metrics::{Method, Metrics};
use crate::replica::CallId;
use crate::transport::{Own, PEER_MESSAGE_BYTES_MAX, Transport};
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::peer_client::PeerClient;
use raftqueue_raft::NodeId;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::transport::Channel;

/// Pause before a call tries again after a node that should lead said that it does not.
const TRY_AGAIN: Duration = Duration::from_millis(10);
/// What is kept of a deadline for the way back, when a call is passed on.
const WAY_BACK: Duration = Duration::from_millis(20);

/// How long connecting to a leader may hold up a call before it looks for the leader again.
const CONNECT_MAX: Duration = Duration::from_millis(200);
/// How long a leader that was replaced may take to answer the calls that it had.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

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
    transport: Transport,
    own: Arc<Own>,
    metrics: Arc<Metrics>,
    next_call: AtomicU64,
    /// Connections for calls that are passed on, by peer.
    channels: Mutex<BTreeMap<NodeId, PeerClient<Channel>>>,
    stopping: AtomicBool,
}

/// Tells the driver when a caller goes away before its call is answered.
struct CancelOnDrop<'a> {
    id: CallId,
    orders: &'a mpsc::Sender<Order>,
    armed: bool,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            // A driver that is too busy to take it answers a call that nobody hears: no harm.
            let _ = self.orders.try_send(Order::Cancel(self.id));
        }
    }
}

impl NodeService {
    pub(crate) fn new(
        orders: mpsc::Sender<Order>,
        status: watch::Receiver<Arc<LocalStatus>>,
        leadership: watch::Receiver<Leadership>,
        transport: Transport,
        own: Arc<Own>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                orders,
                status,
                leadership,
                bodies: OnceLock::new(),
                transport,
                own,
                metrics,
                next_call: AtomicU64::new(1),
                channels: Mutex::default(),
                stopping: AtomicBool::new(false),
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
    async fn ask_driver(&self, request: Request, deadline: Instant) -> Result<Answer, Failure> {
        let bytes_max = match &request {
            Request::Peek { bytes_max, .. } => *bytes_max,
            _ => usize::MAX,
        };
        let id = CallId(self.inner.next_call.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let order = Order::Call(NewCall { id, request, deadline, reply });
        if self.inner.orders.try_send(order).is_err() {
            return Err(overloaded());
        }
        let mut guard = CancelOnDrop { id, orders: &self.inner.orders, armed: true };
        let result = answer.await;
        guard.armed = false;
        match result.unwrap_or_else(|_| Err(stopped()))? {
            Replied::Messages(located) => self.read(located, bytes_max).await,
            Replied::Response(Response::Cluster(mut cluster)) => {
                let local = self.inner.status.borrow().clone();
                cluster.cluster_id.clone_from(&local.cluster_id);
                for member in &mut cluster.members {
                    if let Some(known) = local.members.iter().find(|known| known.id == member.id) {
                        member.client_address.clone_from(&known.client_address);
                    }
                }
                Ok(Answer::Response(Response::Cluster(cluster)))
            }
            Replied::Response(response) => Ok(Answer::Response(response)),
        }
    }

    /// Hands calls to this node's own driver.
    fn begin_here(&self, requests: Vec<Request>, deadline: Duration) -> Vec<Begun> {
        if self.inner.stopping.load(Ordering::Relaxed) {
            return requests.iter().map(|_| Begun::Failed(Some(shutting_down()))).collect();
        }
        let begun = Instant::now();
        let count = requests.len();
        let first = self.inner.next_call.fetch_add(count as u64, Ordering::Relaxed);
        let mut calls = Vec::with_capacity(count);
        let mut answers = Vec::with_capacity(count);
        for (id, request) in (first..).map(CallId).zip(requests) {
            let (reply, answer) = oneshot::channel();
            let method = Method::of(&request);
            answers.push(Begun::Driven(Driven {
                node: self.clone(),
                id,
                method,
                begun,
                answer: Some(answer),
            }));
            calls.push(NewCall { id, request, deadline: begun + deadline, reply });
        }
        if self.inner.orders.try_send(Order::Calls(calls)).is_err() {
            return (0..count).map(|_| Begun::Failed(Some(overloaded()))).collect();
        }
        answers
    }

    async fn read(&self, located: Located, bytes_max: usize) -> Result<Answer, Failure> {
        let bodies = self.inner.bodies.get().expect("a driver that answers has its bodies");
        let deliveries = match bodies.read(&located, bytes_max, false) {
            Some(deliveries) => deliveries,
            None => {
                let bodies = Arc::clone(bodies);
                tokio::task::spawn_blocking(move || {
                    bodies.read(&located, bytes_max, true).expect("it may block")
                })
                .await
                .map_err(|_| Failure::unknown(Reason::ShuttingDown, "the node stopped while reading"))?
            }
        };
        deliveries.map(Answer::Deliveries).map_err(|unreadable| {
            tracing::error!(%unreadable, "a message cannot be read");
            Failure::unknown(Reason::DataUnreadable, format!("a message cannot be read here: {unreadable}"))
        })
    }

    /// Passes a call on to the leader. `None`: it did not get there, and nothing was done.
    async fn forward(
        &self,
        leader: NodeId,
        request: &Request,
        deadline: Instant,
    ) -> Option<Result<Answer, Failure>> {
        let own = (*self.inner.own.identity.borrow())?;
        let left = deadline.saturating_duration_since(Instant::now());
        // A leader that cannot be connected to may be replaced before the deadline: it has only a part of it.
        let mut client = tokio::time::timeout(left.min(CONNECT_MAX), self.client(leader)).await.ok()??;
        let left = deadline.saturating_duration_since(Instant::now());
        let call = pb::ForwardRequest {
            cluster_id: own.cluster_id?.to_be_bytes().to_vec().into(),
            generation: own.generation,
            from: own.node_id.0,
            to: leader.0,
            deadline_ms: u64::try_from(left.saturating_sub(WAY_BACK).as_millis()).unwrap_or(u64::MAX),
            call: Some(forward::write_call(request.clone())),
        };
        let expected = forward::Expected::of(request);
        self.inner.metrics.call_forwarded();
        let replaced = replaced(self.inner.leadership.clone(), leader);
        let reply = tokio::select! {
            biased;
            reply = tokio::time::timeout(left, client.forward(call)) => reply,
            () = replaced => {
                let text = "another node leads now, and the one that had the call does not answer";
                return Some(Err(self.broken(request, Reason::ForwardingBroken, text.into())));
            }
        };
        match reply {
            Ok(Ok(reply)) => Some(expected.read_reply(reply.into_inner().reply)),
            Ok(Err(status)) => {
                self.forget(leader);
                let text = format!("the connection to the leader broke: {}", status.message());
                Some(Err(self.broken(request, Reason::ForwardingBroken, text)))
            }
            Err(_) => Some(Err(self.broken(
                request,
                Reason::DeadlineExceeded,
                "the leader did not answer before the deadline".into(),
            ))),
        }
    }

    /// A call that only looks has no outcome to be unsure of.
    fn broken(&self, request: &Request, reason: Reason, text: String) -> Failure {
        let outcome = if is_read(request) { Outcome::NotDone } else { Outcome::Unknown };
        Failure { reason, outcome, text, retry_after_ms: None }
    }

    /// A connection to a peer, made now if there is none; `None` if that fails.
    async fn client(&self, peer: NodeId) -> Option<PeerClient<Channel>> {
        if !self.inner.transport.is_connected(peer) {
            self.forget(peer);
            return None;
        }
        let known = self.channels().get(&peer).cloned();
        if known.is_some() {
            return known;
        }
        let address = self.inner.transport.peer(peer)?.peer_address;
        let channel = self.inner.transport.dial(&address).await.ok()?;
        let client = PeerClient::new(channel)
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX);
        self.channels().insert(peer, client.clone());
        Some(client)
    }

    fn forget(&self, peer: NodeId) {
        self.channels().remove(&peer);
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, PeerClient<Channel>>> {
        self.inner.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that the driver has. Answers of messages are not among those that are begun so.
pub struct Driven {
    node: NodeService,
    id: CallId,
    method: Method,
    begun: Instant,
    /// `None` once it was answered.
    answer: Option<oneshot::Receiver<Result<Replied, Failure>>>,
}

impl Future for Driven {
    type Output = Result<Answer, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.answer.as_mut().expect("polled again after its answer");
        let result = ready!(Pin::new(answer).poll(context));
        self.answer = None;
        let result = match result.unwrap_or_else(|_| Err(stopped())) {
            Ok(Replied::Response(response)) => Ok(Answer::Response(response)),
            Ok(Replied::Messages(_)) => unreachable!("only calls without messages are begun so"),
            Err(failure) => Err(failure),
        };
        self.node.inner.metrics.call_ended(self.method, self.begun.elapsed(), result.as_ref().err());
        Poll::Ready(result)
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // An answer that only waits to be taken leaves nothing to cancel.
        let is_open =
            |answer: &mut oneshot::Receiver<_>| matches!(answer.try_recv(), Err(TryRecvError::Empty));
        if self.answer.as_mut().is_some_and(is_open) {
            // As for a call that is cancelled.
            let _ = self.node.inner.orders.try_send(Order::Cancel(self.id));
        }
    }
}

fn stopped() -> Failure {
    Failure::unknown(Reason::ShuttingDown, "the node stopped before the call was done")
}

fn shutting_down() -> Failure {
    Failure::not_done(Reason::ShuttingDown, "this node is shutting down: ask another one")
}

fn overloaded() -> Failure {
    Failure::not_done(Reason::Overloaded, "too many calls wait for this node's driver").retry_after_ms(100)
}

impl NodeService {
    /// Answers a call here, or has the leader answer it, before the deadline.
    async fn answer(&self, request: Request, deadline: Instant, forwarded: bool) -> Result<Answer, Failure> {
        let mut leadership = self.inner.leadership.clone();
        loop {
            if self.inner.stopping.load(Ordering::Relaxed) {
                return Err(shutting_down());
            }
            let now = *leadership.borrow_and_update();
            let attempt = match now.leader {
                Some(_) if now.is_own => Some(self.ask_driver(request.clone(), deadline).await),
                _ if forwarded => {
                    return Err(Failure::not_done(Reason::NotLeader, "this node does not lead (any more)"));
                }
                Some(leader) => self.forward(leader, &request, deadline).await,
                None => None,
            };
            match attempt {
                // Not done, and somebody else may lead by now: the caller need not know.
                Some(Err(failure)) if failure.reason == Reason::NotLeader && !forwarded => {}
                Some(result) => return result,
                None => {}
            }
            // Wait for news of the leader; a node that only seemed to lead is asked again after a moment.
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = "no leader could be reached before the deadline; nothing was done";
                return Err(Failure::not_done(Reason::NoLeader, text).retry_after_ms(100));
            }
            let pause = if now.leader.is_some() { TRY_AGAIN.min(left) } else { left };
            let _ = tokio::time::timeout(pause, leadership.changed()).await;
        }
    }
}

impl Service for NodeService {
    async fn call(&self, request: Request, deadline: Duration, forwarded: bool) -> Result<Answer, Failure> {
        let (begun, method) = (Instant::now(), Method::of(&request));
        let result = self.answer(request, begun + deadline, forwarded).await;
        self.inner.metrics.call_ended(method, begun.elapsed(), result.as_ref().err());
        result
    }

    fn begin(&self, requests: Vec<Request>, deadline: Duration) -> Vec<Begun> {
        self.begin_here(requests, deadline)
    }

    fn local_status(&self) -> Arc<LocalStatus> {
        Arc::clone(&self.inner.status.borrow())
    }
}

/// Resolves when another node than `leader` has led for long enough that an answer of `leader` would have come: it hangs,
/// or is cut off.
async fn replaced(mut leadership: watch::Receiver<Leadership>, leader: NodeId) {
    let other = |now: &Leadership| now.leader.is_some_and(|now| now != leader);
    if leadership.wait_for(other).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(LAST_ANSWERS).await;
}

fn is_read(request: &Request) -> bool {
    matches!(
        request,
        Request::ListTopics { .. }
            | Request::DescribeTopic { .. }
            | Request::Peek { .. }
            | Request::ClusterStatus
    )
}
