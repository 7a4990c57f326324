//! Reading the body of a request, no more of it than is allowed, and parsing it as JSON.

use crate::api::Failure;
use crate::api::budget::{Account, Budget, Share};
use crate::api::limits::{check_size, invalid};
use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::Instant;

/// How much of a refused body is read and thrown away, in bytes. Otherwise a client that still writes would see its
/// connection reset instead of the refusal.
const DISCARDED_BYTES_MAX: usize = 128 << 20;
/// How long that may take.
const DISCARDED_TIME_MAX: Duration = Duration::from_secs(2);
/// How long nothing may come meanwhile.
const DISCARDED_IDLE_MAX: Duration = Duration::from_millis(100);
/// By how many bytes room is made at a time for a body that does not say how long it is.
const GROWTH_BYTES: usize = 16 << 10;

/// How deep arrays and objects may be nested. No request needs more than a handful.
const NESTING_MAX: usize = 64;

/// What an object of JSON, such as a message or a header, takes at most once it is decoded, besides its texts.
const OBJECT_BYTES: usize = 160;

/// Holds what a body becomes when it is decoded, if that is more than its bytes: five bytes of JSON may stand for a
/// hundred of memory. Holds at most `bytes_max`, so that a body within the limits finds room.
///
/// # Errors
///
/// There is no room.
pub(in crate::edges::http) fn hold_decoded(
    json: &[u8],
    held: &Account,
    bytes_max: usize,
) -> Result<(), Failure> {
    // Braces inside texts count as well: rather too much than too little.
    let objects = json.iter().filter(|byte| **byte == b'{').count();
    let more = (objects * OBJECT_BYTES).min(bytes_max).saturating_sub(held.bytes());
    if more > 0 {
        held.absorb(held.budget().charge(held.share(), more)?);
    }
    Ok(())
}

/// What the JSON says.
///
/// # Errors
///
/// It is not JSON, is nested too deeply, or lacks fields that are asked for.
pub(in crate::edges::http) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Failure> {
    // The parser skips unknown fields without a limit, however deep they are.
    if is_deeper_than(json, NESTING_MAX) {
        return Err(invalid(format!(
            "body: arrays and objects stand in one another {NESTING_MAX} deep at most"
        )));
    }
    serde_json::from_slice(json).map_err(|error| invalid(format!("body: {error}")))
}

/// True if more than so many arrays and objects are open at once. Bytes that are not JSON get some answer, too.
fn is_deeper_than(json: &[u8], depth_max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > depth_max {
            return true;
        }
    }
    false
}

/// How a body is read.
#[derive(Clone, Copy, Debug)]
pub(in crate::edges::http) struct Reading<'a> {
    /// Most bytes of it.
    pub(in crate::edges::http) bytes_max: usize,
    /// Where its bytes are held.
    pub(in crate::edges::http) budget: &'a Budget,
    /// As what.
    pub(in crate::edges::http) share: Share,
    /// The client waits to be asked for the body.
    pub(in crate::edges::http) is_awaited: bool,
}

impl<'a> Reading<'a> {
    /// How the body of a request with these headers is read.
    pub(in crate::edges::http) fn new(
        headers: &HeaderMap,
        budget: &'a Budget,
        share: Share,
        bytes_max: usize,
    ) -> Self {
        let is_awaited = headers.get(EXPECT).is_some_and(|value| value.as_bytes() == b"100-continue");
        Self { bytes_max, budget, share, is_awaited }
    }

    /// The whole body, and what is held for it. If the head says that it is too long, that is enough to refuse it: a
    /// client that waits to be asked for its body is answered at once.
    ///
    /// # Errors
    ///
    /// The body is too large, there is no room for it, or the client broke it off.
    pub(in crate::edges::http) async fn read(self, mut body: Body) -> Result<(Bytes, Account), Failure> {
        let length = body.size_hint().lower();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let account = Account::new(self.budget, self.share);
        let admitted = check_size("bytes of the request", length, self.bytes_max)
            .and_then(|()| self.budget.charge(self.share, length));
        match admitted {
            Ok(held) => account.absorb(held),
            Err(failure) if self.is_awaited => return Err(failure),
            Err(failure) => {
                discard(body).await;
                return Err(failure);
            }
        }
        let mut bytes = BytesMut::with_capacity(length);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| invalid(format!("body: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            let total = bytes.len() + data.len();
            // The body did not say how long it is. Room for it is made as it grows.
            let more = total.saturating_sub(account.bytes());
            let admitted = check_size("bytes of the request", total, self.bytes_max).and_then(|()| {
                if more == 0 {
                    return Ok(());
                }
                let more = more.max(GROWTH_BYTES).min(self.bytes_max - account.bytes());
                self.budget.charge(self.share, more).map(|held| account.absorb(held))
            });
            if let Err(failure) = admitted {
                drop((bytes, account));
                discard(body).await;
                return Err(failure);
            }
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.freeze(), account))
    }
}

/// Reads what a client still sends, so that it sees the refusal and not its connection reset. Not for long, and only
/// while something comes.
async fn discard(mut body: Body) {
    let until = Instant::now() + DISCARDED_TIME_MAX;
    let mut bytes = 0;
    while bytes < DISCARDED_BYTES_MAX && Instant::now() < until {
        match tokio::time::timeout(DISCARDED_IDLE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => bytes += frame.into_data().map_or(0, |data| data.len()),
            _ => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_what_is_open_at_once() {
        for (json, depth) in [
            ("", 0),
            ("1", 0),
            ("[]", 1),
            ("[[], {}, []]", 2),
            (r#"{"a": [{"b": [1]}]}"#, 4),
            (r#"["[[[[", "\"[[[", "\\", [1]]"#, 2),
            ("]]]]", 0),
            ("[[[", 3),
        ] {
            assert!(!is_deeper_than(json.as_bytes(), depth), "{json}");
            assert!(depth == 0 || is_deeper_than(json.as_bytes(), depth - 1), "{json}");
        }
    }
}
