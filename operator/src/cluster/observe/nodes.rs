//! What the nodes say: each its own view, and one of them what the leader says, which is the truth.
//!
//! Nodes are asked at the addresses of their pods, not by names, since DNS may be what is wrong. Here their answers are
//! only bounded; the planner judges them.

use crate::cluster::dial::{endpoint, words};
use crate::cluster::observation::{
    ClusterId, ClusterSeen, MemberSeen, MemberState, Membership, NodeAnswer, NodeSeen, PodSeen, RecoverySeen,
    Standing, WaitingSeen, Way,
};
use futures_util::future::join_all;
use raftqueue_proto::v1::admin_client::AdminClient;
use raftqueue_proto::v1::{
    ClusterStatusRequest, ClusterStatusResponse, Member, MembersRequest, MembersResponse, RecoverRequest,
    RecoverResponse, Role, StatusRequest, StatusResponse,
};
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::transport::Channel;

/// How long a node may take for an answer, connecting included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Most members of a cluster, and nodes that wait, that are read from an answer; there are never as many.
const MEMBERS_MAX: usize = 64;
/// Most sentences about what a recovery costs that are read from an answer.
const COSTS_MAX: usize = 8;

/// Asks every node that can be asked, all at once, and writes down what they say. Returns the leader's view in the
/// newest term that one of them could give; absent if none had a quorum. Takes at most 6 s.
pub async fn ask_all(way: &Way, pods: &mut BTreeMap<String, PodSeen>) -> Option<ClusterSeen> {
    let asked = pods.iter_mut().filter(|(_, pod)| pod.address.is_some());
    let clients = join_all(asked.map(|(name, pod)| async move {
        match ask(way, name, pod).await {
            Ok((client, answer)) => {
                pod.node = NodeSeen::Answered(view(answer));
                Some(client)
            }
            Err(why) => {
                pod.node = NodeSeen::Silent(why);
                None
            }
        }
    }))
    .await;
    // Any node forwards to the leader. A node that is behind does no harm, since the newest term counts.
    let truths = join_all(clients.into_iter().flatten().map(ask_for_truth)).await;
    // Nodes that a forced recovery left behind may find each other and elect a leader of their own: it counts no more.
    let newest = |(cluster, _): &(ClusterSeen, _)| (cluster.generation, cluster.term);
    let (mut cluster, client) = truths.into_iter().flatten().max_by_key(newest)?;
    cluster.membership = ask_for_members(client, &cluster).await;
    Some(cluster)
}

/// Asks every node that has a log what it knows and what it would cost if it went on alone. Nothing is done by that. A node that
/// does not answer, or whose image does not know the question, is left out.
pub(super) async fn ask_what_is_left(
    way: &Way,
    pods: &BTreeMap<String, PodSeen>,
) -> BTreeMap<String, RecoverySeen> {
    let logged =
        pods.iter().filter(|(_, pod)| pod.answer().is_some_and(|answer| answer.cluster_id.is_some()));
    let said = join_all(logged.map(|(name, pod)| async move {
        let call = async {
            let endpoint = endpoint(way, name, pod, ANSWER_TIMEOUT).ok()?;
            let mut client = AdminClient::new(endpoint.connect().await.ok()?);
            Some(client.recover(RecoverRequest::default()).await.ok()?.into_inner())
        };
        Some((name.clone(), recovery(tokio::time::timeout(ANSWER_TIMEOUT, call).await.ok()??)))
    }))
    .await;
    said.into_iter().flatten().collect()
}

fn recovery(said: RecoverResponse) -> RecoverySeen {
    RecoverySeen {
        id: said.node_id,
        generation: said.generation,
        last_term: said.last_term,
        last: said.last,
        commit: said.commit,
        costs: said.costs.into_iter().take(COSTS_MAX).collect(),
        refusal: Some(said.refusal).filter(|why| !why.is_empty()),
        caution: Some(said.caution).filter(|why| !why.is_empty()),
        token: said.token,
    }
}

async fn ask(way: &Way, name: &str, pod: &PodSeen) -> Result<(AdminClient<Channel>, StatusResponse), String> {
    let endpoint = endpoint(way, name, pod, ANSWER_TIMEOUT)?;
    let call = async {
        let channel = endpoint.connect().await.map_err(|error| words(&error))?;
        let mut client = AdminClient::new(channel);
        let answer = client.status(StatusRequest {}).await.map_err(|status| status.message().to_owned())?;
        Ok((client, answer.into_inner()))
    };
    let seconds = ANSWER_TIMEOUT.as_secs();
    tokio::time::timeout(ANSWER_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {seconds} s")))
}

async fn ask_for_truth(mut client: AdminClient<Channel>) -> Option<(ClusterSeen, AdminClient<Channel>)> {
    let call = client.cluster_status(ClusterStatusRequest {});
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, call).await.ok()?.ok()?;
    Some((truth(answer.into_inner())?, client))
}

/// How the members are, as the same leader says in the same term: a later one is asked in the next look.
async fn ask_for_members(mut client: AdminClient<Channel>, cluster: &ClusterSeen) -> Option<Membership> {
    let call = client.members(MembersRequest {});
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, call).await.ok()?.ok()?.into_inner();
    let is_same = answer.term == cluster.term && answer.leader == cluster.leader;
    if is_same { membership(answer) } else { None }
}

fn view(answer: StatusResponse) -> NodeAnswer {
    NodeAnswer {
        leads: answer.role() == Role::Leader,
        cluster_id: ClusterId::parse(&answer.cluster_id),
        generation: answer.generation,
        id: answer.node_id,
        term: answer.term,
        members: members(answer.members),
        ready: answer.ready,
        not_ready_reason: answer.not_ready_reason,
    }
}

fn truth(answer: ClusterStatusResponse) -> Option<ClusterSeen> {
    Some(ClusterSeen {
        id: ClusterId::parse(&answer.cluster_id)?,
        generation: answer.generation,
        leader: answer.leader,
        term: answer.term,
        members: members(answer.members),
        membership: None,
    })
}

/// Absent if there is something in it that this operator does not know: what to do about it is for a newer one to say.
fn membership(answer: MembersResponse) -> Option<Membership> {
    if answer.members.len() > MEMBERS_MAX {
        return None;
    }
    let state = |member: raftqueue_proto::v1::MemberState| {
        let standing = match member.standing.as_str() {
            "voter" => Standing::Voter,
            "learner" => Standing::Learner,
            "leaving" => Standing::Leaving,
            _ => return None,
        };
        let unwell = Some(member.unwell).filter(|why| !why.is_empty());
        Some(MemberState { id: member.id, name: member.name, standing, unwell })
    };
    let waiting = answer.waiting.into_iter().take(MEMBERS_MAX);
    Some(Membership {
        at: answer.configuration_index,
        settled: answer.settled && !answer.joint,
        members: answer.members.into_iter().map(state).collect::<Option<_>>()?,
        waiting: waiting.map(|node| WaitingSeen { id: node.id, name: node.name }).collect(),
    })
}

fn members(members: Vec<Member>) -> Vec<MemberSeen> {
    let seen = |member: Member| MemberSeen { id: member.id, name: member.name, voter: member.voter };
    members.into_iter().take(MEMBERS_MAX).map(seen).collect()
}
