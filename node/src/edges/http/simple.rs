//! The simple JSON API: five calls, for users who need no more than a queue and `curl`.
//!
//! | request | success | refused |
//! |---|---|---|
//! | `PUT /topic {"topic": t}` | 201 `{"success": true}` | 409 it exists |
//! | `GET /topic` | 200 `{"success": true, "topics": [...]}`, in order of creation | |
//! | `PUT /message {"topic": t, "message": m}` | 201 `{"success": true}` | 404 no such topic |
//! | `GET /message/{topic}` | 200 `{"success": true, "message": m}`, the oldest, removed | 404 no such topic, or empty |
//! | `GET /status` | 200 `{"role": r, "term": n}` of this very node, at once, also without quorum | |
//!
//! Refusals are `{"success": false}`: 400 malformed, 404 unknown routes and methods, 413 too large, 429 over a limit,
//! 507 disk full, 503 not proposed in time, 504 outcome unknown. Bodies carry exactly these fields. Everything else
//! stands in response headers:
//!
//! * `raftqueue-outcome`: `NOT_DONE` or `UNKNOWN`, with every failure of a call;
//! * `raftqueue-reason`: why, in the words of the gRPC contract;
//! * `raftqueue-message`: what was wrong and what would be right, in words, percent-encoded as `grpc-message` is;
//! * `raftqueue-retry-after-ms` and `retry-after` (whole seconds): when to try again, if waiting helps;
//! * `raftqueue-leader`: the leader's client address, from a node that does not lead;
//! * `raftqueue-encoding: base64`: the message is not UTF-8; only other interfaces can publish such a one. A JSON
//!   string cannot hold it, and it is already taken out of the queue, so a refusal would lose it. `message` holds its
//!   base64.
//!
//! Request headers: `raftqueue-deadline-ms` (900 unless given, at most 600,000), and `raftqueue-request-id`, 32
//! hexadecimal digits or a UUID, which makes the repeat of a `GET /message` return the same message, and that of a
//! `PUT /topic` succeed. Without it a `GET /message` of unknown outcome may have taken a message that nobody will see.
//!
//! The content type of a request is not looked at. One with a content encoding is refused with 415.

pub(super) mod body;
pub(super) mod reply;

use crate::api::budget::{Account, Share};
use crate::api::limits::{self, JSON_CALL_BYTES_MAX, LIST_TOPICS_MAX, RECEIVE_BYTES_MAX, invalid};
use crate::api::{
    Answer, Deliveries, Failure, Look, NewMessage, Publish, Reason, Request, Response, Take, TakeKind,
    TopicOptions, Write,
};
use crate::edges::edge::Edge;
use crate::edges::gate::{self, Called};
use crate::edges::service::Service;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::any;
use body::Reading;
use http::{HeaderMap, Method, StatusCode};
use reply::not_found;
use reply::{Reply, failure_reply};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

/// The header in which a client says how long a call may take.
const DEADLINE_HEADER: &str = "raftqueue-deadline-ms";
/// The header with which a client makes a repeat harmless.
const REQUEST_ID_HEADER: &str = "raftqueue-request-id";

/// The routes of the simple API. Methods are told apart here and not by the router: that would answer HEAD with the
/// handler of GET, which takes a message.
pub(super) fn router<S: Service>(edge: Edge<S>) -> Router {
    Router::new()
        .route("/topic", any(topic::<S>))
        .route("/message", any(message::<S>))
        .route("/message/{topic}", any(take::<S>))
        .route("/status", any(status::<S>))
        .with_state(edge)
}

/// A refusal with a code of HTTP's own.
pub(super) fn refused(code: StatusCode, text: &str) -> axum::response::Response {
    let mut response = failure_reply(&invalid(text)).into_response();
    *response.status_mut() = code;
    response
}

/// What a failure is answered with.
pub(super) fn failed(failure: &Failure) -> axum::response::Response {
    failure_reply(failure).into_response()
}

/// Nothing is at this address.
pub(super) fn no_such_call() -> Reply {
    not_found("no such call: there are /topic, /message, /message/TOPIC and /status; GET / says more")
}

/// Something is at this address, but not with this method. This API says 404 to both.
fn not_this_method(text: &str) -> Reply {
    not_found(text)
}

#[derive(Deserialize)]
struct TopicBody {
    topic: String,
}

#[derive(Deserialize)]
struct MessageBody {
    topic: String,
    message: String,
}

/// One call: the edge, and when it must be answered.
struct Call<S> {
    edge: Edge<S>,
    called: Called,
    request_id: Option<u128>,
    deadline: Duration,
    begun: Instant,
}

impl<S: Service> Call<S> {
    fn begin((edge, called): (Edge<S>, Called), headers: &HeaderMap) -> Result<Self, Failure> {
        let deadline = limits::deadline(read_deadline(headers)?, 0);
        Ok(Self { edge, called, request_id: read_request_id(headers)?, deadline, begun: Instant::now() })
    }

    /// What is left of the deadline. Reading a slow body takes a part of it.
    fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.begun.elapsed())
    }

    async fn call(&self, request: Request) -> Result<Answer, Failure> {
        self.edge.call(gate::Call::of_client(self.called.clone(), request, self.left())).await
    }

    /// The body as JSON of the wanted shape, and what is held for it until the call is answered. Unknown fields are
    /// passed over.
    async fn read<T: DeserializeOwned + Send + 'static>(
        &self,
        headers: &HeaderMap,
        body: Body,
        bytes_max: usize,
    ) -> Result<(T, Account), Failure> {
        let reading = Reading::new(headers, self.edge.budget(), Share::Arriving, bytes_max);
        let reading = tokio::time::timeout(self.left(), reading.read(body));
        let (bytes, held) = reading.await.unwrap_or_else(|_| {
            Err(Failure::not_done(Reason::DeadlineExceeded, "the body did not arrive within the deadline"))
        })?;
        let read = self.edge.decode(bytes.len(), move || body::parse(&bytes)).await?;
        Ok((read, held))
    }
}

async fn topic<S: Service>(
    State(edge): State<Edge<S>>,
    called: Called,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let hint = edge.clone();
    let result = match method {
        Method::PUT => create_topic((edge, called), &headers, body).await,
        Method::GET => list_topics((edge, called), &headers).await,
        _ => return not_this_method("/topic takes PUT and GET"),
    };
    let reply = result.unwrap_or_else(|failure| failure_reply(&failure));
    reply.of_node(&hint.local_status()).counted(hint.budget())
}

async fn message<S: Service>(
    State(edge): State<Edge<S>>,
    called: Called,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let hint = edge.clone();
    let result = match method {
        Method::PUT => publish((edge, called), &headers, body).await,
        _ => return not_this_method("/message takes PUT, and GET with a topic behind it: /message/TOPIC"),
    };
    result.unwrap_or_else(|failure| failure_reply(&failure)).of_node(&hint.local_status())
}

async fn take<S: Service>(
    State(edge): State<Edge<S>>,
    called: Called,
    method: Method,
    topic: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Reply {
    let hint = edge.clone();
    let result = match (method, topic) {
        (Method::GET, Ok(Path(topic))) => pop((edge, called), &headers, topic).await,
        (Method::GET, Err(_)) => Err(invalid("the topic in the path is not percent-encoded UTF-8")),
        _ => return not_this_method("/message/TOPIC takes GET, which removes the message that it returns"),
    };
    result.unwrap_or_else(|failure| failure_reply(&failure)).of_node(&hint.local_status())
}

async fn status<S: Service>(State(edge): State<Edge<S>>, method: Method) -> Reply {
    if method != Method::GET {
        return not_this_method("/status takes GET");
    }
    let local = edge.local_status();
    Reply::status(local.role.name(), local.term).of_node(&local)
}

async fn create_topic<S: Service>(
    by: (Edge<S>, Called),
    headers: &HeaderMap,
    body: Body,
) -> Result<Reply, Failure> {
    let call = Call::begin(by, headers)?;
    let (TopicBody { topic }, _held) = call.read(headers, body, JSON_CALL_BYTES_MAX).await?;
    let request_id = call.request_id;
    call.call(Request::Write(Write::CreateTopic { topic, options: TopicOptions::default(), request_id }))
        .await?;
    Ok(Reply::success(StatusCode::CREATED))
}

/// All topics, page by page. A topic that exists during the whole call is in the list once, in the right order.
async fn list_topics<S: Service>(by: (Edge<S>, Called), headers: &HeaderMap) -> Result<Reply, Failure> {
    let call = Call::begin(by, headers)?;
    let mut names = Vec::new();
    let mut after = None;
    loop {
        match call.call(Request::Look(Look::ListTopics { after, topics_max: LIST_TOPICS_MAX })).await? {
            Answer::Response(Response::Topics { topics, more }) => {
                let last = topics.last().map(|topic| topic.id);
                names.extend(topics.into_iter().map(|topic| topic.name));
                if !more || last.is_none() {
                    return Ok(Reply::topics(&names));
                }
                after = last;
            }
            other => panic!("the replica answered a listing with {other:?}"),
        }
    }
}

async fn publish<S: Service>(
    by: (Edge<S>, Called),
    headers: &HeaderMap,
    body: Body,
) -> Result<Reply, Failure> {
    let call = Call::begin(by, headers)?;
    let bytes_max = call.edge.limits().json_bytes_max();
    let (MessageBody { topic, message }, _held) = call.read(headers, body, bytes_max).await?;
    let body_crc = crc32c::crc32c(message.as_bytes());
    let message = NewMessage { body: message.into(), body_crc, ..NewMessage::default() };
    call.call(Request::Publish(Publish { topic, session: None, messages: vec![message] })).await?;
    Ok(Reply::success(StatusCode::CREATED))
}

async fn pop<S: Service>(
    by: (Edge<S>, Called),
    headers: &HeaderMap,
    topic: String,
) -> Result<Reply, Failure> {
    let call = Call::begin(by, headers)?;
    let request_id = call.request_id;
    let request = Request::Take(Take {
        topic,
        subscription: String::new(),
        messages_max: 1,
        bytes_max: RECEIVE_BYTES_MAX,
        wait_ms: 0,
        kind: TakeKind::Pop { request_id },
    });
    match call.call(request).await? {
        Answer::Deliveries(Deliveries { messages, held }) => match messages.into_iter().next() {
            Some(delivery) => Ok(Reply::message(delivery.body, held)),
            None => Ok(not_found("the topic is there, and no message in it is ready")),
        },
        other => panic!("the replica answered a pop with {other:?}"),
    }
}

pub(super) fn read_deadline(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(DEADLINE_HEADER) else { return Ok(None) };
    let ms = value.to_str().ok().and_then(|text| text.parse::<u64>().ok()).filter(|ms| *ms > 0);
    ms.map(|ms| Some(Duration::from_millis(ms))).ok_or_else(|| {
        invalid(format!("{DEADLINE_HEADER}: must be a whole number of milliseconds, at least 1"))
    })
}

fn read_request_id(headers: &HeaderMap) -> Result<Option<u128>, Failure> {
    let Some(value) = headers.get(REQUEST_ID_HEADER) else { return Ok(None) };
    let digits = value.to_str().unwrap_or_default().replace('-', "");
    if digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(u128::from_str_radix(&digits, 16).ok());
    }
    Err(invalid(format!("{REQUEST_ID_HEADER}: must be 32 hexadecimal digits, or a UUID")))
}
