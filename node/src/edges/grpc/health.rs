//! `grpc.health.v1.Health`: serving while the node is ready, as it says itself.
//!
//! Nothing is stored or pushed. Every answer, and every look of a watcher, reads the node's own view.

use crate::edges::edge::Edge;
use crate::edges::service::Service;
use raftqueue_proto::v1::{admin_server, queue_server};
use std::pin::Pin;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::IntervalStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_check_response::ServingStatus as Wire;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// How often the stream of a watcher looks.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// What can be asked for: the node as a whole, by the empty name, or one of its services.
const SERVICES: [&str; 3] = ["", queue_server::SERVICE_NAME, admin_server::SERVICE_NAME];

/// The service, ready to be routed to.
pub(super) fn server<S: Service>(edge: Edge<S>) -> HealthServer<NodeHealth<S>> {
    HealthServer::new(NodeHealth(edge))
}

/// Health as the node itself sees it.
pub(super) struct NodeHealth<S>(Edge<S>);

#[tonic::async_trait]
impl<S: Service> Health for NodeHealth<S> {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        call: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = call.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found(format!("{service}: no such service")));
        }
        Ok(Response::new(answer(look(&self.0))))
    }

    async fn watch(&self, call: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&call.into_inner().service.as_str());
        let edge = self.0.clone();
        let mut interval = tokio::time::interval(WATCH_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = None;
        let changes = IntervalStream::new(interval).filter_map(move |_| {
            let now = if known { look(&edge) } else { Wire::ServiceUnknown };
            (said.replace(now) != Some(now)).then(|| Ok(answer(now)))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

fn look<S: Service>(edge: &Edge<S>) -> Wire {
    let serving = if edge.local_status().not_ready.is_none() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    serving.into()
}

fn answer(status: Wire) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
