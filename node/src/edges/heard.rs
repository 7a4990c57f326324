//! How the request of a long call ended.
//!
//! The gRPC library says of a stream that its client has reset what it says of one that was closed: no more requests. To
//! a consumer they are opposites. So the body is listened to below it.

use crate::edges::grpc;
use http::Request;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

/// What was heard of the end of a request. Goes with it as an extension.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<AtomicBool>);

impl Heard {
    /// True if it was reset, or its connection broke.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The request with a body that is listened to, if it is one of a long call.
pub(crate) fn listened<B>(mut request: Request<B>) -> Request<Listened<B>> {
    let heard = (request.uri().path() == grpc::CONSUME_PATH).then(Heard::default);
    if let Some(heard) = &heard {
        request.extensions_mut().insert(heard.clone());
    }
    request.map(|body| Listened { body, heard })
}

/// A body that is listened to.
pub(crate) struct Listened<B> {
    body: B,
    heard: Option<Heard>,
}

impl<B: Body + Unpin> Body for Listened<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let (Some(heard), Some(Err(_))) = (&self.heard, &frame) {
            heard.0.store(true, Ordering::SeqCst);
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
