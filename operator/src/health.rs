//! What the operator serves about itself: `/metrics`, `/livez`, `/readyz`.

use crate::metrics::Metrics;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, extract::State};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;

/// What is told about this process.
#[derive(Default)]
pub struct Health {
    /// The metrics.
    pub metrics: Metrics,
    /// It has reached the API server, and RaftQueues can be listed. It need not hold the lease: an operator that waits
    /// is ready, too.
    pub ready: AtomicBool,
}

/// Serves for as long as the process lives.
///
/// # Errors
/// The socket's.
pub async fn serve(listener: TcpListener, health: Arc<Health>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(health);
    axum::serve(listener, router).await
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], health.metrics.render()).into_response()
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    if health.ready.load(Ordering::Relaxed) {
        "ok\n".into_response()
    } else {
        let text =
            "RaftQueues could not be listed yet: is the custom resource installed (deploy/crd.yaml)?\n";
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}
