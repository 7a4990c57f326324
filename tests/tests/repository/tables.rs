//! The README's tables lack nothing that the code has, and tell of nothing that it has not.

use super::{collect, page};
use raftqueue_tests::process::repository;
use std::collections::{BTreeMap, BTreeSet};

/// Where the flags and variables of the programs are.
const OF_PROGRAMS: [&str; 3] = ["node/src", "node/cli/src", "operator/src"];
/// Variables that programs read without a flag of that name.
const WITHOUT_A_FLAG: [&str; 3] = ["NO_COLOR", "RAFTQ_CONFIG", "RUST_LOG"];
/// What a program says of its exit codes in its `--help`: its column of the table, and the file.
const EXIT_CODES: [(usize, &str); 3] =
    [(1, "node/cli/src/main.rs"), (2, "node/src/process.rs"), (3, "operator/src/config.rs")];
/// What is asked for by number, in the code: limits of the queue, and those that only edges know.
const OF_LIMITS: [&str; 3] = ["node/queue/src/limits.rs", "node/src/api/checks.rs", "node/src/api/limits.rs"];

/// Each limit of the code, and the row of the table that tells of it.
const LIMITS: [(&str, &str); 38] = [
    ("BODY_BYTES_MAX_DEFAULT", "body of a message"),
    ("BODY_BYTES_MAX", "body of a message"),
    ("KEY_BYTES_MAX", "key of a message"),
    ("HEADERS_MAX", "headers of a message"),
    ("HEADERS_BYTES_MAX", "headers of a message"),
    ("NAME_BYTES_MAX", "name of a topic or producer"),
    ("PUBLISH_MESSAGES_MAX", "messages of a publish"),
    ("PUBLISH_BYTES_MAX_DEFAULT", "messages of a publish"),
    ("RECEIVE_MESSAGES_MAX", "messages of a receive, pop or peek"),
    ("RECEIVE_BYTES_DEFAULT", "messages of a receive, pop or peek"),
    ("RECEIVE_BYTES_MAX", "messages of a receive, pop or peek"),
    ("SETTLE_LEASES_MAX", "leases of an ack, nack, extend or release"),
    ("DEAD_LISTED_MAX", "dead messages listed in a redrive or purge"),
    ("TOPICS_MAX_DEFAULT", "topics"),
    ("LIST_TOPICS_MAX", "topics of a page of the list"),
    ("LIST_TOPICS_DEFAULT", "topics of a page of the list"),
    ("LEASE_MS_DEFAULT", "lease"),
    ("LEASE_MS_MIN", "lease"),
    ("LEASE_MS_MAX", "lease"),
    ("ATTEMPTS_MAX_DEFAULT", "attempts of a message"),
    ("NACK_REASON_BYTES_MAX", "text of a nack"),
    ("DELAY_MS_MAX", "delay, time to live"),
    ("DEADLINE_MS_DEFAULT", "deadline of a call"),
    ("DEADLINE_MS_MAX", "deadline of a call"),
    ("SESSIONS_MAX_DEFAULT", "sessions"),
    ("SESSION_IDLE_MS", "sessions"),
    ("SESSION_TOPICS_MAX", "topics of a session"),
    ("SESSION_PAIRS_MAX_DEFAULT", "topics of a session"),
    ("SESSION_REPLIES_MAX", "publishes of a session on their way in a topic"),
    ("POP_KEPT_MAX", "pops with a request id that are repeated whole"),
    ("POP_KEPT_MS", "pops with a request id that are repeated whole"),
    ("POP_REMEMBERED_MAX", "request ids of pops that are remembered"),
    ("POP_REMEMBERED_MS", "request ids of pops that are remembered"),
    // What one step of the machinery does is no limit of those who call.
    ("EXPIRED_PER_APPLY_MAX", ""),
    ("REDRIVEN_PER_APPLY_MAX", ""),
    ("DEADLINE_MARGIN_MS_MAX", ""),
    ("JSON_CALL_BYTES_MAX", ""),
    ("PLAIN_BYTES_MAX", ""),
];

/// The rows of the table of a section of the README, without its head.
fn rows(section: &str) -> Vec<Vec<String>> {
    let readme = page("README.md");
    let found = readme.split("\n## ").find(|text| text.starts_with(&format!("{section}\n")));
    let found = found.unwrap_or_else(|| panic!("the README has `{section}`"));
    let lines = found.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    lines.map(cells).collect()
}

/// What two sets do not have in common, in words.
fn differ(told: &BTreeSet<String>, there: &BTreeSet<String>) -> Option<String> {
    let untold: Vec<_> = there.difference(told).collect();
    let gone: Vec<_> = told.difference(there).collect();
    (untold != gone || !untold.is_empty())
        .then(|| format!("not told: {untold:?}; told, and not there: {gone:?}"))
}

fn code(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    collect(&repository().join(folder), &mut files);
    files.iter().map(|file| std::fs::read_to_string(file).expect("sources are text")).collect()
}

/// The variables that programs read.
fn variables() -> BTreeSet<String> {
    let name = |rest: &str| rest.split('"').next().unwrap_or_default().to_owned();
    let code: Vec<String> = OF_PROGRAMS.iter().flat_map(|folder| code(folder)).collect();
    for name in WITHOUT_A_FLAG {
        assert!(code.iter().any(|text| text.contains(&format!("\"{name}\""))), "nothing reads {name}");
    }
    let flags = code.iter().flat_map(|text| text.split("env = \"").skip(1).map(name));
    let variables: BTreeSet<String> = flags.chain(WITHOUT_A_FLAG.map(str::to_owned)).collect();
    assert!(variables.len() > 30, "the variables were found: {variables:?}");
    variables
}

#[test]
fn every_variable_of_a_program_is_in_the_readme() {
    let told = rows("Environment").iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(differ(&told, &variables()), None);
}

#[test]
fn every_variable_for_systemd_is_one_of_a_program() {
    let variables = variables();
    let is_of_name = |sign: char| sign.is_ascii_uppercase() || sign == '_';
    for file in ["raftqueue.conf", "raftqueue.service", "README.md"] {
        let text = page(&format!("deploy/systemd/{file}"));
        let names = text.split(|sign: char| !is_of_name(sign)).filter(|name| name.starts_with("RAFTQ"));
        let unknown: Vec<_> = names.filter(|name| !variables.contains(*name)).collect();
        assert!(unknown.is_empty(), "deploy/systemd/{file} names what no program reads: {unknown:?}");
    }
}

#[test]
fn every_exit_code_of_a_program_is_in_the_readme() {
    let rows = rows("Exit codes");
    for (column, path) in EXIT_CODES {
        let code = page(path);
        let (_, help) = code.split_once("Exit codes:").unwrap_or_else(|| panic!("{path} tells its codes"));
        let help = help.split(['"', '.']).next().unwrap_or_default();
        let numbers = help.replace(['\\', '\n', ';'], " ");
        let there = numbers.split_whitespace().filter(|word| word.parse::<u8>().is_ok()).map(str::to_owned);
        let there: BTreeSet<String> = there.collect();
        assert!(there.len() >= 3, "{path} tells its codes: {there:?}");
        let told = rows.iter().filter(|row| !row[column].is_empty()).map(|row| row[0].clone()).collect();
        assert_eq!(differ(&told, &there), None, "{path}");
    }
}

#[test]
fn every_port_is_in_the_readme() {
    let is_digit = |sign: char| sign.is_ascii_digit();
    let mut there = BTreeSet::new();
    for path in ["node/src/config.rs", "operator/src/config.rs", "node/cli/src/commands/up.rs"] {
        let code = page(path);
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        // Examples stand in what explains, not in what is done.
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let numbers = lines.flat_map(|line| line.split(|sign: char| !is_digit(sign) && sign != '_'));
        let ports = numbers
            .map(|number| number.replace('_', ""))
            .filter(|number| number.len() == 4 && ["74", "80"].iter().any(|start| number.starts_with(start)));
        there.extend(ports);
    }
    // The port on which `raftq scale` asks is counted from the first one.
    let control = page("node/cli/src/commands/up/control.rs");
    let offset = control.split("PORT_OFFSET: u16 = ").nth(1).and_then(|rest| rest.split(';').next());
    let offset: u16 = offset.and_then(|number| number.parse().ok()).expect("the offset of its port");
    there.insert((7420 + offset).to_string());
    let told = rows("Ports").iter().map(|row| row[0].clone()).collect();
    assert_eq!(differ(&told, &there), None);
}

#[test]
fn every_limit_is_in_the_readme_with_its_value() {
    let mut there = BTreeMap::new();
    for path in OF_LIMITS {
        let code = page(path);
        for rest in code.split("\npub const ").skip(1) {
            let (name, rest) = rest.split_once(':').expect("a constant has a type");
            let value = rest.split_once('=').and_then(|(_, rest)| rest.split_once(';')).expect("a value").0;
            there.insert(name.to_owned(), product(value));
        }
    }
    let known: BTreeSet<String> = LIMITS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        differ(&known, &there.keys().cloned().collect()),
        None,
        "LIMITS lacks a row, or has one of old"
    );
    let rows = rows("Limits");
    for (name, row) in LIMITS.iter().filter(|(_, row)| !row.is_empty()) {
        let told = rows.iter().find(|told| told[0] == *row);
        let told = told.unwrap_or_else(|| panic!("the table has no row `{row}`, which {name} is"));
        let value = in_words(name, there[*name]);
        let is_told = told[1].split([',', ';']).chain([told[1].as_str()]).any(|part| has(part, &value));
        assert!(is_told, "{name} is {value}; the table says of {row}: {}", told[1]);
    }
}

/// Whether a value stands in a text as a whole: `1 MiB` does not in `11 MiB`.
fn has(text: &str, value: &str) -> bool {
    text.match_indices(value).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + value.len()..].chars().next();
        !before.is_some_and(|sign| sign.is_ascii_alphanumeric() || sign == ',')
            && !after.is_some_and(|sign| sign.is_ascii_alphanumeric())
    })
}

/// The value of an expression such as `12 * 60 * 1_000` or `4 << 20`.
fn product(expression: &str) -> u64 {
    let number = |text: &str| -> u64 {
        let text = text.trim().replace('_', "");
        text.parse().unwrap_or_else(|_| panic!("`{expression}` is not understood"))
    };
    match expression.split_once("<<") {
        Some((left, right)) => number(left) << number(right),
        None => expression.split('*').map(number).product(),
    }
}

/// A limit as people write it, by the unit in its name.
fn in_words(name: &str, value: u64) -> String {
    let units: &[(u64, &str)] = if name.contains("_MS") {
        &[(86_400_000, " days"), (3_600_000, " h"), (60_000, " min"), (1_000, " s"), (1, " ms")]
    } else if name.contains("BYTES") {
        &[(1 << 20, " MiB"), (1 << 10, " KiB"), (1, " bytes")]
    } else {
        &[(1, "")]
    };
    let fits = units.iter().find(|(size, _)| value >= *size && value.is_multiple_of(*size));
    let (size, unit) = fits.expect("the last unit is one");
    let digits = (value / size).to_string();
    let grouped = digits.as_bytes().rchunks(3).rev().map(|three| String::from_utf8_lossy(three).into_owned());
    format!("{}{unit}", grouped.collect::<Vec<_>>().join(","))
}

#[test]
fn every_thing_that_a_client_can_do_is_a_word_of_the_readme() {
    let told: BTreeSet<String> = rows("Words")
        .iter()
        .flat_map(|row| row.iter().flat_map(|cell| cell.split("**").skip(1).step_by(2)))
        .map(str::to_lowercase)
        .collect();
    let proto = page("proto/raftqueue/v1/queue.proto");
    let calls = proto.split("\n  rpc ").skip(1).filter_map(|rest| rest.split('(').next());
    // Of a call of two words one has a meaning of its own: to open or to list is what it is elsewhere.
    let word = |call: &str| -> String {
        let second = call.char_indices().skip(1).find(|(_, sign)| sign.is_uppercase()).map(|(at, _)| at);
        let (first, second) = call.split_at(second.unwrap_or(call.len()));
        let is_plain = ["Create", "Delete", "List", "Describe", "Open", "Close"].contains(&first);
        if is_plain { second.trim_end_matches('s') } else { first }.to_lowercase()
    };
    let there: BTreeSet<String> = calls.map(word).collect();
    assert!(there.len() > 10, "the calls were found: {there:?}");
    let untold: Vec<_> = there.difference(&told).collect();
    assert!(untold.is_empty(), "the README's words lack {untold:?}");
    for result in ["DONE", "GONE", "STALE", "INVALID"] {
        assert!(proto.contains(&format!("_{result} = ")), "{result} is a result in the contract");
        assert!(told.contains(&result.to_lowercase()), "the README's words lack {result}");
    }
}
