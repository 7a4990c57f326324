//! The console: a page on the operations port for whoever has nothing else at hand. It shows the members, the topics, and of one
//! topic its messages and dead letters; where changes are allowed it redrives and drops them.
//!
//! The pages are whole without JavaScript. `live.js` only fetches them again and puts the new one in place of the old, and sends
//! changes; so there is one way in which a page is made, and whatever clients named or published passes through [`maud`], which
//! escapes it. [`guard`] says who may ask.
//!
//! Pages are made on the runtime of the clients: the operations port is served by the driver's thread, which must not wait.

mod guard;
mod page;
mod rates;
#[cfg(test)]
mod tests;

use crate::api::limits::invalid;
use crate::api::{
    Answer, Dead, DeadAction, Deliveries, Failure, Look, MessageState, Outcome, Reason, Request, Response,
    TopicInfo, Write,
};
use crate::edges::edge::Edge;
use crate::edges::gate::{Call, Called, Needs};
use crate::edges::service::Service;
use crate::metrics::Metrics;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response as Http};
use axum::routing::{get, post};
use axum::{Router, middleware};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use raftqueue_access::Permission;
use rates::Rates;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a page waits for the leader, and for the disk.
const DEADLINE: Duration = Duration::from_millis(900);
/// How long a change may take: on a slow disk somebody who waits is better off than somebody who does not know.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);
/// Topics on one page.
const TOPICS_MAX: usize = 200;
/// Messages of each state that a topic's page shows.
const MESSAGES_MAX: usize = 20;
/// Bytes of their bodies that are asked for at most.
const BODIES_BYTES_MAX: usize = 256 << 10;
/// What a change has in its body is of no interest; more than this is not even read.
const BODY_BYTES_MAX: usize = 4 << 10;

/// What every page comes with: nothing from elsewhere is loaded, framed or sent to.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What the console may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// It may redrive and drop messages.
    pub changes: bool,
    /// Names under which it may be asked, beside addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// What the handlers share.
struct Console<S> {
    edge: Edge<S>,
    metrics: Arc<Metrics>,
    settings: Settings,
    rates: Mutex<Rates>,
    clients: Handle,
}

/// The console's routes; without settings none. `clients` is where pages are made.
pub fn router<S: Service>(
    edge: Edge<S>,
    metrics: Arc<Metrics>,
    settings: Option<Settings>,
    clients: Handle,
) -> Router {
    let Some(settings) = settings else { return Router::new() };
    let guard = guard::Guard::new(&settings);
    let console = Arc::new(Console { edge, metrics, settings, rates: Mutex::default(), clients });
    let style = || async { file("text/css; charset=utf-8", include_str!("style.css")) };
    let script = || async { file("text/javascript; charset=utf-8", include_str!("live.js")) };
    Router::new()
        .route("/", get(overview::<S>))
        .route("/topics/{name}", get(topic::<S>))
        .route("/topics/{name}/redrive", post(redrive::<S>))
        .route("/topics/{name}/drop-dead", post(drop_dead::<S>))
        .route("/topics/{name}/purge", post(purge::<S>))
        .route("/console/style.css", get(style))
        .route("/console/live.js", get(script))
        .with_state(console)
        .route_layer(middleware::from_fn(move |request, next| {
            let guard = guard.clone();
            async move { guard.pass(request, next).await }
        }))
}

fn file(content_type: &'static str, text: &'static str) -> Http {
    with_headers(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

fn with_headers(mut response: Http) -> Http {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn html(code: StatusCode, page: maud::Markup) -> Http {
    let content_type = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    with_headers((code, content_type, page.into_string()).into_response())
}

/// Runs what makes a page where no driver waits for it.
async fn on_clients<S, F>(console: &Arc<Console<S>>, make: F) -> Http
where
    F: Future<Output = Http> + Send + 'static,
{
    let made = console.clients.spawn(make).await;
    // Fails only when the process ends.
    made.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn overview<S: Service>(
    State(console): State<Arc<Console<S>>>,
    called: Called,
    RawQuery(query): RawQuery,
) -> Http {
    let own = Arc::clone(&console);
    let after = query.as_deref().and_then(|query| query.strip_prefix("after=")?.parse().ok());
    on_clients(&console, async move { own.overview(&called, after).await }).await
}

async fn topic<S: Service>(
    State(console): State<Arc<Console<S>>>,
    called: Called,
    Path(name): Path<String>,
) -> Http {
    let own = Arc::clone(&console);
    on_clients(&console, async move { own.topic(&called, &name).await }).await
}

async fn redrive<S: Service>(
    state: State<Arc<Console<S>>>,
    called: Called,
    name: Path<String>,
    body: Body,
) -> Http {
    change(state, called, body, dead(name, DeadAction::Redrive)).await
}

async fn drop_dead<S: Service>(
    state: State<Arc<Console<S>>>,
    called: Called,
    name: Path<String>,
    body: Body,
) -> Http {
    change(state, called, body, dead(name, DeadAction::Purge)).await
}

async fn purge<S: Service>(
    state: State<Arc<Console<S>>>,
    called: Called,
    Path(topic): Path<String>,
    body: Body,
) -> Http {
    change(state, called, body, Request::Write(Write::Purge { topic, subscription: String::new() })).await
}

fn dead(Path(topic): Path<String>, action: DeadAction) -> Request {
    Request::Dead(Dead { topic, subscription: String::new(), offsets: Vec::new(), action })
}

/// One change, if changes are allowed; the [guard](guard) has looked at who asks.
async fn change<S: Service>(
    State(console): State<Arc<Console<S>>>,
    called: Called,
    body: Body,
    request: Request,
) -> Http {
    let own = Arc::clone(&console);
    on_clients(&console, async move {
        if axum::body::to_bytes(body, BODY_BYTES_MAX).await.is_err() {
            return said(&invalid("the body is too long: it has nothing to say here"));
        }
        if !own.settings.changes {
            let text = "this console only shows: start the node with --console-changes, or use raftq";
            return said(&Failure::not_done(Reason::FailedPrecondition, text));
        }
        match own.edge.call(Call::of_client(called, request, CHANGE_DEADLINE)).await {
            Ok(Answer::Response(Response::Count(count))) => {
                let done = serde_json::json!({"count": count}).to_string();
                with_headers(([(header::CONTENT_TYPE, "application/json")], done).into_response())
            }
            Ok(_) => said(&Failure::unknown(Reason::FailedPrecondition, "the node gave another answer")),
            Err(failure) => said(&failure),
        }
    })
    .await
}

/// A change that was not done, or of which nobody knows.
fn said(failure: &Failure) -> Http {
    let code = match failure.reason {
        Reason::FailedPrecondition | Reason::PermissionDenied => StatusCode::FORBIDDEN,
        Reason::InvalidArgument => StatusCode::BAD_REQUEST,
        Reason::TopicNotFound => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let unknown =
        if failure.outcome == Outcome::Unknown { " It may have been done all the same." } else { "" };
    let text = serde_json::json!({"text": format!("{}.{unknown}", failure.text)}).to_string();
    with_headers((code, [(header::CONTENT_TYPE, "application/json")], text).into_response())
}

impl<S: Service> Console<S> {
    async fn overview(&self, called: &Called, after: Option<u64>) -> Http {
        if let Err(failure) = self.edge.admit(called, "console", Needs::Sight) {
            return with_headers((StatusCode::FORBIDDEN, format!("{}\n", failure.text)).into_response());
        }
        let list = Look::ListTopics { after, topics_max: TOPICS_MAX };
        let storage = tokio::time::timeout(DEADLINE, self.edge.storage());
        let (members, topics, storage) =
            tokio::join!(self.look(called, Look::Members), self.look(called, list), storage);
        let members = members.and_then(|answer| match answer {
            Answer::Response(Response::Members(members)) => Ok(members),
            _ => Err(unexpected()),
        });
        let topics = topics.and_then(|answer| match answer {
            Answer::Response(Response::Topics { topics, more }) => Ok((topics, more)),
            _ => Err(unexpected()),
        });
        let mut seen = self.metrics.topics();
        let paces = self.rates.lock().unwrap_or_else(PoisonError::into_inner).learn(&seen);
        if let Some(gate) = self.edge.gate() {
            let in_force = gate.in_force();
            let may = in_force.policy().filter(&called.caller, Permission::Browse);
            seen.retain(|topic, _| may.allows(topic));
        }
        let view = page::Overview {
            local: self.edge.local_status(),
            storage: storage.unwrap_or_default(),
            members,
            topics,
            is_first_page: after.is_none(),
            seen,
            paces,
        };
        html(StatusCode::OK, page::overview(&view))
    }

    async fn topic(&self, called: &Called, name: &str) -> Http {
        let describe = self.look(called, Look::DescribeTopic { topic: name.to_owned() });
        let found = describe.await.and_then(|answer| match answer {
            Answer::Response(Response::Topic(topic)) => Ok(topic),
            _ => Err(unexpected()),
        });
        let topic = match found {
            Ok(topic) => topic,
            Err(failure) => {
                let code = match failure.reason {
                    Reason::TopicNotFound => StatusCode::NOT_FOUND,
                    Reason::InvalidArgument => StatusCode::BAD_REQUEST,
                    Reason::PermissionDenied => StatusCode::FORBIDDEN,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                return html(code, page::no_topic(&self.edge.local_status(), name, &failure));
            }
        };
        let (ready, dead) = tokio::join!(
            self.peek(called, &topic, MessageState::Ready),
            self.peek(called, &topic, MessageState::Dead)
        );
        let seen = self.metrics.topics();
        let paces = self.rates.lock().unwrap_or_else(PoisonError::into_inner).learn(&seen);
        let view = page::OneTopic {
            local: self.edge.local_status(),
            seen: seen.get(name).copied(),
            pace: paces.get(name).copied(),
            may_change: self.settings.changes,
            topic,
            ready,
            dead,
        };
        html(StatusCode::OK, page::topic(&view))
    }

    async fn peek(
        &self,
        called: &Called,
        topic: &TopicInfo,
        state: MessageState,
    ) -> Result<Deliveries, Failure> {
        let peek = Look::Peek {
            topic: topic.name.clone(),
            subscription: String::new(),
            state,
            from_offset: 0,
            messages_max: MESSAGES_MAX,
            bytes_max: BODIES_BYTES_MAX,
        };
        match self.look(called, peek).await? {
            Answer::Deliveries(deliveries) => Ok(deliveries),
            // There are none.
            Answer::Response(Response::Messages(_)) => Ok(Deliveries::from(Vec::new())),
            Answer::Response(_) => Err(unexpected()),
        }
    }

    async fn look(&self, called: &Called, look: Look) -> Result<Answer, Failure> {
        self.edge.call(Call::of_client(called.clone(), Request::Look(look), DEADLINE)).await
    }
}

fn unexpected() -> Failure {
    Failure::not_done(Reason::FailedPrecondition, "the leader gave an answer to something else")
}

/// Headers of a request, for the [guard](guard).
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    // Two of them may be read differently by whoever passes them on.
    values.next().is_none().then_some(value)
}
