//! `raftq status` and `raftq transfer`.

use crate::failure::Failure;
use crate::output::{Format, Output, Table};
use clap::Args;
use raftqueue_client::{Client, Error, v1};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::task::JoinSet;

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq status
  raftq status -o json | jq 'select(.view == \"cluster\").leader'
  raftq status --leader
  watch raftq status

Each endpoint says what it knows, which may be out of date; LAG is what the leader knows. Exit code 0 says that the
cluster has a leader with a quorum, whatever single nodes say.")]
pub(crate) struct Status {
    /// Print nothing but the leader's name
    #[arg(long)]
    leader: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq transfer
  raftq transfer raftqueue-2")]
pub(crate) struct Transfer {
    /// A node by name or id [default: the follower that is furthest]
    to: Option<String>,
}

impl Status {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        if self.leader {
            let cluster = client.cluster_status(v1::ClusterStatusRequest {}).await?;
            let leader = leader_name(&cluster);
            return output.say(leader, &json!({"leader": cluster.leader, "node": leader}));
        }
        let own = own_views(client).await;
        let cluster = client.cluster_status(v1::ClusterStatusRequest {}).await;
        let lags = cluster.as_ref().map(lags).unwrap_or_default();
        let mut table =
            Table::new(&["ENDPOINT", "NODE", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "READY", "NOTE"]);
        for (position, endpoint) in client.endpoints().iter().enumerate() {
            match &own[&position] {
                Ok(status) => table.add(row(endpoint, status, &lags), own_json(endpoint, status)),
                Err(error) => {
                    let mut cells = vec![String::from("-"); 9];
                    cells[0].clone_from(endpoint);
                    cells[8].clone_from(&error.text);
                    table.add(cells, json!({"view": "own", "endpoint": endpoint, "error": error.text}));
                }
            }
        }
        output.print(&table)?;
        let cluster = cluster.map_err(|error| Failure::from(error).within("the cluster's view"))?;
        match output.format {
            // Lines of nodes only: what `cut` and `awk` go by.
            Format::Plain => Ok(()),
            Format::Table | Format::Json => output.say(&sentence(&cluster), &cluster_json(&cluster)),
        }
    }
}

impl Transfer {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let leader = client.transfer_leadership(v1::TransferLeadershipRequest { to: self.to }).await?.leader;
        output.say(&format!("node {leader} leads now"), &json!({"leader": leader}))
    }
}

/// Asks every endpoint at once, so that one that is down delays nothing.
async fn own_views(client: &Client) -> BTreeMap<usize, Result<v1::StatusResponse, Error>> {
    let mut asking = JoinSet::new();
    for (position, endpoint) in client.endpoints().iter().cloned().enumerate() {
        let client = client.clone();
        asking.spawn(async move { (position, client.status(&endpoint).await) });
    }
    asking.join_all().await.into_iter().collect()
}

/// How far each node is behind, as the leader sees it, by node id.
fn lags(cluster: &v1::ClusterStatusResponse) -> BTreeMap<String, u64> {
    cluster.members.iter().map(|member| (member.id.clone(), member.lag)).collect()
}

fn role_name(role: v1::Role) -> &'static str {
    match role {
        v1::Role::Leader => "leader",
        v1::Role::Candidate => "candidate",
        v1::Role::Follower | v1::Role::Unspecified => "follower",
    }
}

fn row(endpoint: &str, status: &v1::StatusResponse, lags: &BTreeMap<String, u64>) -> Vec<String> {
    vec![
        endpoint.to_owned(),
        status.name.clone(),
        role_name(status.role()).to_owned(),
        status.term.to_string(),
        status.commit.to_string(),
        status.applied.to_string(),
        lags.get(&status.node_id).map_or("-".into(), ToString::to_string),
        if status.ready { "yes".into() } else { "no".into() },
        status.not_ready_reason.clone(),
    ]
}

fn own_json(endpoint: &str, status: &v1::StatusResponse) -> Value {
    json!({
        "view": "own",
        "endpoint": endpoint,
        "node": status.name,
        "node_id": status.node_id,
        "cluster_id": status.cluster_id,
        "generation": status.generation,
        "version": status.version,
        "role": role_name(status.role()),
        "term": status.term,
        "leader": status.leader,
        "leader_address": status.leader_address,
        "commit": status.commit,
        "applied": status.applied,
        "last": status.last,
        "ready": status.ready,
        "not_ready_reason": status.not_ready_reason,
    })
}

fn leader_name(cluster: &v1::ClusterStatusResponse) -> &str {
    let leader = cluster.members.iter().find(|member| member.id == cluster.leader);
    leader.map_or(cluster.leader.as_str(), |leader| leader.name.as_str())
}

fn sentence(cluster: &v1::ClusterStatusResponse) -> String {
    let voters = cluster.members.iter().filter(|member| member.voter).count();
    let active = cluster.members.iter().filter(|member| member.voter && member.active).count();
    let leader = leader_name(cluster);
    format!(
        "cluster {}: {leader} leads in term {}, {active} of {voters} voters active, commit {}, version {}",
        cluster.cluster_id, cluster.term, cluster.commit, cluster.version
    )
}

fn cluster_json(cluster: &v1::ClusterStatusResponse) -> Value {
    let member = |member: &v1::Member| {
        json!({
            "node": member.name,
            "node_id": member.id,
            "client_address": member.client_address,
            "role": member.role,
            "voter": member.voter,
            "active": member.active,
            "matched": member.matched,
            "lag": member.lag,
        })
    };
    json!({
        "view": "cluster",
        "cluster_id": cluster.cluster_id,
        "generation": cluster.generation,
        "version": cluster.version,
        "leader": cluster.leader,
        "term": cluster.term,
        "commit": cluster.commit,
        "applied": cluster.applied,
        "members": cluster.members.iter().map(member).collect::<Vec<_>>(),
    })
}
