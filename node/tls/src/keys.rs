//! The certificates in force, and connections to others by them.

use crate::Whom;
use crate::files::{Files, Texts, TlsError};
use crate::identity::{Identity, server_name};
use crate::stream::Stream;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

/// The protocol of gRPC, as a handshake agrees on it.
const HTTP2: &[u8] = b"h2";
/// What anybody else speaks.
const HTTP1: &[u8] = b"http/1.1";

/// The certificates in force. One of them serves a whole process.
pub struct Keys {
    files: Files,
    /// It shows its certificate to others with the same authorities, as nodes do.
    is_node: bool,
    loaded: RwLock<Arc<Loaded>>,
}

/// What came of reading the files again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// They are as they were.
    Same,
    /// They are others, which are in force from now on for connections that begin.
    Changed,
}

/// What the files amount to.
struct Loaded {
    texts: Texts,
    own: Option<Identity>,
    peers: Option<Arc<ServerConfig>>,
    /// Says of a certificate whether one of the authorities issued it, and not one of clients alone.
    of_peers: Option<Arc<dyn ClientCertVerifier>>,
    clients: Option<Arc<ServerConfig>>,
    connecting: Arc<ClientConfig>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Keys {
    /// What stands in these files. It may have expired, which [`Keys::trouble`] says.
    ///
    /// # Errors
    /// With these files there is no TLS: who runs the process mends them.
    pub fn load(files: Files) -> Result<Self, TlsError> {
        Self::new(files, true)
    }

    /// The same for a client: who issued its certificate is for the nodes to judge, which may know authorities of clients that it
    /// does not.
    ///
    /// # Errors
    /// As [`Keys::load`].
    pub fn load_for_client(files: Files) -> Result<Self, TlsError> {
        Self::new(files, false)
    }

    fn new(files: Files, is_node: bool) -> Result<Self, TlsError> {
        let texts = files.read()?;
        let loaded = RwLock::new(Arc::new(Loaded::new(&files, texts, is_node)?));
        Ok(Self { files, is_node, loaded })
    }

    /// What these texts amount to, as if they stood in the files.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn of_texts(files: Files, texts: Texts, is_node: bool) -> Result<Self, TlsError> {
        let loaded = RwLock::new(Arc::new(Loaded::new(&files, texts, is_node)?));
        Ok(Self { files, is_node, loaded })
    }

    /// Reads the files again. Connections that are open are not touched.
    ///
    /// # Errors
    /// They are not right: those that were read before stay in force. While several files are being written, one after the other, they
    /// do not fit together; it is worth another look before anybody is told.
    pub fn refresh(&self) -> Result<Refreshed, TlsError> {
        let texts = self.files.read()?;
        if self.loaded().texts == texts {
            return Ok(Refreshed::Same);
        }
        let loaded = Arc::new(Loaded::new(&self.files, texts, self.is_node)?);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(Refreshed::Changed)
    }

    /// Whom the own certificate names; `None` for a client that has none.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.loaded().own.clone()
    }

    /// What is wrong with the dates of the own certificate now, if something is.
    #[must_use]
    pub fn trouble(&self, now: SystemTime) -> Option<TlsError> {
        let text = self.loaded().own.as_ref()?.trouble(now)?;
        Some(TlsError::new(self.files.about(), text))
    }

    /// Encrypts a connection that was made to this host. The host's certificate must name it.
    ///
    /// # Errors
    /// The handshake failed; [`explained`](crate::explained) says why. A server that does not like this one's certificate says so
    /// at the first read.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<Stream> {
        let name = server_name(host).ok_or_else(|| {
            let text = format!("`{host}` is no name that a certificate can have");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        let connector = TlsConnector::from(Arc::clone(&self.loaded().connecting));
        Ok(Stream::encrypted(TlsStream::Client(connector.connect(name, stream).await?)))
    }

    /// How those are accepted that come; `None` without a certificate of its own.
    pub(crate) fn accepting(&self, whom: Whom) -> Option<Arc<ServerConfig>> {
        let loaded = self.loaded();
        match whom {
            Whom::Peers => loaded.peers.clone(),
            Whom::Clients => loaded.clients.clone(),
        }
    }

    /// True if one of the authorities issued this, those of clients alone left out.
    pub(crate) fn issued_by_authorities(&self, chain: &[CertificateDer<'static>]) -> bool {
        let (Some((own, rest)), Some(verifier)) = (chain.split_first(), &self.loaded().of_peers) else {
            return false;
        };
        verifier.verify_client_cert(own, rest, UnixTime::now()).is_ok()
    }

    fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Loaded {
    fn new(files: &Files, texts: Texts, is_node: bool) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (authorities, of_clients) = files.authorities(&texts)?;
        let about = files.about();
        let roots = match (authorities, &files.authorities) {
            (Some(authorities), Some(path)) => store(path, &authorities)?,
            _ => of_this_machine(about)?,
        };
        let for_clients = match &files.client_authorities {
            Some(path) => {
                let mut all = (*roots).clone();
                all.roots.extend(store(path, &of_clients)?.roots.iter().cloned());
                Arc::new(all)
            }
            None => Arc::clone(&roots),
        };
        let wrong = |error: rustls::Error| TlsError::new(about, error);
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_root_certificates(Arc::clone(&roots));
        let Some(own) = files.own(&texts)? else {
            let mut connecting = client.with_no_client_auth();
            connecting.alpn_protocols = vec![HTTP2.to_vec()];
            return Ok(Self {
                texts,
                own: None,
                peers: None,
                of_peers: None,
                clients: None,
                connecting: Arc::new(connecting),
            });
        };
        let identity = Identity::read(&own.chain[0])
            .ok_or_else(|| TlsError::new(about, "its first certificate cannot be read"))?;
        let key = |error: rustls::Error| not_its_key(files, &error);
        let mut connecting =
            client.with_client_auth_cert(own.chain.clone(), own.key.clone_key()).map_err(key)?;
        connecting.alpn_protocols = vec![HTTP2.to_vec()];
        let verifier = |roots: &Arc<RootCertStore>| {
            WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider))
        };
        let refused = |error: rustls::server::VerifierBuilderError| TlsError::new(about, error);
        let of_peers = verifier(&roots).build().map_err(refused)?;
        if is_node && files.authorities.is_some() {
            is_issued(&*of_peers, &own.chain, about)?;
        }
        let of_clients = verifier(&for_clients).allow_unauthenticated().build().map_err(refused)?;
        let accepting = |verifier: Arc<dyn ClientCertVerifier>, protocols: &[&[u8]]| {
            let mut config = server(&provider, verifier)
                .map_err(wrong)?
                .with_single_cert(own.chain.clone(), own.key.clone_key())
                .map_err(key)?;
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Ok::<_, TlsError>(Arc::new(config))
        };
        Ok(Self {
            texts,
            own: Some(identity),
            peers: Some(accepting(Arc::clone(&of_peers), &[HTTP2])?),
            of_peers: Some(of_peers),
            clients: Some(accepting(of_clients, &[HTTP2, HTTP1])?),
            connecting: Arc::new(connecting),
        })
    }
}

fn server(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider));
    Ok(builder.with_safe_default_protocol_versions()?.with_client_cert_verifier(verifier))
}

fn store(path: &Path, certificates: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate.clone())
            .map_err(|error| TlsError::new(path, format!("it is no file of authorities: {error}")))?;
    }
    Ok(Arc::new(roots))
}

fn of_this_machine(about: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let text = "this machine trusts no authority: name a file of authorities";
        return Err(TlsError::new(about, text));
    }
    Ok(Arc::new(roots))
}

fn not_its_key(files: &Files, error: &rustls::Error) -> TlsError {
    let path = files.own.as_ref().map_or(files.about(), |(_, key)| key);
    match error {
        rustls::Error::InconsistentKeys(_) => TlsError::new(
            path,
            format!("it is not the key of the certificate in {}", files.about().display()),
        ),
        error => TlsError::new(path, format!("it is no key that can be used: {error}")),
    }
}

/// A node shows its certificate to other nodes, which have the same authorities: what they would refuse is refused here.
fn is_issued(
    verifier: &dyn ClientCertVerifier,
    chain: &[CertificateDer<'static>],
    about: &Path,
) -> Result<(), TlsError> {
    use rustls::CertificateError as Wrong;
    let rest = chain.get(1..).unwrap_or_default();
    match verifier.verify_client_cert(&chain[0], rest, UnixTime::now()) {
        Err(rustls::Error::InvalidCertificate(Wrong::UnknownIssuer)) => Err(TlsError::new(
            about,
            "no certificate in the file of authorities issued it, so that other nodes would refuse it",
        )),
        Err(rustls::Error::InvalidCertificate(
            Wrong::InvalidPurpose | Wrong::InvalidPurposeContext { .. },
        )) => Err(TlsError::new(
            about,
            "its extended key usage does not allow clientAuth; a node is a client of other nodes, too",
        )),
        // Dates are told apart: they may be right by the time that they matter.
        Err(rustls::Error::InvalidCertificate(
            Wrong::Expired
            | Wrong::ExpiredContext { .. }
            | Wrong::NotValidYet
            | Wrong::NotValidYetContext { .. },
        ))
        | Ok(_) => Ok(()),
        Err(error) => Err(TlsError::new(about, format!("other nodes would refuse it: {error}"))),
    }
}
