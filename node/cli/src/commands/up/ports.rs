//! The ports of a cluster, tried before anything starts: what another process has is named, with that process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

use super::{BASE_PORT_MAX, NODE_PORTS, PORTS_PER_NODE, control};

/// How long the nodes of a process that was killed may take to end.
const LEFT_PATIENCE: Duration = Duration::from_secs(10);
/// How often their ports are tried.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two first ports, when another one is proposed.
const PROPOSAL_STEP: u16 = 100;

/// All ports that `raftq up` and its nodes listen on.
fn all(base_port: u16, nodes: u16) -> Vec<u16> {
    let mut ports: Vec<u16> = (0..nodes).flat_map(|node| of_node(base_port, node)).collect();
    ports.push(control::port(base_port));
    ports.sort_unstable();
    ports
}

fn of_node(base_port: u16, node: u16) -> impl Iterator<Item = u16> {
    (0..NODE_PORTS).map(move |at| base_port + PORTS_PER_NODE * node + at)
}

fn is_taken(port: &u16) -> bool {
    TcpListener::bind(("127.0.0.1", *port)).is_err()
}

fn taken(base_port: u16, nodes: u16) -> Vec<u16> {
    all(base_port, nodes).into_iter().filter(is_taken).collect()
}

/// Tries all ports. Where the last `raftq up` of the folder was killed, its nodes are on their way out, and are waited for.
///
/// # Errors
/// All that are taken, by whom, and what to do about it.
pub(super) async fn free(base_port: u16, nodes: u16, was_left: bool) -> Result<(), String> {
    let begun = Instant::now();
    let mut is_told = false;
    loop {
        let taken = taken(base_port, nodes);
        if taken.is_empty() {
            return Ok(());
        }
        if was_left && !std::mem::replace(&mut is_told, true) {
            say!("Waiting for the nodes of the last raftq up here to end: it was killed");
        }
        if !was_left || begun.elapsed() > LEFT_PATIENCE {
            let other = proposal(base_port, nodes)
                .map_or("another --base-port".into(), |port| format!("--base-port {port}"));
            return Err(refusal(&taken, Some(&other)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The same of nodes that are to be started beside others.
///
/// # Errors
/// As [`free`].
pub(super) fn of_nodes_free(base_port: u16, nodes: impl Iterator<Item = u16>) -> Result<(), String> {
    let ports = nodes.flat_map(|node| of_node(base_port, node));
    let taken: Vec<u16> = ports.filter(is_taken).collect();
    if taken.is_empty() { Ok(()) } else { Err(refusal(&taken, None)) }
}

/// `other` would do instead.
fn refusal(taken: &[u16], other: Option<&str>) -> String {
    let holders = holders(taken);
    let mut by: BTreeMap<Option<&String>, Vec<String>> = BTreeMap::new();
    for port in taken {
        by.entry(holders.get(port)).or_default().push(port.to_string());
    }
    let by: Vec<String> = by
        .iter()
        .map(|(holder, ports)| {
            let holder = holder.map_or("another process", |holder| holder.as_str());
            format!("{} by {holder}", ports.join(", "))
        })
        .collect();
    let what = match taken.len() {
        1 => "this port of 127.0.0.1 is taken",
        _ => "these ports of 127.0.0.1 are taken",
    };
    let them = if by.len() == 1 { "it" } else { "them" };
    let other = other.map_or_else(String::new, |other| format!(", or use {other}"));
    format!("{what}: {}. Stop {them}{other}", by.join("; "))
}

/// A first port of which all are free.
fn proposal(base_port: u16, nodes: u16) -> Option<u16> {
    let further = (1..=20).filter_map(|step| base_port.checked_add(step * PROPOSAL_STEP));
    further.filter(|port| *port <= BASE_PORT_MAX).find(|port| taken(*port, nodes).is_empty())
}

/// Who listens on these ports, as far as this process may see that.
fn holders(ports: &[u16]) -> BTreeMap<u16, String> {
    let sockets = listening(ports);
    let mut holders = BTreeMap::new();
    for pid in pids() {
        let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let links = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
        let names: BTreeSet<String> = links.filter_map(|link| Some(link.to_str()?.to_owned())).collect();
        for (socket, port) in &sockets {
            if names.contains(&format!("socket:[{socket}]")) {
                holders.entry(*port).or_insert_with(|| described(pid));
            }
        }
    }
    holders
}

/// The sockets that listen on these ports, by their numbers.
fn listening(ports: &[u16]) -> BTreeMap<String, u16> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let socket = |line: &str| {
        // Number, own address, other address, state (0A listens), queues, timer, retransmissions, uid, timeout, socket.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
        let is_one = *fields.get(3)? == "0A" && ports.contains(&port);
        is_one.then_some(((*fields.get(9)?).to_owned(), port))
    };
    tables.iter().flat_map(|table| table.lines()).filter_map(socket).collect()
}

fn pids() -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

/// A process, as people know it: of a node that `raftq up` runs that one, since it would start the node again.
fn described(pid: u32) -> String {
    let words = words(pid);
    let is = |words: &[String], command: &str| words.get(1).is_some_and(|word| word == command);
    if is(&words, "up") {
        return format!("another raftq up (pid {pid})");
    }
    if is(&words, "node")
        && let Some(parent) = parent(pid)
        && is(&self::words(parent), "up")
    {
        return format!("another raftq up (pid {parent})");
    }
    let name = words.first().and_then(|program| Path::new(program).file_name()?.to_str().map(str::to_owned));
    format!("{} (pid {pid})", name.unwrap_or_else(|| "a process".to_owned()))
}

fn words(pid: u32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).split('\0').map(str::to_owned).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_takes_three_ports_a_node_and_one_more() {
        assert_eq!(all(100, 1), [100, 101, 102, 103]);
        assert_eq!(all(100, 3), [100, 101, 102, 103, 110, 111, 112, 120, 121, 122]);
    }

    #[tokio::test]
    async fn what_is_taken_is_named_with_who_has_it_and_what_is_free() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let why = free(port, 1, false).await.expect_err("its first port is taken");
        // Other tests have ports of their own, which may be neighbours.
        let pid = std::process::id();
        assert!(why.contains(&format!("{port}")) && why.contains(&format!("(pid {pid})")), "{why}");
        assert!(why.contains("--base-port"), "{why}");
        assert!(described(pid).ends_with(&format!("(pid {pid})")));
    }
}
