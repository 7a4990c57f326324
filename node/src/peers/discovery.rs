//! Makes a connection from an address as it is configured. Only this file asks DNS.
//!
//! An address is `HOST:PORT`. A host that is not an IP address is looked up anew at every attempt to connect, so that a
//! pod that moved is found where it is now. No answer is final: whoever connects tries again, for ever. While DNS
//! cannot answer, the endpoints where the host was found last are tried: a process that was merely restarted is still
//! there.
//!
//! Who is a member is never decided here: what answers at an address must prove itself in the hello. With TLS it shows a certificate
//! for the host at which it was sought.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hyper_util::rt::TokioIo;
use raftqueue_tls::{Keys, Mode, Stream, explained, speaks_no_tls};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// HTTP/2 windows towards a peer, in bytes.
const WINDOW_BYTES: u32 = 16 << 20;
/// The same for calls that are passed on: as much as one of them may be sent before this node has room for it.
const CALL_WINDOW_BYTES: u32 = 256 << 10;
/// And for all of them together, so that an answer which waits for room never holds up another one.
const CALLS_WINDOW_BYTES: u32 = 1 << 30;
/// How long one address may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long DNS may take for one name, its search domains included.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one name server may take before it is asked again.
const SERVER_TIMEOUT: Duration = Duration::from_millis(700);
/// How long a handshake of TLS may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// First pause before a peer is asked again that still listens after its connections broke. Each further pause is twice
/// as long.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(5);
/// Pause before a peer is asked by another connection, after it ended the one by which it was asked.
const ASK_AGAIN_AFTER_RESET: Duration = Duration::from_millis(1);

/// Finds and connects to hosts. One of them serves a whole process.
#[derive(Default)]
pub struct Discovery {
    resolver: Mutex<Option<Arc<TokioResolver>>>,
    /// Where each address was found last.
    found: Mutex<BTreeMap<String, Vec<SocketAddr>>>,
    /// How connections are encrypted, if they are.
    tls: Option<(Arc<Keys>, Mode)>,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Discovery").field("found", &*found).finish_non_exhaustive()
    }
}

impl Discovery {
    /// Nothing is looked up, and no file is read, before the first host that is not an IP address.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with connections by TLS, where the other end can or must.
    #[must_use]
    pub fn with_tls(self, keys: Arc<Keys>, mode: Mode) -> Self {
        Self { tls: (mode != Mode::Off).then_some((keys, mode)), ..self }
    }

    /// A gRPC channel to `address`. It connects again by itself for calls that come later, looking the host up anew.
    ///
    /// # Errors
    /// Why there is no connection, for people. Unless the address is malformed, it is worth another attempt later.
    pub async fn dial(self: &Arc<Self>, address: &str) -> Result<Channel, String> {
        self.dial_with(address, WINDOW_BYTES, WINDOW_BYTES).await
    }

    /// The same for calls that are passed on.
    ///
    /// # Errors
    /// As [`Discovery::dial`].
    pub async fn dial_for_calls(self: &Arc<Self>, address: &str) -> Result<Channel, String> {
        self.dial_with(address, CALL_WINDOW_BYTES, CALLS_WINDOW_BYTES).await
    }

    async fn dial_with(
        self: &Arc<Self>,
        address: &str,
        stream_window_bytes: u32,
        connection_window_bytes: u32,
    ) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| format!("`{address}` is no address: {error}"))?
            .initial_stream_window_size(stream_window_bytes)
            .initial_connection_window_size(connection_window_bytes)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let discovery = Arc::clone(self);
        let address = address.to_owned();
        let connector = service_fn(move |_| {
            let (discovery, address) = (Arc::clone(&discovery), address.clone());
            async move { discovery.connect(&address).await.map(TokioIo::new) }
        });
        endpoint.connect_with_connector(connector).await.map_err(|error| describe(&error))
    }

    /// A connection to `address`, by TLS if that is wanted, or can be.
    async fn connect(&self, address: &str) -> io::Result<Stream> {
        let stream = self.reach(address).await?;
        let Some((keys, mode)) = &self.tls else { return Ok(Stream::plain(stream)) };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer to the handshake of TLS");
        let handshake = keys.connect(stream, host_of(address));
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(late)? {
            // It has not got its certificates yet, or has none any more.
            Err(error) if *mode == Mode::Optional && speaks_no_tls(&error) => {
                Ok(Stream::plain(self.reach(address).await?))
            }
            Err(error) => {
                let why = explained(&error).unwrap_or_else(|| error.to_string());
                Err(io::Error::new(error.kind(), format!("TLS with {address}: {why}")))
            }
            encrypted => encrypted,
        }
    }

    async fn reach(&self, address: &str) -> io::Result<TcpStream> {
        let mut last = None;
        for endpoint in self.resolve(address).await? {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = Some(io::Error::new(error.kind(), format!("{endpoint}: {error}"))),
                Err(_) => {
                    last = Some(io::Error::new(io::ErrorKind::TimedOut, format!("{endpoint}: no answer")));
                }
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no addresses")))
    }

    /// True once nobody listens where `address` was found last: the process there has ended. It is asked again and
    /// again during `within`: a dying process listens for some moments after its connections broke, and connections
    /// that it accepts then say nothing and are reset. DNS is not asked, since it knows nothing about that.
    pub async fn is_gone(&self, address: &str, within: Duration) -> bool {
        let endpoints = match address.parse() {
            Ok(endpoint) => vec![endpoint],
            Err(_) => self.found_last(address),
        };
        let Some(endpoint) = endpoints.first() else {
            return false;
        };
        let asking = async {
            let mut pause = ASK_AGAIN_MIN;
            loop {
                match TcpStream::connect(endpoint).await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
                    Err(_) => tokio::time::sleep(pause).await,
                    Ok(mut stream) => {
                        // The end of this connection may be the end of the process that listens.
                        let _ = tokio::time::timeout(pause, stream.read(&mut [0])).await;
                        tokio::time::sleep(ASK_AGAIN_AFTER_RESET).await;
                    }
                }
                pause *= 2;
            }
        };
        tokio::time::timeout(within, asking).await.is_ok()
    }

    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(endpoint) = address.parse() {
            return Ok(vec![endpoint]);
        }
        let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, port)) = parts else {
            let text = format!("`{address}` must be HOST:PORT");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        match self.look_up(host, port).await {
            Ok(endpoints) => {
                let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                found.insert(address.to_owned(), endpoints.clone());
                Ok(endpoints)
            }
            Err(why) => match self.found_last(address) {
                endpoints if !endpoints.is_empty() => Ok(endpoints),
                _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("cannot look up {host}: {why}"))),
            },
        }
    }

    fn found_last(&self, address: &str) -> Vec<SocketAddr> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(address).cloned().unwrap_or_default()
    }

    async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let resolver = self.resolver()?;
        let answer = tokio::time::timeout(LOOKUP_TIMEOUT, resolver.lookup_ip(host)).await;
        let answer =
            answer.map_err(|_| "DNS does not answer".to_owned())?.map_err(|error| error.to_string())?;
        let endpoints: Vec<SocketAddr> = answer.iter().map(|ip| SocketAddr::new(ip, port)).collect();
        if endpoints.is_empty() { Err("it has no addresses".into()) } else { Ok(endpoints) }
    }

    /// The resolver with the machine's settings. If those cannot be read, they are read again next time.
    fn resolver(&self) -> Result<Arc<TokioResolver>, String> {
        let mut resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolver) = &*resolver {
            return Ok(Arc::clone(resolver));
        }
        let mut builder = TokioResolver::builder_tokio()
            .map_err(|error| format!("the DNS settings of this machine cannot be read: {error}"))?;
        let options = builder.options_mut();
        // A pod that moves or appears must be found at the next attempt.
        options.cache_size = 0;
        options.timeout = SERVER_TIMEOUT;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let built = Arc::new(builder.build().map_err(|error| error.to_string())?);
        *resolver = Some(Arc::clone(&built));
        Ok(built)
    }
}

/// The host of HOST:PORT.
pub(crate) fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// An error with its causes: tonic's own text is only "transport error", and that of TLS is for who knows it.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(why) = explained(error) {
        return why;
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::config::{NameServerConfig, ProtocolConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use std::net::{IpAddr, Ipv4Addr};
    use tokio::net::{TcpListener, UdpSocket};
    use tokio::sync::watch;

    /// A name server that gives every question for an address the answer of the day, or none.
    struct Dns {
        answer: watch::Sender<Option<Result<Ipv4Addr, ()>>>,
        endpoint: SocketAddr,
    }

    impl Dns {
        async fn start() -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let endpoint = socket.local_addr().unwrap();
            let (answer, answers) = watch::channel(Some(Err(())));
            tokio::spawn(async move {
                let mut question = [0; 1500];
                while let Ok((length, from)) = socket.recv_from(&mut question).await {
                    let Some(answer) = *answers.borrow() else { continue };
                    socket.send_to(&reply(&question[..length], answer), from).await.unwrap();
                }
            });
            Self { answer, endpoint }
        }

        fn resolver(&self) -> TokioResolver {
            let mut server = NameServerConfig::udp(self.endpoint.ip());
            for connection in &mut server.connections {
                connection.port = self.endpoint.port();
                connection.protocol = ProtocolConfig::Udp;
            }
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            let options = builder.options_mut();
            options.cache_size = 0;
            options.timeout = Duration::from_millis(50);
            options.attempts = 1;
            builder.build().unwrap()
        }
    }

    /// The answer to a DNS question: its header with the reply bit, the question, and for type A one record.
    fn reply(question: &[u8], answer: Result<Ipv4Addr, ()>) -> Vec<u8> {
        let name_length = question[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
        let end = 12 + name_length + 4;
        let is_a = question[end - 3] == 1;
        let found = answer.ok().filter(|_| is_a);
        let code = if answer.is_err() { 3 } else { 0 };
        let mut reply = question[..end].to_vec();
        reply[2] = 0x84;
        reply[3] = code;
        reply[6..12].copy_from_slice(&[0, u8::from(found.is_some()), 0, 0, 0, 0]);
        if let Some(ip) = found {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend(ip.octets());
        }
        reply
    }

    async fn discovery() -> (Dns, Arc<Discovery>) {
        let dns = Dns::start().await;
        let discovery = Discovery::new();
        *discovery.resolver.lock().unwrap() = Some(Arc::new(dns.resolver()));
        (dns, Arc::new(discovery))
    }

    #[tokio::test]
    async fn a_host_is_looked_up_anew_every_time() {
        let (dns, discovery) = discovery().await;
        let error = discovery.connect("pod.service:80").await.unwrap_err();
        assert!(error.to_string().contains("cannot look up pod.service"), "{error}");
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let address = format!("pod.service:{}", listener.local_addr().unwrap().port());
        dns.answer.send_replace(Some(Ok(Ipv4Addr::new(127, 0, 0, 2))));
        let stream = discovery.connect(&address).await.unwrap();
        let at = stream.peer().address.unwrap();
        assert_eq!(at.ip(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
        // It moves.
        let moved = TcpListener::bind(("127.0.0.3", listener.local_addr().unwrap().port())).await.unwrap();
        dns.answer.send_replace(Some(Ok(Ipv4Addr::new(127, 0, 0, 3))));
        let stream = discovery.connect(&address).await.unwrap();
        assert_eq!(stream.peer().address, moved.local_addr().ok());
    }

    #[tokio::test]
    async fn without_dns_a_host_is_sought_where_it_was_last() {
        let (dns, discovery) = discovery().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("pod.service:{}", listener.local_addr().unwrap().port());
        dns.answer.send_replace(Some(Ok(Ipv4Addr::LOCALHOST)));
        discovery.connect(&address).await.unwrap();
        for silence in [None, Some(Err(()))] {
            dns.answer.send_replace(silence);
            discovery.connect(&address).await.unwrap();
        }
        let within = Duration::from_millis(20);
        assert!(!discovery.is_gone(&address, within).await);
        drop(listener);
        assert!(discovery.is_gone(&address, within).await, "nobody listens there any more");
        assert!(!discovery.is_gone("other.service:80", within).await, "nothing is known of it");
    }

    /// This is how a killed process ends: its connections break first, then nobody listens any more, and connections
    /// that it had not accepted are reset.
    #[tokio::test]
    async fn one_that_listens_for_a_moment_after_its_connections_broke_is_found_gone() {
        let discovery = Arc::new(Discovery::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asking = {
            let (discovery, address) = (Arc::clone(&discovery), address.clone());
            tokio::spawn(async move { discovery.is_gone(&address, Duration::from_secs(60)).await })
        };
        // It was asked while it listened, and has not accepted yet.
        let mut asked = listener.accept().await.unwrap().0;
        drop(listener);
        assert_eq!(asked.read(&mut [0]).await.unwrap_or(0), 0, "that connection is given up for another one");
        assert!(asking.await.unwrap());
    }

    #[tokio::test]
    async fn addresses_need_no_dns_and_bad_ones_are_named() {
        let discovery = Arc::new(Discovery::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        discovery.connect(&listener.local_addr().unwrap().to_string()).await.unwrap();
        for bad in ["pod", "pod:port", "pod:70000"] {
            let error = discovery.connect(bad).await.unwrap_err();
            assert!(error.to_string().contains("must be HOST:PORT"), "{error}");
        }
    }
}
