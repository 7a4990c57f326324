//! Which node to talk to.
//!
//! The endpoints are tried in turn until one accepts a connection; that one is kept as long as it works. When a node
//! says where the leader is, the leader is asked directly, which saves a hop. That needs a connection within
//! [`HINT_TIMEOUT`]: behind a load balancer or a port forward the leader may not be reachable at all. Then calls stay
//! with the endpoint, which passes them on.

use crate::Error;
use crate::credentials::{Bearer, Channel, Credentials};
use hyper_util::rt::TokioIo;
use raftqueue_tls::{Keys, Refreshed, explained};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tower::service_fn;

/// How long a hinted leader may take to accept a connection.
const HINT_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a hinted leader that could not be reached is not tried again.
const HINT_PAUSE: Duration = Duration::from_secs(10);
/// How long an endpoint may take to accept a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// HTTP/2 flow control window of a stream and of a connection, in bytes.
const WINDOW_BYTES: u32 = 8 << 20;
/// How long a connection with calls under way may be silent before its node is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long the node has to answer that. If it does not, it hangs or cannot be reached: the connection ends with every
/// call on it. A slow call alone is no sign of that.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection and where it leads.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) address: String,
    pub(crate) channel: Channel,
}

/// The endpoints, and what is known about them.
#[derive(Debug)]
pub(crate) struct Connections {
    endpoints: Vec<String>,
    credentials: Credentials,
    /// How connections are encrypted, if they are.
    keys: Option<Arc<Keys>>,
    bearer: Option<Bearer>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The endpoint in use: a position in the list.
    current: usize,
    /// The leader, if it is not the endpoint in use.
    leader: Option<String>,
    /// Leaders that could not be reached, and until when they are not tried again.
    unreachable: BTreeMap<String, Instant>,
    channels: BTreeMap<String, Channel>,
    /// A connection was made once.
    has_connected: bool,
}

impl Connections {
    /// Connections to `endpoints`, each HOST:PORT or a URI, that show these credentials.
    ///
    /// # Errors
    ///
    /// No endpoints, one that is no address, or files that are not right: mend the caller.
    pub(crate) fn new(endpoints: Vec<String>, credentials: Credentials) -> Result<Self, Error> {
        if endpoints.is_empty() {
            return Err(Error::not_sent("no endpoints are given"));
        }
        for address in &endpoints {
            endpoint(address)?;
        }
        let is_secure = |endpoint: &String| endpoint.starts_with("https://");
        let keys = credentials.keys(endpoints.iter().any(is_secure))?;
        if keys.is_some()
            && let Some(plain) = endpoints.iter().find(|endpoint| endpoint.starts_with("http://"))
        {
            let text = format!(
                "{plain}: the others are encrypted, so this one must be, too: say https://, or HOST:PORT"
            );
            return Err(Error::not_sent(text));
        }
        let bearer = credentials.bearer()?;
        Ok(Self { endpoints, credentials, keys, bearer, known: Mutex::default() })
    }

    /// What is shown.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// All endpoints, as they were given.
    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// A connection to the leader if one is known and answers quickly, else to the first endpoint that answers.
    ///
    /// # Errors
    ///
    /// Nobody accepts a connection.
    pub(crate) async fn get(&self) -> Result<Connection, Error> {
        let leader = self.lock().leader.clone();
        if let Some(address) = leader {
            match self.open(&address, HINT_TIMEOUT).await {
                Ok(connection) => return Ok(connection),
                Err(_) => self.give_up_leader(&address),
            }
        }
        let current = self.lock().current;
        let mut refusals = Vec::new();
        let mut are_refused = true;
        for step in 0..self.endpoints.len() {
            let position = (current + step) % self.endpoints.len();
            match self.open(&self.endpoints[position], CONNECT_TIMEOUT).await {
                Ok(connection) => {
                    self.lock().current = position;
                    return Ok(connection);
                }
                Err(error) => {
                    are_refused &= error.refused_at().is_some();
                    refusals.push(error.text);
                }
            }
        }
        let text = format!("no node can be reached: {}", refusals.join("; "));
        Err(if are_refused { Error::refused(text, self.endpoints.clone()) } else { Error::unreachable(text) })
    }

    /// True once any connection was made.
    pub(crate) fn has_connected(&self) -> bool {
        self.lock().has_connected
    }

    /// A connection to exactly this endpoint.
    ///
    /// # Errors
    ///
    /// The endpoint does not accept a connection.
    pub(crate) async fn get_only(&self, address: &str) -> Result<Connection, Error> {
        self.open(address, CONNECT_TIMEOUT).await
    }

    /// Notes where the leader is, as the node at `from` says. `None`: that node leads itself, or does not know.
    pub(crate) fn note_leader(&self, from: &str, leader: Option<&str>) {
        let mut known = self.lock();
        let now = Instant::now();
        known.unreachable.retain(|_, until| *until > now);
        match leader {
            Some(leader)
                if leader != from && !known.unreachable.contains_key(leader) && endpoint(leader).is_ok() =>
            {
                known.leader = Some(leader.to_owned());
            }
            Some(_) => {}
            // If another node than the noted leader answers without a hint, the note is out of date.
            None if known.leader.as_deref() != Some(from) => known.leader = None,
            None => {}
        }
    }

    /// Notes that a connection broke, or that its node cannot help: from now on others are asked first.
    pub(crate) fn leave(&self, connection: &Connection, is_broken: bool) {
        let mut known = self.lock();
        if is_broken {
            known.channels.remove(&connection.address);
        }
        if known.leader.as_deref() == Some(&connection.address) {
            known.leader = None;
        } else if self.endpoints[known.current] == connection.address {
            known.current = (known.current + 1) % self.endpoints.len();
        }
    }

    fn give_up_leader(&self, address: &str) {
        let mut known = self.lock();
        known.unreachable.insert(address.to_owned(), Instant::now() + HINT_PAUSE);
        if known.leader.as_deref() == Some(address) {
            known.leader = None;
        }
    }

    async fn open(&self, address: &str, patience: Duration) -> Result<Connection, Error> {
        let existing = self.lock().channels.get(address).cloned();
        let channel = match existing {
            Some(channel) => channel,
            None => {
                let connecting = timeout(patience, self.connect(address)).await;
                let channel = connecting
                    .map_err(|_| {
                        Error::unreachable(format!(
                            "{address}: no connection within {} ms",
                            patience.as_millis()
                        ))
                    })?
                    .map_err(|error| match error {
                        NoConnection::Refused(why) => {
                            Error::refused(format!("{address}: {why}"), vec![address.to_owned()])
                        }
                        // Waiting changes nothing.
                        NoConnection::Tls(why) => Error::not_sent(format!("{address}: {why}")),
                    })?;
                let mut known = self.lock();
                known.channels.insert(address.to_owned(), channel.clone());
                known.has_connected = true;
                channel
            }
        };
        Ok(Connection { address: address.to_owned(), channel })
    }

    async fn connect(&self, address: &str) -> Result<Channel, NoConnection> {
        let endpoint = endpoint(address).map_err(|error| NoConnection::Tls(error.to_string()))?;
        let connected = match &self.keys {
            None => endpoint.connect().await,
            Some(keys) => {
                let keys = Arc::clone(keys);
                endpoint
                    .connect_with_connector(service_fn(move |uri: http::Uri| {
                        let keys = Arc::clone(&keys);
                        async move { encrypt(&keys, &uri).await.map(TokioIo::new) }
                    }))
                    .await
            }
        };
        let bearer = self.bearer.clone();
        connected.map(|channel| Channel::new(channel, bearer)).map_err(|error| match explained(&error) {
            Some(why) if why.contains("does not speak TLS") => {
                NoConnection::Tls(format!("{why}: leave out https:// and the files of TLS"))
            }
            Some(why) => NoConnection::Tls(format!("TLS: {why}")),
            None => NoConnection::Refused(root_cause(&error)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change of it is complete before anything can panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no connection.
enum NoConnection {
    /// Nobody accepts one there now.
    Refused(String),
    /// Somebody does, and the two do not agree on who they are.
    Tls(String),
}

/// A connection by TLS, with the certificates as they are now.
async fn encrypt(keys: &Arc<Keys>, uri: &http::Uri) -> std::io::Result<raftqueue_tls::Stream> {
    let host = uri.host().unwrap_or_default();
    let address = (host.trim_start_matches('[').trim_end_matches(']'), uri.port_u16().unwrap_or(443));
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let read = Arc::clone(keys);
    // Files that are not right at this moment leave those before in force.
    let _: Option<Result<Refreshed, _>> = tokio::task::spawn_blocking(move || read.refresh()).await.ok();
    keys.connect(stream, host).await
}

/// TLS is the connector's, so that the endpoint is a plain one for the library.
fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let plain = address.strip_prefix("https://").unwrap_or(address);
    let uri = if plain.contains("://") { plain.to_owned() } else { format!("http://{plain}") };
    let endpoint = Endpoint::from_shared(uri).map_err(|error| {
        Error::not_sent(format!("{address}: no address of a node: {}", root_cause(&error)))
    })?;
    Ok(endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT))
}

/// The innermost cause: "connection refused" rather than "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
    // The number is for nobody who has the words.
    text.split_once(" (os error ").map_or(text.as_str(), |(words, _)| words).to_owned()
}
