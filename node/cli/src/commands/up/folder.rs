//! The folder of a cluster: who has it, and what is noted there.
//!
//! Whoever runs a cluster there holds the lock, for as long as its process lives: nothing else of the folder is written
//! before, so that a second `raftq up` leaves no trace in what the first one runs.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::control::NODES_MAX;

/// The file that is locked; whoever holds it writes its pid there.
const LOCK: &str = "up.lock";
/// The file that says how many nodes the cluster has, once it is formed.
const NODES: &str = "nodes";
/// The file that says how many nodes are to form it, until then.
const FORMING: &str = "forming";
/// The file that says which cluster it is.
const CLUSTER: &str = "cluster";

/// A folder that this process alone runs a cluster in. The lock and the pids of the nodes go with it.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    lock: File,
    /// The process before this one was killed, and its nodes may still be on their way out.
    pub(super) was_left: bool,
    /// The pids that are noted are of this process's nodes.
    is_begun: bool,
}

/// The cluster that a folder holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// So many nodes.
    pub(super) nodes: u16,
    /// It had a leader once: a node without a disk waits to be added.
    pub(super) is_formed: bool,
    /// Its id, if that was noted.
    pub(super) id: Option<String>,
}

impl Folder {
    /// Takes the folder, which is made if there is none.
    ///
    /// # Errors
    /// Another `raftq up` has it, or it cannot be used: for people.
    pub(super) fn take(told: &Path) -> Result<Self, String> {
        let cannot =
            |what: &str, error: std::io::Error| format!("{} cannot be {what}: {error}", told.display());
        std::fs::create_dir_all(told).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => format!("{} is no folder: say another --data-dir", told.display()),
            _ => cannot("made", error),
        })?;
        let path = told.canonicalize().map_err(|error| cannot("found", error))?;
        let mut options = OpenOptions::new();
        let mut lock = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(|error| cannot("locked", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = lock.read_to_string(&mut pid);
                let pid = pid.trim();
                // For a moment it has the lock and has not written who it is.
                let who = if pid.is_empty() { String::new() } else { format!(" (pid {pid})") };
                let folder = told.display();
                return Err(format!(
                    "{folder} is in use by another raftq up{who}: stop it, or use --data-dir"
                ));
            }
            Err(TryLockError::Error(error)) => return Err(cannot("locked", error)),
        }
        let pid = format!("{}\n", std::process::id());
        lock.set_len(0)
            .and_then(|()| lock.write_all(pid.as_bytes()))
            .map_err(|error| cannot("locked", error))?;
        let mut folder = Self { path, lock, was_left: false, is_begun: false };
        folder.was_left = (0..NODES_MAX).any(|node| folder.pid_file(node).exists());
        Ok(folder)
    }

    /// From now on nodes are started: those of the last process have ended.
    pub(super) fn begin(&mut self) {
        self.is_begun = true;
        self.forget_pids();
    }

    /// The cluster in the folder. `asked` are the nodes that a new one would have.
    ///
    /// # Errors
    /// What is noted there makes no sense, or cannot be cleared.
    pub(super) fn cluster(&self, asked: u16) -> Result<Option<Found>, String> {
        let last = (0..NODES_MAX).rev().find(|node| self.disk(*node).exists());
        let Some(last) = last else {
            // Whoever removed all disks begins anew: what was noted must not be taken for what the next cluster is.
            for name in [NODES, FORMING, CLUSTER] {
                remove(&self.path.join(name))?;
            }
            return Ok(None);
        };
        if let Some(nodes) = self.noted(NODES)? {
            let id = std::fs::read_to_string(self.path.join(CLUSTER)).ok();
            let id = id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
            return Ok(Some(Found { nodes, is_formed: true, id }));
        }
        if let Some(nodes) = self.noted(FORMING)? {
            return Ok(Some(Found { nodes, is_formed: false, id: None }));
        }
        // The notes are lost. More disks than there would be nodes are those of a larger cluster.
        let nodes = (last + 1) | 1;
        Ok((nodes > asked).then_some(Found { nodes, is_formed: false, id: None }))
    }

    fn noted(&self, name: &str) -> Result<Option<u16>, String> {
        let file = self.path.join(name);
        let Ok(text) = std::fs::read_to_string(&file) else { return Ok(None) };
        let count = text.trim().parse().ok().filter(|count| (1..=NODES_MAX).contains(count));
        let wrong = || format!("{} says `{}`, which is no number of nodes", file.display(), text.trim());
        count.map(Some).ok_or_else(wrong)
    }

    /// So many nodes are to form a cluster.
    pub(super) fn note_forming(&self, nodes: usize) -> Result<(), String> {
        self.write(FORMING, &nodes.to_string())
    }

    /// The cluster is formed, and has so many nodes.
    pub(super) fn note_nodes(&self, nodes: usize) -> Result<(), String> {
        self.write(NODES, &nodes.to_string())?;
        remove(&self.path.join(FORMING))
    }

    /// Which cluster it is.
    pub(super) fn note_cluster(&self, id: &str) -> Result<(), String> {
        self.write(CLUSTER, id)
    }

    /// Where a node keeps its data.
    pub(super) fn disk(&self, node: u16) -> PathBuf {
        self.path.join(format!("node-{node}"))
    }

    /// What is on a node's disk is no cluster's any more: it is kept beside, in the place of what was kept there before. Returns
    /// where, if there was a disk.
    pub(super) fn set_disk_aside(&self, node: u16) -> Result<Option<PathBuf>, String> {
        let disk = self.disk(node);
        if !disk.exists() {
            return Ok(None);
        }
        let aside = disk.with_extension("removed");
        let cannot = |error| format!("cannot move {} to {}: {error}", disk.display(), aside.display());
        match std::fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(cannot(error)),
            _ => {}
        }
        std::fs::rename(&disk, &aside).map_err(cannot)?;
        Ok(Some(aside))
    }

    /// What a node says.
    pub(super) fn log(&self, node: u16) -> PathBuf {
        self.path.join(format!("node-{node}.log"))
    }

    /// A node runs, as this process.
    pub(super) fn note_pid(&self, node: u16, pid: u32) -> Result<(), String> {
        self.write(&format!("node-{node}.pid"), &pid.to_string())
    }

    /// A node does not run any more.
    pub(super) fn forget_pid(&self, node: u16) {
        // A file that is left is removed by whoever takes the folder next.
        let _ = std::fs::remove_file(self.pid_file(node));
    }

    fn pid_file(&self, node: u16) -> PathBuf {
        self.path.join(format!("node-{node}.pid"))
    }

    fn forget_pids(&self) {
        (0..NODES_MAX).for_each(|node| self.forget_pid(node));
    }

    /// Writes a line as the whole of a file: a crash leaves the old one or the new one.
    fn write(&self, name: &str, line: &str) -> Result<(), String> {
        let (file, aside) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let written =
            std::fs::write(&aside, format!("{line}\n")).and_then(|()| std::fs::rename(&aside, &file));
        written.map_err(|error| format!("cannot write {}: {error}", file.display()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_begun {
            self.forget_pids();
        }
        // The file stays: whoever waits for the lock of a file that is gone would wait for nothing.
        let _ = self.lock.set_len(0);
    }
}

fn remove(file: &Path) -> Result<(), String> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", file.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(folder: &tempfile::TempDir) -> Folder {
        Folder::take(folder.path()).expect("nobody has it")
    }

    fn formed(nodes: u16) -> Found {
        Found { nodes, is_formed: true, id: None }
    }

    #[test]
    fn a_folder_is_of_one_process_at_a_time_which_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut first = taken(&folder);
        first.begin();
        first.note_pid(0, 17).expect("written");
        let Err(why) = Folder::take(folder.path()) else { panic!("it is taken") };
        let pid = std::process::id();
        assert!(
            why.ends_with(&format!(" is in use by another raftq up (pid {pid}): stop it, or use --data-dir")),
            "{why}"
        );
        assert!(first.pid_file(0).exists(), "the second one touched nothing");
        drop(first);
        let mut second = taken(&folder);
        assert!(!second.was_left && !second.pid_file(0).exists(), "what ends in peace leaves no pids");
        second.begin();
        second.note_pid(1, 18).expect("written");
        // As if it were killed: nothing is cleared.
        second.lock.unlock().expect("it was locked");
        let third = taken(&folder);
        assert!(third.was_left);
        drop(third);
        let mut fourth = taken(&folder);
        assert!(
            fourth.was_left,
            "the third one began nothing, so the nodes of the second may still be there"
        );
        fourth.begin();
        assert!(!fourth.pid_file(1).exists());
    }

    #[test]
    fn what_a_folder_holds_is_known_at_every_step_of_its_life() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = taken(&folder);
        let disk = |node: u16| std::fs::create_dir(held.disk(node)).expect("a folder");
        assert_eq!(held.cluster(3), Ok(None));
        held.note_forming(5).expect("written");
        assert_eq!(held.cluster(3), Ok(None), "nothing was begun");
        disk(0);
        held.note_forming(5).expect("written");
        assert_eq!(held.cluster(3), Ok(Some(Found { nodes: 5, is_formed: false, id: None })));
        (1..5).for_each(disk);
        held.note_nodes(5).expect("written");
        assert_eq!(held.cluster(3), Ok(Some(formed(5))));
        held.note_cluster("0a").expect("written");
        held.note_nodes(3).expect("written");
        assert_eq!(
            held.cluster(3),
            Ok(Some(Found { id: Some("0a".into()), ..formed(3) })),
            "scaled, with old disks"
        );
        // Somebody removed the notes.
        remove(&held.path.join(NODES)).expect("removed");
        assert_eq!(held.cluster(3), Ok(Some(Found { nodes: 5, is_formed: false, id: None })));
        assert_eq!(held.cluster(5), Ok(None), "as many as there are disks");
        std::fs::write(held.path.join(NODES), "many").expect("written");
        let why = held.cluster(3).expect_err("it is no number");
        assert!(why.contains("says `many`"), "{why}");
        // Somebody removed the disks.
        (0..5).for_each(|node| std::fs::remove_dir(held.disk(node)).expect("removed"));
        assert_eq!(held.cluster(3), Ok(None));
        assert!(!held.path.join(NODES).exists() && !held.path.join(CLUSTER).exists());
    }
}
