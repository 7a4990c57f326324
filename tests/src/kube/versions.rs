//! What the real Kubernetes is made of, and what watches it. A change of any version gives the cache a folder of its own.

/// Kubernetes itself: API server, controller manager, scheduler, kubelet, kube-proxy, kubectl.
pub const KUBERNETES: &str = "1.36.3";
/// The modules that Kubernetes publishes beside itself follow its version with another first number.
pub const KUBERNETES_STAGING: &str = "0.36.3";
/// The store of the API server.
pub const ETCD: &str = "3.6.10";
/// The container runtime; Kubernetes 1.36 needs 2 or later, and Debian 12 has 1.6.
pub const CONTAINERD: &str = "2.2.0";
/// The plugins that give pods their addresses.
pub const CNI_PLUGINS: &str = "1.9.1";
/// The names of services and pods.
pub const COREDNS: &str = "1.13.1";
/// What watches: as its releases are called.
pub const PROMETHEUS: &str = "3.16.0";
/// The same as a Go module is called, whose first number may not be above 1 without a change of its name.
pub const PROMETHEUS_MODULE: &str = "0.316.0";
/// Raised when the way of building Kubernetes changes, or `probe.go`, so that older caches are not taken for this one.
pub const RECIPE: u32 = 1;
/// The same of Prometheus.
const PROMETHEUS_RECIPE: u32 = 1;

/// Modules of the Kubernetes repository whose place must be told, since its own `go.mod` points at folders.
pub(super) const STAGING: [&str; 33] = [
    "api",
    "apiextensions-apiserver",
    "apimachinery",
    "apiserver",
    "cli-runtime",
    "client-go",
    "cloud-provider",
    "cluster-bootstrap",
    "code-generator",
    "component-base",
    "component-helpers",
    "controller-manager",
    "cri-api",
    "cri-client",
    "cri-streaming",
    "csi-translation-lib",
    "dynamic-resource-allocation",
    "endpointslice",
    "externaljwt",
    "kms",
    "kube-aggregator",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "metrics",
    "mount-utils",
    "pod-security-admission",
    "sample-apiserver",
    "sample-cli-plugin",
    "sample-controller",
    "streaming",
];

/// The name of the folder in the cache that holds programs of exactly these versions.
#[must_use]
pub fn cache_key() -> String {
    format!(
        "kube-{KUBERNETES}-etcd-{ETCD}-containerd-{CONTAINERD}-cni-{CNI_PLUGINS}-coredns-{COREDNS}-r{RECIPE}"
    )
}

/// The same for Prometheus, which is built apart: a new one of either has the other stay.
#[must_use]
pub fn prometheus_key() -> String {
    format!("prometheus-{PROMETHEUS}-r{PROMETHEUS_RECIPE}")
}
