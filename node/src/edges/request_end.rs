//! How the request of a long call ended.
//!
//! The gRPC library says the same of a stream that its client has reset and of one that its client has closed: no more
//! requests. For a consumer these are opposites. So the body is listened to below the library.

use crate::edges::grpc;
use http::Request;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

/// How a request ended. Goes with it as an extension.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestEnd(Arc<AtomicBool>);

impl RequestEnd {
    /// True if the request was reset, or its connection broke.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The request with a body that is listened to, if it is one of a long call.
pub(crate) fn listened<B>(mut request: Request<B>) -> Request<Listened<B>> {
    let end = (request.uri().path() == grpc::CONSUME_PATH).then(RequestEnd::default);
    if let Some(end) = &end {
        request.extensions_mut().insert(end.clone());
    }
    request.map(|body| Listened { body, end })
}

/// A body that is listened to.
pub(crate) struct Listened<B> {
    body: B,
    end: Option<RequestEnd>,
}

impl<B: Body + Unpin> Body for Listened<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let (Some(end), Some(Err(_))) = (&self.end, &frame) {
            end.0.store(true, Ordering::SeqCst);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
