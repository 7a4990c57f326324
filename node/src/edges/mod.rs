//! Where calls come in: gRPC, HTTP, the operations port, what each may send and hold, and what an edge sees of its node.

pub mod connections;
pub mod console;
pub mod edge;
pub(crate) mod entrance;
pub(crate) mod followed;
pub mod gate;
pub mod grpc;
pub mod http;
pub mod operations;
pub(crate) mod request_end;
pub(crate) mod sent;
pub mod service;
pub(crate) mod sliced;
pub(crate) mod workers;
