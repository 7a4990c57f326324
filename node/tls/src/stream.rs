//! A connection that may or may not be encrypted.

use crate::Identity;
use rustls::pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tonic::transport::server::Connected;

/// Who is at the other end of a connection, as far as the connection tells.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Where it came from.
    pub address: Option<SocketAddr>,
    /// Nobody between could read what was said.
    pub is_encrypted: bool,
    /// The certificate that it showed, if it showed one. An authority that is trusted issued it.
    pub identity: Option<Arc<Identity>>,
    /// That certificate is of the cluster itself, as whoever made the [`Door`](crate::Door) said.
    pub is_node: bool,
}

/// A connection, plain or by TLS.
#[derive(Debug)]
pub struct Stream {
    inner: Inner,
    peer: Peer,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    /// It is thirty times as large.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// A connection as it is.
    #[must_use]
    pub fn plain(stream: TcpStream) -> Self {
        let peer = Peer { address: stream.peer_addr().ok(), ..Peer::default() };
        Self { inner: Inner::Plain(stream), peer }
    }

    pub(crate) fn encrypted(stream: TlsStream<TcpStream>) -> Self {
        let (tcp, session) = stream.get_ref();
        let shown = session.peer_certificates().and_then(<[_]>::first);
        let peer = Peer {
            address: tcp.peer_addr().ok(),
            is_encrypted: true,
            identity: shown.and_then(Identity::read).map(Arc::new),
            is_node: false,
        };
        Self { inner: Inner::Tls(Box::new(stream)), peer }
    }

    /// The certificates that the other end showed, its own first; `None` if it showed none.
    pub(crate) fn shown(&self) -> Option<&[CertificateDer<'static>]> {
        let Inner::Tls(stream) = &self.inner else { return None };
        stream.get_ref().1.peer_certificates().filter(|chain| !chain.is_empty())
    }

    /// The same, of which is known whether it is of the cluster itself.
    pub(crate) fn known(mut self, is_node: impl FnOnce(&Identity) -> bool) -> Self {
        self.peer.is_node = self.peer.identity.as_deref().is_some_and(is_node);
        self
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Stream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Inner::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Inner::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Inner::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Plain(stream) => stream.is_write_vectored(),
            Inner::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Plain(stream) => Pin::new(stream).poll_flush(context),
            Inner::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Inner::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
