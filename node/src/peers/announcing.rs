//! A node that is no member and has no log says that it waits, again and again, to every member that it can find: those of
//! the list that it was started with, and those that they know of. Whoever leads lists it, until it is added.

use crate::config::Member as Initial;
use crate::peers::discovery::Discovery;
use crate::peers::own::Own;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::peer_client::PeerClient;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;

/// Pause between two rounds.
const ROUND: Duration = Duration::from_millis(500);
/// How long a member may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(400);
/// Addresses that are asked, at most.
const ADDRESSES_MAX: usize = 64;

/// Announces this node while it waits, for as long as the task lives.
pub(crate) async fn announce(own: Arc<Own>, discovery: Arc<Discovery>, members: Vec<Initial>) {
    let others = members.into_iter().filter(|member| member.name != own.name);
    let listed: BTreeSet<String> = others.map(|member| member.peer_address).collect();
    let mut found = BTreeSet::new();
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(identity) = *own.identity.borrow() else { continue };
        let is_blank = own.durable.load(Ordering::Relaxed) == 0;
        if !is_blank || own.is_member.load(Ordering::Relaxed) {
            continue;
        }
        let request = pb::AnnounceRequest {
            from: identity.node_id.0,
            from_name: own.name.clone(),
            cluster_id: identity.cluster_id.map(|id| id.to_be_bytes().to_vec().into()).unwrap_or_default(),
            peer_address: own.peer_address.clone(),
            client_address: own.client_address.clone(),
            version_min: crate::api::codec::VERSION_MIN,
            version_max: crate::api::codec::VERSION_MAX,
        };
        let mut asked = JoinSet::new();
        let known = listed.union(&found).filter(|address| **address != own.peer_address);
        let addresses: Vec<String> = known.cloned().collect();
        for address in addresses {
            let (discovery, request) = (Arc::clone(&discovery), request.clone());
            asked.spawn(async move {
                let answer = async {
                    let channel = discovery.dial(&address).await.ok()?;
                    PeerClient::new(channel).announce(request).await.ok()
                };
                tokio::time::timeout(ANSWER_TIMEOUT, answer).await.ok().flatten()
            });
        }
        // Who has moved is told of by the others.
        let mut told = BTreeSet::new();
        for answer in asked.join_all().await.into_iter().flatten() {
            told.extend(answer.into_inner().peer_addresses);
        }
        if !told.is_empty() {
            found = told.into_iter().take(ADDRESSES_MAX).collect();
        }
    }
}
