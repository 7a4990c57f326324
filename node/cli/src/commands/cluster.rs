//! `raftq status` and `raftq transfer`.

use super::{peers, storage};
use crate::failure::{Failure, beside};
use crate::output::{Format, Output, Table};
use clap::Args;
use raftqueue_client::{Client, Error, v1};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a node may take to say what it is.
const NODE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a leader may take to come up where no node says that it leads: longer than most elections.
const LEADER_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq status
  raftq status -o json | jq 'select(.view == \"cluster\").leader'
  raftq status --leader
  raftq status --storage
  raftq status --peers
  watch raftq status

Every member of the cluster that is found says what it knows, which may be out \
of date, and so does every endpoint that was named; LAG is what the leader \
knows. Exit code 0 says that the cluster has a leader with a quorum, whatever \
single nodes say. A node that says nothing for two seconds counts as down; where \
none says for a second that it leads, there is no leader.

With --storage each node says what it keeps: segments of its log (LOG) and \
those that left the log and are kept for their messages (RELEASED), files with \
messages that outlived their segments (KEPT), how much of the messages in all \
of these is not done with as of the last snapshot (LIVE of STORED), the index, \
age and size of that snapshot, and what the data directory takes on its disk \
(USED) and what is free there (FREE). A node that is far behind fetches a \
snapshot and then the messages: NOTE says how many are to come. Exit code 0 \
says that some node answered.

With --peers each node says where it finds each other member (ADDRESS, where \
it was reached last; - if never), whether it hears from it (HEARD), and where \
that one's clients are sent (CLIENTS).")]
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
        // Who waits for what is down learns nothing by it.
        let hasty = client.clone().with_timeout(client.timeout().min(NODE_PATIENCE));
        let asked = ask(&hasty, client.endpoints().to_vec()).await;
        if let Some(failure) = nobody(&asked, are_told) {
            return Err(failure);
        }
        let own = of_members(&hasty, asked, are_told).await;
        if self.storage {
            return storage::show(client, own, output).await;
        }
        if self.peers {
            return peers::show(&own, output);
        }
        let is_led =
            own.iter().filter_map(|view| view.status.as_ref().ok()).any(|node| role_of(node) == "leader");
        let patience = if is_led { client.timeout() } else { client.timeout().min(LEADER_PATIENCE) };
        let cluster = client.clone().with_timeout(patience).cluster_status(v1::ClusterStatusRequest {}).await;
        let lags = cluster.as_ref().map(lags).unwrap_or_default();
        let mut table =
            Table::new(&["ENDPOINT", "NODE", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "READY", "NOTE"]);
        for View { endpoint, node, status, .. } in &own {
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
        let cluster = cluster.map_err(|error| unled(&own, error))?;
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
        // Names are for people; if nobody can say it at the moment, the id must do.
        let cluster = client.cluster_status(v1::ClusterStatusRequest {}).await.unwrap_or_default();
        let member = cluster.members.iter().find(|member| member.id == leader);
        let name = member.map_or_else(|| format!("node {leader}"), |member| member.name.clone());
        let json = json!({"leader": leader, "node": member.map(|member| &member.name)});
        output.say(&format!("{name} leads now"), &json)
    }
}

/// That nobody answers where `raftq up` would have its nodes. Where somebody named the endpoints, each has its own line.
fn nobody(asked: &[View], are_told: bool) -> Option<Failure> {
    (!are_told && asked.iter().all(|view| view.is_down)).then(|| Failure::no_cluster(&endpoints_of(asked)))
}

fn endpoints_of(views: &[View]) -> Vec<String> {
    views.iter().map(|view| view.endpoint.clone()).collect()
}

/// Why there is no view of the cluster, by what its nodes say.
fn unled(own: &[View], error: Error) -> Failure {
    use v1::Reason as R;
    let answers = || own.iter().filter_map(|view| view.status.as_ref().ok());
    let count = answers().count();
    if count == 0 {
        // Also what answers and is no node says what it is, each in its line.
        let are_down = own.iter().all(|view| view.is_down);
        return if are_down { Failure::no_cluster(&endpoints_of(own)) } else { Failure::from(error) };
    }
    if !matches!(error.reason, R::NoLeader | R::NotLeader | R::DeadlineExceeded | R::Unspecified) {
        return Failure::from(error).within("the cluster's view");
    }
    let newest =
        answers().max_by_key(|status| status.term).map_or(&[][..], |status| status.members.as_slice());
    let voters = newest.iter().filter(|member| member.voter).count();
    let all = own.len();
    let why = match voters {
        0 => "it is not formed yet, or waits to be added".to_owned(),
        1 => "its only voter does not lead".to_owned(),
        _ if count > voters / 2 => "an election may be under way".to_owned(),
        _ => format!("that takes {} of the {voters} voters", voters / 2 + 1),
    };
    let answer = if count == 1 { "answers" } else { "answer" };
    Failure::Failed(format!("{count} of {all} nodes {answer}, no leader: {why}"))
}

/// What a node says of itself, or why it says nothing.
pub(super) struct View {
    /// Where it was asked; empty if nobody knows where it is.
    pub(super) endpoint: String,
    /// Its name, if that is known although it does not answer.
    pub(super) node: Option<String>,
    pub(super) status: Result<v1::StatusResponse, String>,
    /// It refuses connections: no process runs there.
    pub(super) is_down: bool,
}

/// Asks all endpoints at once, so that one that is down delays nothing. The answers are in the order given.
pub(super) async fn ask(client: &Client, endpoints: Vec<String>) -> Vec<View> {
    let mut asking = JoinSet::new();
    for (position, endpoint) in endpoints.into_iter().enumerate() {
        let client = client.clone();
        asking.spawn(async move {
            let status = client.status(&endpoint).await;
            let is_down = status.as_ref().is_err_and(|error| error.refused_at().is_some());
            let status = status.map_err(|error| error.text);
            (position, View { endpoint, node: None, status, is_down })
        });
    }
    let mut views = asking.join_all().await;
    views.sort_by_key(|(position, _)| *position);
    views.into_iter().map(|(_, view)| view).collect()
}

/// The members of the cluster that was found, each as it describes itself; if no cluster was found, what was asked.
/// Once a node is found, ports where no node answers matter only if somebody named them: in a pod there is a single node.
pub(super) async fn of_members(client: &Client, asked: Vec<View>, are_told: bool) -> Vec<View> {
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
    // One that did not answer is not asked twice.
    let is_known = |view: &View| view.status.is_ok() || are_told || others.contains(&view.endpoint);
    let mut views: Vec<View> = asked.into_iter().filter(is_known).collect();
    let others = others.into_iter().filter(|other| views.iter().all(|view| view.endpoint != *other));
    views.extend(ask(client, others.collect()).await);
    let mut rows = Vec::new();
    for v1::Member { id, name, .. } in members {
        let endpoint = endpoints.get(&id).cloned().unwrap_or_default();
        let is_of_it = |view: &View| match &view.status {
            Ok(status) => status.node_id == id,
            Err(_) => view.endpoint == endpoint,
        };
        let view = views.iter().position(is_of_it).map(|position| views.remove(position));
        let unheard = "no node that answers knows where it is";
        rows.push(match view {
            Some(view) => View { node: Some(name), ..view },
            None => View { endpoint, node: Some(name), status: Err(unheard.to_owned()), is_down: false },
        });
    }
    // Also a node that is not a member, or not yet, one that answers at a member's endpoint, and what was named.
    rows.extend(views.into_iter().filter(|view| view.status.is_ok() || are_told));
    rows
}

/// How far each node is behind, as the leader sees it, by node id.
fn lags(cluster: &v1::ClusterStatusResponse) -> BTreeMap<String, u64> {
    cluster.members.iter().map(|member| (member.id.clone(), member.lag)).collect()
}

/// What a node is, by its own view. One that is in no configuration that it knows waits to be added, or for its cluster to
/// form.
pub(super) fn role_of(status: &v1::StatusResponse) -> &'static str {
    match (status.role(), status.members.iter().find(|member| member.id == status.node_id)) {
        (v1::Role::Leader, _) => "leader",
        (v1::Role::Candidate, _) => "candidate",
        (_, None) => "waiting",
        (_, Some(member)) if !member.voter => "learner",
        (_, Some(_)) => "follower",
    }
}

fn row(endpoint: &str, status: &v1::StatusResponse, lags: &BTreeMap<String, u64>) -> Vec<String> {
    vec![
        endpoint.to_owned(),
        status.name.clone(),
        role_of(status).to_owned(),
        status.term.to_string(),
        status.commit.to_string(),
        status.applied.to_string(),
        lags.get(&status.node_id).map_or("-".into(), ToString::to_string),
        if status.ready { "yes".into() } else { "no".into() },
        note_of(status).to_owned(),
    ]
}

/// What is wrong with a node, or will soon be.
pub(super) fn note_of(status: &v1::StatusResponse) -> &str {
    if status.not_ready_reason.is_empty() { &status.note } else { &status.not_ready_reason }
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
        "role": role_of(status),
        "term": status.term,
        "leader": status.leader,
        "leader_address": status.leader_address,
        "commit": status.commit,
        "applied": status.applied,
        "last": status.last,
        "ready": status.ready,
        "not_ready_reason": status.not_ready_reason,
        "note": status.note,
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

    #[test]
    fn who_is_in_no_configuration_waits_and_who_does_not_vote_learns() {
        let is = |members: Vec<v1::Member>, role: v1::Role| {
            role_of(&v1::StatusResponse {
                node_id: "0a".into(),
                members,
                role: role.into(),
                ..Default::default()
            })
        };
        let member = |id: &str, voter| v1::Member { id: id.into(), voter, ..Default::default() };
        assert_eq!(is(vec![], v1::Role::Follower), "waiting");
        assert_eq!(is(vec![member("0b", true)], v1::Role::Follower), "waiting");
        assert_eq!(is(vec![member("0b", true), member("0a", false)], v1::Role::Follower), "learner");
        assert_eq!(is(vec![member("0a", true)], v1::Role::Follower), "follower");
        assert_eq!(is(vec![member("0a", true)], v1::Role::Candidate), "candidate");
        assert_eq!(is(vec![member("0a", true)], v1::Role::Leader), "leader");
        // Of itself it says that it leads until the removal that it leads is done.
        assert_eq!(is(vec![member("0b", true)], v1::Role::Leader), "leader");
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
        let found = of_members(&client, asked, false).await;
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
        let found = of_members(&client, ask(&client, vec![nowhere.clone()]).await, false).await;
        assert_eq!(seen(&found), [(nowhere.as_str(), "", false)]);
        // A cluster that has not formed yet has no members.
        let own = serve().await;
        own.node.set_status(node(1, "demo-0", &[]));
        let client = Client::connect([own.endpoint(), nowhere]).expect("endpoints");
        let found = of_members(&client, ask(&client, client.endpoints().to_vec()).await, false).await;
        assert_eq!(seen(&found), [(own.endpoint().as_str(), "demo-0", true)]);
    }
}
