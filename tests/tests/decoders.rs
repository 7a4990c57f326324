//! Every decoder of bytes from outside reads what fuzzing has found worth keeping (`tests/fuzz/corpus`) as it should: without
//! a panic, and so that it comes back. What finds more is `tests/fuzz/run`, which has a fuzzer make new bytes.

use raftqueue_access::fuzzing as access;
use raftqueue_client::fuzzing as client;
use raftqueue_node::fuzzing as node;
use raftqueue_tests::process::repository;
use raftqueue_tls::fuzzing as tls;
use raftqueue_wal::fuzzing as wal;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A decoder, as it is fuzzed.
type Check = fn(&[u8]);

/// The targets of `tests/fuzz`.
const TARGETS: [(&str, Check); 25] = [
    ("calls", node::calls),
    ("certificates", tls::certificates),
    ("configuration", wal::configuration),
    ("console", node::console),
    ("contexts", client::contexts),
    ("entry", node::entry),
    ("given", node::given),
    ("grpc", node::grpc),
    ("http", node::http),
    ("ids", node::ids),
    ("jwt", access::jwt),
    ("log", wal::log),
    ("message", node::message),
    ("peer_messages", node::peer_messages),
    ("places", wal::places),
    ("policy", access::policy),
    ("publish_shape", node::publish_shape),
    ("replies", node::replies),
    ("sections", node::sections),
    ("segment", wal::segment),
    ("settings", node::settings),
    ("small_files", wal::small_files),
    ("snapshot", wal::snapshot),
    ("token_review", access::token_review),
    ("tokens", access::tokens),
];
/// Bytes of all that is kept, at most: it is part of every clone.
const KEPT_BYTES_MAX: u64 = 200 << 10;
/// What the file of a seed is called, before its name.
const SEED: &str = "seed-";

fn folder() -> PathBuf {
    repository().join("tests/fuzz")
}

/// What is in a folder, by name.
fn listed(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("plain names")).collect()
}

#[test]
fn what_is_kept_of_fuzzing_is_read_as_it_should_be() {
    let mut bytes = 0;
    for (target, check) in TARGETS {
        let kept = folder().join("corpus").join(target);
        let names = listed(&kept);
        assert!(!names.is_empty(), "{target} has something kept");
        for name in names {
            let data = std::fs::read(kept.join(&name)).expect("it can be read");
            bytes += data.len() as u64;
            // A test that panics does not say by itself with which of them.
            println!("{target}/{name}");
            check(&data);
        }
    }
    assert!(bytes <= KEPT_BYTES_MAX, "{bytes} bytes are kept, {KEPT_BYTES_MAX} is the most");
}

/// `RAFTQUEUE_RECORD=1` writes the seeds anew.
#[test]
fn fuzzing_begins_with_what_is_written_today() {
    let mut targets = BTreeSet::new();
    let of_locks = access::seeds().into_iter().chain(tls::seeds()).chain(client::seeds());
    for (target, name, data) in wal::seeds().into_iter().chain(node::seeds()).chain(of_locks) {
        targets.insert(target);
        let file = folder().join("corpus").join(target).join(format!("{SEED}{name}"));
        if std::env::var_os("RAFTQUEUE_RECORD").is_some() {
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("it can be made");
            std::fs::write(&file, &data).expect("it can be written");
        }
        let kept = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(kept == data, "{}: RAFTQUEUE_RECORD=1 writes it anew", file.display());
    }
    assert_eq!(targets, TARGETS.map(|(target, _)| target).into(), "every target has seeds");
}

#[test]
fn every_target_is_run_kept_and_told() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(listed(&folder().join("corpus")), targets, "folders of what is kept");
    let files: BTreeSet<String> = targets.iter().map(|target| format!("{target}.rs")).collect();
    assert_eq!(listed(&folder().join("fuzz_targets")), files, "programs that fuzz");
    let text = |name: &str| std::fs::read_to_string(folder().join(name)).expect("it is there");
    let (manifest, page) = (text("Cargo.toml"), text("README.md"));
    for target in &targets {
        assert!(manifest.contains(&format!("\nname = \"{target}\"\n")), "{target} is in the manifest");
        assert!(page.contains(&format!("| `{target}` |")), "{target} has its line in the page");
    }
}
