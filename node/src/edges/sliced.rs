//! Answers that are encoded while they are sent: a slice at a time, when the connection has room for it.
//!
//! A full answer has 16 MiB of messages. Encoded at once, it would be held twice, and would hold up every other call of
//! its thread. Here the messages are encoded one after the other, in slices of at most [`SLICE_BYTES`]; large bodies
//! are not copied at all. Each slice carries its part of what the call holds of the budget, so that it counts until the
//! connection has written it.

use crate::api::budget::{Account, bytes_with};
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use raftqueue_proto::text::base64;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Most bytes of one slice. A piece of text may exceed it a little when it is escaped.
pub(crate) const SLICE_BYTES: usize = 64 << 10;
/// Pieces that are shorter are copied into the slice that is being made. Longer ones are passed on as they are.
const COPIED_BYTES_MAX: usize = 16 << 10;
/// Slices that are shorter are not followed into the connection.
const FOLLOWED_BYTES_MIN: usize = 1 << 10;
/// Bytes that are escaped or made base64 in one step; divisible by three.
const ENCODED_BYTES: usize = 12 << 10;

/// A part of an answer.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Sent as it is.
    Raw(Bytes),
    /// UTF-8, sent as the inside of a JSON string.
    Text(Bytes),
    /// Sent as base64.
    Base64(Bytes),
}

impl Piece {
    /// How many bytes are sent for it.
    fn length(&self) -> usize {
        match self {
            Piece::Raw(bytes) => bytes.len(),
            Piece::Text(text) => text.len() + text.iter().map(|byte| escaped_bytes(*byte) - 1).sum::<usize>(),
            Piece::Base64(bytes) => bytes.len().div_ceil(3) * 4,
        }
    }

    /// The inside of a JSON string: the text, or base64 for bytes that are not text. True if it is text.
    pub(crate) fn json(bytes: Bytes) -> (Self, bool) {
        if std::str::from_utf8(&bytes).is_ok() {
            (Piece::Text(bytes), true)
        } else {
            (Piece::Base64(bytes), false)
        }
    }
}

/// Makes the pieces of one message after the other.
type Messages = Box<dyn Iterator<Item = VecDeque<Piece>> + Send>;

/// The body of such an answer.
pub(crate) struct Sliced {
    pieces: VecDeque<Piece>,
    messages: Messages,
    account: Arc<Account>,
    trailers: Option<HeaderMap>,
    /// How much of it is to come, if that is known before.
    length: Option<u64>,
    /// A long slice was made just now, so other calls of this thread come first.
    is_others_turn: bool,
    is_over: bool,
}

impl std::fmt::Debug for Sliced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sliced").field("account", &self.account).finish_non_exhaustive()
    }
}

impl Sliced {
    /// An answer of these messages, and trailers. `account` holds what they are made of.
    pub(crate) fn new(
        messages: impl Iterator<Item = VecDeque<Piece>> + Send + 'static,
        trailers: Option<HeaderMap>,
        account: Arc<Account>,
    ) -> Self {
        Self {
            pieces: VecDeque::new(),
            messages: Box::new(messages),
            account,
            trailers,
            length: None,
            is_others_turn: false,
            is_over: false,
        }
    }

    /// The same for one message, whose length is told in advance.
    pub(crate) fn of_one(pieces: VecDeque<Piece>, account: Arc<Account>) -> Self {
        let length = pieces.iter().map(Piece::length).sum::<usize>() as u64;
        let mut sliced = Self::new(std::iter::once(pieces), None, account);
        sliced.length = Some(length);
        sliced
    }

    /// The next piece of at most so many bytes; `None` at the end.
    fn next_piece(&mut self) -> Option<Piece> {
        loop {
            match self.pieces.pop_front() {
                Some(Piece::Raw(bytes) | Piece::Text(bytes) | Piece::Base64(bytes)) if bytes.is_empty() => {}
                Some(Piece::Raw(mut bytes)) => {
                    let first = bytes.split_to(bytes.len().min(SLICE_BYTES));
                    self.pieces.push_front(Piece::Raw(bytes));
                    return Some(Piece::Raw(first));
                }
                Some(Piece::Text(mut bytes)) => {
                    // Long text that needs no escape is not copied.
                    let longest = &bytes[..bytes.len().min(SLICE_BYTES)];
                    let plain = longest.iter().position(|byte| is_escaped(*byte)).unwrap_or(longest.len());
                    let is_plain = plain > COPIED_BYTES_MAX;
                    let first = bytes.split_to(if is_plain { plain } else { bytes.len().min(ENCODED_BYTES) });
                    self.pieces.push_front(Piece::Text(bytes));
                    return Some(if is_plain { Piece::Raw(first) } else { Piece::Text(first) });
                }
                Some(Piece::Base64(mut bytes)) => {
                    let first = bytes.split_to(bytes.len().min(ENCODED_BYTES));
                    self.pieces.push_front(Piece::Base64(bytes));
                    return Some(Piece::Base64(first));
                }
                None => self.pieces = self.messages.next()?,
            }
        }
    }

    /// The next slice; empty at the end.
    fn slice(&mut self) -> Bytes {
        let mut slice = BytesMut::new();
        while slice.len() < SLICE_BYTES - COPIED_BYTES_MAX {
            match self.next_piece() {
                None => break,
                Some(Piece::Raw(bytes)) if bytes.len() > COPIED_BYTES_MAX => {
                    if slice.is_empty() {
                        return bytes;
                    }
                    // What is there goes first.
                    self.pieces.push_front(Piece::Raw(bytes));
                    break;
                }
                Some(Piece::Raw(bytes)) => slice.put(bytes),
                Some(Piece::Text(text)) => escape(&text, &mut slice),
                Some(Piece::Base64(bytes)) => slice.put(base64(&bytes).as_bytes()),
            }
        }
        slice.freeze()
    }
}

impl Body for Sliced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut self.is_others_turn) {
            // A socket takes megabytes at once. A dozen such readers would hold up every other call.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let slice = self.slice();
        self.is_others_turn = slice.len() > COPIED_BYTES_MAX;
        if slice.is_empty() {
            self.is_over = true;
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        self.length = self.length.map(|left| left.saturating_sub(slice.len() as u64));
        Poll::Ready(Some(Ok(Frame::data(carrying(slice, &self.account)))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.length == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Bytes of an answer, with their part of what is held for it. Short ones are not followed into the connection.
pub(crate) fn carrying(bytes: Bytes, account: &Arc<Account>) -> Bytes {
    let part = account.part(bytes.len());
    if bytes.len() < FOLLOWED_BYTES_MIN { bytes } else { bytes_with(bytes, part) }
}

impl Drop for Sliced {
    fn drop(&mut self) {
        // The bytes that were sent have their part. No more will be sent.
        self.account.forget();
    }
}

/// True for bytes that must be escaped inside a JSON string.
fn is_escaped(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// How many bytes a byte takes inside a JSON string.
fn escaped_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..b' ' => 6,
        _ => 1,
    }
}

/// Writes text, or any part of it, as the inside of a JSON string.
fn escape(mut text: &[u8], into: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    while let Some(at) = text.iter().position(|byte| is_escaped(*byte)) {
        into.put(&text[..at]);
        let byte = text[at];
        let short = match byte {
            b'"' | b'\\' => Some(byte),
            b'\n' => Some(b'n'),
            b'\r' => Some(b'r'),
            b'\t' => Some(b't'),
            0x08 => Some(b'b'),
            0x0c => Some(b'f'),
            _ => None,
        };
        into.put_u8(b'\\');
        match short {
            Some(short) => into.put_u8(short),
            None => {
                let (high, low) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
                into.put(&[b'u', b'0', b'0', high, low][..]);
            }
        }
        text = &text[at + 1..];
    }
    into.put(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::budget::{Budget, Share};
    use http_body_util::BodyExt;

    const MIB: usize = 1 << 20;

    fn account(budget: &Budget, bytes: usize) -> Arc<Account> {
        let account = Arc::new(Account::new(budget, Share::Replies));
        account.absorb(budget.charge(Share::Replies, bytes).expect("there is room"));
        account
    }

    /// All slices, joined, and the greatest of them.
    async fn sent(mut body: Sliced) -> (Vec<u8>, usize) {
        let (mut all, mut greatest) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let slice = frame.expect("infallible").into_data().expect("no trailers");
            greatest = greatest.max(slice.len());
            all.extend_from_slice(&slice);
        }
        (all, greatest)
    }

    #[tokio::test]
    async fn what_is_sent_in_slices_is_what_would_be_sent_at_once() {
        let budget = Budget::default();
        // Four bytes a character, escapes, and what is no text, all longer than a slice.
        let control: String = (0..0x20_u8).map(char::from).collect();
        let plain = "plain".repeat(SLICE_BYTES);
        let text = format!("{control}{}{plain}", "\u{1F600}\"\\\n\u{1}ä".repeat(MIB / 10));
        let bytes: Vec<u8> = (0..MIB).map(|n| u8::try_from(n % 251).expect("small")).collect();
        let message = |text: &str, bytes: &[u8]| {
            VecDeque::from([
                Piece::Raw(Bytes::from_static(b"[\"")),
                Piece::json(Bytes::copy_from_slice(text.as_bytes())).0,
                Piece::Raw(Bytes::from_static(b"\",\"")),
                Piece::json(Bytes::copy_from_slice(bytes)).0,
                Piece::Raw(Bytes::from_static(b"\"]")),
                Piece::Raw(Bytes::copy_from_slice(bytes)),
            ])
        };
        let body = Sliced::new([message(&text, &bytes)].into_iter(), None, account(&budget, 4 * MIB));
        let (all, greatest) = sent(body).await;
        let quoted = serde_json::to_string(&text).expect("text");
        let expected = [format!("[{quoted},\"{}\"]", base64(&bytes)).as_bytes(), &bytes].concat();
        assert!(all == expected, "{} bytes where {} were due", all.len(), expected.len());
        assert!(greatest <= SLICE_BYTES + 6 * ENCODED_BYTES, "a slice of {greatest} bytes");
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_slice_counts_until_its_last_byte_is_let_go_of() {
        let budget = Budget::default();
        let pieces = VecDeque::from([Piece::Raw(Bytes::from(vec![0; 2 * SLICE_BYTES]))]);
        let mut body = Sliced::new([pieces].into_iter(), None, account(&budget, 2 * SLICE_BYTES));
        let first = body.frame().await.expect("a slice").expect("infallible").into_data().expect("data");
        let kept = first.slice(..1);
        drop(first);
        assert_eq!(budget.used(), 2 * SLICE_BYTES, "one slice is with the connection, one is to come");
        drop(body);
        assert_eq!(budget.used(), SLICE_BYTES, "what is to come is given up");
        drop(kept);
        assert_eq!(budget.used(), 0);
    }
}
