//! What a node holds for what lives: bounded by the living messages, however many went before them, and however long some
//! stay that are dead, delayed or leased (RULES 3.2).
//!
//! On the disk that is files, in memory what stands beside the queue's state: where messages stand, and when to look at them
//! for their deadlines. What can die no more is looked at once. And a start reads of a log what tells which records there are,
//! not the records.

use super::Violation;
use super::nodes::Node;
use super::plan::SECOND;
use super::world::World;
use raftqueue_node::driver::bodies::Held;
use raftqueue_node::driver::keeper::KEPT_MESSAGE_BYTES;
use raftqueue_node::replica::DueBlock;
use raftqueue_queue::TopicId;
use raftqueue_wal::{Manifest, Reader};
use std::collections::BTreeSet;

/// Log segments that may be there: between the snapshots, behind them, the one in use, and a rest.
const SEGMENTS_MAX: usize = 4;
/// Kept files that are small, and the next one that makes them be joined.
const SMALL_MAX: u64 = 9;
/// A page of a places file, and what stands around its pages.
const PLACES_BYTES: u64 = 2 * 4096;

/// An entry takes so much of the log at least: what a snapshot may leave behind it, in entries.
const ENTRY_BYTES: u64 = 512;
/// Blocks that an entry of an idle cluster has at most.
const BLOCKS_MAX: u64 = 16;
/// Calls to read that a start may make for each file, and for itself. Besides, one for each configuration in the log
/// and for each record that does not verify.
const FILE_READS_MAX: u64 = 8;
/// How long nothing happens while it is watched what is looked at.
const QUIET: u64 = 5 * SECOND;
/// So often only blocks may be looked at meanwhile that were seen before and in which nothing can die: one may stand in two
/// files, and a mutant looks every second.
const LOOKS_MAX: usize = 2;

/// What a node looked at for its deadline while nothing happened.
#[derive(Debug, Default)]
pub(super) struct Looks {
    is_watched: bool,
    /// Something could die yet: with it other blocks are looked at that stand where it might stand.
    is_of_use: bool,
    /// Blocks in which nothing can die. They are read again when another one of their page is due.
    seen: BTreeSet<DueBlock>,
    /// One of those at which it was looked when no other was due, and how often that was.
    idle: Option<(DueBlock, usize)>,
}

impl Looks {
    /// Files have changed: a new one has its messages under their first deadlines.
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }

    fn too_often(&self) -> Option<(DueBlock, usize)> {
        self.idle.filter(|(_, times)| *times > LOOKS_MAX && !self.is_of_use)
    }
}

/// What lives on a node.
#[derive(Clone, Copy, Debug, Default)]
struct Living {
    messages: u64,
    /// With what each takes in a kept file.
    bytes: u64,
}

impl World {
    /// Waits until every node with a good disk holds no more than it may. Nobody asks for anything, and no message leaves.
    pub(super) fn check_footprints(&mut self) -> Result<(), Violation> {
        if self.plan.snapshots.bytes == u64::MAX {
            return Ok(());
        }
        let all: Vec<usize> = self.members().map(|node| node.number).collect();
        let members = all.into_iter().filter(|node| !self.nodes[*node].is_damaged).collect::<Vec<_>>();
        let is_small =
            |world: &World| members.iter().all(|node| excess(world, &world.nodes[*node]).is_none());
        let waited = self.run_until(20 * SECOND, is_small, "disks to be small");
        waited.map_err(|Violation(text)| {
            let excess = members.iter().filter_map(|node| excess(self, &self.nodes[*node])).next();
            Violation(format!("{text}: {}", excess.unwrap_or_default()))
        })?;
        // Lives without faults are short and many: they end here.
        if self.plan.has_faults() { self.check_looks() } else { Ok(()) }
    }

    /// While nothing happens nobody looks again and again at what cannot die.
    fn check_looks(&mut self) -> Result<(), Violation> {
        let watch = |world: &mut World, is_watched: bool| {
            let nodes = world.nodes.iter_mut().filter_map(|node| node.running.as_mut());
            nodes.for_each(|running| running.looks = Looks { is_watched, ..Looks::default() });
        };
        watch(self, true);
        self.pass(QUIET)?;
        let looks = |node: &Node| Some((node.number, node.running.as_ref()?.looks.too_often()?));
        let found = self.members().find_map(looks);
        watch(self, false);
        found.map_or(Ok(()), |(node, (block, times))| {
            Err(Violation(format!(
                "node {node} looks {times} times for nothing: at {block:?} no message can die any more"
            )))
        })
    }

    /// A node looks at blocks whose deadlines have come.
    pub(super) fn note_looks(&mut self, node: usize, blocks: &[DueBlock]) {
        let running = self.nodes[node].running();
        if !running.looks.is_watched {
            return;
        }
        let (state, looks) = (running.replica.state(), &mut running.looks);
        looks.is_of_use |= blocks.iter().any(|block| {
            let end = block.first_offset + u64::from(block.count);
            let undead = state.undead_run_from(block.topic, block.first_offset);
            undead.is_some_and(|run| run.start < end)
        });
        let is_idle = blocks.iter().all(|block| looks.seen.contains(block));
        if let Some(block) = blocks.first().filter(|_| is_idle) {
            looks.idle = Some((*block, looks.idle.map_or(0, |(_, times)| times) + 1));
        }
        looks.seen.extend(blocks);
    }

    /// A start made so many calls to read.
    pub(super) fn check_start_reads(
        &self,
        node: usize,
        reads: u64,
        configurations: usize,
        manifest: &Manifest,
        reader: &Reader,
    ) -> Result<(), Violation> {
        let Manifest { places, kept, released, snapshots, .. } = manifest;
        let others = places.len() + kept.len() + released.len() + snapshots.len();
        let files = (reader.segments().len() + others) as u64;
        let max = FILE_READS_MAX * (files + 1) + (configurations + reader.holes().len()) as u64;
        let entries = (reader.last_index().0 + 1).saturating_sub(reader.first_index().0);
        Violation::unless(reads <= max, || {
            format!(
                "node {node} makes {reads} calls to read before it goes on from {files} files with {entries} entries, \
                 {configurations} configurations among them"
            )
        })
    }
}

fn living(node: &Node) -> Living {
    let state = node.replica().expect("a member runs").state();
    let mut living = Living::default();
    for topic in state.topics_from(TopicId(0)) {
        let runs = state.live_runs(topic.id(), 0..u64::MAX);
        living.messages += runs.map(|run| run.end - run.start).sum::<u64>();
    }
    living.bytes = state.held_bytes(KEPT_MESSAGE_BYTES);
    living
}

/// What a node holds more than it may.
fn excess(world: &World, node: &Node) -> Option<String> {
    let running = node.running.as_ref()?;
    let living = living(node);
    let slack = world.plan.snapshots.idle_bytes;
    let segment_bytes = world.plan.segment_bytes;
    let manifest = running.wal.manifest();
    let log = running.reader.segments().len();
    let (released, kept) = (manifest.released.len() as u64, manifest.kept.len() as u64);
    // Half of each should be alive; what lives of it is estimated as if all messages of a topic were of one size.
    let released_max = 4 * (living.bytes + slack) / segment_bytes + 2;
    let kept_bytes: u64 = manifest.kept.iter().map(|file| file.size).sum();
    let kept_max = 2 * (living.bytes + slack) / (world.plan.keeper().kept_bytes_target / 4) + SMALL_MAX;
    // What could not be read once stands twice: there, and in the file that it was got into.
    let twice = if node.was_damaged { living.bytes } else { 0 };
    let kept_bytes_max = 2 * (living.bytes + slack + twice) + kept * PLACES_BYTES;
    let is_within = log <= SEGMENTS_MAX
        && released <= released_max
        && kept <= kept_max
        && kept_bytes <= kept_bytes_max
        && manifest.snapshots.len() <= 2
        && manifest.places.len() as u64 <= log as u64 + released
        && running.keeping.is_none();
    let held = running.bodies.held();
    let (blocks_max, due_max, spans_max) = held_max(world, node);
    let is_light = held.blocks as u64 <= blocks_max && held.due <= due_max && held.spans <= spans_max;
    if is_within && !is_light {
        let Held { blocks, due, spans, .. } = held;
        return Some(format!(
            "node {} has {living:?}, and in memory {blocks} blocks of at most {blocks_max}, {due} things to be looked at of \
             at most {due_max}, {spans} spans of at most {spans_max}",
            node.number
        ));
    }
    (!is_within).then(|| {
        format!(
            "node {} has {living:?}, {log} segments of the log, {released} released of at most {released_max}, {kept} kept \
             files of at most {kept_max}, {kept_bytes} bytes in them of at most {kept_bytes_max}, {} places files",
            node.number,
            manifest.places.len()
        )
    })
}

/// Most blocks that no file tells of, blocks and pages to be looked at, and spans of topics in memory.
fn held_max(world: &World, node: &Node) -> (u64, usize, usize) {
    let Some(running) = node.running.as_ref() else { return (0, 0, 0) };
    let files = running.keeper.as_ref().map(|keeper| keeper.files()).unwrap_or_default();
    let places = || files.iter().map(|file| file.places());
    let blocks = BLOCKS_MAX * (world.plan.snapshots.idle_bytes / ENTRY_BYTES + 1);
    let pages: usize = places().map(|places| places.pages()).sum();
    let held = running.bodies.held();
    // A page waits for several blocks of it at times.
    (blocks, held.blocks + 2 * pages + 4, places().map(|places| places.topics().len()).sum())
}
