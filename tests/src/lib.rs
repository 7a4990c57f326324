//! What the tests of the whole need: a simulator of clusters, real processes, and a real Kubernetes.

pub mod kube;
pub mod process;
pub mod sim;
