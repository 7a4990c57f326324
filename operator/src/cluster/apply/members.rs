//! The calls to the nodes that change who is a member, and who leads.
//!
//! Each names the configuration that it was judged by, so a call that comes late, or twice, is refused. What becomes of a call is
//! never guessed: the next look shows who is a member.

use super::TakeError;
use crate::cluster::dial::{endpoint, words};
use crate::cluster::observation::Observation;
use crate::cluster::plan::{Named, Step};
use raftqueue_proto::status::detail;
use raftqueue_proto::v1::admin_client::AdminClient;
use raftqueue_proto::v1::{
    AddLearnerRequest, PromoteRequest, Reason, RecoverRequest, RemoveRequest, ReplaceRequest,
    TransferLeadershipRequest,
};
use std::time::Duration;
use tonic::transport::Channel;

/// How long connecting to a node may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a change of the members may take. The nodes give up at the same time.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for a change of the members: at the leader, or at another node that answered, which forwards.
///
/// # Errors
/// What the nodes refused, or why none could be asked.
pub(super) async fn change(seen: &Observation, step: &Step) -> Result<(), TakeError> {
    if let Step::Recover { node, token, force, .. } = step {
        return recover(seen, step, node, token, *force).await;
    }
    let mut client = connect(seen).await?;
    let configuration_index = Some(configuration(step));
    let ids = |nodes: &[Named]| nodes.iter().map(|node| node.id.clone()).collect();
    let changed = match step {
        Step::AddLearners { nodes, .. } => {
            let request = AddLearnerRequest { nodes: ids(nodes), configuration_index, dry: false };
            client.add_learner(limited(request)).await
        }
        Step::Promote { nodes, .. } => {
            let request = PromoteRequest { nodes: ids(nodes), configuration_index, dry: false };
            client.promote(limited(request)).await
        }
        Step::Remove { nodes, .. } => {
            let request = RemoveRequest { nodes: ids(nodes), configuration_index, dry: false, force: false };
            client.remove(limited(request)).await
        }
        Step::Replace { old, new, .. } => {
            let (old, new) = (old.id.clone(), new.id.clone());
            let request = ReplaceRequest { old, new, configuration_index, dry: false, force: false };
            client.replace(limited(request)).await
        }
        Step::HandOver { from } => {
            // Whoever leads by now needs no hand-over.
            let leader = seen.cluster.as_ref().map(|cluster| cluster.leader.as_str());
            if leader != Some(from.id.as_str()) {
                return Ok(());
            }
            let request = TransferLeadershipRequest { to: None };
            return client
                .transfer_leadership(limited(request))
                .await
                .map(drop)
                .map_err(|status| refused(step, &status));
        }
        _ => unreachable!("{step:?} is no call to the nodes"),
    };
    changed.map(drop).map_err(|status| refused(step, &status))
}

/// Tells one node to go on alone, and no other one: it would pass this on to nobody.
async fn recover(
    seen: &Observation,
    step: &Step,
    node: &Named,
    token: &str,
    force: bool,
) -> Result<(), TakeError> {
    let failed = |text: String, is_race| TakeError::Nodes { step: step.label(), text, is_race };
    let pod = seen.pods.get(&node.name).filter(|pod| pod.answer().is_some_and(|answer| answer.id == node.id));
    let pod = pod.ok_or_else(|| failed(format!("{} does not answer any more", node.name), true))?;
    let endpoint = endpoint(&seen.way, &node.name, pod, CONNECT_TIMEOUT).map_err(|why| failed(why, false))?;
    let channel = endpoint.connect().await.map_err(|error| failed(words(&error), true))?;
    let request = RecoverRequest { token: Some(token.to_owned()), force };
    let answered = AdminClient::new(channel).recover(limited(request)).await;
    answered.map(drop).map_err(|status| refused(step, &status))
}

fn refused(step: &Step, status: &tonic::Status) -> TakeError {
    let reason = detail(status).map(|detail| detail.reason());
    let is_race = matches!(reason, Some(Reason::StaleConfiguration | Reason::NotLeader | Reason::NoLeader));
    TakeError::Nodes { step: step.label(), text: status.message().to_owned(), is_race }
}

fn configuration(step: &Step) -> u64 {
    match step {
        Step::AddLearners { at, .. }
        | Step::Promote { at, .. }
        | Step::Remove { at, .. }
        | Step::Replace { at, .. } => *at,
        _ => 0,
    }
}

fn limited<T>(request: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(request);
    request.set_timeout(CHANGE_TIMEOUT);
    request
}

/// The leader, where it can be reached; else anybody.
async fn connect(seen: &Observation) -> Result<AdminClient<Channel>, TakeError> {
    let leader = seen.cluster.as_ref().map(|cluster| cluster.leader.as_str());
    let members = seen.pods.iter().filter_map(|(name, pod)| Some((pod.answer()?, name, pod)));
    let members = members.filter(|(answer, ..)| answer.cluster_id.is_some());
    let mut places: Vec<_> =
        members.map(|(answer, name, pod)| (Some(answer.id.as_str()) != leader, name, pod)).collect();
    places.sort_by_key(|(is_other, name, _)| (*is_other, *name));
    let mut why = "no node of the cluster answers".to_owned();
    for (_, name, pod) in places {
        match endpoint(&seen.way, name, pod, CONNECT_TIMEOUT) {
            Ok(endpoint) => match endpoint.connect().await {
                Ok(channel) => return Ok(AdminClient::new(channel)),
                Err(error) => why = words(&error),
            },
            Err(error) => why = error,
        }
    }
    Err(TakeError::Nodes { step: "connect", text: why, is_race: true })
}
