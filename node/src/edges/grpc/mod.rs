//! The gRPC edge: `raftqueue.v1.Queue` and `.Admin`, health and reflection, over a [`Service`].
//!
//! An edge decodes, calls and encodes; it keeps no state. [`crate::wire`] knows how calls, answers, errors and ids
//! stand on the wire. `guard` holds what arrives, `sending` what leaves. The connections are accepted by
//! [`crate::edges::http`], which serves both edges on one port.

mod admin;
pub(crate) mod guard;
mod health;
mod queue;
pub(crate) mod refusals;
pub(crate) mod sending;
mod streams;

use crate::api::limits::{deadline, less_margin};
use crate::edges::edge::Edge;
use crate::edges::gate::{Call, Called};
use crate::edges::service::Service;
use crate::wire::answers;
use crate::wire::calls;
use crate::wire::errors;
use axum::Router;
use guard::Ticket;
use raftqueue_proto::CLIENT_DESCRIPTORS;
use raftqueue_proto::v1::admin_server::AdminServer;
use raftqueue_proto::v1::queue_server::QueueServer;
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Response, Status};

/// The metadata in which a node that does not lead names the leader's client address.
pub const LEADER_METADATA: &str = "raftqueue-leader";

/// The path of the consumers' call.
pub(crate) const CONSUME_PATH: &str = "/raftqueue.v1.Queue/Consume";

/// The routes of all gRPC services, to be merged into the router of the client port.
pub fn router<S: Service>(edge: &Edge<S>) -> Router {
    let bytes_max = edge.limits().frame_bytes_max();
    let (budget, limits) = (edge.budget().clone(), *edge.limits());
    let queue = QueueServer::new(queue::Queue(edge.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(usize::MAX);
    let admin = AdminServer::new(admin::Admin(edge.clone())).max_decoding_message_size(bytes_max);
    const COMPILED: &str = "both descriptor sets were compiled with this program";
    Routes::from(Router::new())
        .add_service(queue)
        .add_service(admin)
        .add_service(health::server(edge.clone()))
        .add_service(reflection().build_v1().expect(COMPILED))
        // What older tools ask for.
        .add_service(reflection().build_v1alpha().expect(COMPILED))
        .into_axum_router()
        .layer(axum::middleware::map_response(refusals::explain))
        .layer(tower::layer::layer_fn(move |inner| guard::Guard::new(inner, budget.clone(), limits)))
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(CLIENT_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Serves one call: read, call, write. If this node does not lead, the leader's address goes with the answer.
async fn serve<S, Q, R>(edge: &Edge<S>, call: tonic::Request<Q>) -> Result<Response<R>, Status>
where
    S: Service,
    Q: calls::Read,
    R: answers::Write,
{
    let asked = grpc_timeout(call.metadata());
    let ticket = call.extensions().get::<Arc<Ticket>>().cloned();
    let called = Called::in_extensions(call.extensions());
    let mut leasing = None;
    let result = match call.into_inner().read() {
        Ok(request) => {
            leasing = edge.leasing(&request);
            let deadline = deadline(asked, request.wait_ms());
            let deadline = if asked.is_some() { less_margin(deadline) } else { deadline };
            edge.call(Call::of_client(called, request, deadline)).await
        }
        Err(failure) => Err(failure),
    };
    let local = edge.local_status();
    let hint = local.leader_hint();
    match result {
        Ok(answer) => {
            let outgoing = edge.outgoing(leasing, &answer);
            let answer = sending::send(ticket.as_ref(), answer, sending::Form::Response);
            let mut response = Response::new(answers::write(answer));
            if let Some(outgoing) = outgoing {
                response.extensions_mut().insert(outgoing);
            }
            add_leader(response.metadata_mut(), hint);
            Ok(response)
        }
        Err(failure) => {
            let mut status = errors::into_status(&failure, hint);
            add_leader(status.metadata_mut(), hint);
            Err(status)
        }
    }
}

/// A stream of answers. If this node does not lead, the leader's address goes with it.
fn hinted<S: Service, T>(edge: &Edge<S>, mut response: Response<T>) -> Response<T> {
    add_leader(response.metadata_mut(), edge.local_status().leader_hint());
    response
}

fn add_leader(metadata: &mut MetadataMap, hint: Option<&str>) {
    // An address that is not ASCII text cannot be a header. It is only a hint.
    if let Some(value) = hint.and_then(|hint| hint.parse().ok()) {
        metadata.insert(LEADER_METADATA, value);
    }
}

/// The deadline in `grpc-timeout`: at most eight digits and a unit. If it cannot be read, it counts as none, as in the
/// libraries.
fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number = digits.parse::<u64>().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
