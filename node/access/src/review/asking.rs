//! One question to the API server: a connection, a request, an answer within bounds.

use super::{ApiServer, ReviewError};
use crate::caller::{Caller, GROUPS_MAX, Means, NAME_BYTES_MAX};
use crate::jwt;
use crate::watched;
use crate::words::shown;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use std::fmt::Display;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Size of an answer, in bytes. One has a name, groups and a few words.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Size of the pod's token and of its CA file, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// What the name of every ServiceAccount begins with.
const OF_SERVICE_ACCOUNTS: &str = "system:serviceaccount:";

#[derive(Deserialize)]
struct Reviewed {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    groups: Vec<String>,
}

/// Asks about a token.
pub(super) async fn ask(
    api: &ApiServer,
    token: &str,
    audience: &str,
    expires: Option<SystemTime>,
) -> Result<Caller, ReviewError> {
    let files = api.clone();
    let reading = tokio::task::spawn_blocking(move || {
        Ok((read(&files.token_file)?.trim().to_owned(), trust(&files.ca_file)?))
    });
    let (own_token, trusted) = reading.await.map_err(unavailable("reading this pod's files"))??;
    let stream = connect(api, trusted).await?;
    let question = serde_json::json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    });
    let request = Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
        .header(header::HOST, authority(api))
        .header(header::AUTHORIZATION, format!("Bearer {own_token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(question.to_string())))
        .map_err(unavailable("this pod's token"))?;
    let (status, body) = exchange(stream, request).await?;
    match status {
        StatusCode::OK | StatusCode::CREATED => {}
        StatusCode::FORBIDDEN => return Err(ReviewError::Forbidden(remedy(&own_token))),
        StatusCode::UNAUTHORIZED => {
            return Err(ReviewError::Unavailable("it does not accept the token of this pod itself".into()));
        }
        other => return Err(ReviewError::Unavailable(format!("it answered {other}"))),
    }
    answer(&body, audience, expires)
}

/// The caller that an answer names.
pub(crate) fn answer(
    body: &[u8],
    audience: &str,
    expires: Option<SystemTime>,
) -> Result<Caller, ReviewError> {
    let reviewed: Reviewed = serde_json::from_slice(body).map_err(unavailable("its answer"))?;
    caller_of(reviewed.status, audience, expires)
}

/// The caller of a status.
fn caller_of(status: Status, audience: &str, expires: Option<SystemTime>) -> Result<Caller, ReviewError> {
    let Status { authenticated, user, audiences, error } = status;
    if !authenticated {
        return Err(ReviewError::Refused(error));
    }
    // An API server that knows nothing of audiences leaves them out, and has not looked at those of the token.
    if !audiences.iter().any(|found| found == audience) {
        return Err(ReviewError::Audience { found: audiences, wanted: audience.to_owned() });
    }
    let parts = user.username.strip_prefix(OF_SERVICE_ACCOUNTS).and_then(|name| name.split_once(':'));
    let Some((namespace, name)) = parts else { return Err(ReviewError::NoServiceAccount(user.username)) };
    let name = format!("{namespace}/{name}");
    if name.len() > NAME_BYTES_MAX {
        return Err(ReviewError::NoServiceAccount(user.username));
    }
    let groups = user.groups.into_iter().take(GROUPS_MAX).collect();
    Ok(Caller::of(Means::ServiceAccount, name, groups, expires))
}

/// What makes this pod one that may ask.
fn remedy(own_token: &str) -> String {
    let own = jwt::peek(own_token).ok().and_then(|own| own.subject);
    let own = own.as_deref().and_then(|name| name.strip_prefix(OF_SERVICE_ACCOUNTS));
    let own = own.map_or_else(|| "NAMESPACE:NAME".to_owned(), shown);
    // The binding is of the whole cluster of Kubernetes, where other accounts may have one.
    let binding = own.replace(':', "-");
    format!(
        "grant ClusterRole system:auth-delegator to its ServiceAccount, `kubectl create clusterrolebinding \
         raftqueue-{binding} --clusterrole=system:auth-delegator --serviceaccount={own}`"
    )
}

fn unavailable<E: Display>(what: &'static str) -> impl FnOnce(E) -> ReviewError {
    move |error| ReviewError::Unavailable(format!("{what}: {}", shown(&error.to_string())))
}

fn read(path: &Path) -> Result<String, ReviewError> {
    watched::read(path, FILE_BYTES_MAX)
        .map_err(|why| ReviewError::Unavailable(format!("{}: {why}", path.display())))
}

/// A configuration that trusts only the CA of the cluster.
fn trust(ca_file: &Path) -> Result<Arc<ClientConfig>, ReviewError> {
    let wrong = |why: String| ReviewError::Unavailable(format!("{}: {}", ca_file.display(), shown(&why)));
    let text = read(ca_file)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|error| wrong(format!("it is no PEM: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(format!("it has no certificate of a CA: {error}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("it has no certificate".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| wrong(error.to_string()))?;
    Ok(Arc::new(versions.with_root_certificates(roots).with_no_client_auth()))
}

async fn connect(api: &ApiServer, trusted: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, ReviewError> {
    let wrong = |error: String| {
        ReviewError::Unavailable(format!("no connection to {}: {}", authority(api), shown(&error)))
    };
    let name = ServerName::try_from(api.host.clone()).map_err(|error| wrong(error.to_string()))?;
    let stream =
        TcpStream::connect((api.host.as_str(), api.port)).await.map_err(|error| wrong(error.to_string()))?;
    TlsConnector::from(trusted).connect(name, stream).await.map_err(|error| wrong(error.to_string()))
}

/// Sends a request and reads its answer, over a connection that is dropped then.
async fn exchange(
    stream: TlsStream<TcpStream>,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), ReviewError> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(unavailable("its connection"))?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(unavailable("its connection"))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(unavailable("its answer"))?.to_bytes()))
    };
    let (mut answer, connection) = (pin!(answer), pin!(connection));
    tokio::select! {
        biased;
        answered = &mut answer => answered,
        // The connection has ended: what it has brought is there, or never will be.
        _ = connection => answer.await,
    }
}

/// Host and port, as HTTP and messages write them.
fn authority(api: &ApiServer) -> String {
    let ApiServer { host, port, .. } = api;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
