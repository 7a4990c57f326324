//! A forced recovery is written where the identity of the node is kept.

use super::Forming;
use crate::replica::Decision;
use raftqueue_wal::{IdentityError, Recovery};
use std::sync::Arc;

impl Forming {
    /// This node is to go on alone: writes that down, for the next process.
    ///
    /// # Errors
    /// What the disk said; it may count all the same.
    pub(crate) async fn decide_recovery(self: &Arc<Self>, decision: Decision) -> Result<(), String> {
        let forming = Arc::clone(self);
        let decide = move || {
            forming.with_dir(|dir| {
                let node_id = dir.identity().ok_or(IdentityError::NotFormatted)?.node_id;
                let Decision { generation, last, term, configuration } = decision;
                dir.decide_recovery(&Recovery { node_id, generation, last, term, configuration })
            })
        };
        let decided = tokio::task::spawn_blocking(decide).await;
        decided.map_err(|_| "it was cut off".to_owned())?.map_err(|error| error.to_string())
    }
}
