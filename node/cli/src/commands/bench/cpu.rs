//! The processor time of a cluster's nodes, as they say it themselves.

use crate::commands::cluster::{self, View};
use crate::commands::storage;
use raftqueue_client::Client;

/// The nodes of a cluster, and what they had used when it was begun.
pub(super) struct Cpu {
    nodes: Vec<View>,
    before: Vec<Option<u64>>,
}

impl Cpu {
    /// Asks every node that the cluster has now.
    pub(super) async fn begin(client: &Client) -> Self {
        let nodes =
            cluster::of_members(client, cluster::ask(client, client.endpoints().to_vec()).await, false).await;
        let before = each(client, &nodes).await;
        Self { nodes, before }
    }

    /// Microseconds that all nodes together have used since. `None` if one does not say, or was started again meanwhile.
    pub(super) async fn micros(&self, client: &Client) -> Option<u64> {
        let now = each(client, &self.nodes).await;
        let used = now.into_iter().zip(&self.before).map(|(now, before)| now?.checked_sub((*before)?));
        Some(used.sum::<Option<u64>>()? * 1_000)
    }
}

/// What each of them has used, in milliseconds. A node of an older version does not say.
async fn each(client: &Client, nodes: &[View]) -> Vec<Option<u64>> {
    let kept = storage::ask_again(client, nodes).await;
    kept.into_iter().map(|kept| kept.ok().map(|kept| kept.cpu_ms).filter(|ms| *ms > 0)).collect()
}
