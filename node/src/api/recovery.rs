//! A forced recovery: what the node that is left of a lost quorum knows, and what going on alone would cost.

use super::MemberStanding;

/// Asks a node to go on without those that its cluster has lost. It is asked of that very node, and answered by it alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recover {
    /// The token of an answer to this call: the node does what it said there, if it still is as it was then. Without one
    /// nothing is done.
    pub token: Option<String>,
    /// It goes on also if it lacks something that a copy elsewhere may have.
    pub force: bool,
}

/// One member, as a node sees it that hears no leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryMember {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where the other nodes found it.
    pub address: String,
    /// What it is in the newest configuration.
    pub standing: MemberStanding,
    /// It is the node that is asked.
    pub is_own: bool,
    /// This node is connected to it, and it can vote: it has not lost what it promised.
    pub is_heard: bool,
}

/// What a node knows that may have to go on alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryInfo {
    /// Its id.
    pub node_id: u64,
    /// Its name.
    pub name: String,
    /// Its cluster, 32 hexadecimal digits.
    pub cluster_id: String,
    /// The generation that it is of.
    pub generation: u32,
    /// Its term.
    pub term: u64,
    /// The last index of its log.
    pub last: u64,
    /// The term of the entry there. Of two survivors the one with the greater last term, and then the greater last index,
    /// has everything that was acknowledged, if one of them has.
    pub last_term: u64,
    /// The last index that it knows to be committed.
    pub commit: u64,
    /// The last index that it has applied.
    pub applied: u64,
    /// Where its newest configuration stands.
    pub configuration_index: u64,
    /// It is joint: a change of the members was half way.
    pub joint: bool,
    /// It has the body of every message that it knows to live.
    pub complete: bool,
    /// Every record of its log verifies, as far as it was read.
    pub intact: bool,
    /// The members of that configuration, by id.
    pub members: Vec<RecoveryMember>,
    /// What could be lost, and what else it costs, each in a sentence.
    pub costs: Vec<String>,
    /// Why it cannot be done, whatever is forced; `None` if it can.
    pub refusal: Option<String>,
    /// Why it is done only if it is forced; `None` if it need not be.
    pub caution: Option<String>,
    /// Says exactly this state of this node: to be given back when it is to be done. Empty where it cannot be done.
    pub token: String,
    /// It is decided: the node starts again, alone, in the next generation.
    pub decided: bool,
}
