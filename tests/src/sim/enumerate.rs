//! A crash at every call to a disk, in every way: at all moments, not at some that a seed draws.
//!
//! A short life of a whole cluster, in which nothing goes wrong, is lived once, and the calls of each node to its disk
//! are counted, from the first start on. Then it is lived again for each of these calls and each [`Way`]: up to the call
//! everything is the same, inside it the process dies. Alone or with others, by itself or with the power, and then part
//! of what was not synced is lost. All come back, and the usual ending judges: the checker after every turn, the oracle
//! about every answer, nothing acknowledged lost, all members the same in the end.
//!
//! The random lives crash inside calls, too. But in a long life of a thousand calls nobody knows which of them were
//! never hit.

use super::plan::{Fault, MS, Micros, Plan};
use super::random::Random;
use super::trace::Telling;
use super::world::{Event, World};
use super::{Broken, Coverage, Life, Summary, Violation, end};
use raftqueue_node::replica;
use std::fmt;

/// The lives whose calls are enumerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// Traffic, and the leader hands over in its midst.
    HandOver,
    /// The leader is cut off in the midst of traffic, so that another one is elected; its tail is then cut off.
    CutOff,
}

/// Who dies when the call comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The node whose call it is.
    One,
    /// It and the next one, which is a majority.
    Two,
    /// All of them.
    All,
}

/// How they die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process is gone, what it had written stays.
    Process,
    /// The power is gone, and of what was not synced so many quarters stay.
    Power {
        /// 0: nothing, 4: everything.
        kept_of_four: u64,
    },
}

/// A way to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Who.
    pub extent: Extent,
    /// How.
    pub loss: Loss,
    /// The node whose call it was dies once more while it starts again, inside another call each time.
    pub again: bool,
}

const fn way(extent: Extent, loss: Loss) -> Way {
    Way { extent, loss, again: false }
}

/// The ways that every call is met in.
const WAYS: [Way; 6] = [
    way(Extent::One, Loss::Process),
    way(Extent::One, Loss::Power { kept_of_four: 0 }),
    way(Extent::One, Loss::Power { kept_of_four: 2 }),
    way(Extent::One, Loss::Power { kept_of_four: 4 }),
    way(Extent::All, Loss::Power { kept_of_four: 0 }),
    way(Extent::All, Loss::Power { kept_of_four: 2 }),
];

/// Of these every call is met in one, by turns.
const BY_TURNS: [Way; 4] = [
    Way { extent: Extent::One, loss: Loss::Power { kept_of_four: 3 }, again: true },
    way(Extent::Two, Loss::Power { kept_of_four: 1 }),
    way(Extent::All, Loss::Process),
    Way { extent: Extent::All, loss: Loss::Power { kept_of_four: 1 }, again: true },
];

/// The ways in which a call is met.
pub fn ways(call: u64) -> impl Iterator<Item = Way> {
    let turn = usize::try_from(call % 4).expect("small");
    WAYS.into_iter().chain([BY_TURNS[turn]])
}

/// One of the crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The node.
    pub node: usize,
    /// The call of its disk, counted from 1.
    pub call: u64,
    /// What happens then.
    pub way: Way,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Point { node, call, way: Way { extent, loss, again } } = self;
        let again = if *again { ", again when it starts" } else { "" };
        write!(f, "crash inside call {call} of node {node}: {extent:?}, {loss:?}{again}")
    }
}

/// A point, and how far a life has come with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    point: Point,
    is_struck: bool,
    /// The call of the next start inside which the node dies again.
    again_at: Option<u64>,
}

impl Order {
    pub(super) fn cuts_power(&self) -> bool {
        self.point.way.loss != Loss::Process
    }

    pub(super) fn kept_of_four(&self) -> Option<u64> {
        match self.point.way.loss {
            Loss::Process => None,
            Loss::Power { kept_of_four } => Some(kept_of_four),
        }
    }
}

/// What happens in the midst of a short life.
#[derive(Clone, Copy, Debug)]
pub(super) enum Staged {
    HandOver,
    CutOff,
}

/// What was lived.
#[derive(Clone, Debug, Default)]
pub struct Enumerated {
    /// Calls to the disks of each node in the life without a crash.
    pub calls: Vec<u64>,
    /// Calls and ways: the lives with a crash.
    pub lives: u64,
    /// What they went through.
    pub summary: Summary,
    /// What they met.
    pub coverage: Coverage,
}

impl fmt::Display for Enumerated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points: u64 = self.calls.iter().sum();
        writeln!(f, "{points} calls of {} disks {:?}, {} lives", self.calls.len(), self.calls, self.lives)?;
        write!(f, "{}", self.summary)
    }
}

/// A short life: one seed of it draws other traffic than the next.
fn plan(history: History, seed: u64) -> Plan {
    let mut random = Random::new(seed ^ 0x0073_686f_7274);
    let plan = Plan::new(seed);
    Plan {
        ids: (0..3).map(|_| raftqueue_raft::NodeId(random.bits() | 1)).collect(),
        spares: Vec::new(),
        events: match history {
            History::HandOver => 350,
            History::CutOff => 580,
        },
        faults: Vec::new(),
        struck_percent: 0,
        down_for: 50 * MS,
        packet_delay: 500,
        loss_percent: 0,
        doubled_percent: 0,
        reorders: false,
        write_delay: 1_500,
        read_delay: 1_000,
        turn_delay: 100,
        // Small, so that segments end, entries are read back from disk and travel in several messages.
        segment_bytes: 8 << 10,
        retained_bytes: 2 << 10,
        cache_bytes: 4 << 10,
        append_bytes: 4 << 10,
        window_messages: 3,
        write_bytes: 8 << 10,
        entry_bytes: 4 << 10,
        entries_in_flight: 4,
        topics: 2,
        // Leases take seconds to run out in the end, so only one of the lives has any.
        clients: match history {
            History::HandOver => [1, 1, 1, 1, 0, 0],
            History::CutOff => [1, 2, 0, 1, 0, 0],
        },
        think: 15 * MS,
        body_bytes: 600,
        skew_ms: 50,
        is_reckless: false,
        has_upgrades: false,
        is_demanding: false,
        ..plan
    }
}

/// Lives one short life with a crash, or none.
///
/// # Errors
/// [`Broken`] if a rule was, with a story as far as one was kept.
pub fn live_point(
    history: History,
    seed: u64,
    point: Option<Point>,
    telling: Telling,
) -> Result<(Life, Vec<u64>), Box<Broken>> {
    let mut world = World::new(plan(history, seed), telling);
    world.history = Some(history);
    world.order = point.map(|point| Order {
        point,
        is_struck: false,
        again_at: point.way.again.then_some(point.call % 19 + 1),
    });
    let outcome = end(&mut world).and_then(|life| {
        let is_struck = world.order.is_none_or(|order| order.is_struck);
        Violation::unless(is_struck, || "the call did not come: one seed is two lives".into())?;
        Ok(life)
    });
    match outcome {
        Ok(life) => {
            let (before, after) = &world.disk_calls;
            Ok((life, after.iter().zip(before).map(|(after, before)| after - before).collect()))
        }
        Err(Violation(rule)) => {
            let rule = match point {
                Some(point) => format!("{history:?}, {point}: {rule}"),
                None => format!("{history:?}, no crash: {rule}"),
            };
            let (faults, when, story) = (world.faults, world.now, world.story());
            // As in `live_plan`: what panicked is not dropped.
            std::mem::forget(world);
            Err(Box::new(Broken { seed, rule, faults, when, story }))
        }
    }
}

/// Lives a short life once, and once more for each call to a disk and each way. `goes_on` is asked before each life.
///
/// # Errors
/// [`Broken`] if a rule was; its story is told by living the life once more.
pub fn crash_at_every_call(
    history: History,
    seed: u64,
    mut goes_on: impl FnMut() -> bool,
) -> Result<Enumerated, Box<Broken>> {
    let live = |point: Option<Point>| {
        live_point(history, seed, point, Telling::Silent)
            .or_else(|_| live_point(history, seed, point, Telling::LastLines))
    };
    let (_, calls) = live(None)?;
    let mut sum = Enumerated { calls, ..Enumerated::default() };
    for (node, calls) in sum.calls.clone().into_iter().enumerate() {
        for call in 1..=calls {
            for way in ways(call) {
                if !goes_on() {
                    return Ok(sum);
                }
                let (life, _) = live(Some(Point { node, call, way }))?;
                sum.lives += 1;
                sum.summary.add(&life.summary);
                sum.coverage.add(&life.coverage);
            }
        }
    }
    Ok(sum)
}

impl World {
    pub(super) fn count_disk_calls(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.disk.calls()).collect()
    }

    /// The call inside which the ordered crash comes is known from the beginning.
    pub(super) fn place_order(&mut self) {
        if let Some(Order { point, .. }) = &self.order {
            self.nodes[point.node].disk.crash_at_call(point.call);
        }
    }

    /// The node has died inside its call; others may die with it.
    pub(super) fn follow_order(&mut self, node: usize) -> Result<(), Violation> {
        let Some(order) = &mut self.order else { return Ok(()) };
        if order.is_struck || node != order.point.node {
            return Ok(());
        }
        order.is_struck = true;
        let (extent, power) = (order.point.way.extent, order.cuts_power());
        let count = self.nodes.len();
        let others = match extent {
            Extent::One => 0,
            Extent::Two => 1,
            Extent::All => count - 1,
        };
        (1..=others).try_for_each(|further| self.crash((node + further) % count, power))
    }

    /// The node may die again in the first start after its crash.
    pub(super) fn spoil_ordered_start(&mut self, node: usize) {
        if let Some(order) = &mut self.order
            && order.is_struck
            && node == order.point.node
            && let Some(call) = order.again_at.take()
        {
            self.nodes[node].disk.crash_at_call(call);
        }
    }

    /// What the history has in store, once it works.
    pub(super) fn stage(&mut self) {
        let (after, staged): (Micros, Staged) = match self.history {
            Some(History::HandOver) => (60 * MS, Staged::HandOver),
            Some(History::CutOff) => (40 * MS, Staged::CutOff),
            None => return,
        };
        self.schedule.add(self.now + after, Event::Staged(staged));
    }

    pub(super) fn staged(&mut self, staged: Staged) {
        let Some(leader) = self.leader() else { return };
        match staged {
            Staged::HandOver => {
                self.coverage.fault(Fault::HandOver);
                self.hand(leader, replica::Event::HandOver);
            }
            Staged::CutOff => {
                self.coverage.fault(Fault::Split);
                self.clog(leader, self.now + 3 * World::ELECTION);
            }
        }
    }
}
