//! What an edge sees of a node: one call, and the node's own view of itself.
//!
//! The edges (gRPC, HTTP, calls forwarded by a peer) know nothing but [`Service`]. They decode, check what
//! [`crate::api::limits`] can check, call, and encode. The service decides whether this node leads, forwards or
//! refuses.

use crate::api::{
    Answer, Failure, LocalStatus, Publish, Reason, Recover, RecoveryInfo, Request, StorageInfo,
};
use crate::edges::gate::Call;
use futures_util::future::BoxFuture;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A node, as its edges use it. Cheap to clone.
pub trait Service: Clone + Send + Sync + Unpin + 'static {
    /// A call that the node's own driver has. Dropping it is like dropping the future of [`Service::call`].
    type Driven: Future<Output = Result<Answer, Failure>> + Send + Unpin + 'static;

    /// Answers one call, which was admitted.
    ///
    /// The answer comes no later than its deadline, if only to say that the time is over. One that a peer passed on is never passed on
    /// again.
    ///
    /// Dropping the future drops a call that was not proposed yet. A call that was proposed runs on, and nobody gets
    /// its answer.
    ///
    /// # Errors
    ///
    /// A [`Failure`] to be passed to the client as it is.
    fn call(&self, call: Call) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// Begins batches that this node's own driver must propose in this order, next to each other if it can. None of
    /// them is passed on: if this node does not lead, each fails with `NOT_LEADER`, not done.
    ///
    /// Returns one [`Begun`] for each batch. Dropping one is like dropping the future of [`Service::call`].
    fn begin(&self, batches: Vec<Publish>, deadline: Duration) -> Vec<Begun<Self::Driven>> {
        let alone = |batch| {
            let own = self.clone();
            let call = Call::of_peer(Request::Publish(batch), deadline);
            Begun::Alone(Box::pin(async move { own.call(call).await }))
        };
        batches.into_iter().map(alone).collect()
    }

    /// What the node says of itself: at once, also without quorum, and possibly out of date.
    fn local_status(&self) -> Arc<LocalStatus>;

    /// What the node keeps on its disk and in memory; all zero where it has no disk. Looks at files: it may block.
    fn storage(&self) -> StorageInfo {
        StorageInfo::default()
    }

    /// What the node knows that may have to go on alone; with the token of such an answer it does.
    ///
    /// # Errors
    ///
    /// It may not be done, or there is nobody who could say.
    fn recover(&self, asked: Recover) -> impl Future<Output = Result<RecoveryInfo, Failure>> + Send {
        drop(asked);
        std::future::ready(Err(Failure::not_done(Reason::FailedPrecondition, "this node has no disk")))
    }
}

/// A call that is under way, and will be answered.
pub enum Begun<D> {
    /// The driver has it, whether this is polled or not.
    Driven(D),
    /// It goes on only while it is polled.
    Alone(BoxFuture<'static, Result<Answer, Failure>>),
    /// It could not begin. The first poll takes the failure.
    Failed(Option<Failure>),
}

impl<D: Future<Output = Result<Answer, Failure>> + Unpin> Future for Begun<D> {
    type Output = Result<Answer, Failure>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Begun::Driven(driven) => Pin::new(driven).poll(context),
            Begun::Alone(call) => call.as_mut().poll(context),
            Begun::Failed(failure) => Poll::Ready(Err(failure.take().expect("polled once it was ready"))),
        }
    }
}
