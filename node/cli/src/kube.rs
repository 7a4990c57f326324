//! The nodes of a RaftQueue object from outside Kubernetes: kubectl opens a port of this machine for each that runs. This program
//! knows nothing of Kubernetes itself; whatever kubectl may do, with its kubeconfig and its rights, it can.
//!
//! A node passes on what another one must do, so one that cannot be reached costs nothing.

use crate::failure::Failure;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Under this name the program is `kubectl raftq`.
const PLUGIN: &str = "kubectl-raftq";
/// The port of clients, in a pod.
const PORT: u16 = 7420;
/// Runs kubectl for as long as its own input is open: a child that is told nothing would outlive whoever was killed.
const HELD: &str = r#"kubectl "$@" & exec >&-; cat >/dev/null; kill $!"#;

/// Ports of this machine that lead to nodes, until this is dropped.
pub(crate) struct Forwards {
    pub(crate) endpoints: Vec<String>,
    children: Vec<Child>,
}

impl Drop for Forwards {
    fn drop(&mut self) {
        self.children.iter_mut().for_each(|child| drop(child.stdin.take()));
        for child in &mut self.children {
            // It ends by itself; how is nobody's concern.
            let _ = child.wait();
        }
    }
}

/// The words of the command line. Those of `kubectl raftq [-n NAMESPACE] NAME COMMAND` become those of
/// `raftq --kube [NAMESPACE/]NAME COMMAND`.
pub(crate) fn words(all: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut all = all.into_iter();
    let Some(program) = all.next() else { return Vec::new() };
    if Path::new(&program).file_stem() != Some(OsStr::new(PLUGIN)) {
        return [program].into_iter().chain(all).collect();
    }
    let mut rest: Vec<OsString> = all.collect();
    let mut namespace = None;
    if let Some(first) = rest.first().and_then(|word| word.to_str()).map(str::to_owned) {
        if let Some(value) = first.strip_prefix("--namespace=") {
            namespace = Some(value.to_owned());
            rest.remove(0);
        } else if (first == "-n" || first == "--namespace") && rest.len() > 1 {
            namespace = rest[1].to_str().map(str::to_owned);
            rest.drain(..2);
        }
    }
    let name = rest.first().and_then(|word| word.to_str()).filter(|word| !word.starts_with('-'));
    let Some(name) = name.map(str::to_owned) else { return [program].into_iter().chain(rest).collect() };
    let queue = namespace.map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"));
    let words = [program, "--kube".into(), queue.into()];
    words.into_iter().chain(rest.into_iter().skip(1)).collect()
}

/// Reaches the nodes of a RaftQueue, `NAME` or `NAMESPACE/NAME`.
pub(crate) fn reach(queue: &str) -> Result<Forwards, Failure> {
    let (namespace, name) = match queue.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, queue),
    };
    if name.is_empty() || name.starts_with('-') || name.contains('/') || namespace == Some("") {
        return Err(Failure::Usage(format!(
            "--kube is {queue:?}, but must be the name of a RaftQueue, such as demo or shop/demo"
        )));
    }
    let place: Vec<String> =
        namespace.map(|namespace| format!("--namespace={namespace}")).into_iter().collect();
    let status = asked(&place, &["get", "raftqueue", name, "-o", "jsonpath={.status.message}"])?;
    let selector = format!("app.kubernetes.io/instance={name},app.kubernetes.io/component=node");
    let running = "--field-selector=status.phase=Running";
    let names = "jsonpath={.items[*].metadata.name}";
    let pods = asked(&place, &["get", "pods", "-l", &selector, running, "-o", names])?;
    if pods.trim().is_empty() {
        let why = if status.is_empty() { "no operator has looked at it yet" } else { status.trim() };
        return Err(Failure::Failed(format!("no node of RaftQueue {queue} runs: {why}")));
    }
    let mut forwards = Forwards { endpoints: Vec::new(), children: Vec::new() };
    let mut why = String::new();
    for pod in pods.split_whitespace() {
        match forward(&place, pod) {
            Ok((endpoint, child)) => {
                forwards.endpoints.push(endpoint);
                forwards.children.push(child);
            }
            Err(error) => why = error,
        }
    }
    if forwards.endpoints.is_empty() {
        return Err(Failure::Failed(format!("the nodes of RaftQueue {queue} cannot be reached: {why}")));
    }
    Ok(forwards)
}

/// What kubectl answers.
fn asked(place: &[String], words: &[&str]) -> Result<String, Failure> {
    let output = Command::new("kubectl").args(place).args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::Failed("--kube needs kubectl, which is not in the PATH".into()),
        _ => Failure::Failed(format!("cannot start kubectl: {error}")),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::Failed(format!("kubectl says: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// Opens a port that leads to a pod.
fn forward(place: &[String], pod: &str) -> Result<(String, Child), String> {
    let mut command = Command::new("sh");
    command.args(["-c", HELD, "sh"]).args(place).args(["port-forward", "--address=127.0.0.1"]);
    command.args([format!("pod/{pod}"), format!(":{PORT}")]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|error| format!("cannot start sh: {error}"))?;
    let (Some(out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("kubectl has no output".to_owned());
    };
    let mut out = BufReader::new(out);
    let mut line = String::new();
    let read = out.read_line(&mut line);
    let endpoint = read.ok().and_then(|_| forwarded(&line));
    let Some(endpoint) = endpoint else {
        drop(child.stdin.take());
        let mut said = String::new();
        let _ = err.read_to_string(&mut said);
        let _ = child.wait();
        return Err(format!("{pod}: {} {}", line.trim(), said.trim()));
    };
    // What it says of every connection is for nobody, and must be read for it to go on.
    for mut rest in [Box::new(out) as Box<dyn Read + Send>, Box::new(err)] {
        std::thread::spawn(move || std::io::copy(&mut rest, &mut std::io::sink()));
    }
    Ok((endpoint, child))
}

/// The address in `Forwarding from 127.0.0.1:40321 -> 7420`.
fn forwarded(line: &str) -> Option<String> {
    let address = line.strip_prefix("Forwarding from ")?.split_whitespace().next()?;
    address.parse::<std::net::SocketAddr>().ok().map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(text: &str) -> String {
        let all = words(text.split(' ').map(OsString::from));
        all.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn as_a_plugin_the_object_comes_first() {
        for (said, meant) in [
            ("raftq receive orders -n 3", "raftq receive orders -n 3"),
            ("/bin/kubectl-raftq demo status", "/bin/kubectl-raftq --kube demo status"),
            (
                "kubectl-raftq -n shop demo receive orders -n 3",
                "kubectl-raftq --kube shop/demo receive orders -n 3",
            ),
            ("kubectl-raftq --namespace=shop demo status", "kubectl-raftq --kube shop/demo status"),
            ("kubectl-raftq --namespace shop demo status", "kubectl-raftq --kube shop/demo status"),
            ("kubectl-raftq --help", "kubectl-raftq --help"),
            ("kubectl-raftq", "kubectl-raftq"),
            ("kubectl-raftq -n", "kubectl-raftq -n"),
        ] {
            assert_eq!(words_of(said), meant);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_before_anything_is_started() {
        for queue in ["", "shop/", "/demo", "a/b/c", "-A"] {
            let Err(Failure::Usage(text)) = reach(queue) else { panic!("{queue} is no name") };
            assert!(text.contains("such as demo or shop/demo"), "{text}");
        }
    }

    #[test]
    fn the_port_is_read_from_what_kubectl_says() {
        assert_eq!(
            forwarded("Forwarding from 127.0.0.1:40321 -> 7420\n").as_deref(),
            Some("127.0.0.1:40321")
        );
        for line in ["", "error: unable to forward port", "Forwarding from nowhere -> 7420"] {
            assert_eq!(forwarded(line), None, "{line}");
        }
    }
}
