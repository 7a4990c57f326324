//! Volumes made up front: folders of the host behind PersistentVolumes of the default class, so that a claim that names no
//! class is bound at once and no provisioner is needed.

use super::command::make_folder;
use super::error::Error;
use super::images::USER;
use super::kubectl::Kubectl;
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// The default storage class, whose volumes lie on this machine.
pub const CLASS: &str = "local";
/// What a volume claims to hold, in GiB. Nobody checks: the folder has all the room of its file system.
const SIZE_GIB: u32 = 10;

/// The volumes of one Kubernetes.
#[derive(Debug)]
pub struct Volumes {
    folder: PathBuf,
    kubectl: Kubectl,
}

impl Volumes {
    /// The volumes below a folder.
    #[must_use]
    pub fn new(folder: PathBuf, kubectl: Kubectl) -> Self {
        Self { folder, kubectl }
    }

    /// Makes the storage class.
    ///
    /// # Errors
    /// [`Error::Failed`] if the API refuses it.
    pub(super) fn make_class(&self) -> Result<(), Error> {
        let class = json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "Immediate",
            "reclaimPolicy": "Retain",
        });
        self.kubectl.apply(&class.to_string()).map(drop)
    }

    /// Makes so many volumes more of the default class, and returns their names.
    ///
    /// # Errors
    /// [`Error::Io`] for the folders, [`Error::Failed`] if the API refuses them.
    pub fn make(&self, count: usize) -> Result<Vec<String>, Error> {
        self.make_of_class(CLASS, count)
    }

    /// The same, of a class that needs no object of its own.
    ///
    /// # Errors
    /// As [`Volumes::make`].
    pub fn make_of_class(&self, class: &str, count: usize) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        if count == 0 {
            // kubectl refuses an empty list.
            return Ok(names);
        }
        let mut number = 0;
        while names.len() < count {
            let name = format!("volume-{number:02}");
            number += 1;
            if !self.folder.join(&name).exists() {
                make_writable(&self.folder.join(&name))?;
                names.push(name);
            }
        }
        let items: Vec<Value> =
            names.iter().map(|name| volume(name, class, &self.folder.join(name))).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        self.kubectl.apply(&list.to_string())?;
        Ok(names)
    }

    /// The folder behind the volume that a claim is bound to.
    ///
    /// # Errors
    /// [`Error::Failed`] if there is no such claim, [`Error::Strange`] if it is not bound.
    pub fn folder_of_claim(&self, namespace: &str, claim: &str) -> Result<PathBuf, Error> {
        let object = self.kubectl.json(&["get", "pvc", claim, "-n", namespace])?;
        match object["spec"]["volumeName"].as_str() {
            Some(volume) => Ok(self.folder.join(volume)),
            None => {
                Err(Error::Strange { what: format!("claim {namespace}/{claim}"), text: object.to_string() })
            }
        }
    }

    /// Empties a volume, as a new disk would be.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn wipe(&self, volume: &str) -> Result<(), Error> {
        let folder = self.folder.join(volume);
        std::fs::remove_dir_all(&folder).map_err(Error::io(format!("remove {}", folder.display())))?;
        make_writable(&folder)
    }

    /// Empties every volume whose claim is gone and offers it again. Volumes that a case made by itself are left alone. Returns how
    /// many.
    ///
    /// # Errors
    /// As [`Volumes::wipe`], and [`Error::Failed`] from the API.
    pub fn wipe_released(&self) -> Result<usize, Error> {
        let volumes = self.kubectl.json(&["get", "pv"])?;
        let released: Vec<&str> = volumes["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|volume| volume["status"]["phase"] == "Released")
            .filter_map(|volume| volume["metadata"]["name"].as_str())
            .filter(|volume| self.folder.join(volume).exists())
            .collect();
        for volume in &released {
            self.wipe(volume)?;
            let free = r#"{"spec":{"claimRef":null}}"#;
            self.kubectl.run(&["patch", "pv", volume, "--type=merge", "-p", free])?;
        }
        Ok(released.len())
    }
}

/// A folder that the images' user may write to: kubelet does not change the owner of such volumes (`fsGroup` is ignored).
fn make_writable(folder: &Path) -> Result<(), Error> {
    make_folder(folder)?;
    chown(folder, Some(USER), Some(USER)).map_err(Error::io(format!("give {} away", folder.display())))?;
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder, everybody).map_err(Error::io(format!("open {}", folder.display())))
}

fn volume(name: &str, class: &str, folder: &Path) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": format!("{SIZE_GIB}Gi")},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": class,
            "hostPath": {"path": folder, "type": "Directory"},
        },
    })
}
