//! The operations port: `/metrics`, `/livez`, `/readyz`. Open before recovery begins.
//!
//! `/livez` says that the process's loop turns; it never fails for want of a quorum, since restarting the node would not
//! bring one. `/readyz` says that the node is a member, has known a leader lately, and lags little; its text says what is
//! missing.

use crate::handle::LocalStatus;
use crate::metrics::Metrics;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// The routes of the operations port. `stopping` is set when the node is about to end.
pub fn router(
    metrics: Arc<Metrics>,
    status: watch::Receiver<Arc<LocalStatus>>,
    stopping: Arc<AtomicBool>,
) -> Router {
    let ready = move || {
        let status = status.borrow().clone();
        let stopping = stopping.load(Ordering::Relaxed);
        async move {
            let not_ready = if stopping { Some("shutting down") } else { status.not_ready.as_deref() };
            match not_ready {
                None => (StatusCode::OK, "ready\n".to_owned()),
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            }
        }
    };
    let metrics = move || async move {
        let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
        (content_type, metrics.render()).into_response()
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
}
