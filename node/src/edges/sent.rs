//! How much of an answer was put on the wire.
//!
//! Messages that a receive leased and nobody got must go back at once. But an answer that was handed to the HTTP
//! library is not on the wire yet. It waits in the library's buffers while the client's flow control window is shut or
//! its connection takes nothing; if the stream is reset, it is dropped there without a word. So every chunk of a body
//! is counted here as its bytes are taken. The library advances a buffer by what was written to the socket (or copied
//! into the few KiB that it gathers before a write), and drops the buffer when no more of it will be written. When the
//! last buffer is dropped the answer is over, and it is known how much got through.
//!
//! The library drops what waits only if the task that carries the stream is dropped. [`carry`] does so when nothing of
//! what waits was written for [`Sent`]'s patience: the stream is reset (with HTTP/1.1 the connection is closed), and
//! everything that it held comes back. For that the end of a body is held back until the rest is written, because a
//! stream whose end was handed over has no task any more.

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// The longest patience with an answer of which nothing is taken.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// How long an answer whose messages are leased for `lease` may go without a byte being taken before it is given up. It
/// may take twice that time to be noticed. So the messages are back before their lease has ended.
pub(crate) fn patience(lease: Duration) -> Duration {
    (lease / 3).min(PATIENCE_MAX)
}

/// One answer, as its maker sees it.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Bytes of the body that the connection has taken.
    written: AtomicU64,
    /// Bytes that the HTTP library has.
    handed: AtomicU64,
    /// Bytes that are to be written as far as the maker knows.
    expected: AtomicU64,
    /// The maker is woken when so many are written.
    awaited: AtomicU64,
    /// The answer has an end: until that is seen, more is to come.
    ends: bool,
    /// The HTTP library has all of it.
    is_whole: AtomicBool,
    /// The end of the body waits until the rest is written.
    holds_end: AtomicBool,
    /// Nothing more will be written.
    is_over: AtomicBool,
    /// This node has given it up.
    is_given_up: AtomicBool,
    /// Its body is counted.
    is_counted: AtomicBool,
    /// In milliseconds.
    patience: AtomicU64,
    maker: AtomicWaker,
    carrier: AtomicWaker,
}

impl Sent {
    /// From now on the answer is given up when nothing of what waits is taken for so long.
    pub(crate) fn set_patience(&self, patience: Duration) {
        self.patience.store(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.patience.load(Ordering::SeqCst))
    }

    /// Bytes of the body that are on the wire.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// True if this node gave it up because nothing of it was taken.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::SeqCst)
    }

    /// False if the taker of the response does not count its body. Then nothing here has a meaning.
    pub(crate) fn is_counted(&self) -> bool {
        self.is_counted.load(Ordering::SeqCst)
    }

    /// Says that the body will have at least so many bytes. From now on it is watched that they are taken.
    pub(crate) fn expect(&self, bytes: u64) {
        self.expected.fetch_max(bytes, Ordering::SeqCst);
        self.carrier.wake();
    }

    /// Resolves when so many bytes are written, if they ever are. For one waiter at a time, as those below.
    pub(crate) async fn reached(&self, bytes: u64) {
        self.awaited.store(bytes, Ordering::SeqCst);
        self.holds(|sent| sent.written() >= bytes).await;
    }

    /// Resolves when nothing more will be written.
    pub(crate) async fn over(&self) {
        self.holds(|sent| sent.is_over.load(Ordering::SeqCst)).await;
    }

    /// Resolves when there is no reason to write more: the answer is over, or given up. If it is given up, it is over
    /// once its maker has dropped the requests, too.
    pub(crate) async fn ended(&self) {
        self.holds(|sent| sent.is_given_up() || sent.is_over.load(Ordering::SeqCst)).await;
    }

    /// Resolves when this is so.
    async fn holds(&self, is_so: impl Fn(&Self) -> bool) {
        poll_fn(|context| {
            self.maker.register(context.waker());
            if is_so(self) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Bytes that must be written and are not.
    fn unsent(&self) -> u64 {
        let due = self.handed.load(Ordering::SeqCst).max(self.expected.load(Ordering::SeqCst));
        // Parts that are made only when they are taken wait for the client as well.
        let to_come = u64::from(self.ends && !self.is_whole.load(Ordering::SeqCst));
        due.saturating_sub(self.written()) + to_come
    }

    /// Everything that the HTTP library has is written.
    fn is_drained(&self) -> bool {
        self.written() == self.handed.load(Ordering::SeqCst)
    }

    fn took(&self, bytes: usize) {
        let before = self.written.fetch_add(bytes as u64, Ordering::SeqCst);
        let after = before + bytes as u64;
        let awaited = self.awaited.load(Ordering::SeqCst);
        if before < awaited && awaited <= after {
            self.maker.wake();
        }
        if self.holds_end.load(Ordering::SeqCst) && self.is_drained() {
            self.carrier.wake();
        }
    }

    fn give_up(&self) {
        self.is_given_up.store(true, Ordering::SeqCst);
        self.maker.wake();
    }
}

/// Goes with a response to say how much of it was sent. Every chunk of the body holds it, and the last one that goes
/// tells.
#[derive(Clone)]
pub(crate) struct Outgoing(Arc<Last>);

struct Last {
    sent: Arc<Sent>,
    /// To be done if the answer did not get through.
    otherwise: Mutex<Option<Otherwise>>,
}

struct Otherwise {
    /// The answer has one message. Once a part of it was sent, it counts as sent, unless it was given up here.
    /// Otherwise a message that is too large for its client would be sent again for ever.
    is_of_one: bool,
    act: Box<dyn FnOnce() + Send>,
}

impl Outgoing {
    /// For a stream of answers: its maker looks at what was sent.
    pub(crate) fn stream() -> (Arc<Sent>, Self) {
        Self::new(PATIENCE_MAX, None)
    }

    /// For one answer of `messages` messages: if it does not get through whole, `act` is called.
    pub(crate) fn or_else(patience: Duration, messages: usize, act: impl FnOnce() + Send + 'static) -> Self {
        let otherwise = Otherwise { is_of_one: messages == 1, act: Box::new(act) };
        Self::new(patience, Some(otherwise)).1
    }

    fn new(patience: Duration, otherwise: Option<Otherwise>) -> (Arc<Sent>, Self) {
        let sent = Sent {
            written: AtomicU64::new(0),
            handed: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            awaited: AtomicU64::new(u64::MAX),
            ends: otherwise.is_some(),
            is_whole: AtomicBool::new(false),
            holds_end: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_given_up: AtomicBool::new(false),
            is_counted: AtomicBool::new(false),
            patience: AtomicU64::new(0),
            maker: AtomicWaker::new(),
            carrier: AtomicWaker::new(),
        };
        sent.set_patience(patience);
        let sent = Arc::new(sent);
        (Arc::clone(&sent), Self(Arc::new(Last { sent, otherwise: Mutex::new(otherwise) })))
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        self.sent.is_over.store(true, Ordering::SeqCst);
        self.sent.maker.wake();
        let otherwise = self.otherwise.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Otherwise { is_of_one, act }) = otherwise {
            let (written, handed) = (self.sent.written(), self.sent.handed.load(Ordering::SeqCst));
            let is_begun = is_of_one && written > 0 && !self.sent.is_given_up();
            let is_whole = self.sent.is_whole.load(Ordering::SeqCst);
            if !is_begun && (handed == 0 || !is_whole || written < handed) {
                act();
            }
        }
    }
}

thread_local! {
    /// The answer whose response was made in this poll of its carrier.
    static MADE: Cell<Option<Arc<Sent>>> = const { Cell::new(None) };
}

/// The response as it is handed to the HTTP library: counted, if it brings an [`Outgoing`].
pub(crate) fn counted(mut response: Response<axum::body::Body>) -> Response<Counted> {
    let outgoing = response.extensions_mut().remove::<Outgoing>();
    if let Some(outgoing) = &outgoing {
        outgoing.0.sent.is_counted.store(true, Ordering::SeqCst);
        MADE.set(Some(Arc::clone(&outgoing.0.sent)));
    }
    response.map(|body| Counted { body, outgoing, end: None })
}

/// A body whose chunks are counted as they are written.
pub(crate) struct Counted {
    body: axum::body::Body,
    outgoing: Option<Outgoing>,
    /// What comes when everything is written: the trailers, or nothing.
    end: Option<Option<Frame<Chunk>>>,
}

impl Body for Counted {
    type Data = Chunk;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, axum::Error>>> {
        if self.end.is_none() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => Some(frame),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => None,
            };
            let outgoing = self.outgoing.clone();
            if let Some(outgoing) = &outgoing
                && (self.body.is_end_stream() || !frame.as_ref().is_some_and(Frame::is_data))
            {
                outgoing.0.sent.is_whole.store(true, Ordering::SeqCst);
            }
            let frame = frame.map(|frame| {
                frame.map_data(|bytes| {
                    if let Some(outgoing) = &outgoing {
                        outgoing.0.sent.handed.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                    }
                    Chunk { bytes, outgoing }
                })
            });
            if self.outgoing.is_none() || frame.as_ref().is_some_and(Frame::is_data) {
                return Poll::Ready(frame.map(Ok));
            }
            self.end = Some(frame);
        }
        let outgoing = self.outgoing.as_ref().expect("only then is an end held");
        outgoing.0.sent.holds_end.store(true, Ordering::SeqCst);
        outgoing.0.sent.carrier.register(context.waker());
        if !outgoing.0.sent.is_drained() {
            return Poll::Pending;
        }
        let end = self.end.take().expect("it is held");
        // If it is asked again, there is nothing more.
        self.end = Some(None);
        Poll::Ready(end.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.outgoing.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A part of a body.
pub(crate) struct Chunk {
    bytes: Bytes,
    outgoing: Option<Outgoing>,
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(outgoing) = &self.outgoing {
            outgoing.0.sent.took(count);
        }
    }
}

/// Runs the carrier of one stream, or of a connection of HTTP/1.1. Drops it when the answer on it stalls: when nothing
/// of what must be written was written for its patience.
pub(crate) async fn carry<F: Future>(carried: F) {
    let mut carried = pin!(carried);
    let mut watched: Option<Watched> = None;
    poll_fn(|context| {
        let polled = carried.as_mut().poll(context);
        if let Some(sent) = MADE.take() {
            watched = Some(Watched { sent, timer: None });
        }
        if polled.is_ready() || watched.as_mut().is_some_and(|watched| watched.is_stalled(context)) {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

struct Watched {
    sent: Arc<Sent>,
    /// Runs since something waits; and what was written when it was set.
    timer: Option<(Pin<Box<Sleep>>, u64)>,
}

impl Watched {
    fn is_stalled(&mut self, context: &mut Context<'_>) -> bool {
        let Self { sent, timer } = self;
        sent.carrier.register(context.waker());
        if sent.unsent() == 0 || sent.is_over.load(Ordering::SeqCst) {
            // A timer that is set need not be set anew all the time. A timer that has ended would end what comes next.
            if timer.as_ref().is_some_and(|(timer, _)| timer.is_elapsed()) {
                *timer = None;
            }
            return false;
        }
        let (timer, seen) =
            timer.get_or_insert_with(|| (Box::pin(tokio::time::sleep(sent.patience())), sent.written()));
        while timer.as_mut().poll(context).is_ready() {
            let written = sent.written();
            if written == *seen {
                sent.give_up();
                return true;
            }
            *seen = written;
            timer.as_mut().reset(Instant::now() + sent.patience());
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    /// An answer of three pieces that are made one after the other, of which so many are taken before the connection
    /// breaks. True if what it holds goes back.
    async fn goes_back(taken: usize) -> bool {
        let goes_back = Arc::new(AtomicBool::new(false));
        let act = Arc::clone(&goes_back);
        let outgoing = Outgoing::or_else(PATIENCE_MAX, 2, move || act.store(true, Ordering::SeqCst));
        let pieces = [b"one", b"two", b"six"]
            .map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(piece))));
        let body = axum::body::Body::new(StreamBody::new(tokio_stream::iter(pieces)));
        let mut response = Response::new(body);
        response.extensions_mut().insert(outgoing);
        let mut body = counted(response).into_body();
        for _ in 0..taken {
            if let Some(frame) = body.frame().await {
                let Ok(mut chunk) = frame.expect("it is there").into_data() else { panic!("no trailers") };
                chunk.advance(3);
            }
        }
        drop(body);
        goes_back.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn rule_7_4_an_answer_that_is_made_while_it_is_sent_went_through_only_when_all_of_it_was_made() {
        for (taken, goes) in [(0, true), (1, true), (2, true), (4, false)] {
            assert_eq!(goes_back(taken).await, goes, "{taken} of three pieces and an end");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_made_only_as_it_is_taken_is_given_up_when_nothing_is_taken() {
        let outgoing = Outgoing::or_else(PATIENCE_MAX, 2, || {});
        let sent = Arc::clone(&outgoing.0.sent);
        let mut response = Response::new(axum::body::Body::empty());
        response.extensions_mut().insert(outgoing);
        // The client's window is shut from the beginning: the library asks for nothing.
        let stalls = carry(async {
            let _unasked = counted(response);
            std::future::pending::<()>().await;
        });
        tokio::time::timeout(4 * PATIENCE_MAX, stalls).await.expect("it is given up");
        assert!(sent.is_given_up());
    }
}
