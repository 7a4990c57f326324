//! Newer binaries, and the raise of the active version.
//!
//! Every life begins with version 1, and in some there are newer binaries, which know version 2 as well. Nodes change their binary when they start again,
//! back and forth, and one after the other is restarted for a newer one. Once all have the newer one, the leader is asked to raise
//! the active version; from then on nobody goes back. An older binary must never meet an entry of the new form, and
//! entries must have the form of the version that is in force where they stand, or of the one before.
//!
//! In these lives clients ask for what only version 2 can write, too: to change a topic. Who writes it when is what is tested.
//! That a node is refused whose binary is too old for the active version is judged at the hello, which is not here.

use super::Violation;
use super::coverage::Rare;
use super::plan::{MS, Plan};
use super::random::Random;
use super::world::{Event, World};
use raftqueue_node::api::codec;

/// The version that older binaries know.
pub(super) const OLD_VERSION: u32 = 1;
/// The version that is raised to.
pub(super) const NEW_VERSION: u32 = 2;

/// How far a life has come with it.
#[derive(Debug)]
pub(super) struct Upgrades {
    /// A stream of its own, so that lives without upgrades stay what they were.
    random: Random,
    /// A leader has put the raise into its log; it may be cut off again.
    is_raised: bool,
}

impl Upgrades {
    pub(super) fn new(plan: &Plan) -> Option<Self> {
        plan.has_upgrades
            .then(|| Self { random: Random::new(plan.seed ^ 0x7570_6772_6164), is_raised: false })
    }
}

impl World {
    /// A node starts, perhaps from another image than before.
    pub(super) fn choose_binary(&mut self, node: usize) {
        let is_working = self.is_working();
        let Some(upgrades) = self.upgrades.as_mut().filter(|_| is_working) else { return };
        let is_new = self.nodes[node].version_max == NEW_VERSION;
        if !is_new && upgrades.random.percent(30) {
            self.nodes[node].version_max = NEW_VERSION;
        } else if is_new && !upgrades.is_raised && upgrades.random.percent(15) {
            self.nodes[node].version_max = OLD_VERSION;
            self.coverage.rare(Rare::OldBinary);
        }
    }

    /// From here on this node's code runs.
    pub(super) fn run_binary(&self, node: usize) {
        codec::fake_version_max(self.nodes[node].version_max);
    }

    pub(super) fn upgrade_later(&mut self) {
        if let Some(upgrades) = &mut self.upgrades {
            let at = self.now + 200 * MS + upgrades.random.waiting(300 * MS);
            self.schedule.add(at, Event::Upgrade);
        }
    }

    /// Somebody sees to it that all get the new binary, and then raises the version.
    pub(super) fn upgrade(&mut self) -> Result<(), Violation> {
        if !self.is_working() || self.oracle.version() == NEW_VERSION {
            return Ok(());
        }
        self.upgrade_later();
        let old = self.nodes.iter().find(|node| node.version_max < NEW_VERSION).map(|node| node.number);
        if let Some(old) = old {
            if self.nodes[old].out.is_none() {
                self.nodes[old].version_max = NEW_VERSION;
                self.crash(old, false)?;
            }
            return Ok(());
        }
        let Some(leader) = self.leader() else { return Ok(()) };
        if let Ok((term, index)) = self.nodes[leader].running().replica.raise_version(NEW_VERSION) {
            self.upgrades.as_mut().expect("there are some").is_raised = true;
            self.trace.note(self.now, &[17, leader as u64], || {
                format!("node {leader} raises the version, at {index} of term {term}")
            });
        }
        Ok(())
    }
}
