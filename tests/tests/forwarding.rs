//! Calls that a node passes on to the leader.
//!
//! Clients give their calls up by the thousand. That must harm nobody else, whichever node they are at.
//!
//! HTTP/2 carries many calls on one connection, and its library ends a connection on which too many calls are reset. The
//! calls that a follower passes on to the leader share one, whoever made them.

use raftqueue_proto::v1::{self, queue_client::QueueClient};
use raftqueue_tests::process::{Cluster, env_number};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

const AT_ONCE: usize = 200;
/// Calls of each impatient caller, unless `RAFTQUEUE_IMPATIENT_CALLS` says how many there are in all.
const CALLS_EACH: usize = 15;
/// How long a calm call may take: far longer than it needs, so that only an error can end it.
const CALM: Duration = Duration::from_secs(60);

async fn client(cluster: &Cluster, node: usize) -> QueueClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", cluster.ports(node).0));
    let endpoint = endpoint.expect("an address");
    QueueClient::new(endpoint.connect().await.expect("the node listens"))
}

fn publish(topic: &str) -> Request<v1::PublishRequest> {
    let message = v1::NewMessage { body: vec![b'x'; 1_000].into(), ..Default::default() };
    let mut request =
        Request::new(v1::PublishRequest { topic: topic.into(), session: None, messages: vec![message] });
    request.set_timeout(CALM);
    request
}

fn receive(topic: &str, wait_ms: u64) -> Request<v1::ReceiveRequest> {
    let mut request = Request::new(v1::ReceiveRequest {
        topic: topic.into(),
        messages_max: 1,
        wait_ms,
        ..Default::default()
    });
    request.set_timeout(CALM);
    request
}

/// Publishes and long polls, one after the other, none of which may fail. Returns how many there were.
async fn stay_calm(mut client: QueueClient<Channel>, stop: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        client.publish(publish("calm")).await.expect("a calm publish");
        client.receive(receive("empty", 20)).await.expect("a calm long poll");
        count += 1;
    }
    count
}

/// Gives up call after call, at once or after some milliseconds. Its own connection may end over it, which it is told in
/// words; then it makes another one.
async fn lose_patience(
    mut client: QueueClient<Channel>,
    number: usize,
    calls: usize,
    lost: Arc<AtomicUsize>,
) {
    for call in 0..calls {
        let patience = Duration::from_millis(1 + (number + call) as u64 % 20);
        let ended = if call % 4 == 3 {
            let answer = tokio::time::timeout(patience, client.receive(receive("empty", 5_000))).await;
            answer.map(|answer| answer.err())
        } else {
            let answer = tokio::time::timeout(patience, client.publish(publish("impatient"))).await;
            answer.map(|answer| answer.err())
        };
        if ended.is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn impatience_at(node_of: impl Fn(usize) -> usize) {
    let calls =
        env_number("RAFTQUEUE_IMPATIENT_CALLS").map_or(CALLS_EACH, |all: usize| all.div_ceil(AT_ONCE));
    // So much work at once on a busy machine must not be taken for a silent leader.
    let mut cluster = Cluster::new(3).with_arguments(&["--election-timeout-ms", "10000"]);
    cluster.start_all();
    let node = node_of(cluster.leader());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (calm, lost) = runtime.block_on(async {
        let mut first = client(&cluster, node).await;
        for topic in ["calm", "impatient", "empty"] {
            let create = v1::CreateTopicRequest { topic: topic.into(), ..Default::default() };
            first.create_topic(create).await.expect("created");
        }
        let stop = Arc::<AtomicBool>::default();
        let lost = Arc::<AtomicUsize>::default();
        let mut calm = JoinSet::new();
        for _ in 0..8 {
            calm.spawn(stay_calm(first.clone(), Arc::clone(&stop)));
        }
        let mut impatient = JoinSet::new();
        for number in 0..AT_ONCE {
            // Twenty callers share a connection, which the calm ones do not use.
            if number % 20 == 0 {
                first = client(&cluster, node).await;
            }
            impatient.spawn(lose_patience(first.clone(), number, calls, Arc::clone(&lost)));
        }
        while let Some(ended) = impatient.join_next().await {
            ended.expect("it does not panic");
        }
        stop.store(true, Ordering::Relaxed);
        let mut count = 0;
        while let Some(ended) = calm.join_next().await {
            count += ended.unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()));
        }
        (count, lost.load(Ordering::Relaxed))
    });
    assert!(calm > 0 && lost > 0);
    println!("{calm} calm calls of each kind, {lost} of {} given up", AT_ONCE * calls);
}

#[test]
fn calls_given_up_at_a_follower_break_nobody_elses() {
    impatience_at(|leader| (leader + 1) % 3);
}

#[test]
fn calls_given_up_at_the_leader_break_nobody_elses() {
    impatience_at(|leader| leader);
}

/// The first bytes of a client of HTTP/2, and settings of which none is other than usual.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

/// Begins `count` calls and gives each up before the node can have looked at it, then makes one more. Returns the kinds of
/// the frames that belong to that one or to the whole connection, up to its answer or the connection's end.
fn answered_after_resets(port: u16, count: u32) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const GO_AWAY: u8 = 7;
    const END_OF_STREAM_AND_HEADERS: u8 = 5;
    // A GET of / by http, with the name of the host: fields of the static table.
    let head = [&[0x82, 0x84, 0x86, 0x41, 9][..], b"localhost"].concat();
    let mut said = HELLO.to_vec();
    for number in 0..count {
        let stream = 2 * number + 1;
        said.extend(frame(HEADERS, END_OF_STREAM_AND_HEADERS, stream, &head));
        said.extend(frame(RESET, 0, stream, &8_u32.to_be_bytes()));
    }
    let last = 2 * count + 1;
    said.extend(frame(HEADERS, END_OF_STREAM_AND_HEADERS, last, &head));
    let mut connection = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
    connection.set_read_timeout(Some(CALM)).expect("a time");
    // All at once: what comes in one piece is read in one piece.
    connection.write_all(&said).expect("the node reads");
    let mut seen = Vec::new();
    loop {
        let mut start = [0; 9];
        if connection.read_exact(&mut start).is_err() {
            return seen;
        }
        let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
        let stream = u32::from_be_bytes([start[5], start[6], start[7], start[8]]);
        let mut content = vec![0; length as usize];
        connection.read_exact(&mut content).expect("a whole frame");
        if stream == last || start[3] == GO_AWAY {
            seen.push(start[3]);
        }
        if stream == last && start[3] == HEADERS || start[3] == GO_AWAY {
            return seen;
        }
    }
}

/// A node that is busy finds calls and their ends at once, and its library takes twenty of those for an attack.
#[test]
fn calls_given_up_before_a_node_looks_at_them_end_no_connection() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    cluster.leader();
    let (clients, peers) = cluster.ports(0);
    for port in [clients, peers] {
        assert_eq!(answered_after_resets(port, 1_000), [1], "the last call has its answer");
    }
}

/// A leader that has lost its majority stops leading some time before its last followers stop believing in it. A call that
/// waits at one of those meanwhile is not passed on, whole, again and again.
#[test]
fn a_call_that_waits_for_an_election_is_not_passed_on_all_the_while() {
    let mut cluster = Cluster::new(5).with_operations().with_arguments(&["--election-timeout-ms", "1500"]);
    cluster.start_all();
    let leader = cluster.leader();
    cluster.make_topic("t");
    let follower = (leader + 1) % 5;
    cluster.publish_until_taken(follower, "t", "x");
    let before = forwarded(&cluster, follower);
    for node in (0..5).filter(|node| ![leader, follower].contains(node)) {
        cluster.kill(node);
    }
    cluster.wait_until("the leader leads no more", || {
        cluster.standing(leader).is_some_and(|(role, _)| role != "Leader")
    });
    // It waits until its node knows no leader, and longer. Then its answer cannot be that nobody knows.
    let answer = cluster.patient(follower).publish("t", &"y".repeat(100_000)).unwrap();
    assert_eq!(answer.code, 503, "{answer:?}");
    // Followers believe for 3 s at most, and 300 ms pass between two times.
    let times = forwarded(&cluster, follower) - before;
    assert!(times < 20.0, "it was passed on {times} times");
}

fn forwarded(cluster: &Cluster, node: usize) -> f64 {
    cluster.metric(node, "raftqueue_calls_forwarded_total")
}
