//! What stands in the log.

use crate::{Configuration, Index, Term};
use bytes::Bytes;
use std::sync::Arc;

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the log.
    pub index: Index,
    /// The term of the leader that appended it.
    pub term: Term,
    /// What it says.
    pub payload: Payload,
}

/// The content of an entry. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: a leader's first entry, which lets it commit what earlier terms left behind.
    Noop,
    /// A configuration of the cluster, in force as soon as it stands in the log.
    Config(Arc<Configuration>),
    /// Commands of the state machine. `meta` is all that applying them reads; `bodies` are the message bodies, written
    /// once and read back only to be delivered.
    Command {
        /// The encoded commands: small, at most a few hundred KiB.
        meta: Bytes,
        /// The bodies, one after another; `meta` knows the length and CRC of each.
        bodies: Bytes,
    },
}

impl Entry {
    /// Bytes that this entry occupies, for windows and limits. A fixed cost is added so that empty entries count too.
    #[must_use]
    pub fn size(&self) -> usize {
        const OVERHEAD_BYTES: usize = 64;
        OVERHEAD_BYTES
            + match &self.payload {
                Payload::Noop => 0,
                Payload::Config(configuration) => 64 * configuration.members.len(),
                Payload::Command { meta, bodies } => meta.len() + bodies.len(),
            }
    }
}
