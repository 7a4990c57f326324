//! What the nodes say: each its own view, and one of them what the leader says, which is the truth.
//!
//! Nodes are asked at the addresses of their pods, not by names, since DNS may be what is wrong. Here their answers are
//! only bounded; the planner judges them.

use crate::names;
use crate::observation::{ClusterId, ClusterSeen, MemberSeen, NodeAnswer, NodeSeen, PodSeen};
use futures_util::future::join_all;
use raftqueue_proto::v1::admin_client::AdminClient;
use raftqueue_proto::v1::{
    ClusterStatusRequest, ClusterStatusResponse, Member, Role, StatusRequest, StatusResponse,
};
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// How long a node may take for an answer, connecting included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Most members of a cluster that are read from an answer; there are never as many.
const MEMBERS_MAX: usize = 64;

/// Asks every node that can be asked, all at once, and writes down what they say. Returns the leader's view in the
/// newest term that one of them could give; absent if none had a quorum. Takes at most 4 s.
pub async fn ask_all(pods: &mut BTreeMap<String, PodSeen>) -> Option<ClusterSeen> {
    let asked = pods.iter_mut().filter_map(|(_, pod)| pod.address.clone().map(|address| (pod, address)));
    let clients = join_all(asked.map(|(pod, address)| async move {
        match ask(&address).await {
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
    truths.into_iter().flatten().max_by_key(|cluster| cluster.term)
}

async fn ask(address: &str) -> Result<(AdminClient<Channel>, StatusResponse), String> {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let endpoint = Endpoint::from_shared(format!("http://{host}:{}", names::CLIENT_PORT))
        .map_err(|error| format!("{address} is no address: {error}"))?
        .connect_timeout(ANSWER_TIMEOUT);
    let call = async {
        let channel = endpoint.connect().await.map_err(|error| describe(&error))?;
        let mut client = AdminClient::new(channel);
        let answer = client.status(StatusRequest {}).await.map_err(|status| status.message().to_owned())?;
        Ok((client, answer.into_inner()))
    };
    let seconds = ANSWER_TIMEOUT.as_secs();
    tokio::time::timeout(ANSWER_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {seconds} s")))
}

async fn ask_for_truth(mut client: AdminClient<Channel>) -> Option<ClusterSeen> {
    let call = client.cluster_status(ClusterStatusRequest {});
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, call).await.ok()?.ok()?;
    truth(answer.into_inner())
}

/// An error with its causes: that of the transport alone says only "transport error".
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn view(answer: StatusResponse) -> NodeAnswer {
    NodeAnswer {
        leads: answer.role() == Role::Leader,
        cluster_id: ClusterId::parse(&answer.cluster_id),
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
        leader: answer.leader,
        term: answer.term,
        members: members(answer.members),
    })
}

fn members(members: Vec<Member>) -> Vec<MemberSeen> {
    let seen = |member: Member| MemberSeen { id: member.id, name: member.name, voter: member.voter };
    members.into_iter().take(MEMBERS_MAX).map(seen).collect()
}
