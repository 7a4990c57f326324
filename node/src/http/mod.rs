//! The HTTP edge, and the port that both edges share.
//!
//! [`simple`] is the simple JSON API, [`v1`] the full one, [`server`] accepts connections and speaks HTTP/1.1 and HTTP/2 on them, without
//! TLS and without asking which of the two a client means: gRPC and `curl` come to the same port. Like its sibling this
//! edge decodes, calls and encodes; it keeps no state.

pub mod server;
mod simple;
mod v1;

use crate::edge::Edge;
use crate::grpc;
use crate::handle::Service;
use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

/// Everything that the client port serves.
pub fn router<S: Service>(edge: &Edge<S>) -> Router {
    simple::router(edge.clone()).merge(v1::router(edge.clone())).merge(grpc::router(edge)).fallback(unknown)
}

/// Nothing is at this address: said in the words of the one who asks.
async fn unknown(request: Request) -> Response {
    let content_type =
        request.headers().get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
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
