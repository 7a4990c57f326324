//! A real Kubernetes on a bare machine, for tests and for trying things out: the real programs, built from their public Go
//! modules, in namespaces of their own, ready in seconds.
//!
//! [`Kube::start`] gives one; dropping it leaves nothing behind, and neither does `kill -9` of its owner once the next one
//! starts. [`Kube::foreign`] gives the same face to a cluster that somebody else runs, as far as that goes.
//!
//! | part | room |
//! |---|---|
//! | programs: which, where, how they are built | [`versions`], [`cache`], `build` |
//! | the folder, the namespaces, one program in them | [`state`], [`namespace`], [`component`] |
//! | what runs | [`control_plane`], [`node`], `certificates` |
//! | what tests use | [`kubectl`], [`images`], [`volumes`], [`gate`], [`collect`] |
//! | the end | [`stop`] |
//! | for people | [`playground`] |
//!
//! It does not enforce network policies: its pod network is a plain bridge.

mod build;
pub mod cache;
mod certificates;
pub mod collect;
pub mod command;
pub mod component;
pub mod control_plane;
pub mod environment;
mod error;
pub mod gate;
pub mod images;
pub mod kubectl;
pub mod namespace;
pub mod node;
mod own;
pub mod playground;
mod rights;
pub mod state;
pub mod stop;
pub mod versions;
pub mod volumes;

pub use command::{Seen, wait_for};
pub use environment::Mode;
pub use error::Error;
pub use kubectl::Kubectl;
pub use own::Own;

use cache::Programs;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What a Kubernetes is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name, unique on the machine; 1 to 24 of a-z, 0-9 and -.
    pub name: String,
    /// With a node, so that pods run. Without, the API, its controllers and names are there, in less than half the time.
    pub node: bool,
    /// How many volumes are made at the start.
    pub volumes: usize,
}

impl Default for Options {
    /// A node with ten volumes, under a name that no other process uses.
    fn default() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("test-{}-{number}", std::process::id()), node: true, volumes: 10 }
    }
}

/// A Kubernetes to test on.
#[derive(Debug)]
pub struct Kube {
    kubectl: Kubectl,
    own: Option<Own>,
    /// Whether the product's images are on the node, once somebody wanted them.
    product: OnceLock<Result<(), String>>,
}

impl Kube {
    /// Starts one of our own and returns once it is ready. What killed processes left behind is cleared away first.
    ///
    /// # Errors
    /// [`Error::NotRoot`], [`Error::MissingPrograms`], [`Error::NotBuilt`], [`Error::RunsAlready`] are for whoever
    /// started this; [`Error::Ended`], [`Error::TimedOut`] and the rest name the part that failed. Nothing is left then.
    pub fn start(options: &Options) -> Result<Self, Error> {
        check_machine()?;
        let own = Own::start(options, Programs::find()?)?;
        Ok(Self { kubectl: own.kubectl().clone(), own: Some(own), product: OnceLock::new() })
    }

    /// A cluster that is not ours. Nothing is started or stopped, images are taken to be there.
    #[must_use]
    pub fn foreign(kubeconfig: PathBuf) -> Self {
        Self { kubectl: Kubectl::foreign(kubeconfig), own: None, product: OnceLock::new() }
    }

    /// Asks and changes the cluster.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// What only a Kubernetes of our own has.
    ///
    /// # Errors
    /// [`Error::NotOurs`] with what was wanted: such a test is not for other clusters.
    pub fn own(&self, what: &'static str) -> Result<&Own, Error> {
        self.own.as_ref().ok_or(Error::NotOurs { what, kind: "named by RAFTQUEUE_TEST_KUBECONFIG" })
    }

    /// Builds the product's images and gives them to the node: once, whoever asks first. On a cluster that is not ours they
    /// are taken to be there.
    ///
    /// # Errors
    /// [`Error::Product`] with the first failure, also for all who ask later.
    pub fn load_product(&self) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        let load = || images::build_product(&images::PRODUCT)?.iter().try_for_each(|image| own.load(image));
        let loaded = self.product.get_or_init(|| load().map_err(|error: Error| error.to_string()));
        loaded.clone().map_err(|why| Error::Product { why })
    }

    /// A command where addresses of pods and services can be reached: inside the cluster's network, with its names, if it
    /// is ours; on this machine else.
    #[must_use]
    pub fn command_inside(&self, program: impl AsRef<Path>) -> Command {
        match &self.own {
            Some(own) => own.entrance().in_network_with_names(program),
            None => Command::new(program.as_ref()),
        }
    }

    /// Runs something where addresses of pods and services can be reached, as [`Kube::command_inside`] does for programs.
    ///
    /// # Errors
    /// [`Error::Io`] if the network cannot be entered.
    pub fn work_inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        match &self.own {
            Some(own) => own.entrance().work_in_network(work),
            None => Ok(work()),
        }
    }

    /// Collects what explains a failure into a folder of `target/kube-reports`, and returns it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn collect(&self, title: &str) -> Result<PathBuf, Error> {
        let folder = environment::report_folder(title);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(Error::io(format!("remove {}", folder.display())))?;
        }
        collect::collect(&self.kubectl, self.own.as_ref().map(Own::state), &folder)?;
        Ok(folder)
    }

    /// Stops it, and says what went wrong with that; dropping it does the same silently.
    ///
    /// # Errors
    /// Those of [`stop::stop`].
    pub fn stop(self) -> Result<(), Error> {
        self.own.map_or(Ok(()), Own::stop)
    }

    /// Leaves it running after this process; [`stop::stop`] ends it.
    ///
    /// # Errors
    /// [`Error::Io`] if it died meanwhile.
    pub fn leave_running(self) -> Result<(), Error> {
        self.own.map_or(Ok(()), Own::leave_running)
    }

    /// Sends a signal (`KILL`, `STOP`, ...) to the first process of a container. Its number is that of the moment: the
    /// container that runs after a restart is another one.
    ///
    /// # Errors
    /// [`Error::NotOurs`]; [`Error::Strange`] if no such container runs; [`Error::Failed`].
    pub fn kill_in_pod(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        signal: &str,
    ) -> Result<(), Error> {
        let own = self.own("signals to processes in pods")?;
        own.signal_container(&self.container(namespace, pod, container)?, signal)
    }

    /// A command in the network of a pod, with the programs and files of the host: it reaches what the pod reaches. Names of the
    /// cluster do not resolve for it.
    ///
    /// # Errors
    /// As [`Kube::kill_in_pod`].
    pub fn command_in_pod(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        program: impl AsRef<Path>,
    ) -> Result<Command, Error> {
        let own = self.own("the network of a pod")?;
        own.in_network_of(&self.container(namespace, pod, container)?, program.as_ref())
    }

    /// The runtime's id of a container of a pod.
    fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<String, Error> {
        let object = self.kubectl.json(&["get", "pod", pod, "-n", namespace])?;
        let statuses = object["status"]["containerStatuses"].as_array();
        let status = statuses.into_iter().flatten().find(|status| status["name"] == container);
        status.and_then(running_container).ok_or_else(|| Error::Strange {
            what: format!("container {container} of pod {namespace}/{pod}"),
            text: object["status"].to_string(),
        })
    }
}

/// The runtime's id of a container that runs.
fn running_container(status: &Value) -> Option<String> {
    status["state"].get("running")?;
    Some(status["containerID"].as_str()?.rsplit_once('/')?.1.to_owned())
}

/// Says what this machine lacks for a Kubernetes, before anything is begun.
///
/// # Errors
/// [`Error::NotRoot`], [`Error::MissingPrograms`].
pub fn check_machine() -> Result<(), Error> {
    let uid = rustix::process::geteuid().as_raw();
    if uid != 0 {
        return Err(Error::NotRoot { uid });
    }
    let missing = component::missing_programs(&namespace::MACHINE);
    if missing.is_empty() {
        return Ok(());
    }
    let (programs, mut packages): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
    packages.dedup();
    Err(Error::MissingPrograms { programs, packages })
}
