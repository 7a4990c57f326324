//! What a node had that was removed from its cluster: it is set aside in a folder of its own, so that the node can begin anew.
//!
//! The folder is `removing-ID` while files move there and `removed-ID` afterwards. IDENTITY moves first: from then on the
//! directory is no node's, and what is still in it moves at the next start at the latest. The folder goes once the new node
//! has caught up with a cluster: then nobody will want it back.

use crate::api::LocalStatus;
use raftqueue_raft::NodeId;
use raftqueue_wal::disk::{Disk, RealDisk};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

const IDENTITY: &str = "IDENTITY";
const LOCK: &str = "LOCK";
const REMOVING: &str = "removing-";
const REMOVED: &str = "removed-";

/// Sets aside what is in the directory, which this process holds and nobody writes to any more.
pub(super) fn set_aside(folder: &Path, node: NodeId) -> io::Result<()> {
    let aside = folder.join(format!("{REMOVING}{:016x}", node.0));
    match fs::create_dir(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync(folder)?;
    fs::rename(folder.join(IDENTITY), aside.join(IDENTITY))?;
    sync(&aside)?;
    sync(folder)?;
    move_rest(folder, &aside)
}

/// Goes on where a process ended that set something aside. A directory that another one holds is left as it is.
pub(super) fn finish(folder: &Path, disk: &RealDisk) -> io::Result<()> {
    let begun = |aside: &PathBuf| aside.join(IDENTITY).exists();
    let Some(aside) = folders(folder, REMOVING)?.into_iter().find(begun) else { return Ok(()) };
    let Some(_lock) = disk.lock(LOCK)? else { return Ok(()) };
    if folder.join(IDENTITY).exists() {
        return Ok(()); // Another process was faster.
    }
    move_rest(folder, &aside)
}

fn move_rest(folder: &Path, aside: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != LOCK {
            fs::rename(entry.path(), aside.join(entry.file_name()))?;
        }
    }
    sync(aside)?;
    let name = aside.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(REMOVING));
    let name = name.ok_or(io::ErrorKind::InvalidInput)?;
    fs::rename(aside, folder.join(format!("{REMOVED}{name}")))?;
    sync(folder)
}

/// Removes what was set aside, once this node has caught up.
pub(super) async fn clear(folder: PathBuf, mut status: watch::Receiver<Arc<LocalStatus>>) {
    let found = folders(&folder, REMOVED).unwrap_or_default();
    if found.is_empty() || status.wait_for(|status| status.not_ready.is_none()).await.is_err() {
        return;
    }
    let cleared = tokio::task::spawn_blocking(move || {
        for aside in found {
            match fs::remove_dir_all(&aside) {
                Ok(()) => {
                    tracing::info!(folder = %aside.display(), "this node has caught up: what a removed one had is gone");
                }
                Err(error) => {
                    tracing::warn!(folder = %aside.display(), %error, "what a removed node had stays");
                }
            }
        }
    });
    let _ = cleared.await;
}

fn folders(folder: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_it = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if is_it && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let all =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = all.collect();
        names.sort();
        names
    }

    /// A process that ends after any of the moves: the next one finds the old node whole, or none of it.
    #[test]
    fn rule_1_5_whatever_ends_the_move_the_next_start_ends_it() {
        let files = [IDENTITY, "HARDSTATE", "MANIFEST", "segment-1"];
        for moved in 0..=files.len() {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path();
            files.iter().chain([&LOCK]).for_each(|name| fs::write(folder.join(name), name).unwrap());
            let aside = folder.join("removing-0000000000000007");
            fs::create_dir(&aside).unwrap();
            for name in &files[..moved] {
                fs::rename(folder.join(name), aside.join(name)).unwrap();
            }
            finish(folder, &RealDisk::open(folder).unwrap()).unwrap();
            if moved == 0 {
                assert_eq!(
                    names(folder),
                    ["HARDSTATE", IDENTITY, LOCK, "MANIFEST", "removing-0000000000000007", "segment-1"]
                );
                set_aside(folder, NodeId(7)).unwrap();
                continue;
            }
            assert_eq!(names(folder), [LOCK, "removed-0000000000000007"], "after {moved}");
            assert_eq!(
                names(&folder.join("removed-0000000000000007")),
                ["HARDSTATE", IDENTITY, "MANIFEST", "segment-1"]
            );
            finish(folder, &RealDisk::open(folder).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_directory_that_another_process_holds_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        fs::create_dir(folder.join("removing-0000000000000007")).unwrap();
        fs::write(folder.join("removing-0000000000000007").join(IDENTITY), "").unwrap();
        fs::write(folder.join("MANIFEST"), "").unwrap();
        let disk = RealDisk::open(folder).unwrap();
        let held = disk.lock(LOCK).unwrap();
        assert!(held.is_some());
        finish(folder, &RealDisk::open(folder).unwrap()).unwrap();
        assert_eq!(names(folder), [LOCK, "MANIFEST", "removing-0000000000000007"]);
    }
}
