//! Calls that peers pass on, answered beside the peers' streams.
//!
//! The driver's thread serves the peers' port. A forwarded call on that port is a client's bytes. So it is decoded,
//! answered and encoded on the threads that serve clients, and the driver's thread only moves the frames.

use crate::api::budget::Budget;
use crate::api::limits::Limits;
use crate::edges::grpc::guard::Guard;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tower::Service;

/// Where forwarded calls come to.
const FORWARD_PATH: &str = "/raftqueue.peer.v1.Peer/Forward";

/// The peers' service, with forwarded calls on other threads, and within the budget of what is held for clients.
#[derive(Clone, Debug)]
pub struct ForwardedAside<S> {
    inner: S,
    forwarded: Guard<S>,
    clients: Handle,
}

impl<S: Clone> ForwardedAside<S> {
    /// Answers forwarded calls on the threads of `clients`, everything else where it is called.
    pub fn new(inner: S, clients: Handle, budget: Budget, limits: Limits) -> Self {
        Self { forwarded: Guard::new(inner.clone(), budget, limits), inner, clients }
    }
}

impl<S> Service<Request<Body>> for ForwardedAside<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        ready!(self.inner.poll_ready(context))?;
        self.forwarded.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() == FORWARD_PATH {
            Box::pin(Aside(self.clients.spawn(self.forwarded.call(request))))
        } else {
            Box::pin(self.inner.call(request))
        }
    }
}

/// A call on other threads. It ends when its caller goes.
struct Aside<T>(JoinHandle<T>);

impl<T> Future for Aside<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match ready!(Pin::new(&mut self.0).poll(context)) {
            Ok(answer) => Poll::Ready(answer),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The node stops, and this connection is cut.
            Err(_) => Poll::Pending,
        }
    }
}

impl<T> Drop for Aside<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::thread;
    use tower::service_fn;

    #[tokio::test]
    async fn only_forwarded_calls_are_answered_on_the_threads_that_serve_clients() {
        let clients = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("clients")
            .build()
            .expect("a runtime");
        let name = || thread::current().name().unwrap_or_default().to_owned();
        let whose = service_fn(move |_: Request<Body>| async move {
            let response = Response::builder().header("thread", name()).body(Body::empty());
            Ok::<_, Infallible>(response.expect("a response"))
        });
        let mut service =
            ForwardedAside::new(whose, clients.handle().clone(), Budget::default(), Limits::default());
        for (path, thread) in [(FORWARD_PATH, "clients"), ("/raftqueue.peer.v1.Peer/Control", &name())] {
            let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
            let response = service.call(request).await.expect("infallible");
            assert_eq!(response.headers()["thread"], *thread, "{path}");
        }
        clients.shutdown_background();
    }

    #[test]
    fn the_path_is_the_one_of_the_contract() {
        let name = raftqueue_proto::peer::v1::peer_server::SERVICE_NAME;
        assert_eq!(FORWARD_PATH, format!("/{name}/Forward"));
    }
}
