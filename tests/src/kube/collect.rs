//! What somebody needs who was not there when a test failed: logs of every component and pod, events, objects, in one
//! folder.

use super::command::{make_folder, write};
use super::error::Error;
use super::kubectl::Kubectl;
use super::state::State;
use serde_json::Value;
use std::path::Path;

/// What is asked of the API, and the file that the answer goes to.
const OBJECTS: [(&str, &[&str]); 6] = [
    ("events.txt", &["get", "events", "-A", "--sort-by=.lastTimestamp", "-o", "wide"]),
    ("overview.txt", &["get", "all,pvc,pv,endpointslices,pdb,leases", "-A", "-o", "wide"]),
    ("nodes.txt", &["describe", "nodes"]),
    ("pods.txt", &["describe", "pods", "-A"]),
    (
        "objects.yaml",
        &["get", "pods,statefulsets,deployments,services,configmaps,pvc,pv,pdb,leases", "-A", "-o", "yaml"],
    ),
    ("raftqueues.yaml", &["get", "raftqueues.raftqueue.io", "-A", "-o", "yaml"]),
];

/// Collects everything into a folder. If something cannot be had, a note says so: here the cluster is usually broken.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be written.
pub fn collect(kubectl: &Kubectl, state: Option<&State>, folder: &Path) -> Result<(), Error> {
    make_folder(&folder.join("pods"))?;
    let ask = |arguments: &[&str]| -> Vec<u8> {
        let arguments = [arguments, &["--request-timeout=10s"]].concat();
        match kubectl.output(&arguments) {
            Ok(output) => [output.stdout, output.stderr].concat(),
            Err(error) => error.to_string().into_bytes(),
        }
    };
    for (file, arguments) in OBJECTS {
        write(&folder.join(file), ask(arguments))?;
    }
    let pods: Value = serde_json::from_slice(&ask(&["get", "pods", "-A", "-o", "json"])).unwrap_or_default();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, pod_name) = (name("namespace"), name("name"));
        for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
            let container = container["name"].as_str().unwrap_or_default();
            for (suffix, flag) in [("", "--previous=false"), (".previous", "--previous=true")] {
                let text = ask(&["logs", "-n", &namespace, &pod_name, "-c", container, flag]);
                write(&folder.join(format!("pods/{namespace}.{pod_name}.{container}{suffix}.log")), text)?;
            }
        }
    }
    state.map_or(Ok(()), |state| keep_logs(state, &folder.join("components")))
}

/// Copies the logs of all components into a folder.
///
/// # Errors
/// [`Error::Io`].
pub fn keep_logs(state: &State, to: &Path) -> Result<(), Error> {
    make_folder(to)?;
    let from = state.path("log");
    let what = || Error::io(format!("copy the logs of {}", from.display()));
    for entry in std::fs::read_dir(&from).map_err(what())? {
        let path = entry.map_err(what())?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            std::fs::copy(&path, to.join(name)).map_err(what())?;
        }
    }
    Ok(())
}
