//! What stands before everything that the client port serves: each call gets its trace, and each error the id of it.

use crate::traces::{Call, Exporter, PARENT_HEADER, Parent, TRACE_HEADER};
use axum::body::Body;
use http::{HeaderValue, Request, Response};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::{Code, Status};
use tower::Service;

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
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (answer, call) = Call::new(parent, traced).run(answer).await;
            let mut answer = answer?;
            let error = error_of(&answer);
            if let Some(error) = &error {
                let id = call.id();
                tracing::debug!(trace_id = %id, error, call = what, "a call failed");
                let id = HeaderValue::try_from(id.to_string()).expect("hexadecimal digits");
                answer.headers_mut().insert(TRACE_HEADER, id);
            }
            call.end(error);
            Ok(answer)
        })
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
    let status = Status::from_header_map(answer.headers())?;
    (status.code() != Code::Ok).then(|| format!("{:?}: {}", status.code(), status.message()))
}
