//! What the tests of the whole need: a simulator of clusters, real processes, a real Kubernetes, and other languages' tools.

pub mod clients;
pub mod kube;
pub mod process;
pub mod sim;
