//! Every environment variable that the harness obeys. Nothing else in `kube` reads the environment.

use super::error::Error;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Whether the tests on a real Kubernetes run, as `RAFTQUEUE_KUBE` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Unset or empty: every case is shown as ignored.
    Off,
    /// `auto`: they run if the programs are there already; nothing is built.
    Auto,
    /// `require`: what is missing is built, and a case that cannot run fails.
    Require,
}

impl Mode {
    /// Reads `RAFTQUEUE_KUBE`.
    ///
    /// # Errors
    /// [`Error::Setting`] for any other word: whoever set it must correct it.
    pub fn read() -> Result<Self, Error> {
        match variable("RAFTQUEUE_KUBE").as_deref() {
            None => Ok(Self::Off),
            Some("auto") => Ok(Self::Auto),
            Some("require") => Ok(Self::Require),
            Some(other) => Err(Error::Setting {
                variable: "RAFTQUEUE_KUBE",
                value: other.to_owned(),
                expected: "unset, `auto` or `require`",
            }),
        }
    }
}

/// The kubeconfig of a cluster that is not ours (`RAFTQUEUE_TEST_KUBECONFIG`): then nothing is started.
#[must_use]
pub fn foreign_kubeconfig() -> Option<PathBuf> {
    variable("RAFTQUEUE_TEST_KUBECONFIG").map(PathBuf::from)
}

/// A program named by the conventions of Kubernetes' own test tools: `TEST_ASSET_KUBE_APISERVER` and the like name one
/// program, `KUBEBUILDER_ASSETS` names a folder.
#[must_use]
pub fn named_program(name: &str) -> Option<PathBuf> {
    let own = format!("TEST_ASSET_{}", name.to_uppercase().replace('-', "_"));
    if let Some(program) = variable(&own) {
        return Some(PathBuf::from(program));
    }
    let program = PathBuf::from(variable("KUBEBUILDER_ASSETS")?).join(name);
    program.is_file().then_some(program)
}

/// How long the API server is away in the test of that (`RAFTQUEUE_OUTAGE_SECONDS`): by default a little longer than an operator
/// goes on without its lease.
///
/// # Errors
/// [`Error::Setting`] if it is no number.
pub fn outage() -> Result<Duration, Error> {
    Ok(seconds("RAFTQUEUE_OUTAGE_SECONDS")?.unwrap_or(Duration::from_secs(12)))
}

/// For how long an operator is killed at all its writes (`RAFTQUEUE_OPERATOR_KILLS`); absent: at a few of them.
///
/// # Errors
/// [`Error::Setting`] if it is no number.
pub fn operator_kills() -> Result<Option<Duration>, Error> {
    seconds("RAFTQUEUE_OPERATOR_KILLS")
}

/// Which flows an operator is killed in for that long, and after which write first (`RAFTQUEUE_OPERATOR_KILLS_FROM`, such as
/// `roll:8,disk:4`: those that an earlier run has left); empty: all, each from its beginning.
///
/// # Errors
/// [`Error::Setting`] if it is anything else.
pub fn operator_kills_from() -> Result<BTreeMap<String, usize>, Error> {
    let name = "RAFTQUEUE_OPERATOR_KILLS_FROM";
    let Some(value) = variable(name) else { return Ok(BTreeMap::new()) };
    let one = |part: &str| {
        let (flow, write) = part.split_once(':')?;
        Some((flow.to_owned(), write.parse().ok().filter(|write| *write > 0)?))
    };
    let all: Option<_> = value.split(',').map(one).collect();
    let expected = "flows and the first write of each, such as roll:8,disk:4";
    all.ok_or_else(|| Error::Setting { variable: name, value: value.clone(), expected })
}

/// For how long random hands act on a cluster (`RAFTQUEUE_HANDS`), and with which seed they begin (`RAFTQUEUE_HANDS_SEED`).
///
/// # Errors
/// [`Error::Setting`] if one of them is no number.
pub fn hands() -> Result<(Option<Duration>, Option<u64>), Error> {
    let seed = seconds("RAFTQUEUE_HANDS_SEED")?.map(|seed| seed.as_secs());
    Ok((seconds("RAFTQUEUE_HANDS")?, seed))
}

/// The program helm (`RAFTQUEUE_HELM`). It is not built here: it is made of another version of Kubernetes, which would cost a fresh
/// machine minutes. `go get -tool helm.sh/helm/v4/cmd/helm` in a module of one's own, and `go build` of the same, make it.
#[must_use]
pub fn helm() -> Option<PathBuf> {
    variable("RAFTQUEUE_HELM").map(PathBuf::from)
}

/// How many objects an operator looks after in the case of that (`RAFTQUEUE_OBJECTS`).
///
/// # Errors
/// [`Error::Setting`] if it is no number.
pub fn operator_objects() -> Result<usize, Error> {
    let name = "RAFTQUEUE_OBJECTS";
    let value = variable(name).unwrap_or_else(|| "6".to_owned());
    value.parse().map_err(|_| Error::Setting { variable: name, value, expected: "a number, such as 300" })
}

fn seconds(name: &'static str) -> Result<Option<Duration>, Error> {
    let Some(value) = variable(name) else { return Ok(None) };
    let expected = "a number of seconds, such as 180";
    let seconds = value.parse().map_err(|_| Error::Setting { variable: name, value, expected })?;
    Ok(Some(Duration::from_secs(seconds)))
}

/// The folder that outlives repositories and builds: `$XDG_CACHE_HOME/raftqueue`, else `~/.cache/raftqueue`.
///
/// # Errors
/// [`Error::Setting`] if neither variable is set.
pub fn cache_folder() -> Result<PathBuf, Error> {
    let base = match (variable("XDG_CACHE_HOME"), variable("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => PathBuf::from(home).join(".cache"),
        (None, None) => {
            return Err(Error::Setting {
                variable: "XDG_CACHE_HOME",
                value: String::new(),
                expected: "a folder to keep programs in (HOME is not set either)",
            });
        }
    };
    Ok(base.join("raftqueue"))
}

/// The folder that holds the state of every Kubernetes of this harness that runs here: `$TMPDIR/raftqueue-kube`.
#[must_use]
pub fn state_parent() -> PathBuf {
    std::env::temp_dir().join("raftqueue-kube")
}

/// Cargo's target folder, which `CARGO_TARGET_DIR` moves.
#[must_use]
pub fn target_folder() -> PathBuf {
    let root = crate::process::repository();
    variable("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}

/// Where the evidence of a failure is kept: below `target`, so that nobody commits it.
#[must_use]
pub fn report_folder(title: &str) -> PathBuf {
    target_folder().join("kube-reports").join(title)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the harness takes its settings from the environment, here only"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
