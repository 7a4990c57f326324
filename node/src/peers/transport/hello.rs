//! Who is speaking: the first frames of every stream.
//!
//! Three hellos open a stream: the opener's with its nonce, the acceptor's with its own nonce and the opener's echoed,
//! the opener's again with the acceptor's echoed. A node that does not belong to this very cluster is refused. So is a
//! node whose disk shows an old life while a newer one is known: a clone, or a restored backup.

use crate::peers::own::{Acknowledged, Own, OwnIdentity};
use raftqueue_proto::peer::v1 as pb;
use raftqueue_raft::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::Ordering;

/// The only layout of frames so far.
pub(super) const FORMAT: u32 = 1;
/// Earlier processes of one node that are remembered, to be refused.
const BOOTS_MAX: usize = 64;

impl Own {
    pub(super) fn hello(&self, own: OwnIdentity, to: NodeId, nonce: u64, echoed_nonce: u64) -> pb::PeerFrame {
        let hello = pb::Hello {
            format: FORMAT,
            cluster_id: own.cluster_id.map(|id| id.to_be_bytes().to_vec().into()).unwrap_or_default(),
            generation: own.generation,
            from: own.node_id.0,
            to: to.0,
            name: self.name.clone(),
            boot_id: self.boot_id,
            nonce,
            echoed_nonce,
            version_min: crate::api::codec::VERSION_MIN,
            version_max: crate::api::codec::VERSION_MAX,
            version_active: self.version.load(Ordering::Relaxed),
            durable_last_index: self.durable.load(Ordering::Relaxed),
            client_address: self.client_address.clone(),
            term: self.term.load(Ordering::Relaxed),
            peer_address: self.peer_address.clone(),
            configuration_index: self.configuration.load(Ordering::Relaxed),
            promises_lost: self.is_promise_lost.load(Ordering::Acquire),
        };
        pb::PeerFrame { frame: Some(pb::peer_frame::Frame::Hello(hello)) }
    }

    /// What this node becomes by a hello that is meant for it: of none before, it is of the sender's cluster. So is one that
    /// waits for its first entry while its cluster was forced to recover.
    pub(super) fn adoption(&self, own: OwnIdentity, has_log: bool, hello: &pb::Hello) -> Option<OwnIdentity> {
        let cluster_id = <[u8; 16]>::try_from(&hello.cluster_id[..]).ok().map(u128::from_be_bytes);
        let cluster_id = cluster_id.filter(|id| *id != 0)?;
        let generation = hello.generation;
        let is_late = !has_log && own.cluster_id == Some(cluster_id) && generation > own.generation;
        let is_meant = (own.cluster_id.is_none() || is_late) && hello.to == own.node_id.0;
        is_meant.then_some(OwnIdentity { cluster_id: Some(cluster_id), generation, ..own })
    }

    /// Judges a peer's hello.
    pub(super) fn judge(&self, own: OwnIdentity, hello: &pb::Hello) -> Result<(), Refusal> {
        if hello.format != FORMAT {
            return Err(Refusal::Format(hello.format));
        }
        let cluster_id = <[u8; 16]>::try_from(&hello.cluster_id[..]).ok().map(u128::from_be_bytes);
        if cluster_id.is_none() || cluster_id != own.cluster_id {
            return Err(Refusal::OtherCluster { theirs: cluster_id, ours: own.cluster_id });
        }
        if hello.generation != own.generation {
            return Err(Refusal::OtherGeneration { theirs: hello.generation, ours: own.generation });
        }
        if hello.to != 0 && hello.to != own.node_id.0 {
            return Err(Refusal::NotForUs { to: NodeId(hello.to), ours: own.node_id });
        }
        if hello.from == 0 || hello.from == own.node_id.0 {
            return Err(Refusal::NotForUs { to: NodeId(hello.from), ours: own.node_id });
        }
        let active = self.version.load(Ordering::Relaxed).max(hello.version_active);
        if hello.version_max < active || hello.version_min > active.max(crate::api::codec::VERSION_MAX) {
            return Err(Refusal::Version { min: hello.version_min, max: hello.version_max, active });
        }
        Ok(())
    }
}

/// The processes that each node is known to have had.
#[derive(Debug, Default)]
pub(super) struct Boots {
    /// The newest one, and those before it.
    seen: BTreeMap<NodeId, (u64, VecDeque<u64>)>,
}

impl Boots {
    /// Notes a process of a node. `acknowledged` is what that node is known to have had on its disk.
    pub(super) fn see(&mut self, hello: &pb::Hello, acknowledged: &Acknowledged) -> Result<(), Refusal> {
        let from = NodeId(hello.from);
        let refusal = Refusal::Clone { node: from };
        match self.seen.get_mut(&from) {
            Some((newest, _)) if *newest == hello.boot_id => Ok(()),
            Some((_, earlier)) if earlier.contains(&hello.boot_id) => Err(refusal),
            known => {
                if acknowledged.contradicts(from, hello.durable_last_index, hello.term) {
                    return Err(refusal);
                }
                match known {
                    None => drop(self.seen.insert(from, (hello.boot_id, VecDeque::new()))),
                    Some((newest, earlier)) => {
                        earlier.push_back(std::mem::replace(newest, hello.boot_id));
                        if earlier.len() > BOOTS_MAX {
                            earlier.pop_front();
                        }
                    }
                }
                Ok(())
            }
        }
    }
}

/// Why a stream was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another layout of frames.
    Format(u32),
    /// Not of this cluster, or of none.
    OtherCluster {
        /// The peer's.
        theirs: Option<u128>,
        /// This node's.
        ours: Option<u128>,
    },
    /// Of this cluster before or after a forced recovery.
    OtherGeneration {
        /// The peer's.
        theirs: u32,
        /// This node's.
        ours: u32,
    },
    /// The address belongs to another node than the peer believes.
    NotForUs {
        /// Whom it wanted.
        to: NodeId,
        /// Who is here.
        ours: NodeId,
    },
    /// The peer cannot run the version in force.
    Version {
        /// Its oldest.
        min: u32,
        /// Its newest.
        max: u32,
        /// The one in force.
        active: u32,
    },
    /// A newer life of this node is known: its disk is a copy, or was set back. It must stop.
    Clone {
        /// The node.
        node: NodeId,
    },
    /// Its certificate says that it is somebody else; in words.
    Certificate(String),
    /// The hellos were not what they must be.
    Handshake,
}

impl Refusal {
    /// A static word for metrics and for the peer.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Refusal::Format(_) => "format",
            Refusal::OtherCluster { .. } => "cluster",
            Refusal::OtherGeneration { .. } => "generation",
            Refusal::NotForUs { .. } => "node",
            Refusal::Version { .. } => "version",
            Refusal::Clone { .. } => "clone",
            Refusal::Certificate(_) => "certificate",
            Refusal::Handshake => "handshake",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id =
            |id: &Option<u128>| id.map_or_else(|| "no cluster yet".into(), |id| format!("cluster {id:032x}"));
        match self {
            Refusal::Format(format) => write!(f, "frame layout {format} is not known here, {FORMAT} is"),
            Refusal::OtherCluster { theirs, ours } => {
                write!(f, "it belongs to {}, this is {}", id(theirs), id(ours))
            }
            Refusal::OtherGeneration { theirs, ours } => {
                write!(f, "it is of generation {theirs}, this is {ours}: wipe or replace the older one")
            }
            Refusal::NotForUs { to, ours } => write!(f, "it wants node {to}, this is node {ours}"),
            Refusal::Version { min, max, active } => {
                write!(
                    f,
                    "it runs versions {min} to {max}, version {active} is in force: run a newer image there"
                )
            }
            Refusal::Clone { node } => write!(
                f,
                "node {node} is known to have had a later life than this one: its disk is a copy or was set back, or another \
                 process ran on a copy of it. Stop that one and start this again; or, if this is the copy or the disk was set \
                 back, clear the directory so that it joins as a new node"
            ),
            Refusal::Certificate(why) => f.write_str(why),
            Refusal::Handshake => write!(f, "its hellos do not answer ours"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> (Own, OwnIdentity) {
        let own = Own::new("a".into(), "h:1".into(), "p:1".into(), 1);
        own.version.store(1, Ordering::Relaxed);
        (own, OwnIdentity { node_id: NodeId(7), cluster_id: Some(99), generation: 2 })
    }

    fn hello() -> pb::Hello {
        pb::Hello {
            format: FORMAT,
            cluster_id: 99u128.to_be_bytes().to_vec().into(),
            generation: 2,
            from: 8,
            to: 7,
            boot_id: 5,
            version_min: 1,
            version_max: 1,
            version_active: 1,
            durable_last_index: 10,
            ..pb::Hello::default()
        }
    }

    #[test]
    fn rule_1_3_only_this_cluster_generation_and_node_may_speak() {
        let (own, identity) = own();
        assert_eq!(own.judge(identity, &hello()), Ok(()));
        assert_eq!(own.judge(identity, &pb::Hello { to: 0, ..hello() }), Ok(()));
        for (wrong, label) in [
            (pb::Hello { cluster_id: 98u128.to_be_bytes().to_vec().into(), ..hello() }, "cluster"),
            (pb::Hello { cluster_id: vec![1, 2].into(), ..hello() }, "cluster"),
            (pb::Hello { cluster_id: Default::default(), ..hello() }, "cluster"),
            (pb::Hello { generation: 1, ..hello() }, "generation"),
            (pb::Hello { to: 6, ..hello() }, "node"),
            (pb::Hello { from: 7, ..hello() }, "node"),
            (pb::Hello { format: 2, ..hello() }, "format"),
        ] {
            assert_eq!(own.judge(identity, &wrong).unwrap_err().label(), label);
        }
        let nobody = OwnIdentity { cluster_id: None, ..identity };
        assert_eq!(own.judge(nobody, &hello()).unwrap_err().label(), "cluster");
    }

    #[test]
    fn rule_1_6_a_node_without_an_entry_goes_over_to_a_later_generation() {
        let (own, identity) = own();
        let later = pb::Hello { generation: 3, ..hello() };
        let adopted = OwnIdentity { generation: 3, ..identity };
        assert_eq!(own.adoption(identity, false, &later), Some(adopted));
        assert_eq!(own.judge(adopted, &later), Ok(()));
        assert_eq!(own.adoption(identity, true, &later), None, "its entries are of the past");
        let other_cluster = 98u128.to_be_bytes().to_vec().into();
        for wrong in [
            hello(),
            pb::Hello { generation: 1, ..hello() },
            pb::Hello { to: 6, ..later.clone() },
            pb::Hello { cluster_id: other_cluster, ..later.clone() },
        ] {
            assert_eq!(own.adoption(identity, false, &wrong), None, "{wrong:?}");
        }
        let blank = OwnIdentity { cluster_id: None, generation: 0, ..identity };
        assert_eq!(own.adoption(blank, false, &later), Some(adopted));
    }

    #[test]
    fn rule_9_1_a_node_that_cannot_run_the_active_version_is_refused() {
        let (own, identity) = own();
        own.version.store(2, Ordering::Relaxed);
        assert_eq!(own.judge(identity, &hello()).unwrap_err().label(), "version");
        assert_eq!(own.judge(identity, &pb::Hello { version_max: 2, ..hello() }), Ok(()));
    }

    fn acknowledged(index: u64) -> Acknowledged {
        Acknowledged { term: 3, leader: None, indexes: BTreeMap::from([(NodeId(8), index)]) }
    }

    #[test]
    fn rule_1_3_an_earlier_process_of_a_node_is_a_clone() {
        let mut boots = Boots::default();
        let boot = |boot_id| pb::Hello { boot_id, ..hello() };
        let nothing = Acknowledged::default();
        assert_eq!(boots.see(&boot(5), &nothing), Ok(()));
        assert_eq!(boots.see(&boot(6), &nothing), Ok(()));
        assert_eq!(boots.see(&boot(6), &nothing), Ok(()));
        assert_eq!(boots.see(&boot(5), &nothing).unwrap_err().label(), "clone");
    }

    #[test]
    fn rule_1_3_a_new_process_with_a_shorter_log_than_acknowledged_is_a_restored_disk() {
        let mut boots = Boots::default();
        let again = pb::Hello { boot_id: 6, ..hello() };
        assert_eq!(boots.see(&hello(), &acknowledged(10)), Ok(()));
        assert_eq!(boots.see(&again, &acknowledged(11)).unwrap_err().label(), "clone");
        let refused = boots.see(&pb::Hello { term: 3, ..again }, &acknowledged(11));
        assert_eq!(refused.unwrap_err().label(), "clone");
        assert_eq!(
            boots.see(&hello(), &acknowledged(11)),
            Ok(()),
            "the process that acknowledged may reconnect"
        );
    }

    /// The copy begins beside its original while that one leads: its followers saw nothing acknowledged, and cannot know by the
    /// order of the hellos which of the two is the later life.
    #[test]
    fn rule_1_3_a_process_in_an_earlier_term_than_its_node_leads_in_is_a_copy() {
        let mut boots = Boots::default();
        let led = Acknowledged { term: 3, leader: Some(NodeId(8)), ..Acknowledged::default() };
        assert_eq!(boots.see(&pb::Hello { term: 2, ..hello() }, &Acknowledged::default()), Ok(()));
        let copy = pb::Hello { boot_id: 6, term: 2, ..hello() };
        assert_eq!(boots.see(&copy, &led).unwrap_err().label(), "clone");
        assert_eq!(boots.see(&hello(), &led), Ok(()), "the process that leads may reconnect");
        assert_eq!(
            boots.see(&pb::Hello { boot_id: 7, term: 3, ..hello() }, &led),
            Ok(()),
            "it was restarted"
        );
        let other = Acknowledged { leader: Some(NodeId(9)), ..led };
        assert_eq!(boots.see(&pb::Hello { boot_id: 8, term: 2, ..hello() }, &other), Ok(()));
    }

    /// A leader of five that was paused with entries only it and this peer had: the others elect another one, which cuts
    /// them off there; the peer restarts; the paused leader wakes and still believes that it leads.
    #[test]
    fn rule_1_3_a_leader_of_the_past_does_not_judge_the_log_of_a_later_term() {
        let mut boots = Boots::default();
        assert_eq!(boots.see(&hello(), &acknowledged(20)).unwrap_err().label(), "clone");
        assert_eq!(boots.see(&pb::Hello { term: 4, ..hello() }, &acknowledged(20)), Ok(()));
    }
}
