//! An operator of a case's own: a process beside the pods, which looks after the case's namespace and reaches the API server
//! through a gate. It is killed where the case wants, and starts again at once, as its container would.

use super::BoxError;
use crate::case::Room;
use raftqueue_tests::kube::component::Component;
use raftqueue_tests::kube::gate::{Call, Gate, Porter, Verdict};
use raftqueue_tests::kube::images::program_folder;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is looked at whether it ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The process; absent before its first start.
type Process = Arc<Mutex<Option<Component>>>;

/// The operator of a namespace, until this is dropped.
pub(crate) struct Operator {
    process: Process,
    stop: Arc<AtomicBool>,
    again: Option<JoinHandle<()>>,
    _gate: Gate,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(process: &Process) {
    if let Some(component) = lock(process).as_mut() {
        component.kill().unwrap_or_else(|error| eprintln!("an operator cannot be killed: {error}"));
    }
}

impl Operator {
    /// Starts one whose calls this porter judges.
    pub(crate) fn behind(room: &Room<'_>, porter: Arc<dyn Porter>) -> Result<Self, BoxError> {
        Self::start(room, porter, Process::default(), None)
    }

    /// Starts one that may do what this user may.
    pub(crate) fn acting_as(room: &Room<'_>, user: &str) -> Result<Self, BoxError> {
        Self::start(room, Arc::new(Open), Process::default(), Some(user))
    }

    /// Starts one that dies as the killer says.
    pub(crate) fn with(room: &Room<'_>, killer: &Arc<Killer>) -> Result<Self, BoxError> {
        Self::start(room, Arc::clone(killer) as Arc<dyn Porter>, Arc::clone(&killer.process), None)
    }

    fn start(
        room: &Room<'_>,
        porter: Arc<dyn Porter>,
        process: Process,
        user: Option<&str>,
    ) -> Result<Self, BoxError> {
        let own = room.own();
        let gate = Gate::open(own, porter)?;
        let kubeconfig = own.state().path(&format!("gate-{}", room.namespace));
        std::fs::write(&kubeconfig, gate.kubeconfig(user))?;
        let image = format!("docker.io/library/raftqueue-node:{}", env!("CARGO_PKG_VERSION"));
        let program = program_folder().join("raftqueue-operator").display().to_string();
        let arguments = [
            format!("KUBECONFIG={}", kubeconfig.display()),
            program,
            format!("--watch-namespace={}", room.namespace),
            format!("--namespace={}", room.namespace),
            "--name=gated".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            format!("--node-image={image}"),
        ];
        let name = format!("operator-{}", room.namespace);
        let component = own.start_program(&name, Path::new("/usr/bin/env"), arguments)?;
        *lock(&process) = Some(component);
        let stop = Arc::new(AtomicBool::new(false));
        let (of_it, until) = (Arc::clone(&process), Arc::clone(&stop));
        let again = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK_EVERY);
                if let Some(component) = lock(&of_it).as_mut() {
                    component.start_again().unwrap_or_else(|error| eprintln!("no operator: {error}"));
                }
            }
        });
        Ok(Self { process, stop, again: Some(again), _gate: gate })
    }

    /// The memory that it has, in KiB.
    pub(crate) fn memory_kib(&self) -> Result<u64, BoxError> {
        let process = lock(&self.process);
        Ok(process.as_ref().ok_or("it was never started")?.memory_kib()?)
    }

    /// Kills it; it starts again at once.
    pub(crate) fn kill(&self) {
        kill(&self.process);
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.again.take().map(JoinHandle::join);
        kill(&self.process);
    }
}

/// Everything passes.
struct Open;

impl Porter for Open {
    fn judge(&self, _: &Call) -> Verdict {
        Verdict::Pass
    }
}

/// When an operator dies: right after the API server has done what it wrote, and before it hears so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dies {
    /// It does not.
    Never,
    /// After this write, counted from 1; events are writes, too.
    After(usize),
    /// After every one but events: no life writes more than once.
    Always,
}

/// Kills an operator at its writes, as far as they change something. Renewals of the lease do not count.
pub(crate) struct Killer {
    process: Process,
    state: Mutex<Killing>,
    /// Versions of objects by their uids, as the last write left them.
    known: Mutex<BTreeMap<String, String>>,
}

struct Killing {
    dies: Dies,
    writes: usize,
    deaths: Vec<String>,
}

impl Killer {
    pub(crate) fn new() -> Arc<Self> {
        let state = Killing { dies: Dies::Never, writes: 0, deaths: Vec::new() };
        Arc::new(Self { process: Process::default(), state: Mutex::new(state), known: Mutex::default() })
    }

    /// Counts from here.
    pub(crate) fn arm(&self, dies: Dies) {
        *lock(&self.state) = Killing { dies, writes: 0, deaths: Vec::new() };
    }

    /// How many writes there were since, and after which of them it died.
    pub(crate) fn disarm(&self) -> (usize, Vec<String>) {
        let mut state = lock(&self.state);
        state.dies = Dies::Never;
        (state.writes, std::mem::take(&mut state.deaths))
    }
}

impl Porter for Killer {
    fn judge(&self, call: &Call) -> Verdict {
        if call.writes() && !call.is_about("leases") { Verdict::Ask } else { Verdict::Pass }
    }

    fn lets_hear(&self, call: &Call, object: Option<(String, String)>) -> bool {
        // What was refused has changed nothing, and neither has a write that leaves the version as it was.
        let Some((uid, version)) = object else { return true };
        let before = lock(&self.known).insert(uid, version.clone());
        if before == Some(version) && call.method != "DELETE" {
            return true;
        }
        let mut state = lock(&self.state);
        state.writes += 1;
        let dies = match state.dies {
            Dies::Never => false,
            Dies::After(write) => write == state.writes,
            Dies::Always => !call.is_about("events"),
        };
        drop(state);
        if dies {
            kill(&self.process);
            let path = call.path.split('?').next().unwrap_or_default();
            let object = path.rsplit_once("/namespaces/").map_or(path, |(_, rest)| rest);
            let object = object.split_once('/').map_or(object, |(_, object)| object);
            lock(&self.state).deaths.push(format!("{} {object}", call.method));
        }
        !dies
    }
}
