//! `POST /v1/recover`: what the asked node knows that may have to go on alone, spelled in JSON. It is asked of that node itself,
//! also where no leader is, so it goes the way of no other call.

use super::requests;
use crate::api::Failure;
use crate::api::budget::Share;
use crate::api::limits::{self, invalid};
use crate::edges::edge::Edge;
use crate::edges::gate::Called;
use crate::edges::http::simple::body::{self, Reading};
use crate::edges::http::simple::reply::Reply;
use crate::edges::service::Service;
use crate::wire::recovery::{read_recover, write_recovery};
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use raftqueue_proto::v1;
use serde::Serialize;

/// One member, as a node sees it that hears no leader.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct RecoveryMember {
    /// Node id, 16 hexadecimal digits.
    id: String,
    /// Its name.
    name: String,
    /// Where the other nodes find it, as HOST:PORT, as the configuration says.
    address: String,
    /// `voter`, `learner` or `leaving`, in the newest configuration that the node has.
    standing: String,
    /// It is the node that was asked.
    own: bool,
    /// The asked node is connected to it.
    heard: bool,
}

/// What a node knows that may have to go on alone.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Recovery {
    /// Node id, 16 hexadecimal digits.
    node_id: String,
    /// Its name.
    name: String,
    /// Its cluster, 32 hexadecimal digits.
    cluster_id: String,
    /// The generation that it is of: how often its cluster was forced to recover.
    generation: u32,
    /// Its term.
    term: u64,
    /// The last index of its log.
    last: u64,
    /// The term of the entry there. Of several survivors the one with the greatest last term, and among those with the
    /// greatest last index, has the most.
    last_term: u64,
    /// Last index that it knows to be committed.
    commit: u64,
    /// Last index applied.
    applied: u64,
    /// Where its newest configuration stands in its log.
    configuration_index: u64,
    /// That configuration is joint: a change of the members was half way.
    joint: bool,
    /// It has the body of every message that it knows to live.
    complete: bool,
    /// Every record of its log verifies, as far as it was read.
    intact: bool,
    /// The members of that configuration, by id.
    members: Vec<RecoveryMember>,
    /// What could be lost, and what else it costs, each in a sentence.
    costs: Vec<String>,
    /// Why it cannot be done; empty if it can.
    refusal: String,
    /// Why it is done only with `force`; empty if it is done without.
    caution: String,
    /// To be given back when it is to be done; empty where it cannot be done. It fits only this state of this node.
    token: String,
    /// It is decided, and survives a power cut: the node starts again, in the next generation.
    decided: bool,
}

impl From<v1::RecoverResponse> for Recovery {
    fn from(answer: v1::RecoverResponse) -> Self {
        Self {
            node_id: answer.node_id,
            name: answer.name,
            cluster_id: answer.cluster_id,
            generation: answer.generation,
            term: answer.term,
            last: answer.last,
            last_term: answer.last_term,
            commit: answer.commit,
            applied: answer.applied,
            configuration_index: answer.configuration_index,
            joint: answer.joint,
            complete: answer.complete,
            intact: answer.intact,
            members: answer.members.into_iter().map(Into::into).collect(),
            costs: answer.costs,
            refusal: answer.refusal,
            caution: answer.caution,
            token: answer.token,
            decided: answer.decided,
        }
    }
}

impl From<v1::RecoveryMember> for RecoveryMember {
    fn from(member: v1::RecoveryMember) -> Self {
        let v1::RecoveryMember { id, name, address, standing, own, heard } = member;
        Self { id, name, address, standing, own, heard }
    }
}

/// Asks the node itself.
pub(super) async fn recover<S: Service>(
    State(edge): State<Edge<S>>,
    called: Called,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let answered = ask(&edge, &called, &headers, body).await;
    super::reply(answered).of_node(&edge.local_status()).counted(edge.budget())
}

async fn ask<S: Service>(
    edge: &Edge<S>,
    called: &Called,
    headers: &HeaderMap,
    body: Body,
) -> Result<Recovery, Failure> {
    let reading = Reading::new(headers, edge.budget(), Share::Arriving, limits::JSON_CALL_BYTES_MAX);
    let deadline = limits::deadline(super::read_deadline(headers)?, 0);
    let read = tokio::time::timeout(deadline, reading.read(body)).await;
    let (bytes, _held) = read.unwrap_or_else(|_| Err(super::late_body()))?;
    let json = if bytes.is_empty() { &b"{}"[..] } else { &bytes };
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(invalid("body: must be a JSON object"));
    }
    let asked: requests::Recover = body::parse(json)?;
    let asked = v1::RecoverRequest { token: asked.token, force: asked.force };
    edge.recover(called, read_recover(asked)).await.map(|info| write_recovery(info).into())
}
