//! What `raftq up` sees of its nodes: what each is, and whether one leads.

use super::super::cluster::role_of;
use super::ending::last_words;
use super::{Nodes, POLL, Up};
use raftqueue_client::{Client, v1};
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, JoinSet};

/// How long a cluster may take to elect a leader before a message says that something is wrong.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The same of a cluster that had one before.
const LEADER_AGAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the others may take to follow the first leader of a new cluster, before the first table is shown.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(20);
/// The same of a cluster that had one before: a node of it may have lost its disk, and waits to be added.
const FOLLOW_AGAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may take to say what it is.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// A node that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) name: String,
    pub(super) term: u64,
    pub(super) cluster_id: String,
}

impl Up {
    /// The node that leads, once one does. A cluster that was formed before may have lost its quorum: then nobody leads, and its
    /// nodes go on, so that somebody can look at them and recover.
    pub(super) async fn wait_for_leader(&self, nodes: &mut Nodes) -> Result<Option<Leader>, String> {
        let begun = Instant::now();
        let patience = if nodes.is_formed { LEADER_AGAIN_TIMEOUT } else { LEADER_TIMEOUT };
        loop {
            let ended: Vec<_> =
                (0..nodes.all.len()).filter_map(|index| Some((index, nodes.ending(index)?))).collect();
            let may_go_on = nodes.is_formed && ended.len() < nodes.all.len();
            if let Some((index, ending)) = ended.first().filter(|_| !may_go_on) {
                let log = nodes.folder.log(nodes.all[*index].index);
                return Err(format!("node-{index} {}; its log is {}", ending.text, log.display()));
            }
            if let Some(leader) = leader_of(&self.statuses(nodes).await) {
                return Ok(Some(leader));
            }
            if begun.elapsed() > patience {
                if nodes.is_formed {
                    return Ok(None);
                }
                let node = &nodes.all[0];
                let words = last_words(&nodes.folder.log(node.index), node.log_begun).unwrap_or_default();
                return Err(format!("no leader after {} s; node-0 said last: {words}", patience.as_secs()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits a little until all nodes that run follow the leader.
    pub(super) async fn wait_for_followers(&self, nodes: &Nodes) {
        let begun = Instant::now();
        let patience = if nodes.is_formed { FOLLOW_AGAIN_TIMEOUT } else { FOLLOW_TIMEOUT };
        let follows = |status: &Option<v1::StatusResponse>| {
            status.as_ref().is_some_and(|status| matches!(role_of(status), "leader" | "follower" | "learner"))
        };
        while begun.elapsed() < patience && !self.statuses(nodes).await.iter().all(follows) {
            tokio::time::sleep(POLL).await;
        }
    }

    /// What each node says of itself, in order.
    pub(super) async fn statuses(&self, nodes: &Nodes) -> Vec<Option<v1::StatusResponse>> {
        statuses(nodes.all.iter().map(|node| self.endpoint(node.index)).collect()).await
    }

    /// Looks for the leader aside, while the nodes are looked after. `None` in the end: nobody leads for long.
    pub(super) fn look_for_leader(&self, nodes: &Nodes) -> JoinHandle<Option<Leader>> {
        let endpoints: Vec<String> = nodes.all.iter().map(|node| self.endpoint(node.index)).collect();
        tokio::spawn(async move {
            let begun = Instant::now();
            while begun.elapsed() < LEADER_AGAIN_TIMEOUT {
                let leader = leader_of(&statuses(endpoints.clone()).await);
                if leader.is_some() {
                    return leader;
                }
                tokio::time::sleep(POLL).await;
            }
            None
        })
    }
}

/// Asks all at once.
async fn statuses(endpoints: Vec<String>) -> Vec<Option<v1::StatusResponse>> {
    let mut asking = JoinSet::new();
    for (position, endpoint) in endpoints.into_iter().enumerate() {
        asking.spawn(async move {
            let client =
                Client::connect([endpoint.clone()]).ok().map(|client| client.with_timeout(STATUS_TIMEOUT));
            let status = match client {
                Some(client) => client.status(&endpoint).await.ok(),
                None => None,
            };
            (position, status)
        });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by_key(|(position, _)| *position);
    answers.into_iter().map(|(_, status)| status).collect()
}

/// The node that says it leads; of several the one of the latest term.
pub(super) fn leader_of(statuses: &[Option<v1::StatusResponse>]) -> Option<Leader> {
    let leading = statuses.iter().flatten().filter(|status| role_of(status) == "leader");
    let latest = leading.max_by_key(|status| status.term)?;
    Some(Leader { name: latest.name.clone(), term: latest.term, cluster_id: latest.cluster_id.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_the_one_of_the_latest_term() {
        let status = |name: &str, role: v1::Role, term| {
            Some(v1::StatusResponse { name: name.into(), role: role.into(), term, ..Default::default() })
        };
        let old = status("node-0", v1::Role::Leader, 2);
        let new = status("node-1", v1::Role::Leader, 3);
        let follower = status("node-2", v1::Role::Follower, 4);
        let led = |statuses: &[Option<v1::StatusResponse>]| leader_of(statuses).map(|leader| leader.name);
        assert_eq!(led(&[old.clone(), new, None, follower.clone()]).as_deref(), Some("node-1"));
        assert_eq!(led(&[None, old]).as_deref(), Some("node-0"));
        assert_eq!(led(&[None, follower]), None);
    }
}
