//! Requests as they come to the ports, each to a node in memory that knows nothing of the others.
//!
//! No sockets are used: what stands before these routers is the HTTP library's. Nobody waits either: the clock is one that
//! jumps to the next thing that is due.

use crate::api::limits::Limits;
use crate::edges::console::{self, Settings};
use crate::edges::edge::Edge;
use crate::edges::grpc::guard::shape::Shape;
use crate::edges::http;
use crate::fake::FakeNode;
use crate::metrics::Metrics;
use ::http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt;
use prost::Message;
use raftqueue_proto::v1;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

/// Frames of an answer that are read at most: some streams have no end.
const FRAMES_MAX: usize = 16;
/// How long a frame may take, by a clock that jumps.
const FRAME_TIME_MAX: Duration = Duration::from_secs(2);
/// The calls of gRPC, by the number that a fuzzer gives them.
const GRPC_CALLS: [&str; 31] = [
    "Queue/Publish",
    "Queue/PublishStream",
    "Queue/Receive",
    "Queue/Pop",
    "Queue/Consume",
    "Queue/Ack",
    "Queue/Nack",
    "Queue/Extend",
    "Queue/Release",
    "Queue/CreateTopic",
    "Queue/UpdateTopic",
    "Queue/DeleteTopic",
    "Queue/ListTopics",
    "Queue/DescribeTopic",
    "Queue/Peek",
    "Queue/RedriveDead",
    "Queue/PurgeDead",
    "Queue/Purge",
    "Queue/OpenSession",
    "Queue/CloseSession",
    "Admin/Status",
    "Admin/ClusterStatus",
    "Admin/Storage",
    "Admin/TransferLeadership",
    "Admin/Members",
    "Admin/AddLearner",
    "Admin/Promote",
    "Admin/Remove",
    "Admin/Replace",
    "Admin/RaiseVersion",
    "Admin/Recover",
];

/// What came of a request.
struct Answered {
    status: StatusCode,
    is_json: bool,
    /// The code of gRPC, wherever it stands.
    grpc_status: Option<HeaderValue>,
    /// `None` if it has no end.
    body: Option<Vec<u8>>,
}

/// A request to the client port: a line with method and path, lines with headers, an empty line, the body. It goes to the
/// simple API, to the full one, or nowhere.
///
/// # Panics
/// Where a decoder breaks its promise, or the answer is not what is announced.
pub fn http(data: &[u8]) {
    let Some(request) = read_request(data) else { return };
    let answered = ask(request, |node| &node.client);
    assert_ne!(answered.status, StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(body) = answered.body.filter(|body| answered.is_json && !body.is_empty()) {
        serde_json::from_slice::<serde_json::Value>(&body).expect("what is said to be JSON is JSON");
    }
}

/// A call of gRPC: the first byte says which, the second how many headers of messages are written anew, so that their lengths
/// are right. The rest is messages with their headers of five bytes.
///
/// # Panics
/// Where a decoder breaks its promise, or an answer has no status.
pub fn grpc(data: &[u8]) {
    let Some(([call, sealed], rest)) = data.split_first_chunk::<2>() else { return };
    let mut body = rest.to_vec();
    if sealed % 2 == 0 && body.len() >= 5 {
        let length = u32::try_from(body.len() - 5).unwrap_or(u32::MAX);
        body[0] = 0;
        body[1..5].copy_from_slice(&length.to_be_bytes());
    }
    let path = format!("/raftqueue.v1.{}", GRPC_CALLS[usize::from(*call) % GRPC_CALLS.len()]);
    let request = Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "900m")
        .body(Body::from(body))
        .expect("a request");
    let answered = ask(request, |node| &node.client);
    assert_eq!(answered.status, StatusCode::OK, "gRPC says what is wrong elsewhere");
    // A stream that goes on has none yet.
    if answered.body.is_some() {
        let code = answered.grpc_status.expect("every answer has a status");
        assert_ne!(code, "2", "nothing is of unknown kind");
    }
}

/// A request to the console, in the form of [`http()`], which may change things.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn console(data: &[u8]) {
    let Some(request) = read_request(data) else { return };
    let method = request.method().clone();
    let host = request.headers().get(header::HOST).is_some();
    let answered = ask(request, |node| &node.console);
    assert_ne!(answered.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(host || answered.status.is_client_error(), "{method}: who names no host is not let in");
}

/// The bytes of a publish as they arrive: what is counted while they pass is what the library makes of them.
///
/// # Panics
/// Where the two differ.
pub fn publish_shape(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let mut shape = Shape::default();
    let passed = bytes.chunks(1 + usize::from(*cut)).try_for_each(|bytes| shape.pass(bytes));
    let Ok(publish) = v1::PublishRequest::decode(bytes) else { return };
    if passed.is_ok() {
        let headers = publish.messages.iter().map(|message| message.headers.len()).sum();
        assert_eq!(shape.counted(), (publish.messages.len(), headers));
    }
}

/// The request that a text is, if it is one.
fn read_request(data: &[u8]) -> Option<Request<Body>> {
    let mut rest = data;
    let mut line = || {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        line
    };
    let first = line();
    let at = first.iter().position(|byte| *byte == b' ')?;
    let method = Method::from_bytes(&first[..at]).ok()?;
    let uri = Uri::try_from(&first[at + 1..]).ok()?;
    uri.path().starts_with('/').then_some(())?;
    let mut request = Request::builder().method(method).uri(uri);
    loop {
        let line = line();
        let Some(at) = line.iter().position(|byte| *byte == b':') else { break };
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        request = request.header(name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?);
    }
    request.body(Body::from(rest.to_vec())).ok()
}

/// A node in memory with its ports. Made once, because the ports are dear; what a request has left is forgotten before the next.
struct Node {
    runtime: Runtime,
    node: FakeNode,
    client: Router,
    console: Router,
}

impl Node {
    fn new() -> Self {
        let runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let (node, guard) = (FakeNode::default(), runtime.enter());
        let edge = Edge::new(node.clone(), Limits::default());
        let settings = Settings { changes: true, hosts: vec!["demo-0.demo".into()] };
        let metrics = Arc::new(Metrics::new("node-0"));
        let client = http::router(&edge);
        let console = console::router(edge, metrics, Some(settings), runtime.handle().clone());
        drop(guard);
        Self { runtime, node, client, console }
    }
}

thread_local! {
    static NODE: Node = Node::new();
}

/// Has a node with one topic, `t`, answer a request at one of its ports.
fn ask(request: Request<Body>, port: fn(&Node) -> &Router) -> Answered {
    NODE.with(|node| {
        node.node.reset();
        let seed = Request::put("/topic").body(Body::from(r#"{"topic": "t"}"#)).expect("a request");
        node.runtime.block_on(async {
            answer(node.client.clone(), seed).await;
            answer(port(node).clone(), request).await
        })
    })
}

async fn answer(router: Router, request: Request<Body>) -> Answered {
    let response = router.oneshot(request).await.expect("a router answers");
    let (head, mut body) = response.into_parts();
    let content_type = head.headers.get(header::CONTENT_TYPE);
    let is_json = content_type.is_some_and(|kind| kind == "application/json");
    let mut answered = Answered {
        status: head.status,
        is_json,
        grpc_status: head.headers.get("grpc-status").cloned(),
        body: None,
    };
    let mut bytes = Vec::new();
    for _ in 0..FRAMES_MAX {
        match tokio::time::timeout(FRAME_TIME_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let status = frame.trailers_ref().and_then(|trailers| trailers.get("grpc-status").cloned());
                answered.grpc_status = status.or(answered.grpc_status);
                bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            }
            Ok(None) => {
                answered.body = Some(bytes);
                break;
            }
            Ok(Some(Err(_))) | Err(_) => break,
        }
    }
    answered
}
