//! A port that accepts connections, plain or by TLS.

use crate::identity::Identity;
use crate::keys::Keys;
use crate::stream::Stream;
use crate::words::explained;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

/// How long a handshake may take, from its first byte.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long somebody who is refused may take to hear why.
const FAREWELL: Duration = Duration::from_secs(1);
/// The first byte of every connection by TLS: a record of a handshake.
const HANDSHAKE: u8 = 0x16;
/// How a connection of HTTP/2 begins.
const HTTP2_PREFACE: &[u8] = b"PRI ";
/// What a client that speaks HTTP/1.1 is told.
const PLAIN_HTTP1: &str = "this port speaks TLS: use https://\n";
/// What a client that speaks HTTP/2 is told: empty settings, and farewell with INADEQUATE_SECURITY (RFC 9113, 6.8 and 7).
const PLAIN_HTTP2: &[u8] =
    b"\0\0\0\x04\0\0\0\0\0\0\0\x27\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0cthis port speaks TLS: use https";

/// Whether connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// None is.
    #[default]
    Off,
    /// Whoever comes may choose; whoever connects tries TLS first.
    Optional,
    /// All are.
    Required,
}

impl Mode {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Optional => "optional",
            Mode::Required => "required",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Mode::Off, Mode::Optional, Mode::Required];
        let found = all.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| format!("`{text}` is none of off, optional, required"))
    }
}

/// Who comes to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Other nodes: they must show a certificate.
    Peers,
    /// Everybody else: they may.
    Clients,
}

/// Says whether a certificate is of the cluster itself.
pub type IsNode = Arc<dyn Fn(&Identity) -> bool + Send + Sync>;

/// How one port accepts.
#[derive(Clone)]
pub struct Door {
    keys: Option<Arc<Keys>>,
    mode: Mode,
    whom: Whom,
    is_node: Option<IsNode>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("mode", &self.mode).field("whom", &self.whom).finish_non_exhaustive()
    }
}

/// Why somebody was not let in. Its client was told, as far as it understands.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It spoke without TLS, which this port wants.
    #[error("it does not speak TLS, which this port wants")]
    Plain,
    /// The handshake failed.
    #[error("{0}")]
    Handshake(String),
    /// It said nothing for too long, or went.
    #[error("{0}")]
    Gone(io::Error),
}

impl Door {
    /// Accepts whoever comes, and encrypts nothing.
    #[must_use]
    pub fn open() -> Self {
        Self { keys: None, mode: Mode::Off, whom: Whom::Clients, is_node: None }
    }

    /// Accepts by these keys.
    #[must_use]
    pub fn new(keys: Arc<Keys>, mode: Mode, whom: Whom) -> Self {
        Self { keys: Some(keys), mode, whom, is_node: None }
    }

    /// The same; whoever comes is told apart by this: it is of the cluster itself, or it is not.
    #[must_use]
    pub fn knowing(self, is_node: IsNode) -> Self {
        Self { is_node: Some(is_node), ..self }
    }

    /// Lets somebody in. Its first byte must be there within `silence_max`, unless this port encrypts nothing.
    ///
    /// # Errors
    /// It is not let in, and its connection is closed.
    pub async fn accept(&self, mut stream: TcpStream, silence_max: Duration) -> Result<Stream, Refused> {
        let Some(keys) = self.keys.as_ref().filter(|_| self.mode != Mode::Off) else {
            return Ok(Stream::plain(stream));
        };
        let mut first = [0; HTTP2_PREFACE.len()];
        let late = |_| Refused::Gone(io::ErrorKind::TimedOut.into());
        let seen = tokio::time::timeout(silence_max, stream.peek(&mut first))
            .await
            .map_err(late)?
            .map_err(Refused::Gone)?;
        match &first[..seen] {
            [] => return Err(Refused::Gone(io::ErrorKind::UnexpectedEof.into())),
            [HANDSHAKE, ..] => {}
            _ if self.mode == Mode::Optional => return Ok(Stream::plain(stream)),
            said => {
                tell_plain(&mut stream, HTTP2_PREFACE.starts_with(said)).await;
                return Err(Refused::Plain);
            }
        }
        let Some(config) = keys.accepting(self.whom) else {
            return Err(Refused::Handshake("this port has no certificate".into()));
        };
        let handshake = TlsAcceptor::from(config).accept(stream).into_fallible();
        let accepted = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(late)? {
            Ok(accepted) => accepted,
            Err((error, mut stream)) => {
                // Why is on its way already.
                let _ = tokio::time::timeout(FAREWELL, take_leave(&mut stream)).await;
                return Err(match explained(&error) {
                    Some(why) => Refused::Handshake(why),
                    None => Refused::Gone(error),
                });
            }
        };
        let stream = Stream::encrypted(TlsStream::Server(accepted));
        let Some(chain) = stream.shown() else { return Ok(stream) };
        if stream.peer().identity.is_none() {
            return Err(Refused::Handshake("its certificate cannot be read".into()));
        }
        // An authority of clients alone makes nobody a node, whatever name it writes.
        let is_of_nodes = keys.issued_by_authorities(chain);
        let is_node = |identity: &Identity| {
            is_of_nodes && self.is_node.as_ref().is_some_and(|is_node| is_node(identity))
        };
        Ok(stream.known(is_node))
    }
}

/// It may not listen any more, and is told all the same.
async fn tell_plain(stream: &mut TcpStream, is_http2: bool) {
    let http1 = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{PLAIN_HTTP1}",
        PLAIN_HTTP1.len()
    );
    let told = if is_http2 { PLAIN_HTTP2 } else { http1.as_bytes() };
    let telling = async {
        stream.write_all(told).await?;
        take_leave(stream).await
    };
    let _ = tokio::time::timeout(FAREWELL, telling).await;
}

/// Ends a connection so that what was told last arrives: one that is closed with bytes unread is reset, and takes that with it. So a little
/// of what the other end says is taken.
async fn take_leave(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 4_096];
    for _ in 0..16 {
        if stream.read(&mut rest).await? == 0 {
            break;
        }
    }
    Ok(())
}
