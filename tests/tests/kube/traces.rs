//! What a Kubernetes of ours leaves on the machine, found without asking the harness: processes, mounts, networks, links,
//! cgroups, folders; and the host's packet filter, which is not ours to touch.

use raftqueue_tests::kube::state::State;
use std::path::Path;
use std::process::Command;

/// Everything on this machine that bears the name of one Kubernetes, a line each.
pub(crate) fn of(state: &State) -> Vec<String> {
    let name = state.kernel_name();
    let folder = state.folder().display().to_string();
    let mut found = processes(&folder);
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("Linux shows its mounts");
    found.extend(mounts.lines().filter(|line| line.contains(&folder)).map(|line| format!("mount {line}")));
    found.extend(lines_with(&["ip", "netns", "list"], &name, "network"));
    for link in ["rqk0", "rqkcni0"] {
        found.extend(lines_with(&["ip", "-o", "link"], link, "link of the host"));
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("Linux shows its cgroups").flatten() {
        if hierarchy.path().join(&name).exists() {
            found.push(format!("cgroup {}", hierarchy.path().join(&name).display()));
        }
    }
    if Path::new("/sys/fs/cgroup").join(&name).exists() {
        found.push(format!("cgroup {name}"));
    }
    if state.exists() {
        found.push(format!("folder {folder}"));
    }
    found
}

/// Processes whose command line names the folder. Those of pods have a shim that does.
pub(crate) fn processes(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("Linux shows its processes").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(folder) {
            found.push(format!("process {} {line}", entry.file_name().display()));
        }
    }
    found
}

/// The tables of the host's packet filter.
pub(crate) fn packet_filters() -> Vec<String> {
    lines_with(&["nft", "list", "tables"], "", "table")
}

fn lines_with(command: &[&str], needle: &str, title: &str) -> Vec<String> {
    let output = Command::new(command[0]).args(&command[1..]).output().expect("the machine has it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| line.contains(needle)).map(|line| format!("{title}: {line}")).collect()
}
