//! Which versions of commands and formats the members run, and when the active one may rise.
//!
//! Whatever is written has the form of the active version, so a member that goes back to an older build still reads it. Once the
//! version has risen there is no way back: so it rises only when somebody asks for it, and only where every member has said
//! that it runs the new one. A member that comes with an older build after that is refused at its hello.

use super::Replica;
use super::members::refused;
use crate::api::Failure;
use crate::api::codec::{self, VERSION_MIN, VERSION_OF_UPDATE_TOPIC};
use raftqueue_queue::Command;
use raftqueue_raft::{self as raft, Index, NodeId, Term};

/// Peers of which it is remembered what they run: members, and those that were members lately.
const KNOWN_MAX: usize = 64;

impl Replica {
    /// Raises the active version: see [`raft::Raft::raise_version`]. Once that is applied here, what this node proposes has
    /// the new form.
    ///
    /// # Errors
    /// As there. The caller must be sure that every member supports the version: a member that does not will stop.
    pub fn raise_version(&mut self, version: u32) -> Result<(Term, Index), raft::Refused> {
        self.raft.raise_version(version)
    }

    /// A peer has said what it runs. Its newest word counts: it may have gone back to an older build.
    pub(super) fn on_runs(&mut self, node: NodeId, versions: (u32, u32)) {
        let known = &mut self.members.versions;
        if known.len() >= KNOWN_MAX {
            let peers = self.raft.configuration().peers();
            known.retain(|id, _| peers.contains(id));
        }
        if known.len() < KNOWN_MAX || known.contains_key(&node) {
            known.insert(node, versions);
        }
    }

    /// The oldest and the newest version that a member runs, as far as it was heard.
    pub(super) fn versions_of(&self, id: NodeId) -> Option<(u32, u32)> {
        if id == self.raft.id() {
            return Some((VERSION_MIN, codec::version_max()));
        }
        self.members.versions.get(&id).copied()
    }

    /// Whether a command can be written in the form of the active version. Asked of a leader that has applied what was committed
    /// before its term, and every raise that is in its log.
    pub(super) fn check_version(&self, command: &Command) -> Result<(), Failure> {
        let active = self.version();
        if matches!(command, Command::UpdateTopic { .. }) && active < VERSION_OF_UPDATE_TOPIC {
            return Err(refused(format!(
                "the cluster runs version {active} of commands and formats, and changing a topic needs {VERSION_OF_UPDATE_TOPIC}: \
                 once every member runs a build that knows it, raise it (`raftq members raise-version`)"
            )));
        }
        Ok(())
    }

    /// The version to rise to: the one that is wanted, or the newest that all members run.
    pub(super) fn plan_raise(&self, wanted: Option<u32>) -> Result<u32, Failure> {
        let status = self.raft.status();
        let configuration = self.raft.configuration();
        let mut newest: Option<(u32, NodeId)> = None;
        for id in configuration.peers() {
            let name = self.name_of(id);
            let is_heard =
                id == self.raft.id() || status.peers.iter().any(|peer| peer.id == id && peer.active);
            let Some((_, max)) = self.versions_of(id).filter(|_| is_heard) else {
                return Err(refused(format!(
                    "`{name}` was not heard within an election timeout: every member must say that it runs the version, since \
                     one that does not is refused from then on; wait for it, or remove it"
                ))
                .retry_after_ms(1_000));
            };
            if newest.is_none_or(|(least, _)| max < least) {
                newest = Some((max, id));
            }
        }
        let (newest, of) = newest.expect("a leader is a member");
        let version = wanted.unwrap_or(newest);
        if version > newest {
            let name = self.name_of(of);
            return Err(refused(format!(
                "version {version} is not run by every member: `{name}` runs {newest} at most; run a newer build there first"
            )));
        }
        if version <= configuration.version {
            let active = configuration.version;
            return Err(refused(match wanted {
                Some(_) => format!("version {active} is in force already, and it only rises"),
                None => format!("version {active} is in force, and is the newest that all members run"),
            }));
        }
        Ok(version)
    }
}
