//! The product on a real Kubernetes, as its users have it: installed from `deploy`, one object applied, real pods.
//!
//! | room | what it shows |
//! |---|---|
//! | [`readme`] | the commands of the README, typed |
//! | [`faults`] | what was acknowledged under load survives pods and processes |
//! | [`chart`] | the Helm chart renders the objects of the manifests |
//! | [`disks`] | no hand on a child takes the disks |
//! | [`operator`] | the operator dies at the wrong moment; children are put right |
//! | [`hands`] | random hands on a cluster |
//! | [`kills`] | the operator dies after any of its writes, in every flow |
//! | [`storms`] | an API server that misbehaves, a namespace that goes, hundreds of objects |
//! | [`lives`] | one node, two clusters, an object deleted and applied again |
//! | [`locks`] | clients go over to TLS and say who they are, strangers get nothing, certificates and their authority change under load |
//! | [`mending`] | a lost quorum, a machine that is gone, disks that grow |
//! | [`neighbours`] | a policy and a monitor, where their kinds are |
//! | [`rights`] | a right that the operator lacks is told, and all heals once it has it |
//! | [`scaling`] | `kubectl scale`, under load |
//! | [`tls`] | encrypted by default, turned on and off under load, certificates that are renewed or missing |
//! | [`watched`] | a real Prometheus: the alerts about the operator fire and clear |
//! | [`words`] | what kubectl does with an object, and in which words it says what it cannot |
//! | [`refusals`] | what cannot be is refused in words, or told until its cause goes |

pub(crate) mod chart;
pub(crate) mod disks;
pub(crate) mod faults;
mod gated;
pub(crate) mod hands;
pub(crate) mod kills;
pub(crate) mod lives;
pub(crate) mod locks;
pub(crate) mod mending;
pub(crate) mod neighbours;
pub(crate) mod operator;
pub(crate) mod readme;
pub(crate) mod refusals;
pub(crate) mod rights;
pub(crate) mod scaling;
pub(crate) mod storms;
pub(crate) mod tls;
pub(crate) mod watched;
pub(crate) mod words;

use crate::case::{Outcome, Room};
use raftqueue_tests::kube::kubectl::condition;
use raftqueue_tests::kube::{Error, Kubectl, Seen, wait_for};
use raftqueue_tests::process::{Http, repository};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a cluster may take from its object to Ready.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long the operator may take until it says or does something, one that has to take over the lease included.
pub(crate) const TOLD_WITHIN: Duration = Duration::from_secs(60);

const SYSTEM: &str = "raftqueue-system";
const OPERATOR: &str = "app.kubernetes.io/name=raftqueue-operator";

/// Installs the operator as the README does, whichever case comes first.
pub(crate) fn install(room: &Room<'_>) -> Outcome {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let install = || -> Result<(), Error> {
        room.kube().load_product()?;
        let deploy = repository().join("deploy");
        room.cluster().run(&["apply", "-k", &deploy.display().to_string()])?;
        wait_for_operator(room.cluster())
    };
    INSTALLED.get_or_init(|| install().map_err(|error| error.to_string())).clone()?;
    Ok(())
}

fn wait_for_operator(cluster: &Kubectl) -> Result<(), Error> {
    let status = ["rollout", "status", "deployment/raftqueue-operator", "-n", SYSTEM, "--timeout=60s"];
    cluster.run(&status).map(drop)
}

/// Kills the operator's process, so that it cannot even give back its lease, and deletes its pod.
pub(crate) fn kill_operator(room: &Room<'_>) -> Result<(), Error> {
    let name = ["get", "pods", "-l", OPERATOR, "-n", SYSTEM, "-o", "jsonpath={.items[0].metadata.name}"];
    let pod = room.cluster().run(&name)?;
    room.kube().kill_in_pod(SYSTEM, &pod, "operator", "KILL")?;
    let delete = ["delete", "pod", &pod, "-n", SYSTEM, "--grace-period=0", "--force", "--wait=false"];
    room.cluster().run(&delete).map(drop)
}

/// Takes the operator away, as an administrator does, and returns once it is gone.
pub(crate) fn take_operator_away(room: &Room<'_>) -> Result<(), Error> {
    let scale = ["scale", "deployment/raftqueue-operator", "-n", SYSTEM, "--replicas=0"];
    room.cluster().run(&scale)?;
    let gone = ["wait", "pods", "-l", OPERATOR, "-n", SYSTEM, "--for=delete", "--timeout=60s"];
    room.cluster().run(&gone).map(drop)
}

/// Brings it back.
pub(crate) fn bring_operator_back(room: &Room<'_>) -> Result<(), Error> {
    let scale = ["scale", "deployment/raftqueue-operator", "-n", SYSTEM, "--replicas=1"];
    room.cluster().run(&scale)?;
    wait_for_operator(room.cluster())
}

/// Waits until the operator shows no series of the case's namespace any more: its objects are gone.
pub(crate) fn wait_for_no_series(room: &Room<'_>) -> Result<(), Error> {
    let name = ["get", "pods", "-l", OPERATOR, "-n", SYSTEM, "-o", "jsonpath={.items[0].metadata.name}"];
    let own = format!("namespace=\"{}\"", room.namespace);
    soon("the operator to forget", TOLD_WITHIN, || {
        let pod = room.cluster().run(&name).map_err(|error| error.to_string())?;
        let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{pod}:8080/proxy/metrics");
        let text = room.cluster().run(&["get", "--raw", &path]).map_err(|error| error.to_string())?;
        assert!(text.contains("raftqueue_operator_leads"), "these are its metrics: {text}");
        let left: Vec<&str> = text.lines().filter(|line| line.contains(&own)).collect();
        left.is_empty().then_some(()).ok_or_else(|| left.join("\n"))
    })
}

/// One `RaftQueue` of a case.
pub(crate) struct Queue<'a> {
    pub(crate) room: &'a Room<'a>,
    pub(crate) name: String,
}

/// An object that fits a laptop; `more` goes into its spec.
pub(crate) fn manifest(name: &str, replicas: i64, more: &Value) -> String {
    let mut spec = json!({
        "replicas": replicas,
        "storage": {"size": "1Gi"},
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}},
    });
    let fields = spec.as_object_mut().expect("it is an object");
    fields.extend(more.as_object().expect("more fields of a spec").clone());
    let metadata = json!({"name": name});
    json!({"apiVersion": "raftqueue.io/v1alpha1", "kind": "RaftQueue", "metadata": metadata, "spec": spec})
        .to_string()
}

impl<'a> Queue<'a> {
    /// Applies an object of that many replicas, after the operator is installed.
    pub(crate) fn applied(room: &'a Room<'a>, name: &str, replicas: i64) -> Result<Self, BoxError> {
        Self::applied_with(room, name, replicas, &json!({}))
    }

    /// The same, with more in its spec.
    pub(crate) fn applied_with(
        room: &'a Room<'a>,
        name: &str,
        replicas: i64,
        more: &Value,
    ) -> Result<Self, BoxError> {
        install(room)?;
        room.apply(&manifest(name, replicas, more))?;
        Ok(Self { room, name: name.to_owned() })
    }

    /// A cluster that is ready, and how long that took.
    pub(crate) fn ready(room: &'a Room<'a>, name: &str, replicas: i64) -> Result<Self, BoxError> {
        let queue = Self::applied(room, name, replicas)?;
        let begun = Instant::now();
        queue.wait_ready()?;
        eprintln!("{}/{name}: {replicas} nodes Ready after {:.1?}", room.namespace, begun.elapsed());
        Ok(queue)
    }

    /// The object as it is now.
    pub(crate) fn object(&self) -> Result<Value, Error> {
        self.room.get("raftqueue", &self.name)
    }

    /// Waits until the object's condition is as wanted, and returns the object.
    pub(crate) fn wait_condition(
        &self,
        about: &str,
        status: &str,
        reason: Option<&str>,
        within: Duration,
    ) -> Result<Value, Error> {
        let what = format!("{} to be {about}={status} {}", self.name, reason.unwrap_or_default());
        let get = ["raftqueue", &self.name, "-n", &self.room.namespace];
        self.room.cluster().wait_until(&what, within, &get, |object| {
            let found = condition_of(object, about);
            let is_so = condition(object, about).as_deref() == Some(status)
                && reason.is_none_or(|reason| found["reason"] == reason)
                && found["observedGeneration"] == object["metadata"]["generation"];
            is_so.then(|| object.clone()).ok_or_else(|| object["status"]["conditions"].to_string())
        })
    }

    /// Waits until it is Ready, for the spec as it is now, and so are its pods, of which the operator may know late.
    pub(crate) fn wait_ready(&self) -> Result<Value, Error> {
        let object = self.wait_condition("Ready", "True", None, READY_WITHIN)?;
        for pod in self.pods(object["spec"]["replicas"].as_u64().unwrap_or_default()) {
            self.room.wait_for_pod(&pod)?;
        }
        self.wait_condition("Ready", "True", None, READY_WITHIN)
    }

    /// Names of its pods, by ordinal.
    pub(crate) fn pods(&self, replicas: u64) -> Vec<String> {
        (0..replicas).map(|ordinal| format!("{}-{ordinal}", self.name)).collect()
    }

    /// What it is selected by.
    pub(crate) fn selector(&self) -> String {
        format!("app.kubernetes.io/instance={}", self.name)
    }

    /// How often the containers of its pods were restarted, in all.
    pub(crate) fn restarts(&self) -> Result<u64, Error> {
        let selector = self.selector();
        let pods = self.room.cluster().json(&["get", "pods", "-n", &self.room.namespace, "-l", &selector])?;
        let pods = pods["items"].as_array().expect("a list has items");
        assert!(!pods.is_empty(), "{} has no pods", self.name);
        Ok(pods.iter().filter_map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64()).sum())
    }

    /// The pod that leads, as the nodes say.
    pub(crate) fn leader(&self) -> Result<String, Error> {
        Ok(self.raftq(&format!("{}-0", self.name), &["status", "--leader"])?.trim().to_owned())
    }

    /// `raftq` in one of its pods.
    pub(crate) fn raftq(&self, pod: &str, words: &[&str]) -> Result<String, Error> {
        self.room.kubectl(&[&["exec", pod, "--", "raftq"], words].concat())
    }

    /// Makes a topic and publishes messages to it, one a word.
    pub(crate) fn publish(&self, topic: &str, messages: &[&str]) -> Result<(), Error> {
        let pod = format!("{}-0", self.name);
        self.raftq(&pod, &["topic", "create", topic])?;
        self.raftq(&pod, &[&["publish", topic], messages].concat()).map(drop)
    }

    /// Takes everything out of a topic that it is said to hold.
    pub(crate) fn receive(&self, topic: &str, count: usize) -> Result<Vec<String>, Error> {
        let pod = format!("{}-0", self.name);
        // One more than there should be: what comes twice would be seen.
        let wanted = (count + 1).to_string();
        let text = self.raftq(&pod, &["receive", topic, "-n", &wanted, "--wait", "1s", "--ack"])?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The client service, from where [`raftqueue_tests::kube::Kube::work_inside`] works.
    pub(crate) fn service(&self) -> Result<Http, BoxError> {
        let service = self.room.get("service", &self.name)?;
        let address = service["spec"]["clusterIP"].as_str().ok_or("a service has an address")?;
        Ok(Http::at(SocketAddr::new(address.parse()?, 7420)))
    }

    /// Waits until an event about the object was sent.
    pub(crate) fn wait_event(&self, reason: &str, part: &str) -> Result<(), Error> {
        let what = format!("the event {reason} of {} with `{part}`", self.name);
        let about = format!("involvedObject.name={}", self.name);
        let get = ["events", "-n", &self.room.namespace, "--field-selector", &about];
        self.room.cluster().wait_until(&what, TOLD_WITHIN, &get, |events| {
            let is_told = events["items"].as_array().into_iter().flatten().any(|event| {
                event["reason"] == reason && event["message"].as_str().unwrap_or_default().contains(part)
            });
            is_told.then_some(()).ok_or_else(|| events.to_string())
        })
    }
}

/// What must be undone for the cases that come after, whatever becomes of this one: also when it panics.
pub(crate) struct Undo<F: FnMut() -> Outcome>(Option<F>);

impl<F: FnMut() -> Outcome> Undo<F> {
    /// Undoes it when this is dropped, at the latest.
    pub(crate) fn at_the_end(undo: F) -> Self {
        Self(Some(undo))
    }

    /// Undoes it now.
    ///
    /// # Errors
    /// As what undoes it.
    pub(crate) fn now(mut self) -> Outcome {
        self.0.take().map_or(Ok(()), |mut undo| undo())
    }
}

impl<F: FnMut() -> Outcome> Drop for Undo<F> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|mut undo| undo()) {
            eprintln!("it could not be undone, and may disturb what comes after: {error}");
        }
    }
}

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A condition of an object, whole.
pub(crate) fn condition_of<'a>(object: &'a Value, about: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|found| found["type"] == about).unwrap_or(&Value::Null)
}

/// Names and uids of what belongs to a cluster.
pub(crate) fn uids(queue: &Queue<'_>, kind: &str) -> Result<BTreeMap<String, String>, BoxError> {
    let selector = queue.selector();
    let all = queue.room.cluster().json(&["get", kind, "-n", &queue.room.namespace, "-l", &selector])?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |object: &Value| (text(&object["metadata"]["name"]), text(&object["metadata"]["uid"]));
    Ok(all["items"].as_array().into_iter().flatten().map(one).collect())
}

/// Waits until something that may fail for a moment succeeds.
pub(crate) fn soon<T>(
    what: &str,
    within: Duration,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> Result<T, Error> {
    wait_for(what, within, || Ok(attempt().map_or_else(Seen::NotYet, Seen::Done)))
}
