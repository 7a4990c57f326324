//! Where the programs of Kubernetes are, and the Prometheus that knows it. They are kept outside the repository and `target/`, in a folder named after
//! their versions, so that only the first run on a machine pays for building them ([`super::build`] does that).

use super::build;
use super::environment;
use super::error::Error;
use super::versions;
use crate::process::prometheus;
use std::path::PathBuf;

/// What the API server and its controllers need.
pub const CONTROL_PLANE: [&str; 5] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"];
/// What a node needs besides, all below the cache's folder.
pub const NODE: [&str; 10] = [
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "cni/bridge",
    "cni/loopback",
    "cni/host-local",
    "coredns",
    "probe",
];

/// The programs of one Kubernetes, all of them there.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The programs, if nothing has to be built for them.
    ///
    /// # Errors
    /// [`Error::NotBuilt`] naming those that are missing.
    pub fn find() -> Result<Self, Error> {
        let programs = Self { folder: environment::cache_folder()?.join(versions::cache_key()).join("bin") };
        let missing: Vec<&'static str> =
            CONTROL_PLANE.into_iter().chain(NODE).filter(|name| !programs.path(name).is_file()).collect();
        if missing.is_empty() {
            return Ok(programs);
        }
        Err(Error::NotBuilt { programs: missing, folder: programs.folder })
    }

    /// The programs. Missing ones are built first, which takes about ten minutes on a fresh machine with two cores.
    ///
    /// # Errors
    /// Those of [`build::build`].
    pub fn find_or_build() -> Result<Self, Error> {
        match Self::find() {
            Err(Error::NotBuilt { .. }) => {
                let cache = environment::cache_folder()?;
                build::build(&cache, &versions::cache_key())?;
                Self::find()
            }
            other => other,
        }
    }

    /// The path of one program. `KUBEBUILDER_ASSETS` and `TEST_ASSET_...` go before the cache.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        environment::named_program(name).unwrap_or_else(|| self.folder.join(name))
    }

    /// The folder of the CNI plugins.
    #[must_use]
    pub fn cni_folder(&self) -> PathBuf {
        self.folder.join("cni")
    }

    /// The folder of everything that was built here.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }
}

/// The folder with a `prometheus` and a `promtool` that know Kubernetes: those that `RAFTQUEUE_PROMETHEUS` names or that are found as
/// programs are, where they do, and else those of the cache.
///
/// # Errors
/// [`Error::NoPrometheus`].
///
/// # Panics
/// If `RAFTQUEUE_PROMETHEUS` names a folder without them.
pub fn find_prometheus() -> Result<PathBuf, Error> {
    let installed = prometheus::folder().filter(|folder| prometheus::knows_kubernetes(folder));
    let built = environment::cache_folder()?.join(versions::prometheus_key()).join("bin");
    let built = Some(built).filter(|folder| folder.is_dir());
    installed.or(built).ok_or(Error::NoPrometheus)
}

/// The same, built where there is none, which takes about three minutes on two cores.
///
/// # Errors
/// As [`find_prometheus`], and those of [`build::build_prometheus`].
pub fn find_or_build_prometheus() -> Result<PathBuf, Error> {
    match find_prometheus() {
        Err(Error::NoPrometheus) => {
            build::build_prometheus(&environment::cache_folder()?, &versions::prometheus_key())?;
            find_prometheus()
        }
        other => other,
    }
}
