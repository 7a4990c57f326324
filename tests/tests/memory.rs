//! Clients that make a node hold their bytes: bodies that never end, readers that do not read. Whatever they do, a node
//! has at most its budget besides what it has when it is idle. They are told, and everybody else goes on.

use raftqueue_proto::v1;
use raftqueue_proto::v1::consume_request::Step;
use raftqueue_proto::v1::queue_client::QueueClient;
use raftqueue_tests::process::{Cluster, Http};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};
use tonic::transport::Endpoint;

const MIB: u64 = 1 << 20;
/// The smallest budget that there is.
const BUDGET: u64 = 64 * MIB;
/// What a node may have beside its budget and what it has when it is idle.
const BESIDE: u64 = 64 * MIB;
/// Until everything that is waited for is there.
const PATIENCE: Duration = Duration::from_secs(30);

fn started(count: usize) -> (Cluster, usize) {
    let budget = BUDGET.to_string();
    let mut cluster = Cluster::new(count).with_operations().with_arguments(&["--client-bytes-max", &budget]);
    cluster.start_all();
    let leader = cluster.leader();
    assert_eq!(cluster.http(leader).create_topic("t").expect("answered").code, 201);
    (cluster, leader)
}

/// A call of the full API.
fn post(http: Http, path: &str, body: &Value) -> (u16, Value) {
    let answer = http.with_deadline(PATIENCE).request("POST", path, body.to_string().as_bytes());
    let answer = answer.unwrap_or_else(|error| panic!("{path}: {error:?}"));
    (answer.code, answer.body)
}

/// Publishes so many messages of so many bytes.
fn fill(http: Http, messages: usize, bytes: usize) {
    let per_call = ((3 << 20) / bytes).clamp(1, 1_000);
    let message = json!({"body": "x".repeat(bytes)});
    for first in (0..messages).step_by(per_call) {
        let batch = vec![message.clone(); per_call.min(messages - first)];
        let (code, said) = post(http, "/v1/topics/t/publish", &json!({ "messages": batch }));
        assert_eq!(code, 200, "{said}");
    }
}

fn held(cluster: &Cluster, node: usize, share: &str) -> u64 {
    let series = format!("raftqueue_client_bytes{{share=\"{share}\"}}");
    cluster.metric(node, &series) as u64
}

/// Waits for something to be so.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it does not come to be so: {what}");
        std::thread::yield_now();
    }
}

/// A connection that says this and then waits.
fn connect(port: u16, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the node listens");
    stream.set_nodelay(true).expect("a socket");
    stream.write_all(head.as_bytes()).expect("the node reads");
    stream
}

/// Sends so much of a body as the node takes, at most `bytes`.
fn send_up_to(stream: &mut TcpStream, bytes: usize) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a socket");
    let chunk = vec![b' '; 256 << 10];
    let mut sent = 0;
    while sent < bytes {
        match stream.write(&chunk[..chunk.len().min(bytes - sent)]) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    sent
}

/// The first bytes of what a node says, if it says anything by now.
fn said(stream: &mut TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
    let mut buffer = [0; 1_024];
    match stream.read(&mut buffer) {
        Ok(count) => Some(String::from_utf8_lossy(&buffer[..count]).into_owned()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn assert_within(cluster: &Cluster, node: usize, idle: u64, what: &str) {
    let peak = cluster.peak_bytes(node);
    println!("{what}: {} MiB idle, {} MiB at the most", idle / MIB, peak / MIB);
    assert!(
        peak <= idle + BUDGET + BESIDE,
        "{what}: {} MiB where {} are idle, {} the budget, and {} may be beside it",
        peak / MIB,
        idle / MIB,
        BUDGET / MIB,
        BESIDE / MIB
    );
}

/// An acknowledgement and a small publish go through.
fn assert_small_calls_pass(http: Http) {
    let publish = json!({"messages": [{"body": "small"}]});
    let (code, said) = post(http, "/v1/topics/t/publish", &publish);
    assert_eq!(code, 200, "{said}");
    let ack = json!({"leases": ["02000100010001"]});
    let (code, said) = post(http, "/v1/topics/t/ack", &ack);
    assert!(code == 200 || code == 400, "{code} {said}");
}

#[test]
fn rule_10_2_bodies_that_never_end_take_no_more_than_the_budget() {
    const BODY: usize = 36 << 20;
    let (cluster, leader) = started(1);
    let port = cluster.ports(leader).0;
    let idle = cluster.forget_peak(leader);
    let head = format!(
        "POST /v1/topics/none/publish HTTP/1.1\r\nhost: a\r\ncontent-length: {BODY}\r\n\
         raftqueue-deadline-ms: 600000\r\n\r\n{{"
    );
    let mut streams: Vec<TcpStream> = (0..100).map(|_| connect(port, &head)).collect();
    for stream in &mut streams {
        send_up_to(stream, BODY - 2);
    }
    let refused = streams.iter_mut().filter_map(said).filter(|text| text.starts_with("HTTP/1.1 429")).count();
    assert!(refused >= 80, "{refused} of 100 are told that there is no room");
    assert!(held(&cluster, leader, "arriving") >= 30 * MIB, "the gauge shows those that were let in");
    assert_small_calls_pass(cluster.http(leader));
    // Who waits to be asked for the body is answered from the head alone.
    let expecting = head.replace("\r\n\r\n{", "\r\nexpect: 100-continue\r\n\r\n");
    let mut expecting = connect(port, &expecting);
    let mut answer = None;
    wait_for("an answer to a head", || {
        answer = answer.take().or_else(|| said(&mut expecting));
        answer.is_some()
    });
    let answer = answer.expect("just seen");
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.contains("raftqueue-reason: OVERLOADED"), "{answer}");
    assert!(answer.contains("raftqueue-retry-after-ms: "), "{answer}");
    assert_within(&cluster, leader, idle, "100 bodies of 36 MiB");
    drop((streams, expecting));
    wait_for("everything is given back", || held(&cluster, leader, "arriving") == 0);
}

#[test]
fn an_acknowledgement_is_no_place_for_a_large_body() {
    let (cluster, leader) = started(1);
    let head = "POST /v1/topics/t/ack HTTP/1.1\r\nhost: a\r\ncontent-length: 37748736\r\nexpect: 100-continue\r\n\r\n";
    let mut stream = connect(cluster.ports(leader).0, head);
    let mut answer = None;
    wait_for("an answer to a head", || {
        answer = answer.take().or_else(|| said(&mut stream));
        answer.is_some()
    });
    let answer = answer.expect("just seen");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

/// Clients at `node` that ask for 16 MiB and read nothing. Those that find no room are told so.
fn slow_readers(
    cluster: &Cluster,
    node: usize,
    call: &str,
    body: &Value,
    count: usize,
) -> (Vec<TcpStream>, usize) {
    let body = body.to_string();
    let head = format!(
        "POST /v1/topics/t/{call} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\nraftqueue-deadline-ms: 20000\r\n\r\n{body}",
        body.len()
    );
    let mut streams: Vec<TcpStream> = (0..count).map(|_| connect(cluster.ports(node).0, &head)).collect();
    let mut heads = vec![None; count];
    wait_for("every reader is answered", || {
        for (stream, head) in streams.iter_mut().zip(&mut heads) {
            *head = head.take().or_else(|| said(stream));
        }
        heads.iter().all(Option::is_some)
    });
    let code = |code: &str| {
        let begins = format!("HTTP/1.1 {code}");
        heads.iter().flatten().filter(|head| head.starts_with(&begins)).count()
    };
    let (served, refused) = (code("200"), code("429"));
    assert_eq!(served + refused, count, "{heads:?}");
    assert!(served > 0, "nobody is served");
    (streams, refused)
}

#[test]
fn rule_10_2_readers_that_do_not_read_take_no_more_than_the_budget() {
    let (cluster, leader) = started(1);
    fill(cluster.http(leader), 800, 100 << 10);
    let idle = cluster.forget_peak(leader);
    let peek = json!({"messages_max": 1_000, "bytes_max": 16 << 20});
    let (peeks, refused) = slow_readers(&cluster, leader, "peek", &peek, 60);
    assert!(refused >= 50, "{refused} of 60 peeks");
    assert_small_calls_pass(cluster.http(leader));
    assert!(held(&cluster, leader, "replies") >= 16 * MIB);
    drop(peeks);
    wait_for("everything is given back", || held(&cluster, leader, "replies") == 0);
    let (receives, refused) = slow_readers(&cluster, leader, "receive", &peek, 60);
    // Those that come when everything is leased are told that there is nothing.
    assert!(refused > 0, "{refused} of 60 receives");
    drop(receives);
    assert_within(&cluster, leader, idle, "60 peeks and 60 receives of 16 MiB");
}

#[test]
fn rule_10_2_a_node_that_passes_calls_on_holds_no_more_than_its_budget() {
    let (cluster, leader) = started(3);
    let follower = (leader + 1) % 3;
    fill(cluster.http(leader), 200, 100 << 10);
    let idle: Vec<u64> = (0..3).map(|node| cluster.forget_peak(node)).collect();
    let peek = json!({"messages_max": 1_000, "bytes_max": 16 << 20});
    let (readers, refused) = slow_readers(&cluster, follower, "peek", &peek, 60);
    assert!(refused >= 50, "{refused} of 60 peeks");
    assert_small_calls_pass(cluster.http(follower));
    drop(readers);
    for (node, idle) in idle.into_iter().enumerate() {
        assert_within(&cluster, node, idle, "60 peeks of 16 MiB at a follower");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_10_2_consumers_that_stop_reading_take_no_more_than_the_budget() {
    const CONSUMERS: usize = 60;
    let (cluster, leader) = started(1);
    fill(cluster.http(leader), 3_000, 64 << 10);
    let idle = cluster.forget_peak(leader);
    let address = format!("http://127.0.0.1:{}", cluster.ports(leader).0);
    let mut stopped = Vec::new();
    for _ in 0..CONSUMERS {
        let endpoint = Endpoint::from_shared(address.clone()).expect("an address");
        let mut client = QueueClient::new(endpoint.connect().await.expect("the node listens"));
        let start = v1::ConsumeStart { topic: "t".into(), ..Default::default() };
        let credit = v1::Credit { messages: 100_000, bytes: 1 << 40 };
        let steps = [Step::Start(start), Step::Credit(credit)];
        let steps = steps.map(|step| v1::ConsumeRequest { step: Some(step) });
        let (requests, receiver) = tokio::sync::mpsc::channel(2);
        for step in steps {
            requests.try_send(step).expect("there is room for two");
        }
        let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let answers = client.consume(receiver).await.expect("it begins").into_inner();
        stopped.push((requests, answers));
    }
    let has_stopped = || held(&cluster, leader, "streams") >= 20 * MIB;
    wait_for("the streams hold what they cannot send", has_stopped);
    assert_small_calls_pass(cluster.http(leader));
    assert_within(&cluster, leader, idle, "60 consumers that stopped reading");
    drop(stopped);
    wait_for("everything is given back", || held(&cluster, leader, "streams") == 0);
}
