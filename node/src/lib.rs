//! A RaftQueue node: the asynchronous shell around the Raft, WAL and queue cores.

pub mod api;
pub mod config;
pub mod discovery;
pub mod driver;
pub mod edges;
mod entropy;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod forming;
pub mod metrics;
pub mod own;
pub mod process;
mod reading;
pub mod replica;
pub mod run;
pub mod service;
pub mod settings;
pub mod transport;
pub mod wire;
