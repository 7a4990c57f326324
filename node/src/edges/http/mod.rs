//! The HTTP edge, and the port that both edges share.
//!
//! [`simple`] is the simple JSON API, [`v1`] the full one, [`server`] accepts connections and speaks HTTP/1.1 and HTTP/2 on them, without
//! TLS and without asking which of the two a client means: gRPC and `curl` come to the same port. Like its sibling this
//! edge decodes, calls and encodes; it keeps no state.

pub mod server;
mod simple;
mod v1;

use crate::edges::edge::Edge;
use crate::edges::followed::Followed;
use crate::edges::grpc;
use crate::edges::service::Service;
use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};

/// Everything that the client port serves.
pub fn router<S: Service>(edge: &Edge<S>) -> Router {
    simple::router(edge.clone())
        .merge(v1::router(edge.clone()))
        .layer(axum::middleware::from_fn(refuse_encoded))
        .merge(grpc::router(edge))
        .fallback(unknown)
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

/// Nothing is at this address. It is said in the form that the caller uses.
async fn unknown(request: Request) -> Response {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if content_type.starts_with(b"application/grpc") {
        grpc::refusals::no_such_service(request.uri().path()).into_http()
    } else if request.uri().path().starts_with("/v1/") {
        v1::not_found().await
    } else {
        simple::not_found().into_response()
    }
}

#[cfg(test)]
mod at_the_limits;
#[cfg(test)]
mod tests;
