//! How many connections a node holds, so that nobody can take the file descriptors that its log needs.
//!
//! Every open connection costs a descriptor, and so does every file of the log; a node that cannot open its next
//! segment must stop. So each port has a part of the process's limit. A connection beyond it is closed as soon as it is
//! accepted: its client hears at once that there is no room, instead of waiting in a line that nobody serves. A
//! connection that sends nothing for a while after it was opened is closed, too, since in no protocol here the server
//! speaks first.
//!
//! One address has a part of each port alone, so that nobody by himself takes it from all others. Addresses of IPv6 count together
//! where they are of one /64, which is what one machine has.
//!
//! Who comes is let in by the port's [`Door`], which may want TLS. A handshake takes a while, so that it is not waited for where
//! connections are accepted ([`Arrived`]), and it counts as a connection from its first byte.

use crate::metrics::{Crowded, Meter, Open};
use raftqueue_access::{Audit, Call, Happened};
use raftqueue_tls::{Door, Peer, Refused, Stream};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};
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
/// Pause between two warnings that connections are refused for one reason.
const WARN_EVERY: Duration = Duration::from_secs(10);

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

/// How many connections an address may have of a port that holds so many, unless something else is asked for: half. Others find room
/// beside it, and many clients behind one translated address do, too.
#[must_use]
pub fn of_one_address(connections_max: usize) -> usize {
    connections_max.div_ceil(2)
}

/// The same of the port of the peers, who may all be on one machine.
#[must_use]
pub fn of_one_peer_address(connections_max: usize) -> usize {
    connections_max.div_ceil(4) * 3
}

/// How many connections each address has: as many entries as connections at most.
#[derive(Debug)]
struct Addresses {
    each_max: usize,
    held: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    fn new(each_max: usize) -> Arc<Self> {
        Arc::new(Self { each_max, held: Mutex::default() })
    }

    /// Takes one for an address, if it may have one more.
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<OfAddress> {
        let address = holder(address);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        Some(OfAddress { addresses: Arc::clone(self), address })
    }
}

/// Whom an address belongs to: a machine has one of IPv4, and of IPv6 as many as it likes of a /64.
fn holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

/// One connection of an address, until it is dropped.
#[derive(Debug)]
struct OfAddress {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut held = self.addresses.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = held.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// What a connection takes, and gives back when it ends.
#[derive(Debug)]
struct Permit {
    _room: OwnedSemaphorePermit,
    _of_address: OfAddress,
    _open: Open,
}

/// When it was last said that connections are refused, and how many were since then.
#[derive(Debug, Default)]
struct Warned {
    at: Option<Instant>,
    refused: u64,
}

impl Warned {
    /// How many were refused since somebody was told, if it is time to say it again.
    fn refused(&mut self) -> Option<u64> {
        self.refused += 1;
        if self.at.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            return None;
        }
        self.at = Some(Instant::now());
        Some(std::mem::take(&mut self.refused))
    }
}

/// Accepts connections on one port, up to its limit.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    room: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    silence_max: Duration,
    /// Of a full port, and of addresses that have enough.
    warned: [Warned; 2],
    meter: Meter,
    door: Door,
    /// Where handshakes are made, if not where connections are served.
    on: Option<Handle>,
    /// Where it is noted that somebody was not let in.
    audit: Option<Arc<Audit>>,
}

impl Acceptor {
    /// Accepts at most `connections_max` at a time, without TLS; each must say something within `silence_max`.
    #[must_use]
    pub fn new(listener: TcpListener, connections_max: usize, silence_max: Duration) -> Self {
        let room = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self {
            listener,
            room,
            addresses: Addresses::new(connections_max),
            silence_max,
            warned: Default::default(),
            meter: Meter::default(),
            door: Door::open(),
            on: None,
            audit: None,
        }
    }

    /// The same with so many of one address at most.
    #[must_use]
    pub fn shared(self, of_one_address: usize) -> Self {
        Self { addresses: Addresses::new(of_one_address.max(1)), ..self }
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

    /// The same; who is not let in is noted there.
    #[must_use]
    pub fn audited(self, audit: Option<Arc<Audit>>) -> Self {
        Self { audit, ..self }
    }

    /// The same, counted by this meter.
    #[must_use]
    pub fn metered(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// The next connection that there is room for. Shortages are waited out. Nothing is lost if it is cancelled.
    pub async fn accept(&mut self) -> Arrived {
        loop {
            let (stream, from) = match self.listener.accept().await {
                Ok((stream, from)) => (stream, from.ip()),
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            };
            let permit = match self.permit(from) {
                Ok(permit) => permit,
                Err(crowded) => {
                    self.refuse(crowded, from);
                    continue;
                }
            };
            // Answers are small and wanted at once, so they do not wait for more to fill a packet. This fails only if the
            // connection is already broken; then the first read says so.
            let _ = stream.set_nodelay(true);
            let (meter, door, on) = (self.meter.clone(), self.door.clone(), self.on.clone());
            let (silence_max, audit) = (self.silence_max, self.audit.clone());
            return Arrived { stream, permit, silence_max, meter, door, on, audit };
        }
    }

    /// Room for one more connection from there.
    fn permit(&self, from: IpAddr) -> Result<Permit, Crowded> {
        let of_address = self.addresses.take(from).ok_or(Crowded::Address)?;
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| Crowded::Port)?;
        Ok(Permit { _room: room, _of_address: of_address, _open: self.meter.open() })
    }

    /// Counts a connection that is closed, and says so at a bounded rate.
    fn refuse(&mut self, crowded: Crowded, from: IpAddr) {
        self.meter.refused(crowded);
        let Some(refused) = self.warned[crowded as usize].refused() else { return };
        let port = self.listener.local_addr().map_or(0, |address| address.port());
        match crowded {
            Crowded::Port => {
                tracing::warn!(port, refused, "too many connections: further ones are closed at once");
            }
            Crowded::Address => tracing::warn!(
                port,
                refused,
                address = %holder(from),
                each_max = self.addresses.each_max,
                "an address has as many connections as one may have: further ones from there are closed at once"
            ),
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
    permit: Permit,
    silence_max: Duration,
    meter: Meter,
    door: Door,
    on: Option<Handle>,
    audit: Option<Arc<Audit>>,
}

impl Arrived {
    /// Lets it in, or closes it: that is counted, noted, told to it as far as it understands, and said in the log for who looks closely.
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
                if let Some(audit) = self.audit {
                    let (from, text) = (from.map(|from| from.to_string()), refused.to_string());
                    let call = Call {
                        call: "handshake",
                        peer: from.as_deref(),
                        text: Some(&text),
                        ..Call::default()
                    };
                    audit.note(SystemTime::now(), Happened::Unauthenticated, &call);
                }
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
    _permit: Permit,
}

impl Connection {
    fn new(stream: Stream, permit: Permit, silence_max: Duration) -> Self {
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
