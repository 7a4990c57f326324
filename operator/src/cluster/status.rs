//! The status of an object: made whole from a plan and what was seen, and written whole, on every path.

use crate::cluster::observation::{MemberSeen, Observation, PodSeen};
use crate::cluster::plan::Plan;
use crate::cluster::validate::Asked;
use crate::crd::{
    ConditionType, Finding, MemberStatus, Phase, RaftQueue, RaftQueueStatus, Reason, RecoveryOffer, Role,
    TlsStatus, Truth, conclude,
};
use crate::names::{self, MANAGER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The status after a pass that saw the cluster. `failure` is what kept the children from being brought in line.
#[must_use]
pub fn answer(
    asked: &Asked,
    before: &RaftQueueStatus,
    generation: Option<i64>,
    plan: &Plan,
    seen: &Observation,
    failure: Option<&str>,
    now: &Time,
) -> RaftQueueStatus {
    let leader = leader(seen);
    let ready = seen.pods.values().filter(|pod| pod.serves()).count();
    let mut findings = plan.findings.clone();
    let (mut phase, mut message) = (plan.phase, plan.message.clone());
    match failure {
        None => findings.push(reconciled(
            true,
            Reason::AsAsked,
            "the last look at the cluster ended without an error",
        )),
        Some(failure) => {
            let message_of_failure = format!("{failure}. It is tried again by itself");
            findings.push(reconciled(false, Reason::CallFailed, &message_of_failure));
            // If the cluster cannot be kept as asked, it does not count as asked, whatever its nodes say.
            for finding in &mut findings {
                if finding.about == ConditionType::Ready && finding.holds == Truth::True {
                    *finding = Finding {
                        about: ConditionType::Ready,
                        ..reconciled(false, Reason::CallFailed, failure)
                    };
                    phase = Phase::Degraded;
                }
            }
            message = message_of_failure;
        }
    }
    let status = RaftQueueStatus {
        observed_generation: generation,
        phase: Some(phase),
        message: Some(message),
        conditions: conclude(&before.conditions, findings, generation, now),
        replicas: Some(seen.set.as_ref().map_or(0, |set| set.pods)),
        ready_replicas: Some(i32::try_from(ready).unwrap_or(i32::MAX)),
        selector: Some(names::as_text(&names::selector(&asked.name))),
        leader: leader.map(|(leader, _)| leader.to_owned()),
        term: leader.map(|(_, term)| i64::try_from(term).unwrap_or(i64::MAX)),
        // Once written, it stays. It also stands on the StatefulSet and the ConfigMap; if it is lost, it comes back
        // from there.
        cluster_id: asked.latched.or(plan.cluster_id).map(|id| id.to_string()),
        generation: asked.latched.or(plan.cluster_id).map(|_| plan.generation.into()),
        recovery: plan.recovery.as_ref().map(|offer| RecoveryOffer {
            member: offer.node.name.clone(),
            token: offer.token.clone(),
            message: offer.text.clone(),
        }),
        image: Some(plan.image.clone()),
        // Nothing is kept of what there never was.
        tls: (seen.set.is_some() || before.tls.is_some()).then(|| {
            let expires = plan.expires.and_then(|moment| Timestamp::from_second(moment).ok()).map(Time);
            TlsStatus { expires, ..plan.encryption.status(&asked.name) }
        }),
        disk_size: seen.disk_size(),
        members: members(plan, seen),
        ..RaftQueueStatus::default()
    };
    let status = status.with_plan(before, plan.ahead.clone(), now);
    // What nobody may try is not late: its time begins when the pause is over.
    let step_since = status.step_since.filter(|_| !asked.spec.paused);
    RaftQueueStatus { step_since, ..status }
}

/// The status after a pass that failed before the cluster could be seen, or of an object that cannot be read. What was
/// known stays, and the conditions say that it may be old.
#[must_use]
pub fn answer_unseen(
    before: &RaftQueueStatus,
    generation: Option<i64>,
    reason: Reason,
    why: &str,
    now: &Time,
) -> RaftQueueStatus {
    let known = ConditionType::ALL.iter().filter_map(|about| earlier(&before.conditions, *about));
    let mut findings: Vec<Condition> = known.collect();
    let fresh = vec![
        Finding { about: ConditionType::Ready, ..reconciled(false, reason, why) },
        reconciled(false, reason, why),
    ];
    for condition in conclude(&before.conditions, fresh, generation, now) {
        findings.retain(|known| known.type_ != condition.type_);
        findings.push(condition);
    }
    findings.sort_by_key(|condition| {
        ConditionType::ALL.iter().position(|about| about.to_string() == condition.type_)
    });
    RaftQueueStatus {
        observed_generation: generation,
        phase: Some(if reason == Reason::NotReadable {
            Phase::Refused
        } else {
            before.phase.unwrap_or(Phase::Pending)
        }),
        message: Some(why.to_owned()),
        conditions: findings,
        ..before.clone()
    }
}

fn earlier(conditions: &[Condition], about: ConditionType) -> Option<Condition> {
    crate::crd::condition(conditions, about).cloned()
}

fn reconciled(holds: bool, reason: Reason, message: &str) -> Finding {
    Finding { about: ConditionType::Reconciled, holds: holds.into(), reason, message: message.to_owned() }
}

/// The same status, saying that the definition of the custom resource does not know some of its fields.
///
/// `before` is the status before this pass: the time of a condition is kept from it.
#[must_use]
pub fn under_older_definition(
    mut status: RaftQueueStatus,
    before: &RaftQueueStatus,
    lacking: &BTreeSet<String>,
    now: &Time,
) -> RaftQueueStatus {
    let is_well = |condition: &&mut Condition| {
        condition.type_ == ConditionType::Reconciled.to_string() && condition.status == "True"
    };
    let Some(reconciled) = status.conditions.iter_mut().find(is_well) else { return status };
    let fields: Vec<&str> = lacking.iter().map(String::as_str).collect();
    let message = format!(
        "the custom resource definition is older than this operator and does not keep {}: install the one that goes with it \
         by kubectl apply -k deploy",
        fields.join(", ")
    );
    let finding = self::reconciled(false, Reason::OlderDefinition, &message);
    let generation = reconciled.observed_generation;
    if let Some(condition) = conclude(&before.conditions, vec![finding], generation, now).pop() {
        *reconciled = condition;
    }
    if status.phase == Some(Phase::Ready) {
        status.message = Some(message);
    }
    status
}

/// What the API server made of a status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Fields that were kept, as `status.field`.
    pub kept: BTreeSet<String>,
    /// Fields that are not there afterwards: the definition does not know them.
    pub lost: BTreeSet<String>,
}

impl Written {
    /// Compares what was sent with what is there.
    fn compare(sent: &Value, there: &Value) -> Self {
        let mut written = Self::default();
        written.walk("status", sent, there);
        written
    }

    fn walk(&mut self, path: &str, sent: &Value, there: &Value) {
        match (sent, there) {
            (Value::Object(fields), there) => {
                for (name, field) in fields {
                    let path = format!("{path}.{name}");
                    match there.get(name) {
                        Some(found) => {
                            self.walk(&path, field, found);
                            self.kept.insert(path);
                        }
                        None => drop(self.lost.insert(path)),
                    }
                }
            }
            (Value::Array(items), Value::Array(found)) => {
                items.iter().zip(found).for_each(|(item, found)| self.walk(path, item, found));
            }
            _ => {}
        }
    }
}

/// Writes the whole status; writing an unchanged one changes nothing. The API server drops fields that the definition
/// does not know, and they are told. A server-side apply would fail because of them, and then nothing at all could be
/// said.
///
/// # Errors
/// What the API server refused. The call names the object by its uid, so an object that was made anew meanwhile does
/// not get this status.
pub async fn write(
    client: &Client,
    metadata: &ObjectMeta,
    status: &RaftQueueStatus,
) -> Result<Written, kube::Error> {
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    // An object that cannot be read gets its status, too. So the reply is not read as an object.
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<RaftQueue>(&()));
    let sent = json!(status);
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": metadata.uid},
        {"op": "add", "path": "/status", "value": sent},
    ]);
    let patch = serde_json::from_value(patch).expect("two well-formed operations");
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let there = api.patch_status(name, &params, &Patch::Json::<()>(patch)).await?;
    Ok(Written::compare(&sent, there.data.get("status").unwrap_or(&Value::Null)))
}

/// The leader and its term, as the cluster itself says.
fn leader(seen: &Observation) -> Option<(&str, u64)> {
    let cluster = seen.cluster.as_ref()?;
    let leader = cluster.members.iter().find(|member| member.id == cluster.leader)?;
    Some((&leader.name, cluster.term))
}

/// Everyone who belongs to the cluster or has a pod for it, by name.
fn members(plan: &Plan, seen: &Observation) -> Vec<MemberStatus> {
    let leader = leader(seen).map(|(name, _)| name);
    let known: BTreeMap<&str, &MemberSeen> = match &seen.cluster {
        Some(cluster) => cluster.members.iter().map(|member| (member.name.as_str(), member)).collect(),
        None => BTreeMap::new(),
    };
    let names: BTreeSet<&str> = plan.nodes.iter().map(String::as_str).chain(known.keys().copied()).collect();
    let one = |name: &str| {
        let pod = seen.pods.get(name);
        let answer = pod.and_then(PodSeen::answer);
        let member = known.get(name).filter(|member| answer.is_none_or(|answer| answer.id == member.id));
        let role = match member {
            Some(_) if leader == Some(name) => Role::Leader,
            Some(member) if member.voter => Role::Follower,
            Some(_) => Role::Learner,
            None if answer.is_some_and(|answer| answer.cluster_id.is_none()) => Role::Waiting,
            None => Role::Unknown,
        };
        let id = answer.map(|answer| answer.id.clone()).or_else(|| member.map(|member| member.id.clone()));
        MemberStatus {
            name: name.to_owned(),
            id: id.filter(|id| !id.is_empty()),
            role,
            ready: pod.is_some_and(PodSeen::serves),
        }
    };
    names.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests;
