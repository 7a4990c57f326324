//! The wire contract of RaftQueue, compiled: what clients say ([`v1`]) and what nodes say to each other ([`peer::v1`]).
//!
//! The `.proto` files beside this crate are the contract and its documentation; nothing here adds meaning to it but
//! [`status`], the one place that knows how a typed error travels inside a gRPC status, and [`text`], how bytes are
//! written where only text can stand. Turning these types into the node's own words, and judging what they say, is the
//! business of `node/src/wire/convert.rs`.
//!
//! `bytes` fields are [`bytes::Bytes`]: a decoded body shares the buffer it was received in.

pub mod status;
pub mod text;

/// The client's contract: `Queue`, `Admin`, and the errors of both.
#[expect(
    missing_docs,
    clippy::all,
    reason = "generated; the comments of the .proto files are its documentation"
)]
#[allow(unreachable_pub, unused_qualifications, clippy::semicolon_if_nothing_returned, clippy::large_futures)]
#[allow(clippy::needless_pass_by_value, clippy::wildcard_imports, clippy::uninlined_format_args)]
pub mod v1 {
    tonic::include_proto!("raftqueue.v1");
}

/// The contract between nodes.
pub mod peer {
    /// Version 1 of the frame layout.
    #[expect(
        missing_docs,
        clippy::all,
        reason = "generated; the comments of the .proto files are its documentation"
    )]
    #[allow(
        unreachable_pub,
        unused_qualifications,
        clippy::semicolon_if_nothing_returned,
        clippy::large_futures
    )]
    #[allow(clippy::needless_pass_by_value, clippy::wildcard_imports, clippy::uninlined_format_args)]
    pub mod v1 {
        tonic::include_proto!("raftqueue.peer.v1");
    }
}

/// The encoded `FileDescriptorSet` of the client's contract, for gRPC reflection.
pub const CLIENT_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/client_descriptors.bin"));

/// The same contract as JSON over HTTP, in the words of OpenAPI 3.1. Made from the types that serve it: a test of the
/// node compares them.
pub const OPENAPI: &str = include_str!("../raftqueue/v1/openapi.json");
