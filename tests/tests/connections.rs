//! Connections that want nothing: none of them may take what the node needs for itself, and they are borne.

use raftqueue_tests::process::{Cluster, PATIENCE};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

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
