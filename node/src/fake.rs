//! A node in memory, for tests of everything before a node: the edges, the client, the command line.
//!
//! [`FakeNode`] is one member that always leads. It keeps the promises of [`Service`] about results, in the simplest
//! way that is obviously right. It keeps nothing on disk and replicates nothing. No lease, delay or time to live ends
//! by itself (leases end when told to). What it says of itself, and the failure of the next call, can be set from
//! outside, so that it can give every answer that a node can give.

mod served;
mod topic;

use crate::api::{
    Answer, ChangeMembers, ClusterInfo, Dead, DeadAction, Delivery, Failure, LocalStatus, Look, MemberInfo,
    MemberRole, MembersInfo, Publish, Reason, Recover, RecoveryInfo, Request, Response, Role, SessionId,
    SessionStep, Settle, Settlement, StorageInfo, Take, TakeKind, TopicInfo, Write,
};
use crate::edges::gate::Call;
use crate::edges::service::{Begun, Service};
use futures_util::FutureExt;
pub use served::Served;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use topic::Topic;

/// The id of the one node.
pub const NODE_ID: u64 = 0xa1;

/// What it shows when it is asked what it knows that may have to go on alone.
pub const RECOVERY_TOKEN: &str = "00000000000000b7";

/// A node in memory. Clones share their state.
#[derive(Clone)]
pub struct FakeNode {
    state: Arc<Mutex<State>>,
    /// Counts calls that make messages ready: what a long poll waits for.
    published: watch::Sender<u64>,
    /// Calls that reach the node wait.
    is_held: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Topic>,
    /// The id last given to a topic or session.
    last_id: u64,
    sessions: BTreeMap<u64, Session>,
    /// Messages of pops with a request id.
    pops: BTreeMap<u128, Vec<Delivery>>,
    status: Arc<LocalStatus>,
    storage: StorageInfo,
    failures: VecDeque<Failure>,
    lost_answers: VecDeque<Failure>,
    calls: Vec<Request>,
}

#[derive(Default)]
struct Session {
    name: Option<String>,
    epoch: u64,
    /// Per topic id the last sequence and its answer.
    last: BTreeMap<u64, (u64, Response)>,
}

impl Default for FakeNode {
    fn default() -> Self {
        Self {
            state: Arc::new(Mutex::new(blank())),
            published: watch::Sender::new(0),
            is_held: watch::Sender::new(false),
        }
    }
}

fn blank() -> State {
    State { status: Arc::new(leading()), ..State::default() }
}

impl FakeNode {
    /// Makes it as it was when it was new.
    pub fn reset(&self) {
        *self.lock() = blank();
    }

    /// Sets what the node says of itself.
    pub fn set_status(&self, status: LocalStatus) {
        self.lock().status = Arc::new(status);
    }

    /// Sets what the node says that it keeps.
    pub fn set_storage(&self, storage: StorageInfo) {
        self.lock().storage = storage;
    }

    /// Lets the next call fail, before it does anything. Several are used up one by one.
    pub fn fail_next(&self, failure: Failure) {
        self.lock().failures.push_back(failure);
    }

    /// Takes back what [`Self::fail_next`] has said and no call has used up.
    pub fn stop_failing(&self) {
        self.lock().failures.clear();
    }

    /// Lets the next call be carried out and its answer be lost: the caller gets `failure` instead. Several are used up
    /// one by one.
    pub fn lose_next_answer(&self, failure: Failure) {
        self.lock().lost_answers.push_back(failure);
    }

    /// Lets the calls that reach the node from now on wait before they do anything, until it is told otherwise.
    pub fn hold(&self, is_held: bool) {
        self.is_held.send_replace(is_held);
    }

    /// Lets every lease of a topic end: its messages are ready again, with an attempt more.
    pub fn end_leases(&self, topic: &str) {
        if let Some(topic) = self.lock().topics.get_mut(topic) {
            topic.end_leases();
        }
        self.published.send_modify(|count| *count += 1);
    }

    /// The calls that reached the node so far, in order, those made to fail included.
    #[must_use]
    pub fn calls(&self) -> Vec<Request> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // If a test panicked elsewhere, that is what is reported. The state is still what it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for FakeNode {
    type Driven = std::future::Ready<Result<Answer, Failure>>;

    async fn call(&self, call: Call) -> Result<Answer, Failure> {
        let request = call.request;
        let mut published = self.published.subscribe();
        {
            let mut state = self.lock();
            state.calls.push(request.clone());
            if let Some(failure) = state.failures.pop_front() {
                return Err(failure);
            }
        }
        self.is_held.subscribe().wait_for(|is_held| !is_held).await.expect("the node holds the sender");
        let wait_ms = request.wait_ms();
        let patience = tokio::time::sleep(Duration::from_millis(wait_ms));
        let mut patience = std::pin::pin!(patience);
        loop {
            let answer = self.lock().apply(&request)?;
            let waiting = wait_ms > 0 && answer == Answer::Deliveries(Vec::new().into());
            if makes_ready(&request) {
                self.published.send_modify(|count| *count += 1);
            }
            if !waiting {
                let lost = self.lock().lost_answers.pop_front();
                return lost.map_or(Ok(answer), Err);
            }
            tokio::select! {
                biased;
                () = &mut patience => return Ok(answer),
                changed = published.changed() => changed.expect("the node holds the sender"),
            }
        }
    }

    fn begin(&self, batches: Vec<Publish>, deadline: Duration) -> Vec<Begun<Self::Driven>> {
        // As a driver does: in order, and before anybody asks how far it has come.
        let begin = |batch| {
            let own = self.clone();
            let mut call =
                async move { own.call(Call::of_peer(Request::Publish(batch), deadline)).await }.boxed();
            Begun::Alone(match (&mut call).now_or_never() {
                Some(result) => std::future::ready(result).boxed(),
                None => call,
            })
        };
        batches.into_iter().map(begin).collect()
    }

    fn local_status(&self) -> Arc<LocalStatus> {
        self.lock().status.clone()
    }

    async fn recover(&self, asked: Recover) -> Result<RecoveryInfo, Failure> {
        let status = self.lock().status.clone();
        let info = RecoveryInfo {
            node_id: NODE_ID,
            name: status.name.clone(),
            cluster_id: status.cluster_id.clone(),
            last: status.last,
            token: RECOVERY_TOKEN.into(),
            costs: vec!["what others have".into()],
            ..RecoveryInfo::default()
        };
        match asked.token.as_deref() {
            None => Ok(info),
            Some(RECOVERY_TOKEN) => Ok(RecoveryInfo { decided: true, ..info }),
            Some(_) => Err(refused(Reason::StaleConfiguration, "another token")),
        }
    }

    fn storage(&self) -> StorageInfo {
        self.lock().storage.clone()
    }
}

fn makes_ready(request: &Request) -> bool {
    match request {
        Request::Publish(_) => true,
        Request::Settle(settle) => {
            matches!(settle.settlement, Settlement::Nack { .. } | Settlement::Release)
        }
        Request::Dead(dead) => dead.action == DeadAction::Redrive,
        _ => false,
    }
}

impl State {
    fn apply(&mut self, request: &Request) -> Result<Answer, Failure> {
        let response = match request.clone() {
            Request::Write(Write::CreateTopic { topic, options, request_id }) => {
                let id = self.last_id + 1;
                match self.topics.get(&topic) {
                    Some(existing) if request_id.is_some() && existing.request_id == request_id => {
                        Response::TopicCreated { topic: existing.id }
                    }
                    Some(_) => return Err(refused(Reason::TopicExists, &topic)),
                    None => {
                        self.last_id = id;
                        self.topics.insert(topic, Topic::new(id, options, request_id));
                        Response::TopicCreated { topic: id }
                    }
                }
            }
            Request::Write(Write::UpdateTopic { topic, change }) => {
                Response::TopicUpdated(self.topic(&topic)?.update(&change))
            }
            Request::Write(Write::DeleteTopic { topic }) => {
                self.topics.remove(&topic).ok_or_else(|| refused(Reason::TopicNotFound, &topic))?;
                Response::TopicDeleted
            }
            Request::Look(Look::ListTopics { after, topics_max }) => {
                self.list(after.unwrap_or(0), topics_max)
            }
            Request::Look(Look::DescribeTopic { topic: name }) => {
                let info = self.topic(&name)?.info(&name);
                Response::Topic(info)
            }
            Request::Publish(Publish { topic, session, messages }) => {
                let id = self.topic(&topic)?.id;
                match session {
                    None => self.topic(&topic)?.publish(messages),
                    Some(step) => match self.check_step(id, step)? {
                        Some(repeated) => repeated,
                        None => {
                            let response = self.topic(&topic)?.publish(messages);
                            let session =
                                self.sessions.get_mut(&step.session.number).expect("it was checked");
                            session.last.insert(id, (step.sequence, response.clone()));
                            response
                        }
                    },
                }
            }
            Request::Take(Take {
                topic, messages_max, bytes_max, kind: TakeKind::Receive { .. }, ..
            }) => {
                return Ok(Answer::Deliveries(self.topic(&topic)?.receive(messages_max, bytes_max).into()));
            }
            Request::Take(Take {
                topic,
                messages_max,
                bytes_max,
                kind: TakeKind::Pop { request_id },
                ..
            }) => {
                if let Some(popped) = request_id.and_then(|id| self.pops.get(&id)) {
                    return Ok(Answer::Deliveries(popped.clone().into()));
                }
                let popped = self.topic(&topic)?.pop(messages_max, bytes_max);
                if let Some(id) = request_id.filter(|_| !popped.is_empty()) {
                    self.pops.insert(id, popped.clone());
                }
                return Ok(Answer::Deliveries(popped.into()));
            }
            Request::Settle(Settle { topic, leases, settlement, .. }) => {
                Response::Leases(self.topic(&topic)?.settle(&leases, &settlement))
            }
            Request::Look(Look::Peek { topic, state, from_offset, messages_max, bytes_max, .. }) => {
                let seen = self.topic(&topic)?.peek(state, from_offset, messages_max, bytes_max);
                return Ok(Answer::Deliveries(seen.into()));
            }
            Request::Dead(Dead { topic, offsets, action: DeadAction::Redrive, .. }) => {
                Response::Count(self.topic(&topic)?.redrive(&offsets))
            }
            Request::Dead(Dead { topic, offsets, action: DeadAction::Purge, .. }) => {
                Response::Count(self.topic(&topic)?.purge_dead(&offsets))
            }
            Request::Write(Write::Purge { topic, .. }) => Response::Count(self.topic(&topic)?.purge()),
            Request::Write(Write::OpenSession { name }) => self.open_session(name),
            Request::Write(Write::CloseSession { session }) => match self.sessions.remove(&session.number) {
                Some(_) => Response::SessionClosed,
                None => return Err(refused(Reason::SessionExpired, &session.number.to_string())),
            },
            Request::Look(Look::ClusterStatus) => Response::Cluster(cluster(&self.status)),
            Request::TransferLeadership { to } => match to.as_deref() {
                None | Some("node-0" | "a1") => Response::Transferred { leader: NODE_ID },
                Some(other) => return Err(refused(Reason::NodeNotFound, other)),
            },
            Request::Look(Look::Members) => Response::Members(MembersInfo {
                configuration_index: 1,
                settled: true,
                leader: NODE_ID,
                ..MembersInfo::default()
            }),
            Request::Members(ChangeMembers { dry, .. }) => {
                let refusal = dry.then(|| "the fake node has no members".to_owned());
                Response::MembersChanged { configuration_index: 2, refusal }
            }
        };
        Ok(Answer::Response(response))
    }

    fn topic(&mut self, name: &str) -> Result<&mut Topic, Failure> {
        self.topics.get_mut(name).ok_or_else(|| refused(Reason::TopicNotFound, name))
    }

    fn list(&self, after: u64, topics_max: usize) -> Response {
        let mut topics: Vec<TopicInfo> = self
            .topics
            .iter()
            .filter(|(_, topic)| topic.id > after)
            .map(|(name, topic)| topic.info(name))
            .collect();
        topics.sort_by_key(|topic| topic.id);
        let more = topics.len() > topics_max;
        topics.truncate(topics_max);
        Response::Topics { topics, more }
    }

    /// A named session goes on where it was, under the next epoch: whoever held it before is fenced.
    fn open_session(&mut self, name: Option<String>) -> Response {
        let named = |(_, session): &(&u64, &mut Session)| name.is_some() && session.name == name;
        if let Some((&number, session)) = self.sessions.iter_mut().find(named) {
            session.epoch += 1;
            let epoch = session.epoch;
            return Response::SessionOpened { session: SessionId { generation: 0, number, epoch } };
        }
        self.last_id += 1;
        let (number, epoch) = (self.last_id, u64::from(name.is_some()));
        self.sessions.insert(number, Session { name, epoch, last: BTreeMap::new() });
        Response::SessionOpened { session: SessionId { generation: 0, number, epoch } }
    }

    /// The answer to repeat; `None` where the step is the next one.
    fn check_step(&self, topic: u64, step: SessionStep) -> Result<Option<Response>, Failure> {
        let number = step.session.number;
        let session =
            self.sessions.get(&number).ok_or_else(|| refused(Reason::SessionExpired, &number.to_string()))?;
        if session.epoch != step.session.epoch {
            return Err(refused(Reason::Fenced, &number.to_string()));
        }
        match session.last.get(&topic) {
            Some((last, response)) if *last == step.sequence => Ok(Some(repeated(response.clone()))),
            Some((last, _)) if step.sequence < *last => Ok(Some(Response::AlreadyDone)),
            Some((last, _)) if step.sequence == *last + 1 => Ok(None),
            None if step.sequence == 1 => Ok(None),
            _ => Err(refused(Reason::OutOfSequence, &step.sequence.to_string())),
        }
    }
}

/// The answer to a publish, as its repeat gets it.
fn repeated(mut response: Response) -> Response {
    if let Response::Published { deduplicated, .. } = &mut response {
        *deduplicated = true;
    }
    response
}

/// What a healthy leader says of itself.
#[must_use]
pub fn leading() -> LocalStatus {
    let member = MemberInfo {
        id: NODE_ID,
        name: "node-0".into(),
        peer_address: "127.0.0.1:7421".into(),
        client_address: "127.0.0.1:7420".into(),
        role: MemberRole::Leader,
        voter: true,
        active: true,
        matched: 42,
        lag: 0,
    };
    LocalStatus {
        node_id: Some(NODE_ID),
        name: "node-0".into(),
        cluster_id: "00112233445566778899aabbccddeeff".into(),
        generation: 0,
        version: 1,
        role: Role::Leader,
        term: 7,
        leader: Some(NODE_ID),
        leader_address: Some("127.0.0.1:7420".into()),
        commit: 42,
        applied: 42,
        last: 42,
        members: vec![member],
        not_ready: None,
        note: None,
    }
}

fn cluster(status: &LocalStatus) -> ClusterInfo {
    ClusterInfo {
        cluster_id: status.cluster_id.clone(),
        generation: status.generation,
        version: status.version,
        leader: status.leader.unwrap_or_default(),
        term: status.term,
        commit: status.commit,
        applied: status.applied,
        members: status.members.clone(),
    }
}

fn refused(reason: Reason, what: &str) -> Failure {
    Failure::not_done(reason, format!("{reason:?}: {what}"))
}
