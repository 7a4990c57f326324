//! The version stands in `Cargo.toml`, and wherever else it is written it is that one; what a release is made by is pinned, and may
//! do no more than it must.

use super::page;
use raftqueue_tests::process::repository;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where people and machines read the version, and around what.
const PLACES: [(&str, &str, &str); 3] = [
    ("README.md", "\nVersion ", ","),
    ("deploy/chart/Chart.yaml", "\nversion: ", "\n"),
    ("deploy/chart/Chart.yaml", "\nappVersion: ", "\n"),
];
/// Where images of the project are named by their tags.
const OF_IMAGES: [&str; 4] = ["README.md", "deploy", ".github/workflows", "operator/src/config.rs"];
const IMAGES: [&str; 2] = ["raftqueue-node:", "raftqueue-operator:"];
const WORKFLOWS: &str = ".github/workflows";

fn version() -> String {
    let manifest = page("Cargo.toml");
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = \""));
    line.expect("the workspace has a version").trim_end_matches('"').to_owned()
}

fn files(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a folder of the repository");
        entries.for_each(|entry| files(&entry.expect("an entry of a folder").path(), into));
    } else {
        into.push(path.to_owned());
    }
}

#[test]
fn the_version_is_one() {
    let version = version();
    assert_eq!(version, env!("CARGO_PKG_VERSION"), "the workspace's is that of its crates");
    for (path, before, after) in PLACES {
        let text = page(path);
        let told = text.split_once(before).and_then(|(_, rest)| rest.split_once(after));
        let told = told.unwrap_or_else(|| panic!("{path} tells the version"));
        assert_eq!(told.0, version, "{path}");
    }
    let mut paths = Vec::new();
    OF_IMAGES.iter().for_each(|path| files(&repository().join(path), &mut paths));
    let mut tags = 0;
    // Pictures are no text, and name no image.
    for (path, text) in paths.iter().filter_map(|path| Some((path, std::fs::read_to_string(path).ok()?))) {
        for rest in IMAGES.iter().flat_map(|image| text.split(image).skip(1)) {
            let end =
                rest.find(|sign: char| !sign.is_ascii_alphanumeric() && sign != '.').unwrap_or(rest.len());
            let tag = rest[..end].trim_end_matches('.');
            if tag.starts_with(|sign: char| sign.is_ascii_digit()) {
                assert_eq!(tag, version, "{}", path.display());
                tags += 1;
            }
        }
    }
    assert!(tags > 8, "the tags were found: {tags}");
}

#[test]
fn a_tag_of_another_version_is_no_release() {
    let said = |tag: &[&str]| {
        let output =
            Command::new(repository().join(".ci/version")).args(tag).output().expect("bash is there");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let version = version();
    assert_eq!(said(&[]), (true, version.clone()));
    assert_eq!(said(&[&format!("v{version}")]), (true, version.clone()));
    for tag in [version.as_str(), "v0.0.0", "main"] {
        assert_eq!(said(&[tag]), (false, String::new()), "{tag}");
    }
    assert!(page(&format!("{WORKFLOWS}/release.yml")).contains(".ci/version \"$GITHUB_REF_NAME\""));
}

#[test]
fn workflows_run_what_was_read_and_may_do_no_more_than_they_must() {
    let mut paths = Vec::new();
    files(&repository().join(WORKFLOWS), &mut paths);
    assert!(paths.len() >= 2, "the workflows were found: {paths:?}");
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a workflow is text");
        let path = path.display();
        for used in text.split("uses: ").skip(1).filter_map(|rest| rest.lines().next()) {
            let commit = used.split_once('@').map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
            let is_pinned =
                commit.is_some_and(|it| it.len() == 40 && it.chars().all(|c| c.is_ascii_hexdigit()));
            assert!(
                is_pinned && used.contains(" # v"),
                "{path}: `{used}` is named by commit, with its version behind"
            );
        }
        let rights = text.lines().find_map(|line| line.strip_prefix("permissions:"));
        let rights = rights.unwrap_or_else(|| panic!("{path} says what all its jobs may do")).trim();
        assert!(["{}", "{ contents: read }"].contains(&rights), "{path}: all its jobs may {rights}");
    }
    // Only what publishes may write, or sign, each its own.
    let release = page(&format!("{WORKFLOWS}/release.yml"));
    let writes: Vec<&str> = release.lines().filter(|line| line.contains(": write")).map(str::trim).collect();
    assert_eq!(
        writes,
        [
            "permissions: { contents: read, packages: write, id-token: write, attestations: write }",
            "permissions: { contents: write, id-token: write, attestations: write }"
        ]
    );
}

#[test]
fn images_are_nothing_but_programs_that_no_root_runs() {
    for image in ["node", "operator"] {
        let path = format!("deploy/{image}.Dockerfile");
        let text = page(&path);
        let says = |word: &str| text.lines().filter_map(|line| line.strip_prefix(word)).collect::<Vec<_>>();
        assert_eq!(says("FROM "), ["scratch"], "{path}");
        // By number, as Kubernetes can only judge a number; and no step behind changes it.
        assert_eq!(says("USER "), ["65532:65532"], "{path}");
        assert!(says("RUN ").is_empty() && says("ADD ").is_empty(), "{path}");
    }
}

#[test]
fn a_release_says_what_it_is_made_of_and_is_signed() {
    let release = page(&format!("{WORKFLOWS}/release.yml"));
    let steps =
        ["cargo cyclonedx", "cosign sign --yes", "sha256sum", "cosign sign-blob --yes", "gh release create"];
    let places: Vec<_> = steps.iter().map(|step| release.find(step)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{steps:?} in this order: {places:?}");
    assert!(page(&format!("{WORKFLOWS}/advisories.yml")).contains("cargo deny check advisories"));
}
