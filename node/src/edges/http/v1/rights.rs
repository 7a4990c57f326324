//! `POST /v1/can-i`: who the caller is, and what it may do, spelled in JSON.

use super::{body, late_body, read_deadline, reply};
use crate::api::Failure;
use crate::api::budget::Share;
use crate::api::limits::{self, invalid};
use crate::edges::edge::Edge;
use crate::edges::gate::Called;
use crate::edges::http::simple::body::Reading;
use crate::edges::http::simple::reply::Reply;
use crate::edges::service::Service;
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use raftqueue_proto::v1;
use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// What: `publish`, `receive`, `browse`, `manage` or `administer`.
    permission: String,
    /// On which topic; empty: whether there is any topic.
    #[serde(default)]
    topic: Option<String>,
}

/// Who the caller is, and whether it may.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Right {
    /// It may.
    allowed: bool,
    /// Who the node takes the caller for.
    caller: String,
    /// The role by which it may; empty if it may not, or where everybody may do everything.
    role: String,
    /// Why it may not, and which rule is missing; or that everybody may do everything.
    reason: String,
}

/// Asks this node's own rights.
pub(super) async fn can_i<S: Service>(
    State(edge): State<Edge<S>>,
    called: Called,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let answered = ask(&edge, &called, &headers, body).await;
    reply(answered).of_node(&edge.local_status())
}

async fn ask<S: Service>(
    edge: &Edge<S>,
    called: &Called,
    headers: &HeaderMap,
    body: Body,
) -> Result<Right, Failure> {
    let reading = Reading::new(headers, edge.budget(), Share::Arriving, limits::JSON_CALL_BYTES_MAX);
    let deadline = limits::deadline(read_deadline(headers)?, 0);
    let read = tokio::time::timeout(deadline, reading.read(body)).await;
    let (bytes, _held) = read.unwrap_or_else(|_| Err(late_body()))?;
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(invalid("body: must be a JSON object"));
    }
    let Asked { permission, topic } = body::parse(&bytes)?;
    let v1::CanIResponse { allowed, caller, role, reason } =
        edge.can_i(called, &v1::CanIRequest { permission, topic: topic.unwrap_or_default() })?;
    Ok(Right { allowed, caller, role, reason })
}
