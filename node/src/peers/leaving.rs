//! A node that was removed from its cluster, as it finds out.
//!
//! Its leader tells it once, and may have let it go while it was away. So a node that knows no leader for a while, or whose own
//! log ends with a configuration that lacks it, asks those that were members, again and again. Only what a leader says by a
//! linearizable read counts: that its id is in no configuration. It cannot come back under that id, since only blank nodes are
//! added. A log that ends in a later term than that leader's is not judged by it. A member that has no entry yet, and so knows
//! of no configuration, asks after a longer while: most likely its log is on its way.
//!
//! An answer tells of a moment that is past: a node that waited may have been added since, and its log may count. It cannot be
//! added without getting entries. So the answer counts only while the log is what it was when the question was asked, until the
//! driver has stopped.

use crate::api::MembersInfo;
use crate::config::Member as Initial;
use crate::peers::discovery::Discovery;
use crate::peers::own::{LogEnd, Own};
use crate::peers::patience::Patience;
use crate::peers::transport::Transport;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::peer_client::PeerClient;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Pause between two looks.
const ROUND: Duration = Duration::from_millis(500);
/// How long no leader may be known before somebody is asked. Elections take less.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);
/// How long a node of a cluster may be without a log before it asks somebody. One that was just added gets it sooner, unless it
/// begins with a large snapshot: then it is told that it is a member.
const LOGLESS_MAX: Duration = Duration::from_secs(10);
/// How long an answer may take at first. The leader's own may take two seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Addresses that are asked, at most.
const ADDRESSES_MAX: usize = 64;

/// What a leader tells a node that asks whether it is still a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// It is in the configuration in force.
    pub is_member: bool,
    /// The leader's term.
    pub term: u64,
}

impl Told {
    /// What a linearizable read of the members says of the node of this id. `None` if it is no member and that may be about
    /// to change: then it asks again.
    #[must_use]
    pub fn of(members: &MembersInfo, node: u64) -> Option<Told> {
        let is_member = members.members.iter().any(|member| member.id == node);
        let may_change = members.joint || !members.settled;
        (is_member || !may_change).then_some(Told { is_member, term: members.term })
    }

    /// True if this says of a node that it was removed for good, whose log ended like `asked` when it asked and ends like
    /// `now`.
    #[must_use]
    pub fn is_removed(self, asked: LogEnd, now: LogEnd) -> bool {
        !self.is_member && now == asked && self.term >= now.last_term
    }
}

/// Finds out whether this node was removed, for as long as the task lives; if it was, says so in [`Own::removed_at`].
pub(crate) async fn doubt(
    own: Arc<Own>,
    transport: Transport,
    discovery: Arc<Discovery>,
    members: Vec<Initial>,
) {
    let listed: BTreeSet<String> = members.into_iter().map(|member| member.peer_address).collect();
    let mut told: BTreeSet<String> = BTreeSet::new();
    let mut patience: BTreeMap<String, Patience> = BTreeMap::new();
    let mut led = Instant::now();
    loop {
        tokio::time::sleep(ROUND).await;
        let (is_member, is_led) =
            (own.is_member.load(Ordering::Relaxed), own.has_leader.load(Ordering::Relaxed));
        if is_led && is_member {
            led = Instant::now();
        }
        let has_log = own.configuration.load(Ordering::Relaxed) > 0;
        let leaderless_max = match (has_log, is_member || is_led) {
            (false, _) => LOGLESS_MAX,
            (true, true) => LEADERLESS_MAX,
            // Whom its own log leaves out, and nobody leads, is most likely right.
            (true, false) => Duration::ZERO,
        };
        let Some(identity) = *own.identity.borrow() else { continue };
        let Some(cluster_id) = identity.cluster_id.filter(|_| led.elapsed() > leaderless_max) else {
            continue;
        };
        let from = identity.node_id.0;
        let log_end = own.log_end();
        let request = pb::MembershipRequest {
            cluster_id: cluster_id.to_be_bytes().to_vec().into(),
            from,
            generation: identity.generation,
        };
        let known: BTreeSet<String> =
            transport.member_addresses().into_iter().chain(listed.clone()).chain(told.clone()).collect();
        let mut asking = JoinSet::new();
        for address in known.into_iter().filter(|address| *address != own.peer_address).take(ADDRESSES_MAX) {
            let timeout = patience.entry(address.clone()).or_insert(Patience::new(ANSWER_TIMEOUT)).timeout();
            let (discovery, request) = (Arc::clone(&discovery), request.clone());
            asking.spawn(async move {
                let answer = async {
                    let channel = discovery.dial(&address).await.ok()?;
                    PeerClient::new(channel).membership(request).await.ok()
                };
                let answer = tokio::time::timeout(timeout, answer).await;
                (address, answer)
            });
        }
        while let Some(asked) = asking.join_next().await {
            let Ok((address, answer)) = asked else { continue };
            let Ok(answer) = answer else {
                patience.get_mut(&address).into_iter().for_each(Patience::was_late);
                continue;
            };
            let Some(answer) = answer else { continue };
            let pb::MembershipReply { is_member, term, peer_addresses } = answer.into_inner();
            told.extend(peer_addresses);
            if (Told { is_member, term }).is_removed(log_end, own.log_end()) {
                tracing::warn!(
                    node = %identity.node_id,
                    cluster = format!("{cluster_id:032x}"),
                    term,
                    "this node was removed from its cluster: what it has is set aside, and it begins as a new node"
                );
                own.removed_at.send_replace(Some(log_end));
                return;
            }
        }
        while told.len() > ADDRESSES_MAX {
            told.pop_first();
        }
        patience.retain(|address, _| told.contains(address) || listed.contains(address));
    }
}
