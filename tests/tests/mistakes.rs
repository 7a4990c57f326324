//! The script of ordinary mistakes: what a new user types wrong, with which code it ends, and what the message must name.
//!
//! Each line of `mistakes/script.txt` is typed in a shell beside a real `raftq up` of three nodes.

use raftqueue_tests::process::{PATIENCE, Up, programs};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const SCRIPT: &str = include_str!("mistakes/script.txt");

/// A line of the script.
struct Mistake {
    typed: &'static str,
    code: i32,
    /// What standard error must name.
    named: Vec<&'static str>,
}

/// The lines, in order: `CODE TYPED -> NAMED; NAMED`, or `CODE TYPED` where nothing need be said. Those that begin with # are for readers.
fn mistakes() -> Vec<Mistake> {
    let lines = SCRIPT.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| mistake(line).unwrap_or_else(|| panic!("no line of a script: {line}"))).collect()
}

fn mistake(line: &'static str) -> Option<Mistake> {
    let (code, rest) = line.split_once(' ')?;
    let (typed, named) = rest.split_once(" -> ").unwrap_or((rest, ""));
    let named = named.split("; ").map(str::trim).collect();
    Some(Mistake { typed, code: code.parse().ok()?, named })
}

/// What is wrong with an answer; nothing if it leads whoever made the mistake.
fn judge(mistake: &Mistake, output: &Output) -> Vec<String> {
    let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut wrong = Vec::new();
    if output.status.code() != Some(mistake.code) {
        wrong.push(format!("ends with {}, not with {}", output.status, mistake.code));
    }
    let missing = mistake.named.iter().filter(|named| !said.contains(**named));
    wrong.extend(missing.map(|named| format!("does not name `{named}`")));
    // Whatever is said: in whole lines, of no insides, and of an unknown outcome only where the code says so.
    for never in ["\\n", "panicked"] {
        if said.contains(never) {
            wrong.push(format!("says `{never}`"));
        }
    }
    if mistake.code != 4 && said.contains("may have been done") {
        wrong.push("says that it may have been done".into());
    }
    if !wrong.is_empty() {
        wrong.push(format!("it printed: {out}\n      it said: {said}"));
    }
    wrong
}

/// A first port of which all that `raftq up` takes for three nodes are free, below those that other tests take.
fn free_base_port() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = std::process::id().wrapping_mul(11);
    let all = (0..100).map(|step| 2_000 + 50 * u16::try_from((first + step) % 100).expect("below 100"));
    let mut free = all.filter(|base| (0..3).all(|node| (0..4).all(|at| is_free(base + 10 * node + at))));
    free.next().expect("some ports are free")
}

/// A cluster as `raftq up` starts it, in `folder`.
fn start(folder: &Path, base_port: u16) -> Up {
    let mut command = Command::new(programs().join("raftq"));
    command.args(["up", "--base-port", &base_port.to_string(), "--election-timeout-ms", "2000"]);
    Up::start(command.current_dir(folder), PATIENCE).0
}

/// What the script may name besides `raftq`: see its head.
fn variables(base_port: u16) -> BTreeMap<&'static str, String> {
    let at = |port: u16| format!("127.0.0.1:{port}");
    let nodes: Vec<String> = (0..3).map(|node| at(base_port + 10 * node)).collect();
    let nowhere = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
    BTreeMap::from([
        ("RAFTQ_ENDPOINTS", nodes.join(",")),
        ("NODE", nodes[0].clone()),
        ("PEERS", at(base_port + 1)),
        ("METRICS", at(base_port + 2)),
        ("NOWHERE", nowhere.to_string()),
        ("BASE", base_port.to_string()),
    ])
}

fn typed(words: &str, folder: &Path, variables: &BTreeMap<&'static str, String>) -> Output {
    #[expect(clippy::disallowed_methods, reason = "a shell finds its programs there")]
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new("bash")
        .args(["-c", words])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", programs().display()))
        .envs(variables)
        .stdin(Stdio::null())
        .output()
        .expect("bash can be started")
}

#[test]
fn whoever_makes_an_ordinary_mistake_is_led() {
    let (folder, base_port) = (tempfile::tempdir().expect("a folder"), free_base_port());
    let up = start(folder.path(), base_port);
    let variables = variables(base_port);
    for words in ["raftq topic create orders", "raftq publish orders one two", "raftq topic create empty"] {
        let output = typed(words, folder.path(), &variables);
        assert!(output.status.success(), "{words}: {output:?}");
    }
    let mut wrong = String::new();
    for mistake in mistakes() {
        for what in judge(&mistake, &typed(mistake.typed, folder.path(), &variables)) {
            let _ = writeln!(wrong, "  {}\n    {what}", mistake.typed);
        }
    }
    drop(up);
    assert!(wrong.is_empty(), "nobody is led by what is said of these:\n{wrong}");
}
