//! Messages between nodes: two outbound streams for each peer, one for small messages and one for entries.
//!
//! Each stream has a connection of its own, so that entries never delay a heartbeat. Everything is bounded: a message
//! that finds its queue full is dropped, and the protocol sends it again. A message is believed only on a stream whose
//! hellos agreed ([`hello`]); the newest stream of a node replaces its older ones.

mod aside;
mod following;
mod giver;
mod hello;
mod inbound;
mod open_calls;
mod outbound;

pub use aside::ForwardedAside;
pub(crate) use giver::Giving;
pub use hello::Refusal;
pub use inbound::PeerService;

use crate::metrics::Metrics;
use crate::peers::discovery::Discovery;
use crate::peers::own::{Own, OwnIdentity};
use crate::replica::{Vitals, WaitingNode};
use crate::wire::messages;
use following::{Speaker, Wanted};
use hello::Boots;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_raft::{Configuration, Envelope, NodeId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// Control messages that may wait for one peer.
const CONTROL_QUEUE: usize = 1_024;
/// Messages with entries that may wait for one peer; each is about a mebibyte at most.
const BULK_QUEUE: usize = 16;

/// A message from a peer, with what the peer said of itself.
pub type Arrival = (Envelope, Option<Vitals>);

/// The two kinds of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StreamKind {
    Control,
    Bulk,
}

impl StreamKind {
    fn name(self) -> &'static str {
        match self {
            StreamKind::Control => "control",
            StreamKind::Bulk => "bulk",
        }
    }
}

/// What is known of a peer that answers.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Where it was found last; empty before that.
    pub peer_address: String,
    /// Where it is found, as it said itself; empty if it did not say.
    pub announced: String,
    /// Where clients reach it, as it said itself.
    pub client_address: String,
    /// It lost what it promised, as it said: it neither votes nor counts until it says hello again.
    pub promises_lost: bool,
}

/// The node's ways to its peers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Transport {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    own: Arc<Own>,
    discovery: Arc<Discovery>,
    metrics: Arc<Metrics>,
    news: mpsc::UnboundedSender<News>,
    control: mpsc::Sender<Arrival>,
    bulk: mpsc::Sender<Arrival>,
    routes: RwLock<BTreeMap<NodeId, Route>>,
    /// What is known of peers, also while they do not answer.
    peers: RwLock<BTreeMap<NodeId, PeerInfo>>,
    boots: Mutex<Boots>,
    /// The connection to the node that was asked last for what this one lacks.
    giver: Mutex<Option<(NodeId, Channel)>>,
    /// The newest connection of each peer and kind; an older one is not listened to.
    connections: Mutex<BTreeMap<(NodeId, StreamKind), u64>>,
    /// The members other than this node.
    wanted: watch::Sender<BTreeMap<NodeId, Wanted>>,
    /// Nodes with open streams to this one. Their number is bounded by that of connections.
    speakers: Mutex<BTreeMap<NodeId, Speaker>>,
    /// Changes whenever one of these begins or ends.
    spoken: watch::Sender<u64>,
    /// Where the list of members says that each is, by name.
    listed: BTreeMap<String, String>,
    /// Nodes that announced themselves since the driver looked.
    waiting: Mutex<BTreeMap<NodeId, WaitingNode>>,
    /// How long after its connections broke a peer is asked whether its process has ended.
    ask_within: Duration,
    /// Counts peers that connected to this node.
    came: watch::Sender<u64>,
    /// Counts peers that this node connected to.
    reached: watch::Sender<u64>,
}

/// A peer that can be sent to.
#[derive(Debug)]
struct Route {
    control: mpsc::Sender<pb::PeerFrame>,
    bulk: mpsc::Sender<pb::PeerFrame>,
}

/// The driver's ends of the channels that peers fill.
#[derive(Debug)]
pub struct Arrivals {
    /// Small messages.
    pub control: mpsc::Receiver<Arrival>,
    /// Messages with entries. While the driver does not take them, the peers are held back by flow control.
    pub bulk: mpsc::Receiver<Arrival>,
    /// What connections tell. Their number bounds it: a connection tells one thing, when it ends.
    pub news: mpsc::UnboundedReceiver<News>,
}

/// What connections tell besides messages.
#[derive(Debug)]
pub enum News {
    /// The process of a peer has ended.
    Gone(NodeId),
    /// A peer runs these versions of commands and formats: the oldest and the newest.
    Runs(NodeId, (u32, u32)),
    /// A peer knows a later life of this node, or has seen more of its log than it has; in the peer's words.
    Cloned(String),
    /// The cluster was forced to recover without this node: what to do about it.
    LeftBehind(String),
}

impl Transport {
    /// A gRPC channel to a peer, beside its streams, for calls that are passed on.
    ///
    /// # Errors
    /// As [`Discovery::dial`].
    pub(crate) async fn dial_for_calls(&self, address: &str) -> Result<Channel, String> {
        self.shared.discovery.dial_for_calls(address).await
    }

    /// A gRPC channel to a peer that may give what this node lacks: the one that it was asked by before, if there is one. It
    /// is for bulk alone.
    ///
    /// # Errors
    /// As [`Discovery::dial`].
    pub(crate) async fn dial_giver(&self, node: NodeId) -> Result<Channel, String> {
        if let Some((_, channel)) = self.giver().as_ref().filter(|(last, _)| *last == node) {
            return Ok(channel.clone());
        }
        let address = self.peer(node).map(|peer| peer.peer_address).filter(|address| !address.is_empty());
        let address = address.ok_or("it is not connected")?;
        let channel = self.dial_for_calls(&address).await?;
        *self.giver() = Some((node, channel.clone()));
        Ok(channel)
    }

    /// That connection broke, or what came over it: the next one is a new one.
    pub(crate) fn forget_giver(&self, node: NodeId) {
        let mut giver = self.giver();
        if giver.as_ref().is_some_and(|(last, _)| *last == node) {
            *giver = None;
        }
    }

    fn giver(&self) -> std::sync::MutexGuard<'_, Option<(NodeId, Channel)>> {
        self.shared.giver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As if a peer that serves at this address had answered.
    #[cfg(test)]
    pub(crate) fn knows(&self, peer: NodeId, peer_address: &str) {
        self.shared.learn(&pb::Hello { from: peer.0, ..pb::Hello::default() }, peer_address);
    }

    /// Which node this is; `None` while it does not know.
    pub(crate) fn identity(&self) -> Option<OwnIdentity> {
        *self.shared.own.identity.borrow()
    }

    /// Ways to nobody yet. `listed` says where members are found by their names; `election_timeout` is that of the protocol.
    #[must_use]
    pub fn new(
        own: Arc<Own>,
        discovery: Arc<Discovery>,
        metrics: Arc<Metrics>,
        listed: BTreeMap<String, String>,
        election_timeout: Duration,
    ) -> (Self, Arrivals) {
        let (control, control_arrivals) = mpsc::channel(4_096);
        let (bulk, bulk_arrivals) = mpsc::channel(32);
        let (news, news_arrivals) = mpsc::unbounded_channel();
        let shared = Shared {
            own,
            discovery,
            metrics,
            news,
            control,
            bulk,
            routes: RwLock::default(),
            peers: RwLock::default(),
            boots: Mutex::default(),
            giver: Mutex::default(),
            connections: Mutex::default(),
            wanted: watch::Sender::default(),
            speakers: Mutex::default(),
            spoken: watch::Sender::new(0),
            listed,
            waiting: Mutex::default(),
            ask_within: election_timeout / 4,
            came: watch::Sender::new(0),
            reached: watch::Sender::new(0),
        };
        let arrivals = Arrivals { control: control_arrivals, bulk: bulk_arrivals, news: news_arrivals };
        (Self { shared: Arc::new(shared) }, arrivals)
    }

    /// Keeps connections to the members, on the threads of `on`, until the set is dropped.
    pub fn connect(&self, tasks: &mut JoinSet<()>, on: &Handle) {
        tasks.spawn_on(following::follow(Arc::clone(&self.shared)), on);
    }

    /// Which configuration is in force, as far as this node knows; `before` names those on their way out.
    pub(crate) fn follow(&self, configuration: &Configuration, before: Option<&Configuration>) {
        self.shared.want(configuration, before);
    }

    /// Where the members are sought that this node knows of.
    pub(crate) fn member_addresses(&self) -> Vec<String> {
        self.shared.member_addresses()
    }

    /// What the configuration calls a member other than this node, and where that finds it.
    pub(crate) fn configured(&self, node: NodeId) -> Option<(String, String)> {
        self.shared.configured(node)
    }

    /// Where the configuration finds the members other than this node.
    pub(crate) fn configured_addresses(&self) -> Vec<String> {
        self.shared.configured_addresses()
    }

    /// The nodes that announced themselves since this was asked last.
    pub(crate) fn take_waiting(&self) -> Vec<WaitingNode> {
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *waiting).into_values().collect()
    }

    /// Sends a message, or drops it if the peer is not connected or its queue is full.
    pub fn send(&self, envelope: Envelope, vitals: Vitals) {
        let to = envelope.to;
        let is_control = messages::is_control(&envelope.message);
        let routes = self.shared.routes.read().unwrap_or_else(PoisonError::into_inner);
        let sent = routes.get(&to).is_some_and(|route| {
            let frame = pb::PeerFrame {
                frame: Some(pb::peer_frame::Frame::Envelope(messages::write_envelope(envelope, vitals))),
            };
            let queue = if is_control { &route.control } else { &route.bulk };
            queue.try_send(frame).is_ok()
        });
        self.shared.metrics.peer_message(sent);
    }

    /// What is known of a peer.
    #[must_use]
    pub fn peer(&self, id: NodeId) -> Option<PeerInfo> {
        self.shared.peers.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Changes whenever this node has connected to a peer.
    pub(crate) fn reached(&self) -> watch::Receiver<u64> {
        self.shared.reached.subscribe()
    }

    /// The peers that messages can leave to now.
    pub(crate) fn connected(&self) -> Vec<NodeId> {
        self.shared.routes.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// True if messages to this peer can leave now.
    #[must_use]
    pub fn is_connected(&self, id: NodeId) -> bool {
        self.shared.routes.read().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }
}

impl Transport {
    /// True if this peer is connected and takes part: it can vote.
    #[must_use]
    pub fn takes_part(&self, id: NodeId) -> bool {
        self.is_connected(id) && self.peer(id).is_none_or(|peer| !peer.promises_lost)
    }
}

impl Shared {
    /// A node of this cluster is of that generation. If it is a later one than this node's, a forced recovery left this one behind.
    fn is_left_behind_by(&self, theirs: u32) {
        let Some(own) = self.own.identity.borrow().filter(|own| own.generation < theirs) else { return };
        let (node, ours) = (own.node_id, own.generation);
        let text = format!(
            "node {node} was left behind: its cluster was forced to recover without it and is of generation {theirs}, this disk of \
             generation {ours}. What only this disk has is not part of the cluster any more. Clear its data directory, or give it \
             a blank disk: it joins as a new node then"
        );
        // The driver takes the first; there are as many as there are attempts to connect until it does.
        let _ = self.news.send(News::LeftBehind(text));
    }

    /// Notes what a hello said.
    fn learn(&self, hello: &pb::Hello, peer_address: &str) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        let info = peers.entry(NodeId(hello.from)).or_insert_with(|| PeerInfo {
            peer_address: String::new(),
            announced: String::new(),
            client_address: String::new(),
            promises_lost: false,
        });
        info.announced.clone_from(&hello.peer_address);
        if !peer_address.is_empty() {
            info.peer_address = peer_address.to_owned();
        }
        info.client_address.clone_from(&hello.client_address);
        info.promises_lost = hello.promises_lost;
        if hello.version_max > 0 {
            let versions = (hello.version_min, hello.version_max);
            let _ = self.news.send(News::Runs(NodeId(hello.from), versions));
        }
    }

    /// Tells the replica that a peer's process has ended.
    fn is_gone(&self, peer: NodeId) {
        tracing::info!(node = %peer, "its process has ended");
        let _ = self.news.send(News::Gone(peer));
    }

    /// Numbers a new connection of a peer; from now on older ones are not listened to.
    fn begin_connection(&self, from: NodeId, kind: StreamKind) -> u64 {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let number = connections.entry((from, kind)).or_insert(0);
        *number += 1;
        *number
    }

    fn is_newest(&self, from: NodeId, kind: StreamKind, number: u64) -> bool {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.get(&(from, kind)) == Some(&number)
    }
}
