//! Randomness from the operating system: for ids, nonces, salts and seeds. The cores get theirs from here, as numbers.

use raftqueue_raft::NodeId;

/// A random number, never 0.
///
/// # Panics
/// If the operating system gives no randomness: nothing that needs an id could go on.
#[must_use]
pub(crate) fn random() -> u64 {
    loop {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("the operating system gives randomness");
        match u64::from_le_bytes(bytes) {
            0 => {}
            number => return number,
        }
    }
}

/// The id of a new node. Its first digit is never 0, so it reads the same with and without zeros in front of it.
#[must_use]
pub(crate) fn node_id() -> NodeId {
    NodeId(random() | 1 << 63)
}

/// A random 128-bit number, never 0.
#[must_use]
pub(crate) fn random_wide() -> u128 {
    u128::from(random()) << 64 | u128::from(random())
}
