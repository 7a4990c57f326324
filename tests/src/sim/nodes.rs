//! One node: the real replica, log and bodies over a fake disk, and the shell around them, acted out.
//!
//! As in the shell, everything that comes in waits in an inbox for the node's next turn. A turn handles all of it and
//! performs the actions once. `disks` has what it does with its disk, `crashes` how it dies, `starting` how it comes
//! back.

use super::Violation;
use super::checker::{Checker, Seen};
use super::coverage::{Coverage, Rare};
use super::digest::{Durable, Trail};
use super::footprint::Looks;
use super::keeping::Keeping;
use super::network::Packet;
use super::plan::{ELECTION_TICKS, MS, Micros, Plan, TICK};
use super::random::{Random, chain};
use super::upgrades::{NEW_VERSION, OLD_VERSION};
use super::world::{Event, World};
use raftqueue_node::api::codec;
use raftqueue_node::api::{ClusterInfo, Failure, Response};
use raftqueue_node::driver::bodies::{Bodies, Due, Located};
use raftqueue_node::driver::keeper::Keeper;
use raftqueue_node::driver::mending::Mender;
use raftqueue_node::replica::{
    self, Actions, AppliedEntry, CallId, DueBlock, Lookup, Now, Outstanding, Replica, Settings,
};
use raftqueue_queue::{Dropped, TopicId};
use raftqueue_raft::{
    self as raft, AppendOutcome, Configuration, Envelope, HardState, Index, LoadRequest, Member, MemberKind,
    Message, NodeId, Payload, Raft, RoleKind, Write,
};
use raftqueue_wal::disk::fake::FakeDisk;
use raftqueue_wal::{DataDir, Reader, SnapshotFile, Wal};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most steps of the greatest thing that a client here asks for, or an entry says.
const ONE_THING_MAX: u64 = 200;

/// Where log time begins.
pub(super) const EPOCH_MS: u64 = 1_700_000_000_000;

/// A read of the disk.
#[derive(Debug)]
pub(super) enum Job {
    Load(LoadRequest),
    LoadToApply(Index, Index),
    LookUp(Lookup),
    Bodies { call: CallId, located: Located, bytes_max: usize },
    Due { due: Due, now_ms: u64 },
}

pub(super) struct Node {
    pub(super) number: usize,
    pub(super) id: NodeId,
    pub(super) disk: FakeDisk,
    /// Rises with every start.
    pub(super) boot: u32,
    pub(super) running: Option<Box<Running>>,
    pub(super) paused_until: Option<Micros>,
    /// When it last went on after a pause.
    pub(super) resumed: Micros,
    /// Its next write takes very long.
    pub(super) stalls_next: bool,
    /// Its next write never comes back.
    pub(super) hangs_next: bool,
    pub(super) clockwork: Clockwork,
    /// Its own disk, while another is mounted in its place.
    pub(super) shelf: Option<FakeDisk>,
    /// What was acknowledged of this disk does not verify any more in some place.
    pub(super) is_damaged: bool,
    /// So it was in the end, before what could be mended was.
    pub(super) was_damaged: bool,
    /// Its disk refuses calls, in this life of the process.
    pub(super) is_failing: bool,
    /// Its disk was full, or nearly, since faults began.
    pub(super) was_tight: bool,
    /// Why it does not come back: it refuses its disk, and somebody must look.
    pub(super) out: Option<&'static str>,
    /// It lost what it promised, and waits until all others were heard.
    pub(super) is_asking: bool,
    /// Those that it waits for.
    pub(super) awaited: Vec<NodeId>,
    /// What it may go on with after that, until it runs.
    pub(super) renewed: Option<HardState>,
    /// An older state of its disk.
    pub(super) backup: Option<(FakeDisk, Durable)>,
    /// The newest version that its binary knows.
    pub(super) version_max: u32,
    /// What the disk may hold instead, if the write that a crash hit went through, or a part of it.
    pub(super) maybe: Vec<Durable>,
    pub(super) random: Random,
}

/// A living process.
pub(super) struct Running {
    pub(super) replica: Replica,
    pub(super) wal: Wal,
    pub(super) reader: Reader,
    pub(super) bodies: Bodies,
    /// Absent only while it works.
    pub(super) keeper: Option<Keeper>,
    /// Messages may be lacking.
    pub(super) is_incomplete: bool,
    /// Messages were met that cannot be read here, and are got from others.
    pub(super) has_lost: bool,
    /// Messages that are lacking here, and that no member has.
    pub(super) lost: u64,
    /// The index of the last snapshot of another node that the log went over to.
    pub(super) went_over_at: Index,
    /// It began without a state, and has none yet.
    pub(super) was_stateless: bool,
    /// A snapshot of another node is being fetched.
    pub(super) is_fetching: bool,
    /// A snapshot of another node, aside, until the protocol has judged it.
    pub(super) arrived: Option<SnapshotFile>,
    /// One that the protocol has taken, until the write that goes over to it.
    pub(super) taken: Option<SnapshotFile>,
    /// Mends the log.
    pub(super) mender: Mender,
    /// The log is to be mended, soon.
    pub(super) is_mending_due: bool,
    /// The replica was told that the log is damaged.
    pub(super) is_told_damaged: bool,
    /// What the keeper does now.
    pub(super) keeping: Option<Keeping>,
    /// Pieces of the keeper's rounds so far.
    pub(super) round: u64,
    /// Keeps the directory locked.
    pub(super) _directory: DataDir,
    pub(super) inbox: VecDeque<replica::Event>,
    /// What the actions of this turn answer without waiting.
    pub(super) at_once: Vec<replica::Event>,
    pub(super) is_turn_due: bool,
    /// So many more turns with packets, and a fault comes; 0 for none.
    pub(super) strike_in: u64,
    /// This turn handles packets.
    pub(super) has_packets: bool,
    pub(super) write: Option<Write>,
    /// The log's thread does nothing new before this moment.
    pub(super) busy_until: Micros,
    pub(super) writes: u64,
    /// When the write that is out comes back.
    pub(super) write_ends: Micros,
    pub(super) is_stalled: bool,
    /// The disk is full, and the replica was told so.
    pub(super) is_full: bool,
    /// The free bytes that the replica was told last.
    pub(super) free_bytes: u64,
    /// The upkeep after the last write is done.
    pub(super) is_kept_up: bool,
    /// Everything before this segment and offset is proven: damage there is rot.
    pub(super) proven: (u64, u64),
    /// The node's own clock when the process began.
    pub(super) started: Micros,
    /// The log as the last write leaves it.
    pub(super) logged: Trail,
    pub(super) seen: Seen,
    pub(super) looks: Looks,
}

impl Running {
    /// Messages are lacking here that another member may have.
    pub(super) fn lacks(&self) -> bool {
        (self.is_incomplete || self.has_lost) && self.lost == 0
    }
}

impl Node {
    pub(super) fn new(number: usize, id: NodeId, plan: &Plan, random: &mut Random) -> Self {
        let skew = random.between(0, 2 * plan.skew_ms);
        Self {
            number,
            id,
            disk: FakeDisk::new(random.bits()),
            boot: 0,
            running: None,
            paused_until: None,
            resumed: 0,
            stalls_next: false,
            hangs_next: false,
            clockwork: Clockwork::new(
                i64::try_from(skew).expect("small") - i64::try_from(plan.skew_ms).expect("small"),
            ),
            shelf: None,
            is_damaged: false,
            was_damaged: false,
            is_failing: false,
            was_tight: false,
            out: None,
            backup: None,
            version_max: OLD_VERSION,
            maybe: Vec::new(),
            is_asking: false,
            awaited: Vec::new(),
            renewed: None,
            random: random.fork(),
        }
    }

    pub(super) fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    pub(super) fn format(&mut self) {
        let mut directory =
            DataDir::open(Arc::new(self.disk.clone()), None).expect("a blank disk can be opened");
        directory.format(self.id, &self.name()).expect("a blank disk can be formatted");
    }

    pub(super) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn lives(&self, boot: u32) -> bool {
        self.running.is_some() && self.boot == boot
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// A fault comes in the midst of the `turns`-th turn from now that handles a packet.
    pub(super) fn strike_in(&mut self, turns: u64) {
        self.running().strike_in = turns;
    }

    /// True once the turn has come that was named by [`Node::strike_in`].
    fn is_struck(&mut self) -> bool {
        let running = self.running();
        let is_struck = running.strike_in == 1 && running.has_packets;
        if running.has_packets {
            running.strike_in = running.strike_in.saturating_sub(1);
        }
        is_struck
    }

    pub(super) fn has_write_out(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.write.is_some())
    }

    pub(super) fn raft(&self) -> Option<&Raft> {
        self.running.as_ref().map(|running| running.replica.raft())
    }

    pub(super) fn replica(&self) -> Option<&Replica> {
        self.running.as_ref().map(|running| &running.replica)
    }

    /// Nothing is under way, and nothing is held in memory that need not be.
    pub(super) fn is_idle(&self, plan: &Plan) -> bool {
        let Some(running) = &self.running else { return false };
        let held = running.bodies.held();
        running.write.is_none()
            && running.replica.outstanding() == Outstanding::default()
            && held.pinned_bytes == 0
            && held.bytes <= plan.cache_bytes
            && running.keeping.is_none()
            && running.replica.view().raft.window_bytes <= plan.retained_bytes
    }

    pub(super) fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("asked of a node that runs")
    }

    pub(super) fn mono_ms(&self, now: Micros) -> u64 {
        self.clocks(now).mono_ms
    }

    /// The node's clocks at a true moment.
    fn clocks(&self, now: Micros) -> Now {
        let started = self.running.as_ref().map_or(0, |running| running.started);
        let own = self.clockwork.own(now);
        let wall = i128::from(EPOCH_MS + own / MS) + i128::from(self.clockwork.skew_ms);
        Now { mono_ms: (own - started) / MS + 1_000, wall_ms: u64::try_from(wall.max(0)).expect("small") }
    }
}

/// The shell of one node, while it carries out what applying led to.
struct Shell<'a> {
    world: &'a mut World,
    node: usize,
    /// What the oracle said of the replies, up to the first that it objects to.
    judged: Result<(), Violation>,
}

impl replica::Shell for Shell<'_> {
    fn applied(&mut self, entry: AppliedEntry) {
        let running = self.world.nodes[self.node].running();
        running.bodies.applied(entry, running.replica.raft().durable_index());
    }

    fn reply(&mut self, call: CallId, result: Result<Response, Failure>) {
        if self.judged.is_ok() {
            self.judged = self.world.reply(self.node, call, result);
        }
    }

    fn confirmed(&mut self, call: CallId) {
        self.reply(call, Ok(Response::Cluster(ClusterInfo::default())));
    }

    fn deleted(&mut self, topic: TopicId) {
        drop(self.world.nodes[self.node].running().bodies.forget(topic));
    }

    fn look_again(&mut self, block: DueBlock, when_ms: u64) {
        self.world.nodes[self.node].running().bodies.look_again(&block, when_ms);
    }

    fn dropped(&mut self, _: Dropped) {}
}

/// The clocks of a machine: they may run fast or slow, and the one on the wall may jump.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clockwork {
    /// The wall clock minus the machine's own time.
    pub(super) skew_ms: i64,
    /// Parts per million by which it is fast.
    rate_ppm: i64,
    /// A true moment, and the machine's own time then.
    anchor: (Micros, Micros),
}

impl Clockwork {
    fn new(skew_ms: i64) -> Self {
        Self { skew_ms, rate_ppm: 0, anchor: (0, 0) }
    }

    /// The machine's own time.
    pub(super) fn own(&self, now: Micros) -> Micros {
        let (at, own) = self.anchor;
        let passed = i128::from(now - at) * i128::from(1_000_000 + self.rate_ppm) / 1_000_000;
        own + u64::try_from(passed).expect("no clock runs backwards")
    }

    /// From now on it runs so fast.
    pub(super) fn set_rate(&mut self, now: Micros, rate_ppm: i64) {
        self.anchor = (now, self.own(now));
        self.rate_ppm = rate_ppm;
    }

    /// The true length of a tick.
    pub(super) fn tick(&self) -> Micros {
        let length = i128::from(TICK) * 1_000_000 / i128::from(1_000_000 + self.rate_ppm);
        u64::try_from(length).expect("no clock runs backwards")
    }
}

pub(super) fn settings(id: NodeId, plan: &Plan, seed: u64) -> Settings {
    let mut settings = Settings::new(raft::Settings {
        election_ticks: ELECTION_TICKS,
        append_bytes_max: plan.append_bytes,
        window_messages_max: plan.window_messages,
        write_bytes_max: plan.write_bytes,
        retained_bytes_max: plan.retained_bytes,
        stall_pause_ticks: 300,
        ..raft::Settings::new(id, seed)
    });
    settings.entry_bytes_target = plan.entry_bytes;
    settings.entries_in_flight_max = plan.entries_in_flight;
    settings.reserve_bytes = plan.reserve_bytes;
    settings.turn_steps = plan.turn_steps;
    settings.snapshots = plan.snapshots;
    settings
}

impl World {
    /// Node 0 forms the cluster, and does so again if it has died too early; the others wait for it.
    pub(super) fn form(&mut self) {
        let members = self.nodes[..self.plan.ids.len()].iter().map(|node| {
            (node.id, Member { name: node.name(), address: node.name(), kind: MemberKind::Voter })
        });
        let configuration =
            Configuration { members: members.collect(), version: 1, ..Configuration::default() };
        self.nodes[0].running().replica.form(configuration);
    }

    /// Puts an event into a node's inbox.
    pub(super) fn hand(&mut self, node: usize, event: replica::Event) {
        let delay = self.plan.turn_delay / 4 + self.random.waiting(self.plan.turn_delay);
        let at = &mut self.nodes[node];
        let (boot, is_paused) = (at.boot, at.is_paused());
        let Some(running) = &mut at.running else { return };
        running.inbox.push_back(event);
        if !running.is_turn_due && !is_paused {
            running.is_turn_due = true;
            self.schedule.add(self.now + delay, Event::Turn { node, boot });
        }
    }

    pub(super) fn tick(&mut self, node: usize) {
        if !self.nodes[node].is_paused() {
            self.hand(node, replica::Event::Tick);
        }
    }

    /// A process that stood still goes on.
    pub(super) fn resume(&mut self, node: usize) {
        let now = self.now;
        let at = &mut self.nodes[node];
        if at.paused_until.is_none_or(|until| until > now) {
            return;
        }
        at.paused_until = None;
        at.resumed = now;
        self.trace.note(now, &[3, node as u64], || format!("node {node} goes on"));
        self.hand(node, replica::Event::Tick);
    }

    pub(super) fn arrive(&mut self, mut packet: Packet) {
        let (from, to) = (&self.nodes[packet.from], &self.nodes[packet.to]);
        // A node that has started again said hello on a new connection.
        let is_old = from.is_up() && from.boot != packet.boots.0 || !to.lives(packet.boots.1);
        let to = packet.to;
        if is_old {
            return;
        }
        if let Some(delay) = self.network.delay_late(&mut packet) {
            return self.schedule.add(self.now + delay, Event::Arrive(Box::new(packet)));
        }
        if self.network.stands(&packet) {
            self.hand(to, replica::Event::Arrived(packet.envelope, Some(packet.vitals)));
        }
    }

    /// The node turns to what came in.
    pub(super) fn turn(&mut self, node: usize) -> Result<(), Violation> {
        let now = self.nodes[node].clocks(self.now);
        self.run_binary(node);
        let at = &mut self.nodes[node];
        let is_paused = at.is_paused();
        let running = at.running();
        running.is_turn_due = false;
        running.has_packets = running.inbox.iter().any(|e| matches!(e, replica::Event::Arrived(..)));
        if is_paused {
            return Ok(());
        }
        running.replica.begin_turn();
        while running.replica.takes_more()
            && let Some(event) = running.inbox.pop_front()
        {
            self.summary.events += 1;
            let is_receipt = matches!(event, replica::Event::Persisted(_));
            running.replica.handle(now, event);
            if is_receipt {
                running.bodies.durable(running.replica.raft().durable_index());
            }
        }
        loop {
            let actions = self.nodes[node].running().replica.take_actions();
            self.perform(node, actions)?;
            let Some(running) = &mut self.nodes[node].running else { return Ok(()) };
            if running.at_once.is_empty() {
                return self.end_turn(node);
            }
            for event in std::mem::take(&mut running.at_once) {
                running.replica.handle(now, event);
            }
        }
    }

    /// A turn costs no time here, so its steps are counted. What it left is done in the next turn.
    fn end_turn(&mut self, node: usize) -> Result<(), Violation> {
        let boot = self.nodes[node].boot;
        let running = self.nodes[node].running();
        let (steps, excess) = (running.replica.turn_steps(), running.replica.turn_excess(ONE_THING_MAX));
        let has_rest = running.replica.is_unfinished() || !running.inbox.is_empty();
        if has_rest && !running.is_turn_due {
            running.is_turn_due = true;
            self.schedule.add(self.now + self.plan.turn_delay, Event::Turn { node, boot });
        }
        self.coverage.rare_if(has_rest, Rare::TurnCut);
        self.summary.turn_steps_max = self.summary.turn_steps_max.max(steps);
        Violation::unless(excess.is_none(), || {
            format!("a turn of node {node} is too long: {}", excess.expect("just seen"))
        })
    }

    fn perform(&mut self, node: usize, actions: Actions) -> Result<(), Violation> {
        let Actions {
            write,
            send,
            load,
            load_to_apply,
            lookups,
            look_for_due,
            freeze,
            install,
            is_arrival_judged,
            installed,
            left: _,
            results,
            role,
            alarms,
            fatal,
        } = actions;
        Violation::unless(alarms.is_empty() && fatal.is_none(), || {
            format!("node {node} raises {alarms:?} and stops with {fatal:?}")
        })?;
        let at = &mut self.nodes[node];
        let running = at.running.as_mut().expect("it has just turned");
        let raft = running.replica.raft();
        let news = self.checker.after_turn(raft, &mut running.seen, &self.disks)?;
        let mut configurations = Vec::new();
        for entry in news {
            codec::fake_version_max(NEW_VERSION);
            self.oracle.commit(&entry)?;
            configurations.extend(matches!(entry.payload, Payload::Config(_)).then(|| entry.clone()));
            self.trace.note(self.now, &[4, entry.index.0, entry.term.0], || {
                format!("node {node} commits {} of term {}", entry.index, entry.term)
            });
        }
        codec::fake_version_max(at.version_max);
        let has_won = role.is_some() && raft.is_leader();
        let was = running.seen.role;
        if let Some(role) = role {
            if has_won {
                self.checker.check_complete(raft)?;
            }
            let before = running.seen.role.replace((role.role, role.term));
            let gives_up = |kind| role.role == RoleKind::Follower && before == Some((kind, role.term));
            self.coverage.rare_if(gives_up(RoleKind::Leader), Rare::StepDownUnheard);
            self.coverage.rare_if(
                before.is_some_and(|(kind, term)| kind == RoleKind::Candidate && term < role.term),
                Rare::TermWithoutLeader,
            );
            self.trace.note(self.now, &[5, node as u64, role.term.0], || {
                format!("node {node} is {:?} in term {}", role.role, role.term)
            });
        }
        let (is_stalled, is_full) = (running.is_stalled, running.free_bytes < self.plan.reserve_bytes);
        for (envelope, _) in &send {
            self.checker.check_promise(raft, &self.disks[&at.id], envelope)?;
            Checker::check_campaign(was, envelope)?;
            Self::cover_message(&mut self.coverage, &envelope.message, is_stalled, is_full);
        }
        configurations.iter().try_for_each(|entry| self.commit_configuration(entry))?;
        if has_won {
            self.leader_won(node);
        }
        if self.nodes[node].is_struck() && self.is_working() {
            self.strike(node)?;
            if !self.nodes[node].is_up() {
                return Ok(());
            }
        }
        if installed.is_some() {
            self.go_over(node);
        } else if is_arrival_judged {
            self.arrival_refused(node);
        }
        self.check_applied(node)?;
        if let Some(install) = install {
            self.fetch_later(node, &install);
        }
        if let Some(write) = write {
            self.begin_write(node, write)?;
        }
        for (envelope, vitals) in send {
            self.send(node, envelope, vitals);
        }
        for request in load {
            self.coverage.rare(Rare::LoadForPeer);
            self.read_later(node, Job::Load(request));
        }
        if let Some((first, last)) = load_to_apply {
            self.coverage.rare(Rare::LoadToApply);
            self.read_later(node, Job::LoadToApply(first, last));
        }
        let mut shell = Shell { world: self, node, judged: Ok(()) };
        results.carry_out(&mut shell);
        shell.judged?;
        if let Some(freeze) = freeze {
            self.begin_keeping(node, freeze);
        }
        if let Some((now_ms, max)) = look_for_due {
            self.look_for_due(node, now_ms, max);
        }
        for lookup in lookups {
            self.look_up(node, lookup);
        }
        Ok(())
    }

    fn cover_message(coverage: &mut Coverage, message: &Message, is_stalled: bool, is_full: bool) {
        match message {
            Message::PreVoteReply { granted: false } => coverage.rare(Rare::PreVoteRefused),
            Message::VoteReply { granted: false } => coverage.rare(Rare::VoteRefused),
            Message::AppendReply { outcome: AppendOutcome::Rejected { .. }, .. } => {
                coverage.rare(Rare::AppendRejected);
            }
            Message::AppendReply { disk_stalled: true, .. }
            | Message::HeartbeatReply { disk_stalled: true, .. } => coverage.rare(Rare::StalledReply),
            Message::Append { entries, .. } if entries.is_empty() => coverage.rare(Rare::PeerAsked),
            Message::TimeoutNow => {
                coverage.rare(Rare::HandOver);
                coverage.rare_if(is_stalled, Rare::HandOverOnStall);
                coverage.rare_if(is_full, Rare::HandOverOnFullDisk);
            }
            _ => {}
        }
    }

    /// The queue of a node is the one of everybody who has applied as much.
    fn check_applied(&mut self, node: usize) -> Result<(), Violation> {
        let running = self.nodes[node].running.as_mut().expect("it has just turned");
        let applied = running.replica.applied();
        if applied == running.seen.applied {
            return Ok(());
        }
        Violation::unless(running.seen.applied < applied && applied <= self.oracle.committed(), || {
            format!("node {node} has applied {applied} after {}", running.seen.applied)
        })?;
        running.seen.applied = applied;
        if self.random.one_in(8) {
            self.compare_state(node)?;
        }
        Ok(())
    }

    pub(super) fn compare_state(&mut self, node: usize) -> Result<(), Violation> {
        let replica = self.nodes[node].replica().expect("asked of a node that runs");
        self.summary.state_checks += 1;
        Violation::unless(replica.version() == self.oracle.version_at(replica.applied()), || {
            format!("node {node} has version {} in force at {}", replica.version(), replica.applied())
        })?;
        Violation::unless(replica.state() == self.oracle.state_at(replica.applied()), || {
            format!("node {node} has another queue than it should at index {}", replica.applied())
        })
    }

    fn send(&mut self, node: usize, envelope: Envelope, vitals: replica::Vitals) {
        let Some(to) = self.nodes.iter().position(|other| other.id == envelope.to) else { return };
        if !self.nodes[to].is_up() {
            return;
        }
        let boots = (self.nodes[node].boot, self.nodes[to].boot);
        let (packet, arrivals) =
            self.network.send(self.now, &self.plan, (node, to), boots, (envelope, vitals));
        for arrival in arrivals {
            self.schedule.add(arrival, Event::Arrive(Box::new(packet.clone())));
        }
    }
}

/// A number for the story's hash.
pub(super) fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0, |hash, byte| chain(hash, u64::from(byte)))
}
