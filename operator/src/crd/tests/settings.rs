//! The settings of a node: the operator and the API server agree, and no flag of the node is forgotten.

use super::super::{SETTINGS, Setting, SettingRefused, SettingValue, check_config};
use super::admission;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the node is told by the operator itself, because it says who and where the node is.
const SET_BY_THE_OPERATOR: &[&str] = &[
    "lock-wait-ms",
    "bootstrap",
    "client-address",
    "peer-address",
    "client-listen",
    "cluster-id",
    "config",
    "data-dir",
    "discovery",
    "index",
    "members",
    "name",
    "operations-port",
    "peer-listen",
    "service",
    "settings",
];

fn config(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

/// The API server says yes exactly where the operator does, at every bound and for every spelling.
#[test]
fn operator_and_api_server_agree_on_every_value() {
    let words = [
        "", "0", "00", "01", "+1", "-1", "1.0", "1e3", " 1", "1 ", "1\n", "٣", "0x10", "1Gi", "auto", "json",
        "Json",
    ];
    let huge =
        ["999999999999999999", "1000000000000000000", "9223372036854775808", "99999999999999999999999"];
    for setting in SETTINGS {
        let mut values: BTreeSet<String> = words.iter().chain(&huge).map(|&word| word.to_owned()).collect();
        if let SettingValue::Number { least, most, .. } = setting.value {
            values.extend(
                [least, most, least.saturating_sub(1), least + 1, most - 1, most + 1].map(|n| n.to_string()),
            );
        }
        let mut allowed = 0;
        for value in values {
            let is_allowed = check_config(&config(setting.key, &value)).is_empty();
            let object = json!({"apiVersion": "raftqueue.io/v1alpha1", "kind": "RaftQueue",
                                "metadata": {"name": "demo"}, "spec": {"config": {setting.key: value}}});
            let admitted = admission::create(&object);
            assert_eq!(admitted.is_ok(), is_allowed, "{} = {value:?}: {admitted:?}", setting.key);
            allowed += usize::from(is_allowed);
        }
        assert!(allowed >= 2, "{} has no allowed value among those tried", setting.key);
    }
}

#[test]
fn what_is_refused_says_what_would_be_right() {
    let mut asked = config("drain-ms", "soon");
    asked.insert("log-format".into(), "xml".into());
    asked.insert("threads".into(), "2".into());
    asked.insert("data-dir".into(), "/".into());
    let refused = check_config(&asked);
    let texts: Vec<String> = refused.iter().map(ToString::to_string).collect();
    assert_eq!(refused[0], SettingRefused::UnknownKey { key: "data-dir".into() });
    assert!(
        texts[0].starts_with("config has no key data-dir: it takes election-timeout-ms, drain-ms,"),
        "{}",
        texts[0]
    );
    assert_eq!(
        texts[1..],
        [
            "config drain-ms is soon, but must be a whole number of milliseconds from 0 to 600000",
            "config log-format is xml, but must be one of auto, human, json",
        ]
    );
}

/// A new flag of the node must be put on one of the two lists.
#[test]
fn every_flag_of_the_node_is_a_setting_or_set_by_the_operator() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/src/config.rs");
    let source = std::fs::read_to_string(path).unwrap();
    let flags: BTreeSet<String> = source
        .split("env = \"RAFTQUEUE_")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().to_lowercase().replace('_', "-"))
        .collect();
    for setting in SETTINGS {
        assert!(flags.contains(setting.key), "the node has no flag {}", setting.key);
    }
    for flag in &flags {
        let is_ours = SET_BY_THE_OPERATOR.contains(&flag.as_str());
        assert!(is_ours || Setting::find(flag).is_some(), "the flag {flag} of the node is on neither list");
    }
    assert!(SET_BY_THE_OPERATOR.iter().all(|key| Setting::find(key).is_none()));
}
