//! The loop: a pass over an object whenever something about it changed, and now and then without a cause.
//!
//! A pass is [`pass`]. The rest is what calls it: the watches, how
//! many passes run at once, how long to wait after a failure. If nothing was heard of a cluster, and its nodes say what
//! they said before, the pass ends there. An object that cannot be read does not hold up the others.

pub(crate) mod memory;

use self::memory::{Key, Memory, Quiet};
use crate::cluster::observe::ask_all;
use crate::cluster::pass::pass;
use crate::crd::RaftQueue;
use crate::health::Health;
use crate::metrics::PassResult;
use crate::names::{INSTANCE_LABEL, MANAGED_BY_LABEL, MANAGER};
use crate::recorder::Recorder;
use futures_util::{StreamExt, future::BoxFuture};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{Action, Config as LoopConfig, Controller};
use kube::runtime::events::Event;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An object as it comes from the API server, readable or not.
pub(crate) type Guarded = DeserializeGuard<RaftQueue>;

/// When to look again at a cluster that is well.
pub(crate) const STEADY: Duration = Duration::from_secs(30);
/// When to look again while something is on its way or wrong.
pub(crate) const SOON: Duration = Duration::from_secs(2);
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
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) health: Arc<Health>,
    pub(crate) node_image: String,
    /// Its own namespace.
    pub(crate) namespace: String,
    pub(crate) memory: Memory,
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

    pub(crate) async fn tell(&self, object: &RaftQueue, told: &[Event]) {
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

pub(crate) fn key(metadata: &ObjectMeta) -> Key {
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
