//! The state folder of one Kubernetes: its certificates, data, logs, and the record of what has to be cleared away. It
//! outlives the process that made it, so that the next one can clear up after a killed one.

use super::command::{make_folder, write};
use super::environment;
use super::error::Error;
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Names of network links, sockets and cgroups are made of a name, and socket paths end at 107 bytes.
const NAME_BYTES_MAX: usize = 24;

/// One process, told apart from a later one that got the same pid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessMark {
    /// The pid, as the host sees it.
    pub pid: u32,
    /// When it started, in clock ticks since the boot.
    started_ticks: u64,
    /// Which boot.
    boot: String,
}

impl ProcessMark {
    /// Marks a process that runs now; `None` if there is none of this pid.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let (_, started_ticks) = stat(pid)?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        Some(Self { pid, started_ticks, boot })
    }

    /// True while this very process runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    fn to_json(&self) -> Value {
        json!({"pid": self.pid, "started_ticks": self.started_ticks, "boot": self.boot})
    }

    fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            pid: value["pid"].as_u64()?.try_into().ok()?,
            started_ticks: value["started_ticks"].as_u64()?,
            boot: value["boot"].as_str()?.to_owned(),
        })
    }
}

/// The parent of a process, and when it started. `None` also for zombies, which hold nothing any more.
pub(super) fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// What is written down about a Kubernetes as soon as there is something to clear away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The process that stops it at its own end; `None` once it was left running on purpose.
    pub owner: Option<ProcessMark>,
    /// The process that holds the namespaces, seen from outside: parent of the first process inside.
    pub holder: Option<ProcessMark>,
    /// The first process inside. When it ends, the kernel ends every other one inside.
    pub first: Option<ProcessMark>,
}

/// Whether anybody still cares for a Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Its owner lives, or it was left running on purpose and runs.
    InUse,
    /// Its owner died without stopping it, or it died itself (a reboot, say).
    Abandoned,
}

/// The state folder of one Kubernetes.
#[derive(Clone, Debug)]
pub struct State {
    folder: PathBuf,
    name: String,
}

impl State {
    /// The folder that would hold a Kubernetes of this name; nothing is made.
    ///
    /// # Errors
    /// [`Error::Setting`] for a name that cannot be part of a folder's name.
    pub fn named(name: &str) -> Result<Self, Error> {
        let is_fine = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_fine {
            return Err(Error::Setting {
                variable: "--name",
                value: name.to_owned(),
                expected: "1 to 24 of a-z, 0-9 and -",
            });
        }
        Ok(Self { folder: environment::state_parent().join(name), name: name.to_owned() })
    }

    /// All that exist, by name.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder of all cannot be read.
    pub fn all() -> Result<Vec<Self>, Error> {
        let parent = environment::state_parent();
        if !parent.exists() {
            return Ok(Vec::new());
        }
        let what = || Error::io(format!("list {}", parent.display()));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&parent).map_err(what())? {
            let entry = entry.map_err(what())?;
            if entry.path().is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names.iter().filter_map(|name| Self::named(name).ok()).collect())
    }

    /// Keeps out everybody else who wants to start, stop or clear away, until the file is dropped.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder of all cannot be made.
    pub fn lock_all() -> Result<File, Error> {
        let parent = environment::state_parent();
        if !parent.exists() {
            // Tokens and keys of all lie below it.
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&parent)
                .map_err(Error::io(format!("make the folder {}", parent.display())))?;
        }
        let path = parent.join("lock");
        let file = File::create(&path).map_err(Error::io(format!("write {}", path.display())))?;
        file.lock().map_err(Error::io(format!("lock {}", path.display())))?;
        Ok(file)
    }

    /// Makes the folder with its inner ones, owned by this process.
    ///
    /// # Errors
    /// [`Error::RunsAlready`] if it exists; [`Error::Io`].
    pub fn create(&self) -> Result<(), Error> {
        if self.exists() {
            return Err(Error::RunsAlready { name: self.name.clone(), folder: self.folder.clone() });
        }
        make_folder(&self.folder)?;
        let owner = ProcessMark::of(std::process::id());
        self.write_record(&Record { owner, ..Record::default() })?;
        for inner in ["pki", "log", "pid", "cni", "bin", "sysctl", "volumes"] {
            make_folder(&self.folder.join(inner))?;
        }
        Ok(())
    }

    /// True if the folder exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.folder.exists()
    }

    /// The folder itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file or folder below it.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    /// The same as text, for configuration files.
    #[must_use]
    pub fn text(&self, below: &str) -> String {
        self.path(below).display().to_string()
    }

    /// The name that was given to it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its network namespace and of its cgroup.
    #[must_use]
    pub fn kernel_name(&self) -> String {
        format!("raftqueue-{}", self.name)
    }

    /// The log of one component.
    #[must_use]
    pub fn log(&self, component: &str) -> PathBuf {
        self.path(&format!("log/{component}.log"))
    }

    /// Writes the record down, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_record(&self, record: &Record) -> Result<(), Error> {
        let mark = |mark: &Option<ProcessMark>| mark.as_ref().map(ProcessMark::to_json);
        let value = json!({"owner": mark(&record.owner), "holder": mark(&record.holder), "first": mark(&record.first)});
        let aside = self.path("record.new");
        write(&aside, value.to_string())?;
        std::fs::rename(&aside, self.path("record.json")).map_err(Error::io("put the record in place"))
    }

    /// Reads the record. It is empty if there is none or it makes no sense: then nothing can be said to be alive.
    #[must_use]
    pub fn read_record(&self) -> Record {
        let text = std::fs::read_to_string(self.path("record.json")).unwrap_or_default();
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let mark = |field: &str| ProcessMark::from_json(&value[field]);
        Record { owner: mark("owner"), holder: mark("holder"), first: mark("first") }
    }

    /// Whether somebody still cares for it.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let record = self.read_record();
        let cared_for = match (&record.owner, &record.first) {
            (Some(owner), _) => owner.is_alive(),
            (None, Some(first)) => first.is_alive(),
            (None, None) => false,
        };
        if cared_for { Condition::InUse } else { Condition::Abandoned }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_apart_from_a_later_one_of_the_same_pid() {
        let own = ProcessMark::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert_eq!(ProcessMark::from_json(&own.to_json()), Some(own.clone()));
        let earlier = ProcessMark { started_ticks: own.started_ticks - 1, ..own.clone() };
        assert!(!earlier.is_alive());
        let before_the_boot = ProcessMark { boot: "another".to_owned(), ..own };
        assert!(!before_the_boot.is_alive());
    }

    #[test]
    fn an_ended_process_that_nobody_waited_for_is_not_alive() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mark = ProcessMark::of(child.id()).unwrap();
        child.kill().unwrap();
        while mark.is_alive() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    fn names_that_cannot_be_folders_are_refused() {
        for name in ["", "a/b", "..", "Big", "a-name-that-is-far-too-long-for-a-socket"] {
            assert!(matches!(State::named(name), Err(Error::Setting { .. })), "{name}");
        }
        assert_eq!(State::named("play").unwrap().kernel_name(), "raftqueue-play");
    }
}
