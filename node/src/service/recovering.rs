//! What a node is asked that may have to go on alone: by its own driver, and nobody else's.

use super::NodeService;
use crate::api::{Failure, Reason, Recover, RecoveryInfo};
use crate::driver::inbox::{Order, stopped};
use crate::edges::service::Service;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the driver may take: it writes one file, and on a disk that hangs nobody knows what becomes of that.
const ANSWER_MAX: Duration = Duration::from_secs(5);

impl NodeService {
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
            return Err(stopped());
        }
        let text = "the node does not answer; ask it again what it knows";
        let late = Failure::unknown(Reason::DeadlineExceeded, text);
        match tokio::time::timeout(ANSWER_MAX, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(stopped())),
            Err(_) => Err(late),
        }
    }
}
