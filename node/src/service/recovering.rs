//! What a node is asked that may have to go on alone: by its own driver, and nobody else's.

use super::NodeService;
use super::refusals::{left_behind, shutting_down};
use crate::api::{Failure, Reason, Recover, RecoveryInfo};
use crate::driver::inbox::{Order, stopped};
use crate::edges::service::Service;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the driver may take: it writes one file, and on a disk that hangs nobody knows what becomes of that.
const ANSWER_MAX: Duration = Duration::from_secs(5);

impl NodeService {
    /// Refuses calls from now on, since the cluster was forced to recover without this node.
    pub(crate) fn is_left_behind(&self) {
        self.inner.left_behind.store(true, Ordering::Relaxed);
        self.stop();
    }

    /// Why no call is taken any more.
    pub(super) fn why_stopping(&self) -> Failure {
        if self.inner.left_behind.load(Ordering::Relaxed) { left_behind() } else { shutting_down() }
    }

    /// Asks this node's own driver, if there is one yet.
    pub(super) async fn ask_to_recover(&self, asked: Recover) -> Result<RecoveryInfo, Failure> {
        if self.inner.bodies.get().is_none() {
            let status = self.local_status();
            let why = status.not_ready.as_deref().unwrap_or("it is starting");
            let text =
                format!("this node has no log of a cluster to go on with, or has not read it yet: {why}");
            return Err(Failure::not_done(Reason::FailedPrecondition, text));
        }
        let (reply, answer) = oneshot::channel();
        if self.inner.orders.send(Order::Recover(asked, reply)).await.is_err() {
            let is_behind = self.inner.left_behind.load(Ordering::Relaxed);
            return Err(if is_behind { left_behind() } else { stopped() });
        }
        let text = "the node does not answer; ask it again what it knows";
        let late = Failure::unknown(Reason::DeadlineExceeded, text);
        match tokio::time::timeout(ANSWER_MAX, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(stopped())),
            Err(_) => Err(late),
        }
    }
}
