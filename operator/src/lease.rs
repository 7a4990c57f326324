//! Leadership among operators, by a Lease: at most one of them acts.
//!
//! [`judge`] decides and is pure; [`Holder`] makes the calls. A Lease has run out if this process has seen it unchanged
//! for long enough; clocks of different machines are never compared. Every write names the version that it was judged
//! by, so of two that write at once one is refused. A holder that could not renew for [`GIVE_UP_AFTER`] stops, well
//! before anyone may take over. There is a library for this (kube-lease-manager), but its holder goes on believing that
//! it leads while the API server cannot be reached, and it compares clocks.

use crate::names::MANAGER;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use std::time::Duration;
use tokio::time::Instant;

/// How long a Lease must be seen unchanged before another may take it.
pub const TAKE_OVER_AFTER: Duration = Duration::from_secs(15);
/// How long a holder goes on without a renewal that succeeded.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// Pause between two renewals. Each renewal is one call, since the version that the last one left is known.
pub const RENEW_EVERY: Duration = Duration::from_secs(4);
/// Pause between two looks of a contender that waits.
pub const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Pause after a call that failed. It is short: an API server that is back must not wait for its operator.
pub const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// There is none: make it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// It is nobody's, or was not renewed for too long: take it.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// Judges a Lease that was seen unchanged for this long.
#[must_use]
pub fn judge(lease: Option<&LeaseSpec>, identity: &str, unchanged: Duration) -> Judgement {
    let Some(lease) = lease else { return Judgement::Create };
    match lease.holder_identity.as_deref() {
        Some(holder) if holder == identity => Judgement::Renew,
        None | Some("") => Judgement::Take,
        Some(_) => {
            let seconds = lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            let duration = seconds.map_or(TAKE_OVER_AFTER, Duration::from_secs);
            if unchanged >= duration { Judgement::Take } else { Judgement::Wait }
        }
    }
}

/// One contender for the Lease.
pub struct Holder {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The version that was seen last, and since when.
    seen: Option<(String, Instant)>,
    /// The Lease as this contender wrote it last; absent if somebody else may have written it since.
    held: Option<Lease>,
}

impl Holder {
    /// A contender of this identity. That is the name of its pod, so a container that restarts takes its own Lease back
    /// at once.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: MANAGER.to_owned(), identity, seen: None, held: None }
    }

    /// Returns once this contender holds the Lease. Cancelling it is safe.
    pub async fn acquire(&mut self) {
        let mut is_told = false;
        loop {
            match self.look().await {
                Ok(true) => return,
                Ok(false) => {
                    if !is_told {
                        tracing::info!("another operator holds the lease; waiting for it");
                    }
                    is_told = true;
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot look at the lease; trying again");
                    tokio::time::sleep(RETRY_EVERY).await;
                }
            }
        }
    }

    /// Renews the Lease for as long as it can. Returns why it cannot any more; whoever acts under the Lease must then
    /// stop. Cancelling it is safe.
    pub async fn keep(&mut self) -> String {
        let mut renewed = Instant::now();
        let mut pause = RENEW_EVERY;
        loop {
            tokio::time::sleep(pause).await;
            // Others count from the moment when they see the renewal. That may be long before its answer is here.
            let asked = Instant::now();
            match self.look().await {
                Ok(true) => (renewed, pause) = (asked, RENEW_EVERY),
                Ok(false) => return "another operator holds the lease".to_owned(),
                Err(error) if renewed.elapsed() + CALL_TIMEOUT >= GIVE_UP_AFTER => {
                    return format!(
                        "the lease could not be renewed for {} s: {error}",
                        renewed.elapsed().as_secs()
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot renew the lease; trying again");
                    pause = RETRY_EVERY;
                }
            }
        }
    }

    /// Gives the Lease back if it can, so that the next operator need not wait. Nothing depends on it.
    pub async fn release(&mut self) {
        let give_back = async {
            let mut lease = self.api.get(&self.name).await?;
            let is_ours = |spec: &LeaseSpec| spec.holder_identity.as_deref() == Some(self.identity.as_str());
            if let Some(spec) = lease.spec.as_mut().filter(|spec| is_ours(spec)) {
                spec.holder_identity = None;
                self.api.replace(&self.name, &post(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(CALL_TIMEOUT, give_back).await {
            Ok(Ok(())) => tracing::info!("gave the lease back"),
            Ok(Err(error)) => tracing::warn!(%error, "could not give the lease back"),
            Err(_) => tracing::warn!("could not give the lease back in time"),
        }
    }

    /// One look, and what follows from it. True: this contender holds the Lease.
    async fn look(&mut self) -> Result<bool, String> {
        match tokio::time::timeout(CALL_TIMEOUT, self.look_once()).await {
            Ok(Ok(held)) => Ok(held),
            // Somebody wrote in between. The next look shows who holds the Lease.
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
                Err("it was written meanwhile".to_owned())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
        }
    }

    async fn look_once(&mut self) -> Result<bool, kube::Error> {
        // Until the call has succeeded others may have written, whatever becomes of it.
        if let Some(mut lease) = self.held.take() {
            lease.spec.get_or_insert_default().renew_time = Some(MicroTime(Timestamp::now()));
            self.held = Some(self.api.replace(&self.name, &post(), &lease).await?);
            return Ok(true);
        }
        let found = self.api.get_opt(&self.name).await?;
        let version =
            found.as_ref().and_then(|lease| lease.metadata.resource_version.clone()).unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                let now = Instant::now();
                self.seen = Some((version, now));
                now
            }
        };
        let spec = found.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        let judgement = judge(spec.as_ref(), &self.identity, since.elapsed());
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        spec.renew_time = Some(now.clone());
        match judgement {
            Judgement::Wait => return Ok(false),
            Judgement::Renew => {}
            Judgement::Create | Judgement::Take => {
                spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
                spec.holder_identity = Some(self.identity.clone());
                spec.lease_duration_seconds = i32::try_from(TAKE_OVER_AFTER.as_secs()).ok();
                spec.acquire_time = Some(now);
            }
        }
        self.held = Some(if judgement == Judgement::Create {
            self.api.create(&post(), &lease).await?
        } else {
            // The write carries the version that was read, so it is refused if the Lease was written meanwhile.
            self.api.replace(&self.name, &post(), &lease).await?
        });
        Ok(true)
    }
}

fn post() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: Option<&str>, seconds: Option<i32>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_nobody_renews_it() {
        let second = Duration::from_secs;
        for (lease, unchanged, expected) in [
            (None, 0, Judgement::Create),
            (Some(held_by(Some("me"), Some(15))), 0, Judgement::Renew),
            (Some(held_by(Some("me"), Some(15))), 100, Judgement::Renew),
            (Some(held_by(Some("you"), Some(15))), 14, Judgement::Wait),
            (Some(held_by(Some("you"), Some(15))), 15, Judgement::Take),
            (Some(held_by(Some("you"), Some(60))), 15, Judgement::Wait),
            (Some(held_by(Some("you"), None)), 14, Judgement::Wait),
            (Some(held_by(Some("you"), Some(-1))), 14, Judgement::Wait),
            (Some(held_by(None, None)), 0, Judgement::Take),
            (Some(held_by(Some(""), None)), 0, Judgement::Take),
        ] {
            assert_eq!(judge(lease.as_ref(), "me", second(unchanged)), expected, "{lease:?} {unchanged}");
        }
    }

    /// A holder stops acting before anybody else may begin, with every call taking as long as it may.
    #[test]
    fn a_holder_gives_up_before_another_may_take_over() {
        assert!(GIVE_UP_AFTER + RETRY_EVERY < TAKE_OVER_AFTER);
        assert!(RENEW_EVERY + CALL_TIMEOUT < GIVE_UP_AFTER);
    }

    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases/raftqueue-operator";

    /// An API server with one Lease, which refuses writes of an older version.
    fn with_lease(
        holder: &str,
    ) -> (Holder, crate::fake::Calls, std::sync::Arc<std::sync::Mutex<serde_json::Value>>) {
        let lease = serde_json::json!({"metadata": {"name": "raftqueue-operator", "resourceVersion": "1"},
                                       "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}});
        let stored = std::sync::Arc::new(std::sync::Mutex::new(lease));
        let kept = std::sync::Arc::clone(&stored);
        let (client, calls) = crate::fake::client(move |call: &crate::fake::Call| {
            let mut stored = stored.lock().unwrap();
            let version = stored["metadata"]["resourceVersion"].clone();
            if call.what.starts_with("PUT") {
                if call.body["metadata"]["resourceVersion"] != version {
                    return crate::fake::refusal(409, "Conflict");
                }
                *stored = call.body.clone();
                let next = version.as_str().unwrap().parse::<u64>().unwrap() + 1;
                stored["metadata"]["resourceVersion"] = next.to_string().into();
            }
            (200, stored.clone())
        });
        (Holder::new(client, "system", "me".into()), calls, kept)
    }

    #[tokio::test]
    async fn a_renewal_is_one_call() {
        let (mut holder, calls, _) = with_lease("me");
        for _ in 0..3 {
            assert_eq!(holder.look().await, Ok(true));
        }
        let (get, put) = (format!("GET {LEASE}"), format!("PUT {LEASE}"));
        assert_eq!(calls.what(), [get, put.clone(), put.clone(), put]);
    }

    /// The version that was written last proves nothing: if another has written, the renewal is refused, and the Lease
    /// is read anew.
    #[tokio::test]
    async fn a_lease_that_another_took_is_not_renewed() {
        let (mut holder, calls, stored) = with_lease("me");
        assert_eq!(holder.look().await, Ok(true));
        {
            let mut stored = stored.lock().unwrap();
            stored["metadata"]["resourceVersion"] = "99".into();
            stored["spec"]["holderIdentity"] = "you".into();
        }
        assert!(holder.look().await.is_err());
        assert_eq!(holder.look().await, Ok(false));
        assert_eq!(stored.lock().unwrap()["spec"]["holderIdentity"], "you");
        let (get, put) = (format!("GET {LEASE}"), format!("PUT {LEASE}"));
        assert_eq!(calls.what(), [get.clone(), put.clone(), put, get]);
    }
}
