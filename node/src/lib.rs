//! A RaftQueue node: the asynchronous shell around the Raft, WAL and queue cores.

pub mod api;
pub mod bodies;
pub mod config;
pub mod connections;
pub mod discovery;
pub mod driver;
pub mod edge;
mod entropy;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod forming;
pub mod grpc;
pub mod handle;
mod heard;
pub mod http;
mod inbox;
pub mod metrics;
pub mod operations;
pub mod own;
pub mod process;
mod reading;
pub mod replica;
pub mod run;
mod sent;
pub mod service;
pub mod settings;
mod sliced;
pub mod storage;
pub mod transport;
mod view;
pub mod wire;
mod workers;
