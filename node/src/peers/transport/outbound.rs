//! Keeping two streams open to one peer.

use super::{BULK_QUEUE, CONTROL_QUEUE, News, Refusal, Route, Shared, StreamKind};
use crate::wire::messages::PEER_MESSAGE_BYTES_MAX;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::peer_client::PeerClient;
use raftqueue_proto::peer::v1::peer_frame::Frame;
use raftqueue_raft::NodeId;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// The metadata in which an acceptor says why it refuses.
pub(super) const REFUSAL_METADATA: &str = "raftqueue-refusal";
/// The metadata in which one says of which generation it is that refuses another one.
pub(super) const GENERATION_METADATA: &str = "raftqueue-generation";

/// What one address said, so that it is told once.
const TOLD_MAX: usize = 8;

/// Connects to a node again and again, for as long as the task lives.
pub(super) async fn keep_connected(shared: Arc<Shared>, node: NodeId) {
    let mut pause = PAUSE_MIN;
    let mut told = BTreeSet::new();
    let mut turn = 0;
    let mut last = None;
    // Asks whether the process that was connected has ended. Stops once it is connected again.
    let mut asking = JoinSet::new();
    let mut came = shared.came.subscribe();
    loop {
        // A node that belongs to no cluster yet has nothing to say.
        let mut identity = shared.own.identity.subscribe();
        if identity.wait_for(|own| own.is_some_and(|own| own.cluster_id.is_some())).await.is_err() {
            return;
        }
        came.mark_unchanged();
        let addresses = shared.addresses(node);
        let address = addresses.get(turn % addresses.len().max(1)).cloned().unwrap_or_default();
        let opened = match address.is_empty() {
            true => Err("nobody has said where it is".to_owned()),
            false => open_both(&shared, node, &address).await,
        };
        match opened {
            Ok(session) => {
                asking.shutdown().await;
                pause = PAUSE_MIN;
                told.clear();
                let life = (session.peer, session.boot_id);
                if last.replace(life).is_some_and(|(peer, boot_id)| peer == life.0 && boot_id != life.1) {
                    // It ended and began again before it was missed.
                    shared.is_gone(session.peer);
                }
                let peer = session.peer;
                let name = shared.name_of(node);
                tracing::info!(peer = name, node = %peer, address, "connected");
                session.run(&shared).await;
                tracing::info!(peer = name, node = %peer, "connection ended");
                let shared = Arc::clone(&shared);
                asking.spawn(async move {
                    let gone = shared.discovery.is_gone(&address, shared.ask_within).await;
                    shared.metrics.peer_ended(gone);
                    if gone {
                        shared.is_gone(peer);
                    }
                });
            }
            Err(why) => {
                turn += 1;
                // This is said once, not at every attempt.
                if told.len() < TOLD_MAX && told.insert((address.clone(), why.clone())) {
                    let peer = shared.name_of(node);
                    tracing::warn!(peer, %node, address, why, "cannot reach a member");
                }
            }
        }
        // A peer that has just connected is most likely there again.
        if let Ok(Ok(())) = tokio::time::timeout(pause, came.changed()).await {
            pause = PAUSE_MIN;
        } else {
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }
}

/// Both streams to a peer, open.
struct Session {
    peer: NodeId,
    boot_id: u64,
    route: Route,
    control_answers: Streaming<pb::PeerFrame>,
    bulk_answers: Streaming<pb::PeerFrame>,
}

async fn open_both(shared: &Arc<Shared>, node: NodeId, address: &str) -> Result<Session, String> {
    let at = (node, address);
    let (control, control_answers, hello) = open(shared, at, StreamKind::Control, CONTROL_QUEUE).await?;
    let (bulk, bulk_answers, _) = open(shared, at, StreamKind::Bulk, BULK_QUEUE).await?;
    shared.learn(&hello, address);
    let (peer, boot_id) = (NodeId(hello.from), hello.boot_id);
    Ok(Session { peer, boot_id, route: Route { control, bulk }, control_answers, bulk_answers })
}

impl Session {
    /// Lets messages flow until either stream ends.
    async fn run(mut self, shared: &Shared) {
        shared.routes.write().unwrap_or_else(PoisonError::into_inner).insert(self.peer, self.route);
        // Whoever is let go is connected no longer.
        let open = Open { shared, peer: self.peer };
        shared.reached.send_modify(|times| *times += 1);
        // The acceptor says nothing after its hello. Whatever comes is the end.
        let status = tokio::select! {
            end = self.control_answers.next() => end,
            end = self.bulk_answers.next() => end,
        };
        drop(open);
        if let Some(Err(status)) = status {
            stop_if_cloned(shared, &status);
        }
    }
}

/// While it lives messages can leave to a peer.
struct Open<'a> {
    shared: &'a Shared,
    peer: NodeId,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.shared.routes.write().unwrap_or_else(PoisonError::into_inner).remove(&self.peer);
    }
}

type Opened = (mpsc::Sender<pb::PeerFrame>, Streaming<pb::PeerFrame>, pb::Hello);

async fn open(
    shared: &Arc<Shared>,
    (node, address): (NodeId, &str),
    kind: StreamKind,
    queue: usize,
) -> Result<Opened, String> {
    let channel = shared.discovery.dial(address).await?;
    let hellos = tokio::time::timeout(HELLO_TIMEOUT, greet(shared, node, channel, kind, queue));
    match hellos.await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(status)) => {
            stop_if_cloned(shared, &status);
            stop_if_left_behind(shared, &status);
            Err(format!("refused on {}: {}", kind.name(), status.message()))
        }
        Err(_) => Err("no hello in time".into()),
    }
}

async fn greet(
    shared: &Shared,
    node: NodeId,
    channel: Channel,
    kind: StreamKind,
    queue: usize,
) -> Result<Opened, Status> {
    let own = (*shared.own.identity.borrow()).ok_or_else(|| Status::unavailable("not formatted yet"))?;
    let mut client = PeerClient::new(channel).max_decoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let (frames, outgoing) = mpsc::channel(queue);
    let nonce = crate::entropy::random();
    let send = |frame| frames.try_send(frame).map_err(|_| Status::aborted("the queue is new, and full"));
    send(shared.own.hello(own, node, nonce, 0))?;
    let outgoing = ReceiverStream::new(outgoing);
    let mut answers = match kind {
        StreamKind::Control => client.control(outgoing).await?,
        StreamKind::Bulk => client.bulk(outgoing).await?,
    }
    .into_inner();
    let Some(pb::PeerFrame { frame: Some(Frame::Hello(hello)) }) = answers.message().await? else {
        return Err(Status::aborted(Refusal::Handshake.to_string()));
    };
    shared.own.judge(own, &hello).map_err(|refusal| Status::failed_precondition(refusal.to_string()))?;
    if hello.from != node.0 {
        let refusal = Refusal::NotForUs { to: node, ours: NodeId(hello.from) };
        return Err(Status::failed_precondition(refusal.to_string()));
    }
    if hello.echoed_nonce != nonce {
        return Err(Status::aborted(Refusal::Handshake.to_string()));
    }
    send(shared.own.hello(own, NodeId(hello.from), nonce, hello.nonce))?;
    Ok((frames, answers, hello))
}

/// A peer knows a later life of this node: it must not go on.
fn stop_if_cloned(shared: &Shared, status: &Status) {
    let label = status.metadata().get(REFUSAL_METADATA).and_then(|value| value.to_str().ok());
    if status.code() == Code::FailedPrecondition && label == Some("clone") {
        let _ = shared.news.send(News::Cloned(status.message().to_owned()));
    }
}

/// A peer of this cluster is of a later generation: this node was left behind.
fn stop_if_left_behind(shared: &Shared, status: &Status) {
    let theirs =
        status.metadata().get(GENERATION_METADATA).and_then(|value| value.to_str().ok()?.parse().ok());
    if let (Code::FailedPrecondition, Some(theirs)) = (status.code(), theirs) {
        shared.is_left_behind_by(theirs);
    }
}
