//! A Kubernetes that outlives the process that started it, used by later ones: what the command `kube` does beyond starting
//! and stopping.
//!
//! Its network has no link to the host, on purpose: an address on the host could collide with the user's own, and a packet
//! filter of the host could forbid it. Instead, two commands in the state folder enter the network.

use super::cache::Programs;
use super::collect;
use super::command::{make_folder, write};
use super::environment;
use super::error::Error;
use super::images::Image;
use super::kubectl::Kubectl;
use super::namespace::Entrance;
use super::node;
use super::own::Own;
use super::state::State;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// True while it runs.
#[must_use]
pub fn is_running(state: &State) -> bool {
    Entrance::of(state).is_ok()
}

/// Writes the commands that [`shell_settings`] puts on the PATH.
///
/// # Errors
/// [`Error::Io`].
pub fn write_commands(own: &Own) -> Result<(), Error> {
    let (state, entrance) = (own.state(), own.entrance());
    make_folder(&state.path("bin"))?;
    let kubectl = Kubectl::of(state, entrance, own.program("kubectl"));
    // As variables, not as words: `kubectl --kubeconfig=... raftq` finds no plugin.
    let settings: String =
        kubectl.settings().iter().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect();
    for (name, settings, command) in [
        ("kubectl", settings.as_str(), kubectl.bare_command()),
        ("inside", "", entrance.in_network_with_names("env")),
    ] {
        let path = state.path(&format!("bin/{name}"));
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| quoted(&word.to_string_lossy()))
            .collect();
        write(&path, format!("#!/bin/sh\n{settings}exec {} \"$@\"\n", words.join(" ")))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .map_err(Error::io(format!("make {} a command", path.display())))?;
    }
    Ok(())
}

/// What a shell evaluates to use it.
///
/// # Errors
/// [`Error::NotRunning`].
pub fn shell_settings(state: &State) -> Result<String, Error> {
    Entrance::of(state)?;
    let (kubeconfig, folder) = (state.text("kubeconfig"), state.text("bin"));
    Ok(format!(
        "# `kubectl` now talks to `{name}`; `inside COMMAND` runs any command in its network, where the addresses and\n\
         # names of pods and services work: inside raftq --addr http://demo.default:7420 status\n\
         export KUBECONFIG='{kubeconfig}'\n\
         case \":$PATH:\" in *':{folder}:'*) ;; *) export PATH='{folder}':\"$PATH\" ;; esac\n",
        name = state.name()
    ))
}

/// Gives an image to its node.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::Failed`] with what the runtime said.
pub fn load(state: &State, image: &Image) -> Result<(), Error> {
    node::import(state, &Entrance::of(state)?, &Programs::find()?, image)
}

/// Collects what explains its state into a folder of `target/kube-reports`, and returns it.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::Io`].
pub fn collect(state: &State) -> Result<PathBuf, Error> {
    let kubectl = Kubectl::of(state, &Entrance::of(state)?, Programs::find()?.path("kubectl"));
    let folder = environment::report_folder(state.name());
    collect::collect(&kubectl, Some(state), &folder)?;
    Ok(folder)
}

/// A word for a shell script, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
