//! A Kubernetes of our own: its parts in the order of their start, what tests do to them, and their end.

use super::Options;
use super::cache::Programs;
use super::command::{Seen, run, wait_for};
use super::component::Component;
use super::control_plane::ControlPlane;
use super::error::Error;
use super::images::Image;
use super::kubectl::Kubectl;
use super::namespace::{Entrance, Namespaces};
use super::node::{self, Node};
use super::state::State;
use super::volumes::Volumes;
use super::{certificates, collect, environment, rights, stop};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Where `kubectl proxy` listens, in the cluster's own network.
const DOOR_PORT: u16 = 8901;
/// How long it may take to start.
const DOOR_WITHIN: Duration = Duration::from_secs(10);

/// A Kubernetes that this process started.
#[derive(Debug)]
pub struct Own {
    state: State,
    programs: Programs,
    entrance: Entrance,
    kubectl: Kubectl,
    ready_after: Duration,
    parts: Mutex<Parts>,
}

/// What runs. All are there until the end.
#[derive(Debug, Default)]
struct Parts {
    namespaces: Option<Namespaces>,
    control_plane: Option<ControlPlane>,
    names: Option<Component>,
    /// `kubectl proxy`, once somebody wanted it.
    door: Option<Component>,
    node: Option<Node>,
    /// Where in the record of calls those begin that may not be refused.
    calls_judged_from: usize,
    /// The API server was restarted since [`Own::had_outage`] was asked.
    had_outage: bool,
    /// Nothing is left to do at the end: it was stopped already, or left running on purpose.
    is_over: bool,
}

impl Own {
    pub(super) fn start(options: &Options, programs: Programs) -> Result<Self, Error> {
        let begun = Instant::now();
        let state = State::named(&options.name)?;
        {
            let _lock = State::lock_all()?;
            for name in stop::clear_abandoned()? {
                eprintln!("cleared away what `{name}` left behind when it was killed");
            }
            state.create()?;
        }
        // From here on everything is written down, and dropping `own` clears it away.
        let cache = (programs.folder(), "XDG_CACHE_HOME");
        let namespaces = Namespaces::create(&state, &[cache]).inspect_err(|_| drop(stop::stop(&state)))?;
        let entrance = namespaces.entrance().clone();
        let kubectl = Kubectl::of(&state, &entrance, programs.path("kubectl"));
        let parts = Parts { namespaces: Some(namespaces), ..Parts::default() };
        let mut own = Self {
            state,
            programs,
            entrance,
            kubectl,
            ready_after: Duration::ZERO,
            parts: Mutex::new(parts),
        };
        own.start_parts(options).inspect_err(|_| own.keep_logs())?;
        own.ready_after = begun.elapsed();
        Ok(own)
    }

    fn start_parts(&self, options: &Options) -> Result<(), Error> {
        let (state, entrance, programs) = (&self.state, &self.entrance, &self.programs);
        certificates::make(state)?;
        let mut parts = self.parts();
        // The runtime needs nothing of the control plane, so both start at once.
        let runtime = options.node.then(|| Node::start_runtime(state, entrance, programs)).transpose()?;
        let control_plane = ControlPlane::start(state, entrance, programs, &self.kubectl)?;
        parts.control_plane = Some(control_plane);
        parts.names = Some(node::start_names(state, entrance, programs)?);
        if let Some(runtime) = runtime {
            parts.node = Some(Node::start(state, entrance, programs, runtime)?);
        }
        let volumes = self.volumes();
        volumes.make_class()?;
        volumes.make(options.volumes)?;
        let Parts { control_plane, names, node, .. } = &mut *parts;
        if let Some(control_plane) = control_plane {
            control_plane.wait(&self.kubectl)?;
        }
        if let Some(names) = names {
            node::wait_for_names(names, entrance, programs)?;
        }
        node.as_mut().map_or(Ok(()), |node| node.wait(&self.kubectl))
    }

    /// Saves the logs of a start that failed: its state folder goes when it is dropped.
    fn keep_logs(&self) {
        let folder = environment::report_folder(&format!("start-of-{}", self.state.name()));
        match collect::keep_logs(&self.state, &folder) {
            Ok(()) => eprintln!("the logs of the start that failed: {}", folder.display()),
            Err(error) => eprintln!("the logs of the start that failed are lost: {error}"),
        }
    }

    /// Its state folder.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The way into its namespaces.
    #[must_use]
    pub fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    /// The path of one of its programs.
    #[must_use]
    pub fn program(&self, name: &str) -> std::path::PathBuf {
        self.programs.path(name)
    }

    /// How long it took until it was ready.
    #[must_use]
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    pub(super) fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Its volumes.
    #[must_use]
    pub fn volumes(&self) -> Volumes {
        Volumes::new(self.state.path("volumes"), self.kubectl.clone())
    }

    /// Gives an image to its node.
    ///
    /// # Errors
    /// [`Error::Failed`] with what the runtime said.
    pub fn load(&self, image: &Image) -> Result<(), Error> {
        node::import(&self.state, &self.entrance, &self.programs, image)
    }

    /// Starts a program in the namespaces of the cluster. Its output goes to the log of its name, which no other one has.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be started at all.
    pub fn start_program(
        &self,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<Component, Error> {
        Component::start(&self.state, &self.entrance, name, program, arguments)
    }

    /// The API server without keys, at an address of the cluster's own network, where nobody else is.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if `kubectl proxy` does not start.
    pub fn plain_door(&self) -> Result<SocketAddr, Error> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, DOOR_PORT));
        let mut parts = self.parts();
        if parts.door.is_none() {
            let arguments = [
                "proxy".to_owned(),
                format!("--port={DOOR_PORT}"),
                format!("--kubeconfig={}", self.state.text("kubeconfig")),
            ];
            parts.door =
                Some(self.start_program("kubectl-proxy", &self.programs.path("kubectl"), arguments)?);
        }
        wait_for("kubectl proxy", DOOR_WITHIN, || {
            let reached = self.entrance.work_in_network(|| TcpStream::connect(address))?;
            Ok(reached.map_or_else(|error| Seen::NotYet(error.to_string()), |_| Seen::Done(address)))
        })
    }

    /// Kills the API server and starts it again after an outage of this length; returns once it is ready.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::TimedOut`].
    pub fn restart_api_server(&self, after: Duration) -> Result<(), Error> {
        let mut parts = self.parts();
        parts.had_outage = true;
        let control_plane = parts.control_plane.as_mut().expect("it is there until the end");
        control_plane.restart_api_server(&self.kubectl, after)?;
        // Until it is ready it knows no roles, and refuses everybody.
        parts.calls_judged_from = self.calls()?.len();
        Ok(())
    }

    /// True once after [`Own::restart_api_server`]: for up to a minute after it, parts of Kubernetes do not see what is new.
    pub fn had_outage(&self) -> bool {
        std::mem::take(&mut self.parts().had_outage)
    }

    /// The record of calls.
    fn calls(&self) -> Result<String, Error> {
        let log = self.state.log("audit");
        std::fs::read_to_string(&log).map_err(Error::io(format!("read {}", log.display())))
    }

    /// Kills the name server: no name resolves until [`Own::start_names`].
    ///
    /// # Errors
    /// [`Error::Failed`] if the signal cannot be sent.
    pub fn stop_names(&self) -> Result<(), Error> {
        self.parts().names.as_mut().expect("it is there until the end").kill()
    }

    /// Starts the name server again; returns once names resolve.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::TimedOut`].
    pub fn start_names(&self) -> Result<(), Error> {
        let mut parts = self.parts();
        let names = parts.names.as_mut().expect("it is there until the end");
        names.start_again()?;
        node::wait_for_names(names, &self.entrance, &self.programs)
    }

    /// How many calls of the operator were about this namespace so far.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no record of calls.
    pub fn calls_about(&self, namespace: &str) -> Result<usize, Error> {
        let part = format!("/namespaces/{namespace}/");
        Ok(self.calls()?.lines().filter(|line| line.contains(&part)).count())
    }

    /// The operator's calls that the API server has refused for want of rights, each as `verb path`: since the start, or since
    /// the last [`Own::restart_api_server`].
    ///
    /// # Errors
    /// [`Error::Io`] if there is no record of calls, [`Error::Strange`] if it cannot be read.
    pub fn refused_calls(&self) -> Result<Vec<String>, Error> {
        let calls = self.calls()?;
        let judged = calls.get(self.parts().calls_judged_from..).unwrap_or_default();
        let mut refused = Vec::new();
        // A line that is still being written is looked at the next time.
        for line in judged.lines().filter(|line| line.ends_with('}')) {
            let call: Value = serde_json::from_str(line).map_err(|_| Error::Strange {
                what: "the record of calls".to_owned(),
                text: line.to_owned(),
            })?;
            // Not every 403 is about rights: in a namespace that is being deleted nothing new may be made.
            if call["annotations"]["authorization.k8s.io/decision"] == "forbid" {
                refused.push(format!("{} {}", call["verb"], call["requestURI"]));
            }
        }
        Ok(refused)
    }

    /// The rights of this role that no call of the operator has used so far, each as `verb resource`.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no record of calls; those of kubectl.
    pub fn unused_rights(&self, role: &str) -> Result<Vec<String>, Error> {
        let role = self.kubectl.json(&["get", "clusterrole", role])?;
        Ok(rights::unused(&role, &self.calls()?))
    }

    /// Sends a signal to the first process of a container, by the runtime's id.
    pub(super) fn signal_container(&self, id: &str, signal: &str) -> Result<(), Error> {
        let mut command = node::ctr(&self.state, &self.entrance, &self.programs);
        run(command.args(["tasks", "kill", "--signal", &format!("SIG{signal}"), id])).map(drop)
    }

    /// A command in the network of a container, by the runtime's id, with the files of the host.
    pub(super) fn in_network_of(&self, id: &str, program: &Path) -> Result<Command, Error> {
        let list = run(node::ctr(&self.state, &self.entrance, &self.programs).args(["tasks", "ls"]))?;
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        let mut rows = list.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
        let pid = rows.find(|row| row.first() == Some(&id)).and_then(|row| row.get(1).copied());
        let pid =
            pid.ok_or_else(|| Error::Strange { what: format!("container {id}"), text: list.clone() })?;
        let mut command = self.entrance.inside("nsenter");
        command.args(["--target", pid, "--net", "--"]).arg(program);
        Ok(command)
    }

    /// Says if any part has ended by itself.
    ///
    /// # Errors
    /// [`Error::Ended`] with the end of its log.
    pub fn check(&self) -> Result<(), Error> {
        let mut parts = self.parts();
        let Parts { control_plane, names, node, .. } = &mut *parts;
        control_plane.as_mut().map_or(Ok(()), ControlPlane::check)?;
        names.as_mut().map_or(Ok(()), Component::check)?;
        node.as_mut().map_or(Ok(()), Node::check)
    }

    pub(super) fn stop(self) -> Result<(), Error> {
        self.end()
    }

    pub(super) fn leave_running(self) -> Result<(), Error> {
        let mut record = self.state.read_record();
        record.owner = None;
        self.state.write_record(&record)?;
        let mut parts = self.parts();
        parts.is_over = true;
        parts.namespaces.take().map_or(Ok(()), Namespaces::let_stay)
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        // A panic of one test while it held this says nothing about the parts.
        self.parts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Ends everything once; a second call finds nothing to do.
    fn end(&self) -> Result<(), Error> {
        let parts = std::mem::replace(&mut *self.parts(), Parts { is_over: true, ..Parts::default() });
        if parts.is_over {
            return Ok(());
        }
        stop::end_processes(&self.state)?;
        if let Some(control_plane) = parts.control_plane {
            control_plane.forget();
        }
        if let Some(names) = parts.names {
            names.forget();
        }
        if let Some(door) = parts.door {
            door.forget();
        }
        if let Some(node) = parts.node {
            node.forget();
        }
        if let Some(namespaces) = parts.namespaces {
            namespaces.wait();
        }
        let _lock = State::lock_all()?;
        stop::stop(&self.state)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the Kubernetes in {} is not stopped whole: {error}", self.state.folder().display());
        }
    }
}
