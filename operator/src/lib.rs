//! The Kubernetes operator of RaftQueue: a `RaftQueue` object becomes a StatefulSet of nodes that form one cluster.
//!
//! [`crd`] is the object as users write it and as the operator answers in its status, with every rule that an API server
//! can check by itself. There is no admission webhook: what the schema and its rules let through is what the rest of the
//! operator has to deal with.

pub mod cluster;
pub mod config;
pub mod controller;
pub mod crd;
#[cfg(test)]
mod fake;
pub mod health;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod recorder;
#[cfg(test)]
mod tidy;
