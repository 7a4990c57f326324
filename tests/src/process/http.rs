//! HTTP/1.1 by hand: one request, one connection, one deadline.

use super::PATIENCE;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a connection may take, whatever the answer may take: a packet to a pod that has just gone is answered by nobody, and
/// what balances the connections of a Service sends all its repeats to the same pod. The next connection finds another.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// A client of one address.
#[derive(Clone, Copy, Debug)]
pub struct Http {
    address: SocketAddr,
    timeout: Duration,
    /// Whether the node is told of the timeout.
    says_timeout: bool,
    request_id: Option<u128>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The body; `Null` if it is not JSON.
    pub body: Value,
    /// The head, for looking at headers.
    pub head: String,
    /// The body as it came.
    pub text: String,
}

/// Nothing came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Nobody listens: the request was never sent.
    Refused,
    /// No connection came about, or not in time, as with an address that nobody has any more: the request was never sent.
    Unreachable(ErrorKind),
    /// The request may have arrived.
    Unknown,
}

impl Http {
    /// A client of a port of this machine, with a timeout of one second.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// A client with a timeout of one second.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self { address, timeout: Duration::from_secs(1), says_timeout: false, request_id: None }
    }

    /// Another timeout.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// A deadline for the node: it takes so long, and not 900 ms. What it says then is waited for, however long it is on
    /// its way.
    #[must_use]
    pub fn with_deadline(self, timeout: Duration) -> Self {
        Self { timeout, says_timeout: true, ..self }
    }

    /// Calls of this id: repeated, one has the effect of the first.
    #[must_use]
    pub fn with_request_id(self, id: u128) -> Self {
        Self { request_id: Some(id), ..self }
    }

    /// Sends a request as it is and reads one answer.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, Unanswered> {
        let deadline =
            Instant::now() + self.timeout + if self.says_timeout { PATIENCE } else { Duration::ZERO };
        let mut stream = TcpStream::connect_timeout(&self.address, self.timeout.min(CONNECTED_WITHIN))
            .map_err(|error| match error.kind() {
                ErrorKind::ConnectionRefused => Unanswered::Refused,
                other => Unanswered::Unreachable(other),
            })?;
        let deadline_header = match self.says_timeout {
            true => format!("raftqueue-deadline-ms: {}\r\n", self.timeout.as_millis()),
            false => String::new(),
        };
        let id_header =
            self.request_id.map(|id| format!("raftqueue-request-id: {id:032x}\r\n")).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n{deadline_header}{id_header}connection: close\r\n\r\n",
            body.len()
        );
        let exchange = |stream: &mut TcpStream| -> std::io::Result<Vec<u8>> {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(self.timeout))?;
            stream.write_all(&[head.as_bytes(), body].concat())?;
            let mut answer = Vec::new();
            let mut buffer = [0; 64 << 10];
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
                match stream.read(&mut buffer)? {
                    0 => return Ok(answer),
                    count => answer.extend_from_slice(&buffer[..count]),
                }
            }
        };
        let answer = exchange(&mut stream).map_err(|_| Unanswered::Unknown)?;
        parse(&answer).ok_or(Unanswered::Unknown)
    }

    /// `GET /status`.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn status(&self) -> Result<Answer, Unanswered> {
        self.request("GET", "/status", b"")
    }

    /// `PUT /topic`.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn create_topic(&self, topic: &str) -> Result<Answer, Unanswered> {
        self.request("PUT", "/topic", json!({"topic": topic}).to_string().as_bytes())
    }

    /// `PUT /message`.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn publish(&self, topic: &str, message: &str) -> Result<Answer, Unanswered> {
        self.request("PUT", "/message", json!({"topic": topic, "message": message}).to_string().as_bytes())
    }

    /// `GET /message/TOPIC`.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn pop(&self, topic: &str) -> Result<Answer, Unanswered> {
        self.request("GET", &format!("/message/{topic}"), b"")
    }
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let split = answer.windows(4).position(|end| end == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&answer[..split]).ok()?, &answer[split + 4..]);
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { joined(body)? } else { body.to_vec() };
    let body = String::from_utf8(body).ok()?;
    let code = head.split_whitespace().nth(1)?.parse().ok()?;
    let body_value = serde_json::from_str(&body).unwrap_or(Value::Null);
    Some(Answer { code, body: body_value, head: head.to_lowercase(), text: body })
}

/// A body that came in chunks, each behind its length. `None` if it is not whole.
fn joined(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|end| end == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        let chunk = chunks.get(end + 2..end + 2 + length)?;
        body.extend_from_slice(chunk);
        chunks = chunks.get(end + 2 + length + 2..)?;
    }
}
