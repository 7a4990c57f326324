//! What Prometheus and Grafana are given: nothing in it names a series that no node has, and nothing of storage is left out.
//!
//! `RAFTQUEUE_PROMTOOL=PROGRAM` has promtool check the rules and run their tests.

use raftqueue_tests::process::repository;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const RULES: &str = "deploy/monitoring/storage-rules.yaml";
const RULES_TEST: &str = "deploy/monitoring/storage-rules-test.yaml";
const DASHBOARD: &str = "deploy/monitoring/storage-dashboard.json";
const RUNBOOK: &str = "deploy/runbooks/storage.md";

/// What the series about storage begin with.
const STORAGE: [&str; 10] = [
    "raftqueue_compaction",
    "raftqueue_damaged",
    "raftqueue_data",
    "raftqueue_file",
    "raftqueue_incomplete",
    "raftqueue_install",
    "raftqueue_kept",
    "raftqueue_snapshot",
    "raftqueue_wal_released",
    "raftqueue_wal_seg",
];

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every series of a node, a histogram with what it exports.
fn series() -> BTreeSet<String> {
    let mut series = BTreeSet::new();
    for line in read("node/src/metrics/series.txt").lines().filter(|line| line.starts_with("raftqueue_")) {
        let name = line.split(['{', ' ']).next().expect("a name");
        match line.ends_with("histogram") {
            true => series.extend(["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}"))),
            false => drop(series.insert(name.to_owned())),
        }
    }
    series
}

/// The names in a text that begin as series do; recorded ones have colons.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
    let words = text.split(|character| !is_part(character));
    let is_name = |word: &&str| word.starts_with("raftqueue_") || word.starts_with("raftqueue:");
    words.filter(is_name).map(|word| word.trim_end_matches(':').to_owned()).collect()
}

/// What stands behind a key of the rules, by the alert or record that it belongs to.
fn rules(key: &str) -> BTreeMap<String, String> {
    let (mut of, mut found, mut is_in) = (String::new(), BTreeMap::<String, String>::new(), false);
    for line in read(RULES).lines() {
        let line = line.trim();
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let (word, rest) =
            line.split_once(": ").map_or((line.trim_end_matches(':'), ""), |(word, rest)| (word, rest));
        if let Some(name) = line.strip_prefix("- alert: ").or(line.strip_prefix("- record: ")) {
            (of, is_in) = (name.to_owned(), false);
        } else if word == key {
            is_in = true;
            found.insert(of.clone(), rest.trim_start_matches(">-").to_owned());
        } else if ["expr", "for", "labels", "annotations", "summary", "runbook"].contains(&word) {
            is_in = false;
        } else if is_in {
            found.get_mut(&of).expect("it has begun").push_str(line);
        }
    }
    found
}

fn alerts() -> Vec<String> {
    rules("for").into_keys().collect()
}

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("it is JSON");
    dashboard["panels"].as_array().expect("it has panels").clone()
}

fn queries() -> Vec<String> {
    let targets =
        panels().into_iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect()
}

#[test]
fn rules_and_panels_ask_for_series_that_nodes_have() {
    let (known, expressions) = (series(), rules("expr"));
    assert!(expressions.len() > 9, "{expressions:?}");
    let recorded: BTreeSet<String> = expressions.keys().filter(|name| name.contains(':')).cloned().collect();
    for query in expressions.into_values().chain(queries()) {
        let asked = names(&query);
        assert!(!asked.is_empty(), "{query}");
        for name in asked {
            assert!(known.contains(&name) || recorded.contains(&name), "no node has {name}: {query}");
        }
    }
}

#[test]
fn every_series_of_storage_is_on_a_panel() {
    let shown: BTreeSet<String> = queries().iter().flat_map(|query| names(query)).collect();
    let recorded = rules("expr");
    let through: BTreeSet<String> =
        shown.iter().filter_map(|name| recorded.get(name)).flat_map(|query| names(query)).collect();
    let is_storage = |name: &&String| STORAGE.iter().any(|begin| name.starts_with(begin));
    let parts = ["_sum", "_count"];
    for name in
        series().iter().filter(is_storage).filter(|name| !parts.iter().any(|part| name.ends_with(part)))
    {
        assert!(shown.contains(name) || through.contains(name), "{name} is on no panel");
    }
}

#[test]
fn every_alert_has_a_page_and_a_test_in_which_it_fires() {
    let (runbooks, pages, tests) = (rules("runbook"), read(RUNBOOK), read(RULES_TEST));
    for alert in alerts() {
        let anchor = format!("{RUNBOOK}#{}", alert.to_lowercase());
        assert_eq!(runbooks.get(&alert), Some(&anchor));
        assert!(pages.contains(&format!("\n## {alert}\n")), "{alert} has no page");
        // What is expected to be quiet under a misspelled name is quiet: `findings/promtool-misspelled-alert.sh`.
        let mut cases = tests.split("alertname: ").filter(|case| case.starts_with(&alert));
        assert!(
            cases.any(|case| case[alert.len()..].trim_start().starts_with("exp_alerts:\n")),
            "{alert} fires in no test"
        );
    }
    let headings: Vec<&str> = pages.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings.len(), alerts().len(), "{headings:?}");
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels() {
        let title = panel["title"].as_str().expect("a title");
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(ids.insert(panel["id"].as_u64()), "{title}");
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        for column in at("x")..at("x") + at("w") {
            for row in at("y")..at("y") + at("h") {
                assert!(column < 24 && places.insert((column, row)), "{title} lies on another one");
            }
        }
    }
}

#[test]
fn promtool_takes_the_rules() {
    let Some(promtool) = std::env::var_os("RAFTQUEUE_PROMTOOL") else { return };
    let folder = repository().join("deploy/monitoring");
    for arguments in [["check", "rules", "storage-rules.yaml"], ["test", "rules", "storage-rules-test.yaml"]]
    {
        let output =
            Command::new(&promtool).args(arguments).current_dir(&folder).output().expect("it can be started");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&said));
    }
}
