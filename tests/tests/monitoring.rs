//! What Prometheus and Grafana are given: nothing in it names a series that nobody has, and no series is left out.
//!
//! The rules are tested by promtool, where it is installed: `RAFTQUEUE_PROMETHEUS=FOLDER` says where.

use raftqueue_tests::process::{programs, prometheus, repository, run_to_end};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// What there is a file of rules, a page, a dashboard and a test for.
const TOPICS: [&str; 4] = ["cluster", "queues", "storage", "operator"];
/// How Prometheus is configured.
const CONFIGURATIONS: [&str; 2] = ["prometheus.yaml", "prometheus-kubernetes.yaml"];
/// Series that no panel shows and no alert asks for, and why.
const UNWATCHED: [(&str, &str); 0] = [];

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn page_path(topic: &str) -> String {
    format!("deploy/runbooks/{topic}.md")
}

fn dashboard(topic: &str) -> Value {
    serde_json::from_str(&read(&format!("deploy/monitoring/{topic}-dashboard.json"))).expect("it is JSON")
}

/// Every series of a node and of the operator, a histogram with what it exports.
fn series() -> BTreeSet<String> {
    let mut series = BTreeSet::new();
    let files = ["node/src/metrics/series.txt", "operator/src/metrics/series.txt"].map(read);
    for line in files.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with(' ')) {
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
    let is_name = |word: &&str| {
        ["raftqueue_", "raftqueue:", "process_"].iter().any(|begin| word.starts_with(begin) && word != begin)
    };
    words.filter(is_name).map(|word| word.trim_end_matches(':').to_owned()).collect()
}

/// A rule, as it stands in the file.
struct Rule {
    /// The alert's name, or `None` of what is recorded.
    alert: Option<String>,
    name: String,
    query: String,
    value: Value,
}

fn rules(topic: &str) -> Vec<Rule> {
    let text = read(&format!("deploy/monitoring/{topic}-rules.yaml"));
    let file: Value = serde_saphyr::from_str(&text).expect("it is YAML");
    let groups = file["groups"].as_array().expect("it has groups");
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("it has rules"));
    let text_of = |rule: &Value, key: &str| rule[key].as_str().map(str::to_owned);
    let rule = |value: &Value| {
        let alert = text_of(value, "alert");
        let name = alert.clone().or_else(|| text_of(value, "record")).expect("it has a name");
        Rule {
            alert,
            name,
            query: text_of(value, "expr").expect("it asks for something"),
            value: value.clone(),
        }
    };
    rules.map(rule).collect()
}

/// What is recorded, and what it is made of.
fn recorded() -> BTreeMap<String, String> {
    let rules = TOPICS.into_iter().flat_map(rules);
    rules.filter(|rule| rule.alert.is_none()).map(|rule| (rule.name, rule.query)).collect()
}

fn panels(topic: &str) -> Vec<Value> {
    let dashboard = dashboard(topic);
    let panels = dashboard["panels"].as_array().expect("it has panels");
    panels.iter().filter(|panel| panel["type"] != "row").cloned().collect()
}

fn queries(topic: &str) -> Vec<String> {
    let panels = panels(topic);
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("it asks for something"));
    targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect()
}

#[test]
fn rules_panels_and_pages_name_series_that_there_are() {
    let (known, recorded) = (series(), recorded());
    assert!(known.len() > 100 && recorded.len() > 10, "{known:?} {recorded:?}");
    for topic in TOPICS {
        let mut texts: Vec<String> = rules(topic).into_iter().map(|rule| rule.query).collect();
        texts.extend(queries(topic));
        assert!(texts.iter().all(|query| !names(query).is_empty() || query.contains("ALERTS{")), "{texts:?}");
        texts.push(read(&page_path(topic)));
        for text in texts {
            for name in names(&text) {
                let is_known = known.contains(&name) || recorded.contains_key(&name);
                // A page may name a histogram whole.
                let is_histogram = known.contains(&format!("{name}_bucket"));
                assert!(is_known || is_histogram, "{topic}: nobody has {name}: {text}");
            }
        }
    }
}

#[test]
fn every_series_is_on_a_panel_or_in_an_alert_or_there_is_a_reason() {
    let recorded = recorded();
    let mut asked: BTreeSet<String> = BTreeSet::new();
    for topic in TOPICS {
        asked.extend(queries(topic).iter().flat_map(|query| names(query)));
        let alerts = rules(topic).into_iter().filter(|rule| rule.alert.is_some());
        asked.extend(alerts.flat_map(|rule| names(&rule.query)));
    }
    // What is recorded counts when it is asked for, and so does what it is made of.
    loop {
        let through: BTreeSet<String> =
            asked.iter().filter_map(|name| recorded.get(name)).flat_map(|query| names(query)).collect();
        if through.is_subset(&asked) {
            break;
        }
        asked.extend(through);
    }
    for name in recorded.keys() {
        assert!(asked.contains(name), "{name} is recorded, and nobody asks for it");
    }
    for name in series().iter().filter(|name| !name.ends_with("_sum") && !name.ends_with("_count")) {
        let is_unwatched = UNWATCHED.iter().any(|(unwatched, _)| unwatched == name);
        assert_ne!(
            asked.contains(name),
            is_unwatched,
            "{name} is on no panel and in no alert, or needs no reason"
        );
    }
}

#[test]
fn every_alert_has_a_page_and_a_test_in_which_it_fires() {
    let mut seen = BTreeSet::new();
    for topic in TOPICS {
        let (path, tests) = (page_path(topic), read(&format!("deploy/monitoring/{topic}-rules-test.yaml")));
        let page = read(&path);
        let mut count = 0;
        for Rule { alert, value, .. } in rules(topic) {
            let Some(alert) = alert else { continue };
            count += 1;
            assert!(seen.insert(alert.clone()), "{alert} is there twice");
            assert_eq!(
                value["annotations"]["runbook"],
                format!("{path}#{}", alert.to_lowercase()),
                "{alert}"
            );
            assert!(value["annotations"]["summary"].is_string(), "{alert}");
            assert!(
                ["warning", "critical"].iter().any(|severity| value["labels"]["severity"] == *severity),
                "{alert}"
            );
            assert!(value["for"].is_string(), "{alert}: how long it lasts is said, also where it is no time");
            assert!(page.contains(&format!("\n## {alert}\n")), "{alert} has no page");
            // What is expected to be quiet under a misspelled name is quiet: `findings/promtool-misspelled-alert.sh`.
            let mut cases = tests.split("alertname: ").filter(|case| case.starts_with(&alert));
            let fires = |case: &str| case[alert.len()..].trim_start().starts_with("exp_alerts:\n");
            assert!(cases.any(fires), "{alert} fires in no test");
        }
        let headings: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(headings.len(), count, "{path}: {headings:?}");
    }
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    for topic in TOPICS {
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        let whole = dashboard(topic);
        assert_eq!(whole["uid"], format!("raftqueue-{topic}"));
        assert!(
            whole["description"].as_str().is_some_and(|text| text.contains(&page_path(topic))),
            "{topic}"
        );
        for panel in whole["panels"].as_array().expect("it has panels") {
            let title = panel["title"].as_str().expect("a title");
            assert!(ids.insert(panel["id"].as_u64()), "{title}");
            let at = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
            for column in at("x")..at("x") + at("w") {
                for row in at("y")..at("y") + at("h") {
                    assert!(column < 24 && places.insert((column, row)), "{title} lies on another one");
                }
            }
            if panel["type"] == "row" {
                continue;
            }
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

/// Every command that a page tells somebody to type is one that `raftq` has, with these options.
#[test]
fn pages_name_commands_that_there_are() {
    let mut count = 0;
    for topic in TOPICS {
        let page = read(&page_path(topic));
        let commands = page.split('`').skip(1).step_by(2).filter_map(|text| text.strip_prefix("raftq "));
        for text in commands {
            let is_word = |word: &&str| word.chars().all(|letter| letter.is_ascii_lowercase());
            let mut words =
                text.split_whitespace().skip_while(|word| *word == "--kube" || word.contains('/'));
            let command: Vec<&str> = words.by_ref().take_while(is_word).collect();
            let mut asked = Command::new(programs().join("raftq"));
            let output = asked.args(&command).arg("--help").output().expect("it can be started");
            let help = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{topic}: raftq {text}");
            // Where it says what is to be filled in it is typed whole: nobody answers, and nothing is wrong with the command.
            let is_filled_in = |word: &str| word.chars().all(|letter| letter.is_ascii_uppercase());
            if text.split_whitespace().skip(1).any(is_filled_in) && !text.contains("--kube") {
                let mut typed = Command::new(programs().join("raftq"));
                typed.args(text.split_whitespace()).args(["--endpoints", "127.0.0.1:1", "--timeout", "50ms"]);
                let ended = run_to_end(&mut typed);
                assert_ne!(ended.status.code(), Some(2), "{topic}: raftq {text}: {}", ended.text);
            }
            for option in text.split_whitespace().filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{topic}: raftq {text}: {help}");
            }
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn configurations_read_every_file_of_rules() {
    for configuration in CONFIGURATIONS {
        let text = read(&format!("deploy/monitoring/{configuration}"));
        let value: Value = serde_saphyr::from_str(&text).expect("it is YAML");
        let files: Vec<&str> =
            value["rule_files"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let is_in_kubernetes = configuration.contains("kubernetes");
        let topics = TOPICS.into_iter().filter(|topic| is_in_kubernetes || *topic != "operator");
        assert_eq!(files, topics.map(|topic| format!("{topic}-rules.yaml")).collect::<Vec<_>>());
    }
}

#[test]
fn what_kubernetes_is_given_is_the_same() {
    let parse = |path: &str| -> Value { serde_saphyr::from_str(&read(path)).expect("it is YAML") };
    let rule = parse("deploy/monitoring/prometheus-rule.yaml");
    let groups =
        TOPICS.map(|topic| parse(&format!("deploy/monitoring/{topic}-rules.yaml"))["groups"].clone());
    let groups: Vec<Value> =
        groups.iter().flat_map(|groups| groups.as_array().expect("a list")).cloned().collect();
    assert_eq!(rule["spec"]["groups"], Value::from(groups));
    let kustomization = parse("deploy/monitoring/kustomization.yaml");
    let files = TOPICS.map(|topic| format!("raftqueue-{topic}.json={topic}-dashboard.json"));
    assert_eq!(kustomization["configMapGenerator"][0]["files"], Value::from(files.to_vec()));
}

#[test]
fn promtool_takes_the_rules() {
    let Some(folder) = prometheus::folder() else { return };
    // One that does not know Kubernetes refuses the other configuration.
    let count = if prometheus::knows_kubernetes(&folder) { 2 } else { 1 };
    let mut runs: Vec<Vec<String>> = CONFIGURATIONS[..count]
        .iter()
        .map(|name| vec!["check".into(), "config".into(), (*name).into()])
        .collect();
    for topic in TOPICS {
        runs.push(vec!["check".into(), "rules".into(), format!("{topic}-rules.yaml")]);
        runs.push(vec!["test".into(), "rules".into(), format!("{topic}-rules-test.yaml")]);
    }
    for arguments in runs {
        let mut promtool = Command::new(folder.join("promtool"));
        let output = promtool.args(&arguments).current_dir(repository().join("deploy/monitoring")).output();
        let output = output.expect("it can be started");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&said));
    }
}
