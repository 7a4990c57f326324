//! What a client shows, and whom it trusts.

use crate::Error;
use http::{HeaderValue, Request, Response, header};
use raftqueue_tls::{Files, Keys};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tonic::body::Body;
use tower::Service;

/// How long a token that was read counts before its file is read again. Kubernetes writes a new one long before the old one expires.
const TOKEN_READ_EVERY: Duration = Duration::from_secs(10);
/// Greatest size of a token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// What a client shows, and whom it trusts. With any of the files of TLS all its connections are encrypted; they are read again when a
/// connection is made, so that certificates rotate.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The authorities of the nodes' certificates, PEM. Without, those that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate, PEM; with [`key_file`](Self::key_file).
    pub cert_file: Option<PathBuf>,
    /// The private key of that, PEM.
    pub key_file: Option<PathBuf>,
    /// The token that every call shows.
    pub token: Option<Token>,
}

/// A token that says who calls.
#[derive(Clone)]
pub enum Token {
    /// Itself.
    Text(String),
    /// A file with it, which is read again and again: a new one counts within ten seconds.
    File(PathBuf),
}

/// Tokens are not shown.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Text(_) => f.write_str("Text(..)"),
            Token::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("ca_file", &self.ca_file)
            .field("cert_file", &self.cert_file)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// The certificates; `None` if nothing is encrypted. `is_asked`: an endpoint says https.
    pub(crate) fn keys(&self, is_asked: bool) -> Result<Option<Arc<Keys>>, Error> {
        let own = match (&self.cert_file, &self.key_file) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => {
                return Err(Error::not_sent(
                    "a certificate and its key go together: one of the two files is named alone",
                ));
            }
        };
        if !is_asked && own.is_none() && self.ca_file.is_none() {
            return Ok(None);
        }
        let files = Files { own, authorities: self.ca_file.clone(), client_authorities: None };
        let keys = Keys::load_for_client(files).map_err(|error| Error::not_sent(error.to_string()))?;
        match keys.trouble(std::time::SystemTime::now()) {
            Some(trouble) => Err(Error::not_sent(trouble.to_string())),
            None => Ok(Some(Arc::new(keys))),
        }
    }

    /// What every call shows.
    pub(crate) fn bearer(&self) -> Result<Option<Bearer>, Error> {
        let Some(token) = self.token.clone() else { return Ok(None) };
        let bearer = Bearer { token, read: Arc::default() };
        // So that a mistake is told before the first call.
        bearer.header().map_err(Error::not_sent)?;
        Ok(Some(bearer))
    }
}

/// A token as calls show it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Bearer {
    token: Token,
    read: Arc<Mutex<Option<(Instant, HeaderValue)>>>,
}

impl Bearer {
    /// The header, read anew if it is some seconds old.
    fn header(&self) -> Result<HeaderValue, String> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |at: Instant| matches!(self.token, Token::Text(_)) || at.elapsed() < TOKEN_READ_EVERY;
        if let Some((at, header)) = &*read
            && is_fresh(*at)
        {
            return Ok(header.clone());
        }
        match self.make() {
            Ok(header) => {
                *read = Some((Instant::now(), header.clone()));
                Ok(header)
            }
            // While the file is being replaced it may be missing for a moment.
            Err(why) => read.as_ref().map(|(_, header)| header.clone()).ok_or(why),
        }
    }

    fn make(&self) -> Result<HeaderValue, String> {
        let (text, whose) = match &self.token {
            Token::Text(text) => (text.clone(), "the token".to_owned()),
            Token::File(path) => {
                let whose = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|error| format!("{whose}: {error}"))?;
                (text, whose)
            }
        };
        let text = text.trim();
        if text.is_empty() || text.len() > TOKEN_BYTES_MAX {
            return Err(format!(
                "{whose}: a token has 1 to {TOKEN_BYTES_MAX} bytes, this one {}",
                text.len()
            ));
        }
        let header = HeaderValue::try_from(format!("Bearer {text}")).ok().filter(|_| text.is_ascii());
        let mut header = header.ok_or_else(|| format!("{whose}: a token is one line of printable ASCII"))?;
        header.set_sensitive(true);
        Ok(header)
    }
}

/// A connection whose calls show who makes them.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    inner: tonic::transport::Channel,
    bearer: Option<Bearer>,
}

impl Channel {
    pub(crate) fn new(inner: tonic::transport::Channel, bearer: Option<Bearer>) -> Self {
        Self { inner, bearer }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = <tonic::transport::Channel as Service<Request<Body>>>::Error;
    type Future = <tonic::transport::Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Without it the call is refused, in words.
        if let Some(header) = self.bearer.as_ref().and_then(|bearer| bearer.header().ok()) {
            request.headers_mut().insert(header::AUTHORIZATION, header);
        }
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_from_a_file_without_what_stands_around_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let bearer = |token| Credentials { token: Some(token), ..Credentials::default() }.bearer();
        let missing = bearer(Token::File(path.clone())).expect_err("there is none").to_string();
        assert!(missing.contains("token: No such file"), "{missing}");
        std::fs::write(&path, "  rq_abc\n").expect("room");
        let read = bearer(Token::File(path.clone())).expect("it is right").expect("there is one");
        let header = read.header().expect("it is there");
        assert_eq!((header.as_bytes(), header.is_sensitive()), (&b"Bearer rq_abc"[..], true));
        // What was read counts for a while, also where the file has gone.
        std::fs::remove_file(&path).expect("it is there");
        *read.read.lock().expect("not poisoned") = Some((Instant::now() - TOKEN_READ_EVERY, header.clone()));
        assert_eq!(read.header().as_ref(), Ok(&header));
        std::fs::write(&path, "rq_def").expect("room");
        assert_eq!(read.header().expect("it is there").as_bytes(), b"Bearer rq_def");
        for wrong in ["", " \n", "two\nlines", "t\u{f6}ken"] {
            assert!(bearer(Token::Text(wrong.into())).is_err(), "{wrong:?}");
        }
        assert!(!format!("{:?}", Token::Text("secret".into())).contains("secret"));
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let half = Credentials { cert_file: Some("a.crt".into()), ..Credentials::default() };
        assert!(half.keys(false).expect_err("half").to_string().contains("go together"));
        assert!(Credentials::default().keys(false).expect("plain").is_none());
    }
}
