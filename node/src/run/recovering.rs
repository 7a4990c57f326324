//! A node that is to go on alone: its driver has ended, and this writes down what was decided. The next process carries it out.

use super::{End, Fatal};
use crate::api::LocalStatus;
use crate::api::{Failure, Reason, Role};
use crate::driver::Recovering;
use crate::peers::forming::Forming;
use std::sync::Arc;
use tokio::sync::watch;

/// Writes it down, then answers whoever asked.
pub(super) async fn decide(forming: &Arc<Forming>, recovering: Recovering) -> Result<End, Fatal> {
    let Recovering { decision, info, reply } = recovering;
    tracing::warn!(
        generation = decision.generation,
        last_index = decision.last.0.0,
        last_term = decision.last.1.0,
        term = decision.term.0,
        "this node goes on alone, as it was told: it starts again as the only voter of its cluster"
    );
    match forming.decide_recovery(decision).await {
        Ok(()) => {
            let _ = reply.send(Ok(crate::api::RecoveryInfo { decided: true, ..info }));
            Ok(End::Again)
        }
        Err(text) => {
            let text = format!("the recovery could not be written down, and may count all the same: {text}");
            let _ = reply.send(Err(Failure::unknown(Reason::DataUnreadable, text.clone())));
            Err(Fatal { code: 5, text })
        }
    }
}

/// A node that was left behind says so until it is stopped. It serves nobody: two nodes of its generation that find each other
/// would make a second truth.
pub(super) async fn say(
    status: &watch::Sender<Arc<LocalStatus>>,
    text: &str,
    stopped: impl Future<Output = ()>,
) {
    tracing::error!("{text}");
    status.send_modify(|status| {
        let status = Arc::make_mut(status);
        status.not_ready = Some(text.to_owned());
        (status.role, status.leader, status.leader_address) = (Role::Follower, None, None);
    });
    stopped.await;
}
