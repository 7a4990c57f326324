//! What stands before everything that the client port serves: each call gets its trace, and each error the id of it, also
//! where a stream ends with one.

use crate::traces::{Call, Exporter, PARENT_HEADER, Parent, TRACE_HEADER};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::{Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::{Code, Status};
use tower::Service;

/// Methods whose answer goes on behind its head.
const STREAMS: [&str; 2] = ["/raftqueue.v1.Queue/PublishStream", "/raftqueue.v1.Queue/Consume"];

/// A service whose calls are followed.
#[derive(Clone, Debug)]
pub(crate) struct Followed<S> {
    inner: S,
    exporter: Option<Exporter>,
}

impl<S> Followed<S> {
    pub(crate) fn new(inner: S, exporter: Option<Exporter>) -> Self {
        Self { inner, exporter }
    }
}

impl<S> Service<Request<Body>> for Followed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let parent = request.headers().get(PARENT_HEADER).and_then(|value| Parent::read(value.as_bytes()));
        let traced = self.exporter.as_ref().and_then(|exporter| exporter.begin(&name_of(&request), parent));
        let what = traced.is_some().then(|| name_of(&request));
        let is_stream = STREAMS.contains(&request.uri().path());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (answer, call) = Call::new(parent, traced).run(answer).await;
            let mut answer = answer?;
            let error = error_of(&answer);
            if is_stream && error.is_none() {
                return Ok(answer.map(|body| Body::new(Stream { body, call, what, is_over: false })));
            }
            let what = what.as_deref();
            error.iter().for_each(|error| told(&call, what, error, answer.headers_mut()));
            call.end(error);
            Ok(answer)
        })
    }
}

/// A call has failed: its error names the trace.
fn told(call: &Call, what: Option<&str>, error: &str, headers: &mut HeaderMap) {
    let id = call.id();
    tracing::debug!(trace_id = %id, error, call = what, "a call failed");
    let id = HeaderValue::try_from(id.to_string()).expect("hexadecimal digits");
    headers.insert(TRACE_HEADER, id);
}

/// The answer of a stream, which works for its call until it ends.
struct Stream {
    body: Body,
    call: Call,
    what: Option<String>,
    is_over: bool,
}

impl Stream {
    fn end(&mut self, error: Option<String>) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.call.end(error);
        }
    }
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Stream { body, call, what, .. } = &mut *self;
        let frame = match ready!(call.run_now(|| Pin::new(body).poll_frame(context))) {
            Some(Ok(frame)) => frame,
            ended => {
                let error = ended.as_ref().and_then(|ended| ended.as_ref().err()).map(ToString::to_string);
                self.end(error);
                return Poll::Ready(ended);
            }
        };
        let frame = match frame.into_trailers() {
            Err(data) => data,
            Ok(mut trailers) => {
                let error = error_in(&trailers);
                error.iter().for_each(|error| told(call, what.as_deref(), error, &mut trailers));
                self.end(error);
                Frame::trailers(trailers)
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Stream {
    /// A client that goes away ends it as well.
    fn drop(&mut self) {
        self.end(None);
    }
}

/// What a person calls it, without what differs from call to call.
fn name_of(request: &Request<Body>) -> String {
    let path = request.uri().path();
    match path.strip_prefix('/') {
        Some(method) if method.starts_with("raftqueue.") || method.starts_with("grpc.") => method.to_owned(),
        Some(path) => format!("{} /{}", request.method(), path.split('/').next().unwrap_or_default()),
        None => request.method().to_string(),
    }
}

/// What went wrong, if the head of the answer says so.
fn error_of(answer: &Response<Body>) -> Option<String> {
    if !answer.status().is_success() {
        return Some(answer.status().to_string());
    }
    error_in(answer.headers())
}

/// The same of the status that stands in a head or in trailers.
fn error_in(headers: &HeaderMap) -> Option<String> {
    let status = Status::from_header_map(headers)?;
    (status.code() != Code::Ok).then(|| format!("{:?}: {}", status.code(), status.message()))
}
