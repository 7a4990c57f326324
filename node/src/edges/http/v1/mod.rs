//! The full JSON API under `/v1/`: everything that the unary gRPC offers, for whoever has HTTP and no gRPC.
//!
//! [`requests`] and [`answers`] spell the contract's own messages in JSON; from there on a call goes the way of a gRPC
//! call, with the same defaults, checks and answers. So the two cannot drift apart. `proto/raftqueue/v1/openapi.json`
//! describes it, and is served as `/v1/openapi.json`; a test (`openapi`) makes it from the routes and types in here.
//!
//! Success is 200. A refusal has the codes and headers of the [simple API](super::simple) and a body that says why:
//! `{"reason", "outcome", "text", "retry_after_ms"}`. Request headers are those of the simple API, except the request
//! id, which stands in the body. An empty request body counts as `{}`.

mod answers;
mod members;
#[cfg(test)]
mod openapi;
mod recovery;
mod requests;
mod rights;
mod storage;
#[cfg(test)]
pub(super) use requests::AtMost;
#[cfg(test)]
mod tests;

use super::simple::body::Reading;
use super::simple::reply::{Reply, failure_reply_with};
use super::simple::{body, read_deadline};
use crate::api::budget::Budget;
use crate::api::limits::{self, Limits, invalid};
use crate::api::{Answer, Deliveries, Failure, Method, Reason};
use crate::edges::edge::Edge;
use crate::edges::gate::{self, Called, Needs};
use crate::edges::sent::Outgoing;
use crate::edges::service::Service;
use crate::wire::answers::{Write, write};
use crate::wire::calls::Read;
use crate::wire::convert::write_status;
use crate::wire::errors;
use crate::wire::storage::write_storage;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Instant;

/// A request of this API: read from JSON, it becomes one of the contract, whose answer is written as JSON.
trait Call: DeserializeOwned + Described + Send + 'static {
    /// The contract's request.
    type Wire: Read;
    /// The contract's answer.
    type Answer: Write + Into<Self::Json>;
    /// The answer as JSON.
    type Json: Serialize + Described;

    /// Which call it is.
    const METHOD: Method;

    /// The greatest body that it may have, in bytes.
    fn bytes_max(_limits: &Limits) -> usize {
        limits::JSON_CALL_BYTES_MAX
    }

    /// The contract's request. `name` is what stands in the path, if something does.
    ///
    /// # Errors
    ///
    /// Something in it cannot be read: correct the caller.
    fn into_wire(self, name: String) -> Result<Self::Wire, Failure>;
}

/// Has a schema in tests, where one is asked for.
#[cfg(test)]
trait Described: schemars::JsonSchema {}
#[cfg(test)]
impl<T: schemars::JsonSchema> Described for T {}
#[cfg(not(test))]
trait Described {}
#[cfg(not(test))]
impl<T> Described for T {}

/// The routes of the full API.
pub(super) fn router<S: Service>(edge: Edge<S>) -> Router {
    let mut routes = Routes::default();
    add_all(&mut routes);
    routes.router.method_not_allowed_fallback(not_this_method).with_state(edge)
}

/// Every route of this API.
fn add_all<S: Service>(routes: &mut Routes<S>) {
    requests::add_all(routes);
    let status = described_as::<requests::Nothing, answers::Status>;
    let about = ("nodeStatus", "What the asked node says of itself");
    routes.add("get", "/v1/status", about, get(own_status::<S>), status);
    let storage = described_as::<requests::Nothing, storage::Storage>;
    let about = ("nodeStorage", "What the asked node keeps on its disk and in memory");
    routes.add("get", "/v1/storage", about, get(own_storage::<S>), storage);
    let rights = described_as::<rights::Asked, rights::Right>;
    let about = ("canI", "Who the asked node takes the caller for, and whether that one may do something");
    routes.add("post", "/v1/can-i", about, post(rights::can_i::<S>), rights);
    let recovery = described_as::<requests::Recover, recovery::Recovery>;
    let about = ("recover", "What the asked node knows that may have to go on alone; with a token it does");
    routes.add("post", "/v1/recover", about, post(recovery::recover::<S>), recovery);
    routes.router = std::mem::take(&mut routes.router)
        .route("/v1/openapi.json", get(async || Reply::new(StatusCode::OK, raftqueue_proto::OPENAPI)));
}

/// Collects routes, and in tests what describes them.
struct Routes<S> {
    router: Router<Edge<S>>,
    #[cfg(test)]
    operations: Vec<openapi::Operation>,
}

impl<S: Service> Default for Routes<S> {
    fn default() -> Self {
        Self {
            router: Router::new(),
            #[cfg(test)]
            operations: Vec::new(),
        }
    }
}

impl<S: Service> Routes<S> {
    fn post<C: Call + Send + 'static>(&mut self, path: &'static str, id: &'static str, about: &'static str) {
        self.add("post", path, (id, about), post(serve::<S, C>), described::<C>);
    }

    fn patch<C: Call + Send + 'static>(&mut self, path: &'static str, id: &'static str, about: &'static str) {
        self.add("patch", path, (id, about), patch(serve::<S, C>), described::<C>);
    }

    fn get<C: Call + Send + 'static>(&mut self, path: &'static str, id: &'static str, about: &'static str) {
        self.add("get", path, (id, about), get(serve::<S, C>), described::<C>);
    }

    /// What other calls have in their body stands in the query.
    fn query<C: Call + Send + 'static>(&mut self, path: &'static str, id: &'static str, about: &'static str) {
        self.add("get", path, (id, about), get(serve_query::<S, C>), described::<C>);
    }

    fn delete<C: Call + Send + 'static>(
        &mut self,
        path: &'static str,
        id: &'static str,
        about: &'static str,
    ) {
        self.add("delete", path, (id, about), delete(serve::<S, C>), described::<C>);
    }

    fn add(
        &mut self,
        method: &'static str,
        path: &'static str,
        (id, about): (&'static str, &'static str),
        route: MethodRouter<Edge<S>>,
        describe: Describe,
    ) {
        self.router = std::mem::take(&mut self.router).route(path, route);
        #[cfg(test)]
        self.operations.push(openapi::Operation { method, path, id, about, describe });
        #[cfg(not(test))]
        let _ = (method, id, about, describe);
    }
}

/// Describes a request and its answer.
#[cfg(test)]
type Describe = fn(&mut schemars::SchemaGenerator) -> (schemars::Schema, schemars::Schema);
#[cfg(not(test))]
type Describe = fn();

fn described<C: Call>(#[cfg(test)] generator: &mut schemars::SchemaGenerator) -> DescribeAnswer {
    #[cfg(test)]
    return described_as::<C, C::Json>(generator);
    #[cfg(not(test))]
    described_as::<C, C::Json>();
}

#[cfg(test)]
type DescribeAnswer = (schemars::Schema, schemars::Schema);
#[cfg(not(test))]
type DescribeAnswer = ();

fn described_as<Q: Described, R: Described>(
    #[cfg(test)] generator: &mut schemars::SchemaGenerator,
) -> DescribeAnswer {
    #[cfg(test)]
    return (generator.subschema_for::<Q>(), generator.subschema_for::<R>());
}

/// Serves one call: read, call, write.
async fn serve<S: Service, C: Call + Send>(
    State(edge): State<Edge<S>>,
    called: Called,
    name: Result<RawPathParams, RawPathParamsRejection>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let hint = edge.clone();
    let called = match read_name(name) {
        Ok(name) => call::<S, C>((edge, called), name, &headers, body).await,
        Err(failure) => Err(failure),
    };
    replied(called, hint.budget()).of_node(&hint.local_status()).counted(hint.budget())
}

fn replied(called: Result<(Answered<impl Serialize>, Option<Outgoing>), Failure>, budget: &Budget) -> Reply {
    match called {
        Ok((Answered::Json(answer), outgoing)) => reply(Ok(answer)).with_outgoing(outgoing),
        Ok((Answered::Messages(deliveries), outgoing)) => {
            answers::messages(deliveries, budget).with_outgoing(outgoing)
        }
        Err(failure) => reply(Err::<answers::Done, _>(failure)),
    }
}

/// What stands in the path; empty if the route has no parameter.
fn read_name(name: Result<RawPathParams, RawPathParamsRejection>) -> Result<String, Failure> {
    match name {
        Ok(names) => Ok(names.iter().next().map(|(_, name)| name.to_owned()).unwrap_or_default()),
        Err(_) => Err(invalid("what stands in the path is not percent-encoded UTF-8")),
    }
}

/// What a call is answered with.
enum Answered<J> {
    /// Anything but messages.
    Json(J),
    /// Messages.
    Messages(Deliveries),
}

async fn call<S: Service, C: Call>(
    (edge, called): (Edge<S>, Called),
    name: String,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Answered<C::Json>, Option<Outgoing>), Failure> {
    let begun = Instant::now();
    let asked = read_deadline(headers)?;
    let bytes_max = C::bytes_max(edge.limits());
    let reading = Reading::new(headers, edge.budget(), C::METHOD.share(), bytes_max);
    let reading = tokio::time::timeout(limits::deadline(asked, 0), reading.read(body));
    let (bytes, held) = reading.await.unwrap_or_else(|_| Err(late_body()))?;
    let length = bytes.len();
    let grown_max = edge.limits().call_bytes_max();
    // The call may wait for long. By then it holds the messages in its own form.
    let decode = move || {
        body::hold_decoded(&bytes, &held, grown_max)?;
        Ok((decode::<C>(&bytes, name)?, held))
    };
    let (request, _held) = edge.decode(length, decode).await?;
    let deadline = limits::deadline(asked, request.wait_ms());
    let leasing = edge.leasing(&request);
    let left = deadline.saturating_sub(begun.elapsed());
    let answer = edge.call(gate::Call::of_client(called, request, left)).await?;
    let outgoing = edge.outgoing(leasing, &answer);
    let answered = match answer {
        Answer::Deliveries(deliveries) => Answered::Messages(deliveries),
        answer => Answered::Json(write::<C::Answer>(answer).into()),
    };
    Ok((answered, outgoing))
}

/// What a failure is answered with.
pub(super) fn failed(failure: Failure) -> Response {
    reply(Err::<answers::Done, _>(failure)).into_response()
}

fn late_body() -> Failure {
    Failure::not_done(Reason::DeadlineExceeded, "the body did not arrive within the deadline")
}

/// The call that stands in a request.
fn decode<C: Call>(bytes: &[u8], name: String) -> Result<crate::api::Request, Failure> {
    let json = if bytes.is_empty() { &b"{}"[..] } else { bytes };
    if !json.trim_ascii_start().starts_with(b"{") {
        // Otherwise a list would be read as fields without names.
        return Err(invalid("body: must be a JSON object"));
    }
    body::parse::<C>(json)?.into_wire(name)?.read()
}

/// Serves a call whose fields stand in the query, as GET has no body.
async fn serve_query<S: Service, C: Call + Send>(
    State(edge): State<Edge<S>>,
    called: Called,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Reply {
    let hint = edge.clone();
    let mut fields = Map::new();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, number) = pair.split_once('=').unwrap_or((pair, ""));
        let number = number.parse::<u64>().map_or_else(|_| Value::from(number), Value::from);
        fields.insert(name.to_owned(), number);
    }
    let body = Body::from(Value::Object(fields).to_string());
    let called = call::<S, C>((edge, called), String::new(), &headers, body).await;
    replied(called, hint.budget()).of_node(&hint.local_status()).counted(hint.budget())
}

/// The node's own view, at once, also without quorum.
async fn own_status<S: Service>(State(edge): State<Edge<S>>, called: Called) -> Reply {
    let local = edge.local_status();
    if let Err(failure) = edge.admit(&called, "status", Needs::Sight) {
        return reply(Err::<answers::Done, _>(failure)).of_node(&local);
    }
    reply(Ok(answers::Status::new(write_status(&local), local.role.name()))).of_node(&local)
}

/// What the node keeps, at once, also without quorum.
async fn own_storage<S: Service>(State(edge): State<Edge<S>>, called: Called) -> Reply {
    let local = edge.local_status();
    if let Err(failure) = edge.admit(&called, "storage", Needs::Sight) {
        return reply(Err::<answers::Done, _>(failure)).of_node(&local);
    }
    let storage = write_storage(&local, &edge.storage().await);
    reply(Ok(storage::Storage::from(storage))).of_node(&local)
}

fn reply(result: Result<impl Serialize, Failure>) -> Reply {
    match result {
        Ok(answer) => {
            let body = serde_json::to_string(&answer).expect("answers have nothing that JSON cannot hold");
            Reply::new(StatusCode::OK, body)
        }
        Err(failure) => {
            let body = answers::Failure {
                reason: errors::reason_name(failure.reason).to_owned(),
                outcome: errors::outcome_name(failure.outcome).to_owned(),
                text: failure.text.clone(),
                retry_after_ms: errors::retry_after_ms(&failure),
            };
            let body = serde_json::to_string(&body).expect("texts and numbers");
            failure_reply_with(&failure, body)
        }
    }
}

/// Nothing is at this address.
pub(super) async fn not_found() -> Response {
    refused(StatusCode::NOT_FOUND, "no such call: /v1/openapi.json lists them all")
}

/// Something is at this address, but not with this method. The router adds the header `allow`, which says with which.
async fn not_this_method() -> Response {
    refused(StatusCode::METHOD_NOT_ALLOWED, "not with this method: the header `allow` says with which ones")
}

/// A refusal with a code of HTTP's own.
pub(super) fn refused(code: StatusCode, text: &str) -> Response {
    let mut response = reply(Err::<answers::Done, _>(invalid(text))).into_response();
    *response.status_mut() = code;
    response
}
