//! How many connections a node holds, so that nobody can take the file descriptors that its log needs.
//!
//! Every open connection costs a descriptor, and so does every file of the log; a node that cannot open its next
//! segment must stop. So each port has a part of the process's limit. A connection beyond it is closed as soon as it is
//! accepted: its client hears at once that there is no room, instead of waiting in a line that nobody serves. A
//! connection that sends nothing for a while after it was opened is closed, too, since in no protocol here the server
//! speaks first.
//!
//! Who comes is let in by the port's [`Door`], which may want TLS. A handshake takes a while, so that it is not waited for where
//! connections are accepted ([`Arrived`]), and it counts as a connection from its first byte.

use crate::metrics::{Meter, Open};
use raftqueue_tls::{Door, Peer, Refused, Stream};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// Pause after a failed accept: the process is out of something, and asking again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections of peers: each has two streams, a channel for calls that are passed on, and one while a cluster forms.
const PEERS_MAX: usize = 256;
/// Connections to the operations port.
const OPERATIONS_MAX: usize = 64;

/// How many connections each port may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Of clients.
    pub clients: usize,
    /// Of other nodes.
    pub peers: usize,
    /// To the operations port.
    pub operations: usize,
}

impl ConnectionLimits {
    /// The limits that follow from one on open files. A quarter of it, or more, stays for the log and for connections to peers.
    #[must_use]
    pub fn of(files_max: u64) -> Self {
        let files_max = usize::try_from(files_max).unwrap_or(usize::MAX).min(1 << 20);
        let clients = files_max * 5 / 8;
        Self {
            clients: clients.max(1),
            peers: PEERS_MAX.min(files_max / 16).max(4),
            operations: OPERATIONS_MAX.min(files_max / 16).max(1),
        }
    }

    /// The limits that follow from what this process may open, after it has asked for as much as it may have.
    #[must_use]
    pub fn of_this_process() -> Self {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        // An ordinary process may always raise its limit to the hard one. If that is refused, the old limit stays.
        let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        let files_max = if raised.is_ok() { limit.maximum } else { limit.current };
        Self::of(files_max.unwrap_or(u64::MAX))
    }
}

/// Accepts connections on one port, up to its limit.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    room: Arc<Semaphore>,
    silence_max: Duration,
    told: bool,
    meter: Meter,
    door: Door,
    /// Where handshakes are made, if not where connections are served.
    on: Option<Handle>,
}

impl Acceptor {
    /// Accepts at most `connections_max` at a time, without TLS; each must say something within `silence_max`.
    #[must_use]
    pub fn new(listener: TcpListener, connections_max: usize, silence_max: Duration) -> Self {
        let room = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self {
            listener,
            room,
            silence_max,
            told: false,
            meter: Meter::default(),
            door: Door::open(),
            on: None,
        }
    }

    /// The same through this door.
    #[must_use]
    pub fn behind(self, door: Door) -> Self {
        Self { door, ..self }
    }

    /// The same with handshakes made on these threads: they cost whoever serves more than all else that a stranger can ask for.
    #[must_use]
    pub fn entered_on(self, on: Handle) -> Self {
        Self { on: Some(on), ..self }
    }

    /// The same, counted by this meter.
    #[must_use]
    pub fn metered(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// The next connection that there is room for. Shortages are waited out. Nothing is lost if it is cancelled.
    pub async fn accept(&mut self) -> Arrived {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            };
            match Arc::clone(&self.room).try_acquire_owned() {
                Ok(room) => {
                    self.told = false;
                    // Answers are small and wanted at once, so they do not wait for more to fill a packet. This fails only if the
                    // connection is already broken; then the first read says so.
                    let _ = stream.set_nodelay(true);
                    let permit = (room, self.meter.open());
                    let (meter, door, on) = (self.meter.clone(), self.door.clone(), self.on.clone());
                    return Arrived { stream, permit, silence_max: self.silence_max, meter, door, on };
                }
                // Said once, until there is room again.
                Err(_) if !self.told => {
                    self.told = true;
                    self.meter.refused();
                    let port = self.listener.local_addr().map_or(0, |address| address.port());
                    tracing::warn!(port, "too many connections: further ones are closed at once");
                }
                Err(_) => self.meter.refused(),
            }
        }
    }
}

/// If the client went before it was accepted, nothing is wrong here. Every other error is a shortage that passes.
async fn pause_after(error: &io::Error) {
    let gone =
        [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionRefused];
    if !gone.contains(&error.kind()) {
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// A connection that was accepted and not let in yet.
#[derive(Debug)]
pub struct Arrived {
    stream: TcpStream,
    permit: (OwnedSemaphorePermit, Open),
    silence_max: Duration,
    meter: Meter,
    door: Door,
    on: Option<Handle>,
}

impl Arrived {
    /// Lets it in, or closes it: that is counted, told to it as far as it understands, and said in the log for who looks closely.
    /// Takes no longer than a silence and a handshake may.
    pub async fn enter(self) -> Option<Connection> {
        let from = self.stream.peer_addr().ok();
        let (door, stream, silence_max) = (self.door, self.stream, self.silence_max);
        let entered = async move { door.accept(stream, silence_max).await };
        let entered = match self.on {
            // Fails only when the process ends.
            Some(on) => on.spawn(entered).await.ok()?,
            None => entered.await,
        };
        match entered {
            Ok(stream) => Some(Connection::new(stream, self.permit, self.silence_max)),
            Err(Refused::Gone(_)) => None,
            Err(refused) => {
                self.meter.handshake_failed();
                tracing::debug!(
                    from = from.map(tracing::field::display),
                    "a connection is not let in: {refused}"
                );
                None
            }
        }
    }
}

/// A connection, which gives its permit back when it ends.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// Until when the first byte must be there; `None` once it was.
    silence: Option<Pin<Box<Sleep>>>,
    _permit: (OwnedSemaphorePermit, Open),
}

impl Connection {
    fn new(stream: Stream, permit: (OwnedSemaphorePermit, Open), silence_max: Duration) -> Self {
        Self { stream, silence: Some(Box::pin(tokio::time::sleep(silence_max))), _permit: permit }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.stream.peer()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                self.silence = None;
                Poll::Ready(result)
            }
            Poll::Pending => {
                let Some(silence) = &mut self.silence else { return Poll::Pending };
                ready!(silence.as_mut().poll(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn acceptor(connections_max: usize, silence_max: Duration) -> (Acceptor, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Acceptor::new(listener, connections_max, silence_max), address)
    }

    #[test]
    fn the_log_keeps_a_part_of_every_limit() {
        for files_max in [256, 1_024, 20_000, 1 << 20, u64::MAX] {
            let limits = ConnectionLimits::of(files_max);
            let taken = (limits.clients + limits.peers + limits.operations) as u64;
            assert!(taken <= files_max / 4 * 3, "{files_max}: {limits:?}");
        }
        assert!(ConnectionLimits::of(20_000).clients >= 10_000);
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_is_closed_and_one_that_ends_makes_room() {
        let (mut acceptor, address) = acceptor(1, Duration::from_secs(60)).await;
        let _first = TcpStream::connect(address).await.unwrap();
        let held = acceptor.accept().await.enter().await;
        let mut second = TcpStream::connect(address).await.unwrap();
        let closed = async { second.read(&mut [0]).await };
        let outcome = tokio::select! {
            _ = acceptor.accept() => panic!("there is no room for a second connection"),
            outcome = closed => outcome,
        };
        assert!(matches!(outcome, Ok(0) | Err(_)), "{outcome:?}");
        drop(held);
        let mut third = TcpStream::connect(address).await.unwrap();
        let mut served = acceptor.accept().await.enter().await.unwrap();
        third.write_all(b"x").await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_connection_that_never_speaks_is_closed_and_one_that_spoke_may_be_silent() {
        let (mut acceptor, address) = acceptor(2, Duration::from_millis(20)).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut served = acceptor.accept().await.enter().await.unwrap();
        assert_eq!(served.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let mut talker = TcpStream::connect(address).await.unwrap();
        let mut served = acceptor.accept().await.enter().await.unwrap();
        talker.write_all(b"x").await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'x');
        let longer = tokio::time::timeout(Duration::from_millis(60), served.read_u8()).await;
        assert!(longer.is_err(), "it waits: {longer:?}");
    }
}
