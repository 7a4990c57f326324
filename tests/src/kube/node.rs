//! The one node: container runtime, kubelet, service addresses, and names of pods and services.

use super::cache::Programs;
use super::command::{Seen, make_folder, output_of, run, text_of, wait_for, write};
use super::component::Component;
use super::control_plane::ADDRESS;
use super::error::Error;
use super::images::Image;
use super::kubectl::{Kubectl, condition};
use super::namespace::Entrance;
use super::state::State;
use std::path::PathBuf;
use std::time::Duration;

/// What the node is called.
pub const NODE: &str = "node1";
/// The addresses of pods.
const POD_RANGE: &str = "10.88.0.0/16";
/// The image of the process that holds a pod's network, made of the probe.
const PAUSE_IMAGE: &str = "localhost/pause:1";
/// The image that tests make their own pods of: `/probe` (see `probe.go` for what it can do).
pub const PROBE_IMAGE: &str = "localhost/probe:1";
/// How long each part may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The components of the node.
#[derive(Debug)]
pub struct Node {
    pub(super) runtime: Component,
    pub(super) kubelet: Component,
    pub(super) proxy: Component,
}

impl Node {
    /// Starts the container runtime, which needs nothing of the control plane.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn start_runtime(
        state: &State,
        entrance: &Entrance,
        programs: &Programs,
    ) -> Result<Component, Error> {
        write(&state.path("containerd.toml"), runtime_settings(state, programs))?;
        write(&state.path("cni/10-bridge.conflist"), network_settings(state))?;
        let arguments = ["-c".to_owned(), state.text("containerd.toml")];
        Component::start(state, entrance, "containerd", &programs.path("containerd"), arguments)
    }

    /// Starts the rest, once the API answers.
    ///
    /// # Errors
    /// [`Error::Ended`] or [`Error::TimedOut`] naming the component.
    pub(super) fn start(
        state: &State,
        entrance: &Entrance,
        programs: &Programs,
        mut runtime: Component,
    ) -> Result<Self, Error> {
        let start =
            |name, arguments| Component::start(state, entrance, name, &programs.path(name), arguments);
        for folder in cgroup_folders(state) {
            make_folder(&folder)?;
        }
        write(&state.path("kubelet.yaml"), kubelet_settings(state))?;
        write(&state.path("node-resolv.conf"), format!("nameserver {ADDRESS}\n"))?;
        let kubeconfig = format!("--kubeconfig={}", state.text("kubeconfig"));
        let proxy = start("kube-proxy", proxy_arguments(&kubeconfig))?;
        wait_for("containerd", READY_WITHIN, || {
            runtime.check()?;
            let output = output_of(ctr(state, entrance, programs).arg("version"), "")?;
            Ok(if output.status.success() { Seen::Done(()) } else { Seen::NotYet(text_of(&output)) })
        })?;
        let probe = programs.path("probe");
        for (reference, entrypoint) in [(PAUSE_IMAGE, vec!["/probe", "pause"]), (PROBE_IMAGE, vec!["/probe"])]
        {
            let image = Image::new(reference, &entrypoint).with_file("probe", &probe);
            import(state, entrance, programs, &image)?;
        }
        let kubelet = start("kubelet", kubelet_arguments(state, &kubeconfig))?;
        Ok(Self { runtime, kubelet, proxy })
    }

    /// Waits until pods can be started.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub(super) fn wait(&mut self, kubectl: &Kubectl) -> Result<(), Error> {
        wait_for("the node to be ready", READY_WITHIN, || {
            self.check()?;
            Ok(match kubectl.json(&["get", "node", NODE]) {
                Err(error) => Seen::NotYet(error.to_string()),
                Ok(node) if condition(&node, "Ready").as_deref() == Some("True") => Seen::Done(()),
                Ok(node) => Seen::NotYet(node["status"]["conditions"].to_string()),
            })
        })
    }

    /// Says if one has ended by itself.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn check(&mut self) -> Result<(), Error> {
        [&mut self.runtime, &mut self.kubelet, &mut self.proxy].into_iter().try_for_each(Component::check)
    }

    pub(super) fn forget(self) {
        for component in [self.kubelet, self.proxy, self.runtime] {
            component.forget();
        }
    }
}

/// Starts the name server; it needs only the API.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn start_names(
    state: &State,
    entrance: &Entrance,
    programs: &Programs,
) -> Result<Component, Error> {
    // Names that just appeared must be found at once, so nothing is remembered for longer than a second.
    let settings = format!(
        ".:53 {{\n  bind {ADDRESS}\n  kubernetes cluster.local {{\n    kubeconfig {} raftqueue\n    ttl 1\n  }}\n  errors\n}}\n",
        state.text("kubeconfig")
    );
    write(&state.path("Corefile"), settings)?;
    write(
        &state.path("resolv.conf"),
        format!("nameserver {ADDRESS}\nsearch svc.cluster.local cluster.local\noptions ndots:3\n"),
    )?;
    let arguments = ["-conf".to_owned(), state.text("Corefile")];
    Component::start(state, entrance, "coredns", &programs.path("coredns"), arguments)
}

/// Waits until the name server knows the API server's own name.
///
/// # Errors
/// [`Error::Ended`] or [`Error::TimedOut`].
pub(super) fn wait_for_names(
    names: &mut Component,
    entrance: &Entrance,
    programs: &Programs,
) -> Result<(), Error> {
    wait_for("names to resolve", READY_WITHIN, || {
        names.check()?;
        let mut ask = entrance.in_network(programs.path("probe"));
        ask.args(["resolve", "kubernetes.default.svc.cluster.local.", ADDRESS]);
        let output = output_of(&mut ask, "")?;
        Ok(if output.status.success() { Seen::Done(()) } else { Seen::NotYet(text_of(&output)) })
    })
}

/// The runtime's own tool, on the images and containers of the kubelet.
pub(super) fn ctr(state: &State, entrance: &Entrance, programs: &Programs) -> std::process::Command {
    let mut command = entrance.inside(programs.path("ctr"));
    command.arg("--address").arg(state.path("containerd.sock")).args(["--namespace", "k8s.io"]);
    command
}

/// Gives an image to the node.
///
/// # Errors
/// [`Error::Failed`] with what the runtime said.
pub(super) fn import(
    state: &State,
    entrance: &Entrance,
    programs: &Programs,
    image: &Image,
) -> Result<(), Error> {
    let archive = state.path("image.tar");
    image.write_archive(&archive)?;
    run(ctr(state, entrance, programs).args(["images", "import"]).arg(&archive))?;
    std::fs::remove_file(&archive).map_err(Error::io("remove an image's archive"))
}

/// The cgroup that all pods are below, in every hierarchy (version 1) or in the one there is (version 2).
pub(super) fn cgroup_folders(state: &State) -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    let name = state.kernel_name();
    if root.join("cgroup.controllers").exists() {
        return vec![root.join(name)];
    }
    let Ok(hierarchies) = std::fs::read_dir(&root) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = hierarchies
        .flatten()
        // Names like `cpu,cpuacct` are one hierarchy with links to it.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| entry.path().join("cgroup.procs").exists())
        .map(|entry| entry.path().join(&name))
        .collect();
    folders.sort();
    folders
}

fn runtime_settings(state: &State, programs: &Programs) -> String {
    let (root, inside, socket) = (state.text("containerd"), "/run/raftqueue", state.text("containerd.sock"));
    let (plugins, networks) = (programs.cni_folder(), state.text("cni"));
    format!(
        r#"version = 3
root = "{root}"
state = "{inside}/containerd"
[grpc]
  address = "{socket}"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE runc dies where it sets the pause process's -998, and says only that a pipe ended.
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{}"]
    conf_dir = "{networks}"
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
"#,
        plugins.display()
    )
}

fn network_settings(state: &State) -> String {
    let addresses = state.text("addresses");
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "raftqueue", "plugins": [{{"type": "bridge", "bridge": "rqkcni0",
  "isGateway": true, "ipMasq": false, "hairpinMode": true, "ipam": {{"type": "host-local", "dataDir": "{addresses}",
  "ranges": [[{{"subnet": "{POD_RANGE}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}}
"#
    )
}

fn kubelet_settings(state: &State) -> String {
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://{socket}
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
failCgroupV1: false
failSwapOn: false
address: {ADDRESS}
clusterDNS: ["{ADDRESS}"]
clusterDomain: cluster.local
resolvConf: {resolv}
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
evictionHard: {{"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"}}
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
imageGCHighThresholdPercent: 100
podLogsDir: {logs}
volumePluginDir: {plugins}
"#,
        socket = state.text("containerd.sock"),
        cgroup = state.kernel_name(),
        resolv = state.text("node-resolv.conf"),
        logs = state.text("log/pods"),
        plugins = state.text("volume-plugins"),
    )
}

fn kubelet_arguments(state: &State, kubeconfig: &str) -> Vec<String> {
    vec![
        kubeconfig.to_owned(),
        format!("--config={}", state.text("kubelet.yaml")),
        format!("--hostname-override={NODE}"),
        format!("--node-ip={ADDRESS}"),
        format!("--root-dir={}", state.text("kubelet")),
        format!("--cert-dir={}", state.text("kubelet-pki")),
    ]
}

fn proxy_arguments(kubeconfig: &str) -> Vec<String> {
    vec![
        kubeconfig.to_owned(),
        "--proxy-mode=nftables".to_owned(),
        format!("--cluster-cidr={POD_RANGE}"),
        format!("--hostname-override={NODE}"),
        // These are settings of the whole machine.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0".to_owned(),
    ]
}
