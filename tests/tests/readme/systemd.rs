//! `deploy/systemd`: the unit is one that systemd takes and calls well locked in, and three nodes that are started by the very
//! line of its ExecStart, with the settings that its page tells, form a cluster.

use raftqueue_tests::process::{programs, repository, wait_for};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const FOLDER: &str = "deploy/systemd";
/// How open a service is by systemd's count, in tenths: 0 is closed, 100 open. Up to 20 it is called OK.
const EXPOSURE_TENTHS_MAX: u32 = 20;

fn page(name: &str) -> String {
    let path = repository().join(FOLDER).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The value of a setting that stands once in a unit or a file of variables.
fn value<'a>(file: &'a str, name: &str) -> &'a str {
    let mut values = file.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(values.next().is_none(), "{name} stands twice");
    value
}

/// The row of a table in the page, by its first cell: the machines' cells.
fn row(page: &str, first: &str) -> Vec<String> {
    let line = page.lines().find(|line| line.starts_with(&format!("| {first} |")));
    let line = line.unwrap_or_else(|| panic!("the page has no row `{first}`"));
    line.trim_matches('|').split('|').skip(1).map(|cell| cell.trim().to_owned()).collect()
}

/// Three nodes; they are stopped when they are dropped.
struct Nodes(Vec<Child>);

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.0 {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Settings as they stand in a page, for machines that are addresses of this one, which no other process of this test has. So their
/// ports are those of the page.
fn here(text: &str) -> String {
    let own = std::process::id();
    text.replace("10.0.0.", &format!("127.{}.{}.", 64 + (own >> 8) % 64, own % 256))
}

pub(crate) fn nodes_started_by_the_units_line_form_a_cluster() {
    let (unit, settings, readme) = (page("raftqueue.service"), page("raftqueue.conf"), page("README.md"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    let line = value(&unit, "ExecStart");
    let (program, arguments) = line.split_once(' ').expect("a program and its arguments");
    assert_eq!(program, "/usr/local/bin/raftqueue-node");
    assert!(arguments.contains("--data-dir /var/lib/raftqueue"), "{line}");
    assert_eq!(value(&unit, "StateDirectory"), "raftqueue");
    // The file that is shipped is that of the first machine.
    for name in ["RAFTQUEUE_NAME", "RAFTQUEUE_CLIENT_LISTEN"] {
        assert_eq!(row(&readme, &format!("`{name}`"))[0], value(&settings, name));
    }

    let (names, listens) = (row(&readme, "`RAFTQUEUE_NAME`"), row(&readme, "`RAFTQUEUE_CLIENT_LISTEN`"));
    let mut nodes = Nodes(Vec::new());
    for machine in 0..3 {
        let data = folder.path().join(&names[machine]);
        let arguments = arguments.replace("/var/lib/raftqueue", data.to_str().expect("a path in UTF-8"));
        let mut node = Command::new(programs().join("raftqueue-node"));
        node.args(arguments.split(' '));
        let lines = settings.lines().filter(|line| !line.starts_with('#'));
        for (name, value) in lines.filter_map(|line| line.split_once('=')) {
            let own = match name {
                "RAFTQUEUE_NAME" => &names[machine],
                "RAFTQUEUE_CLIENT_LISTEN" => &listens[machine],
                _ => value,
            };
            node.env(name, here(own));
        }
        nodes.0.push(node.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("a node can be started"));
    }

    let endpoints = here(&listens.join(","));
    let raftq = |words: &[&str]| {
        let mut command = Command::new(programs().join("raftq"));
        command.args(["--endpoints", &endpoints, "--output", "plain"]).args(words);
        command.output().expect("raftq can be started")
    };
    wait_for("a leader", String::new, || {
        let output = raftq(&["status", "--leader"]);
        output
            .status
            .success()
            .then_some(())
            .ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
    });
    assert!(raftq(&["topic", "create", "orders"]).status.success());
    assert!(raftq(&["publish", "orders", "hello"]).status.success());
    assert_eq!(raftq(&["receive", "orders", "--ack"]).stdout, b"hello\n");
    let members = String::from_utf8(raftq(&["members", "list"]).stdout).expect("names are text");
    assert!(names.iter().all(|name| members.contains(name.as_str())), "{members}");
}

pub(crate) fn takes_the_unit_and_calls_it_locked_in(version: u32) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let unit = folder.path().join("raftqueue.service");
    let node = programs().join("raftqueue-node");
    let text = page("raftqueue.service")
        .replace("/usr/local/bin/raftqueue-node", node.to_str().expect("a path in UTF-8"));
    std::fs::write(&unit, text).expect("it can be written");
    let said = analyze(&["verify"], &unit);
    assert_eq!(said, (true, String::new()), "systemd {version} finds fault with the unit");
    let threshold = format!("--threshold={EXPOSURE_TENTHS_MAX}");
    let (is_closed, said) = analyze(&["security", "--offline=yes", "--no-pager", &threshold], &unit);
    assert!(is_closed, "the unit is open in more than it needs: {said}");
}

/// The version of systemd on this machine, if it can look at files.
pub(crate) fn version() -> Option<u32> {
    let output = Command::new("systemd-analyze").arg("--version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?.split_whitespace().nth(1)?.parse().ok()?;
    (version >= 251).then_some(version)
}

/// Whether systemd is content, and what it says.
fn analyze(words: &[&str], unit: &Path) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(words).arg(unit).output().expect("it was found before");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
