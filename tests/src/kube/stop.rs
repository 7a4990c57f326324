//! Stops a Kubernetes, also one that a killed process left behind. It ends only processes that were written down, never
//! one by its name.

use super::command::{Seen, run, wait_for};
use super::error::Error;
use super::namespace::network_path;
use super::node::cgroup_folders;
use super::state::{Condition, ProcessMark, State};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long the kernel may take to end everything inside.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Ends everything of one Kubernetes and clears away what it left, whoever started it. Nothing happens if there is nothing.
///
/// # Errors
/// [`Error::TimedOut`] naming what does not end, [`Error::Io`] or [`Error::Failed`] for what cannot be removed. Calling
/// it again goes on where it stopped.
pub fn stop(state: &State) -> Result<(), Error> {
    if !state.exists() {
        return Ok(());
    }
    end_processes(state)?;
    remove_network(state)?;
    remove_cgroups(state)?;
    remove_folder(state)
}

/// Clears away every Kubernetes that nobody cares for any more, and returns their names. Callers hold the lock of all.
///
/// # Errors
/// As [`stop`].
pub fn clear_abandoned() -> Result<Vec<String>, Error> {
    let mut cleared = Vec::new();
    for state in State::all()? {
        if state.condition() == Condition::Abandoned {
            stop(&state)?;
            cleared.push(state.name().to_owned());
        }
    }
    Ok(cleared)
}

/// Kills the first process inside; the kernel does the rest.
pub(super) fn end_processes(state: &State) -> Result<(), Error> {
    let record = state.read_record();
    let marks: Vec<ProcessMark> = [record.first, record.holder].into_iter().flatten().collect();
    if let Some(first) = marks.first() {
        kill(first);
    }
    wait_for("everything inside to end", END_WITHIN, || {
        Ok(match marks.iter().find(|mark| mark.is_alive()) {
            None => Seen::Done(()),
            Some(mark) => Seen::NotYet(format!("process {} runs", mark.pid)),
        })
    })
}

fn kill(mark: &ProcessMark) {
    let pid = i32::try_from(mark.pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid.filter(|_| mark.is_alive()) {
        // It may have ended since; then there is nothing left to do.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn remove_network(state: &State) -> Result<(), Error> {
    if network_path(state).exists() {
        run(Command::new("ip").args(["netns", "delete", &state.kernel_name()]))?;
    }
    Ok(())
}

/// Removes the cgroups of all pods. They are empty; the kernel may need a moment to notice.
fn remove_cgroups(state: &State) -> Result<(), Error> {
    for folder in cgroup_folders(state) {
        wait_for("cgroups to become empty", END_WITHIN, || {
            Ok(match remove_cgroup(&folder) {
                Ok(()) => Seen::Done(()),
                Err(error) => Seen::NotYet(format!("{}: {error}", folder.display())),
            })
        })?;
    }
    Ok(())
}

fn remove_cgroup(folder: &Path) -> std::io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    // The files of a cgroup cannot be removed, and go with it.
    std::fs::remove_dir(folder)
}

/// Removes the folder; the record goes last, so that a removal that was interrupted is taken up by the next.
fn remove_folder(state: &State) -> Result<(), Error> {
    let what = || Error::io(format!("remove {}", state.folder().display()));
    for entry in std::fs::read_dir(state.folder()).map_err(what())? {
        let path = entry.map_err(what())?.path();
        if path.file_name().is_some_and(|name| name == "record.json") {
            continue;
        }
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }
            .map_err(what())?;
    }
    std::fs::remove_dir_all(state.folder()).map_err(what())
}
