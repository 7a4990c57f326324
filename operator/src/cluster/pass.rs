//! One pass over a `RaftQueue`: `observe, validate, plan, build, apply, status`.

use super::apply::{LOOK, TakeError, advice, apply, certify, mark_claims, own_claims, said, take};
use super::build::build;
use super::observe::observe;
use super::plan::{Correction, NextLook, plan};
use super::status::{self, Written, answer, answer_unseen, under_older_definition};
use super::validate::{asked, validate};
use super::{Clusters, Guarded, Said, events};
use crate::controller::{Looked, Next, PassResult, Unchanged};
use crate::crd::{RaftQueue, RaftQueueStatus, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::events::Event;
use kube::{Api, Client, Resource};
use serde_json::Value;
use std::time::Instant;

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The API server refused a call, or could not be reached.
    #[error("{0}")]
    Call(String),
    /// The status was refused: what the object says of itself is old.
    #[error(
        "cannot write the status: {0}. What the object says of itself is out of date until that is put right; if its definition \
         is older than this operator, by kubectl apply -k deploy"
    )]
    StatusNotWritten(String),
}

/// One pass over the object of this name. It may be cancelled or killed anywhere: the next pass goes on from what it
/// sees.
pub(super) async fn pass(
    metadata: &ObjectMeta,
    context: &Clusters,
    is_first_failure: bool,
) -> Result<Looked<Said>, PassError> {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let client = &context.client;
    // The watch may be behind what the last pass wrote.
    let objects: Api<Guarded> = Api::namespaced(client.clone(), namespace);
    let found = objects.get_opt(name).await.map_err(|error| PassError::Call(error.to_string()))?;
    let Some(DeserializeGuard(object)) = found.filter(|found| found.meta().deletion_timestamp.is_none())
    else {
        // Kubernetes deletes the children by itself.
        return Ok(Looked::until_heard(PassResult::Done));
    };
    let now = Time(Timestamp::now());
    let object = match object {
        Ok(object) => object,
        Err(invalid) => {
            let why = format!("the object cannot be read: {}. Correct it with kubectl edit", invalid.error);
            let before = known_status(client, &invalid.metadata).await;
            let after = answer_unseen(&before, invalid.metadata.generation, Reason::NotReadable, &why, &now);
            write(context, &invalid.metadata, &before, after, &now).await?;
            return Ok(Looked::until_heard(PassResult::NotReadable));
        }
    };
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let asked = asked(&object, &context.node_image).of_operator_in(&context.namespace);
    let refusals = validate(&asked);
    let seen = match Box::pin(observe(client, &asked)).await {
        Ok(seen) => seen,
        Err(error) => {
            let why = format!(
                "cannot look at the cluster: {}{}. It is tried again by itself",
                said(&error),
                advice(LOOK, &error)
            );
            let after = answer_unseen(&before, generation, Reason::CallFailed, &why, &now);
            // The first failure is told, not the second one, that it could not be written down either.
            let _ = write(context, &object.metadata, &before, after, &now).await;
            return Err(PassError::Call(why));
        }
    };
    let plan = plan(&asked, &refusals, &seen);
    let mut told = Vec::new();
    let before = match say_before(context, &object, before, &plan.ahead, &now).await {
        Ok(before) => before,
        Err(error) => return Err(tell_unwritten(context, &object, told, error, is_first_failure).await),
    };
    let mut failure = None;
    let mut is_set_changed = false;
    let is_certified = !plan.certificates.is_empty();
    if is_certified {
        // Pods need them to start.
        match certify(client, &asked, &seen, &plan.certificates).await {
            Ok(()) => told.extend(events::event_of_certificates(&plan.certificates)),
            Err(error) => failure = Some(TakeError::from(error)),
        }
    }
    if let (None, Some(shape)) = (&failure, &plan.shape) {
        match apply(client, &asked, &seen, &build(&asked, shape), &context.known).await {
            Ok(is_changed) => is_set_changed = is_changed,
            Err(error) => failure = Some(TakeError::from(error)),
        }
        if failure.is_none() {
            let corrected = |correction: &Correction| events::event_of_correction(&asked.name, *correction);
            told.extend(plan.corrections.iter().map(corrected));
            told.extend(plan.resized.map(|resized| events::event_of_resizing(resized, &plan.ahead)));
            failure = own_claims(client, &asked, &plan.claims).await.err().map(TakeError::from);
        }
    }
    if let (None, Some(cluster)) = (&failure, plan.cluster_id) {
        failure = mark_claims(client, &asked, cluster, &plan.marks).await.err().map(TakeError::from);
    }
    let mut is_step_taken = false;
    // A template that somebody edited, and that was just put right, makes no pod older.
    let step = plan.step.as_ref().filter(|_| !is_set_changed);
    if let (None, Some(step)) = (&failure, step) {
        match take(client, &asked, &seen, step).await {
            Ok(true) => {
                is_step_taken = true;
                context.metrics.count_step(step.label());
                told.push(events::event_of(step));
            }
            Ok(false) => {}
            Err(error) => failure = Some(error),
        }
    }
    // Something came in between. The next look shows what there is, and nothing has failed.
    let is_race = failure.as_ref().is_some_and(TakeError::is_race);
    let why = failure.filter(|_| !is_race).map(|failure| failure.to_string());
    // Whoever may not watch looks as often as one whose calls fail.
    let why = why.or_else(|| context.blind.told(Instant::now()));
    let after = answer(&asked, &before, generation, &plan, &seen, why.as_deref(), &now);
    let after = match write(context, &object.metadata, &before, after, &now).await {
        Ok(after) => after,
        Err(error) => return Err(tell_unwritten(context, &object, told, error, is_first_failure).await),
    };
    told.extend(events::events(&before, &after));
    context.tell(&object, &told).await;
    if let Some(why) = why {
        return Err(PassError::Call(why));
    }
    // After a change, the object is looked at once more.
    let has_acted = is_set_changed || is_step_taken || is_certified || !plan.marks.is_empty();
    let next = match plan.next_look {
        _ if is_race || has_acted => Next::AtOnce,
        NextLook::Soon => Next::Soon,
        NextLook::Steady => Next::Steady,
    };
    let is_quiet = !is_race && !has_acted && before == after;
    let quiet = is_quiet.then(|| Unchanged {
        version: object.metadata.resource_version.clone(),
        untold: Said { way: seen.way, pods: seen.pods, cluster: seen.cluster },
    });
    Ok(Looked { result: PassResult::Done, next, quiet })
}

/// Tells, beside what there is to tell, that the status was not written: the object cannot tell it itself.
async fn tell_unwritten(
    context: &Clusters,
    object: &RaftQueue,
    mut told: Vec<Event>,
    error: PassError,
    is_first_failure: bool,
) -> PassError {
    if is_first_failure {
        told.push(events::event_of_unwritten_status(&error.to_string()));
    }
    context.tell(object, &told).await;
    error
}

/// Puts the steps ahead into the status before the first of them is taken. Returns the status as it is then.
async fn say_before(
    context: &Clusters,
    object: &RaftQueue,
    before: RaftQueueStatus,
    ahead: &[String],
    now: &Time,
) -> Result<RaftQueueStatus, PassError> {
    if !before.plan.is_empty() || ahead.is_empty() {
        return Ok(before);
    }
    let after = before.clone().with_plan(&before, ahead.to_vec(), now);
    write(context, &object.metadata, &before, after, now).await
}

/// Writes the status, says in it what the definition does not know of it, and returns it as it was written.
async fn write(
    context: &Clusters,
    metadata: &ObjectMeta,
    before: &RaftQueueStatus,
    after: RaftQueueStatus,
    now: &Time,
) -> Result<RaftQueueStatus, PassError> {
    if *before == after && context.lacking.fields().is_empty() {
        show(context, metadata, &after);
        return Ok(after);
    }
    let told = write_once(context, metadata, before, &after, now).await?;
    // What was just learnt from the write goes into the status too.
    match context.lacking.learn(&told.1) {
        true => Ok(write_once(context, metadata, before, &after, now).await?.0),
        false => Ok(told.0),
    }
}

fn show(context: &Clusters, metadata: &ObjectMeta, status: &RaftQueueStatus) {
    context.metrics.show(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
        status,
    );
}

async fn write_once(
    context: &Clusters,
    metadata: &ObjectMeta,
    before: &RaftQueueStatus,
    after: &RaftQueueStatus,
    now: &Time,
) -> Result<(RaftQueueStatus, Written), PassError> {
    let lacking = context.lacking.fields();
    let told = match lacking.is_empty() {
        true => after.clone(),
        false => under_older_definition(after.clone(), before, &lacking, now),
    };
    show(context, metadata, &told);
    match status::write(&context.client, metadata, &told).await {
        Ok(written) => Ok((told, written)),
        Err(error) => Err(PassError::StatusNotWritten(said(&error))),
    }
}

/// The status of an object that cannot be read as a whole, as far as the status can be read.
async fn known_status(client: &Client, metadata: &ObjectMeta) -> RaftQueueStatus {
    let resource = kube::api::ApiResource::erase::<RaftQueue>(&());
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<kube::api::DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let object = api.get_opt(metadata.name.as_deref().unwrap_or_default()).await.ok().flatten();
    let status = object.and_then(|object| object.data.get("status").cloned()).unwrap_or(Value::Null);
    serde_json::from_value(status).unwrap_or_default()
}
