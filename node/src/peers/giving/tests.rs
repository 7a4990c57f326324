//! A node that asks and one that gives, over the loopback.

#![expect(clippy::single_range_in_vec_init, reason = "a list of ranges is meant")]

use super::*;
use crate::api::limits::Limits;
use crate::config::Bootstrap;
use crate::edges::edge::Edge;
use crate::edges::service::{Begun, Service};
use crate::metrics::Metrics;
use crate::peers::discovery::Discovery;
use crate::peers::forming::Forming;
use crate::peers::own::Own;
use crate::peers::transport::{Giving, PeerService};
use crate::replica::Given;
use futures_util::future::BoxFuture;
use raftqueue_proto::peer::v1::peer_server::PeerServer;
use raftqueue_raft::{Configuration, Index};
use raftqueue_wal::disk::Disk;
use raftqueue_wal::disk::RealDisk;
use raftqueue_wal::{SnapshotFile, SnapshotWriter};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const GIVER: NodeId = NodeId(7);
const ASKER: NodeId = NodeId(8);

#[derive(Clone)]
struct NoClients;

impl Service for NoClients {
    type Driven = std::future::Pending<Result<crate::api::Answer, crate::api::Failure>>;

    async fn call(&self, _call: crate::edges::gate::Call) -> Result<crate::api::Answer, crate::api::Failure> {
        unreachable!("no client calls")
    }

    fn begin(&self, _batches: Vec<crate::api::Publish>, _deadline: Duration) -> Vec<Begun<Self::Driven>> {
        unreachable!("no client calls")
    }

    fn local_status(&self) -> Arc<crate::api::LocalStatus> {
        Arc::default()
    }
}

/// Gives a snapshot, or else what it was told.
struct Shelf {
    snapshot: Result<(Arc<dyn Disk>, SnapshotFile), String>,
    gifts: Mutex<Vec<Result<Gift, String>>>,
    asked: Mutex<Vec<(TopicId, Vec<Range<u64>>)>>,
}

impl Giving for Shelf {
    fn newest_snapshot(&self, _least: Index) -> Result<(Arc<dyn Disk>, SnapshotFile, Term), String> {
        self.snapshot.clone().map(|(disk, file)| (disk, file, Term(6)))
    }

    fn messages(&self, topic: TopicId, wanted: Vec<Range<u64>>) -> BoxFuture<'_, Result<Gift, String>> {
        self.asked.lock().expect("not poisoned").push((topic, wanted));
        let gift = self.gifts.lock().expect("not poisoned").remove(0);
        Box::pin(std::future::ready(gift))
    }
}

fn shelf(snapshot: Result<(Arc<dyn Disk>, SnapshotFile), String>, gifts: Vec<Result<Gift, String>>) -> Shelf {
    Shelf { snapshot, gifts: Mutex::new(gifts), asked: Mutex::default() }
}

fn transport(node_id: NodeId, cluster_id: u128, generation: u32) -> (Transport, Arc<Own>, Arc<Discovery>) {
    let own = Arc::new(Own::new(format!("node-{node_id}"), "client:1".into(), "peer:1".into(), node_id.0));
    own.identity.send_replace(Some(OwnIdentity { node_id, cluster_id: Some(cluster_id), generation }));
    let discovery = Arc::new(Discovery::new());
    let metrics = Arc::new(Metrics::new("a"));
    let (transport, _) = Transport::new(
        Arc::clone(&own),
        Arc::clone(&discovery),
        metrics,
        BTreeMap::new(),
        Duration::from_secs(1),
    );
    (transport, own, discovery)
}

/// Both nodes; they end with the set.
struct Pair {
    asker: Transport,
    shelf: Option<Arc<Shelf>>,
    _tasks: JoinSet<()>,
}

async fn pair(shelf: Option<Shelf>, cluster_id: u128, generation: u32) -> Pair {
    let (giver, own, discovery) = transport(GIVER, 99, 2);
    let (source, shelf) = (Arc::new(OnceLock::new()), shelf.map(Arc::new));
    if let Some(shelf) = &shelf {
        let shelf: Arc<dyn Giving> = Arc::clone(shelf) as _;
        assert!(source.set(shelf).is_ok());
    }
    let forming = Arc::new(Forming::new(own, discovery, Vec::new(), Bootstrap::Join, None));
    let edge = Edge::new(NoClients, Limits::default());
    let peers = PeerService::new(&giver, edge, forming, Arc::default(), source);
    serve(PeerServer::new(peers), shelf, cluster_id, generation).await
}

async fn serve<S>(server: S, shelf: Option<Arc<Shelf>>, cluster_id: u128, generation: u32) -> Pair
where
    S: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        tonic::transport::Server::builder()
            .add_service(server)
            .serve_with_incoming(incoming)
            .await
            .expect("it serves until it is cut");
    });
    let (asker, ..) = transport(ASKER, cluster_id, generation);
    asker.knows(GIVER, &address);
    Pair { asker, shelf, _tasks: tasks }
}

fn head() -> SnapshotHead {
    let configuration = Arc::new(Configuration { version: 1, ..Configuration::default() });
    let term_runs = vec![(Index(1), Term(4))];
    let configuration_index = Index(1);
    SnapshotHead {
        index: Index(9),
        term: Term(4),
        configuration_index,
        configuration,
        stamp_ms: 5,
        term_runs,
    }
}

fn sections() -> Vec<Bytes> {
    (1..=6u8).map(|n| vec![n; (1 << 20) - usize::from(n)].into()).collect()
}

fn on_disk(sections: &[Bytes]) -> (TempDir, Arc<dyn Disk>, SnapshotFile) {
    let folder = tempfile::tempdir().expect("a folder");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path()).expect("a disk"));
    let mut writer = SnapshotWriter::create(&*disk, 3, &head()).expect("a disk");
    for section in sections {
        writer.section(section).expect("a disk");
    }
    let file = writer.finish(&*disk).expect("a disk");
    (folder, disk, file)
}

async fn received(pair: &Pair) -> Result<(SnapshotHead, Term, Vec<Bytes>), String> {
    let mut given = ask_snapshot(&pair.asker, GIVER, Index(0)).await?;
    let mut sections = Vec::new();
    while let Some(section) = given.next().await? {
        sections.push(section);
    }
    assert_eq!(given.next().await, Ok(None), "it stays ended");
    Ok((given.head, given.giver_term, sections))
}

#[tokio::test]
async fn a_snapshot_comes_as_it_stands_and_stays_readable_when_it_is_replaced() {
    let (_folder, disk, file) = on_disk(&sections());
    let pair = pair(Some(shelf(Ok((Arc::clone(&disk), file)), Vec::new())), 99, 2).await;
    assert_eq!(received(&pair).await, Ok((head(), Term(6), sections())));
    let mut given = ask_snapshot(&pair.asker, GIVER, Index(0)).await.expect("again");
    disk.remove("snapshot-0000000000000003").expect("it is there");
    for section in sections() {
        assert_eq!(given.next().await, Ok(Some(section)));
    }
    assert_eq!(given.next().await, Ok(None));
    let error = ask_snapshot(&pair.asker, GIVER, Index(0)).await.expect_err("it has gone");
    assert!(error.contains("is missing"), "{error}");
}

#[tokio::test]
async fn a_snapshot_that_breaks_off_is_not_whole_and_the_text_says_why() {
    let (_folder, disk, file) = on_disk(&sections());
    let opened = disk.open("snapshot-0000000000000003").expect("it is there");
    opened.write_at(file.size / 2, &mut [std::io::IoSlice::new(b"damage")]).expect("a disk");
    let mut pair = pair(Some(shelf(Ok((disk, file)), Vec::new())), 99, 2).await;
    let error = received(&pair).await.expect_err("half of it is damaged");
    assert!(error.starts_with(&format!("node {GIVER}: its snapshot cannot be read")), "{error}");
    // The process that gives it ends.
    let mut given = ask_snapshot(&pair.asker, GIVER, Index(0)).await.expect("the head is whole");
    given.next().await.expect("the first section is whole");
    pair._tasks.shutdown().await;
    let error = loop {
        match given.next().await {
            Ok(section) => assert!(section.is_some(), "it is not whole"),
            Err(error) => break error,
        }
    };
    assert!(error.starts_with(&format!("node {GIVER}: ")), "{error}");
}

#[tokio::test]
async fn what_is_not_of_this_cluster_generation_and_node_is_refused() {
    for (cluster_id, generation, why) in [(98, 2, "it belongs to cluster"), (99, 1, "it is of generation 1")]
    {
        let (_folder, disk, file) = on_disk(&sections());
        let shelf = shelf(Ok((disk, file)), vec![Ok(Gift::default())]);
        let pair = pair(Some(shelf), cluster_id, generation).await;
        for error in [
            ask_snapshot(&pair.asker, GIVER, Index(0)).await.expect_err(why),
            ask_messages(&pair.asker, GIVER, TopicId(1), &[3..5]).await.expect_err(why),
        ] {
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(pair.shelf.expect("a shelf").asked.lock().expect("not poisoned").len(), 0);
    }
    // Another node has the address by now.
    let (_folder, disk, file) = on_disk(&sections());
    let pair = pair(Some(shelf(Ok((disk, file)), Vec::new())), 99, 2).await;
    let address = pair.asker.peer(GIVER).expect("known").peer_address;
    pair.asker.knows(NodeId(6), &address);
    let error = ask_snapshot(&pair.asker, NodeId(6), Index(0)).await.expect_err("it is another node");
    assert!(error.contains("it wants node"), "{error}");
}

#[tokio::test]
async fn a_node_that_has_nothing_to_give_says_why() {
    let why = || Err("it lacks messages itself".to_owned());
    let refusing = pair(Some(shelf(Err("it lacks messages itself".into()), vec![why()])), 99, 2).await;
    let starting = pair(None, 99, 2).await;
    for (pair, why) in
        [(refusing, "it lacks messages itself"), (starting, "has not opened its data directory")]
    {
        for error in [
            ask_snapshot(&pair.asker, GIVER, Index(0)).await.expect_err(why),
            ask_messages(&pair.asker, GIVER, TopicId(1), &[3..5]).await.expect_err(why),
        ] {
            assert_eq!(error.starts_with(&format!("node {GIVER}: ")), error.contains(why), "{error}");
            assert!(error.contains(why), "{error}");
        }
    }
    let (asker, ..) = transport(ASKER, 99, 2);
    let error = ask_messages(&asker, GIVER, TopicId(1), &[3..5]).await.expect_err("nobody there");
    assert_eq!(error, format!("node {GIVER}: it is not connected"));
}

/// A peers' port on which everything is unknown.
#[derive(Clone)]
struct Older;

impl tonic::server::NamedService for Older {
    const NAME: &'static str = "raftqueue.peer.v0.Peer";
}

impl tower::Service<http::Request<tonic::body::Body>> for Older {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
        unreachable!("it is of another name")
    }
}

#[tokio::test]
async fn a_node_of_an_older_version_gives_nothing_and_the_text_says_so() {
    let pair = serve(Older, None, 99, 2).await;
    for error in [
        ask_snapshot(&pair.asker, GIVER, Index(0)).await.expect_err("it is unknown"),
        ask_messages(&pair.asker, GIVER, TopicId(1), &[3..5]).await.expect_err("it is unknown"),
    ] {
        assert!(error.contains("it runs an older version"), "{error}");
    }
}

fn given(offset: u64, record: Bytes) -> Given {
    Given { offset, published_ms: 3, deadline_ms: Some(4), crc: crc32c::crc32c(&record), record }
}

#[tokio::test]
async fn messages_come_with_what_is_gone_and_what_cannot_be_read() {
    let some = Gift {
        messages: vec![given(3, "three".into()), given(9, vec![7; 1 << 19].into())],
        through: 12,
        gone_at: Some(Index(40)),
        unreadable: 2,
    };
    let large = Gift { messages: vec![given(12, vec![7; 17 << 20].into())], through: 13, ..Gift::default() };
    let damaged =
        Gift { messages: vec![Given { crc: 1, ..given(13, "x".into()) }], through: 14, ..Gift::default() };
    let gifts = vec![Ok(some.clone()), Ok(large.clone()), Ok(damaged), Ok(Gift::default())];
    let pair = pair(Some(shelf(Err("none".into()), gifts)), 99, 2).await;
    let ask = async |wanted: &[Range<u64>]| ask_messages(&pair.asker, GIVER, TopicId(1), wanted).await;
    assert_eq!(ask(&[3..5, 8..13]).await, Ok(some));
    assert_eq!(ask(&[12..13]).await, Ok(large));
    let error = ask(&[13..14]).await.expect_err("it is damaged");
    assert!(error.contains("message 13 came damaged"), "{error}");
    let error = ask(&[13..14]).await.expect_err("nothing was answered");
    assert!(error.contains("it answered up to offset 0"), "{error}");
    #[expect(clippy::reversed_empty_ranges, reason = "it is to be refused")]
    let error = ask(&[14..13]).await.expect_err("it cannot be asked for");
    assert!(error.contains("ranges must rise"), "{error}");
    let shelf = pair.shelf.as_ref().expect("a shelf");
    let asked = shelf.asked.lock().expect("not poisoned").clone();
    assert_eq!(asked[0], (TopicId(1), vec![3..5, 8..13]));
    assert_eq!(asked.len(), 4);
}

#[tokio::test]
async fn a_giver_is_asked_for_no_more_ranges_and_offsets_than_it_answers() {
    let nothing = |through| Ok(Gift { through, gone_at: Some(Index(1)), ..Gift::default() });
    let gifts = vec![nothing(8_191), nothing(4_096)];
    let pair = pair(Some(shelf(Err("none".into()), gifts)), 99, 2).await;
    let many: Vec<_> = (0..5_000).map(|n| n * 2..n * 2 + 1).collect();
    ask_messages(&pair.asker, GIVER, TopicId(1), &many).await.expect("the first of them");
    ask_messages(&pair.asker, GIVER, TopicId(1), &[0..u64::MAX]).await.expect("the first of them");
    let asked = pair.shelf.as_ref().expect("a shelf").asked.lock().expect("not poisoned").clone();
    assert_eq!(asked[0].1, many[..4_096]);
    assert_eq!(asked[1].1, [0..4_096]);
}
