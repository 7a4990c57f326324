//! The commands of the scripts in `tests/scripts`.

use crate::cluster::{Cluster, command, configuration};
use crate::disk::Disk;
use crate::show;
use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use raftqueue_raft::{
    Entry, Envelope, Event, HardState, Index, Member, MemberChange, MemberKind, NodeId, Payload,
    ProgressState, RoleKind, Term,
};
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;

/// Ticks after which `run until=...` gives up, in election timeouts.
const PATIENCE_TIMEOUTS: u32 = 20;

type Executed = Result<(), Box<dyn Error>>;

/// Runs one script against one cluster.
pub(crate) struct Script {
    cluster: Cluster,
    /// Messages put aside, to arrive late.
    delayed: Vec<Envelope>,
}

/// Which messages a command is about.
#[derive(Default)]
struct Filter {
    from: Option<NodeId>,
    to: Option<NodeId>,
    kind: Option<String>,
    count: Option<usize>,
}

impl Script {
    pub(crate) fn new() -> Self {
        let mut cluster = Cluster::new(1);
        cluster.story = Some(Vec::new());
        Self { cluster, delayed: Vec::new() }
    }

    fn execute(&mut self, name: &str, args: &mut ArgumentConsumer, messages: bool) -> Executed {
        self.cluster.show_messages = messages;
        match name {
            // Setting the scene.
            "settings" => self.settings(args)?,
            "cluster" => self.cluster(args)?,
            "node" => self.node(args)?,
            "form" => {
                let id = node(args)?;
                let voters = list(args.take_key("voters").unwrap_or_default())?;
                self.cluster.call(id, |raft| raft.form(configuration(&voters, &[])));
            }
            // Time and messages.
            "tick" => {
                let count: u32 = number(args, "count")?.unwrap_or(1);
                let ids = self.nodes_or_all(args)?;
                for _ in 0..count {
                    for id in &ids {
                        self.cluster.tick(*id);
                    }
                }
            }
            "run" => self.run_until(args)?,
            "deliver" => self.deliver(args)?,
            "drop" => {
                let filter = filter(args)?;
                let dropped = self.take(&filter);
                self.cluster.tell(|| format!("{} lost", count(dropped.len(), "message")));
            }
            "delay" => {
                let filter = filter(args)?;
                let taken = self.take(&filter);
                self.cluster.tell(|| format!("{} late", count(taken.len(), "message")));
                self.delayed.extend(taken);
            }
            "arrive" => {
                for envelope in std::mem::take(&mut self.delayed) {
                    self.cluster.receive(envelope);
                }
            }
            "double" => {
                let filter = filter(args)?;
                for envelope in self.take(&filter) {
                    let queue = self.cluster.links.entry((envelope.from, envelope.to)).or_default();
                    queue.extend([envelope.clone(), envelope]);
                }
            }
            "messages" => {
                for envelope in self.cluster.links.values().flatten() {
                    let shown = show::envelope(envelope);
                    self.cluster.story.get_or_insert_default().push(shown);
                }
            }
            // The network.
            "cut" => {
                let (from, to) = (node(args)?, node(args)?);
                self.cluster.cut(from, to);
            }
            "isolate" => {
                for id in nodes(args)? {
                    for other in self.all() {
                        self.cluster.cut(id, other);
                        self.cluster.cut(other, id);
                    }
                }
            }
            "part" => self.part(args)?,
            "heal" => self.cluster.cuts.clear(),
            // Processes and disks.
            "crash" => {
                let parts = number(args, "parts")?.unwrap_or(0);
                for id in nodes(args)? {
                    self.cluster.crash(id, parts);
                    self.cluster.links.retain(|(from, to), _| *from != id && *to != id);
                }
            }
            "restart" => {
                for id in nodes(args)? {
                    self.cluster.restart(id);
                }
            }
            "hold" => self
                .for_nodes(args, |cluster, id| cluster.nodes.get_mut(&id).expect("known").disk_held = true)?,
            "persist" => self.for_nodes(args, |cluster, id| {
                cluster.persist_held(id);
            })?,
            "release" => self.for_nodes(args, Cluster::release_disk)?,
            "hold-loads" => {
                self.for_nodes(args, |cluster, id| {
                    cluster.nodes.get_mut(&id).expect("known").loads_held = true;
                })?;
            }
            "hold-applying" => {
                self.for_nodes(args, |cluster, id| {
                    cluster.nodes.get_mut(&id).expect("known").applying_held = true;
                })?;
            }
            "apply" => self.for_nodes(args, Cluster::release_applying)?,
            "load" => {
                let fail = args.take_key("fail").is_some();
                let id = node(args)?;
                let loads: Vec<_> = self.cluster.nodes[&id].loads.first().into_iter().copied().collect();
                for load in loads {
                    self.cluster.tell(|| format!("n{id} loads from {} for n{}", load.from, load.to));
                }
                self.cluster.serve_load(id, fail);
            }
            "compact" => self.compact(args)?,
            "snapshot" => {
                let from = NodeId(args.take_key("from").ok_or("from=?")?.parse()?);
                let (id, at) = (node(args)?, number(args, "at")?.map(Index));
                if !self.cluster.ask_for_snapshot(id, from, at) {
                    return Err("it has no such snapshot".into());
                }
                let (_, coming) = self.cluster.nodes[&id].coming.clone().expect("it was just given");
                self.cluster.tell(|| {
                    format!("n{from} gives n{id} a snapshot up to {}@{}", coming.index, coming.term)
                });
            }
            "tell" => self.for_nodes(args, Cluster::tell_committed)?,
            "install" => self.for_nodes(args, Cluster::install)?,
            "incomplete" => {
                self.for_nodes(args, |cluster, id| cluster.step(id, Event::Incomplete(true)))?;
            }
            "complete" => self.for_nodes(args, |cluster, id| cluster.step(id, Event::Incomplete(false)))?,
            "damage" => self.for_nodes(args, |cluster, id| cluster.step(id, Event::Damaged(true)))?,
            "mend" => self.for_nodes(args, |cluster, id| cluster.step(id, Event::Damaged(false)))?,
            "lose-state" => self.for_nodes(args, |cluster, id| cluster.step(id, Event::Stateless(true)))?,
            "have-state" => self.for_nodes(args, |cluster, id| cluster.step(id, Event::Stateless(false)))?,
            "stall" => self.for_nodes(args, |cluster, id| cluster.step(id, Event::DiskStalled(true)))?,
            "recover" => self.for_nodes(args, |cluster, id| cluster.step(id, Event::DiskStalled(false)))?,
            // Elections.
            "forget" => {
                let ids = nodes(args)?;
                self.forget(&ids);
            }
            "campaign" => {
                let id = node(args)?;
                self.campaign(id);
            }
            "elect" => {
                let id = node(args)?;
                let voters = match args.take_key("by") {
                    Some(by) => list(by)?.into_iter().map(NodeId).collect(),
                    None => self.cluster.live(),
                };
                self.forget(&voters.into_iter().filter(|voter| *voter != id).collect::<Vec<_>>());
                self.campaign(id);
                self.cluster.deliver(|_| true);
            }
            "gone" => {
                let gone = NodeId(args.take_key("peer").ok_or("peer=?")?.parse()?);
                self.for_nodes(args, |cluster, id| cluster.step(id, Event::PeerGone(gone)))?;
            }
            // Clients.
            "propose" => self.propose(args)?,
            "read" => {
                for id in nodes(args)? {
                    match self.cluster.read(id) {
                        Some(Ok(read)) => self.cluster.tell(|| format!("n{id} takes read {}", read.0)),
                        Some(Err(refused)) => self.cluster.tell(|| format!("n{id} refuses: {refused}")),
                        None => return Err("that node is down".into()),
                    }
                }
            }
            // As a node that is about to stop does.
            "leave" => {
                let id = node(args)?;
                let to = self.cluster.raft(id).and_then(raftqueue_raft::Raft::best_successor);
                let to = to.ok_or("it leads nobody")?;
                let answer = self.cluster.call(id, |raft| raft.transfer_leadership(to));
                self.refusal(id, answer.and_then(Result::err).map(|refused| refused.to_string()));
            }
            "transfer" => {
                let (id, to) = (node(args)?, node(args)?);
                let answer = self.cluster.call(id, |raft| raft.transfer_leadership(to));
                self.refusal(id, answer.ok_or("that node is down")?.err().map(|refused| refused.to_string()));
            }
            "change" => self.change(args)?,
            "raise" => {
                let version = number(args, "version")?.ok_or("version=?")?;
                let id = node(args)?;
                let answer = self.cluster.call(id, |raft| raft.raise_version(version));
                self.refusal(id, answer.ok_or("that node is down")?.err().map(|refused| refused.to_string()));
            }
            // Looking.
            "status" => self.status(args)?,
            "log" => self.log(args)?,
            "members" => {
                for id in self.nodes_or_all(args)? {
                    if let Some(raft) = self.cluster.raft(id) {
                        let shown = show::configuration(raft.configuration());
                        self.cluster.tell(|| format!("n{id} goes by {shown}"));
                    }
                }
            }
            "peers" => self.peers(args)?,
            "gives" => {
                for id in nodes(args)? {
                    if let Some(raft) = self.cluster.raft(id) {
                        let shown = if raft.is_last_to_give() { "is" } else { "is not" };
                        self.cluster.tell(|| format!("n{id} {shown} the last that can give a snapshot"));
                    }
                }
            }
            _ => return Err(format!("no such command: {name}").into()),
        }
        args.reject_next()
    }

    fn cluster(&mut self, args: &mut ArgumentConsumer) -> Executed {
        let voters: u64 = number(args, "voters")?.unwrap_or(3);
        let learners: u64 = number(args, "learners")?.unwrap_or(0);
        self.settings(args)?;
        let voters: Vec<_> = (1..=voters).collect();
        let learners: Vec<_> = (1..=learners).map(|id| id + voters.len() as u64).collect();
        self.cluster.add_members(&voters, &learners);
        Ok(())
    }

    fn settings(&mut self, args: &mut ArgumentConsumer) -> Executed {
        let settings = &mut self.cluster.template;
        let of = |args: &mut ArgumentConsumer, key, value: &mut usize| -> Executed {
            *value = number(args, key)?.unwrap_or(*value);
            Ok(())
        };
        of(args, "append_bytes", &mut settings.append_bytes_max)?;
        of(args, "window_messages", &mut settings.window_messages_max)?;
        of(args, "window_bytes", &mut settings.window_bytes_max)?;
        of(args, "write_bytes", &mut settings.write_bytes_max)?;
        of(args, "uncommitted_bytes", &mut settings.uncommitted_bytes_max)?;
        of(args, "retained_bytes", &mut settings.retained_bytes_max)?;
        settings.seed = number(args, "seed")?.unwrap_or(settings.seed);
        settings.election_ticks = number(args, "election")?.unwrap_or(settings.election_ticks);
        settings.stall_pause_ticks = number(args, "stall_pause")?.unwrap_or(settings.stall_pause_ticks);
        Ok(())
    }

    /// A blank node, or one whose log holds the configuration and behind it entries of these terms.
    fn node(&mut self, args: &mut ArgumentConsumer) -> Executed {
        self.settings(args)?;
        let id = node(args)?;
        let Some(voters) = args.take_key("voters") else {
            self.cluster.add(id, Disk::default());
            return Ok(());
        };
        let voters = list(voters)?;
        let log = args.take_key("log").unwrap_or_default();
        let members = Payload::Config(configuration(&voters, &[]).into());
        let mut entries = vec![Entry { index: Index(1), term: Term(1), payload: members }];
        for (term, index) in list(log)?.into_iter().zip(2..) {
            let payload = command(&format!("c{index}"), 0);
            entries.push(Entry { index: Index(index), term: Term(term), payload });
        }
        let last = entries.last().expect("entry 1 at least").term;
        let term = number(args, "term")?.map_or(last, Term);
        let vote = number(args, "vote")?.map(NodeId);
        self.cluster.add(id, Disk::with(HardState { term, vote }, entries));
        Ok(())
    }

    fn run_until(&mut self, args: &mut ArgumentConsumer) -> Executed {
        if let Some(ticks) = number(args, "ticks")? {
            for _ in 0..ticks {
                self.cluster.run_tick();
            }
            return Ok(());
        }
        let until = args.take_key("until").ok_or("ticks=? or until=?")?;
        let limit = PATIENCE_TIMEOUTS * self.cluster.template.election_ticks;
        for ticks in 0..limit {
            let leaders = self.cluster.leaders();
            let reached = match until {
                "leader" => leaders.len() == 1,
                "no-leader" => leaders.is_empty(),
                "agreement" => leaders.len() == 1 && self.agree(leaders[0]),
                _ => return Err(format!("until {until}?").into()),
            };
            if reached {
                self.cluster.tell(|| format!("{until} after {}", count(ticks as usize, "tick")));
                return Ok(());
            }
            self.cluster.run_tick();
        }
        Err(format!("no {until} within {limit} ticks").into())
    }

    /// All live nodes have committed everything that the leader has.
    fn agree(&self, leader: NodeId) -> bool {
        let last = self.cluster.raft(leader).expect("it leads").last_index();
        let configuration = self.cluster.raft(leader).expect("it leads").configuration().peers();
        let mut members = self.cluster.live().into_iter().filter(|id| configuration.contains(id));
        members.all(|id| {
            let raft = self.cluster.raft(id).expect("it is live");
            raft.commit() == last && raft.last_index() == last
        })
    }

    fn deliver(&mut self, args: &mut ArgumentConsumer) -> Executed {
        let among: BTreeSet<_> = std::iter::from_fn(|| args.next_pos())
            .map(|id| id.parse().map(NodeId))
            .collect::<Result<_, _>>()?;
        let filter = filter(args)?;
        if filter.is_empty() {
            self.cluster.deliver(|id| among.is_empty() || among.contains(&id));
        } else {
            for envelope in self.take(&filter) {
                self.cluster.receive(envelope);
            }
        }
        Ok(())
    }

    fn take(&mut self, filter: &Filter) -> Vec<Envelope> {
        let mut taken = Vec::new();
        for ((from, to), queue) in &mut self.cluster.links {
            if filter.from.is_some_and(|id| id != *from) || filter.to.is_some_and(|id| id != *to) {
                continue;
            }
            for envelope in std::mem::take(queue) {
                let wanted = filter.kind.as_ref().is_none_or(|kind| kind == show::kind(&envelope.message))
                    && filter.count.is_none_or(|count| taken.len() < count);
                if wanted {
                    taken.push(envelope);
                } else {
                    queue.push_back(envelope);
                }
            }
        }
        taken
    }

    /// `part 1/2 3/4/5`: messages pass only inside each group.
    fn part(&mut self, args: &mut ArgumentConsumer) -> Executed {
        let groups = std::iter::from_fn(|| args.next_pos()).map(list).collect::<Result<Vec<_>, _>>()?;
        for a in self.all() {
            for b in self.all() {
                if !groups.iter().any(|group| group.contains(&a.0) && group.contains(&b.0)) {
                    self.cluster.cut(a, b);
                }
            }
        }
        Ok(())
    }

    /// The leader was silent for an election timeout, as these nodes see it. What they would say is lost.
    fn forget(&mut self, ids: &[NodeId]) {
        let story = self.cluster.story.take();
        let links = self.cluster.links.clone();
        for id in ids {
            let leads = self.cluster.raft(*id).is_none_or(|raft| raft.is_leader());
            for _ in 0..if leads { 0 } else { self.cluster.template.election_ticks } {
                self.cluster.tick(*id);
            }
        }
        self.cluster.links = links;
        self.cluster.story = story;
    }

    /// Lets time pass for one node until it asks for pre-votes.
    fn campaign(&mut self, id: NodeId) {
        for _ in 0..2 * self.cluster.template.election_ticks {
            self.cluster.tick(id);
            if self.cluster.raft(id).is_none_or(|raft| raft.role_state().role != RoleKind::Follower) {
                return;
            }
        }
    }

    fn propose(&mut self, args: &mut ArgumentConsumer) -> Executed {
        let times: usize = number(args, "count")?.unwrap_or(1);
        let bytes = number(args, "bytes")?.unwrap_or(0);
        let id = node(args)?;
        let name = args.next_pos().ok_or("what?")?.to_owned();
        for _ in 0..times {
            let answer = self.cluster.call(id, |raft| raft.propose(command(&name, bytes)));
            match answer.ok_or("that node is down")? {
                Ok((term, index)) => self.cluster.tell(|| format!("n{id} puts {name} at {index}@{term}")),
                Err(refused) => self.cluster.tell(|| format!("n{id} refuses {name}: {refused}")),
            }
        }
        Ok(())
    }

    fn change(&mut self, args: &mut ArgumentConsumer) -> Executed {
        let mut change = MemberChange::default();
        for (key, kind) in [("voters", MemberKind::Voter), ("learners", MemberKind::Learner)] {
            for id in list(args.take_key(key).unwrap_or_default())? {
                change
                    .set
                    .insert(NodeId(id), Member { name: format!("n{id}"), address: String::new(), kind });
            }
        }
        change.remove = list(args.take_key("remove").unwrap_or_default())?.into_iter().map(NodeId).collect();
        change.force = args.take_key("force") == Some("yes");
        let id = node(args)?;
        let answer = self.cluster.call(id, |raft| {
            raft.change_members(change).map(|(term, index)| {
                let members = raft.configuration_at(index).expect("it was just appended");
                format!("n{id} puts {} at {index}@{term}", show::configuration(members))
            })
        });
        match answer.ok_or("that node is down")? {
            Ok(told) => self.cluster.tell(|| told),
            Err(refused) => self.refusal(id, Some(refused.to_string())),
        }
        Ok(())
    }

    /// `compact 1 to=5 [snapshot=7] [told=no]`
    fn compact(&mut self, args: &mut ArgumentConsumer) -> Executed {
        let to = Index(number(args, "to")?.ok_or("to=?")?);
        let snapshot = number(args, "snapshot")?.map_or(to, Index);
        let told = args.take_key("told") != Some("no");
        self.for_nodes(args, |cluster, id| cluster.compact(id, to, snapshot, told))
    }

    fn refusal(&mut self, id: NodeId, refused: Option<String>) {
        if let Some(refused) = refused {
            self.cluster.tell(|| format!("n{id} refuses: {refused}"));
        }
    }

    fn status(&mut self, args: &mut ArgumentConsumer) -> Executed {
        for id in self.nodes_or_all(args)? {
            let Some(raft) = self.cluster.raft(id) else {
                self.cluster.tell(|| format!("n{id} is down"));
                continue;
            };
            let status = raft.status();
            let role = match status.role.role {
                RoleKind::Follower => {
                    status.role.leader.map_or("alone".to_owned(), |to| format!("follows n{to}"))
                }
                RoleKind::PreCandidate => "pre-candidate".to_owned(),
                RoleKind::Candidate => "candidate".to_owned(),
                RoleKind::Leader => "leads".to_owned(),
            };
            let mut line = format!("n{id} {role}, term {}, log ends at {}", status.role.term, status.last);
            let last_term = raft.term_at(status.last).expect("the end of the log");
            write!(line, "@{last_term}, durable {}, commit {}", status.durable, status.commit)?;
            if status.start > Index(0) {
                let start_term = raft.term_at(status.start).expect("the beginning of the log");
                write!(line, ", begins behind {}@{start_term}", status.start)?;
            }
            if status.transferring {
                line += ", handing over";
            }
            if status.uncommitted_bytes > 0 {
                write!(line, ", {} bytes uncommitted", status.uncommitted_bytes)?;
            }
            self.cluster.tell(|| line);
        }
        Ok(())
    }

    fn log(&mut self, args: &mut ArgumentConsumer) -> Executed {
        for id in self.nodes_or_all(args)? {
            let disk = &self.cluster.disks[&id];
            let line = match self.cluster.raft(id) {
                Some(raft) => {
                    let entries = (raft.start().0.0 + 1..=raft.last_index().0).map(Index).map(|index| {
                        raft.entry(index).or_else(|| disk.entry(index)).expect("in memory or on disk")
                    });
                    format!("n{id} {}", show::log(entries))
                }
                None => format!("n{id} (down) {}", show::log(disk.entries())),
            };
            self.cluster.tell(|| line);
        }
        Ok(())
    }

    fn peers(&mut self, args: &mut ArgumentConsumer) -> Executed {
        let id = node(args)?;
        let raft = self.cluster.raft(id).ok_or("that node is down")?;
        for peer in raft.status().peers {
            let state = match peer.state {
                ProgressState::Probe => "probe",
                ProgressState::Replicate => "replicate",
                ProgressState::Snapshot => "snapshot",
            };
            let active = if peer.active { "" } else { ", silent" };
            let stalled = if peer.disk_stalled { ", disk stalled" } else { "" };
            let replaying = if peer.replaying { ", replaying" } else { "" };
            let incomplete = if peer.incomplete { ", incomplete" } else { "" };
            let condition = format!("{state}{active}{stalled}{replaying}{incomplete}");
            self.cluster.tell(|| format!("n{} matched {}, {condition}", peer.id, peer.matched));
        }
        Ok(())
    }

    fn for_nodes(&mut self, args: &mut ArgumentConsumer, act: impl Fn(&mut Cluster, NodeId)) -> Executed {
        for id in nodes(args)? {
            act(&mut self.cluster, id);
        }
        Ok(())
    }

    fn all(&self) -> Vec<NodeId> {
        self.cluster.nodes.keys().copied().collect()
    }

    fn nodes_or_all(&self, args: &mut ArgumentConsumer) -> Result<Vec<NodeId>, Box<dyn Error>> {
        let named = std::iter::from_fn(|| args.next_pos())
            .map(|id| Ok(NodeId(id.parse()?)))
            .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        Ok(if named.is_empty() { self.all() } else { named })
    }
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.from.is_none() && self.to.is_none() && self.kind.is_none() && self.count.is_none()
    }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Result<String, Box<dyn Error>> {
        let messages = context.tags.contains("messages");
        self.execute(&command.name, &mut command.consume_args(), messages)?;
        let mut told = String::new();
        for line in self.cluster.story.as_mut().expect("scripts listen").drain(..) {
            writeln!(told, "{line}")?;
        }
        Ok(told)
    }
}

fn filter(args: &mut ArgumentConsumer) -> Result<Filter, Box<dyn Error>> {
    Ok(Filter {
        from: number(args, "from")?.map(NodeId),
        to: number(args, "to")?.map(NodeId),
        kind: args.take_key("kind").map(str::to_owned),
        count: number(args, "count")?,
    })
}

fn number<T: std::str::FromStr>(args: &mut ArgumentConsumer, key: &str) -> Result<Option<T>, Box<dyn Error>>
where
    T::Err: Error + 'static,
{
    Ok(args.take_key(key).map(str::parse).transpose()?)
}

fn node(args: &mut ArgumentConsumer) -> Result<NodeId, Box<dyn Error>> {
    Ok(NodeId(args.next_pos().ok_or("which node?")?.parse()?))
}

fn nodes(args: &mut ArgumentConsumer) -> Result<Vec<NodeId>, Box<dyn Error>> {
    let mut ids = vec![node(args)?];
    while let Some(id) = args.next_pos() {
        ids.push(NodeId(id.parse()?));
    }
    Ok(ids)
}

fn list(ids: &str) -> Result<Vec<u64>, Box<dyn Error>> {
    Ok(ids.split('/').filter(|id| !id.is_empty()).map(str::parse).collect::<Result<_, _>>()?)
}

fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
