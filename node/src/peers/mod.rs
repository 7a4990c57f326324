//! The other nodes: who they are, how they are found and reached, and how a cluster is formed with them.

pub(crate) mod announcing;
pub mod certificates;
pub mod discovery;
pub mod forming;
pub(crate) mod giving;
pub mod leaving;
pub mod own;
mod patience;
pub mod promises;
pub mod transport;
