//! The README's own commands, typed on a terminal: a cluster is started, a file is published, the leader is killed, what comes
//! out is compared with what went in, a message dies and is redriven; and what is printed is what the README shows.
//!
//! By default the development build is used; `RAFTQUEUE_README=release` types the commands to the letter.

mod shown;
mod systemd;

use libtest_mimic::{Arguments, Completion, Trial};
use raftqueue_tests::process::{Up, programs, repository};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// How long the first command may take; it may have to build everything.
const UP_TIMEOUT: Duration = Duration::from_secs(1_800);
/// Typed between two blocks: whoever reads is slower than a node is back that was killed.
const SLOWLY: &str = "until [ \"$(raftq status 2> /dev/null | grep -cw yes)\" = 3 ]; do sleep 0.1; done\n";
/// Printed between two blocks that are typed on one terminal.
const NEXT: &str = "--- next";

fn main() -> ExitCode {
    let case = |name, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let taken = Trial::ignorable_test("systemd_takes_the_unit_and_calls_it_locked_in", || {
        let Some(version) = systemd::version() else {
            return Ok(Completion::ignored_with("there is no systemd-analyze of version 251 or newer"));
        };
        systemd::takes_the_unit_and_calls_it_locked_in(version);
        Ok(Completion::Completed)
    });
    let typed = Trial::ignorable_test("the_commands_of_the_readme_do_what_it_says", || {
        // What the README asks of a machine is the toolchain alone; who types its commands has these, too.
        for program in ["curl", "script"] {
            if Command::new(program).arg("--version").output().is_err() {
                return Ok(Completion::ignored_with(format!("there is no {program}")));
            }
        }
        the_commands_of_the_readme_do_what_it_says();
        Ok(Completion::Completed)
    });
    let cases = vec![
        typed,
        case(
            "what_differs_from_run_to_run_is_no_difference_and_all_else_is",
            shown::only_what_differs_is_left_out,
        ),
        case(
            "nodes_started_by_the_units_line_form_a_cluster",
            systemd::nodes_started_by_the_units_line_form_a_cluster,
        ),
        taken,
    ];
    libtest_mimic::run(&Arguments::from_args(), cases).exit_code()
}

/// A shell block of the README, and what the README says that it prints.
struct Block {
    commands: String,
    prints: Vec<String>,
}

/// The shell blocks of a section, each with the text that follows it.
fn blocks(readme: &str, section: &str) -> Vec<Block> {
    let found = readme.split("\n## ").find(|text| text.starts_with(section));
    let section = found.unwrap_or_else(|| panic!("the README has `{section}`"));
    let block = |rest: &str| {
        let (commands, after) = rest.split_once("```").expect("a block ends");
        let shown = after.split("```sh\n").next().and_then(|until| until.split_once("```text\n"));
        let prints = shown.map(|(_, text)| text.split("```").next().unwrap_or_default()).unwrap_or_default();
        Block { commands: commands.to_owned(), prints: prints.lines().map(str::to_owned).collect() }
    };
    section.split("```sh\n").skip(1).map(block).collect()
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

/// `raftq up` as it is typed; the shell is replaced by the program.
fn start(command: &str, folder: &Path) -> (Up, Vec<String>) {
    let mut shell = Command::new("bash");
    Up::start(shell.args(["-c", &format!("exec {command}")]).current_dir(folder), UP_TIMEOUT)
}

/// Types blocks one after the other on one terminal, and returns what each printed there. What programs say of their
/// progress is left out.
fn type_all(blocks: &[Block], folder: &Path, release: bool) -> Vec<Vec<String>> {
    let (between, cut) = (format!("{SLOWLY}echo '{NEXT}'\n"), format!("{NEXT}\n"));
    let typed = blocks.iter().map(|block| adapt(&block.commands, release)).collect::<Vec<_>>().join(&between);
    std::fs::write(folder.join("typed.sh"), &typed).expect("it can be written");
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", "bash -euo pipefail typed.sh 2> said.txt", "/dev/null"])
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("`script` is there, which gives a command a terminal");
    let out = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let said = std::fs::read_to_string(folder.join("said.txt")).unwrap_or_default();
    assert!(output.status.success(), "{typed}\n--- {out}\n--- {said}");
    out.split(&cut).map(|part| part.lines().map(str::to_owned).collect()).collect()
}

fn the_commands_of_the_readme_do_what_it_says() {
    #[expect(clippy::disallowed_methods, reason = "tests take their settings from the environment")]
    let release = std::env::var("RAFTQUEUE_README").is_ok_and(|value| value == "release");
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("the README is there");
    let tests = blocks(&readme, "Working on it");
    assert_eq!(tests[0].commands, "cargo test --workspace\n", "the README's test command is this very run");
    let blocks = blocks(&readme, "Try it");
    assert_eq!(blocks.len(), 4, "the first terminal; a killed leader, a message that dies, plain HTTP");

    let folder = tempfile::tempdir().expect("a folder can be made");
    let (up, said) = start(&adapt(blocks[0].commands.trim_end(), release), folder.path());
    assert!(said[0].contains("raftqueue-data"), "the folder that is kept is named first: {said:#?}");
    let table: Vec<&String> = said.iter().filter(|line| line.starts_with("node-")).collect();
    assert_eq!(table.len(), 3, "{said:#?}");
    assert_eq!(table.iter().filter(|line| line.contains("leader")).count(), 1, "{said:#?}");
    shown::assert_among(&blocks[0].prints, &said);

    let printed = type_all(&blocks[1..], folder.path(), release);
    for (block, printed) in blocks[1..].iter().zip(&printed) {
        shown::assert_same(&block.prints, printed);
    }
    // Compared here too, by what the README's commands leave behind.
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a command wrote it");
    assert_eq!(read("orders.txt"), read("received.txt"));
    drop(up);
}
