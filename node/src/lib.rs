//! A RaftQueue node: the asynchronous shell around the Raft, WAL and queue cores.

pub mod api;
pub mod config;
pub mod driver;
pub mod edges;
mod entropy;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod metrics;
pub mod peers;
pub mod process;
pub mod replica;
pub mod run;
pub mod service;
pub mod settings;
#[cfg(test)]
mod tidy;
pub mod traces;
pub mod wire;
