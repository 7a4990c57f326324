//! A call on its way to the leader, over the connection that all calls to it share.
//!
//! By HTTP/2, resetting the stream of a call would tell the leader that a client gave it up. But a server takes many
//! resets for an attack, and the library on this side counts a reset again if an answer was already under way. Then
//! either side ends the connection, and with it the calls of patient clients. So a call is never reset. The leader is
//! told by a message ([`pb::GiveUpRequest`]), and its answer is waited for and thrown away.

use super::{NodeService, Way};
use crate::api;
use crate::driver::inbox::Leadership;
use crate::edges::grpc::guard::Charged;
use crate::wire::messages::PEER_MESSAGE_BYTES_MAX;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::forward_reply::Reply;
use raftqueue_proto::peer::v1::forward_request::Call;
use raftqueue_proto::peer::v1::peer_client::PeerClient;
use raftqueue_proto::v1;
use raftqueue_raft::NodeId;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// How long past its deadline the answer to a call that was given up is waited for. A leader that works answers by then.
const LINGER: Duration = Duration::from_secs(5);
/// How long a leader that was replaced may take to answer the calls that it had.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

type Answer = Pin<Box<dyn Future<Output = Result<Response<pb::ForwardReply>, Status>> + Send>>;

/// Resolves to the leader's answer. Dropping it before gives the call up.
pub(super) struct Passed {
    /// `None` once it was answered.
    open: Option<Open>,
}

struct Open {
    answer: Answer,
    client: PeerClient<Charged<Channel>>,
    /// The call without its content: whose it is, and its number.
    frame: pb::ForwardRequest,
    /// The call that gives back messages which come for nobody; its leases are filled in later.
    release: Option<v1::ReleaseRequest>,
    deadline: Instant,
}

impl Passed {
    /// Sends the call once it is polled. It is answered by `deadline` if the leader works.
    pub(super) fn new(
        client: PeerClient<Charged<Channel>>,
        call: Request<pb::ForwardRequest>,
        deadline: Instant,
    ) -> Self {
        let content = call.get_ref();
        let frame = pb::ForwardRequest {
            cluster_id: content.cluster_id.clone(),
            generation: content.generation,
            from: content.from,
            to: content.to,
            deadline_ms: content.deadline_ms,
            call_id: content.call_id,
            call: None,
        };
        let release = match &content.call {
            Some(Call::Receive(receive)) => Some(v1::ReleaseRequest {
                topic: receive.topic.clone(),
                subscription: receive.subscription.clone(),
                leases: Vec::new(),
            }),
            _ => None,
        };
        let mut own = client.clone();
        let answer = Box::pin(async move { own.forward(call).await });
        Self { open: Some(Open { answer, client, frame, release, deadline }) }
    }
}

impl Future for Passed {
    type Output = Result<Response<pb::ForwardReply>, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let open = self.open.as_mut().expect("polled again after its answer");
        let answer = ready!(open.answer.as_mut().poll(context));
        self.open = None;
        Poll::Ready(answer)
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if let Some(open) = self.open.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // It ends with the answer, with the connection, or when both are too late.
            runtime.spawn(open.give_up());
        }
    }
}

impl Open {
    async fn give_up(self) {
        let Self { answer, mut client, frame, release, deadline } = self;
        let given_up = pb::GiveUpRequest {
            cluster_id: frame.cluster_id.clone(),
            from: frame.from,
            call_id: frame.call_id,
        };
        let mut teller = client.clone();
        let both = async { tokio::join!(teller.give_up(given_up), answer).1 };
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(Ok(reply)) = timeout(left + LINGER, both).await else { return };
        if let (Some(Reply::Deliveries(received)), Some(mut release)) = (reply.into_inner().reply, release)
            && !received.deliveries.is_empty()
        {
            release.leases = received.deliveries.into_iter().map(|delivery| delivery.lease).collect();
            let deadline_ms = u64::try_from(LINGER.as_millis()).expect("seconds");
            let call = Some(Call::Release(release));
            // If it fails, the leases end by themselves.
            let _ = timeout(
                LINGER,
                client.forward(pb::ForwardRequest { call, call_id: 0, deadline_ms, ..frame }),
            )
            .await;
        }
    }
}

impl NodeService {
    /// A connection to a peer. It is made now if there is none; `None` if that fails.
    pub(super) async fn way(&self, peer: NodeId) -> Option<(Way, PeerClient<Charged<Channel>>)> {
        let way = Arc::clone(self.channels().entry(peer).or_default());
        let dial = async || {
            let address = self.inner.transport.peer(peer).ok_or(())?.peer_address;
            let channel = self.inner.transport.dial_for_calls(&address).await.map_err(drop)?;
            let client = PeerClient::new(Charged(channel))
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(usize::MAX);
            Ok::<_, ()>(client)
        };
        let client = way.get_or_try_init(dial).await.ok()?.clone();
        Some((way, client))
    }

    /// The connection broke: the next call makes another, unless one was made already.
    pub(super) fn forget(&self, peer: NodeId, broken: &Way) {
        let mut channels = self.channels();
        if channels.get(&peer).is_some_and(|way| Arc::ptr_eq(way, broken)) {
            channels.remove(&peer);
        }
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<NodeId, Way>> {
        self.inner.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when another node than `leader` has led for so long that an answer of `leader` would have come. Then that
/// one hangs, or is cut off.
pub(super) async fn replaced(mut leadership: watch::Receiver<Leadership>, leader: NodeId) {
    let other = |now: &Leadership| now.leader.is_some_and(|now| now != leader);
    if leadership.wait_for(other).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(LAST_ANSWERS).await;
}

/// About how many bytes a call takes when it is passed on.
pub(super) fn request_bytes(request: &api::Request) -> usize {
    const CALL_BYTES: usize = 1 << 10;
    const LEASE_BYTES: usize = 40;
    const OFFSET_BYTES: usize = 10;
    CALL_BYTES
        + match request {
            api::Request::Publish(publish) => publish.messages.iter().map(api::limits::message_bytes).sum(),
            api::Request::Settle(settle) => settle.leases.len() * LEASE_BYTES,
            api::Request::Dead(dead) => dead.offsets.len() * OFFSET_BYTES,
            _ => 0,
        }
}
