//! What tells when to look: the watches on a kind's objects and on whatever belongs to them, and their pauses when they
//! break.

use super::Key;
use crate::names::{MANAGED_BY_LABEL, MANAGER};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{Config as LoopConfig, Controller, Error as LoopError};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// How long changes that come together are gathered.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Pause after a watch broke. Each further break doubles it.
const WATCH_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause after a watch broke. All watches share it and break one after the other, and each may have failed again
/// just before the API server was back.
const WATCH_PAUSE_MAX: Duration = Duration::from_millis(250);

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

/// What is watched: the objects of a kind, and what belongs to them.
pub struct Watches<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    controller: Controller<DeserializeGuard<K>>,
    client: Client,
    namespace: Option<String>,
    /// Is told of each object of which something was heard.
    heard: Arc<dyn Fn(Key) + Send + Sync>,
}

impl<K> Watches<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    /// The objects themselves.
    pub(super) fn new(
        client: Client,
        namespace: Option<&str>,
        concurrency: u16,
        heard: Arc<dyn Fn(Key) + Send + Sync>,
    ) -> Self {
        let controller = Controller::new(api(&client, namespace), watcher::Config::default())
            .with_config(LoopConfig::default().concurrency(concurrency).debounce(DEBOUNCE));
        Self { controller, client, namespace: namespace.map(str::to_owned), heard }
    }

    /// Watches the objects of kind `C` that carry our label; `whose` names the object to which one belongs.
    #[must_use]
    pub fn on<C>(self, whose: fn(&ObjectMeta) -> Option<Key>) -> Self
    where
        C: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + Sync + 'static,
    {
        let ours = watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
        let heard = Arc::clone(&self.heard);
        let children = api::<PartialObjectMeta<C>>(&self.client, self.namespace.as_deref());
        let controller = self.controller.watches(children, ours, move |child: PartialObjectMeta<C>| {
            let (namespace, name) = whose(&child.metadata)?;
            heard((namespace.clone(), name.clone()));
            Some(ObjectRef::new(&name).within(&namespace))
        });
        Self { controller, ..self }
    }

    /// What is known of the objects.
    pub(super) fn store(&self) -> Store<DeserializeGuard<K>> {
        self.controller.store()
    }

    pub(super) fn into_controller(self) -> Controller<DeserializeGuard<K>> {
        self.controller.trigger_backoff(WatchPause::default())
    }
}

/// What the API server said, where it refused a watch for want of a right.
pub(super) fn refusal<E: std::error::Error>(error: &LoopError<E, watcher::Error>) -> Option<&str> {
    let LoopError::QueueError(broken) = error else { return None };
    let said = match broken {
        watcher::Error::InitialListFailed(kube::Error::Api(said))
        | watcher::Error::WatchStartFailed(kube::Error::Api(said))
        | watcher::Error::WatchFailed(kube::Error::Api(said))
        | watcher::Error::WatchError(said) => said,
        _ => return None,
    };
    said.is_forbidden().then_some(said.message.as_str())
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}
