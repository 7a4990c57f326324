//! Reading the body of a request, and no more of it than is allowed.

use crate::api::Failure;
use crate::limits::{check_size, invalid};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

/// How far beyond the limit a body is read and thrown away, in bytes: a client that is still writing would otherwise
/// see its connection reset instead of the refusal.
const DISCARDED_BYTES_MAX: usize = 32 << 20;

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
