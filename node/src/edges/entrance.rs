//! What stands before everything that a port serves: whoever comes in says who it is.
//!
//! With rights in force a request that shows nobody gets no further, whatever it asks for. The operations port answers `/livez` and
//! `/readyz` all the same, since the kubelet shows nothing, and says no more in them than one word; where clients must come by TLS, it
//! answers nothing else to who came without.

use crate::api::{Failure, Reason};
use crate::edges::gate::{Called, Gate, Needs};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use raftqueue_access::Permission;
use raftqueue_tls::Peer;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::Service;

/// What the kubelet asks for.
const PROBES: [&str; 2] = ["/livez", "/readyz"];
/// Where metrics are.
const METRICS: &str = "/metrics";

/// Most bytes of a refused request that are waited for.
const REFUSED_BYTES_MAX: u64 = 64 << 10;
/// How long they are waited for.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);

/// Says in the form of whoever asked that it is refused.
pub(crate) type Refuse = fn(&http::HeaderMap, &str, &Failure) -> Response;

/// A port's services behind the gate.
#[derive(Clone, Debug)]
pub(crate) struct Entrance<S> {
    inner: S,
    gate: Option<Gate>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Clients(Refuse),
    Operations { wants_tls: bool },
}

impl<S> Entrance<S> {
    /// Of the client port.
    pub(crate) fn of_clients(inner: S, gate: Option<Gate>, refuse: Refuse) -> Self {
        Self { inner, gate, kind: Kind::Clients(refuse) }
    }

    /// Of the operations port; `wants_tls`: who comes without gets the probes alone.
    pub(crate) fn of_operations(inner: S, gate: Option<Gate>, wants_tls: bool) -> Self {
        Self { inner, gate, kind: Kind::Operations { wants_tls } }
    }
}

impl<S> Service<Request<Body>> for Entrance<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let kind = self.kind;
        let path = request.uri().path();
        if matches!(kind, Kind::Operations { .. }) && PROBES.contains(&path) {
            let says_all = self.gate.is_none();
            let answer = self.inner.call(request);
            return Box::pin(async move {
                let answer = answer.await?;
                Ok(if says_all { answer } else { without_words(&answer) })
            });
        }
        let wants_tls = matches!(kind, Kind::Operations { wants_tls: true });
        if self.gate.is_none() && !wants_tls {
            return Box::pin(self.inner.call(request));
        }
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        if wants_tls && !peer.is_encrypted {
            let text = "this port speaks TLS: use https://\n";
            return Box::pin(async move { Ok((StatusCode::FORBIDDEN, text).into_response()) });
        }
        let Some(gate) = self.gate.clone() else { return Box::pin(self.inner.call(request)) };
        // The service that said it was ready is the one that is called.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let name = name_of(&path);
            let entered = gate.authenticate(name, request.headers(), &peer).await.and_then(|called| {
                match kind {
                    Kind::Operations { .. } if path == METRICS => {
                        gate.admit(&called, "metrics", Needs::Everywhere(Permission::Browse))?;
                    }
                    _ => {}
                }
                Ok(called)
            });
            match entered {
                Ok(called) => {
                    request.extensions_mut().insert::<Called>(called);
                    inner.call(request).await
                }
                Err(failure) => {
                    take_in(request.body_mut()).await;
                    Ok(match kind {
                        Kind::Clients(refuse) => {
                            with_challenge(refuse(request.headers(), &path, &failure), &failure)
                        }
                        Kind::Operations { .. } => {
                            let code = crate::wire::errors::codes(&failure).http;
                            let code = StatusCode::from_u16(code).unwrap_or(StatusCode::FORBIDDEN);
                            with_challenge((code, format!("{}\n", failure.text)).into_response(), &failure)
                        }
                    })
                }
            }
        })
    }
}

/// Takes in what is left of a refused request, and drops it, if it says that this is little. An answer in HTTP/2 that comes before its
/// request has ended resets the stream, and there are clients that do not see the answer then (curl 7.88).
async fn take_in(body: &mut Body) {
    if body.size_hint().upper().is_none_or(|bytes| bytes > REFUSED_BYTES_MAX) {
        return;
    }
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whoever sends it more slowly is answered in the middle of it.
    let _ = tokio::time::timeout(REFUSED_WITHIN, rest).await;
}

/// What a call is called in the audit: its method in gRPC, else the first part of its path.
fn name_of(path: &str) -> &str {
    match path.strip_prefix("/raftqueue.v1.") {
        Some(method) => method,
        None => path.split('/').find(|part| !part.is_empty()).unwrap_or("/"),
    }
}

/// A probe's answer without what only insiders need to know.
fn without_words(answer: &Response) -> Response {
    let word = if answer.status().is_success() { "ok\n" } else { "not ok\n" };
    (answer.status(), word).into_response()
}

/// Says by what to show who one is (RFC 6750, section 3).
fn with_challenge(mut response: Response, failure: &Failure) -> Response {
    if failure.reason == Reason::Unauthenticated {
        let challenge = HeaderValue::from_static("Bearer realm=\"raftqueue\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
