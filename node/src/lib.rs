//! A RaftQueue node: the asynchronous shell around the Raft, WAL and queue cores.

pub mod api;
pub mod bodies;
pub mod codec;
pub mod edge;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod grpc;
pub mod handle;
pub mod http;
pub mod limits;
pub mod replica;
