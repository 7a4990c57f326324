//! Connections that want nothing: none of them may take what the node needs for itself.

use raftqueue_tests::process::Cluster;
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
