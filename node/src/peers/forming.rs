//! Forming a cluster, once in its life.
//!
//! The lowest-named initial member is the seed. It asks every member what it is. When each is blank, or bound to the seed's own
//! formation, it has all of them bind themselves durably to the formation id that it minted. Only then it writes entry 1, the
//! configuration with all their ids. A bound node refuses every other formation. So two seeds with one name and different disks
//! can never both gather all members, and there is never more than one cluster.
//!
//! Nothing here takes part in consensus: until entry 1 there is no cluster, and after it there is nothing to form.

mod recovering;

use crate::api::codec::VERSION_MAX;
use crate::config::{Bootstrap, Member as Initial};
use crate::peers::discovery::Discovery;
use crate::peers::own::{Own, OwnIdentity};
use crate::peers::patience::Patience;
use crate::peers::promises;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::form_reply::Standing;
use raftqueue_proto::peer::v1::form_request::Phase;
use raftqueue_proto::peer::v1::peer_client::PeerClient;
use raftqueue_raft::{Configuration, Member, MemberKind, NodeId};
use raftqueue_wal::{Binding, DataDir, IdentityError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tonic::Status;

/// Pause between two rounds of asking.
const ROUND: Duration = Duration::from_millis(50);
/// How long a member may take to answer at first.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the log says who is missing.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The log of a cluster that this node has.
#[derive(Clone, Debug)]
pub struct LogStanding {
    /// Its newest configuration; `None` while that is not read yet.
    pub configuration: Option<Arc<Configuration>>,
    /// Its last index.
    pub last_index: u64,
}

/// How forming ended, for this node.
#[derive(Debug)]
pub enum Formed {
    /// This node is the seed and everybody is bound: it writes this configuration as entry 1.
    Seed(Configuration),
    /// This node is bound; the seed's entries will come.
    Bound,
}

/// See the module's header.
pub struct Forming {
    own: Arc<Own>,
    discovery: Arc<Discovery>,
    members: Vec<Initial>,
    bootstrap: Bootstrap,
    /// The cluster that the disk must belong to, if it matters.
    expected: Option<u128>,
    dir: OnceLock<Mutex<DataDir>>,
    /// Set once this node has a log, by whoever reads it.
    log: Mutex<Option<LogStanding>>,
    missing: Mutex<Vec<String>>,
    /// How long each of the others may take to answer, by name.
    patience: Mutex<BTreeMap<String, Patience>>,
}

impl Forming {
    /// `members` in the order of their names. With [`Bootstrap::Join`] a blank node neither forms a cluster nor is
    /// bound to one that forms. A binding from before goes on.
    #[must_use]
    pub fn new(
        own: Arc<Own>,
        discovery: Arc<Discovery>,
        members: Vec<Initial>,
        bootstrap: Bootstrap,
        expected: Option<u128>,
    ) -> Self {
        Self {
            own,
            discovery,
            members,
            bootstrap,
            expected,
            dir: OnceLock::new(),
            log: Mutex::default(),
            missing: Mutex::default(),
            patience: Mutex::default(),
        }
    }

    /// The data directory is open: from now on other nodes are answered. Called once, when the node starts.
    pub fn opened(&self, dir: DataDir) {
        self.publish_identity(&dir);
        let _ = self.dir.set(Mutex::new(dir));
    }

    /// This node has a log, or more of it.
    pub fn has_log(&self, standing: LogStanding) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(standing);
    }

    /// True once this node has the log of a cluster.
    #[must_use]
    pub fn is_of_cluster(&self) -> bool {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// This node, which is of no cluster, was added to one: it is of that one from now on, durably.
    ///
    /// # Errors
    /// A status that says why it is not.
    pub(crate) async fn join(self: &Arc<Self>, adopted: OwnIdentity) -> Result<(), Status> {
        let cluster_id = adopted.cluster_id.expect("it is of a cluster now");
        if let Some(expected) = self.expected.filter(|expected| *expected != cluster_id) {
            return Err(Status::failed_precondition(format!(
                "this node waits for cluster {expected:032x}, not for {cluster_id:032x}"
            )));
        }
        let forming = Arc::clone(self);
        let joined = tokio::task::spawn_blocking(move || {
            let joined = forming.with_dir(|dir| dir.join(cluster_id, adopted.generation));
            forming.with_dir(|dir| forming.publish_identity(dir));
            joined
        });
        let joined = joined.await.map_err(|_| Status::internal("joining was cut off"))?;
        joined.map_err(|error| Status::failed_precondition(error.to_string()))?;
        tracing::info!(cluster = format!("{cluster_id:032x}"), "this node was added to a cluster");
        Ok(())
    }

    /// Members that did not answer when they were asked last.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish_identity(&self, dir: &DataDir) {
        let identity = dir.identity().map(|identity| OwnIdentity {
            node_id: identity.node_id,
            cluster_id: (identity.formation_id != 0).then_some(identity.formation_id),
            generation: identity.generation,
        });
        self.own.identity.send_replace(identity);
    }

    /// Runs until this node is bound or, on the seed, until everybody is. It may be cut off and run again.
    ///
    /// # Errors
    /// What the disk said; the node must stop.
    pub async fn run(self: &Arc<Self>) -> Result<Formed, IdentityError> {
        let is_seed = self.members.first().is_some_and(|first| first.name == self.own.name);
        let mut told: Option<Instant> = None;
        loop {
            let answers = self.ask_all(|_| self.request(Phase::Probe, 0)).await;
            let missing: Vec<String> =
                self.others().filter(|m| !answers.contains_key(&m.name)).map(|m| m.name.clone()).collect();
            let may_tell = told.is_none_or(|at| at.elapsed() >= TELL_EVERY);
            if may_tell && !missing.is_empty() {
                tracing::info!(
                    missing = missing.join(", "),
                    "waiting for all initial members to form the cluster"
                );
                told = Some(Instant::now());
            }
            let all_there = missing.is_empty();
            *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = missing;
            let (formation_id, is_bound) = self.with_dir(|dir| {
                dir.identity().map_or((0, false), |own| (own.formation_id, own.binding.is_some()))
            });
            if formation_id != 0 && !is_bound {
                return Ok(Formed::Bound); // It was added to a cluster that exists.
            }
            if let Some((name, cluster)) = self.foreign_cluster(&answers, formation_id) {
                self.own.is_to_be_added();
                self.start_over(&name, cluster, may_tell.then_some(&mut told))?;
            } else if formation_id == 0 && self.bootstrap == Bootstrap::Join {
                self.own.is_to_be_added();
                if may_tell {
                    tracing::info!("this node's disk is blank: waiting to be added to the cluster");
                    told = Some(Instant::now());
                }
            } else if !is_seed {
                if formation_id != 0 {
                    return Ok(Formed::Bound);
                }
            } else if all_there
                && self.may_form(&answers, formation_id, may_tell, &mut told)
                && let Some(configuration) = self.bind_all(formation_id).await?
            {
                return Ok(Formed::Seed(configuration));
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    /// A member has the log of another cluster of the same members: this node was wiped, or came too late.
    fn foreign_cluster(
        &self,
        answers: &BTreeMap<String, pb::FormReply>,
        formation_id: u128,
    ) -> Option<(String, u128)> {
        let names: Vec<&str> = self.members.iter().map(|member| member.name.as_str()).collect();
        answers.iter().find_map(|(name, answer)| match &answer.standing {
            Some(Standing::Member(member)) => {
                let cluster = read_id(&member.cluster_id)?;
                let same_names = member.member_names.iter().all(|name| names.contains(&name.as_str()));
                (cluster != formation_id && same_names).then(|| (name.clone(), cluster))
            }
            _ => None,
        })
    }

    fn start_over(
        &self,
        name: &str,
        cluster: u128,
        tell: Option<&mut Option<Instant>>,
    ) -> Result<(), IdentityError> {
        let bound = self.with_dir(|dir| dir.identity().is_some_and(|identity| identity.formation_id != 0));
        if bound {
            let node_id = crate::entropy::node_id();
            tracing::warn!(
                member = name,
                cluster = format!("{cluster:032x}"),
                node = %node_id,
                "a member has the log of another cluster of these members: starting over as a new node, to be added to it"
            );
            self.with_dir(|dir| dir.reformat(node_id))?;
            self.with_dir(|dir| self.publish_identity(dir));
        } else if let Some(told) = tell {
            *told = Some(Instant::now());
            tracing::info!(
                member = name,
                cluster = format!("{cluster:032x}"),
                "waiting to be added to a cluster"
            );
        }
        Ok(())
    }

    /// On the seed: whether everybody is blank or bound to this very formation.
    fn may_form(
        &self,
        answers: &BTreeMap<String, pb::FormReply>,
        formation_id: u128,
        may_tell: bool,
        told: &mut Option<Instant>,
    ) -> bool {
        let mut may = true;
        for (name, answer) in answers {
            match &answer.standing {
                Some(Standing::Blank(_)) => {}
                Some(Standing::Bound(bound)) if read_id(&bound.formation_id) == Some(formation_id) => {}
                Some(Standing::Bound(bound)) => {
                    may = false;
                    if may_tell {
                        *told = Some(Instant::now());
                        tracing::error!(
                            member = name,
                            formation = read_id(&bound.formation_id).map(|id| format!("{id:032x}")),
                            "a member is bound to another formation, whose seed lost its disk: stop it and clear its data \
                             directory, or run `raftq unbind` on it"
                        );
                    }
                }
                Some(Standing::Member(member)) => {
                    may = false;
                    if may_tell {
                        *told = Some(Instant::now());
                        let cluster = read_id(&member.cluster_id);
                        // Entry 1 was on the seed's disk before anybody else had it.
                        let what = if cluster == Some(formation_id) {
                            "this node's cluster exists and its own log is gone: clear its data directory, so that it \
                             joins as a new node"
                        } else {
                            "a node of another cluster answers at a member's address: mend the list of members"
                        };
                        tracing::error!(
                            member = name,
                            cluster = cluster.map(|id| format!("{id:032x}")),
                            members = member.member_names.join(", "),
                            "{what}"
                        );
                    }
                }
                None => may = false,
            }
        }
        may
    }

    /// On the seed: binds itself, then all others, and starts with the newest version that all run. `None` if one was not bound.
    async fn bind_all(&self, formation_id: u128) -> Result<Option<Configuration>, IdentityError> {
        let formation_id = if formation_id == 0 { crate::entropy::random_wide() } else { formation_id };
        let own_id = self.with_dir(|dir| dir.identity().expect("formatted when it was opened").node_id);
        self.bind(formation_id, own_id)?;
        let answers = self.ask_all(|_| self.request(Phase::Bind, formation_id)).await;
        let own = self.members.iter().find(|member| member.name == self.own.name);
        let own = own.expect("the seed is the first of the members");
        let mut members = BTreeMap::from([(own_id, voter(own))]);
        for member in self.others() {
            match answers.get(&member.name).map(|answer| (answer.node_id, &answer.standing)) {
                Some((id, Some(Standing::Bound(bound))))
                    if read_id(&bound.formation_id) == Some(formation_id)
                        && bound.seed_id == own_id.0
                        && id != 0 =>
                {
                    members.insert(NodeId(id), voter(member));
                }
                _ => return Ok(None),
            }
        }
        if members.len() != self.members.len() {
            tracing::error!("two members show the same node id: one of their disks is a copy; clear it");
            return Ok(None);
        }
        let version =
            answers.values().fold(VERSION_MAX, |least, answer| least.min(answer.version_max.max(1)));
        let cluster = format!("{formation_id:032x}");
        tracing::info!(cluster, version, "all members are bound: the cluster is formed");
        Ok(Some(Configuration { members, version, ..Configuration::default() }))
    }

    fn bind(&self, formation_id: u128, seed_id: NodeId) -> Result<(), IdentityError> {
        let members = self.members.iter().map(|member| (member.name.clone(), None)).collect();
        self.with_dir(|dir| dir.bind(formation_id, Binding { seed_id, members }))?;
        self.with_dir(|dir| self.publish_identity(dir));
        Ok(())
    }

    /// Answers another node's step of forming. Blocks on the disk only while this node binds itself.
    ///
    /// # Errors
    /// A status that says why this node cannot answer, or will not bind itself.
    pub async fn answer(self: &Arc<Self>, request: pb::FormRequest) -> Result<pb::FormReply, Status> {
        if self.dir.get().is_none() {
            return Err(Status::unavailable("this node is still opening its data directory"));
        }
        if request.phase() == Phase::Bind {
            let forming = Arc::clone(self);
            tokio::task::spawn_blocking(move || forming.accept_binding(&request))
                .await
                .map_err(|_| Status::internal("the binding was cut off"))??;
        }
        Ok(self.standing())
    }

    fn accept_binding(&self, request: &pb::FormRequest) -> Result<(), Status> {
        let names: Vec<&str> = self.members.iter().map(|member| member.name.as_str()).collect();
        let theirs: Vec<&str> = request.member_names.iter().map(String::as_str).collect();
        if names != theirs {
            return Err(Status::failed_precondition(format!(
                "the seed lists the members {}, this node {}: start all nodes with one list",
                theirs.join(", "),
                names.join(", ")
            )));
        }
        if names.first() != Some(&request.from_name.as_str()) {
            return Err(Status::failed_precondition(format!(
                "{} is not the seed, {} is",
                request.from_name, names[0]
            )));
        }
        let Some(formation_id) = read_id(&request.formation_id) else {
            return Err(Status::invalid_argument("a formation id is 16 bytes, not all zero"));
        };
        if self.log.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(()); // It is told what this node is instead.
        }
        let is_blank = self.with_dir(|dir| dir.identity().is_some_and(|own| own.formation_id == 0));
        if is_blank && self.bootstrap == Bootstrap::Join {
            return Err(Status::failed_precondition(
                "this node was started to join a cluster that exists: it takes no part in forming one",
            ));
        }
        match self.bind(formation_id, NodeId(request.seed_id)) {
            // The standing tells a seed that this node is bound elsewhere.
            Ok(()) | Err(IdentityError::BoundElsewhere { .. }) => Ok(()),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }

    fn standing(&self) -> pb::FormReply {
        let identity = self.with_dir(|dir| dir.identity().cloned()).expect("formatted when it was opened");
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let standing = match (log, &identity.binding) {
            (Some(LogStanding { configuration, last_index }), _) => {
                let identity = (identity.formation_id, identity.generation);
                let configuration = configuration.unwrap_or_default();
                Standing::Member(promises::tell(&self.own, identity, &configuration, last_index))
            }
            (None, Some(binding)) => Standing::Bound(pb::FormBound {
                formation_id: write_id(identity.formation_id),
                seed_id: binding.seed_id.0,
                member_names: binding.members.iter().map(|(name, _)| name.clone()).collect(),
            }),
            // It was added to a cluster, whose log is on its way.
            (None, None) if identity.formation_id != 0 => Standing::Bound(pb::FormBound {
                formation_id: write_id(identity.formation_id),
                ..pb::FormBound::default()
            }),
            (None, None) => Standing::Blank(pb::FormBlank {}),
        };
        pb::FormReply {
            node_id: identity.node_id.0,
            name: identity.name,
            standing: Some(standing),
            missing_names: self.missing(),
            version_max: VERSION_MAX,
        }
    }

    pub(crate) fn with_dir<T>(&self, act: impl FnOnce(&mut DataDir) -> T) -> T {
        let dir = self.dir.get().expect("the data directory was opened before anything is asked of it");
        act(&mut dir.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn others(&self) -> impl Iterator<Item = &Initial> {
        self.members.iter().filter(|member| member.name != self.own.name)
    }

    fn request(&self, phase: Phase, formation_id: u128) -> pb::FormRequest {
        let own_id = self.own.identity.borrow().map_or(0, |own| own.node_id.0);
        pb::FormRequest {
            phase: phase.into(),
            from: own_id,
            from_name: self.own.name.clone(),
            formation_id: write_id(formation_id),
            seed_id: own_id,
            member_names: self.members.iter().map(|member| member.name.clone()).collect(),
        }
    }

    /// Asks every other member, all at once. Those that did not answer in time are left out.
    async fn ask_all(
        &self,
        request: impl Fn(&Initial) -> pb::FormRequest,
    ) -> BTreeMap<String, pb::FormReply> {
        let mut asked = tokio::task::JoinSet::new();
        for member in self.others().cloned() {
            let request = request(&member);
            let discovery = Arc::clone(&self.discovery);
            let timeout = self.with_patience(&member.name, |patience| patience.timeout());
            asked.spawn(async move {
                let answer = ask(&discovery, &member.peer_address, request);
                (member.name, tokio::time::timeout(timeout, answer).await)
            });
        }
        let mut answers = BTreeMap::new();
        for (name, answer) in asked.join_all().await {
            match answer {
                Ok(Ok(answer)) => drop(answers.insert(name, answer)),
                Ok(Err(why)) => tracing::debug!(member = name, why, "no answer"),
                Err(_) => {
                    tracing::debug!(member = name, "no answer in time");
                    self.with_patience(&name, Patience::was_late);
                }
            }
        }
        answers
    }

    fn with_patience<T>(&self, name: &str, act: impl FnOnce(&mut Patience) -> T) -> T {
        let mut patience = self.patience.lock().unwrap_or_else(PoisonError::into_inner);
        act(patience.entry(name.to_owned()).or_insert_with(|| Patience::new(ANSWER_TIMEOUT)))
    }
}

async fn ask(
    discovery: &Arc<Discovery>,
    address: &str,
    request: pb::FormRequest,
) -> Result<pb::FormReply, String> {
    let channel = discovery.dial(address).await?;
    match PeerClient::new(channel).form(request).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => {
            if status.code() == tonic::Code::FailedPrecondition {
                tracing::error!(address, "a member refuses to be bound: {}", status.message());
            }
            Err(status.message().to_owned())
        }
    }
}

fn voter(initial: &Initial) -> Member {
    let Initial { name, peer_address } = initial.clone();
    Member { name, address: peer_address, kind: MemberKind::Voter }
}

fn write_id(id: u128) -> bytes::Bytes {
    id.to_be_bytes().to_vec().into()
}

fn read_id(bytes: &[u8]) -> Option<u128> {
    <[u8; 16]>::try_from(bytes).ok().map(u128::from_be_bytes).filter(|id| *id != 0)
}
