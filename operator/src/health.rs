//! What the operator serves about itself: `/metrics`, `/livez`, `/readyz`.

use crate::metrics::Metrics;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, extract::State};
use raftqueue_metrics::Form;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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

/// Listens there. Where the machine has no IPv6, every address means every address of IPv4.
///
/// # Errors
/// The socket's.
pub async fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    let everywhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match TcpListener::bind(at).await {
        // The address is in use, or this process may not have it: that would be so with IPv4, too.
        Err(error)
            if at.ip() == everywhere
                && !matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, at.port())).await
        }
        bound => bound,
    }
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

async fn metrics(State(health): State<Arc<Health>>, headers: HeaderMap) -> Response {
    let form = Form::accepted(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    ([(header::CONTENT_TYPE, form.content_type())], health.metrics.render(form)).into_response()
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// A pod of a Kubernetes with IPv6 alone is asked at an address of IPv6, any other at one of IPv4.
    #[tokio::test]
    async fn it_answers_at_addresses_of_both_kinds() {
        let listener = listen("[::]:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // A machine may have the sockets of IPv6 and no address of it.
        let has_ipv6 = TcpListener::bind("[::1]:0").await.is_ok();
        let server = tokio::spawn(serve(listener, Arc::new(Health::default())));
        for host in ["127.0.0.1", "::1"].into_iter().filter(|host| has_ipv6 || !host.contains(':')) {
            let mut stream = TcpStream::connect((host, port)).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("ok\n"), "{host}: {answer}");
        }
        server.abort();
    }

    #[tokio::test]
    async fn metrics_come_in_the_form_that_is_asked_for() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(Health::default())));
        for (accept, kind, line) in [
            ("*/*", "text/plain", "# TYPE raftqueue_operator_steps_total counter\n"),
            (
                "application/openmetrics-text",
                "application/openmetrics-text",
                "# TYPE raftqueue_operator_steps counter\n",
            ),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET /metrics HTTP/1.0\r\nAccept: {accept}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains(&format!("content-type: {kind}; ")), "{answer}");
            assert!(answer.contains(line), "{answer}");
            assert_eq!(answer.ends_with("# EOF\n"), kind.contains("openmetrics"), "{answer}");
        }
        server.abort();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_not_taken_by_the_other_kind() {
        let taken = listen("[::]:0".parse().unwrap()).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = listen(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }
}
