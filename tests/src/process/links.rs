//! The connections between nodes. Each goes through a relay of its own, which can hold it up as a partition does.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// All relays between nodes. Bytes that are held up are not lost: they arrive once the relay is open again.
#[derive(Debug)]
pub(super) struct Links {
    /// By who connects and to whom: the port to connect to, and whether it lets bytes through.
    links: BTreeMap<(usize, usize), (u16, Arc<Gate>)>,
}

/// Holds up bytes, in either direction, while it is shut.
#[derive(Debug, Default)]
struct Gate {
    is_shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap_or_else(PoisonError::into_inner) = is_shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let is_shut = self.is_shut.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(is_shut, |is_shut| *is_shut).unwrap_or_else(PoisonError::into_inner));
    }
}

impl Links {
    /// Relays between all nodes, given their ports for peers. The threads behind them end with the process.
    pub(super) fn new(peer_ports: &[u16]) -> Self {
        let mut links = BTreeMap::new();
        for from in 0..peer_ports.len() {
            for (to, &port) in peer_ports.iter().enumerate().filter(|(to, _)| *to != from) {
                let gate = Arc::new(Gate::default());
                let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
                let own_port = listener.local_addr().expect("it is bound").port();
                let shared = Arc::clone(&gate);
                std::thread::spawn(move || serve(&listener, port, &shared));
                links.insert((from, to), (own_port, gate));
            }
        }
        Self { links }
    }

    /// Where `from` reaches `to`.
    pub(super) fn port(&self, from: usize, to: usize) -> u16 {
        self.links[&(from, to)].0
    }

    /// Cuts a node off from all others, or lets it reach them again.
    pub(super) fn isolate(&self, node: usize, is_cut_off: bool) {
        for (_, (_, gate)) in self.links.iter().filter(|((from, to), _)| *from == node || *to == node) {
            gate.set(is_cut_off);
        }
    }
}

fn serve(listener: &TcpListener, port: u16, gate: &Arc<Gate>) {
    for near in listener.incoming().filter_map(Result::ok) {
        let gate = Arc::clone(gate);
        std::thread::spawn(move || {
            gate.pass();
            // Nobody listens there. The connection ends, as if it was refused.
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { return };
            let (Ok(near_end), Ok(far_end)) = (near.try_clone(), far.try_clone()) else { return };
            let back = Arc::clone(&gate);
            std::thread::spawn(move || copy(far_end, near_end, &back));
            copy(near, far, &gate);
        });
    }
}

/// Passes on what comes until either end closes.
fn copy(mut from: TcpStream, mut to: TcpStream, gate: &Gate) {
    let mut buffer = vec![0; 64 << 10];
    let _ = to.set_nodelay(true);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        gate.pass();
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
