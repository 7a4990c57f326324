//! What a case is, and what it is given.

use raftqueue_tests::kube::kubectl::Kubectl;
use raftqueue_tests::kube::{Error, Kube, Own};
use serde_json::Value;
use std::time::Duration;

/// How a case ends. Assertions may panic; errors of the harness are passed on with `?`.
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// How long a pod may take until it is ready, on a machine that does other things too.
pub(crate) const POD_WITHIN: Duration = Duration::from_secs(60);

/// What a case cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Any cluster, also one that somebody else runs.
    Cluster,
    /// A cluster of ours: it looks inside.
    OwnCluster,
    /// A cluster of ours, and no other case at the same time: it breaks what all share.
    OwnClusterAlone,
    /// As [`Needs::OwnClusterAlone`], and a Prometheus that knows Kubernetes.
    Prometheus,
    /// No cluster: it starts its own.
    Machine,
    /// No cluster, and helm, which `RAFTQUEUE_HELM` names; without it the case is left out.
    Helm,
}

/// A test on a real Kubernetes.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) run: fn(&Room<'_>) -> Outcome,
}

/// Where a case runs: the cluster that all share, and a namespace that is the case's own.
pub(crate) struct Room<'a> {
    pub(crate) kube: Option<&'a Kube>,
    pub(crate) namespace: String,
}

impl Room<'_> {
    /// The cluster.
    ///
    /// # Panics
    /// In a case that needs none.
    pub(crate) fn kube(&self) -> &Kube {
        self.kube.expect("the case says that it needs a cluster")
    }

    /// The inside of a cluster of ours.
    ///
    /// # Panics
    /// In a case that does not need one of ours.
    pub(crate) fn own(&self) -> &Own {
        self.kube().own("this case").expect("the case says that it needs a cluster of ours")
    }

    /// kubectl, without a namespace.
    pub(crate) fn cluster(&self) -> &Kubectl {
        self.kube().kubectl()
    }

    /// Runs kubectl in the case's namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String, Error> {
        self.cluster().run(&[&["-n", &self.namespace], arguments].concat())
    }

    /// Asks for an object in the case's namespace.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Result<Value, Error> {
        self.cluster().json(&["get", kind, name, "-n", &self.namespace])
    }

    /// Applies a manifest in the case's namespace.
    pub(crate) fn apply(&self, manifest: &str) -> Result<String, Error> {
        let arguments = ["-n", &self.namespace, "apply", "--server-side", "-f", "-"];
        self.cluster().with_manifest(&arguments, manifest)
    }

    /// Waits until a pod of the case is ready, and returns it.
    pub(crate) fn wait_for_pod(&self, pod: &str) -> Result<Value, Error> {
        self.cluster().wait_for_pod(&self.namespace, pod, POD_WITHIN)
    }

    /// Runs a program in a pod of the case and returns the first line it prints.
    pub(crate) fn exec(&self, pod: &str, words: &[&str]) -> Result<String, Error> {
        let said = self.kubectl(&[&["exec", pod, "--"], words].concat())?;
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }
}
