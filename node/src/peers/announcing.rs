//! A node that is no member and has no log says that it waits, again and again, to every member that it can find: those of
//! the list that it was started with, and those that they know of. Whoever leads lists it, until it is added.
//!
//! Each is asked for itself: one that does not answer holds up nobody else. Who is late is given more time at the next
//! attempt, since a machine with too much to do answers nobody who gives it less than it takes.

use crate::config::Member as Initial;
use crate::peers::discovery::Discovery;
use crate::peers::forming::Forming;
use crate::peers::own::Own;
use crate::peers::patience::Patience;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::peer_client::PeerClient;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// Pause between two rounds.
const ROUND: Duration = Duration::from_millis(500);
/// How long a member may take to answer at first.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(400);
/// Addresses that are asked, at most.
const ADDRESSES_MAX: usize = 64;

/// An address at which a member may be.
#[derive(Debug, Default)]
struct Place {
    /// It is being asked.
    is_asked: bool,
    /// The connection to it, while that works.
    channel: Option<Channel>,
    patience: Option<Patience>,
    /// Where it said last that members are.
    told: Vec<String>,
}

/// What came of asking.
struct Asked {
    address: String,
    /// `None` if it was late.
    answer: Option<Result<(Channel, pb::AnnounceReply), ()>>,
}

/// Announces this node while it waits, for as long as the task lives.
pub(crate) async fn announce(
    own: Arc<Own>,
    forming: Arc<Forming>,
    discovery: Arc<Discovery>,
    members: Vec<Initial>,
) {
    let others = members.into_iter().filter(|member| member.name != own.name);
    let listed: BTreeSet<String> = others.map(|member| member.peer_address).collect();
    let is_waiting = || !forming.is_of_cluster() && !own.is_member.load(Ordering::Relaxed);
    Announcer { own: &own, discovery, listed, places: BTreeMap::new(), asking: JoinSet::new() }
        .run(ROUND, ANSWER_TIMEOUT, is_waiting)
        .await;
}

struct Announcer<'a> {
    own: &'a Own,
    discovery: Arc<Discovery>,
    /// Where the list says that members are.
    listed: BTreeSet<String>,
    places: BTreeMap<String, Place>,
    asking: JoinSet<Asked>,
}

impl Announcer<'_> {
    async fn run(mut self, round: Duration, answer_timeout: Duration, is_waiting: impl Fn() -> bool) {
        let mut rounds = tokio::time::interval(round);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = rounds.tick() => {
                    if is_waiting() && let Some(request) = self.request() {
                        self.ask(&request, answer_timeout);
                    }
                }
                Some(Ok(asked)) = self.asking.join_next() => self.hear(asked),
            }
        }
    }

    /// What this node says; nothing while it does not know which one it is.
    fn request(&self) -> Option<pb::AnnounceRequest> {
        let identity = (*self.own.identity.borrow())?;
        Some(pb::AnnounceRequest {
            from: identity.node_id.0,
            from_name: self.own.name.clone(),
            cluster_id: identity.cluster_id.map(|id| id.to_be_bytes().to_vec().into()).unwrap_or_default(),
            peer_address: self.own.peer_address.clone(),
            client_address: self.own.client_address.clone(),
            version_min: crate::api::codec::VERSION_MIN,
            version_max: crate::api::codec::VERSION_MAX,
        })
    }

    /// Asks everybody who is not being asked.
    fn ask(&mut self, request: &pb::AnnounceRequest, answer_timeout: Duration) {
        // Who has moved is told of by the others.
        let told = self.places.values().flat_map(|place| &place.told);
        let known: BTreeSet<&String> = self.listed.iter().chain(told).collect();
        let known = known.into_iter().filter(|address| **address != self.own.peer_address);
        let known: Vec<String> = known.take(ADDRESSES_MAX).cloned().collect();
        self.places.retain(|address, place| place.is_asked || known.contains(address));
        for address in known {
            let place = self.places.entry(address.clone()).or_default();
            if std::mem::replace(&mut place.is_asked, true) {
                continue;
            }
            let timeout = place.patience.get_or_insert(Patience::new(answer_timeout)).timeout();
            let (channel, discovery, request) =
                (place.channel.clone(), Arc::clone(&self.discovery), request.clone());
            self.asking.spawn(async move {
                let answer = async {
                    let channel = match channel {
                        Some(channel) => channel,
                        None => discovery.dial(&address).await.map_err(drop)?,
                    };
                    let answer = PeerClient::new(channel.clone()).announce(request).await.map_err(drop)?;
                    Ok((channel, answer.into_inner()))
                };
                let answer = tokio::time::timeout(timeout, answer).await.ok();
                Asked { address, answer }
            });
        }
    }

    fn hear(&mut self, Asked { address, answer }: Asked) {
        let Some(place) = self.places.get_mut(&address) else { return };
        place.is_asked = false;
        match answer {
            Some(Ok((channel, answer))) => {
                place.channel = Some(channel);
                place.told = answer.peer_addresses;
                place.told.truncate(ADDRESSES_MAX);
            }
            Some(Err(())) => {
                place.channel = None;
                place.told.clear();
            }
            None => place.patience.iter_mut().for_each(Patience::was_late),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::limits::Limits;
    use crate::api::{Answer, Failure, LocalStatus, Publish};
    use crate::config::Bootstrap;
    use crate::edges::edge::Edge;
    use crate::edges::gate::Call;
    use crate::edges::service::{Begun, Service};
    use crate::metrics::Metrics;
    use crate::peers::forming::LogStanding;
    use crate::peers::own::OwnIdentity;
    use crate::peers::transport::{PeerService, Transport};
    use raftqueue_proto::peer::v1::peer_server::PeerServer;
    use raftqueue_raft::{Configuration, Member, MemberKind, NodeId};
    use tokio::io::copy_bidirectional;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_stream::wrappers::TcpListenerStream;

    /// Far longer than anything here takes: a mistake fails, and does not hang.
    const LONG: Duration = Duration::from_secs(60);

    #[derive(Clone)]
    struct NoClients;

    impl Service for NoClients {
        type Driven = std::future::Pending<Result<Answer, Failure>>;

        async fn call(&self, _: Call) -> Result<Answer, Failure> {
            unreachable!("no client calls")
        }

        fn begin(&self, _: Vec<Publish>, _: Duration) -> Vec<Begun<Self::Driven>> {
            unreachable!("no client calls")
        }

        fn local_status(&self) -> Arc<LocalStatus> {
            Arc::default()
        }
    }

    fn own(node_id: u64, cluster_id: Option<u128>) -> Arc<Own> {
        let own = Own::new(format!("node-{node_id}"), "client:1".into(), "peer:1".into(), node_id);
        own.identity.send_replace(Some(OwnIdentity { node_id: NodeId(node_id), cluster_id, generation: 0 }));
        Arc::new(own)
    }

    /// A member that serves at an address, and knows of one more member.
    async fn member(other: &str) -> (String, Transport, JoinSet<()>) {
        let (own, discovery) = (own(1, Some(99)), Arc::new(Discovery::new()));
        let metrics = Arc::new(Metrics::new("a"));
        let (transport, _) =
            Transport::new(Arc::clone(&own), Arc::clone(&discovery), metrics, BTreeMap::new(), LONG);
        let member = Member { name: "b".into(), address: other.to_owned(), kind: MemberKind::Voter };
        let members = BTreeMap::from([(NodeId(2), member)]);
        transport.follow(&Configuration { members, ..Configuration::default() }, None);
        let forming = Arc::new(Forming::new(own, discovery, Vec::new(), Bootstrap::Join, None));
        forming.has_log(LogStanding { configuration: None, last_index: 1 });
        let edge = Edge::new(NoClients, Limits::default());
        let peers = PeerService::new(&transport, edge, forming, Arc::default(), Arc::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let server = tonic::transport::Server::builder().add_service(PeerServer::new(peers));
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        (address, transport, tasks)
    }

    /// An address at which `to` answers, each connection after this time.
    async fn slow(to: String, delay: Duration, tasks: &mut JoinSet<()>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tasks.spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let to = to.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let mut to = TcpStream::connect(to).await.unwrap();
                    let _ = copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn a_member_that_is_slow_hears_who_waits_and_tells_where_the_others_are() {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, transport, mut tasks) = member(&other.local_addr().unwrap().to_string()).await;
        // The first attempt gives it a fifth of the time.
        let address = slow(address, Duration::from_millis(100), &mut tasks).await;
        let own = own(3, None);
        let announcer = Announcer {
            own: &own,
            discovery: Arc::new(Discovery::new()),
            listed: BTreeSet::from([address]),
            places: BTreeMap::new(),
            asking: JoinSet::new(),
        };
        tokio::select! {
            () = announcer.run(Duration::from_millis(5), Duration::from_millis(20), || true) => {}
            accepted = tokio::time::timeout(LONG, other.accept()) => drop(accepted.expect("it was told of").unwrap()),
        }
        let waiting = transport.take_waiting();
        assert_eq!(waiting.iter().map(|node| node.id).collect::<Vec<_>>(), [NodeId(3)]);
    }
}
