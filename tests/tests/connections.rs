//! Connections that want nothing: none of them may take what the node needs for itself, and they are borne.

use raftqueue_tests::process::{CALM, Cluster, PATIENCE};
use raftqueue_tls::Keys;
use raftqueue_tls::fake::Authority;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// Opens connections that say nothing, until there are so many.
fn idle(port: u16, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("the port accepts")).collect()
}

#[test]
fn idle_connections_cost_neither_the_log_nor_the_peers_their_files() {
    const FILES_MAX: u32 = 192;
    let mut cluster =
        Cluster::new(3).with_files_max(FILES_MAX).with_arguments(&["--segment-bytes", "1048576"]);
    cluster.start_all();
    let leader = cluster.leader();
    assert_eq!(cluster.http(leader).create_topic("t").unwrap().code, 201);
    let besieged = (leader + 1) % 3;
    let (port, peer_port) = cluster.ports(besieged);
    for port in [port, peer_port] {
        let held = idle(port, FILES_MAX as usize + 40);
        // Several segments: each takes a file of the besieged node, too.
        let message = "x".repeat(200_000);
        for _ in 0..20 {
            let answer = cluster.http(leader).with_timeout(Duration::from_secs(5)).publish("t", &message);
            assert_eq!(answer.map(|answer| answer.code), Ok(201), "{}", cluster.logs());
        }
        drop(held);
        let begun = Instant::now();
        while cluster.http(besieged).publish("t", "after").map(|answer| answer.code) != Ok(201) {
            assert!(begun.elapsed() < Duration::from_secs(5), "{}", cluster.logs());
        }
    }
    // The besieged node has everything, and its vote counts: it and the leader are a majority.
    cluster.kill((leader + 2) % 3);
    let answer = cluster.http(besieged).with_timeout(Duration::from_secs(5)).publish("t", "last");
    assert_eq!(answer.map(|answer| answer.code), Ok(201), "{}", cluster.logs());
}

/// Begins a connection of HTTP/2 with prior knowledge and settings that change nothing.
fn begin_http2(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("it is read");
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).expect("it is read");
    stream
}

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const ACK: u8 = 1;

/// The next frame: its kind, its flags, and what it holds.
fn frame(stream: &mut TcpStream) -> (u8, u8, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).expect("the node keeps the connection");
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut content = vec![0; usize::try_from(length).expect("24 bits")];
    stream.read_exact(&mut content).expect("a frame is whole");
    (head[3], head[4], content)
}

/// Servers of the gRPC project close a connection with `too_many_pings` after three pings within five minutes without a call. The stock
/// settings of other languages' clients know nothing of ours, so any of them is borne.
#[test]
fn pings_are_answered_however_many_and_however_often() {
    const PINGS: u64 = 1_000;
    let cluster = Cluster::started(1);
    let mut stream = begin_http2(cluster.ports(0).0);
    for number in 0..PINGS {
        let ping = [&[0, 0, 8, PING, 0, 0, 0, 0, 0], &number.to_be_bytes()[..]].concat();
        stream.write_all(&ping).expect("the node keeps the connection");
    }
    let mut answered = Vec::new();
    while answered.len() < usize::try_from(PINGS).expect("few") {
        let (kind, flags, content) = frame(&mut stream);
        assert_ne!(kind, GO_AWAY, "after {} pings: {}", answered.len(), String::from_utf8_lossy(&content));
        if (kind, flags & ACK) == (PING, ACK) {
            answered.push(u64::from_be_bytes(content.try_into().expect("a ping has eight bytes")));
        }
    }
    assert!(answered.iter().copied().eq(0..PINGS), "each is answered, in its order");
}

/// A connection from an address of the loopback, all of which belong to this machine.
async fn connect_from(address: &str, port: u16) -> tokio::net::TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{address}:0").parse().expect("an address")).expect("it is this machine's");
    let to = format!("127.0.0.1:{port}").parse().expect("an address");
    timeout(PATIENCE, socket.connect(to)).await.expect("in time").expect("the port accepts")
}

/// Waits until the node has closed a connection.
async fn is_closed(stream: &mut tokio::net::TcpStream) {
    let read = timeout(PATIENCE, stream.read(&mut [0])).await.expect("it is closed in time");
    assert!(matches!(read, Ok(0) | Err(_)), "nobody has asked for anything: {read:?}");
}

const OF_ONE_ADDRESS: &str = "raftqueue_connections_refused_total{port=\"clients\",reason=\"address\"}";

#[tokio::test]
async fn an_address_has_its_part_of_a_port_and_others_find_room_beside_it() {
    const EACH: usize = 8;
    let mut cluster = Cluster::new(1)
        .with_operations()
        .with_arguments(&["--connections-per-address-max", &EACH.to_string()]);
    cluster.start_all();
    cluster.leader();
    let (port, _) = cluster.ports(0);
    let mut held = Vec::new();
    for _ in 0..EACH {
        held.push(connect_from("127.0.0.2", port).await);
    }
    for _ in 0..100 {
        is_closed(&mut connect_from("127.0.0.2", port).await).await;
    }
    assert_eq!(cluster.http(0).create_topic("t").map(|answer| answer.code), Ok(201), "{}", cluster.logs());
    cluster.reaches(0, OF_ONE_ADDRESS, |count| count > 99.5);
    // A flood is told now and then, however long it lasts.
    let told = cluster.whole_logs().matches("an address has as many connections as one may have").count();
    assert!((1..=10).contains(&told), "{told}: {}", cluster.logs());
    // Who ends what it has finds room again.
    drop(held);
    let answered = async {
        loop {
            let mut stream = connect_from("127.0.0.2", port).await;
            let _ = stream.write_all(b"GET /status HTTP/1.1\r\nhost: a\r\n\r\n").await;
            if matches!(stream.read(&mut [0]).await, Ok(1)) {
                return;
            }
        }
    };
    timeout(PATIENCE, answered).await.expect("it is let in again");
}

/// How a handshake of TLS begins: the head of a record, whose content never comes.
const HALF: [u8; 5] = [0x16, 3, 1, 2, 0];

#[tokio::test]
async fn strangers_who_do_not_end_their_handshake_are_bounded_and_keep_nobody_out() {
    let authority = Authority::new("one");
    let own = authority.issue("node", &["127.0.0.1"], |_| {});
    let path = |path: &std::path::Path| path.display().to_string();
    let (certificate, key, ca) = (path(&own.0), path(&own.1), path(authority.certificate()));
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-file", &ca];
    // Metrics are looked at without TLS.
    let arguments =
        [&CALM[..], &files, &["--tls-clients", "optional", "--connections-per-address-max", "20"]].concat();
    let mut cluster = Cluster::new(1).with_operations().with_arguments(&arguments);
    cluster.start_all();
    cluster.wait_ready(0);
    let (port, _) = cluster.ports(0);
    let mut strangers = Vec::new();
    for _ in 0..40 {
        let mut stranger = connect_from("127.0.0.2", port).await;
        // One that is closed already takes no more.
        let _ = stranger.write_all(&HALF).await;
        strangers.push(stranger);
    }
    let keys = Keys::load(authority.files(None)).expect("right");
    let stream = connect_from("127.0.0.3", port).await;
    let entering = timeout(PATIENCE, keys.connect(stream, "127.0.0.1")).await.expect("nobody waits for them");
    entering.expect("there is room beside them");
    cluster.reaches(0, OF_ONE_ADDRESS, |count| count > 19.5);
    // Half of them were closed at once, and the others when their time was over.
    for stranger in &mut strangers {
        is_closed(stranger).await;
    }
}
