//! `raftqueue.v1.Queue`: one line for each call.

use super::refusals::Explained;
use super::{hinted, serve, streams};
use crate::edges::edge::Edge;
use crate::edges::gate::Called;
use crate::edges::service::Service;
use raftqueue_proto::v1::{self, queue_server};
use tonic::{Request, Response, Status, Streaming};

/// The service.
pub(super) struct Queue<S>(pub(super) Edge<S>);

#[tonic::async_trait]
impl<S: Service> queue_server::Queue for Queue<S> {
    async fn create_topic(
        &self,
        call: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn update_topic(
        &self,
        call: Request<v1::UpdateTopicRequest>,
    ) -> Result<Response<v1::UpdateTopicResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn delete_topic(
        &self,
        call: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn list_topics(
        &self,
        call: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn describe_topic(
        &self,
        call: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn publish(
        &self,
        call: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        serve(&self.0, call).await
    }

    type PublishStreamStream = Explained<streams::Publishing<S>>;

    async fn publish_stream(
        &self,
        call: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let ticket = call.extensions().get().cloned();
        let called = Called::in_extensions(call.extensions());
        let answers = streams::Publishing::new(self.0.clone(), called, call.into_inner(), ticket);
        Ok(hinted(&self.0, Response::new(Explained(answers))))
    }

    type ConsumeStream = Explained<streams::Consuming>;

    async fn consume(
        &self,
        call: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        Ok(hinted(&self.0, streams::consume(self.0.clone(), call).map(Explained)))
    }

    async fn receive(
        &self,
        call: Request<v1::ReceiveRequest>,
    ) -> Result<Response<v1::ReceiveResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn pop(&self, call: Request<v1::PopRequest>) -> Result<Response<v1::PopResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn ack(&self, call: Request<v1::AckRequest>) -> Result<Response<v1::AckResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn nack(&self, call: Request<v1::NackRequest>) -> Result<Response<v1::NackResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn extend(&self, call: Request<v1::ExtendRequest>) -> Result<Response<v1::ExtendResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn release(
        &self,
        call: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn peek(&self, call: Request<v1::PeekRequest>) -> Result<Response<v1::PeekResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn redrive_dead(
        &self,
        call: Request<v1::RedriveDeadRequest>,
    ) -> Result<Response<v1::RedriveDeadResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn purge_dead(
        &self,
        call: Request<v1::PurgeDeadRequest>,
    ) -> Result<Response<v1::PurgeDeadResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn purge(&self, call: Request<v1::PurgeRequest>) -> Result<Response<v1::PurgeResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn open_session(
        &self,
        call: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        serve(&self.0, call).await
    }

    async fn close_session(
        &self,
        call: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        serve(&self.0, call).await
    }
}
