//! The loop: a pass over an object whenever something about it changed, and now and then without a cause.
//!
//! A pass is `observe, validate, plan, build, apply, status`, in [`pass`]. The rest is what calls it: the watches, how
//! many passes run at once, how long to wait after a failure. If nothing was heard of a cluster, and its nodes say what
//! they said before, the pass ends there. An object that cannot be read does not hold up the others.

mod memory;

use self::memory::{Key, Memory, Quiet, SPACING};
use crate::apply::{TakeError, apply, mark_claims, own_claims, take};
use crate::build::build;
use crate::crd::{RaftQueue, RaftQueueStatus, Reason};
use crate::events;
use crate::health::Health;
use crate::metrics::PassResult;
use crate::names::{INSTANCE_LABEL, MANAGED_BY_LABEL, MANAGER};
use crate::observe::{ask_all, observe};
use crate::plan::{Correction, NextLook, plan};
use crate::recorder::Recorder;
use crate::status::{self, Written, answer, answer_unseen, under_older_definition};
use crate::validate::{asked, validate};
use futures_util::{StreamExt, future::BoxFuture};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{Action, Config as LoopConfig, Controller};
use kube::runtime::events::Event;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An object as it comes from the API server, readable or not.
type Guarded = DeserializeGuard<RaftQueue>;

/// When to look again at a cluster that is well.
const STEADY: Duration = Duration::from_secs(30);
/// When to look again while something is on its way or wrong.
const SOON: Duration = Duration::from_secs(2);
/// How long changes that come together are gathered.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long a pass may take.
const PASS_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause after a watch broke. Each further break doubles it.
const WATCH_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause after a watch broke. All nine share it and break one after the other, and each may have failed again
/// just before the API server was back.
const WATCH_PAUSE_MAX: Duration = Duration::from_millis(250);
/// How often those that are gone are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// Pauses between attempts to watch, which all watches share. When an API server restarts, all of them break at once,
/// and again while it is not ready yet. With the library's own pauses, of up to 30 s, nothing would be seen for
/// minutes.
#[derive(Debug, Default)]
struct WatchPause {
    breaks: u32,
}

impl Iterator for WatchPause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = WATCH_PAUSE_MIN.saturating_mul(1 << self.breaks.min(16)).min(WATCH_PAUSE_MAX);
        self.breaks = self.breaks.saturating_add(1);
        Some(pause)
    }
}

impl Backoff for WatchPause {
    fn reset(&mut self) {
        self.breaks = 0;
    }
}

/// What every pass needs.
pub struct Context {
    client: Client,
    recorder: Recorder,
    health: Arc<Health>,
    node_image: String,
    /// Its own namespace.
    namespace: String,
    memory: Memory,
}

/// Why a pass failed. The loop tries again, later and later.
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
    /// It took longer than it may.
    #[error("took longer than {} s", PASS_TIMEOUT.as_secs())]
    TimedOut,
}

impl Context {
    /// For an operator of this name, in this namespace.
    #[must_use]
    pub fn new(
        client: Client,
        health: Arc<Health>,
        node_image: String,
        namespace: String,
        identity: String,
    ) -> Self {
        Self {
            recorder: Recorder::new(client.clone(), identity),
            client,
            health,
            node_image,
            namespace,
            memory: Memory::default(),
        }
    }

    async fn tell(&self, object: &RaftQueue, told: &[Event]) {
        let reference = object.object_ref(&());
        for event in told {
            let note = event.note.as_deref().unwrap_or_default();
            tracing::info!(reason = event.reason, "{note}");
            if let Err(error) = self.recorder.publish(event, &reference).await {
                tracing::warn!(%error, reason = event.reason, "cannot write an event");
            }
        }
    }

    /// Forgets every object that is not in the store: one that left it causes no pass that could.
    fn forget_gone(&self, store: &Store<Guarded>) {
        let there = store.state().iter().map(|object| key(object.meta())).collect();
        self.health.metrics.keep_only(&there);
        self.memory.keep_only(&there);
    }

    /// The object to which this child belongs. It is noted that something was heard of it.
    fn heard(&self, owner: Option<ObjectRef<Guarded>>) -> Option<ObjectRef<Guarded>> {
        let owner = owner?;
        self.memory.touch((owner.namespace.clone().unwrap_or_default(), owner.name.clone()));
        Some(owner)
    }
}

/// A task that ends with its owner, even if the owner is dropped.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs the loop until `stop` is done, and finishes the passes that are under way. If it is dropped, it drops them as
/// they are.
pub async fn run(
    context: Arc<Context>,
    namespace: Option<&str>,
    concurrency: u16,
    stop: BoxFuture<'static, ()>,
) {
    // A BoxFuture is not Sync. Only its end matters.
    let (stopped, mut stopping) = tokio::sync::watch::channel(false);
    let _stopper = Aborted(tokio::spawn(async move {
        stop.await;
        stopped.send_replace(true);
    }));
    let client = context.client.clone();
    let ours = watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
    let controller = Controller::new(api::<Guarded>(&client, namespace), watcher::Config::default());
    let store = controller.store();
    let passes = controller
        .with_config(LoopConfig::default().concurrency(concurrency).debounce(DEBOUNCE))
        .watches(
            api::<PartialObjectMeta<Service>>(&client, namespace),
            ours.clone(),
            children(&context, owner_of),
        )
        .watches(
            api::<PartialObjectMeta<ConfigMap>>(&client, namespace),
            ours.clone(),
            children(&context, owner_of),
        )
        .watches(
            api::<PartialObjectMeta<ServiceAccount>>(&client, namespace),
            ours.clone(),
            children(&context, owner_of),
        )
        .watches(
            api::<PartialObjectMeta<PodDisruptionBudget>>(&client, namespace),
            ours.clone(),
            children(&context, owner_of),
        )
        .watches(
            api::<PartialObjectMeta<NetworkPolicy>>(&client, namespace),
            ours.clone(),
            children(&context, owner_of),
        )
        .watches(
            api::<PartialObjectMeta<StatefulSet>>(&client, namespace),
            ours.clone(),
            children(&context, owner_of),
        )
        .watches(api::<PartialObjectMeta<Pod>>(&client, namespace), ours.clone(), children(&context, whose))
        .watches(
            api::<PartialObjectMeta<PersistentVolumeClaim>>(&client, namespace),
            ours,
            children(&context, whose),
        )
        .trigger_backoff(WatchPause::default())
        .graceful_shutdown_on(async move {
            // An error means that the sender is gone, which is the end as well.
            let _ = stopping.wait_for(|stopped| *stopped).await;
        })
        .run(
            reconcile,
            |object, error, context| failed(object.meta(), error, &context),
            Arc::clone(&context),
        );
    let passes = passes.for_each(|ended| async move {
        if let Err(error) = ended {
            tracing::debug!(%error, "a pass or a watch failed");
        }
    });
    let forgetting = async {
        // Before the first list everything would seem to be gone, so wait for it. An error means that the loop has
        // ended.
        if store.wait_until_ready().await.is_ok() {
            loop {
                tokio::time::sleep(FORGET_EVERY).await;
                context.forget_gone(&store);
            }
        }
    };
    tokio::select! {
        () = passes => {}
        () = async { forgetting.await; std::future::pending::<()>().await } => {}
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Finds out for each change of a child whom it concerns.
fn children<K>(
    context: &Arc<Context>,
    owner: fn(&ObjectMeta) -> Option<ObjectRef<Guarded>>,
) -> impl Fn(PartialObjectMeta<K>) -> Option<ObjectRef<Guarded>> + Send + Sync + 'static
where
    K: 'static,
{
    let context = Arc::clone(context);
    move |child| context.heard(owner(&child.metadata))
}

/// The object that controls a child.
fn owner_of(metadata: &ObjectMeta) -> Option<ObjectRef<Guarded>> {
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let is_queue = owner.kind == RaftQueue::kind(&()) && owner.api_version == RaftQueue::api_version(&());
    is_queue.then(|| ObjectRef::new(&owner.name).within(metadata.namespace.as_deref().unwrap_or_default()))
}

/// The object that a pod or a claim belongs to, by its labels: its owner is a StatefulSet, or nobody.
fn whose(metadata: &ObjectMeta) -> Option<ObjectRef<Guarded>> {
    let name = metadata.labels.as_ref()?.get(INSTANCE_LABEL)?;
    Some(ObjectRef::new(name).within(metadata.namespace.as_deref()?))
}

fn failed(object: &ObjectMeta, error: &PassError, context: &Context) -> Action {
    let pause = context.memory.pause(&key(object));
    tracing::warn!(%error, seconds = pause.as_secs_f32(), "a pass failed; trying again");
    Action::requeue(pause)
}

fn key(metadata: &ObjectMeta) -> Key {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&metadata.namespace), text(&metadata.name))
}

async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, PassError> {
    let key = key(object.meta());
    if let Some(early) = context.memory.begin(&key) {
        return Ok(Action::requeue(early));
    }
    let started = Instant::now();
    let version = object.meta().resource_version.as_deref();
    if let Some(quiet) = context.memory.quiet(&key, version, started)
        && Box::pin(nodes_say_the_same(&quiet)).await
    {
        context.health.metrics.count_pass(PassResult::Done, started.elapsed());
        return Ok(Action::requeue(if quiet.is_steady { STEADY } else { SOON }));
    }
    let ended = tokio::time::timeout(PASS_TIMEOUT, Box::pin(pass(object.meta(), &context))).await;
    let (result, action) = match ended {
        Ok(Ok((result, action))) => (result, Ok(action)),
        Ok(Err(error)) => (PassResult::Failed, Err(error)),
        Err(_) => (PassResult::TimedOut, Err(PassError::TimedOut)),
    };
    context.health.metrics.count_pass(result, started.elapsed());
    if action.is_ok() {
        context.memory.forgive(&key);
    }
    action
}

/// Whether the nodes say what they said in the last whole look. In a quiet cluster their state is the only thing that
/// no watch tells, and asking them costs the API server nothing.
async fn nodes_say_the_same(quiet: &Quiet) -> bool {
    let mut pods = quiet.pods.clone();
    let cluster = ask_all(&mut pods).await;
    pods == quiet.pods && cluster == quiet.cluster
}

/// One pass over the object of this name. It may be cancelled or killed anywhere: the next pass goes on from what it
/// sees.
async fn pass(metadata: &ObjectMeta, context: &Context) -> Result<(PassResult, Action), PassError> {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let client = &context.client;
    let began = (Instant::now(), context.memory.touches(&key(metadata)));
    // The watch may be behind what the last pass wrote.
    let objects: Api<Guarded> = Api::namespaced(client.clone(), namespace);
    let found = objects.get_opt(name).await.map_err(|error| PassError::Call(error.to_string()))?;
    let Some(DeserializeGuard(object)) = found.filter(|found| found.meta().deletion_timestamp.is_none())
    else {
        // Kubernetes deletes the children by itself.
        return Ok((PassResult::Done, Action::await_change()));
    };
    let now = Time(Timestamp::now());
    let object = match object {
        Ok(object) => object,
        Err(invalid) => {
            let why = format!("the object cannot be read: {}. Correct it with kubectl edit", invalid.error);
            let before = known_status(client, &invalid.metadata).await;
            let after = answer_unseen(&before, invalid.metadata.generation, Reason::NotReadable, &why, &now);
            write(context, &invalid.metadata, &before, after, &now).await?;
            return Ok((PassResult::NotReadable, Action::await_change()));
        }
    };
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let asked = asked(&object, &context.node_image).of_operator_in(&context.namespace);
    let refusals = validate(&asked);
    let seen = match Box::pin(observe(client, &asked)).await {
        Ok(seen) => seen,
        Err(error) => {
            let why = format!("cannot look at the cluster: {error}. It is tried again by itself");
            let after = answer_unseen(&before, generation, Reason::CallFailed, &why, &now);
            // The first failure is told, not the second one, that it could not be written down either.
            let _ = write(context, &object.metadata, &before, after, &now).await;
            return Err(PassError::Call(why));
        }
    };
    let plan = plan(&asked, &refusals, &seen);
    let before = say_before(context, &object, before, &plan.ahead, &now).await?;
    let mut told = Vec::new();
    let mut failure = None;
    let mut is_set_changed = false;
    if let Some(shape) = &plan.shape {
        match apply(client, &asked, &seen, &build(&asked, shape)).await {
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
                context.health.metrics.count_step(step.label());
                told.push(events::event_of(step));
            }
            Ok(false) => {}
            Err(error) => failure = Some(error),
        }
    }
    // Something came in between. The next look shows what there is, and nothing has failed.
    let is_race = failure.as_ref().is_some_and(TakeError::is_race);
    let why = failure.filter(|_| !is_race).map(|failure| failure.to_string());
    let after = answer(&asked, &before, generation, &plan, &seen, why.as_deref(), &now);
    let after = match write(context, &object.metadata, &before, after, &now).await {
        Ok(after) => after,
        Err(error) => {
            // The object cannot tell it itself.
            if context.memory.is_first_failure(&key(metadata)) {
                told.push(events::event_of_unwritten_status(&error.to_string()));
            }
            context.tell(&object, &told).await;
            return Err(error);
        }
    };
    told.extend(events::events(&before, &after));
    context.tell(&object, &told).await;
    // After a change, the object is looked at once more.
    let is_idle = !is_set_changed && !is_step_taken && plan.marks.is_empty();
    let is_quiet = why.is_none() && !is_race && is_idle && before == after;
    let quiet = is_quiet.then(|| Quiet {
        at: began.0,
        is_steady: plan.next_look == NextLook::Steady,
        touches: began.1,
        version: object.metadata.resource_version.clone(),
        pods: seen.pods,
        cluster: seen.cluster,
    });
    context.memory.looked(&key(metadata), quiet);
    match (why, plan.next_look) {
        (Some(why), _) => Err(PassError::Call(why)),
        // What comes next need not wait for a change that a watch tells: the nodes' members are told by none.
        (None, _) if is_race || is_set_changed || is_step_taken || !plan.marks.is_empty() => {
            Ok((PassResult::Done, Action::requeue(SPACING)))
        }
        (None, NextLook::Soon) => Ok((PassResult::Done, Action::requeue(SOON))),
        (None, NextLook::Steady) => Ok((PassResult::Done, Action::requeue(STEADY))),
    }
}

/// Puts the steps ahead into the status before the first of them is taken. Returns the status as it is then.
async fn say_before(
    context: &Context,
    object: &RaftQueue,
    before: RaftQueueStatus,
    ahead: &[String],
    now: &Time,
) -> Result<RaftQueueStatus, PassError> {
    if !before.plan.is_empty() || ahead.is_empty() {
        return Ok(before);
    }
    let after = RaftQueueStatus { plan: ahead.to_vec(), ..before.clone() };
    write(context, &object.metadata, &before, after, now).await
}

/// Writes the status, says in it what the definition does not know of it, and returns it as it was written.
async fn write(
    context: &Context,
    metadata: &ObjectMeta,
    before: &RaftQueueStatus,
    after: RaftQueueStatus,
    now: &Time,
) -> Result<RaftQueueStatus, PassError> {
    if *before == after && context.memory.lacking().is_empty() {
        show(context, metadata, &after);
        return Ok(after);
    }
    let told = write_once(context, metadata, before, &after, now).await?;
    // What was just learnt from the write goes into the status too.
    match context.memory.learn(&told.1) {
        true => Ok(write_once(context, metadata, before, &after, now).await?.0),
        false => Ok(told.0),
    }
}

fn show(context: &Context, metadata: &ObjectMeta, status: &RaftQueueStatus) {
    context.health.metrics.show(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
        status,
    );
}

async fn write_once(
    context: &Context,
    metadata: &ObjectMeta,
    before: &RaftQueueStatus,
    after: &RaftQueueStatus,
    now: &Time,
) -> Result<(RaftQueueStatus, Written), PassError> {
    let lacking = context.memory.lacking();
    let told = match lacking.is_empty() {
        true => after.clone(),
        false => under_older_definition(after.clone(), before, &lacking, now),
    };
    show(context, metadata, &told);
    match status::write(&context.client, metadata, &told).await {
        Ok(written) => Ok((told, written)),
        Err(error) => Err(PassError::StatusNotWritten(error.to_string())),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_pod_belongs_to_whom_its_label_names() {
        let metadata = |label: &str| ObjectMeta {
            namespace: Some("shop".into()),
            labels: Some(BTreeMap::from([(label.to_owned(), "demo".to_owned())])),
            ..ObjectMeta::default()
        };
        assert_eq!(whose(&metadata(INSTANCE_LABEL)), Some(ObjectRef::new("demo").within("shop")));
        assert_eq!(whose(&metadata("app")), None);
    }
}
