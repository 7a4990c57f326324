//! What can go wrong in the harness, said so that a reader knows what to do next.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// A failure of the harness. Tests show it and stop; the playground prints it and exits with 1.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An environment variable or argument says something that has no meaning.
    #[error("{variable} is `{value}`; expected: {expected}")]
    Setting {
        /// The variable or argument.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
    /// The machine refuses what only root may do.
    #[error(
        "a Kubernetes of its own needs root (network namespaces, mounts, cgroups), and this is user {uid}. \
         Run the same command as root, for example with `sudo -E env PATH=\"$PATH\"`"
    )]
    NotRoot {
        /// The user's number.
        uid: u32,
    },
    /// Programs of the machine that the harness does not build itself.
    #[error("missing on this machine: {}.\nOn Debian or Ubuntu: apt-get install -y {}", programs.join(", "), packages.join(" "))]
    MissingPrograms {
        /// The programs that are not on the PATH.
        programs: Vec<&'static str>,
        /// The packages that hold them.
        packages: Vec<&'static str>,
    },
    /// The compiler that Kubernetes and Prometheus are built with.
    #[error(
        "building it needs Go 1.26 or newer (or any since 1.21, which fetches that itself), and this machine has {}. \
         See https://go.dev/dl",
        found.as_deref().unwrap_or("none on the PATH")
    )]
    NoGo {
        /// What `go version` says.
        found: Option<String>,
    },
    /// Programs of Kubernetes that have to be built first.
    #[error(
        "not built yet: {} (looked in {}).\n`cargo run -p raftqueue-tests --bin kube -- up` builds them once \
         (about 10 minutes), as does RAFTQUEUE_KUBE=require",
        programs.join(", "), folder.display()
    )]
    NotBuilt {
        /// The programs.
        programs: Vec<&'static str>,
        /// Where they were expected.
        folder: PathBuf,
    },
    /// A Prometheus that knows Kubernetes.
    #[error(
        "there is no Prometheus that knows Kubernetes: `cargo run -p raftqueue-tests --bin kube -- prometheus` builds one once \
         (about 3 minutes), as does RAFTQUEUE_KUBE=require; RAFTQUEUE_PROMETHEUS names another, and Debian's does not know it"
    )]
    NoPrometheus,
    /// A folder that processes inside would not see.
    #[error(
        "{} lies below {hidden}, which is hidden from the processes inside. Choose another place with {variable}",
        folder.display()
    )]
    HiddenFolder {
        /// The folder.
        folder: PathBuf,
        /// What is replaced inside.
        hidden: &'static str,
        /// The variable that moves the folder.
        variable: &'static str,
    },
    /// A Kubernetes of this name runs already.
    #[error("`{name}` runs already, its state is in {}; stop it first: kube down --name {name}", folder.display())]
    RunsAlready {
        /// The name.
        name: String,
        /// Its state folder.
        folder: PathBuf,
    },
    /// No Kubernetes of this name runs.
    #[error(
        "`{name}` does not run; start it first: cargo run -p raftqueue-tests --bin kube -- up --name {name}"
    )]
    NotRunning {
        /// The name.
        name: String,
    },
    /// The operating system refused something.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Its answer.
        source: std::io::Error,
    },
    /// A command said no.
    #[error("`{command}` failed ({status}):\n{output}")]
    Failed {
        /// The command, as typed.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said last.
        output: String,
    },
    /// A part of Kubernetes ended by itself.
    #[error("{component} ended by itself ({status}). Its log is {}, and ends:\n{tail}", log.display())]
    Ended {
        /// Which part.
        component: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// Something did not happen in time.
    #[error("waited {within:?} for {what}; last seen: {seen}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        within: Duration,
        /// What was there instead.
        seen: String,
    },
    /// What only a Kubernetes of our own can do.
    #[error("{what} needs a Kubernetes started by this very process; this one is {kind}")]
    NotOurs {
        /// What was asked for.
        what: &'static str,
        /// What it is instead.
        kind: &'static str,
    },
    /// The product's images cannot be had, and nobody tries again in this run.
    #[error("no images of the product: {why}")]
    Product {
        /// What the first attempt said.
        why: String,
    },
    /// An answer of a program that makes no sense to the harness.
    #[error("{what}: not understood: {text}")]
    Strange {
        /// What answered.
        what: String,
        /// What it said.
        text: String,
    },
}

impl Error {
    /// Names what was tried when the operating system refused it; for `map_err`.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }
}
