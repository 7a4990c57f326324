//! The operations port: `/metrics`, `/livez`, `/readyz`. Open before recovery begins.
//!
//! `/livez` says that the driver's loop turns. It never fails for lack of a quorum, since restarting the node would not
//! bring one. `/readyz` says that the node is a member, has known a leader lately, has applied what was committed when
//! it started, and lags little; its text says what is missing.

use crate::api::LocalStatus;
use crate::edges::entrance::Entrance;
use crate::edges::gate::Gate;
use crate::metrics::{Metrics, Pulse};
use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use raftqueue_metrics::Form;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// The routes of the operations port. `stopping` is set when the node is about to end.
pub fn router(
    metrics: Arc<Metrics>,
    status: watch::Receiver<Arc<LocalStatus>>,
    stopping: Arc<AtomicBool>,
    pulse: Arc<Pulse>,
) -> Router {
    let alive = move || {
        let hangs = pulse.hangs_since();
        async move {
            match hangs {
                None => (StatusCode::OK, "alive\n".to_owned()),
                Some(silence) => {
                    let text = format!("the driver has not turned for {} s\n", silence.as_secs());
                    (StatusCode::INTERNAL_SERVER_ERROR, text)
                }
            }
        }
    };
    let standing = Standing { status, stopping };
    let asked = standing.clone();
    let ready = move || {
        let not_ready = asked.not_ready();
        async move {
            match not_ready {
                None => (StatusCode::OK, "ready\n".to_owned()),
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            }
        }
    };
    let metrics = move |headers: HeaderMap| async move {
        metrics.standing(&standing.status.borrow().cluster_id, standing.not_ready().is_none());
        let form = Form::accepted(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
        let content_type = [(header::CONTENT_TYPE, form.content_type())];
        // It reads files, and the driver is on this thread.
        match tokio::task::spawn_blocking(move || metrics.render(form)).await {
            Ok(text) => (content_type, text).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    };
    Router::new().route("/metrics", get(metrics)).route("/livez", get(alive)).route("/readyz", get(ready))
}

/// The same behind this gate, and for whoever comes by TLS where that is wanted; the probes are answered to everybody.
pub fn locked(router: Router, gate: Option<Gate>, wants_tls: bool) -> Router {
    let entrance = move |inner| Entrance::of_operations(inner, gate.clone(), wants_tls);
    router.layer(tower::layer::layer_fn(entrance))
}

/// What the node is, as it says itself.
#[derive(Clone)]
struct Standing {
    status: watch::Receiver<Arc<LocalStatus>>,
    stopping: Arc<AtomicBool>,
}

impl Standing {
    /// Why the node is not ready, unless it is.
    fn not_ready(&self) -> Option<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("shutting down".into());
        }
        self.status.borrow().not_ready.clone()
    }
}
