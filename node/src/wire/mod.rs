//! Forms on the wire: calls and answers as protobuf, errors with their detail, ids as opaque bytes, and messages of
//! Raft between nodes.

pub(crate) mod answers;
pub(crate) mod calls;
pub(crate) mod convert;
pub mod errors;
pub mod forward;
pub(crate) mod giving;
pub mod ids;
mod members;
pub mod messages;
pub(crate) mod recovery;
pub(crate) mod storage;
