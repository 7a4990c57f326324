//! Asking another node for what this one lacks: its newest snapshot, and messages. See `peer.proto`.
//!
//! Both go over a connection of their own. A node that is incomplete itself gives no snapshot, and one of an older build
//! knows neither; the texts say so. Everything that comes is checked ([`crate::wire::giving`]).

use crate::peers::own::OwnIdentity;
use crate::peers::transport::Transport;
use crate::replica::{Asked, Gift};
use crate::wire::giving::{self, Sections};
use crate::wire::messages::{PEER_MESSAGE_BYTES_MAX, read_entry};
use bytes::Bytes;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::peer_client::PeerClient;
use raftqueue_queue::TopicId;
use raftqueue_raft::{Index, NodeId, Term};
use raftqueue_wal::{RecordName, SnapshotHead};
use std::future::Future;
use std::ops::Range;
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a giver may be silent while a snapshot comes.
const SILENCE: Duration = Duration::from_secs(10);
/// How long messages may take: they come in one piece, and it may be a large message. A giver that is gone is found out
/// sooner, since it answers no ping.
const ANSWER: Duration = Duration::from_secs(30);

/// A snapshot on its way.
#[derive(Debug)]
pub(crate) struct GivenSnapshot {
    /// What it is of.
    pub(crate) head: SnapshotHead,
    /// The term that its giver is in.
    pub(crate) giver_term: Term,
    from: NodeId,
    chunks: Streaming<pb::SnapshotChunk>,
    sections: Sections,
    is_done: bool,
}

impl GivenSnapshot {
    /// The next section; `None` once all have come.
    ///
    /// # Errors
    /// The transfer broke off; the text says how.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        if self.is_done {
            return Ok(None);
        }
        let chunk = next_chunk(&mut self.chunks, self.from).await?;
        let section = self.sections.take(chunk).map_err(|why| of(self.from, &why))?;
        self.is_done = section.is_none();
        Ok(section)
    }
}

/// Asks a node for its newest snapshot, which is to be of index `least` or a later one.
///
/// # Errors
/// It gives none now; the text says why.
pub(crate) async fn ask_snapshot(
    transport: &Transport,
    from: NodeId,
    least: Index,
) -> Result<GivenSnapshot, String> {
    let (own, client) = reach(transport, from).await?;
    let mut client = client.max_decoding_message_size(giving::CHUNK_BYTES_MAX);
    let request = pb::SnapshotRequest {
        cluster_id: cluster_id(own),
        generation: own.generation,
        from: own.node_id.0,
        to: from.0,
        group: 0,
        least_index: least.0,
    };
    let begun = within(SILENCE, from, client.snapshot(request)).await;
    let mut chunks = begun.inspect_err(|_| transport.forget_giver(from))?.into_inner();
    let first = next_chunk(&mut chunks, from).await?;
    let (head, giver_term, sections) = Sections::begin(first).map_err(|why| of(from, &why))?;
    Ok(GivenSnapshot { head, giver_term, from, chunks, sections, is_done: false })
}

/// Asks a node for messages of a topic: ranges of offsets, rising. At least the first of them is answered.
///
/// # Errors
/// It gives none now; the text says why.
pub(crate) async fn ask_messages(
    transport: &Transport,
    from: NodeId,
    topic: TopicId,
    wanted: &[Range<u64>],
) -> Result<Gift, String> {
    let wanted = &wanted[..wanted.len().min(giving::GIVEN_MAX)];
    let (own, client) = reach(transport, from).await?;
    let mut client = client.max_decoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let request = pb::MessagesRequest {
        cluster_id: cluster_id(own),
        generation: own.generation,
        from: own.node_id.0,
        to: from.0,
        group: 0,
        topic: topic.0,
        wanted: giving::write_wanted(wanted),
    };
    let reply = within(ANSWER, from, client.messages(request)).await;
    let reply = reply.inspect_err(|_| transport.forget_giver(from))?.into_inner();
    giving::read_gift(reply, wanted).map_err(|why| of(from, &why))
}

/// Asks a node for a record of its log.
///
/// # Errors
/// It does not answer now; the text says why.
pub(crate) async fn ask_record(
    transport: &Transport,
    from: NodeId,
    name: RecordName,
) -> Result<Asked, String> {
    let (own, client) = reach(transport, from).await?;
    let mut client = client.max_decoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let RecordName { index, term, crc } = name;
    let request =
        pb::RepairRequest { cluster_id: cluster_id(own), group: 0, index: index.0, term: term.0, crc };
    let reply = within(ANSWER, from, client.repair(request)).await;
    let pb::RepairReply { entry, first_index } =
        reply.inspect_err(|_| transport.forget_giver(from))?.into_inner();
    Ok(match entry.and_then(read_entry) {
        // Whether it is the one is seen by whoever puts it back.
        Some(entry) => Asked::Record(entry),
        None if first_index > index.0 => Asked::Cut,
        None => Asked::Unknown,
    })
}

async fn reach(transport: &Transport, from: NodeId) -> Result<(OwnIdentity, PeerClient<Channel>), String> {
    let own = transport.identity().ok_or("this node does not know yet which one it is")?;
    let dialed = timeout(CONNECT, transport.dial_giver(from)).await;
    let channel = dialed.unwrap_or_else(|_| Err("connecting takes too long".into()));
    Ok((own, PeerClient::new(channel.map_err(|why| of(from, &why))?)))
}

async fn next_chunk(
    chunks: &mut Streaming<pb::SnapshotChunk>,
    from: NodeId,
) -> Result<pb::SnapshotChunk, String> {
    let chunk = within(SILENCE, from, chunks.message()).await?;
    chunk.ok_or_else(|| of(from, "its snapshot ended too early"))
}

async fn within<T>(
    limit: Duration,
    from: NodeId,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, String> {
    match timeout(limit, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) if status.code() == Code::Unimplemented => {
            Err(of(from, "it runs an older version, which gives nothing: upgrade it, or ask another node"))
        }
        Ok(Err(status)) => Err(of(from, &told(&status))),
        Err(_) => Err(of(from, &format!("nothing came for {} s", limit.as_secs()))),
    }
}

/// What a status says, with its causes.
fn told(status: &Status) -> String {
    match (status.message(), std::error::Error::source(status)) {
        (message, None) if !message.is_empty() => message.to_owned(),
        (message, Some(cause)) => format!("{message}: {}", crate::peers::discovery::describe(cause)),
        _ => format!("it answered {:?}", status.code()),
    }
}

fn of(node: NodeId, why: &str) -> String {
    format!("node {node}: {why}")
}

fn cluster_id(own: OwnIdentity) -> Bytes {
    own.cluster_id.map(|id| id.to_be_bytes().to_vec().into()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
