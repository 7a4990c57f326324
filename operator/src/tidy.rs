//! The rooms that must stay pure: they name nothing that can reach the API server, a node, a clock or chance.

use std::path::{Path, PathBuf};

/// Where nothing of [`FORBIDDEN`] may be named, in folders or files of `src`.
const PURE: &[&str] = &[
    "cluster/plan",
    "cluster/build",
    "cluster/certificates.rs",
    "cluster/encryption.rs",
    "cluster/observation",
    "cluster/observation.rs",
    "cluster/validate.rs",
    "cluster/events.rs",
    "names.rs",
];
/// What would let a pure room act.
const FORBIDDEN: &[&str] = &[
    "kube::Client",
    "kube::{",
    "kube::Api",
    "kube::api",
    "Api<",
    "tokio",
    "tonic",
    "raftqueue_proto",
    "async ",
    ".await",
    "crate::cluster::apply",
    "crate::cluster::observe:",
    "crate::cluster::pass",
    "crate::controller",
    "std::net",
    "std::fs",
    "std::env",
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "getrandom",
    "HashMap",
    "HashSet",
];

fn sources(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), into);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        into.push(path.to_owned());
    }
}

#[test]
fn pure_rooms_cannot_act() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    PURE.iter().for_each(|room| sources(&root.join(room), &mut files));
    files.retain(|file| {
        !file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
    });
    assert!(files.len() >= 10, "the rooms were found: {files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in
            code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            for word in FORBIDDEN {
                assert!(!line.contains(word), "{}:{}: names {word}: {line}", file.display(), number + 1);
            }
        }
    }
}
