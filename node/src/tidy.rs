//! Which room may know what, and how long a file may be. Circles between files and rooms are `tests/tests/rooms.rs`.

use std::path::{Path, PathBuf};

/// What only these rooms or files name.
const KNOWN_BY: &[(&str, &[&str])] = &[
    ("tonic::", &["edges", "peers", "service", "wire", "run"]),
    ("axum::", &["edges", "run"]),
    ("prometheus::", &["metrics"]),
    ("opentelemetry", &["traces"]),
    ("hyper", &["edges", "peers"]),
    ("std::env", &["config.rs", "main.rs"]),
];

/// Rooms and files without IO, clock, thread, chance or order of hashes: the same input makes the same output, everywhere.
const PURE: &[&str] = &[
    "replica",
    "api/mod.rs",
    "api/answer.rs",
    "api/calls.rs",
    "api/checks.rs",
    "api/members.rs",
    "api/recovery.rs",
    "api/codec",
    "api/limits",
    "api/status.rs",
];
/// What would let a pure room act, or differ from its like.
const FORBIDDEN: &[&str] = &[
    "tokio",
    "async ",
    ".await",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "SystemTime",
    "Instant",
    "getrandom",
    "entropy",
    "HashMap",
    "HashSet",
    "Mutex",
    "Atomic",
];

/// Lines of a file without its tests that are read at ease.
const LINES_MAX: usize = 500;
/// Files that are longer, and how long they may be. This list only gets shorter.
const LONG: &[(&str, usize)] = &[("edges/grpc/streams/consume.rs", 516)];

/// Every file of `src` that is not tests: its path there and its code, without comments and unit tests.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    let name = |path: &Path| path.strip_prefix(&root).expect("it was found there").display().to_string();
    let is_test = |path: &Path| {
        let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
        parts.iter().any(|part| {
            [
                "tests",
                "tests.rs",
                "tidy.rs",
                "at_the_limits.rs",
                "openapi.rs",
                "fake",
                "fake.rs",
                "fuzzing",
                "fuzzing.rs",
            ]
            .contains(part)
        })
    };
    paths.retain(|path| !is_test(path));
    assert!(paths.len() > 60, "the files were found: {paths:?}");
    paths.iter().map(|path| (name(path), code(&std::fs::read_to_string(path).expect("it is text")))).collect()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().expect("a first part");
    let lines = code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether a file is `place`, or lies in the room of that name.
fn is_in(file: &str, place: &str) -> bool {
    let room = file.strip_prefix(place);
    file == place || room.is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

/// Where `word` stands in a file, as a name or the beginning of one.
fn places<'a>(file: &'a str, code: &'a str, word: &'a str) -> impl Iterator<Item = String> + 'a {
    let is_name = move |line: &&str| {
        line.match_indices(word)
            .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let found = code.lines().enumerate().filter(move |(_, line)| is_name(line));
    found.map(move |(number, line)| format!("{file}:{}: {word}: {}", number + 1, line.trim()))
}

#[test]
fn each_library_is_known_by_few_rooms() {
    let mut told = Vec::new();
    for (file, code) in files() {
        for (word, rooms) in KNOWN_BY {
            if !rooms.iter().any(|room| is_in(&file, room)) {
                told.extend(places(&file, &code, word));
            }
        }
    }
    assert!(told.is_empty(), "named where it is not to be known:\n{}", told.join("\n"));
}

#[test]
fn pure_rooms_cannot_act() {
    let mut told = Vec::new();
    for (file, code) in files().iter().filter(|(file, _)| PURE.iter().any(|place| is_in(file, place))) {
        for word in FORBIDDEN {
            told.extend(places(file, code, word));
        }
    }
    assert!(told.is_empty(), "a pure room names what acts:\n{}", told.join("\n"));
}

#[test]
fn no_file_grows_long() {
    let mut told = Vec::new();
    for (file, code) in files() {
        let allowed = LONG.iter().find(|(long, _)| *long == file).map(|(_, lines)| *lines);
        let lines = code.lines().count();
        let complaint = match allowed {
            Some(max) if lines > max => {
                format!("has {lines} lines, and {max} are allowed: it is to get shorter")
            }
            Some(_) if lines <= LINES_MAX => "is not long any more: take it off the list".to_owned(),
            None if lines > LINES_MAX => format!("has {lines} lines, more than {LINES_MAX}: split it"),
            _ => continue,
        };
        told.push(format!("{file} {complaint}"));
    }
    assert!(told.is_empty(), "\n{}", told.join("\n"));
}
