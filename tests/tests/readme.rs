//! The README's own commands, typed: a cluster is started, a file is published, the leader is killed with `kill -9`, and
//! what comes out is compared with what went in.
//!
//! By default the development build is used; `RAFTQUEUE_README=release` types the commands to the letter.

use raftqueue_tests::process::{programs, repository};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long the first command may take; it may have to build everything.
const UP_TIMEOUT: Duration = Duration::from_secs(1_800);

/// The shell blocks of the section on trying it out.
fn blocks(readme: &str) -> Vec<String> {
    let section =
        readme.split("\n## ").find(|section| section.starts_with("Try it")).expect("the README has `Try it`");
    section
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

/// Adapts a command to a working folder that is not the repository's, and to the build in use.
fn adapt(command: &str, release: bool) -> String {
    let manifest = repository().join("Cargo.toml");
    let programs = if release { programs().with_file_name("release") } else { programs().to_owned() };
    let command =
        command.replace("cargo run ", &format!("cargo run --manifest-path {} ", manifest.display()));
    let command = command.replace("$PWD/target/release", programs.to_str().expect("a path in UTF-8"));
    if release { command } else { command.replace("--release ", "") }
}

/// `raftq up` in a shell of its own; everything is stopped when it is dropped.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        // The shell was replaced by the program, so this is its pid.
        let _ = Command::new("kill").args(["-s", "INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

fn start(command: &str, folder: &Path) -> (Up, Vec<String>) {
    let mut child = Command::new("bash")
        .args(["-c", &format!("exec {command}")])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash can be started");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let up = Up(child);
    let (said, heard) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(said.send(line))));
    let mut seen = Vec::new();
    loop {
        let line =
            heard.recv_timeout(UP_TIMEOUT).unwrap_or_else(|_| panic!("`{command}` said only: {seen:#?}"));
        let is_last = line.starts_with("Ctrl-C");
        seen.push(line);
        if is_last {
            return (up, seen);
        }
    }
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    #[expect(clippy::disallowed_methods, reason = "tests take their settings from the environment")]
    let release = std::env::var("RAFTQUEUE_README").is_ok_and(|value| value == "release");
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let blocks = blocks(&readme);
    assert_eq!(blocks.len(), 2, "the first terminal and the second");
    let commands: Vec<&str> = blocks[0].lines().collect();
    assert_eq!(commands[1], "cargo test --workspace", "the README's test command is this very run");

    let folder = tempfile::tempdir().unwrap();
    let (up, said) = start(&adapt(commands[0], release), folder.path());
    assert!(said[0].contains("raftqueue-data"), "the folder that is kept is named first: {said:#?}");
    let table: Vec<&String> = said.iter().filter(|line| line.starts_with("node-")).collect();
    assert_eq!(table.len(), 3, "{said:#?}");
    assert_eq!(table.iter().filter(|line| line.contains("leader")).count(), 1, "{said:#?}");

    let script = adapt(&blocks[1], release);
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n--- {out}\n--- {err}");
    assert!(out.ends_with("nothing lost\n"), "{out}\n--- {err}");
    // Compared here too, by what the README's last command leaves behind.
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("orders.txt"), read("received.txt"));
    drop(up);
}
