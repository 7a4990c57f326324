//! How people and the system ask a command to end.

use crate::failure::Failure;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Who asks. From the first call on, these signals do not end the process by themselves.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// None under nohup: then the end of the terminal is no reason to end.
    hang_up: Option<Signal>,
}

/// How the end was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Ctrl-C: the exit code is 130, as is usual.
    Interrupt,
    /// SIGTERM or SIGHUP: what was begun is done, and all is well.
    Terminate,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// The system does not allow it.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if is_hang_up_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// Waits until somebody asks. Cancelling is safe: nothing that was asked is lost.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
            () = hung_up(&mut self.hang_up) => Asked::Terminate,
        }
    }
}

async fn hung_up(hang_up: &mut Option<Signal>) {
    match hang_up {
        Some(hang_up) => drop(hang_up.recv().await),
        None => std::future::pending().await,
    }
}

/// True if whoever started this process had it ignore SIGHUP.
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is signal 1, and has the lowest bit.
    mask.is_some_and(|mask| mask & 1 == 1)
}

impl Asked {
    /// How a command ends that was asked to, and has done what it should until then.
    pub(crate) fn ended(self) -> Result<(), Failure> {
        match self {
            Asked::Interrupt => Err(Failure::Interrupted),
            Asked::Terminate => Ok(()),
        }
    }
}
