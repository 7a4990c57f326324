//! The settings of a node that a user may choose in `spec.config`.
//!
//! [`SETTINGS`] is the one list: the rules in the schema are made from it, and [`check_config`] reads it too, so that the
//! API server and the operator agree. The operator checks again because an object may be older than a rule. Flags of a node
//! that are not in the list say who and where it is; the operator sets those itself.

use super::schema::rule;
use schemars::{Schema, SchemaGenerator};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

const MIB: u64 = 1 << 20;
const PIB: u64 = 1 << 50;
/// Most entries of `spec.config`.
pub const CONFIG_ENTRIES_MAX: usize = 64;
/// Greatest length of a value in `spec.config`, in characters.
pub const CONFIG_VALUE_LENGTH_MAX: usize = 64;
/// A whole number in its only spelling, short enough for the integers of every reader.
const NUMBER_PATTERN: &str = "^(0|[1-9][0-9]{0,17})$";

/// One setting of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name in `spec.config`, which is also that of the node's flag.
    pub key: &'static str,
    /// What it is for, as the second half of "KEY is ...".
    pub meaning: &'static str,
    /// What it may be.
    pub value: SettingValue,
}

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingValue {
    /// A whole number, both bounds included.
    Number {
        /// The smallest.
        least: u64,
        /// The greatest.
        most: u64,
        /// What is counted, in the plural.
        unit: &'static str,
    },
    /// One of some words.
    OneOf(&'static [&'static str]),
}

/// Every setting that a user may choose, with the bounds that the node itself has.
pub const SETTINGS: &[Setting] = &[
    number(
        "election-timeout-ms",
        "the time without a leader after which a node campaigns",
        50,
        60_000,
        "milliseconds",
    ),
    number("drain-ms", "the time for which a stopping node goes on answering", 0, 600_000, "milliseconds"),
    number("body-bytes-max", "the greatest body of a message", 1, 16 * MIB, "bytes"),
    number("client-bytes-max", "the most memory for what clients send and are sent", 64 * MIB, PIB, "bytes"),
    number(
        "connections-per-address-max",
        "the most connections of clients from one address",
        1,
        u32::MAX as u64,
        "connections",
    ),
    number(
        "lease-ms",
        "the length of a lease where the consumer names none",
        1_000,
        43_200_000,
        "milliseconds",
    ),
    number(
        "attempts-max",
        "the failed attempts after which a message is dead",
        1,
        u32::MAX as u64,
        "attempts",
    ),
    number("reserve-bytes", "the free space of the disk that publishing leaves alone", 0, PIB, "bytes"),
    number("segment-bytes", "the size of a file of the log", MIB, 1024 * MIB, "bytes"),
    number(
        "scrub-bytes-per-second",
        "the bytes of its disk that a node reads in the background, to find damage",
        0,
        1024 * MIB,
        "bytes a second",
    ),
    number("threads", "the threads that serve clients and peers", 1, 64, "threads"),
    Setting {
        key: "log-format",
        meaning: "how log lines look",
        value: SettingValue::OneOf(&["auto", "human", "json"]),
    },
];

/// Why an entry of `spec.config` cannot be used. The user must change it; the text says to what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingRefused {
    /// No setting has this name, or it is one that the operator sets itself.
    #[error("config has no key {key}: it takes {}", known_keys())]
    UnknownKey {
        /// The name as given.
        key: String,
    },
    /// The setting cannot have this value.
    #[error("config {} is {value}, but must be {}", setting.key, setting.value)]
    Value {
        /// The setting.
        setting: &'static Setting,
        /// The value as given.
        value: String,
    },
}

impl Setting {
    /// The setting of this name.
    #[must_use]
    pub fn find(key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}

impl SettingValue {
    /// Whether the setting may be this.
    #[must_use]
    pub fn allows(&self, text: &str) -> bool {
        match *self {
            Self::Number { least, most, .. } => {
                is_number(text) && text.parse().is_ok_and(|number: u64| (least..=most).contains(&number))
            }
            Self::OneOf(words) => words.contains(&text),
        }
    }

    /// The CEL expression that holds where `spec.config` is without this key or has an allowed value.
    fn rule_for(&self, key: &str) -> String {
        let value = format!("self['{key}']");
        let holds = match *self {
            Self::Number { least, most, .. } => {
                format!(
                    "({value}.matches('{NUMBER_PATTERN}') && int({value}) >= {least} && int({value}) <= {most})"
                )
            }
            Self::OneOf(words) => format!("{value} in [{}]", quoted(words.iter().copied())),
        };
        format!("!('{key}' in self) || {holds}")
    }
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Number { least, most, unit } => {
                write!(f, "a whole number of {unit} from {least} to {most}")
            }
            Self::OneOf(words) => write!(f, "one of {}", words.join(", ")),
        }
    }
}

/// Everything in `spec.config` that a node could not be started with, in order of the keys. Empty: all is well.
#[must_use]
pub fn check_config(config: &BTreeMap<String, String>) -> Vec<SettingRefused> {
    let refused = |(key, value): (&String, &String)| match Setting::find(key) {
        None => Some(SettingRefused::UnknownKey { key: key.clone() }),
        Some(setting) if setting.value.allows(value) => None,
        Some(setting) => Some(SettingRefused::Value { setting, value: value.clone() }),
    };
    config.iter().filter_map(refused).collect()
}

/// The schema of `spec.config`, with a rule for the keys and one for every setting.
pub(super) fn config_schema(_: &mut SchemaGenerator) -> Schema {
    let keys = rule(
        &format!("self.all(key, key in [{}])", quoted(SETTINGS.iter().map(|setting| setting.key))),
        &format!(
            "config takes these keys: {}; everything else about a node is set by the operator",
            known_keys()
        ),
    );
    let values = SETTINGS.iter().map(|Setting { key, meaning, value }| {
        rule(&value.rule_for(key), &format!("config {key} is {meaning}: {value}, in quotes"))
    });
    let rules: Vec<Value> = std::iter::once(keys).chain(values).collect();
    schemars::json_schema!({
        "type": "object",
        "maxProperties": CONFIG_ENTRIES_MAX,
        "additionalProperties": {"type": "string", "maxLength": CONFIG_VALUE_LENGTH_MAX},
        "x-kubernetes-validations": rules,
    })
}

const fn number(
    key: &'static str,
    meaning: &'static str,
    least: u64,
    most: u64,
    unit: &'static str,
) -> Setting {
    Setting { key, meaning, value: SettingValue::Number { least, most, unit } }
}

/// Whether the text is what [`NUMBER_PATTERN`] describes.
fn is_number(text: &str) -> bool {
    let is_canonical = text == "0" || !text.starts_with('0');
    (1..=18).contains(&text.len()) && is_canonical && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn known_keys() -> String {
    SETTINGS.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ")
}

fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ")
}
