//! Whole clusters in one thread, from one seed.
//!
//! Several real [`Replica`](raftqueue_node::replica::Replica)s, each with the real log on a fake disk and the real map of
//! bodies, live on one heap of events in virtual time. Faults of network, disk, process and clock come between them, as
//! the seed's [`Plan`] says; clients of several kinds use them. After every turn of a node `checker` holds what it did
//! against what the disks hold for certain, and `oracle` holds every answer against the order of commits and a naive
//! model of the queue. At the end all faults stop: there must be a leader soon, all must agree, and what is left in the
//! topics must be what was acknowledged and not taken.
//!
//! What was met is counted: `coverage` has each kind of fault and the rare branches of the cores.
//!
//! In some lives members come and go (`members`). What is not here: the shell (tasks, sockets, discovery, forming by
//! handshake). A packet is a message of the core, not bytes. There is no hello: where a disk that was set back is found out only by it, that
//! judgement alone is asked of the node's code (see `damage`). Who was removed finds out by the node's code, too (`leaving`).
//!
//! One seed is one life: run twice, every event is the same ([`Life::hash`]). Beside these lives there are short ones in
//! which nothing goes wrong but one crash, at each call to a disk in turn (`enumerate`), and schedules that are worth a
//! name of their own, told step by step in the same world (`scripted`).

mod calls;
mod checker;
mod clients;
mod consumers;
mod coverage;
mod crashes;
mod damage;
mod digest;
mod disks;
mod ending;
mod enumerate;
mod faults;
mod footprint;
mod installing;
mod keeping;
mod leaving;
mod ledger;
mod matching;
mod members;
mod mending;
mod message;
mod network;
mod nodes;
mod oracle;
mod plan;
mod producers;
#[allow(dead_code, reason = "its own tests look at more of it")]
#[path = "../../../node/queue/tests/model/model.rs"]
mod queue_model;
mod random;
mod recovering;
mod schedule;
pub mod scripted;
mod shrink;
mod starting;
mod summary;
mod trace;
mod traffic;
mod upgrades;
mod view;
mod world;

pub use calls::Answer;
pub use coverage::{Coverage, Rare};
pub use enumerate::{Enumerated, Extent, History, Loss, Point, Way, crash_at_every_call, live_point, ways};
pub use plan::{Fault, LeftOut, Micros, Plan};
pub use random::Random;
pub use shrink::{Shrunk, shrink};
pub use summary::Summary;
pub use trace::{Telling, print_line};

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use world::World;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

impl Violation {
    fn unless(is_kept: bool, text: impl FnOnce() -> String) -> Result<(), Violation> {
        if is_kept { Ok(()) } else { Err(Violation(text())) }
    }
}

/// A life that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// What it went through.
    pub summary: Summary,
    /// Which kinds of faults and which rare branches it met.
    pub coverage: Coverage,
    /// The same for every run of one seed.
    pub hash: u64,
}

/// A life in which a rule was broken.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its seed.
    pub seed: u64,
    /// The rule.
    pub rule: String,
    /// Faults until then.
    pub faults: u64,
    /// When it was broken.
    pub when: Micros,
    /// The last things that happened.
    pub story: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.rule)?;
        self.story.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Lives the life of a seed.
///
/// # Errors
/// [`Broken`] if a rule was; its story is told by living the life once more.
pub fn live(seed: u64) -> Result<Life, Box<Broken>> {
    live_telling(seed, Telling::Silent).or_else(|_| live_telling(seed, Telling::LastLines))
}

/// As [`live`], telling as much as asked for.
///
/// # Errors
/// [`Broken`], with a story as far as one was kept.
pub fn live_telling(seed: u64, telling: Telling) -> Result<Life, Box<Broken>> {
    live_plan(Plan::new(seed), telling)
}

fn live_plan(plan: Plan, telling: Telling) -> Result<Life, Box<Broken>> {
    let seed = plan.seed;
    let mut world = World::new(plan, telling);
    let rule = match end(&mut world) {
        Ok(life) => return Ok(life),
        Err(Violation(rule)) => rule,
    };
    let (faults, when, story) = (world.faults, world.now, world.story());
    // What panicked may be in no state to be dropped in order; the process ends soon anyway.
    std::mem::forget(world);
    Err(Box::new(Broken { seed, rule, faults, when, story }))
}

/// Every line of the story of a seed, however it ends.
#[must_use]
pub fn story(seed: u64) -> Vec<String> {
    let mut world = World::new(Plan::new(seed), Telling::Whole);
    let outcome = end(&mut world);
    let mut story = world.story();
    if let Err(Violation(rule)) = outcome {
        story.push(rule);
        // As in `live_plan`: what panicked is not dropped.
        std::mem::forget(world);
    }
    story
}

/// Lives a life to its end; a panic of a node is a broken rule.
fn end(world: &mut World) -> Result<Life, Violation> {
    let seed = world.plan.seed;
    quietly(seed, || catch_unwind(AssertUnwindSafe(|| world.live()))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation(format!("a node panicked: {}", text.unwrap_or_default())))
    })
}

thread_local! {
    /// The seed of the life that this thread is living.
    static LIVING: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Keeps panics of this thread off the screen while `act` lives the life of a seed: they are told as a story. A build that
/// ends with a panic, as release builds do, can tell no story; it says at least where one is to be had.
fn quietly<R>(seed: u64, act: impl FnOnce() -> R) -> R {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |info| {
            let Some(seed) = LIVING.get() else { return loud(info) };
            if cfg!(panic = "abort") {
                // On a line of its own, also where a progress bar stands.
                println!("\nseed {seed}: a node {info}");
                println!("a build without --release tells how it came to that: sim --seed {seed}");
                std::process::exit(1);
            }
        }));
    });
    LIVING.set(Some(seed));
    let result = act();
    LIVING.set(None);
    result
}
