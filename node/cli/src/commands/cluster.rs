//! `raftq status` and `raftq transfer`.

use super::{peers, storage};
use crate::failure::{Failure, beside};
use crate::output::{Format, Output, Table};
use clap::Args;
use raftqueue_client::{Client, v1};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::task::JoinSet;

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq status
  raftq status -o json | jq 'select(.view == \"cluster\").leader'
  raftq status --leader
  raftq status --storage
  raftq status --peers
  watch raftq status

Each endpoint says what it knows, which may be out of date; LAG is what the leader knows. Without --endpoints those are
the members of the cluster that is found. Exit code 0 says that the cluster has a leader with a quorum, whatever single
nodes say.

With --storage each node says what it keeps: segments of its log (LOG) and those that left the log and are kept for
their messages (RELEASED), files with messages that outlived their segments (KEPT), how much of the messages in all of
these is not done with as of the last snapshot (LIVE of STORED), the index, age and size of that snapshot, and what the
data directory takes on its disk (USED) and what is free there (FREE). A node that is far behind fetches a snapshot and
then the messages: NOTE says how many are to come. Exit code 0 says that some node answered.

With --peers each node says where it finds each other member (ADDRESS, where it was reached last; - if never), whether it
hears from it (HEARD), and where that one's clients are sent (CLIENTS).")]
pub(crate) struct Status {
    /// Print nothing but the leader's name
    #[arg(long)]
    leader: bool,
    /// Show what each node keeps on its disk instead
    #[arg(long, conflicts_with = "leader")]
    storage: bool,
    /// Show where each node finds each other one instead
    #[arg(long, conflicts_with_all = ["leader", "storage"])]
    peers: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq transfer
  raftq transfer raftqueue-2")]
pub(crate) struct Transfer {
    /// A node by name or id [default: the follower that has most of the log]
    to: Option<String>,
}

impl Status {
    pub(super) async fn run(self, client: &Client, are_told: bool, output: &Output) -> Result<(), Failure> {
        if self.leader {
            let cluster = client.cluster_status(v1::ClusterStatusRequest {}).await?;
            let leader = leader_name(&cluster);
            return output.say(leader, &json!({"leader": cluster.leader, "node": leader}));
        }
        let asked = ask(client, client.endpoints().to_vec()).await;
        let own = if are_told { asked } else { of_members(client, asked).await };
        if self.storage {
            return storage::show(client, own, output).await;
        }
        if self.peers {
            return peers::show(&own, output);
        }
        let cluster = client.cluster_status(v1::ClusterStatusRequest {}).await;
        let lags = cluster.as_ref().map(lags).unwrap_or_default();
        let mut table =
            Table::new(&["ENDPOINT", "NODE", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "READY", "NOTE"]);
        for View { endpoint, node, status } in &own {
            match status {
                Ok(status) => table.add(row(endpoint, status, &lags), own_json(endpoint, status)),
                Err(error) => {
                    let error = beside(endpoint, error);
                    let mut cells = vec![String::from("-"); 9];
                    let mut object = json!({"view": "own", "endpoint": endpoint, "error": error});
                    if !endpoint.is_empty() {
                        cells[0].clone_from(endpoint);
                    }
                    if let Some(node) = node {
                        cells[1].clone_from(node);
                        object["node"] = json!(node);
                    }
                    error.clone_into(&mut cells[8]);
                    table.add(cells, object);
                }
            }
        }
        output.print(&table)?;
        let cluster = cluster.map_err(|error| Failure::from(error).within("the cluster's view"))?;
        match output.format {
            // Only lines of nodes, for `cut` and `awk`.
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

/// What a node says of itself, or why it says nothing.
pub(super) struct View {
    /// Where it was asked; empty if nobody knows where it is.
    pub(super) endpoint: String,
    /// Its name, if that is known although it does not answer.
    pub(super) node: Option<String>,
    pub(super) status: Result<v1::StatusResponse, String>,
}

/// Asks all endpoints at once, so that one that is down delays nothing. The answers are in the order given.
pub(super) async fn ask(client: &Client, endpoints: Vec<String>) -> Vec<View> {
    let mut asking = JoinSet::new();
    for (position, endpoint) in endpoints.into_iter().enumerate() {
        let client = client.clone();
        asking.spawn(async move {
            let status = client.status(&endpoint).await.map_err(|error| error.text);
            (position, View { endpoint, node: None, status })
        });
    }
    let mut views = asking.join_all().await;
    views.sort_by_key(|(position, _)| *position);
    views.into_iter().map(|(_, view)| view).collect()
}

/// The members of the cluster that was found, each as it describes itself; if no cluster was found, what was asked.
/// Once a node is found, ports where no node answers do not matter: in a pod there is a single node.
pub(super) async fn of_members(client: &Client, asked: Vec<View>) -> Vec<View> {
    let answers = || asked.iter().filter_map(|view| view.status.as_ref().ok());
    let Some(newest) = answers().max_by_key(|status| status.term) else { return asked };
    let mut members = newest.members.clone();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    // Any node that answers may know where a member is.
    let known = |id: &str| {
        let all = answers().flat_map(|status| &status.members);
        all.filter(|member| member.id == id)
            .map(|member| &member.client_address)
            .find(|known| !known.is_empty())
    };
    let endpoints: BTreeMap<String, String> =
        members.iter().filter_map(|member| Some((member.id.clone(), known(&member.id)?.clone()))).collect();
    let is_asked = |id: &str| answers().any(|status| status.node_id == id);
    let others = members.iter().filter(|member| !is_asked(&member.id));
    let others: Vec<String> = others.filter_map(|member| endpoints.get(&member.id)).cloned().collect();
    let mut views: Vec<View> = asked.into_iter().filter(|view| view.status.is_ok()).collect();
    views.extend(ask(client, others).await);
    let mut rows = Vec::new();
    for v1::Member { id, name, .. } in members {
        let endpoint = endpoints.get(&id).cloned().unwrap_or_default();
        let is_of_it = |view: &View| match &view.status {
            Ok(status) => status.node_id == id,
            Err(_) => view.endpoint == endpoint,
        };
        let view = views.iter().position(is_of_it).map(|position| views.swap_remove(position));
        let unheard = "no node that answers knows where it is";
        rows.push(match view {
            Some(view) => View { node: Some(name), ..view },
            None => View { endpoint, node: Some(name), status: Err(unheard.to_owned()) },
        });
    }
    // Also a node that is not a member, or not yet, and one that answers at a member's endpoint.
    rows.extend(views.into_iter().filter(|view| view.status.is_ok()));
    rows
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
    // It is 0 unless the cluster was forced to recover.
    let generation = match cluster.generation {
        0 => String::new(),
        generation => format!(", generation {generation}"),
    };
    format!(
        "cluster {}: {leader} leads in term {}, {active} of {voters} voters active, commit {}, version {}{generation}",
        cluster.cluster_id, cluster.term, cluster.commit, cluster.version
    )
}

fn cluster_json(cluster: &v1::ClusterStatusResponse) -> Value {
    let member = |member: &v1::Member| {
        json!({
            "node": member.name,
            "node_id": member.id,
            "client_address": member.client_address,
            "peer_address": member.peer_address,
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

#[cfg(test)]
mod tests {
    use super::*;
    use raftqueue_node::api::LocalStatus;
    use raftqueue_node::api::{MemberInfo, MemberRole};
    use raftqueue_node::fake::{FakeNode, Served, leading};

    async fn serve() -> Served {
        Served::start(FakeNode::default()).await
    }

    fn member(id: u64, name: &str, client_address: &str) -> MemberInfo {
        MemberInfo {
            id,
            name: name.to_owned(),
            peer_address: String::new(),
            client_address: client_address.to_owned(),
            role: MemberRole::Follower,
            voter: true,
            active: true,
            matched: 0,
            lag: 0,
        }
    }

    fn node(id: u64, name: &str, members: &[MemberInfo]) -> LocalStatus {
        LocalStatus { node_id: Some(id), name: name.to_owned(), members: members.to_vec(), ..leading() }
    }

    /// Endpoint, name and whether it answered, of each row.
    fn seen(views: &[View]) -> Vec<(&str, &str, bool)> {
        views
            .iter()
            .map(|view| {
                let name = match &view.status {
                    Ok(status) => status.name.as_str(),
                    Err(_) => view.node.as_deref().unwrap_or_default(),
                };
                (view.endpoint.as_str(), name, view.status.is_ok())
            })
            .collect()
    }

    fn dead_address() -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("an address").to_string()
    }

    /// In a pod its own node answers where the first node of `raftq up` would be. Nothing answers where the others
    /// would be.
    #[tokio::test]
    async fn members_are_looked_for_where_they_are_and_not_where_they_might_be() {
        let (own, other) = (serve().await, serve().await);
        let (nowhere, away) = (dead_address(), dead_address());
        let members = [
            member(3, "demo-2", &away),
            member(2, "demo-1", &other.endpoint()),
            member(1, "demo-0", &own.endpoint()),
            member(4, "demo-3", ""),
        ];
        own.node.set_status(node(1, "demo-0", &members));
        other.node.set_status(node(2, "demo-1", &members));
        let client = Client::connect([own.endpoint(), nowhere.clone()]).expect("endpoints");
        let asked = ask(&client, client.endpoints().to_vec()).await;
        assert_eq!(seen(&asked), [(own.endpoint().as_str(), "demo-0", true), (nowhere.as_str(), "", false)]);
        let found = of_members(&client, asked).await;
        assert_eq!(
            seen(&found),
            [
                (own.endpoint().as_str(), "demo-0", true),
                (other.endpoint().as_str(), "demo-1", true),
                (away.as_str(), "demo-2", false),
                ("", "demo-3", false),
            ]
        );
    }

    #[tokio::test]
    async fn without_a_cluster_what_was_asked_is_shown() {
        let nowhere = dead_address();
        let client = Client::connect([nowhere.clone()]).expect("endpoints");
        let found = of_members(&client, ask(&client, vec![nowhere.clone()]).await).await;
        assert_eq!(seen(&found), [(nowhere.as_str(), "", false)]);
        // A cluster that has not formed yet has no members.
        let own = serve().await;
        own.node.set_status(node(1, "demo-0", &[]));
        let client = Client::connect([own.endpoint(), nowhere]).expect("endpoints");
        let found = of_members(&client, ask(&client, client.endpoints().to_vec()).await).await;
        assert_eq!(seen(&found), [(own.endpoint().as_str(), "demo-0", true)]);
    }
}
