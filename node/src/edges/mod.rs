//! Where calls come in: gRPC, HTTP, the operations port, what each may send and hold, and what an edge sees of its node.

pub mod connections;
pub mod edge;
pub mod grpc;
pub mod handle;
pub(crate) mod heard;
pub mod http;
pub mod operations;
pub(crate) mod sent;
pub(crate) mod sliced;
pub(crate) mod workers;
