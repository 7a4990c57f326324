//! One program of Kubernetes: started inside, with a log of its own, killed and started again by tests.

use super::command::{Seen, run, tail, wait_for};
use super::error::Error;
use super::namespace::{Entrance, own_group};
use super::state::State;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

/// How much of a log is shown when its component ended.
const TAIL_LINES: usize = 15;
/// How long a shell may take to write its own pid down.
const PID_WITHIN: Duration = Duration::from_secs(10);

/// A program that runs, or ran, inside.
#[derive(Debug)]
pub struct Component {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    entrance: Entrance,
    log: PathBuf,
    pid_file: PathBuf,
    /// Whether it is started again when it ends, as a cluster's kubelet does it.
    is_supervised: bool,
    /// The process outside that waits for the program; `None` while it is stopped.
    waiter: Option<Child>,
}

impl Component {
    /// Starts a program; its output goes to the log of its name.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be started at all; that it ended is told by [`Component::check`].
    pub fn start(
        state: &State,
        entrance: &Entrance,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<Self, Error> {
        let mut component = Self::new(state, entrance, name, program, arguments);
        component.start_again()?;
        Ok(component)
    }

    /// The same for a program that is started again whenever it ends. It is not to be killed alone.
    ///
    /// # Errors
    /// As [`Component::start`].
    pub fn supervise(
        state: &State,
        entrance: &Entrance,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<Self, Error> {
        let component = Self::new(state, entrance, name, program, arguments);
        let mut component = Self { is_supervised: true, ..component };
        component.start_again()?;
        Ok(component)
    }

    fn new(
        state: &State,
        entrance: &Entrance,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments: arguments.into_iter().collect(),
            entrance: entrance.clone(),
            log: state.log(name),
            pid_file: state.path(&format!("pid/{name}")),
            is_supervised: false,
            waiter: None,
        }
    }

    /// Starts it with the same arguments; its log goes on. Nothing happens if it runs.
    ///
    /// # Errors
    /// As [`Component::start`].
    pub fn start_again(&mut self) -> Result<(), Error> {
        if self.ended()?.is_none() && self.waiter.is_some() {
            return Ok(());
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(Error::io(format!("write {}", self.log.display())))?;
        // That of an earlier start would be somebody else's by now.
        let _ = std::fs::remove_file(&self.pid_file);
        // The pid inside is needed to send signals; the waiter outside has another.
        let mut command = self.entrance.inside("sh");
        let script = match self.is_supervised {
            false => "echo $$ > \"$0\"; exec \"$@\"",
            true => {
                "echo $$ > \"$0\"; while :; do \"$@\"; echo \"it ended with $?, and is started again\"; sleep 1; done"
            }
        };
        command
            .args(["-c", script])
            .arg(&self.pid_file)
            .arg(&self.program)
            .args(&self.arguments)
            // The runtime finds its shim, runc and the packet filter's program on the PATH.
            .env("PATH", search_path(&self.program))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(Error::io("share a log"))?)
            .stderr(log);
        own_group(&mut command);
        self.waiter = Some(command.spawn().map_err(Error::io(format!("start {}", self.name)))?);
        Ok(())
    }

    /// Says if it has ended by itself.
    ///
    /// # Errors
    /// [`Error::Ended`] with the end of its log.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(Error::Ended {
                component: self.name.clone(),
                status,
                log: self.log.clone(),
                tail: tail(&self.log, TAIL_LINES),
            }),
        }
    }

    /// Kills it with SIGKILL and waits for its end. Nothing happens if it does not run.
    ///
    /// # Errors
    /// [`Error::Failed`] if the signal cannot be sent.
    pub fn kill(&mut self) -> Result<(), Error> {
        if self.ended()?.is_none() && self.waiter.is_some() {
            let pid = self.pid()?;
            run(self.entrance.inside("kill").args(["-s", "KILL", &pid.to_string()]))?;
        }
        if let Some(mut waiter) = self.waiter.take() {
            waiter.wait().map_err(Error::io(format!("wait for {}", self.name)))?;
        }
        Ok(())
    }

    /// Its number inside.
    fn pid(&self) -> Result<u32, Error> {
        wait_for("the pid of a component just started", PID_WITHIN, || {
            let text = std::fs::read_to_string(&self.pid_file).unwrap_or_default();
            Ok(text.trim().parse::<u32>().map_or_else(|_| Seen::NotYet(text), Seen::Done))
        })
    }

    /// The memory that it has, in KiB.
    ///
    /// # Errors
    /// [`Error::Failed`] if it does not run; [`Error::Strange`] if the kernel does not tell.
    pub fn memory_kib(&self) -> Result<u64, Error> {
        let status = format!("/proc/{}/status", self.pid()?);
        let output = run(self.entrance.inside("cat").arg(&status))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.ok_or(Error::Strange { what: status, text })
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        match &mut self.waiter {
            None => Ok(None),
            Some(waiter) => waiter.try_wait().map_err(Error::io(format!("wait for {}", self.name))),
        }
    }

    /// Waits for the process outside, once everything inside was killed.
    pub(super) fn forget(mut self) {
        if let Some(mut waiter) = self.waiter.take() {
            let _ = waiter.wait();
        }
    }
}

/// The folder of a program, then the places where Debian has what root runs.
fn search_path(program: &Path) -> String {
    let folder = program.parent().unwrap_or(Path::new("/"));
    format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", folder.display())
}

/// Programs of the machine that are not to be found.
pub(super) fn missing_programs(wanted: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let path = search_path(Path::new("/bin/sh"));
    let is_there = |program: &str| path.split(':').any(|folder| Path::new(folder).join(program).is_file());
    wanted.iter().copied().filter(|(program, _)| !is_there(program)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_of_the_machine_is_named() {
        let wanted = [("sh", "dash"), ("no-such-program-anywhere", "no-such-package")];
        assert_eq!(missing_programs(&wanted), [("no-such-program-anywhere", "no-such-package")]);
    }
}
