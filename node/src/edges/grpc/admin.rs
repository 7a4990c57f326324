//! `raftqueue.v1.Admin`: one line for each call, and the node's own view.

use super::{add_leader, serve};
use crate::api::Failure;
use crate::edges::edge::Edge;
use crate::edges::gate::{Called, Needs};
use crate::edges::service::Service;
use crate::wire::convert::write_status;
use crate::wire::errors;
use crate::wire::recovery::{read_recover, write_recovery};
use crate::wire::storage::write_storage;
use raftqueue_proto::v1::{self, admin_server};
use tonic::{Request, Response, Status};

/// The service.
pub(super) struct Admin<S>(pub(super) Edge<S>);

#[tonic::async_trait]
impl<S: Service> admin_server::Admin for Admin<S> {
    async fn status(&self, call: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let local = self.0.local_status();
        let admitted = self.0.admit(&Called::in_extensions(call.extensions()), "status", Needs::Sight);
        admitted.map_err(|failure| errors::into_status(&failure, local.leader_hint()))?;
        let mut response = Response::new(write_status(&local));
        add_leader(response.metadata_mut(), local.leader_hint());
        Ok(response)
    }

    async fn storage(
        &self,
        call: Request<v1::StorageRequest>,
    ) -> Result<Response<v1::StorageResponse>, Status> {
        let local = self.0.local_status();
        let admitted = self.0.admit(&Called::in_extensions(call.extensions()), "storage", Needs::Sight);
        admitted.map_err(|failure| errors::into_status(&failure, local.leader_hint()))?;
        let mut response = Response::new(write_storage(&local, &self.0.storage().await));
        add_leader(response.metadata_mut(), local.leader_hint());
        Ok(response)
    }

    async fn can_i(&self, call: Request<v1::CanIRequest>) -> Result<Response<v1::CanIResponse>, Status> {
        let called = Called::in_extensions(call.extensions());
        let answered = self.0.can_i(&called, call.get_ref());
        let refuse = |failure: Failure| errors::into_status(&failure, self.0.local_status().leader_hint());
        answered.map(Response::new).map_err(refuse)
    }

    async fn cluster_status(
        &self,
        call: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn transfer_leadership(
        &self,
        call: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn members(
        &self,
        call: Request<v1::MembersRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn add_learner(
        &self,
        call: Request<v1::AddLearnerRequest>,
    ) -> Result<Response<v1::MemberChangeResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn promote(
        &self,
        call: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::MemberChangeResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn remove(
        &self,
        call: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::MemberChangeResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn replace(
        &self,
        call: Request<v1::ReplaceRequest>,
    ) -> Result<Response<v1::MemberChangeResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn raise_version(
        &self,
        call: Request<v1::RaiseVersionRequest>,
    ) -> Result<Response<v1::MemberChangeResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn recover(
        &self,
        call: Request<v1::RecoverRequest>,
    ) -> Result<Response<v1::RecoverResponse>, Status> {
        let called = Called::in_extensions(call.extensions());
        let answered = self.0.recover(&called, read_recover(call.into_inner())).await;
        answered
            .map(|info| Response::new(write_recovery(info)))
            .map_err(|failure| errors::into_status(&failure, self.0.local_status().leader_hint()))
    }
}
