//! Where the programs of Kubernetes are. They are kept outside the repository and `target/`, in a folder named after
//! their versions, so that only the first run on a machine pays for building them ([`super::build`] does that).

use super::build;
use super::environment;
use super::error::Error;
use super::versions;
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
