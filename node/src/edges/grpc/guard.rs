//! What a gRPC call holds of the budget: its messages while they arrive, its answer until it is sent.
//!
//! The library reads a whole message into memory before it decodes it, and encodes a whole answer before it sends any
//! of it. So what it reads passes through [`Arriving`]: that one knows from the first five bytes how long a message
//! will be, and charges for all of it before the rest is read. What it sends passes through [`Leaving`]: there each
//! piece of the answer carries its charge until the connection has written it. The two and the call itself share a
//! [`Ticket`].

mod arriving;
pub(crate) mod shape;

#[cfg(test)]
use arriving::HEADER_BYTES;
use arriving::{Arriving, Rules};
pub(crate) use arriving::{Patience, SETTLING_KEY};

use crate::api::Answer;
use crate::api::budget::{Account, Budget, Held, Part, Share};
use crate::api::limits::Limits;
use crate::edges::sliced::{Sliced, carrying};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Frame;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tower::Service;

/// A body of any kind, as the two libraries box it.
pub(crate) trait Boxed: hyper::body::Body<Data = Bytes> + Unpin + Sized {
    /// Boxes a body.
    fn boxed<B>(body: B) -> Self
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>;
}

impl Boxed for axum::body::Body {
    fn boxed<B>(body: B) -> Self
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        axum::body::Body::new(body)
    }
}

impl Boxed for tonic::body::Body {
    fn boxed<B>(body: B) -> Self
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        tonic::body::Body::new(body)
    }
}

/// A service whose calls are charged.
#[derive(Clone, Debug)]
pub(crate) struct Guard<S> {
    inner: S,
    budget: Budget,
    limits: Limits,
}

impl<S> Guard<S> {
    pub(crate) fn new(inner: S, budget: Budget, limits: Limits) -> Self {
        Self { inner, budget, limits }
    }
}

impl<S, B, R> Service<Request<B>> for Guard<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    B: Boxed + Send + 'static,
    B::Error: Into<axum::BoxError>,
    R: Boxed + Send + 'static,
    R::Error: Into<axum::BoxError>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let rules = Rules::of(request.uri().path(), request.headers(), &self.limits);
        let ticket = Ticket::new(&self.budget, &rules);
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(Arc::clone(&ticket));
        let body = B::boxed(Arriving::new(body, Arc::clone(&ticket), rules));
        let is_stream = rules.is_stream();
        let answer = self.inner.call(Request::from_parts(parts, body));
        Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|made| match ticket.take_instead() {
                Some(sliced) => R::boxed(sliced),
                // A stream counts its answers itself.
                None if is_stream => made,
                None => R::boxed(Leaving { inner: made, account: Arc::clone(&ticket.leaving) }),
            }))
        })
    }
}

/// What one call holds of the budget.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// What has arrived of it.
    arriving: Arc<Account>,
    /// On a stream: what each message holds that has arrived and was not taken yet.
    messages: Mutex<VecDeque<Part>>,
    /// What its answer holds.
    leaving: Arc<Account>,
    /// The answer, if the library does not encode it.
    instead: Mutex<Option<Sliced>>,
    /// There was no room for what arrived.
    is_refused: AtomicBool,
}

impl Ticket {
    fn new(budget: &Budget, rules: &Rules) -> Arc<Self> {
        let leaving = if rules.is_stream() { Share::Streams } else { Share::Replies };
        Arc::new(Self {
            arriving: Arc::new(Account::new(budget, rules.share)),
            messages: Mutex::default(),
            leaving: Arc::new(Account::new(budget, leaving)),
            instead: Mutex::default(),
            is_refused: AtomicBool::new(false),
        })
    }

    /// What the answer holds.
    pub(crate) fn leaving(&self) -> &Arc<Account> {
        &self.leaving
    }

    /// On a stream: what the last message holds that was read. To be kept until that message is done with.
    pub(super) fn take_message(&self) -> Option<Part> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn arrived(&self, message: Part) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
    }

    /// The message that arrives takes so much more.
    fn grown(&self, held: Held) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(message) = messages.back_mut() {
            message.grow(held);
        }
    }

    /// Sends this instead of what the library would send.
    pub(crate) fn send_instead(&self, body: Sliced) {
        *self.instead.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    fn take_instead(&self) -> Option<Sliced> {
        self.instead.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// An answer on its way: every piece carries its charge.
struct Leaving<B> {
    inner: B,
    account: Arc<Account>,
}

impl<B: hyper::body::Body<Data = Bytes> + Unpin> hyper::body::Body for Leaving<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let carry = |bytes: Bytes| carrying(bytes, &self.account);
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(carry))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.inner.size_hint()
    }
}

impl<B> Drop for Leaving<B> {
    fn drop(&mut self) {
        // The bytes that were sent have their part. No more will be sent.
        self.account.forget();
    }
}

/// What the leader's answer to a forwarded call will hold. It goes with the call as an extension.
#[derive(Clone, Debug)]
pub(crate) struct ReplyTicket {
    ticket: Arc<Ticket>,
    rules: Rules,
}

impl ReplyTicket {
    pub(crate) fn new(budget: &Budget, patience: Patience) -> Self {
        let rules = Rules::of_reply(patience);
        Self { ticket: Ticket::new(budget, &rules), rules }
    }

    /// True if the answer came and there was no room for it here.
    pub(crate) fn is_refused(&self) -> bool {
        self.ticket.is_refused.load(Ordering::Relaxed)
    }

    /// The answer, with what is held for it.
    pub(crate) fn held_by(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Deliveries(mut deliveries) => {
                deliveries.held = Some(Arc::clone(&self.ticket.arriving));
                Answer::Deliveries(deliveries)
            }
            answer => answer,
        }
    }
}

/// A channel to the leader whose answers are charged.
#[derive(Clone, Debug)]
pub(crate) struct Charged<C>(pub(crate) C);

impl<C, B> Service<Request<B>> for Charged<C>
where
    C: Service<Request<B>, Response = Response<tonic::body::Body>>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = C::Error;
    type Future = BoxFuture<'static, Result<C::Response, C::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let ticket = request.extensions_mut().remove::<ReplyTicket>();
        let answer = self.0.call(request);
        Box::pin(async move {
            let response = answer.await?;
            Ok(match ticket {
                Some(ReplyTicket { ticket, rules }) => {
                    response.map(|body| tonic::body::Body::new(Arriving::new(body, ticket, rules)))
                }
                None => response,
            })
        })
    }
}

#[cfg(test)]
mod tests;
