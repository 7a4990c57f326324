//! The loop: a pass over an object whenever something about it changed, and now and then without a cause.
//!
//! It knows when: the watches, how many passes run at once, how far apart, how long to wait after a failure, what need not
//! be looked at again. What a pass is, of which kind of objects, whose the watched children are, is a [`Kind`]'s to say. If
//! nothing was heard of an object, and what no watch tells is as before, no pass is made. An object that cannot be read
//! does not hold up the others.

mod memory;
mod metrics;
#[cfg(test)]
mod tests;
mod watches;

pub use metrics::{PassMetrics, PassResult};
pub use watches::Watches;

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Client, Resource};
use memory::{Memory, Quiet, SPACING};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When to look again at an object that is well.
const STEADY: Duration = Duration::from_secs(30);
/// When to look again while something is on its way or wrong.
const SOON: Duration = Duration::from_secs(2);
/// How long a pass may take.
const PASS_TIMEOUT: Duration = Duration::from_secs(60);
/// How often those that are gone are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// An object: its namespace and its name.
pub type Key = (String, String);

/// A kind of objects that are kept as asked.
pub trait Kind: Send + Sync + 'static {
    /// The objects.
    type Object: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync;
    /// What a pass saw that no watch tells of.
    type Untold: Clone + Send + Sync + 'static;
    /// Why a pass failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Adds what else is watched.
    fn watch(&self, watches: Watches<Self::Object>) -> Watches<Self::Object>;

    /// Makes one pass. It may be cancelled anywhere: the next one goes on from what it sees.
    ///
    /// # Errors
    /// The loop tries again, later and later.
    fn pass(
        &self,
        object: &ObjectMeta,
        is_first_failure: bool,
    ) -> impl Future<Output = Result<Looked<Self::Untold>, Self::Error>> + Send;

    /// A watch was refused for want of a right, in these words. It is tried again all the time.
    fn watch_refused(&self, why: &str);

    /// Whether what no watch tells of is still so. It costs the API server nothing.
    fn is_still_so(&self, untold: &Self::Untold) -> impl Future<Output = bool> + Send;

    /// Forgets all objects but these.
    fn keep_only(&self, there: &BTreeSet<Key>);
}

/// How a pass ended that did not fail.
#[derive(Clone, Debug)]
pub struct Looked<U> {
    /// For the metrics.
    pub result: PassResult,
    /// When to look again.
    pub next: Next,
    /// Present if the pass changed nothing, and left nothing to do.
    pub quiet: Option<Unchanged<U>>,
}

/// What was seen by a pass that changed nothing.
#[derive(Clone, Debug)]
pub struct Unchanged<U> {
    /// The version of the object.
    pub version: Option<String>,
    /// What no watch tells of.
    pub untold: U,
}

/// When to look again at an object, if nothing is heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: what comes next need not wait for a change that a watch tells.
    AtOnce,
    /// Soon: something is on its way or wrong.
    Soon,
    /// All is as asked.
    Steady,
    /// Not before something is heard.
    WhenHeard,
}

impl<U> Looked<U> {
    /// There is nothing to do before something is heard of the object.
    #[must_use]
    pub fn until_heard(result: PassResult) -> Self {
        Self { result, next: Next::WhenHeard, quiet: None }
    }
}

impl Next {
    fn action(self) -> Action {
        match self {
            Self::AtOnce => Action::requeue(SPACING),
            Self::Soon => Action::requeue(SOON),
            Self::Steady => Action::requeue(STEADY),
            Self::WhenHeard => Action::await_change(),
        }
    }
}

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum PassError<E> {
    /// As the kind says.
    #[error(transparent)]
    Failed(E),
    /// It took longer than it may.
    #[error("took longer than {} s", PASS_TIMEOUT.as_secs())]
    TimedOut,
}

/// The loop over one kind of objects.
pub struct Loop<K: Kind> {
    kind: K,
    metrics: PassMetrics,
    memory: Memory<K::Untold>,
}

impl<K: Kind> Loop<K> {
    /// Nothing was looked at yet.
    #[must_use]
    pub fn new(kind: K, metrics: PassMetrics) -> Self {
        Self { kind, metrics, memory: Memory::default() }
    }

    /// Runs until `stop` is done, and finishes the passes that are under way. If it is dropped, it drops them as they are.
    pub async fn run(
        self: Arc<Self>,
        client: Client,
        namespace: Option<&str>,
        concurrency: u16,
        stop: BoxFuture<'static, ()>,
    ) {
        // A BoxFuture is not Sync. Only its end matters.
        let (stopped, mut stopping) = tokio::sync::watch::channel(false);
        let mut stops = stopping.clone();
        let _stopper = Aborted(tokio::spawn(async move {
            stop.await;
            stopped.send_replace(true);
        }));
        let heard = Arc::clone(&self);
        let heard = move |key: Key| heard.memory.touch(key);
        let watches = Watches::new(client, namespace, concurrency, Arc::new(heard));
        let store = watches.store();
        let controller = self.kind.watch(watches).into_controller();
        let passes = controller
            .graceful_shutdown_on(async move {
                // An error means that the sender is gone, which is the end as well.
                let _ = stopping.wait_for(|stopped| *stopped).await;
            })
            .run(
                |object, context: Arc<Self>| async move { context.turn(object.meta()).await },
                |object, error, context| context.failed(object.meta(), error),
                Arc::clone(&self),
            );
        let passes = passes.for_each(|ended| {
            if let Err(error) = ended {
                tracing::debug!(%error, "a pass or a watch failed");
                if let Some(why) = watches::refusal(&error) {
                    self.kind.watch_refused(why);
                }
            }
            std::future::ready(())
        });
        tokio::select! {
            () = passes => {}
            () = self.forget_now_and_then(&store) => {}
            // The library waits for a first list before it ends. Until then no pass can be under way.
            () = async {
                let _ = stops.wait_for(|stopped| *stopped).await;
                if store.wait_until_ready().now_or_never().is_some() {
                    std::future::pending::<()>().await;
                }
            } => {}
        }
    }

    /// Forgets every object that is not in the store: one that left it causes no pass that could.
    async fn forget_now_and_then(&self, store: &Store<DeserializeGuard<K::Object>>) {
        // Before the first list everything would seem to be gone, so wait for it. An error means that the loop has
        // ended.
        while store.wait_until_ready().await.is_ok() {
            tokio::time::sleep(FORGET_EVERY).await;
            let there = store.state().iter().map(|object| key(object.meta())).collect();
            self.kind.keep_only(&there);
            self.memory.keep_only(&there);
        }
        std::future::pending::<()>().await;
    }

    /// The turn of an object: a pass, if it is time and there may be something to do.
    async fn turn(&self, object: &ObjectMeta) -> Result<Action, PassError<K::Error>> {
        let key = key(object);
        if let Some(early) = self.memory.begin(&key) {
            return Ok(Action::requeue(early));
        }
        let started = Instant::now();
        if let Some(quiet) = self.memory.quiet(&key, object.resource_version.as_deref(), started)
            && self.kind.is_still_so(&quiet.untold).await
        {
            self.metrics.count(PassResult::Done, started.elapsed());
            return Ok(Action::requeue(if quiet.is_steady { STEADY } else { SOON }));
        }
        let touches = self.memory.touches(&key);
        let pass = self.kind.pass(object, self.memory.is_first_failure(&key));
        let (result, ended) = match tokio::time::timeout(PASS_TIMEOUT, pass).await {
            Ok(Ok(looked)) => (looked.result, Ok(looked)),
            Ok(Err(error)) => (PassResult::Failed, Err(PassError::Failed(error))),
            Err(_) => (PassResult::TimedOut, Err(PassError::TimedOut)),
        };
        self.metrics.count(result, started.elapsed());
        let looked = ended?;
        let is_steady = looked.next == Next::Steady;
        let quiet = looked.quiet.map(|Unchanged { version, untold }| Quiet {
            at: started,
            is_steady,
            touches,
            version,
            untold,
        });
        self.memory.looked(&key, quiet);
        self.memory.forgive(&key);
        Ok(looked.next.action())
    }

    fn failed(&self, object: &ObjectMeta, error: &PassError<K::Error>) -> Action {
        let pause = self.memory.pause(&key(object));
        tracing::warn!(%error, seconds = pause.as_secs_f32(), "a pass failed; trying again");
        Action::requeue(pause)
    }
}

/// A task that ends with its owner, even if the owner is dropped.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn key(metadata: &ObjectMeta) -> Key {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&metadata.namespace), text(&metadata.name))
}
