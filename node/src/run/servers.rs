//! The ports of a node: listened at, served, and closed.

use super::locks::{Doors, Locks};
use super::{FINISH, Fatal};
use crate::edges::connections::{Acceptor, of_one_address, of_one_peer_address};
use crate::edges::http;
use crate::metrics::Metrics;
use crate::peers::transport::{ForwardedAside, PeerService};
use crate::service::NodeService;
use crate::wire::messages::PEER_MESSAGE_BYTES_MAX;
use raftqueue_access::Audit;
use raftqueue_proto::peer::v1::peer_server::PeerServer;
use raftqueue_tls::Door;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

/// How long a peer may be silent, when it has connected and when it is asked whether it lives.
const PEER_SILENCE: Duration = Duration::from_secs(5);

async fn listen(address: &str, whom: &str) -> Result<TcpListener, Fatal> {
    let bound = match (TcpListener::bind(address).await, address.strip_prefix("[::]:")) {
        // A machine without IPv6.
        (Err(error), Some(port)) if error.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind(format!("0.0.0.0:{port}")).await
        }
        (bound, _) => bound,
    };
    bound.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => ": another process has this port; stop it or choose another one",
            std::io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
            _ => "",
        };
        Fatal { code: 4, text: format!("cannot serve {whom} on {address}: {error}{hint}") }
    })
}

/// Everything that listens.
pub(super) struct Servers {
    metrics: Arc<Metrics>,
    /// How each port lets in who comes.
    doors: Doors,
    /// Where it is noted who is not let in.
    audit: Option<Arc<Audit>>,
    /// Serves the clients.
    clients: Handle,
    /// Serves everybody else; see [`Core`](super::core::Core).
    core: Handle,
    tasks: JoinSet<()>,
    stops: Vec<oneshot::Sender<Duration>>,
}

impl Servers {
    pub(super) fn new(metrics: Arc<Metrics>, locks: &Locks, clients: Handle, core: &Handle) -> Self {
        Self {
            metrics,
            doors: locks.doors.clone(),
            audit: locks.audit(),
            clients,
            core: core.clone(),
            tasks: JoinSet::new(),
            stops: Vec::new(),
        }
    }

    /// Listens for clients.
    pub(super) async fn listen_for_clients(&self, address: &str) -> Result<TcpListener, Fatal> {
        listen(address, "clients").await
    }

    /// Listens for others, on the core's thread, which is then woken by what arrives.
    pub(super) async fn listen(&self, address: &str, whom: &'static str) -> Result<TcpListener, Fatal> {
        let address = address.to_owned();
        let listening = self.core.spawn(async move { listen(&address, whom).await });
        listening.await.map_err(|error| Fatal { code: 1, text: format!("cannot serve {whom}: {error}") })?
    }

    /// `each_max`: of one address.
    pub(super) fn serve_clients(
        &mut self,
        listener: TcpListener,
        connections_max: usize,
        each_max: Option<usize>,
        router: axum::Router,
    ) {
        let (on, door) = (self.clients.clone(), self.doors.clients.clone());
        let each_max = each_max.unwrap_or(of_one_address(connections_max));
        self.serve("clients", &on, listener, (connections_max, each_max, door), router);
    }

    pub(super) fn serve_operations(
        &mut self,
        listener: TcpListener,
        connections_max: usize,
        router: axum::Router,
    ) {
        let (on, door) = (self.core.clone(), self.doors.operations.clone());
        let each_max = of_one_address(connections_max);
        self.serve("operations", &on, listener, (connections_max, each_max, door), router);
    }

    fn serve(
        &mut self,
        port: &'static str,
        on: &Handle,
        listener: TcpListener,
        (connections_max, each_max, door): (usize, usize, Door),
        router: axum::Router,
    ) {
        let acceptor = Acceptor::new(listener, connections_max, http::server::HEAD_TIMEOUT)
            .shared(each_max)
            .behind(door)
            .entered_on(self.clients.clone())
            .audited(self.audit.clone())
            .metered(self.metrics.connections(port));
        let (stop, stopped) = oneshot::channel();
        self.stops.push(stop);
        let serve = async move {
            http::server::serve(acceptor, router, async move { drop(stopped.await) }, FINISH).await;
        };
        self.tasks.spawn_on(serve, on);
    }

    pub(super) fn serve_peers(
        &mut self,
        listener: TcpListener,
        connections_max: usize,
        peers: PeerService<NodeService>,
    ) {
        let (budget, limits) = (peers.edge().budget().clone(), *peers.edge().limits());
        const WINDOW_BYTES: u32 = 16 << 20;
        const FRAME_BYTES: u32 = 1 << 20;
        let (stop, stopped) = oneshot::channel::<Duration>();
        self.stops.push(stop);
        let meter = self.metrics.connections("peers");
        let clients = self.clients.clone();
        let on = self.clients.clone();
        let (door, audit) = (self.doors.peers.clone(), self.audit.clone());
        let serve = async move {
            let mut acceptor = Acceptor::new(listener, connections_max, PEER_SILENCE)
                .shared(of_one_peer_address(connections_max))
                .behind(door)
                .entered_on(on)
                .audited(audit)
                .metered(meter);
            // The server ends at the first error of a listener, so it is given none.
            let (accepted, incoming) = mpsc::channel(1);
            let accept = async {
                // One that takes its time to shake hands holds up nobody. They are bounded as connections.
                let mut entering = JoinSet::new();
                loop {
                    tokio::select! {
                        arrived = acceptor.accept() => {
                            let accepted = accepted.clone();
                            entering.spawn(async move {
                                if let Some(entered) = arrived.enter().await {
                                    let _ = accepted.send(Ok::<_, std::io::Error>(entered)).await;
                                }
                            });
                        }
                        Some(_) = entering.join_next() => {}
                        () = accepted.closed() => return,
                    }
                }
            };
            let server = tonic::transport::Server::builder()
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                .max_frame_size(FRAME_BYTES)
                // Calls of many clients share a connection. Nodes of this build reset none of them, but others may. The
                // library counts its own resets for as long as a connection lives.
                .http2_max_pending_accept_reset_streams(Some(usize::MAX))
                .http2_max_local_error_reset_streams(None)
                .http2_keepalive_interval(Some(PEER_SILENCE))
                .http2_keepalive_timeout(Some(PEER_SILENCE))
                .layer(tower::layer::layer_fn(move |inner| {
                    ForwardedAside::new(inner, clients.clone(), budget.clone(), limits)
                }))
                .add_service(PeerServer::new(peers).max_decoding_message_size(PEER_MESSAGE_BYTES_MAX))
                .serve_with_incoming(ReceiverStream::new(incoming));
            // The streams of peers never end by themselves, so they are cut.
            tokio::select! {
                result = server => if let Err(error) = result {
                    tracing::error!(%error, "the peers' port is closed");
                },
                () = accept => {}
                _ = stopped => {}
            }
        };
        self.tasks.spawn_on(serve, &self.core);
    }

    /// Stops accepting, lets what has begun end for `grace`, and cuts the rest.
    pub(super) async fn stop(&mut self, grace: Duration) {
        for stop in self.stops.drain(..) {
            let _ = stop.send(grace);
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, ended).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}
