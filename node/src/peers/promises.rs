//! A node that lost what it promised finds out from the others what it cannot have promised (RULES 2.6).
//!
//! Without either slot of `HARDSTATE` it may have voted in terms of which nothing stands on its disk. Whoever it voted for was
//! in that term, and is in that one or a later one now. So once every other member has said which term it is in, this node
//! begins in the term above all of them, with a vote for itself: nothing that it promised is of that term or a later one.
//!
//! Everybody is asked who is in the newest configuration that this node knows, or in one that somebody knows who was asked.
//! One that none of them knows is not committed: whoever wins a vote by it needs a majority of those who were asked, and is one
//! of them, since nobody becomes a voter who was not a learner before. An answer that is missing is waited for, however long
//! that takes: the node has no part in anything until then.
//!
//! One that lost its own promises, too, is no candidate any more: nobody hears what was said to the process that it was. If it
//! won a vote, then with a quorum; so as long as those that lost theirs are none, one of the others is in that term.

use crate::config::Member as Initial;
use crate::peers::discovery::Discovery;
use crate::peers::own::{Own, OwnIdentity};
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::form_reply::Standing;
use raftqueue_proto::peer::v1::form_request::Phase;
use raftqueue_proto::peer::v1::peer_client::PeerClient;
use raftqueue_raft::{Configuration, NodeId, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;

/// Pause between two rounds of asking.
const ROUND: Duration = Duration::from_millis(200);
/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Members that are taken from an answer, at most.
const PEERS_MAX: usize = 64;

/// What another node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The term that it is in; `None` if it lost what it promised, too.
    pub term: Option<Term>,
    /// Who is in the newest configuration that it knows, and where each is found, as far as it says.
    pub peers: BTreeMap<NodeId, String>,
}

/// Who was asked, and what they said.
#[derive(Clone, Debug)]
pub struct Asking {
    own: NodeId,
    configuration: Configuration,
    peers: BTreeMap<NodeId, String>,
    heard: BTreeSet<NodeId>,
    /// This node, and others that lost what they promised.
    lost: BTreeSet<NodeId>,
    greatest: Term,
}

impl Asking {
    /// For a node whose disk tells of nothing beyond a term, and of this configuration.
    #[must_use]
    pub fn new(own: NodeId, configuration: &Configuration, greatest: Term) -> Self {
        let (peers, lost) = (peers_of(configuration), BTreeSet::from([own]));
        Self { own, configuration: configuration.clone(), peers, heard: BTreeSet::new(), lost, greatest }
    }

    /// A node has said something.
    pub fn hear(&mut self, from: NodeId, said: Said) {
        match said.term {
            Some(term) => {
                self.greatest = self.greatest.max(term);
                self.lost.remove(&from);
            }
            None if self.heard.contains(&from) => {}
            None => {
                self.lost.insert(from);
            }
        }
        self.heard.insert(from);
        for (id, address) in said.peers {
            let known = self.peers.entry(id).or_default();
            if known.is_empty() {
                *known = address;
            }
        }
    }

    /// Who has not said anything yet, and where each may be found.
    pub fn left(&self) -> impl Iterator<Item = (NodeId, &str)> {
        let others = self.peers.iter().filter(|(id, _)| **id != self.own && !self.heard.contains(id));
        others.map(|(id, address)| (*id, address.as_str()))
    }

    /// The others that lost what they promised.
    pub fn also_lost(&self) -> impl Iterator<Item = NodeId> {
        self.lost.iter().copied().filter(|id| *id != self.own)
    }

    /// The term in which this node may go on; `None` until everybody was heard.
    #[must_use]
    pub fn begins_in(&self) -> Option<Term> {
        (self.are_few() && self.left().next().is_none()).then(|| Term(self.greatest.0 + 1))
    }

    /// What those can do that did not lose what they promised.
    #[must_use]
    pub fn others(&self) -> Others {
        match () {
            () if self.are_few() => Others::Enough,
            () if self.peers.keys().all(|id| self.lost.contains(id)) => Others::None,
            () => Others::TooFew,
        }
    }

    /// True while those that lost what they promised are no majority of anything. Otherwise nobody can tell what was promised.
    #[must_use]
    pub fn are_few(&self) -> bool {
        let is_minority = |ids: &mut dyn Iterator<Item = NodeId>| {
            let (mut all, mut lost) = (0, 0);
            for id in ids {
                (all, lost) = (all + 1, lost + usize::from(self.lost.contains(&id)));
            }
            all == 0 || 2 * lost < all
        };
        self.also_lost().next().is_none()
            || is_minority(&mut self.configuration.voters())
                && is_minority(&mut self.configuration.outgoing.iter().copied())
                && is_minority(&mut self.peers.keys().copied())
    }
}

/// Everybody in a configuration, voters that are being left included, with where they are found.
#[must_use]
pub fn peers_of(configuration: &Configuration) -> BTreeMap<NodeId, String> {
    let address =
        |id| configuration.members.get(&id).map_or_else(String::new, |member| member.address.clone());
    configuration.peers().into_iter().map(|id| (id, address(id))).collect()
}

/// What this node says of itself to whoever asks, as one of a cluster with its log.
pub(super) fn tell(
    own: &Own,
    (cluster_id, generation): (u128, u32),
    configuration: &Configuration,
    last_index: u64,
) -> pb::FormMember {
    // Before the term: with what this node has found out both change, the term first.
    let promises_lost = own.is_promise_lost.load(Ordering::Acquire);
    let peers = peers_of(configuration).into_iter().map(|(id, address)| pb::FormPeer { id: id.0, address });
    pb::FormMember {
        cluster_id: cluster_id.to_be_bytes().to_vec().into(),
        generation,
        member_names: configuration.members.values().map(|member| member.name.clone()).collect(),
        last_index,
        // Of one that lost what it promised it is only what stands in its log.
        term: own.term.load(Ordering::Relaxed),
        peers: peers.collect(),
        promises_lost,
    }
}

/// What the others can do for a node that lost what it promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They are a majority: it is heard what they say.
    Enough,
    /// They are none, and some of them kept what they promised, or were not heard yet.
    TooFew,
    /// All have lost what they promised.
    None,
}

/// Asks until everybody was heard. `tell` hears who is missing, and what the others can do, whenever that changes.
pub(crate) async fn ask_all(
    mut asking: Asking,
    own: &Own,
    discovery: &Arc<Discovery>,
    listed: &[Initial],
    mut tell: impl FnMut(&str, Others),
) -> Term {
    let mut told = None;
    loop {
        let identity = own.identity.borrow().expect("the data directory is open");
        let listed = listed.iter().map(|member| member.peer_address.as_str());
        let addresses: BTreeSet<&str> = listed.chain(asking.left().map(|(_, address)| address)).collect();
        let request = pb::FormRequest {
            phase: Phase::Status.into(),
            from: identity.node_id.0,
            from_name: own.name.clone(),
            ..pb::FormRequest::default()
        };
        let mut asked = JoinSet::new();
        for address in addresses.into_iter().filter(|address| !address.is_empty()) {
            let (discovery, request, address) = (Arc::clone(discovery), request.clone(), address.to_owned());
            asked.spawn(async move {
                let answer = async {
                    let channel = discovery.dial(&address).await.ok()?;
                    PeerClient::new(channel).form(request).await.ok()
                };
                tokio::time::timeout(ANSWER_TIMEOUT, answer).await.ok().flatten()
            });
        }
        for reply in asked.join_all().await.into_iter().flatten() {
            if let Some((from, said)) = read(identity, reply.into_inner()) {
                asking.hear(from, said);
            }
        }
        if let Some(term) = asking.begins_in() {
            return term;
        }
        let left = asking.left().map(|(id, address)| format!("{id} at {address}"));
        let lost = asking.also_lost().map(|id| format!("{id}, which lost its own"));
        let left = left.chain(lost).collect::<Vec<_>>().join(", ");
        if told.as_ref() != Some(&left) {
            tell(&left, asking.others());
            told = Some(left);
        }
        tokio::time::sleep(ROUND).await;
    }
}

/// What a node of this cluster says of itself; `None` if it is of another one, or does not know its term.
fn read(own: OwnIdentity, reply: pb::FormReply) -> Option<(NodeId, Said)> {
    let Some(Standing::Member(member)) = reply.standing else { return None };
    let cluster_id = <[u8; 16]>::try_from(&member.cluster_id[..]).ok().map(u128::from_be_bytes);
    let is_of_it =
        cluster_id.is_some() && cluster_id == own.cluster_id && member.generation == own.generation;
    let peers = member.peers.into_iter().take(PEERS_MAX).map(|peer| (NodeId(peer.id), peer.address));
    let term = (!member.promises_lost).then_some(Term(member.term));
    let said = Said { term, peers: peers.collect() };
    let knows = term != Some(Term(0)) && !said.peers.is_empty();
    let is_sound = is_of_it && reply.node_id != own.node_id.0 && knows;
    is_sound.then_some((NodeId(reply.node_id), said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftqueue_raft::{Member, MemberKind};

    fn configuration(ids: &[u64], outgoing: &[u64]) -> Configuration {
        let member = |id: &u64| {
            let (name, address) = (format!("n{id}"), format!("host:{id}"));
            (NodeId(*id), Member { name, address, kind: MemberKind::Voter })
        };
        Configuration {
            members: ids.iter().map(member).collect(),
            outgoing: outgoing.iter().map(|id| NodeId(*id)).collect(),
            version: 1,
        }
    }

    fn said(term: u64, ids: &[u64], outgoing: &[u64]) -> Said {
        Said { term: Some(Term(term)), peers: peers_of(&configuration(ids, outgoing)) }
    }

    fn left(asking: &Asking) -> Vec<u64> {
        asking.left().map(|(id, _)| id.0).collect()
    }

    #[test]
    fn rule_2_6_the_term_is_above_that_of_every_member_and_none_is_left_out() {
        let mut asking = Asking::new(NodeId(1), &configuration(&[1, 2, 3], &[]), Term(5));
        assert_eq!((left(&asking), asking.begins_in()), (vec![2, 3], None));
        asking.hear(NodeId(2), said(7, &[1, 2, 3], &[]));
        assert_eq!((left(&asking), asking.begins_in()), (vec![3], None));
        asking.hear(NodeId(3), said(6, &[1, 2, 3], &[]));
        assert_eq!(asking.begins_in(), Some(Term(8)));
        let alone = Asking::new(NodeId(1), &configuration(&[1], &[]), Term(5));
        assert_eq!(alone.begins_in(), Some(Term(6)), "nobody else ever asked for its vote");
    }

    #[test]
    fn rule_2_6_members_that_this_node_does_not_know_are_asked_too() {
        let mut asking = Asking::new(NodeId(1), &configuration(&[1, 2, 3], &[]), Term(5));
        asking.hear(NodeId(2), said(6, &[1, 4], &[2, 3]));
        assert_eq!(asking.left().collect::<Vec<_>>(), [(NodeId(3), "host:3"), (NodeId(4), "host:4")]);
        asking.hear(NodeId(3), said(6, &[1, 4], &[]));
        assert_eq!(left(&asking), [4]);
        asking.hear(NodeId(4), said(11, &[1, 4], &[]));
        assert_eq!(asking.begins_in(), Some(Term(12)));
    }

    #[test]
    fn rule_2_6_who_lost_its_promises_too_is_counted_for_nothing() {
        for (ids, lost, begins) in [
            (&[1, 2, 3][..], &[2][..], None),
            (&[1, 2, 3, 4, 5][..], &[2][..], Some(Term(8))),
            (&[1, 2, 3, 4, 5][..], &[2, 3][..], None),
            (&[1, 2, 3, 4][..], &[2][..], None),
        ] {
            let mut asking = Asking::new(NodeId(1), &configuration(ids, &[]), Term(5));
            for id in &ids[1..] {
                let term = (!lost.contains(id)).then_some(Term(7));
                asking.hear(NodeId(*id), Said { term, ..said(7, ids, &[]) });
            }
            assert_eq!(asking.begins_in(), begins, "{lost:?} of {ids:?}");
            let others = if begins.is_some() { Others::Enough } else { Others::TooFew };
            assert_eq!(asking.others(), others, "{lost:?} of {ids:?}");
            // What one of them was in is known as soon as it takes part again.
            lost.iter().for_each(|id| asking.hear(NodeId(*id), said(9, ids, &[])));
            assert_eq!(asking.begins_in(), Some(Term(10)));
        }
        // Of the voters that are being left these two would be a quorum.
        let mut asking = Asking::new(NodeId(1), &configuration(&[1, 2, 3, 4, 5], &[1, 2, 3]), Term(5));
        asking.hear(NodeId(2), Said { term: None, ..said(7, &[1, 2, 3, 4, 5], &[]) });
        (3..6).for_each(|id| asking.hear(NodeId(id), said(7, &[1, 2, 3, 4, 5], &[])));
        assert_eq!(asking.begins_in(), None);
    }

    #[test]
    fn rule_2_6_where_all_lost_their_promises_that_is_said() {
        let mut asking = Asking::new(NodeId(1), &configuration(&[1, 2, 3], &[]), Term(5));
        let lost = || Said { term: None, ..said(7, &[1, 2, 3], &[]) };
        asking.hear(NodeId(2), lost());
        assert_eq!(asking.others(), Others::TooFew, "the third was not heard");
        asking.hear(NodeId(3), lost());
        assert_eq!(asking.others(), Others::None);
        asking.hear(NodeId(3), said(8, &[1, 2, 3], &[]));
        assert_eq!(asking.others(), Others::TooFew);
    }

    #[test]
    fn only_a_member_of_this_cluster_that_knows_its_term_is_heard() {
        let own = OwnIdentity { node_id: NodeId(1), cluster_id: Some(7), generation: 2 };
        let member = || pb::FormMember {
            cluster_id: 7u128.to_be_bytes().to_vec().into(),
            generation: 2,
            term: 3,
            peers: vec![pb::FormPeer { id: 2, address: "host:2".into() }],
            ..pb::FormMember::default()
        };
        let reply = |node_id, member| pb::FormReply {
            node_id,
            standing: Some(Standing::Member(member)),
            ..pb::FormReply::default()
        };
        let peers = BTreeMap::from([(NodeId(2), "host:2".to_owned())]);
        let heard = Said { term: Some(Term(3)), peers };
        assert_eq!(read(own, reply(2, member())), Some((NodeId(2), heard.clone())));
        let lost = pb::FormMember { term: 0, promises_lost: true, ..member() };
        assert_eq!(read(own, reply(2, lost)), Some((NodeId(2), Said { term: None, ..heard })));
        for (node_id, member) in [
            (1, member()),
            (2, pb::FormMember { term: 0, ..member() }),
            (2, pb::FormMember { generation: 1, ..member() }),
            (2, pb::FormMember { cluster_id: vec![7].into(), ..member() }),
            (2, pb::FormMember { cluster_id: 8u128.to_be_bytes().to_vec().into(), ..member() }),
            (2, pb::FormMember { peers: Vec::new(), ..member() }),
        ] {
            assert_eq!(read(own, reply(node_id, member)), None);
        }
        assert_eq!(read(own, pb::FormReply { node_id: 2, ..pb::FormReply::default() }), None);
    }
}
