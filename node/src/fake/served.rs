//! A node in memory behind a real socket.

use super::FakeNode;
use crate::api::budget::Budget;
use crate::api::limits::Limits;
use crate::edges::connections::Acceptor;
use crate::edges::edge::Edge;
use crate::edges::http::{router, server};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A node in memory that serves clients on loopback until it is dropped.
pub struct Served {
    /// The node.
    pub node: FakeNode,
    /// Where it serves.
    pub address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// More than any test opens.
const CONNECTIONS_MAX: usize = 1_024;

impl Served {
    /// Starts to serve a node on a free port of loopback.
    ///
    /// # Panics
    ///
    /// There is no free port.
    pub async fn start(node: FakeNode) -> Self {
        Self::start_within(node, Limits::default()).await
    }

    /// The same with these limits.
    ///
    /// # Panics
    ///
    /// There is no free port.
    pub async fn start_within(node: FakeNode, limits: Limits) -> Self {
        Self::serve(node, SocketAddr::from(([127, 0, 0, 1], 0)), limits, Budget::default()).await
    }

    /// The same at an address, such as that of a node which was stopped.
    ///
    /// # Panics
    ///
    /// The address is taken.
    pub async fn start_at(node: FakeNode, address: SocketAddr) -> Self {
        Self::serve(node, address, Limits::default(), Budget::default()).await
    }

    /// The same with this budget for what is held for clients.
    ///
    /// # Panics
    ///
    /// The address is taken.
    pub async fn start_with(node: FakeNode, address: SocketAddr, budget: Budget) -> Self {
        Self::serve(node, address, Limits::default(), budget).await
    }

    async fn serve(node: FakeNode, address: SocketAddr, limits: Limits, budget: Budget) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let acceptor = Acceptor::new(listener, CONNECTIONS_MAX, server::HEAD_TIMEOUT);
        let router = router(&Edge::new(node.clone(), limits).with_budget(budget));
        let (shutdown, asked) = oneshot::channel();
        let asked = async move {
            // Asked, or dropped without asking: both mean the end.
            let _ = asked.await;
        };
        let server = tokio::spawn(server::serve(acceptor, router, asked, Duration::ZERO));
        Self { node, address, shutdown, server }
    }

    /// The address as clients take it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Closes the port and all connections, and returns the node.
    ///
    /// # Panics
    ///
    /// The server panicked.
    pub async fn stop(self) -> FakeNode {
        drop(self.shutdown);
        self.server.await.expect("the server ends when asked");
        self.node
    }
}
