//! The real kubectl, against our Kubernetes (inside its network) or against one that somebody else named.

use super::command::{Seen, output_of, run, run_with_input, wait_for};
use super::error::Error;
use super::namespace::Entrance;
use super::state::State;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

/// How to ask one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    /// Where kubectl keeps what it learned of the API; the user's own folder is left alone.
    cache: Option<PathBuf>,
    entrance: Option<Entrance>,
}

impl Kubectl {
    /// For the Kubernetes of a state folder.
    #[must_use]
    pub fn of(state: &State, entrance: &Entrance, program: PathBuf) -> Self {
        Self {
            program,
            kubeconfig: state.path("kubeconfig"),
            cache: Some(state.path("kubectl")),
            entrance: Some(entrance.clone()),
        }
    }

    /// For another cluster, with the kubectl on the PATH.
    #[must_use]
    pub fn foreign(kubeconfig: PathBuf) -> Self {
        Self { program: PathBuf::from("kubectl"), kubeconfig, cache: None, entrance: None }
    }

    /// The command itself, for what wants a child process (`port-forward`, `logs -f`).
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare_command();
        command.arg(format!("--kubeconfig={}", self.kubeconfig.display()));
        if let Some(cache) = &self.cache {
            command.arg(format!("--cache-dir={}", cache.display()));
        }
        command.args(arguments);
        command
    }

    /// The same without a word of which cluster that is: an environment tells it, as [`Kubectl::settings`] says. A word before its
    /// name keeps a plugin from being found.
    #[must_use]
    pub fn bare_command(&self) -> Command {
        match &self.entrance {
            Some(entrance) => entrance.in_network(&self.program),
            None => Command::new(&self.program),
        }
    }

    /// Variables that tell kubectl, and every plugin of it, which cluster is meant.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let cache = self.cache.as_ref().map(|cache| ("KUBECACHEDIR", cache.display().to_string()));
        std::iter::once(("KUBECONFIG", self.kubeconfig.display().to_string())).chain(cache).collect()
    }

    /// Runs it and returns what it printed.
    ///
    /// # Errors
    /// [`Error::Failed`] with what it said; the test decides whether that was wanted.
    pub fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        let output = run(&mut self.command(arguments))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it and returns everything, whatever it says.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be started.
    pub fn output(&self, arguments: &[&str]) -> Result<Output, Error> {
        output_of(&mut self.command(arguments), "")
    }

    /// Runs it with `-o json` and returns the object.
    ///
    /// # Errors
    /// As [`Kubectl::run`]; [`Error::Strange`] if that is not JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, Error> {
        let text = self.run(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).map_err(|_| Error::Strange { what: arguments.join(" "), text })
    }

    /// Applies a manifest in YAML or JSON, server-side.
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub fn apply(&self, manifest: &str) -> Result<String, Error> {
        self.with_manifest(&["apply", "--server-side", "--force-conflicts", "-f", "-"], manifest)
    }

    /// Runs it with a manifest to read (`-f -` is among the arguments).
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub fn with_manifest(&self, arguments: &[&str], manifest: &str) -> Result<String, Error> {
        let output = run_with_input(&mut self.command(arguments), manifest)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until an object satisfies a test, which returns `Err` with what it found instead.
    ///
    /// # Errors
    /// [`Error::TimedOut`] with the last that was found, or why there was nothing to find.
    pub fn wait_until<T>(
        &self,
        what: &str,
        within: Duration,
        get: &[&str],
        mut test: impl FnMut(&Value) -> Result<T, String>,
    ) -> Result<T, Error> {
        wait_for(what, within, || {
            let found = self.json(&[&["get"], get].concat()).map_err(|error| error.to_string());
            Ok(match found.and_then(|object| test(&object)) {
                Ok(done) => Seen::Done(done),
                Err(seen) => Seen::NotYet(seen),
            })
        })
    }

    /// Waits until a pod is ready and stays, and returns it. One that is being deleted is neither: what is asked for is the
    /// pod that comes after it.
    ///
    /// # Errors
    /// [`Error::TimedOut`] with the pod's phase, conditions and the states of its containers.
    pub fn wait_for_pod(&self, namespace: &str, pod: &str, within: Duration) -> Result<Value, Error> {
        let what = format!("pod {namespace}/{pod} to be ready");
        self.wait_until(&what, within, &["pod", pod, "-n", namespace], |object| {
            if is_ready(object) {
                return Ok(object.clone());
            }
            let (status, leaving) = (&object["status"], &object["metadata"]["deletionTimestamp"]);
            let (conditions, containers) = (&status["conditions"], &status["containerStatuses"]);
            Err(format!("{} {conditions} {containers}, deleted: {leaving}", status["phase"]))
        })
    }
}

/// Whether a pod serves and will go on. A pod that is being deleted says `Ready` until its last container has ended.
fn is_ready(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null() && condition(pod, "Ready").as_deref() == Some("True")
}

/// The status of a condition of an object: `True`, `False` or `Unknown`; `None` if it is not there.
#[must_use]
pub fn condition(object: &Value, kind: &str) -> Option<String> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    found["status"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_that_is_being_deleted_is_not_ready() {
        let mut pod = json!({"metadata": {"name": "demo-1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(is_ready(&pod));
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-28T21:00:00Z");
        assert!(!is_ready(&pod));
    }

    #[test]
    fn a_condition_is_found_by_its_kind() {
        let object = json!({"status": {"conditions": [
            {"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False"}
        ]}});
        assert_eq!(condition(&object, "Ready").as_deref(), Some("False"));
        assert_eq!(condition(&object, "Degraded"), None);
        assert_eq!(condition(&json!({}), "Ready"), None);
    }
}
