//! Makes a broken life smaller: leaves out clients and faults as long as the same rule is still broken. The span of
//! time in which anything goes wrong is narrowed from both sides, kinds of faults are dropped, and then single faults,
//! by halves.

use super::plan::{Fault, LeftOut, MS, Micros, Plan};
use super::{Broken, Telling, live_plan};
use std::fmt;

/// Lives that a shrinking may cost.
const LIVES_MAX: u64 = 200;
/// The span of faults is not narrowed by less than this.
const STEP_MIN: Micros = 20 * MS;
/// What the kinds of clients are, in the order in which [`Plan::clients`] numbers them.
const CLIENTS: [&str; 6] =
    ["producers", "producers with sessions", "consumers", "poppers", "lookers", "administrators"];

/// A broken life with all that it does not need left out.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What it does without.
    pub left_out: LeftOut,
    /// How it ends, and its story.
    pub broken: Box<Broken>,
    lives: u64,
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeftOut { kinds, faults, strikes, losses, clients, before, from } = &self.left_out;
        let left = self.broken.faults - faults.range(..self.broken.faults).count() as u64;
        let kinds: Vec<_> = Fault::ALL.into_iter().filter(|kind| !kinds.contains(kind)).collect();
        let clients: Vec<_> =
            (0..CLIENTS.len()).filter(|kind| !clients.contains(kind)).map(|kind| CLIENTS[kind]).collect();
        writeln!(f, "after {} lives, at most {left} faults are needed, of the kinds {kinds:?};", self.lives)?;
        writeln!(f, "the clients that are needed: {}", clients.join(", "))?;
        writeln!(f, "struck leaders: {}, a lossy network: {}", needed(!strikes), needed(!losses))?;
        let from = from.unwrap_or(self.broken.when);
        writeln!(f, "nothing need go wrong before {} ms and from {} ms on", before / MS, from / MS)?;
        write!(f, "{}", self.broken)
    }
}

fn needed(is_needed: bool) -> &'static str {
    if is_needed { "needed" } else { "not needed" }
}

/// The same rule broken elsewhere, or by other numbers.
fn gist(rule: &str) -> String {
    rule.chars().filter(|letter| !letter.is_ascii_digit()).take(40).collect()
}

/// Shrinks the life of a seed; `None` if nothing is broken in it.
#[must_use]
pub fn shrink(seed: u64) -> Option<Shrunk> {
    let broken = live_plan(Plan::new(seed), Telling::Silent).err()?;
    let mut shrunk = Shrunk { left_out: LeftOut::default(), broken, lives: 1 };
    shrunk.attempt(|left_out| left_out.losses = true);
    shrunk.attempt(|left_out| left_out.strikes = true);
    shrunk.narrow();
    for kind in 0..Plan::new(seed).clients.len() {
        shrunk.attempt(|left_out| left_out.clients.extend([kind]));
    }
    for kind in Fault::ALL {
        shrunk.attempt(|left_out| left_out.kinds.extend([kind]));
    }
    let mut length = shrunk.broken.faults / 2;
    while length > 0 {
        let mut from = 0;
        while from < shrunk.broken.faults {
            shrunk.attempt(|left_out| left_out.faults.extend(from..from + length));
            from += length;
        }
        length /= 2;
    }
    // Once more, for the story.
    let plan = Plan::new(seed).without(shrunk.left_out.clone());
    shrunk.broken = live_plan(plan, Telling::LastLines).expect_err("one plan is one life");
    Some(shrunk)
}

impl Shrunk {
    /// Leaves out all that goes wrong late, and all that goes wrong early.
    fn narrow(&mut self) {
        let mut step = self.broken.when / 2;
        while step >= STEP_MIN {
            let from = self.left_out.from.unwrap_or(self.broken.when).saturating_sub(step);
            self.attempt(|left_out| left_out.from = Some(from));
            step /= 2;
        }
        let mut step = self.left_out.from.unwrap_or(self.broken.when) / 2;
        while step >= STEP_MIN {
            self.attempt(|left_out| left_out.before += step);
            step /= 2;
        }
    }

    /// Leaves out more, if the rule is broken all the same.
    fn attempt(&mut self, leave_out: impl FnOnce(&mut LeftOut)) {
        let mut left_out = self.left_out.clone();
        leave_out(&mut left_out);
        if self.lives >= LIVES_MAX || left_out == self.left_out {
            return;
        }
        self.lives += 1;
        let outcome = live_plan(Plan::new(self.broken.seed).without(left_out.clone()), Telling::Silent);
        if let Err(broken) = outcome
            && gist(&broken.rule) == gist(&self.broken.rule)
        {
            (self.left_out, self.broken) = (left_out, broken);
        }
    }
}
