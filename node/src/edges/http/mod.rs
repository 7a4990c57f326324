//! The HTTP edge, and the port that both edges share.
//!
//! [`simple`] is the simple JSON API, [`v1`] the full one, [`server`] accepts connections and speaks HTTP/1.1 and HTTP/2 on them, without
//! TLS and without asking which of the two a client means: gRPC and `curl` come to the same port. Like its sibling this
//! edge decodes, calls and encodes; it keeps no state.

pub mod server;
mod simple;
mod v1;

use crate::api::Failure;
use crate::edges::edge::Edge;
use crate::edges::entrance::Entrance;
use crate::edges::followed::Followed;
use crate::edges::grpc;
use crate::edges::service::Service;
use crate::wire::errors;
use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

/// Everything that the client port serves.
pub fn router<S: Service>(edge: &Edge<S>) -> Router {
    simple::router(edge.clone())
        .merge(v1::router(edge.clone()))
        .layer(axum::middleware::from_fn(refuse_encoded))
        .merge(grpc::router(edge))
        .route("/", get(welcome).fallback(unknown))
        .fallback(unknown)
        .layer(tower::layer::layer_fn({
            let gate = edge.gate().cloned();
            move |inner| Entrance::of_clients(inner, gate.clone(), refused)
        }))
        .layer(tower::layer::layer_fn({
            let exporter = edge.traces().cloned();
            move |inner| Followed::new(inner, exporter.clone())
        }))
}

/// Refuses a body that is compressed, and says that bodies must not be. Read as JSON it would only be called malformed.
async fn refuse_encoded(request: Request, next: Next) -> Response {
    let is_encoded = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !request.headers().get_all(CONTENT_ENCODING).iter().any(is_encoded) {
        return next.run(request).await;
    }
    let (code, text) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-encoding: bodies are taken as they are");
    let mut response = if request.uri().path().starts_with("/v1/") {
        v1::refused(code, text)
    } else {
        simple::refused(code, text)
    };
    response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    response
}

/// A refusal in the form that the caller uses.
fn refused(headers: &HeaderMap, path: &str, failure: &Failure) -> Response {
    if is_grpc(headers) {
        errors::into_status(failure, None).into_http()
    } else if path.starts_with("/v1/") {
        v1::failed(failure.clone())
    } else {
        simple::failed(failure)
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    content_type.starts_with(b"application/grpc")
}

/// Nothing is at this address. It is said in the form that the caller uses.
async fn unknown(request: Request) -> Response {
    if is_grpc(request.headers()) {
        grpc::refusals::no_such_service(request.uri().path()).into_http()
    } else if request.uri().path().starts_with("/v1/") {
        v1::not_found().await
    } else {
        simple::no_such_call().into_response()
    }
}

/// What answers here, for whoever looks with a browser or `curl`.
async fn welcome() -> Response {
    let body = json!({
        "name": "raftqueue",
        "version": env!("CARGO_PKG_VERSION"),
        "simple": "PUT /topic, GET /topic, PUT /message, GET /message/TOPIC, GET /status",
        "full": "/v1/openapi.json",
        "grpc": "raftqueue.v1.Queue and raftqueue.v1.Admin, on this very port",
        "documentation": "README.md and proto/raftqueue/v1/*.proto of this version's sources",
    });
    let body = serde_json::to_string_pretty(&body).expect("it is JSON") + "\n";
    (StatusCode::OK, [(CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod at_the_limits;
#[cfg(test)]
mod tests;
