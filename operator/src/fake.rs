//! An API server for tests of the operator's calls. It answers as a test says, and remembers what it was asked.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// Most bytes of a request.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A call to the API server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    /// Method and path, such as `GET /api/v1/namespaces/shop/services/demo`.
    pub(crate) what: String,
    /// What comes behind the path.
    pub(crate) query: String,
    /// Its kind of patch.
    pub(crate) content_type: String,
    /// What was sent; null where nothing was.
    pub(crate) body: Value,
}

/// What was asked so far.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    /// All calls so far, in their order.
    pub(crate) fn all(&self) -> Vec<Call> {
        self.0.lock().expect("no test panics in between").clone()
    }

    /// Methods and paths of all calls so far.
    pub(crate) fn what(&self) -> Vec<String> {
        self.all().into_iter().map(|call| call.what).collect()
    }
}

/// A client of an API server that answers so: with a code, and an object.
pub(crate) fn client(
    answer: impl Fn(&Call) -> (u16, Value) + Clone + Send + Sync + 'static,
) -> (kube::Client, Calls) {
    let calls = Calls::default();
    let recorded = calls.clone();
    let router = Router::new().fallback(move |request: Request| {
        let (answer, recorded) = (answer.clone(), recorded.clone());
        async move { respond(request, answer, &recorded).await }
    });
    (kube::Client::new(router, "default"), calls)
}

async fn respond(request: Request, answer: impl Fn(&Call) -> (u16, Value), calls: &Calls) -> Response<Body> {
    let (head, body) = request.into_parts();
    let bytes = to_bytes(body, REQUEST_BYTES_MAX).await.expect("the client sends all of it");
    let header = head.headers.get("content-type").and_then(|value| value.to_str().ok());
    let call = Call {
        what: format!("{} {}", head.method, head.uri.path()),
        query: head.uri.query().unwrap_or_default().to_owned(),
        content_type: header.unwrap_or_default().to_owned(),
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    };
    let (code, object) = answer(&call);
    calls.0.lock().expect("no test panics in between").push(call);
    (StatusCode::from_u16(code).expect("a code of HTTP"), object.to_string()).into_response()
}

/// The answer of a refusal.
pub(crate) fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
                        "message": reason});
    (code, status)
}
