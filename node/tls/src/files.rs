//! Certificates and keys as they stand in files.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::path::{Path, PathBuf};

/// Greatest size of a file, in bytes: a bundle of all public authorities has a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where certificates stand, all as PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The own certificate, with those between it and its authority after it, and its private key. A client may have none.
    pub own: Option<(PathBuf, PathBuf)>,
    /// The authorities that are trusted: of nodes, and of clients. Without, those that this machine trusts.
    pub authorities: Option<PathBuf>,
    /// Further authorities, whose certificates clients may show, and nobody else.
    pub client_authorities: Option<PathBuf>,
}

/// Why there is no TLS with these files. Who runs the process mends it; the text says what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text}", path.display())]
pub struct TlsError {
    /// The file that it is about.
    pub path: PathBuf,
    /// What is wrong with it.
    pub text: String,
}

impl TlsError {
    pub(crate) fn new(path: &Path, text: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), text: text.to_string() }
    }
}

/// What stands in the files. Two of them are equal if the files are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Texts {
    own: Option<(Vec<u8>, Vec<u8>)>,
    authorities: Option<Vec<u8>>,
    client_authorities: Option<Vec<u8>>,
}

/// A certificate with what leads to its authority, and its key.
pub(crate) struct Own {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

#[cfg(feature = "fuzzing")]
impl Texts {
    /// What would stand in files.
    pub(crate) fn of(own: Option<(Vec<u8>, Vec<u8>)>, authorities: Vec<u8>) -> Self {
        Self { own, authorities: Some(authorities), client_authorities: None }
    }
}

impl Files {
    /// Reads all of them.
    pub(crate) fn read(&self) -> Result<Texts, TlsError> {
        let some = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
        let own = match &self.own {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        Ok(Texts {
            own,
            authorities: some(&self.authorities)?,
            client_authorities: some(&self.client_authorities)?,
        })
    }

    /// The own certificate and key in these texts.
    pub(crate) fn own(&self, texts: &Texts) -> Result<Option<Own>, TlsError> {
        let (Some((certificate, key)), Some((chain, secret))) = (&self.own, &texts.own) else {
            return Ok(None);
        };
        let chain = certificates(certificate, chain)?;
        let key = PrivateKeyDer::from_pem_slice(secret).map_err(|_| {
            TlsError::new(key, "there is no private key in it; right would be PEM that begins with -----BEGIN PRIVATE KEY-----")
        })?;
        Ok(Some(Own { chain, key }))
    }

    /// The authorities in these texts, and the further ones of clients; `None` where no file is named.
    pub(crate) fn authorities(
        &self,
        texts: &Texts,
    ) -> Result<(Option<Vec<CertificateDer<'static>>>, Vec<CertificateDer<'static>>), TlsError> {
        let of = |path: &Option<PathBuf>, text: &Option<Vec<u8>>| match (path, text) {
            (Some(path), Some(text)) => certificates(path, text).map(Some),
            _ => Ok(None),
        };
        let authorities = of(&self.authorities, &texts.authorities)?;
        let of_clients = of(&self.client_authorities, &texts.client_authorities)?;
        Ok((authorities, of_clients.unwrap_or_default()))
    }

    /// The file of the own certificate, or whichever there is, for errors about all of them.
    pub(crate) fn about(&self) -> &Path {
        let own = self.own.as_ref().map(|(certificate, _)| certificate);
        own.or(self.authorities.as_ref()).map_or(Path::new(""), PathBuf::as_path)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let size = std::fs::metadata(path).map_err(|error| TlsError::new(path, unreadable(&error)))?.len();
    if size > FILE_BYTES_MAX {
        return Err(TlsError::new(path, format!("it has {size} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    std::fs::read(path).map_err(|error| TlsError::new(path, unreadable(&error)))
}

fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "this process may not read it".into(),
        _ => error.to_string(),
    }
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(TlsError::new(
            path,
            "there is no certificate in it; right would be PEM that begins with -----BEGIN CERTIFICATE-----",
        )),
        Err(error) => Err(TlsError::new(path, format!("it is no PEM: {error}"))),
    }
}
