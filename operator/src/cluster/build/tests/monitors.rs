//! What monitoring is given is about the one object, and says what `deploy/monitoring` says.

use super::{Bootstrap, build, of, shape};
use crate::cluster::build::Monitors;
use crate::crd::{RaftQueue, RaftQueueSpec};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Where rules and dashboards are kept.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/monitoring");
const SPEC: &str =
    r#"{"monitoring": {"prometheusRule": {"enabled": true}, "dashboards": {"enabled": true}}}"#;

fn monitors() -> Monitors {
    let asked = of(serde_json::from_str(SPEC).unwrap());
    build(&asked, &shape(&asked, Bootstrap::Form)).monitors
}

/// The dashboards by their topics.
fn dashboards(monitors: &Monitors) -> Vec<Value> {
    let data = monitors.dashboards.as_ref().unwrap().data.as_ref().unwrap();
    assert_eq!(data.len(), 3, "{:?}", data.keys());
    ["cluster", "queues", "storage"]
        .map(|topic| serde_json::from_str(&data[&format!("raftqueue-shop-demo-{topic}.json")]).unwrap())
        .to_vec()
}

/// Every text of a dashboard that is sent to Prometheus.
fn queries(part: &Value, into: &mut Vec<String>) {
    match part {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| match value {
            Value::String(text) if ["expr", "query", "definition"].contains(&key.as_str()) => {
                into.push(text.clone());
            }
            value => queries(value, into),
        }),
        Value::Array(parts) => parts.iter().for_each(|part| queries(part, into)),
        _ => {}
    }
}

/// How many selectors a query has; each must be about the object.
fn selectors(query: &str) -> usize {
    // What is quoted may be anything.
    let bare: String = query.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_:".contains(letter);
    let mut count = 0;
    for (place, _) in bare.char_indices() {
        let begins = is_part(bare[place..].chars().next().unwrap())
            && !bare[..place].chars().next_back().is_some_and(is_part);
        let word = bare[place..].split(|letter| !is_part(letter)).next().unwrap_or_default();
        let is_series = ["raftqueue_", "raftqueue:", "process_"].iter().any(|begin| word.starts_with(begin))
            || ["up", "ALERTS"].contains(&word);
        if begins && is_series {
            let behind = &bare[place + word.len()..];
            let is_narrow = ["{namespace=\"\", raftqueue=\"\"", "{namespace=\"\", name=\"\""]
                .iter()
                .any(|matchers| behind.starts_with(matchers));
            assert!(is_narrow, "{word} is asked for of all objects: {query}");
            count += 1;
        }
    }
    count
}

/// Else ten objects would have ten alerts fire for each thing that happens to any of them.
#[test]
fn rules_and_dashboards_are_about_the_one_object() {
    let monitors = monitors();
    let mut asked: Vec<String> = Vec::new();
    for group in &monitors.prometheus_rule.as_ref().unwrap().spec.groups {
        asked.extend(group.rules.iter().map(|rule| rule.expr.clone()));
    }
    assert!(asked.iter().all(|query| selectors(query) > 0), "a rule asks for nothing of ours: {asked:?}");
    let rules = asked.len();
    dashboards(&monitors).iter().for_each(|dashboard| queries(dashboard, &mut asked));
    let found: usize = asked.iter().map(|query| selectors(query)).sum();
    assert!(rules > 50 && asked.len() > rules + 60 && found > 200, "{rules} {} {found}", asked.len());
}

/// Whoever looks after one cluster has every alert about it; those about the operator have whoever installs that.
#[test]
fn every_alert_about_an_object_is_there() {
    let mut expected = BTreeSet::new();
    for topic in ["cluster", "queues", "storage", "operator"] {
        let text = std::fs::read_to_string(format!("{FOLDER}/{topic}-rules.yaml")).unwrap();
        expected
            .extend(text.lines().filter_map(|line| Some(line.trim().strip_prefix("- alert: ")?.to_owned())));
    }
    let about_the_operator =
        ["OperatorDown", "ReconcileErrors", "OperatorStalled", "OperatorRunaway", "SlowReconcile"];
    for alert in about_the_operator {
        assert!(expected.remove(&format!("RaftQueue{alert}")), "{alert}");
    }
    let groups = monitors().prometheus_rule.unwrap().spec.groups;
    let alerts = groups.iter().flat_map(|group| &group.rules).filter(|rule| rule.alert.is_some());
    let alerts: Vec<_> = alerts.collect();
    assert!(
        alerts
            .iter()
            .all(|rule| rule.lasting.is_some() && rule.annotations.len() == 2 && !rule.labels.is_empty())
    );
    let names: BTreeSet<String> = alerts.iter().filter_map(|rule| rule.alert.clone()).collect();
    assert_eq!(names, expected);
    assert!(names.len() > 25 && names.len() == alerts.len());
}

/// Grafana has one name and one file of each dashboard for all that it is given.
#[test]
fn dashboards_of_two_objects_are_two() {
    let of_object = |namespace: &str, name: &str| {
        let spec: RaftQueueSpec = serde_json::from_str(SPEC).unwrap();
        let mut object = RaftQueue::new(name, spec);
        (object.metadata.namespace, object.metadata.uid) = (Some(namespace.into()), Some("uid".into()));
        let asked = crate::cluster::validate::asked(&object, "node:1");
        let map = build(&asked, &shape(&asked, Bootstrap::Form)).monitors.dashboards.unwrap();
        assert!(serde_json::to_vec(&map).unwrap().len() < 300_000, "Kubernetes takes 1 MiB");
        map.data.unwrap()
    };
    let (mut files, mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (namespace, name) in [("shop", "demo"), ("shop", "other"), ("shop-demo", "other"), ("web", "demo")] {
        for (file, text) in of_object(namespace, name) {
            assert!(files.insert(file.clone()), "{file}");
            let dashboard: Value = serde_json::from_str(&text).unwrap();
            let id = dashboard["uid"].as_str().unwrap().to_owned();
            assert!(id.len() <= 40, "Grafana takes 40 characters: {id}");
            assert!(ids.insert(id));
            assert!(titles.insert(dashboard["title"].as_str().unwrap().to_owned()));
            let object = format!("{namespace}/{name}");
            assert!(dashboard["title"].as_str().unwrap().ends_with(&format!(": {object}")));
            assert_eq!(dashboard["tags"], json!(["raftqueue", object]));
        }
    }
    // People keep links to them.
    assert_eq!(dashboards(&monitors())[0]["uid"], "raftqueue-cluster-4fc8ee71cb4ce655");
}
