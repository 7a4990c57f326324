//! Whether cases run, the one cluster they share, and what happens around each: a namespace before, the evidence after a
//! failure.

use crate::case::{Case, Needs, Outcome, Room};
use crate::harness::probe_set;
use libtest_mimic::{Completion, Failed};
use raftqueue_tests::kube::cache::{Programs, find_or_build_prometheus, find_prometheus};
use raftqueue_tests::kube::environment::{foreign_kubeconfig, helm};
use raftqueue_tests::kube::{Error, Kube, Mode, Options, Own, Seen, check_machine, wait_for};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// How many volumes the shared cluster begins with. Those of cases that ended are wiped and used again.
const VOLUMES: usize = 32;
/// Namespaces are DNS labels, and names of services are prefixed to them.
const NAMESPACE_BYTES_MAX: usize = 40;
/// The usual watcher of Kubernetes asks again after at most a minute.
const WHOLE_WITHIN: Duration = Duration::from_secs(180);
/// The ClusterRole of the operator.
const OPERATOR_ROLE: &str = "raftqueue-operator";

/// All cases of one run.
pub(crate) struct Tier {
    mode: Result<Mode, String>,
    foreign: Option<PathBuf>,
    begun: Instant,
    /// Read by cases that run beside each other, written by those that must be alone.
    cluster: RwLock<Cluster>,
}

enum Cluster {
    NotStarted,
    Runs(Box<Kube>),
    /// Every case that needs it says why.
    Failed(String),
}

/// The cluster, shared or held alone; `None` for a case that needs none.
enum Held<'a> {
    Shared(RwLockReadGuard<'a, Cluster>),
    Alone(RwLockWriteGuard<'a, Cluster>),
    Nothing,
}

impl Held<'_> {
    fn kube(&self) -> Result<Option<&Kube>, String> {
        let cluster = match self {
            Self::Nothing => return Ok(None),
            Self::Shared(cluster) => &**cluster,
            Self::Alone(cluster) => &**cluster,
        };
        match cluster {
            Cluster::Runs(kube) => Ok(Some(kube)),
            Cluster::Failed(why) => Err(why.clone()),
            Cluster::NotStarted => unreachable!("it is started before it is held"),
        }
    }
}

impl Tier {
    /// Reads what the environment wants.
    pub(crate) fn read() -> Self {
        Self {
            mode: Mode::read().map_err(|error| error.to_string()),
            foreign: foreign_kubeconfig(),
            begun: Instant::now(),
            cluster: RwLock::new(Cluster::NotStarted),
        }
    }

    /// Runs one case, or says why not.
    pub(crate) fn run(&self, name: &str, case: &Case) -> Result<Completion, Failed> {
        let mode = self.mode.clone()?;
        if let Some((reason, is_failure)) = self.obstacle(mode, case.needs) {
            return if is_failure { Err(reason.into()) } else { Ok(Completion::ignored_with(reason)) };
        }
        let held = self.hold(case.needs);
        let kube = held.kube()?;
        let room = Room { kube, namespace: namespace_of(name) };
        if let Some(kube) = kube {
            prepare(kube, &room)?;
        }
        let begun = Instant::now();
        let failure = catch_unwind(AssertUnwindSafe(|| (case.run)(&room)))
            .unwrap_or_else(|panic| Err(words_of(panic.as_ref()).into()));
        eprintln!("{name}: {:.1?}", begun.elapsed());
        self.conclude(&room, failure)
    }

    /// Why a case cannot run here, and whether that is a failure.
    fn obstacle(&self, mode: Mode, needs: Needs) -> Option<(String, bool)> {
        if mode == Mode::Off {
            return Some(("RAFTQUEUE_KUBE is unset (auto or require)".to_owned(), false));
        }
        if self.foreign.is_some() {
            let inside = "needs the inside of a Kubernetes of ours; RAFTQUEUE_TEST_KUBECONFIG names another";
            return (needs != Needs::Cluster).then(|| (inside.to_owned(), false));
        }
        if needs == Needs::Helm && helm().is_none() {
            return Some(("RAFTQUEUE_HELM names no helm".to_owned(), false));
        }
        let is_required = mode == Mode::Require;
        let obstacle = check_machine().and_then(|()| built(is_required, needs)).err()?;
        Some((obstacle.to_string(), is_required))
    }

    /// Starts the cluster if nobody did, and holds it as the case needs it.
    fn hold(&self, needs: Needs) -> Held<'_> {
        if matches!(needs, Needs::Machine | Needs::Helm) {
            return Held::Nothing;
        }
        let mut cluster = self.cluster.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*cluster, Cluster::NotStarted) {
            *cluster = match self.start() {
                Ok(kube) => Cluster::Runs(Box::new(kube)),
                Err(error) => Cluster::Failed(format!("no Kubernetes to test on: {error}")),
            };
        }
        if matches!(needs, Needs::OwnClusterAlone | Needs::Prometheus) {
            return Held::Alone(cluster);
        }
        drop(cluster);
        Held::Shared(self.cluster.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn start(&self) -> Result<Kube, Error> {
        if let Some(kubeconfig) = &self.foreign {
            return Ok(Kube::foreign(kubeconfig.clone()));
        }
        let kube = Kube::start(&Options { volumes: VOLUMES, ..Options::default() })?;
        let own = kube.own("the tests")?;
        eprintln!("Kubernetes ready after {:.1?} in {}", own.ready_after(), own.state().folder().display());
        Ok(kube)
    }

    /// Collects the evidence of a failure, and lets the namespace go. After an outage of the API server all is whole again before
    /// the next case begins.
    fn conclude(&self, room: &Room<'_>, outcome: Outcome) -> Result<Completion, Failed> {
        let Some(kube) = room.kube else {
            return outcome.map(|()| Completion::Completed).map_err(|error| error.to_string().into());
        };
        let result = match outcome {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => {
                let evidence = match kube.collect(&room.namespace) {
                    Ok(folder) => format!("logs, events and objects: {}", folder.display()),
                    Err(error) => format!("no evidence was collected: {error}"),
                };
                Err(Failed::from(format!("{error}\n{evidence}")))
            }
        };
        let result = result.and_then(|completion| may_do_enough(kube).map(|()| completion));
        let had_outage = kube.own("outages").is_ok_and(Own::had_outage);
        let whole = if had_outage { wait_until_whole(kube, &room.namespace) } else { Ok(()) };
        let result = result
            .and_then(|completion| whole.map(|()| completion).map_err(|error| error.to_string().into()));
        let delete = ["delete", "namespace", &room.namespace, "--wait=false", "--ignore-not-found"];
        match kube.kubectl().run(&delete) {
            Ok(_) => result,
            // A case that passed has left a cluster behind that others cannot use.
            Err(error) => result.and(Err(error.to_string().into())),
        }
    }

    /// Stops the cluster and says how long everything took, and which rights of the operator no case has used.
    ///
    /// # Errors
    /// After a whole run there must be none.
    pub(crate) fn finish(&self, is_whole: bool) -> Result<(), String> {
        let mut cluster = self.cluster.write().unwrap_or_else(PoisonError::into_inner);
        let unused = match &*cluster {
            Cluster::Runs(kube) => unused_rights(kube)?,
            _ => Vec::new(),
        };
        if let Cluster::Runs(kube) = std::mem::replace(&mut *cluster, Cluster::NotStarted) {
            if let Err(error) = kube.stop() {
                eprintln!("the Kubernetes of the tests is not stopped whole: {error}");
            }
            eprintln!("tests on Kubernetes: {:.1?} in all, start and stop included", self.begun.elapsed());
        }
        if unused.is_empty() {
            return Ok(());
        }
        let told = format!("the operator's role allows what no case has used: {}", unused.join(", "));
        eprintln!("{told}");
        if is_whole { Err(told) } else { Ok(()) }
    }
}

/// What a case cannot do without is there, or is built where it has to be.
fn built(is_required: bool, needs: Needs) -> Result<(), Error> {
    let programs = if is_required { Programs::find_or_build() } else { Programs::find() };
    programs?;
    if needs == Needs::Prometheus {
        if is_required { find_or_build_prometheus() } else { find_prometheus() }?;
    }
    Ok(())
}

/// Rights of the operator's role that it used in no case. Empty where it was never installed, or on a cluster that is not ours.
fn unused_rights(kube: &Kube) -> Result<Vec<String>, String> {
    let Ok(own) = kube.own("the record of calls") else { return Ok(Vec::new()) };
    let installed = own.unused_rights(OPERATOR_ROLE);
    installed.or_else(|error| match error.to_string() {
        text if text.contains("NotFound") => Ok(Vec::new()),
        text => Err(text),
    })
}

/// Waits until every part of Kubernetes does its work: after an outage of the API server each looks at each kind of object again
/// in its own time, up to a minute later. A set gets its pod, its pod a volume and a name that resolves.
fn wait_until_whole(kube: &Kube, case: &str) -> Result<(), Error> {
    let namespace = format!("{case}-after");
    let kubectl = kube.kubectl();
    kubectl.run(&["create", "namespace", &namespace])?;
    let begun = Instant::now();
    let outcome = is_whole(kube, &namespace);
    eprintln!("{case}: Kubernetes is whole, or given up, after {:.1?}", begun.elapsed());
    kubectl.run(&["delete", "namespace", &namespace, "--wait=false"])?;
    outcome
}

fn is_whole(kube: &Kube, namespace: &str) -> Result<(), Error> {
    let kubectl = kube.kubectl();
    kubectl.with_manifest(&["-n", namespace, "apply", "--server-side", "-f", "-"], &probe_set(1))?;
    kubectl.wait_for_pod(namespace, "web-0", WHOLE_WITHIN)?;
    wait_for("its name to resolve", WHOLE_WITHIN, || {
        let resolve = ["exec", "-n", namespace, "web-0", "--", "/probe", "resolve", "web-0.web"];
        Ok(kubectl.run(&resolve).map_or_else(|error| Seen::NotYet(error.to_string()), |_| Seen::Done(())))
    })
}

/// The operator must never be refused for want of rights, in whatever case that was.
fn may_do_enough(kube: &Kube) -> Result<(), Failed> {
    // On a cluster that is not ours there is no record of calls.
    let Ok(own) = kube.own("the record of calls") else { return Ok(()) };
    let refused = own.refused_calls().map_err(|error| error.to_string())?;
    if refused.is_empty() {
        return Ok(());
    }
    Err(format!("the operator may not do what it tried: {refused:#?}").into())
}

fn prepare(kube: &Kube, room: &Room<'_>) -> Result<(), Failed> {
    let prepared = kube.kubectl().run(&["create", "namespace", &room.namespace]);
    prepared.map_err(|error| error.to_string())?;
    if let Ok(own) = kube.own("volumes") {
        own.volumes().wipe_released().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A namespace of the case's own: its name, as far as it fits, and who runs it.
fn namespace_of(name: &str) -> String {
    let suffix = format!("-{}", std::process::id());
    let words: String =
        name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    let words = words.replace("--", "-");
    let room = NAMESPACE_BYTES_MAX - suffix.len();
    format!("{}{suffix}", words[..words.len().min(room)].trim_end_matches('-'))
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}
