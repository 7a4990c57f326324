//! How a process starts on whatever its disk holds: it goes on from what was acknowledged, or it refuses and says why.
//! Nothing in between: no start may cut, change or invent anything that was acknowledged.

use super::Violation;
use super::checker::Seen;
use super::coverage::Rare;
use super::digest::Durable;
use super::footprint::Looks;
use super::nodes::{Running, settings};
use super::plan::SECOND;
use super::world::{Event, Phase, World};
use raftqueue_node::api::{MessageId, MessageRef};
use raftqueue_node::driver::bodies::Bodies;
use raftqueue_node::driver::keeper::{Keeper, KeeperSettings};
use raftqueue_node::driver::mending::Mender;
use raftqueue_node::driver::restoring::{self, ReadRefused, Restored};
use raftqueue_node::peers::promises::{Asking, Said, peers_of};
use raftqueue_node::replica::{self, Freeze, Replica, Settings};
use raftqueue_raft::{self as raft, HardState, Index, NodeId, Term};
use raftqueue_wal::disk::fake::{FakeDisk, Operation, Refusal};
use raftqueue_wal::{DataDir, FileId, Manifest, OpenError, Options, PageCache, ReadError, Wal};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Why a disk is not started from.
#[derive(Debug)]
pub(super) enum Refused {
    /// The log does not open.
    Open(OpenError),
    /// Neither copy of the hard state can be read: the node must be replaced.
    HardStateLost,
    /// The disk refuses to give a snapshot now.
    Snapshot(ReadRefused),
    /// No snapshot can be read, and nobody may be left who has the state.
    StateLost,
    /// The log opens, and not every entry can be read.
    Read(ReadError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Open(error) => error.fmt(f),
            Refused::HardStateLost => f.write_str("the hard state is lost"),
            Refused::Snapshot(error) => error.fmt(f),
            Refused::StateLost => f.write_str("no snapshot can be read"),
            Refused::Read(error) => error.fmt(f),
        }
    }
}

impl Refused {
    /// The disk refused a call, which says nothing about what it holds.
    fn is_io(&self) -> bool {
        matches!(
            self,
            Refused::Open(OpenError::Io { .. }) | Refused::Read(ReadError::Io { .. }) | Refused::Snapshot(_)
        )
    }

    /// What the disk holds is damaged, or not this node's.
    fn is_damage(&self) -> bool {
        match self {
            Refused::Open(error) => !matches!(error, OpenError::Io { .. } | OpenError::AnotherProcess),
            Refused::HardStateLost | Refused::StateLost => true,
            Refused::Snapshot(_) => false,
            Refused::Read(error) => matches!(error, ReadError::Rot(_)),
        }
    }

    fn is_foreign(&self) -> bool {
        matches!(self, Refused::Open(OpenError::OtherNode { .. }))
    }

    fn is_blank(&self) -> bool {
        matches!(self, Refused::Open(OpenError::NotFormatted))
    }
}

/// An opened log.
pub(super) struct Found {
    directory: DataDir,
    wal: Wal,
    recovered: raft::Recovered,
    manifest: Manifest,
    snapshot: Option<Freeze>,
    /// No snapshot can be read, and the log needs one.
    is_stateless: bool,
    /// Calls to read that this took.
    reads: u64,
    /// A batch was torn.
    is_cut: bool,
    /// Every file that the manifest names is there.
    is_undamaged: bool,
    /// Records of the log do not verify.
    has_holes: bool,
}

/// Whoever lost what it promised asks the others with this; says in which term it may go on.
type Ask<'a> = dyn Fn(Asking) -> Option<Term> + 'a;

/// Opens the log of a disk.
pub(super) fn open(disk: &FakeDisk, name: &str, options: Options) -> Result<Found, Refused> {
    open_asking(disk, name, options, &|_| None)
}

fn open_asking(disk: &FakeDisk, name: &str, options: Options, ask: &Ask<'_>) -> Result<Found, Refused> {
    let before = disk.calls_of(Operation::Read);
    let mut directory = DataDir::open(Arc::new(disk.clone()), Some(name)).map_err(Refused::Open)?;
    let (mut wal, found) = directory.open_log(options).map_err(Refused::Open)?;
    let hard_state = found.hard_state;
    let least = found.framed;
    let has_holes = !found.holes.is_empty();
    let (is_cut, is_undamaged) = (found.cut.is_some(), found.damaged_files.is_empty());
    let restored = restoring::restore(&*wal.disk(), &found).map_err(Refused::Snapshot)?;
    let Restored { freeze: snapshot, unusable, lost } = restored;
    unusable.into_iter().for_each(|number| wal.give_up_snapshot(number));
    let manifest = found.manifest.clone();
    let mut recovered = restoring::for_raft(hard_state.unwrap_or(least), found, snapshot.as_ref());
    if hard_state.is_none() {
        let own = directory.identity().expect("it is formatted").node_id;
        let known = recovered.configurations.last().filter(|(_, known)| !known.members.is_empty());
        // Who the others are went with the snapshots: nobody can be asked.
        let nobody = if lost.is_some() { Refused::StateLost } else { Refused::HardStateLost };
        let (_, configuration) = known.ok_or(nobody)?;
        let last = recovered.term_runs.last().map_or(recovered.start.1, |(_, term)| *term);
        let term =
            ask(Asking::new(own, configuration, least.term.max(last))).ok_or(Refused::HardStateLost)?;
        recovered.hard_state = HardState { term, vote: Some(own) };
        let renewed = wal.renew_hard_state(recovered.hard_state);
        renewed.map_err(|source| Refused::Open(OpenError::Io { operation: "write HARDSTATE", source }))?;
    }
    let reads = disk.calls_of(Operation::Read) - before;
    Ok(Found {
        directory,
        wal,
        recovered,
        manifest,
        snapshot,
        is_stateless: lost.is_some(),
        reads,
        is_cut,
        is_undamaged,
        has_holes,
    })
}

impl Found {
    /// What a node says of it when it says hello: its last index and its term.
    pub(super) fn shows(&self) -> (Index, Term) {
        (self.recovered.last_index, self.recovered.hard_state.term)
    }

    /// Every entry of it.
    fn entries(&self) -> Result<Vec<raft::Entry>, Refused> {
        let (start, last) = (self.recovered.start.0, self.recovered.last_index);
        if last == start {
            return Ok(Vec::new());
        }
        let (reader, mut all) = (self.wal.reader(), Vec::new());
        while all.last().map_or(start, |entry: &raft::Entry| entry.index) < last {
            let from = all.last().map_or(start, |entry: &raft::Entry| entry.index).next();
            all.extend(reader.entries(from, last.next(), u64::MAX).map_err(Refused::Read)?);
        }
        Ok(all)
    }
}

impl World {
    pub(super) fn options(&mut self, node: usize) -> Options {
        let entropy = self.nodes[node].random.bits();
        Options { segment_bytes: self.plan.segment_bytes, entropy, ..Options::default() }
    }

    /// What an opened log holds. One that is damaged in a place that a start does not look at is taken for the one of its
    /// length that it must be.
    fn content(
        &mut self,
        node: usize,
        found: &Found,
        entries: Result<Vec<raft::Entry>, Refused>,
    ) -> Result<Durable, Violation> {
        let hard_state = found.recovered.hard_state;
        let entries = match entries {
            Ok(entries) => entries,
            Err(refused) if refused.is_damage() && self.nodes[node].is_damaged => {
                return self.content_by_terms(node, &found.recovered);
            }
            Err(refused) => return Err(Violation(format!("node {node} cannot read its log: {refused}"))),
        };
        let (start, term) = found.recovered.start;
        let sure = &self.disks[&self.nodes[node].id].trail;
        // What was cut off with snapshots was committed: it is the same in whatever the disk may hold.
        let mut known = self.nodes[node].maybe.iter().map(|maybe| &maybe.trail).chain([sure]);
        let Some(mut trail) = known.find_map(|trail| trail.up_to(start, term)) else {
            return Err(Violation(format!("the log of node {node} begins behind {start} of term {term}")));
        };
        for entry in &entries {
            self.checker.append(&mut trail, entry)?;
        }
        Ok(Durable { hard_state, trail })
    }

    fn content_by_terms(&self, node: usize, recovered: &raft::Recovered) -> Result<Durable, Violation> {
        let hard_state: HardState = recovered.hard_state;
        let sure = &self.disks[&self.nodes[node].id];
        let mut known = self.nodes[node].maybe.iter().chain([sure]);
        let fitting = known.find(|durable| {
            durable.trail.last() == recovered.last_index
                && durable.trail.term_runs_behind(recovered.start.0) == recovered.term_runs
        });
        let trail = fitting.map(|durable| durable.trail.clone()).ok_or_else(|| {
            Violation(format!(
                "node {node} opens a damaged log to {} where {} was acknowledged",
                recovered.last_index,
                sure.trail.last()
            ))
        })?;
        Ok(Durable { hard_state, trail })
    }

    /// What was found must be what was acknowledged, with or without the write that a crash hit.
    fn check_found(&self, node: usize, found: &Durable) -> Result<(), Violation> {
        let sure = &self.disks[&self.nodes[node].id];
        let maybe = self.nodes[node].maybe.last().unwrap_or(sure);
        let mut known = self.nodes[node].maybe.iter().chain([sure]);
        let is_renewed = self.nodes[node].renewed == Some(found.hard_state);
        // A start that was cut off may have renewed it already.
        let is_first = known.clone().all(|known| known.hard_state != found.hard_state);
        if is_renewed && is_first {
            // It has promised nothing in this term, nor in a later one.
            Violation::unless(
                known.clone().all(|known| known.hard_state.term < found.hard_state.term),
                || {
                    format!(
                        "node {node} goes on with {:?}, and had promised {:?}",
                        found.hard_state, sure.hard_state
                    )
                },
            )?;
        }
        let is_known = known.clone().any(|known| known.trail == found.trail)
            && (is_renewed || known.any(|known| known.hard_state == found.hard_state));
        Violation::unless(is_known, || {
            format!(
                "node {node} finds {:?} and a log to {} after a crash; acknowledged were {:?} and {}, under way {:?} and {}",
                found.hard_state,
                found.trail.last(),
                sure.hard_state,
                sure.trail.last(),
                maybe.hard_state,
                maybe.trail.last()
            )
        })
    }

    /// Opens what the worst power cut would leave: from now on that is certain.
    pub(super) fn look_at_disk(&mut self, node: usize) -> Result<(), Violation> {
        if self.nodes[node].shelf.is_some() {
            return Ok(());
        }
        self.summary.disk_checks += 1;
        let options = self.options(node);
        let at = &self.nodes[node];
        let view = at.disk.durable_view();
        view.set_capacity(u64::MAX);
        let found = match open(&view, &at.name(), options) {
            Ok(found) => found,
            Err(refused) if at.is_damaged && refused.is_damage() => return Ok(()),
            Err(refused) => {
                return Err(Violation(format!("the disk of node {node} cannot be opened: {refused}")));
            }
        };
        let entries = found.entries();
        let found = self.content(node, &found, entries)?;
        self.check_found(node, &found)?;
        self.disks.insert(self.nodes[node].id, found);
        Ok(())
    }

    /// Starts a process on whatever its disk holds.
    pub(super) fn start(&mut self, node: usize) -> Result<(), Violation> {
        if self.nodes[node].out.is_some() {
            return Ok(());
        }
        self.nodes[node].is_failing = false;
        self.choose_binary(node);
        if self.is_working() && self.plan.has_faults() && !self.plan.left_out.is_all_at(self.now) {
            self.spoil_start(node);
        }
        self.spoil_ordered_start(node);
        let options = self.options(node);
        let at = &mut self.nodes[node];
        at.boot += 1;
        let (name, disk) = (at.name(), at.disk.clone());
        let renewed = Cell::new(None);
        let awaited = RefCell::new(Vec::new());
        let ask = |asking| {
            let asking = self.ask_for_promises(node, asking);
            awaited.replace(asking.left().map(|(id, _)| id).collect());
            asking.begins_in().inspect(|term| renewed.set(Some(*term)))
        };
        let found = open_asking(&disk, &name, options, &ask);
        let at = &mut self.nodes[node];
        at.is_asking = matches!(found, Err(Refused::HardStateLost));
        at.awaited = awaited.into_inner();
        if let Some(term) = renewed.get() {
            at.renewed = Some(HardState { term, vote: Some(at.id) });
        }
        let found = match found {
            // Beyond all bounds perhaps all have lost it.
            Ok(found) if found.is_stateless && self.plan.is_reckless => {
                return self.start_refused(node, &Refused::StateLost);
            }
            Ok(found) => found,
            Err(refused) => return self.start_refused(node, &refused),
        };
        Violation::unless(self.nodes[node].shelf.is_none(), || {
            format!("node {node} starts on a disk that is not its own")
        })?;
        let content = match found.entries() {
            // Only the simulator reads the whole log, so a call that fails here harms nobody.
            Err(refused) if refused.is_io() || disk.is_crashed() => {
                return self.start_refused(node, &refused);
            }
            entries => self.content(node, &found, entries)?,
        };
        self.check_found(node, &content)?;
        self.run(node, found, content)
    }

    /// Something may go wrong before the node has read its disk.
    fn spoil_start(&mut self, node: usize) {
        let disk = self.nodes[node].disk.clone();
        if self.random.one_in(12) {
            disk.crash_at_call(self.random.between(1, 40));
        } else if self.random.one_in(24) {
            self.nodes[node].is_failing = true;
            disk.inject(Refusal {
                operation: self.random.pick(&[
                    Operation::Read,
                    Operation::Write,
                    Operation::Sync,
                    Operation::Create,
                ]),
                file_prefix: String::new(),
                skip: self.random.below(12),
                count: 1,
                error: io::ErrorKind::Other,
            });
        }
    }

    fn start_refused(&mut self, node: usize, refused: &Refused) -> Result<(), Violation> {
        let at = &self.nodes[node];
        if at.disk.is_crashed() {
            return self.crash_starting(node);
        }
        if at.shelf.is_some() && refused.is_foreign() {
            // Nothing was changed on it, and nothing happens until somebody mounts the right one.
            self.coverage.rare(Rare::RefusedForeignDisk);
            self.trace
                .note(self.now, &[10, node as u64], || format!("node {node} refuses to start: {refused}"));
            return Ok(());
        }
        if at.is_damaged && at.is_asking && self.may_be_heard(node) {
            self.coverage.rare(Rare::PromisesAwaited);
            // The process that waits looks at its disk again as another one would.
            at.disk.clear_refusals();
            self.trace.note(self.now, &[63, node as u64], || {
                format!("node {node} waits for the others: {refused}")
            });
            self.restart_later(node);
            return Ok(());
        }
        let at = &self.nodes[node];
        if at.is_damaged && refused.is_damage() {
            let is_blank = refused.is_blank();
            self.coverage.rare(if is_blank { Rare::RefusedBlank } else { Rare::RefusedDamage });
            self.take_out(node, if is_blank { "its disk is blank" } else { "its disk is damaged" });
            self.trace.note(self.now, &[11, node as u64], || format!("node {node} stays down: {refused}"));
            return Ok(());
        }
        Violation::unless((at.is_failing || at.was_tight) && refused.is_io(), || {
            format!("node {node} cannot start: {refused}")
        })?;
        self.trace.note(self.now, &[12, node as u64], || format!("node {node} cannot start: {refused}"));
        self.coverage.rare(Rare::RefusedStart);
        let power = self.random.percent(30);
        self.lose(node, power)?;
        self.restart_later(node);
        Ok(())
    }

    /// What the others say to a node that lost what it promised.
    fn ask_for_promises(&self, node: usize, mut asking: Asking) -> Asking {
        for (number, other) in self.nodes.iter().enumerate().filter(|(number, _)| *number != node) {
            let is_reached =
                !self.network.is_cut(self.now, node, number) && !self.network.is_cut(self.now, number, node);
            match other.raft().filter(|_| is_reached && !other.is_paused()) {
                Some(raft) if raft.last_index() > Index(0) => {
                    asking.hear(
                        other.id,
                        Said { term: Some(raft.term()), peers: peers_of(raft.configuration()) },
                    );
                }
                None if is_reached && other.is_asking => {
                    asking.hear(other.id, Said { term: None, peers: BTreeMap::new() });
                }
                _ => {}
            }
        }
        asking
    }

    /// Whether all others may answer some time to one that lost what it promised.
    fn may_be_heard(&self, node: usize) -> bool {
        let had_log = self.disks[&self.nodes[node].id].trail.last() > Index(0);
        // One that was removed since this node heard anything does not come back by its old name.
        let is_there = |id: &NodeId| self.nodes.iter().any(|other| other.id == *id && other.out.is_none());
        let are_there = self.nodes[node].awaited.iter().all(is_there);
        let lost = self.members().filter(|other| other.is_asking || other.number == node).count();
        had_log && are_there && (lost == 1 || 2 * lost < self.members().count())
    }

    fn crash_starting(&mut self, node: usize) -> Result<(), Violation> {
        self.trace.note(self.now, &[2, node as u64], || format!("node {node} crashes while it starts"));
        self.coverage.rare(Rare::CrashRecovering);
        self.summary.crashes += 1;
        self.summary.crashes_inside += 1;
        let power = self.random.percent(50);
        let power = self.order.map_or(power, |order| order.cuts_power());
        self.lose(node, power)?;
        self.restart_later(node);
        self.follow_order(node)
    }

    pub(super) fn restart_later(&mut self, node: usize) {
        if self.is_scripted() {
            return;
        }
        let at = self.now + 1_000 + self.random.waiting(self.plan.down_for);
        self.schedule.add(at, Event::Restart { node });
    }

    fn run(&mut self, node: usize, found: Found, content: Durable) -> Result<(), Violation> {
        let Found {
            directory,
            wal,
            recovered,
            manifest,
            snapshot,
            is_stateless,
            reads,
            is_cut,
            has_holes,
            ..
        } = found;
        let runs = content.trail.term_runs_behind(recovered.start.0);
        Violation::unless(recovered.term_runs == runs, || {
            format!("node {node} reports the terms {:?}", recovered.term_runs)
        })?;
        let (last, configurations) = (recovered.last_index, recovered.configurations.len());
        let restored = self.check_restored(node, &manifest, snapshot.as_ref())?;
        self.trace.note(self.now, &[1, node as u64, last.0], || {
            format!("node {node} starts with {:?} and a log to {last}", recovered.hard_state)
        });
        let at = &mut self.nodes[node];
        let sure = &self.disks[&at.id];
        if let Some(maybe) = std::mem::take(&mut at.maybe).pop().filter(|maybe| maybe != sure) {
            let is_kept = content == maybe;
            self.coverage.rare(if is_kept { Rare::UnheardWriteKept } else { Rare::UnheardWriteLost });
        }
        self.coverage.rare_if(is_cut, Rare::TornBatch);
        let is_renewed = at.renewed.take().is_some_and(|renewed| renewed == content.hard_state);
        self.coverage.rare_if(is_renewed, Rare::PromisesRenewed);
        let logged = content.trail.clone();
        self.disks.insert(at.id, content);
        self.summary.recoveries += 1;
        at.paused_until = None;
        let reader = wal.reader();
        let cache = PageCache::new(self.plan.cache_bytes);
        let before = at.disk.calls_of(Operation::Read);
        let keeper = match Keeper::open(reader.clone(), &manifest, restored, cache, self.plan.keeper()) {
            Ok(keeper) => keeper,
            Err(error) => return self.start_refused(node, &Refused::Open(error)),
        };
        let lacks_messages = manifest.is_incomplete || keeper.lacks_messages() || is_stateless;
        let bodies = Bodies::new(reader.clone(), self.plan.cache_bytes, keeper.files());
        bodies.durable(last);
        let reads = reads + at.disk.calls_of(Operation::Read) - before;
        self.check_start_reads(node, reads, configurations, &manifest, &reader)?;
        let at = &mut self.nodes[node];
        let seed = at.random.bits();
        let proven = (wal.synced_to().segment, 0);
        let generation = directory.identity().map_or(0, |identity| identity.generation);
        let settings = Settings { generation, ..settings(at.id, &self.plan, seed) };
        at.running = Some(Box::new(Running {
            replica: Replica::new(settings, recovered, snapshot),
            wal,
            mender: Mender::new(reader.clone()),
            is_mending_due: false,
            is_told_damaged: has_holes,
            reader,
            bodies,
            keeper: Some(keeper),
            is_incomplete: lacks_messages,
            has_lost: false,
            lost: 0,
            went_over_at: Index(0),
            was_stateless: is_stateless,
            is_fetching: false,
            arrived: None,
            taken: None,
            keeping: None,
            round: 0,
            _directory: directory,
            inbox: VecDeque::new(),
            at_once: Vec::new(),
            is_turn_due: false,
            strike_in: 0,
            has_packets: false,
            write: None,
            busy_until: 0,
            writes: 0,
            write_ends: 0,
            is_stalled: false,
            is_full: false,
            free_bytes: u64::MAX,
            is_kept_up: true,
            proven,
            started: at.clockwork.own(self.now),
            logged,
            seen: Seen::from_snapshot(restored),
            looks: Looks::default(),
        }));
        let boot = at.boot;
        if lacks_messages {
            self.nodes[node].running().replica.begins_incomplete();
        }
        if is_stateless {
            self.coverage.rare(Rare::StateLost);
            self.nodes[node].running().replica.begins_without_state();
        }
        if has_holes {
            self.coverage.rare(Rare::Holes);
            self.nodes[node].running().replica.begins_damaged();
            self.mend_later(node);
        }
        let at = &self.nodes[node];
        let first = self.now + self.random.below(at.clockwork.tick());
        self.schedule.add(first, Event::Tick { node, boot });
        self.schedule.add(self.now, Event::FreeBytes { node, boot });
        if node == 0 && self.phase == Phase::Beginning && last == Index(0) {
            self.form();
        }
        Ok(())
    }

    /// A snapshot holds what everybody had who had applied as much. Says where it stands; 0 for none.
    fn check_restored(
        &mut self,
        node: usize,
        manifest: &Manifest,
        snapshot: Option<&Freeze>,
    ) -> Result<Index, Violation> {
        let Some(freeze) = snapshot else { return Ok(Index(0)) };
        let index = freeze.index;
        self.summary.restored += 1;
        let newest = manifest.snapshots.last().map(|file| file.index);
        if newest != Some(index) {
            self.coverage.rare(Rare::RestoredOlder);
            let at = &self.nodes[node];
            Violation::unless(at.is_damaged || at.is_failing, || {
                format!("node {node} cannot read its newest snapshot")
            })?;
        }
        Violation::unless(index <= self.oracle.committed(), || {
            format!("the snapshot of node {node} is of {index}, which is not committed")
        })?;
        Violation::unless(freeze.state == *self.oracle.state_at(index), || {
            format!("the snapshot of node {node} is not the state at {index}")
        })?;
        Ok(index)
    }

    /// The disk says how much room it has, after every write and every second.
    pub(super) fn report_free_bytes(&mut self, node: usize) {
        let running = self.nodes[node].running();
        if let Ok(bytes) = running.wal.free_bytes() {
            running.free_bytes = bytes;
            self.hand(node, replica::Event::FreeBytes(bytes));
        }
    }

    pub(super) fn look_at_free_bytes(&mut self, node: usize, boot: u32) {
        self.report_free_bytes(node);
        if self.is_working() && self.now / SECOND % 16 == node as u64 {
            self.scrub(node);
        }
        self.look_for_lost(node);
        self.schedule.add(self.now + SECOND, Event::FreeBytes { node, boot });
    }

    /// A node must not come back: somebody has to look at its disk.
    pub(super) fn take_out(&mut self, node: usize, why: &'static str) {
        self.nodes[node].out = Some(why);
        self.summary.taken_out += 1;
    }

    /// The records of the log on a disk that do not verify, once every byte of it was read.
    pub(super) fn holes_of(&mut self, node: usize) -> Vec<raftqueue_wal::RecordName> {
        let options = Options { verify_all: true, ..self.options(node) };
        let at = &self.nodes[node];
        let view = at.disk.deep_clone();
        view.set_capacity(u64::MAX);
        let Ok(found) = open(&view, &at.name(), options) else { return Vec::new() };
        found.wal.reader().holes().iter().map(|hole| hole.name).collect()
    }

    /// Whether a damaged disk is still good for a start once every byte of it was read.
    pub(super) fn is_whole(&mut self, node: usize) -> bool {
        let options = Options { verify_all: true, ..self.options(node) };
        let at = &self.nodes[node];
        let view = at.disk.deep_clone();
        view.set_capacity(u64::MAX);
        open(&view, &at.name(), options).is_ok_and(|found| {
            found.is_undamaged
                && !found.has_holes
                && found.entries().is_ok()
                && are_files_whole(&view, &found)
        })
    }
}

/// Whether every snapshot, and every message that a file tells of, can be read.
fn are_files_whole(disk: &FakeDisk, found: &Found) -> bool {
    let Manifest { snapshots, places, kept, .. } = &found.manifest;
    let reader = found.wal.reader();
    let (cache, settings) = (PageCache::new(0), KeeperSettings::new(1));
    let newest = snapshots.last().map_or(Index(0), |file| file.index);
    let Ok(keeper) = Keeper::open(reader.clone(), &found.manifest, newest, cache, settings) else {
        return false;
    };
    let files = keeper.files();
    let in_use = |number| files.iter().any(|file| file.places().number() == number);
    let is_retired = |file| found.manifest.retired.iter().any(|retired| retired.file == file);
    let are_there = places.iter().all(|f| in_use(f.number) || is_retired(FileId::Segment(f.segment)))
        && kept.iter().all(|file| in_use(file.number) || is_retired(FileId::Kept(file.number)));
    let mut blocks = Vec::new();
    for file in &files {
        for block in file.places().all_blocks() {
            let Ok(block) = block else { return false };
            blocks.push(block);
        }
    }
    let bodies = Bodies::new(reader, 0, files);
    let is_readable = |topic, offset| {
        let id = MessageId { generation: 0, topic, offset };
        let message = MessageRef { id, token: 0, attempts: 0, deadline_ms: 0, reason: String::new() };
        let readings = bodies.read(&bodies.locate(vec![message]), usize::MAX, true);
        readings.is_some_and(|readings| readings.lost.is_empty())
    };
    are_there
        && snapshots.iter().all(|file| restoring::read(disk, file).is_ok())
        && blocks
            .iter()
            .all(|block| (block.first_offset..block.end()).all(|offset| is_readable(block.topic, offset)))
}
