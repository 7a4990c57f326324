//! What is left of a cluster that has lost its quorum.

/// What a node knows whose cluster may have lost its quorum for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoverySeen {
    /// Its id.
    pub id: String,
    /// How often its cluster was forced to recover, as far as it was there.
    pub generation: u32,
    /// The term of the last entry of its log.
    pub last_term: u64,
    /// The index of that entry.
    pub last: u64,
    /// The last index that it knows to be committed.
    pub commit: u64,
    /// What it would cost if it went on alone, each in a sentence.
    pub costs: Vec<String>,
    /// Why it cannot.
    pub refusal: Option<String>,
    /// Why it does so only if it is forced.
    pub caution: Option<String>,
    /// What is to be given back to it; empty where it cannot. It fits only what the node is at that moment.
    pub token: String,
}
