//! What peers ask of this node: to listen to their streams, to answer forwarded calls, to form a cluster, to repair,
//! to give what they lack.

use super::giver::{Chunks, Giver, Source};
use super::hello::Refusal;
use super::open_calls::OpenCalls;
use super::outbound::{GENERATION_METADATA, REFUSAL_METADATA};
use super::{Arrival, Shared, StreamKind, Transport};
use crate::api::{self, Answer, Failure, Look, Reason};
use crate::edges::edge::Edge;
use crate::edges::gate::Call;
use crate::edges::grpc::guard::Ticket;
use crate::edges::grpc::sending::{self, Form};
use crate::edges::service::Service;
use crate::peers::certificates::Household;
use crate::peers::forming::Forming;
use crate::peers::leaving::Told;
use crate::peers::own::OwnIdentity;
use crate::traces::{self, PARENT_HEADER, Parent};
use crate::wire::forward;
use crate::wire::messages;
use raftqueue_access::{Audit, Call as Noted, Happened};
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::peer_frame::Frame;
use raftqueue_proto::peer::v1::peer_server::Peer as PeerCalls;
use raftqueue_queue::TopicId;
use raftqueue_raft::{Index, NodeId, Term};
use raftqueue_tls::Peer;
use raftqueue_wal::{Reader, RecordName};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

/// How long an opener may take for its hellos.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a leader may take to say who is a member.
const MEMBERSHIP_DEADLINE: Duration = Duration::from_secs(2);

/// The service on the peers' port.
pub struct PeerService<S> {
    shared: Arc<Shared>,
    edge: Edge<S>,
    forming: Arc<Forming>,
    reader: Arc<OnceLock<Reader>>,
    open_calls: Arc<OpenCalls>,
    giver: Giver,
    household: Arc<Household>,
    audit: Option<Arc<Audit>>,
}

impl<S: Service> PeerService<S> {
    /// Listens for `transport`; forwarded calls go to `edge`, and nodes that lack something get it from `giving`.
    pub(crate) fn new(
        transport: &Transport,
        edge: Edge<S>,
        forming: Arc<Forming>,
        reader: Arc<OnceLock<Reader>>,
        giving: Source,
    ) -> Self {
        let shared = Arc::clone(&transport.shared);
        let household = Arc::new(Household::new(None, BTreeMap::new(), Vec::new()));
        Self {
            shared,
            edge,
            forming,
            reader,
            open_calls: Arc::default(),
            giver: Giver::new(giving),
            household,
            audit: None,
        }
    }

    /// The same; who comes by TLS must be of this household.
    pub(crate) fn of(self, household: Arc<Household>) -> Self {
        Self { household, ..self }
    }

    /// The same; who is refused for his certificate is noted there.
    pub(crate) fn audited(self, audit: Option<Arc<Audit>>) -> Self {
        Self { audit, ..self }
    }

    /// Refuses who shows a certificate that is none of this cluster's. Who shows none came without TLS, which the port lets in or not.
    fn check_certificate<T>(&self, call: &Request<T>) -> Result<(), Status> {
        let Some(peer) = peer_of(call).filter(|peer| peer.is_encrypted) else { return Ok(()) };
        let text = match &peer.identity {
            // It may have become a member since it connected, or be one no more.
            Some(identity) if self.household.is_of_cluster(identity) => return Ok(()),
            Some(identity) => {
                format!(
                    "its certificate is for {}, and no node of this cluster is found there",
                    identity.told()
                )
            }
            None => "it showed no certificate".into(),
        };
        Err(self.refuse_certificate(peer, text))
    }

    fn refuse_certificate(&self, peer: &Peer, text: String) -> Status {
        note(self.audit.as_deref(), peer, &text);
        refuse(&self.shared, &Refusal::Certificate(text))
    }

    /// Refuses who says that it is another node than its certificate does.
    fn check_name<T>(&self, call: &Request<T>, node: u64, name: &str) -> Result<(), Status> {
        self.check_certificate(call)?;
        let Some((peer, identity)) = peer_of(call).and_then(|peer| Some((peer, peer.identity.as_ref()?)))
        else {
            return Ok(());
        };
        let contradicts = self.household.contradicts(identity, NodeId(node), name);
        contradicts.map_or(Ok(()), |text| Err(self.refuse_certificate(peer, text)))
    }

    /// A call that a peer passed on, as a part of the trace that it came with.
    async fn call_forwarded(
        &self,
        request: api::Request,
        deadline: Duration,
        parent: Option<Parent>,
    ) -> Result<Answer, Failure> {
        let Some(parent) = parent else { return self.edge.call(Call::of_peer(request, deadline)).await };
        let traced = self.edge.traces().and_then(|exporter| exporter.begin("passed on", Some(parent)));
        let call = traces::Call::new(Some(parent), traced.clone());
        let (result, _) = call.run(self.edge.call(Call::of_peer(request, deadline))).await;
        if let Some(traced) = traced {
            traced.end(result.as_ref().err().map(|failure| failure.text.clone()));
        }
        result
    }

    /// Where forwarded calls go.
    pub(crate) fn edge(&self) -> &Edge<S> {
        &self.edge
    }

    fn listen(&self, call: Request<Streaming<pb::PeerFrame>>, kind: StreamKind) -> Response<Answers> {
        let (answers, outgoing) = mpsc::channel(4);
        let (shared, forming) = (Arc::clone(&self.shared), Arc::clone(&self.forming));
        let peer = peer_of(&call).cloned();
        let (household, audit) = (Arc::clone(&self.household), self.audit.clone());
        let contradicts = move |hello: &pb::Hello| {
            let peer = peer.as_ref()?;
            let text = household.contradicts(peer.identity.as_ref()?, NodeId(hello.from), &hello.name)?;
            note(audit.as_deref(), peer, &text);
            Some(Refusal::Certificate(text))
        };
        let frames = call.into_inner();
        // Ends with the stream, or with the connection when the server stops.
        tokio::spawn(async move {
            if let Err(status) = listen(&shared, &forming, frames, kind, (&answers, &contradicts)).await {
                let _ = answers.send(Err(status)).await;
            }
        });
        Response::new(ReceiverStream::new(outgoing))
    }

    /// Refuses what is not of this cluster.
    fn check_cluster(&self, cluster_id: &[u8]) -> Result<(), Status> {
        let own = self.shared.own.identity.borrow().and_then(|own| own.cluster_id);
        let theirs = <[u8; 16]>::try_from(cluster_id).ok().map(u128::from_be_bytes);
        if own.is_none() || own != theirs {
            return Err(refuse(&self.shared, &Refusal::OtherCluster { theirs, ours: own }));
        }
        Ok(())
    }

    /// Refuses what is of another generation of this cluster.
    fn check_generation(&self, generation: u32) -> Result<OwnIdentity, Status> {
        let own =
            (*self.shared.own.identity.borrow()).ok_or_else(|| Status::unavailable("not formatted yet"))?;
        if generation != own.generation {
            let refusal = Refusal::OtherGeneration { theirs: generation, ours: own.generation };
            return Err(refuse(&self.shared, &refusal));
        }
        Ok(own)
    }

    /// Refuses who asks for something that is not of this cluster and its generation, or is not here.
    fn check_asker(
        &self,
        cluster_id: &[u8],
        generation: u32,
        from: u64,
        to: u64,
        group: u32,
    ) -> Result<(), Status> {
        self.check_cluster(cluster_id)?;
        let own = self.check_generation(generation)?;
        if to != own.node_id.0 || from == own.node_id.0 {
            let to = NodeId(if to == own.node_id.0 { from } else { to });
            return Err(refuse(&self.shared, &Refusal::NotForUs { to, ours: own.node_id }));
        }
        if group != 0 {
            return Err(Status::invalid_argument(format!("there is no group {group} here")));
        }
        Ok(())
    }
}

type Answers = ReceiverStream<Result<pb::PeerFrame, Status>>;

#[tonic::async_trait]
impl<S: Service> PeerCalls for PeerService<S> {
    type ControlStream = Answers;
    type BulkStream = Answers;
    type SnapshotStream = Chunks;

    async fn control(&self, call: Request<Streaming<pb::PeerFrame>>) -> Result<Response<Answers>, Status> {
        self.check_certificate(&call)?;
        Ok(self.listen(call, StreamKind::Control))
    }

    async fn bulk(&self, call: Request<Streaming<pb::PeerFrame>>) -> Result<Response<Answers>, Status> {
        self.check_certificate(&call)?;
        Ok(self.listen(call, StreamKind::Bulk))
    }

    async fn forward(&self, call: Request<pb::ForwardRequest>) -> Result<Response<pb::ForwardReply>, Status> {
        self.check_certificate(&call)?;
        let ticket = call.extensions().get::<Arc<Ticket>>().cloned();
        let parent = call.metadata().get(PARENT_HEADER).and_then(|value| Parent::read(value.as_bytes()));
        let call = call.into_inner();
        self.check_cluster(&call.cluster_id)?;
        let mut open = (call.call_id != 0).then(|| self.open_calls.begin((call.from, call.call_id)));
        let given_up = async {
            match &mut open {
                Some(open) => open.given_up().await,
                None => std::future::pending().await,
            }
        };
        let result = match forward::read_call(call.call) {
            // The caller's end is looked at first: a call that nobody waits for is not begun.
            Ok(request) => tokio::select! {
                biased;
                () = given_up => {
                    Err(Failure::unknown(Reason::DeadlineExceeded, "the client gave the call up"))
                }
                result = self.call_forwarded(request, Duration::from_millis(call.deadline_ms), parent) => result,
            },
            Err(failure) => Err(failure),
        };
        let result = result.map(|answer| sending::send(ticket.as_ref(), answer, Form::ForwardReply));
        Ok(Response::new(pb::ForwardReply { reply: Some(forward::write_reply(result)) }))
    }

    async fn give_up(&self, call: Request<pb::GiveUpRequest>) -> Result<Response<pb::GiveUpReply>, Status> {
        self.check_certificate(&call)?;
        let pb::GiveUpRequest { cluster_id, from, call_id } = call.into_inner();
        self.check_cluster(&cluster_id)?;
        self.open_calls.give_up((from, call_id));
        Ok(Response::new(pb::GiveUpReply {}))
    }

    async fn form(&self, call: Request<pb::FormRequest>) -> Result<Response<pb::FormReply>, Status> {
        self.check_certificate(&call)?;
        self.forming.answer(call.into_inner()).await.map(Response::new)
    }

    async fn announce(
        &self,
        call: Request<pb::AnnounceRequest>,
    ) -> Result<Response<pb::AnnounceReply>, Status> {
        self.check_name(&call, call.get_ref().from, &call.get_ref().from_name)?;
        let call = call.into_inner();
        if !call.cluster_id.is_empty() {
            self.check_cluster(&call.cluster_id)?;
        }
        if !self.forming.is_of_cluster() {
            return Err(Status::failed_precondition("this node is of no cluster yet"));
        }
        self.shared.waits(call)?;
        Ok(Response::new(pb::AnnounceReply { peer_addresses: self.shared.member_addresses() }))
    }

    async fn membership(
        &self,
        call: Request<pb::MembershipRequest>,
    ) -> Result<Response<pb::MembershipReply>, Status> {
        self.check_certificate(&call)?;
        let pb::MembershipRequest { cluster_id, from, generation } = call.into_inner();
        self.check_cluster(&cluster_id)?;
        self.check_generation(generation)?;
        let asked = self.edge.call(Call::own(api::Request::Look(Look::Members), MEMBERSHIP_DEADLINE)).await;
        let members = match asked {
            Ok(Answer::Response(api::Response::Members(members))) => members,
            Ok(_) => return Err(Status::internal("that is no answer to who is a member")),
            Err(failure) => return Err(Status::unavailable(failure.text)),
        };
        let Some(Told { is_member, term }) = Told::of(&members, from) else {
            return Err(Status::unavailable("a change of the members is under way"));
        };
        let peer_addresses = self.shared.member_addresses();
        Ok(Response::new(pb::MembershipReply { is_member, term, peer_addresses }))
    }

    async fn repair(&self, call: Request<pb::RepairRequest>) -> Result<Response<pb::RepairReply>, Status> {
        self.check_certificate(&call)?;
        let pb::RepairRequest { cluster_id, group, index, term, crc } = call.into_inner();
        self.check_cluster(&cluster_id)?;
        let reader = self.reader.get().filter(|_| group == 0).cloned();
        let Some(reader) = reader else { return Ok(Response::new(pb::RepairReply::default())) };
        let first_index = reader.first_index().0;
        let name = RecordName { index: Index(index), term: Term(term), crc };
        let entry = tokio::task::spawn_blocking(move || reader.read_exact(name))
            .await
            .map_err(|_| Status::internal("the read was cut off"))?
            .map_err(|error| Status::data_loss(error.to_string()))?;
        Ok(Response::new(pb::RepairReply { entry: entry.map(messages::write_entry), first_index }))
    }

    async fn snapshot(&self, call: Request<pb::SnapshotRequest>) -> Result<Response<Chunks>, Status> {
        self.check_certificate(&call)?;
        let pb::SnapshotRequest { cluster_id, generation, from, to, group, least_index } = call.into_inner();
        self.check_asker(&cluster_id, generation, from, to, group)?;
        self.giver.snapshot(from, Index(least_index)).await.map(Response::new)
    }

    async fn messages(
        &self,
        call: Request<pb::MessagesRequest>,
    ) -> Result<Response<pb::MessagesReply>, Status> {
        self.check_certificate(&call)?;
        let pb::MessagesRequest { cluster_id, generation, from, to, group, topic, wanted } =
            call.into_inner();
        self.check_asker(&cluster_id, generation, from, to, group)?;
        self.giver.messages(from, TopicId(topic), &wanted).await.map(Response::new)
    }
}

fn refuse(shared: &Shared, refusal: &Refusal) -> Status {
    shared.metrics.peer_refused(refusal.label());
    let mut status = Status::failed_precondition(refusal.to_string());
    if let Refusal::OtherGeneration { theirs, ours } = refusal {
        shared.is_left_behind_by(*theirs);
        status.metadata_mut().insert(GENERATION_METADATA, MetadataValue::from(*ours));
    }
    status.metadata_mut().insert(REFUSAL_METADATA, MetadataValue::from_static(refusal.label()));
    status
}

/// Notes who was refused for his certificate.
fn note(audit: Option<&Audit>, peer: &Peer, text: &str) {
    let Some(audit) = audit else { return };
    let from = peer.address.map(|address| address.to_string());
    let call = Noted { call: "peer", peer: from.as_deref(), text: Some(text), ..Noted::default() };
    audit.note(SystemTime::now(), Happened::Denied, &call);
}

/// Why a hello does not fit the certificate that its sender showed, if it does not.
type Contradicts = dyn Fn(&pb::Hello) -> Option<Refusal> + Send + Sync;

/// Who is at the other end of the connection by which a call came.
fn peer_of<T>(call: &Request<T>) -> Option<&Peer> {
    call.extensions().get()
}

/// Exchanges hellos, then passes on what comes until the stream ends or a newer one replaces it.
async fn listen(
    shared: &Arc<Shared>,
    forming: &Arc<Forming>,
    mut frames: Streaming<pb::PeerFrame>,
    kind: StreamKind,
    (answers, contradicts): (&mpsc::Sender<Result<pb::PeerFrame, Status>>, &Contradicts),
) -> Result<(), Status> {
    let late = |_| Status::deadline_exceeded("no hello in time");
    let hellos = accept(shared, forming, &mut frames, (answers, contradicts));
    let hello = tokio::time::timeout(HELLO_TIMEOUT, hellos).await.map_err(late)??;
    let from = NodeId(hello.from);
    let _speaking = shared.speaks(&hello);
    let number = shared.begin_connection(from, kind);
    let arrivals = match kind {
        StreamKind::Control => &shared.control,
        StreamKind::Bulk => &shared.bulk,
    };
    while let Some(frame) = frames.message().await? {
        if !shared.is_newest(from, kind, number) {
            return Err(Status::aborted("a newer connection of this node replaced this one"));
        }
        let Some(Frame::Envelope(envelope)) = frame.frame else { continue };
        let arrival: Option<Arrival> =
            messages::read_envelope(envelope).filter(|(envelope, _)| envelope.from == from);
        match arrival {
            // While the driver is behind, the peer is held back by flow control.
            Some(arrival) => {
                if arrivals.send(arrival).await.is_err() {
                    return Ok(()); // The node stops.
                }
            }
            None => shared.metrics.peer_refused("malformed"),
        }
    }
    Ok(())
}

async fn accept(
    shared: &Shared,
    forming: &Arc<Forming>,
    frames: &mut Streaming<pb::PeerFrame>,
    (answers, contradicts): (&mpsc::Sender<Result<pb::PeerFrame, Status>>, &Contradicts),
) -> Result<pb::Hello, Status> {
    let handshake = || refuse(shared, &Refusal::Handshake);
    let hello = |frame: Option<pb::PeerFrame>| match frame.and_then(|frame| frame.frame) {
        Some(Frame::Hello(hello)) => Ok(hello),
        _ => Err(handshake()),
    };
    let first = hello(frames.message().await?)?;
    if let Some(refusal) = contradicts(&first) {
        tracing::error!(peer = first.name, "{refusal}");
        return Err(refuse(shared, &refusal));
    }
    let own = (*shared.own.identity.borrow()).ok_or_else(|| Status::unavailable("not formatted yet"))?;
    let own = match shared.own.adoption(own, forming.is_of_cluster(), &first) {
        // It waits, and somebody who knows its id wants it: it was added.
        Some(adopted) => {
            shared.own.judge(adopted, &first).map_err(|refusal| refuse(shared, &refusal))?;
            forming.join(adopted).await?;
            adopted
        }
        None => own,
    };
    shared.own.judge(own, &first).map_err(|refusal| refuse(shared, &refusal))?;
    let nonce = crate::entropy::random();
    let answer = shared.own.hello(own, NodeId(first.from), nonce, first.nonce);
    answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("the opener has gone"))?;
    let second = hello(frames.message().await?)?;
    if second.echoed_nonce != nonce || second.from != first.from || second.boot_id != first.boot_id {
        return Err(handshake());
    }
    let from = NodeId(first.from);
    let seen = {
        let acknowledged = shared.own.acknowledged.read().unwrap_or_else(PoisonError::into_inner);
        shared.boots.lock().unwrap_or_else(PoisonError::into_inner).see(&second, &acknowledged)
    };
    seen.map_err(|refusal| {
        tracing::error!(peer = first.name, node = %from, "{refusal}");
        refuse(shared, &refusal)
    })?;
    shared.learn(&first, "");
    shared.came.send_modify(|times| *times += 1);
    Ok(second)
}
