//! What the pages of the repository say of its code is so: `node/RULES.md` and the tests that hold its rules name each other
//! (a rule that nothing plays is a wish, and a test that cites one which is not there tells its reader nothing), every
//! variable of the environment is told somewhere, the README's tables lack nothing, links lead somewhere, and the version
//! is one.

mod life;
mod links;
mod tables;
mod version;

use raftqueue_tests::process::repository;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folders of the repository with code of the project.
const ROOMS: [&str; 3] = ["node", "operator", "tests"];

/// A rule: its part and its number there.
type Rule = (u32, u32);

#[test]
fn every_rule_has_its_test_and_every_cited_rule_its_paragraph() {
    let told: Vec<Rule> = page("node/RULES.md").lines().filter_map(paragraph).collect();
    let written: BTreeSet<Rule> = told.iter().copied().collect();
    assert!(told.is_sorted(), "rules stand in their order: {told:?}");
    assert_eq!(told.len(), written.len(), "a rule stands once: {told:?}");

    let cited: BTreeSet<Rule> =
        sources().iter().flat_map(|code| code.split("rule_").skip(1).filter_map(cited_by)).collect();
    let untold: Vec<&Rule> = cited.difference(&written).collect();
    assert!(untold.is_empty(), "tests are named after rules that node/RULES.md does not have: {untold:?}");
    let unheld: Vec<&Rule> = written.difference(&cited).collect();
    assert!(unheld.is_empty(), "no test is named after these rules of node/RULES.md: {unheld:?}");
}

#[test]
fn every_rule_tells_its_schedule() {
    for told in page("node/RULES.md").split("\n\n").filter(|told| paragraph(told).is_some()) {
        assert!(told.contains("\n*Schedule:* "), "no schedule: {told}");
    }
}

#[test]
fn every_variable_is_told() {
    let sources = sources();
    let named = |before: &str| -> BTreeSet<&str> {
        sources.iter().flat_map(|code| code.split(before).skip(1).filter_map(variable)).collect()
    };
    // Variables of a command line stand in its `--help`, which is made from the same line.
    let helped = named("env = \"");
    let mut used = named("\"");
    used.extend(named("`"));
    assert!(helped.len() > 20 && used.len() > helped.len(), "the variables were found: {used:?}");
    let page = page(".github/CONTRIBUTING.md");
    let told: BTreeSet<&str> = page.split('`').filter_map(variable).collect();
    let untold: Vec<_> =
        used.iter().filter(|name| !helped.contains(*name) && !told.contains(*name)).collect();
    assert!(untold.is_empty(), ".github/CONTRIBUTING.md does not tell what these do: {untold:?}");
    let gone: Vec<_> = told.difference(&used).collect();
    assert!(gone.is_empty(), ".github/CONTRIBUTING.md tells of variables that nothing reads: {gone:?}");
}

fn page(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rule that a line of `**N.M Title.**` begins.
fn paragraph(line: &str) -> Option<Rule> {
    let (number, _) = line.strip_prefix("**")?.split_once(' ')?;
    let (part, number) = number.split_once('.')?;
    Some((part.parse().ok()?, number.parse().ok()?))
}

/// The rule that a name goes on with after `rule_`: `N_M_` and words.
fn cited_by(rest: &str) -> Option<Rule> {
    let mut parts = rest.splitn(3, '_');
    let rule = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next()?.starts_with(|first: char| first.is_ascii_lowercase()).then_some(rule)
}

/// The variable of ours that a text begins with, whole.
fn variable(rest: &str) -> Option<&str> {
    let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(rest.len());
    let name = &rest[..end];
    (name.starts_with("RAFTQUEUE_") && !name.ends_with('_')).then_some(name)
}

/// The code of the project, file by file.
fn sources() -> Vec<String> {
    let mut files = Vec::new();
    ROOMS.iter().for_each(|room| collect(&repository().join(room), &mut files));
    assert!(files.len() > 100, "the sources were found");
    files.iter().map(|file| std::fs::read_to_string(file).expect("sources are text")).collect()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry of a folder").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}
