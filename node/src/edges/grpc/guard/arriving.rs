//! Messages of gRPC as they arrive.
//!
//! A message is five bytes (a flag, and the length of what follows) and its content. Only those five bytes are looked
//! at here. What they announce is charged at once. So a message that has begun to arrive has room for all of it, and a
//! message without room is refused before it costs anything.

use super::Ticket;
use super::shape::Shape;
use crate::api::budget::{Budget, Held, Share};
use crate::api::limits::{Limits, PLAIN_BYTES_MAX};
use crate::api::{Failure, Method, Reason};
use crate::wire::errors;
use axum::BoxError;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// A forwarded call that settles leases has this header. Its length alone would not tell.
pub(crate) const SETTLING_KEY: &str = "raftqueue-settling";
/// Bytes before each message.
pub(super) const HEADER_BYTES: usize = 5;
/// How long messages that are out of the queue wait for room.
const POP_PATIENCE: Duration = Duration::from_secs(1);
/// How long a stream waits for room before it is ended. During that time flow control holds its client back.
const STREAM_PATIENCE: Duration = Duration::from_secs(5);

/// How the messages of a call are charged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) share: Share,
    kind: Kind,
    /// Greatest message.
    bytes_max: usize,
    /// Most bytes that are charged for a message once it is decoded.
    decoded_max: usize,
    is_publish: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One message, held until the call is answered.
    Single,
    /// Many messages. Each is held until it is done with, and may wait for room.
    Stream,
    /// Many messages, each held until the next one.
    Passing,
    /// The leader's answer to a call that was passed on.
    Reply(Patience),
}

/// How long the leader's answer waits for room here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It does not wait: nothing is lost if it is refused.
    None,
    /// Until then: otherwise others would have to wait for what it leased.
    Until(Instant),
    /// For a moment. Then it is held all the same, because its messages are out of the queue.
    ThenForce,
}

impl Rules {
    /// The rules of the call at `path`.
    pub(super) fn of(path: &str, headers: &HeaderMap, limits: &Limits) -> Self {
        let decoded_max = limits.call_bytes_max();
        let rules = |share, kind, bytes_max| Self { share, kind, bytes_max, decoded_max, is_publish: false };
        let publish = |share, kind| Self { is_publish: true, ..rules(share, kind, limits.frame_bytes_max()) };
        let method = |service: &str| path.strip_prefix('/')?.strip_prefix(service)?.strip_prefix('/');
        if let Some(method) = method("raftqueue.v1.Queue") {
            return match method {
                "PublishStream" => publish(Share::Streams, Kind::Stream),
                "Consume" => rules(Share::Settling, Kind::Stream, PLAIN_BYTES_MAX),
                name => match Method::of_name(name) {
                    Some(Method::Publish) => publish(Method::Publish.share(), Kind::Single),
                    method => {
                        let share = method.map_or(Share::Arriving, Method::share);
                        rules(share, Kind::Single, PLAIN_BYTES_MAX)
                    }
                },
            };
        }
        if method("raftqueue.peer.v1.Peer").is_some() {
            let share = if headers.contains_key(SETTLING_KEY) { Share::Settling } else { Share::Arriving };
            return rules(share, Kind::Single, crate::wire::messages::PEER_MESSAGE_BYTES_MAX);
        }
        rules(Share::Arriving, Kind::Passing, PLAIN_BYTES_MAX)
    }

    /// The rules of the leader's answer to a call that was passed on.
    pub(super) fn of_reply(patience: Patience) -> Self {
        let bytes_max = crate::wire::messages::PEER_MESSAGE_BYTES_MAX;
        let (share, kind) = (Share::Forwarded, Kind::Reply(patience));
        Self { share, kind, bytes_max, decoded_max: bytes_max, is_publish: false }
    }

    /// Waits for room for so many bytes that found none at once; `None` if they are refused instead.
    fn wait(&self, budget: &Budget, bytes: usize) -> Option<Waits> {
        let patience = match self.kind {
            Kind::Stream => STREAM_PATIENCE,
            Kind::Reply(Patience::Until(deadline)) => deadline.saturating_duration_since(Instant::now()),
            Kind::Reply(Patience::ThenForce) => POP_PATIENCE,
            Kind::Single | Kind::Passing | Kind::Reply(Patience::None) => return None,
        };
        let is_forced = self.kind == Kind::Reply(Patience::ThenForce);
        let (budget, share) = (budget.clone(), self.share);
        Some(Box::pin(async move {
            let held = budget.charge_within(share, bytes, patience).await;
            if is_forced { Ok(held.unwrap_or_else(|_| budget.force(share, bytes))) } else { held }
        }))
    }

    pub(super) fn is_stream(&self) -> bool {
        self.kind == Kind::Stream
    }
}

/// A request on its way in.
pub(super) struct Arriving<B> {
    inner: B,
    ticket: Arc<Ticket>,
    rules: Rules,
    /// What has come of the five bytes before the next message, and how many these are.
    header: ([u8; HEADER_BYTES], usize),
    /// Bytes of the message that has begun, still to come.
    left: usize,
    /// What is held for it.
    charged: usize,
    /// What has come of it, if it is a publish.
    shape: Option<Shape>,
    /// What waits for room, and what it takes.
    waiting: Option<(Bytes, Announced, Waits)>,
}

/// What some bytes take.
#[derive(Default)]
struct Announced {
    /// The message that had begun before takes so much more than was thought.
    grown: usize,
    /// The messages that begin in them, one after the other.
    begun: Vec<usize>,
}

impl Announced {
    fn sum(&self) -> usize {
        self.grown + self.begun.iter().sum::<usize>()
    }
}

/// Room that is waited for.
type Waits = BoxFuture<'static, Result<Held, Failure>>;

impl<B> Arriving<B> {
    pub(super) fn new(inner: B, ticket: Arc<Ticket>, rules: Rules) -> Self {
        Self {
            inner,
            ticket,
            rules,
            header: ([0; HEADER_BYTES], 0),
            left: 0,
            charged: 0,
            shape: None,
            waiting: None,
        }
    }

    /// What the messages in these bytes will take, beyond what is held for them already.
    fn announced(&mut self, mut bytes: &[u8]) -> Result<Announced, Failure> {
        let mut announced = Announced::default();
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                if let Some(shape) = &mut self.shape {
                    shape.pass(&bytes[..passed])?;
                    let decoded = shape.decoded_bytes().min(self.rules.decoded_max);
                    let more = decoded.saturating_sub(self.charged);
                    self.charged += more;
                    *announced.begun.last_mut().unwrap_or(&mut announced.grown) += more;
                }
                bytes = &bytes[passed..];
                continue;
            }
            let (header, filled) = &mut self.header;
            let taken = (HEADER_BYTES - *filled).min(bytes.len());
            header[*filled..*filled + taken].copy_from_slice(&bytes[..taken]);
            *filled += taken;
            bytes = &bytes[taken..];
            if *filled == HEADER_BYTES {
                *filled = 0;
                let [is_compressed, a, b, c, d] = *header;
                if is_compressed > 1 {
                    // The library refuses it for its length, and reads no further.
                    self.left = usize::MAX;
                    continue;
                }
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if length > self.rules.bytes_max {
                    let text = format!(
                        "bytes of the request: {length} is over the limit of {}",
                        self.rules.bytes_max
                    );
                    return Err(Failure::not_done(Reason::TooLarge, text));
                }
                self.left = length;
                self.shape = (self.rules.is_publish && is_compressed == 0).then(Shape::default);
                // Nobody knows how long it will be once it is decompressed.
                let grown = if is_compressed == 0 { 0 } else { self.rules.bytes_max };
                self.charged = HEADER_BYTES + length + grown;
                announced.begun.push(self.charged);
            }
        }
        Ok(announced)
    }

    fn hold(&self, mut held: Held, announced: &Announced) {
        if self.rules.kind == Kind::Passing {
            // The messages before are done with.
            self.ticket.arriving.forget();
        }
        if self.rules.kind == Kind::Stream {
            if announced.grown > 0 {
                // The message is not complete yet, so nobody has taken it.
                self.ticket.grown(held.split(announced.grown));
            }
            self.ticket.arriving.absorb(held);
            for bytes in &announced.begun {
                self.ticket.arrived(self.ticket.arriving.part(*bytes));
            }
        } else {
            self.ticket.arriving.absorb(held);
        }
    }

    fn budget(&self) -> &Budget {
        self.ticket.arriving.budget()
    }

    fn refuse(&self, failure: &Failure) -> BoxError {
        self.ticket.is_refused.store(true, Ordering::Relaxed);
        Box::new(errors::into_status(failure, None))
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some((_, _, waiting)) = &mut this.waiting {
            let held = ready!(waiting.as_mut().poll(context));
            let (bytes, announced, _) = this.waiting.take().expect("just looked at");
            return Poll::Ready(Some(match held {
                Ok(held) => {
                    this.hold(held, &announced);
                    Ok(Frame::data(bytes))
                }
                Err(failure) => Err(this.refuse(&failure)),
            }));
        }
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let Some(bytes) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
        let announced = match this.announced(bytes) {
            Ok(announced) => announced,
            Err(failure) => return Poll::Ready(Some(Err(this.refuse(&failure)))),
        };
        let sum = announced.sum();
        if sum == 0 {
            return Poll::Ready(Some(Ok(frame)));
        }
        let share = this.rules.share;
        match this.budget().charge(share, sum) {
            Ok(held) => {
                this.hold(held, &announced);
                Poll::Ready(Some(Ok(frame)))
            }
            Err(failure) => match this.rules.wait(this.budget(), sum) {
                Some(waiting) => {
                    let bytes = frame.into_data().unwrap_or_else(|_| unreachable!("just looked at"));
                    this.waiting = Some((bytes, announced, waiting));
                    self.poll_frame(context)
                }
                None => Poll::Ready(Some(Err(this.refuse(&failure)))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.waiting.is_some() { SizeHint::default() } else { self.inner.size_hint() }
    }
}
