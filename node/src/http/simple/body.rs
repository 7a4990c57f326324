//! Reading the body of a request, no more of it than is allowed, and parsing it as JSON.

use crate::api::Failure;
use crate::limits::{check_size, invalid};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

/// How far beyond the limit a body is read and thrown away, in bytes: a client that is still writing would otherwise
/// see its connection reset instead of the refusal.
const DISCARDED_BYTES_MAX: usize = 32 << 20;

/// Arrays and objects that may stand in one another. No request has more than a handful.
const NESTING_MAX: usize = 64;

/// What the JSON says.
///
/// # Errors
///
/// It is no JSON, is nested too deeply, or has not the fields that are asked for.
pub(in crate::http) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Failure> {
    // What a request has too much of is skipped by the parser without a limit, however deep it is.
    if is_deeper_than(json, NESTING_MAX) {
        return Err(invalid(format!(
            "body: arrays and objects stand in one another {NESTING_MAX} deep at most"
        )));
    }
    serde_json::from_slice(json).map_err(|error| invalid(format!("body: {error}")))
}

/// True if more than so many arrays and objects are open at once. What is no JSON has some answer too.
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

/// The whole body.
///
/// # Errors
///
/// Too large, or broken off by the client.
pub(in crate::http) async fn read(mut body: Body, bytes_max: usize) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    let mut total = 0usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| invalid(format!("body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        total = total.saturating_add(data.len());
        if total <= bytes_max {
            bytes.extend_from_slice(&data);
        } else if total - bytes_max > DISCARDED_BYTES_MAX {
            break;
        }
    }
    check_size("bytes of the request", total, bytes_max)?;
    Ok(bytes.freeze())
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
