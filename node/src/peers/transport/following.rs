//! Whom this node keeps connections to, and where each is sought.
//!
//! The members of the configuration in force, committed or not: a learner hears from its leader as soon as it is added, and
//! who was removed is let go. Besides them whoever speaks to this node as of a later configuration than it has: a node that
//! was away may know none of the members by now, and a blank one knows nobody.
//!
//! A node is sought where it said last that it is found, where it was found last, where the configuration says, and where
//! the list says that this process was started with, in turn. What answers must be that very node.

use super::{Shared, outbound};
use crate::replica::WaitingNode;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_raft::{Configuration, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;
use tokio::task::{AbortHandle, JoinSet};
use tonic::Status;

/// Nodes that announced themselves since the driver looked, at most.
const WAITING_MAX: usize = 64;
/// So many times as long as a peer is asked whether its process has ended, one that is no member any more stays connected:
/// ten election timeouts.
const LINGER_ASKS: u32 = 40;
/// Longest name and address of a node that waits, in bytes.
const TEXT_BYTES_MAX: usize = 255;

/// A member, as the configuration in force has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    name: String,
    address: String,
}

/// A node with open streams to this one.
#[derive(Clone, Debug, Default)]
pub(super) struct Speaker {
    name: String,
    streams: usize,
    /// Where its configuration stands.
    configuration: u64,
}

/// While it lives, a stream of that node is open.
pub(super) struct Speaking<'a> {
    shared: &'a Shared,
    node: NodeId,
}

impl Drop for Speaking<'_> {
    fn drop(&mut self) {
        let mut speakers = self.shared.speakers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(speaker) = speakers.get_mut(&self.node) {
            speaker.streams -= 1;
            if speaker.streams == 0 {
                speakers.remove(&self.node);
            }
        }
        drop(speakers);
        self.shared.spoken.send_modify(|times| *times += 1);
    }
}

impl Shared {
    /// The configuration in force is this one, for all that this node knows.
    pub(super) fn want(&self, configuration: &Configuration, before: Option<&Configuration>) {
        let own = self.own.identity.borrow().map(|own| own.node_id);
        let member = |id: &NodeId| {
            let known = configuration.members.get(id).or_else(|| before.and_then(|b| b.members.get(id)));
            known.map_or_else(
                || Wanted { name: id.to_string(), address: String::new() },
                |member| Wanted { name: member.name.clone(), address: member.address.clone() },
            )
        };
        let peers = configuration.peers();
        let others = peers.iter().filter(|id| Some(**id) != own);
        let wanted: BTreeMap<NodeId, Wanted> = others.map(|id| (*id, member(id))).collect();
        self.wanted.send_if_modified(|known| {
            let is_new = *known != wanted;
            *known = wanted;
            is_new
        });
    }

    /// A node has said who it is and begins to speak.
    pub(super) fn speaks(&self, hello: &pb::Hello) -> Speaking<'_> {
        let node = NodeId(hello.from);
        let mut speakers = self.speakers.lock().unwrap_or_else(PoisonError::into_inner);
        let speaker = speakers.entry(node).or_default();
        speaker.streams += 1;
        speaker.name.clone_from(&hello.name);
        speaker.configuration = hello.configuration_index;
        drop(speakers);
        self.spoken.send_modify(|times| *times += 1);
        Speaking { shared: self, node }
    }

    /// The nodes that this one keeps connections to.
    fn targets(&self) -> BTreeSet<NodeId> {
        let wanted = self.wanted.borrow();
        let own = self.own.configuration.load(Ordering::Relaxed);
        let is_member = self.own.is_member.load(Ordering::Relaxed);
        let speakers = self.speakers.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = speakers.iter().filter(|(_, speaker)| !is_member || speaker.configuration > own);
        wanted.keys().chain(newer.map(|(id, _)| id)).copied().collect()
    }

    /// What a node is called, for the log.
    pub(super) fn name_of(&self, node: NodeId) -> String {
        if let Some(wanted) = self.wanted.borrow().get(&node) {
            return wanted.name.clone();
        }
        let speakers = self.speakers.lock().unwrap_or_else(PoisonError::into_inner);
        speakers.get(&node).map_or_else(|| node.to_string(), |speaker| speaker.name.clone())
    }

    /// Where a node may be found, the most likely place first.
    pub(super) fn addresses(&self, node: NodeId) -> Vec<String> {
        let name = self.name_of(node);
        let known = self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned();
        let (announced, last) = known.map(|info| (info.announced, info.peer_address)).unwrap_or_default();
        let configured =
            self.wanted.borrow().get(&node).map(|wanted| wanted.address.clone()).unwrap_or_default();
        let listed = self.listed.get(&name).cloned().unwrap_or_default();
        let mut addresses = Vec::new();
        for address in [announced, last, configured, listed] {
            if !address.is_empty() && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// A node says that it waits.
    pub(super) fn waits(&self, call: pb::AnnounceRequest) -> Result<(), Status> {
        let is_sound = |text: &str| !text.is_empty() && text.len() <= TEXT_BYTES_MAX;
        if call.from == 0 || !is_sound(&call.from_name) || !is_sound(&call.peer_address) {
            return Err(Status::invalid_argument("a node that waits says its id, its name and where it is"));
        }
        let node = WaitingNode {
            id: NodeId(call.from),
            name: call.from_name,
            address: call.peer_address,
            client_address: call.client_address.chars().take(TEXT_BYTES_MAX).collect(),
            versions: (call.version_min, call.version_max),
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING_MAX && !waiting.contains_key(&node.id) {
            return Err(Status::resource_exhausted(format!("{WAITING_MAX} nodes wait already")));
        }
        waiting.insert(node.id, node);
        Ok(())
    }

    /// Where members may be found, for a node that looks for them.
    pub(super) fn member_addresses(&self) -> Vec<String> {
        let ids: Vec<NodeId> = self.wanted.borrow().keys().copied().collect();
        ids.into_iter().filter_map(|id| self.addresses(id).into_iter().next()).collect()
    }

    /// What the configuration calls a member, and where that finds it.
    pub(super) fn configured(&self, node: NodeId) -> Option<(String, String)> {
        self.wanted.borrow().get(&node).map(|wanted| (wanted.name.clone(), wanted.address.clone()))
    }

    /// Where the configuration finds its members.
    pub(super) fn configured_addresses(&self) -> Vec<String> {
        self.wanted.borrow().values().map(|wanted| wanted.address.clone()).collect()
    }
}

/// A connection that is kept.
struct Kept {
    task: AbortHandle,
    /// It is no target any more, and is let go at this moment.
    until: Option<Instant>,
}

/// Keeps connections to whom they must be kept to, as long as the task lives.
///
/// Who is no member any more is let go some election timeouts later: a leader that is removed has to hear that its last
/// entry is committed.
pub(super) async fn follow(shared: Arc<Shared>) {
    let linger = LINGER_ASKS * shared.ask_within;
    let mut wanted = shared.wanted.subscribe();
    let mut spoken = shared.spoken.subscribe();
    let mut tasks = JoinSet::new();
    let mut kept: BTreeMap<NodeId, Kept> = BTreeMap::new();
    loop {
        wanted.mark_unchanged();
        spoken.mark_unchanged();
        let (targets, now) = (shared.targets(), Instant::now());
        kept.retain(|node, kept| {
            kept.until = if targets.contains(node) { None } else { kept.until.or(Some(now + linger)) };
            let stays = kept.until.is_none_or(|until| until > now);
            if !stays {
                tracing::info!(%node, "no member any more: its connections are let go");
                kept.task.abort();
            }
            stays
        });
        for node in targets {
            kept.entry(node).or_insert_with(|| {
                let task = tasks.spawn(outbound::keep_connected(Arc::clone(&shared), node));
                Kept { task, until: None }
            });
        }
        let next = kept.values().filter_map(|kept| kept.until).min();
        let let_go = async {
            match next {
                Some(moment) => tokio::time::sleep_until(moment.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            changed = spoken.changed() => if changed.is_err() { return },
            () = let_go => {}
            Some(_) = tasks.join_next() => {}
        }
    }
}
