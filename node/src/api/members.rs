//! Who is a member, and how that is changed: in a node's own words.

use super::checks::{check_name, check_range, invalid};
use super::{Failure, MemberRole};

/// Members that one call may name: they are changed in one step.
pub const CHANGED_MAX: usize = 3;

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeMembers {
    /// What is to change.
    pub change: Change,
    /// The index of the configuration that the caller has seen: where another one is in force by now, nothing is done.
    pub expected: Option<u64>,
    /// What is refused because members are not well is done all the same.
    pub force: bool,
    /// Nothing is done: the answer says why it would be refused, if it would.
    pub dry: bool,
}

/// What is to change. Nodes are named by id (hexadecimal) or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Waiting nodes get the log from now on.
    AddLearners(Vec<String>),
    /// Learners that have everything become voters.
    Promote(Vec<String>),
    /// Members are members no longer.
    Remove(Vec<String>),
    /// A learner takes the place of a voter, in one step.
    Replace {
        /// The voter.
        old: String,
        /// The learner.
        new: String,
    },
    /// The active version of commands and formats rises to this one, or to the newest that all members run.
    RaiseVersion(Option<u32>),
}

impl ChangeMembers {
    pub(super) fn check(&self) -> Result<(), Failure> {
        match &self.change {
            Change::AddLearners(nodes) | Change::Promote(nodes) | Change::Remove(nodes) => {
                check_range("nodes", nodes.len(), 1, CHANGED_MAX)?;
                nodes.iter().try_for_each(|node| check_name("node", node))?;
                let mut sorted = nodes.clone();
                sorted.sort_unstable();
                match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                    Some(pair) => Err(invalid(format!("nodes: `{}` is named twice", pair[0]))),
                    None => Ok(()),
                }
            }
            Change::Replace { old, new } => {
                check_name("old", old)?;
                check_name("new", new)
            }
            Change::RaiseVersion(version) => {
                version.map_or(Ok(()), |version| check_range("version", version, 1, u32::from(u8::MAX)))
            }
        }
    }
}

/// What a member is in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberStanding {
    /// Counts for elections and commits.
    Voter,
    /// Gets the log, and does not count.
    Learner,
    /// A voter that is on its way out: it counts until the joint configuration is left.
    Leaving,
}

impl MemberStanding {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Voter, Self::Learner, Self::Leaving];

    /// As it stands on every wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::Leaving => "leaving",
        }
    }

    /// The one of a name; `None` for one that this version does not know.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|standing| standing.name() == name)
    }
}

/// One member, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where the other nodes find it, as the configuration says.
    pub address: String,
    /// What it is in the configuration.
    pub standing: MemberStanding,
    /// It leads.
    pub leads: bool,
    /// Heard from within an election timeout.
    pub active: bool,
    /// Last index durable there.
    pub matched: u64,
    /// Entries it is behind the leader's last.
    pub lag: u64,
    /// It has every message that lives.
    pub complete: bool,
    /// It has yet to apply what was committed when its process started.
    pub replaying: bool,
    /// Its disk does not answer.
    pub disk_stalled: bool,
    /// Why it does not count as well, for a quorum that others are to rely on; `None` if it does.
    pub unwell: Option<String>,
    /// Why it must not be stopped now; `None`: it may.
    pub stop_refusal: Option<String>,
    /// Bytes free on its data disk; `None` where the leader has not heard of it.
    pub free_bytes: Option<u64>,
    /// The oldest and the newest version of commands and formats that it can run; `None` where the leader has not heard of it.
    pub versions: Option<(u32, u32)>,
}

/// A node with a blank disk that has announced itself and is no member yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingInfo {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where the other nodes find it, as it said.
    pub address: String,
    /// Where clients find it, as it said.
    pub client_address: String,
}

/// All members, as the leader sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersInfo {
    /// Where the configuration in force stands in the log: what a change is asked for as of.
    pub configuration_index: u64,
    /// It is joint: a change is half way.
    pub joint: bool,
    /// It is committed, and so is something of the leader's term: a change would be taken up.
    pub settled: bool,
    /// The leader's id.
    pub leader: u64,
    /// Its term.
    pub term: u64,
    /// The last index of its log.
    pub last: u64,
    /// Active version of commands and formats.
    pub version: u32,
    /// The members, by id.
    pub members: Vec<MemberState>,
    /// Nodes that wait to be added, by id.
    pub waiting: Vec<WaitingInfo>,
}

impl MemberState {
    /// What it is, in the words of the cluster's status.
    #[must_use]
    pub fn role(&self) -> MemberRole {
        match self.standing {
            _ if self.leads => MemberRole::Leader,
            MemberStanding::Voter | MemberStanding::Leaving => MemberRole::Follower,
            MemberStanding::Learner => MemberRole::Learner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_4_4_a_change_names_one_to_three_nodes_each_once() {
        let check = |nodes: &[&str]| {
            let change = Change::Remove(nodes.iter().map(ToString::to_string).collect());
            let asked = ChangeMembers { change, expected: None, force: false, dry: false };
            asked.check().map_err(|failure| failure.text)
        };
        assert_eq!(check(&["a", "b", "c"]), Ok(()));
        for (nodes, words) in [
            (&[][..], "nodes"),
            (&["a", "b", "c", "d"], "nodes"),
            (&["a", "b", "a"], "nodes: `a` is named twice"),
            (&["a", ""], "node"),
        ] {
            assert!(check(nodes).expect_err("it is refused").contains(words), "{nodes:?}");
        }
    }
}
