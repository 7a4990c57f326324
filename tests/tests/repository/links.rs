//! Every relative link of every page leads to a file that is there, and its anchor to a heading of that page.

use raftqueue_tests::process::repository;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of the repository's own.
const FOREIGN: [&str; 3] = ["target", ".git", "node_modules"];

#[test]
fn every_link_of_every_page_leads_somewhere() {
    let pages = pages();
    assert!(pages.len() > 15, "the pages were found: {pages:#?}");
    let mut links = 0;
    let mut broken = Vec::new();
    for path in &pages {
        let text = std::fs::read_to_string(path).expect("pages are text");
        for link in relative_links(&text) {
            links += 1;
            if let Err(why) = follow(path, &link) {
                let page = path.strip_prefix(root()).expect("it was found there").display();
                broken.push(format!("{page}: ({link}) {why}"));
            }
        }
    }
    assert!(links > 30, "the links were found: {links}");
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn every_page_is_reached_from_the_readme() {
    let mut reached = BTreeSet::new();
    let mut open = vec![root().join("README.md")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let inside = std::fs::read_dir(&path).expect("a folder of the repository");
            open.extend(
                inside.map(|entry| entry.expect("an entry of a folder").path()).filter(|it| is_page(it)),
            );
        } else if is_page(&path) && reached.insert(path.clone()) {
            let text = std::fs::read_to_string(&path).expect("pages are text");
            open.extend(
                relative_links(&text).iter().filter_map(|link| target(&path, link).canonicalize().ok()),
            );
        }
    }
    let pages = pages();
    let alone: Vec<_> = pages.iter().filter(|page| !reached.contains(*page)).collect();
    assert!(alone.is_empty(), "no way leads from README.md to these pages: {alone:#?}");
}

#[test]
fn anchors_are_made_as_they_are_where_pages_are_read() {
    assert_eq!(
        anchors("# A `raftq` b, c_d: (e)!\n## Twice\n## Twice\n```\n# none\n```\n"),
        ["a-raftq-b-c_d-e", "twice", "twice-1"]
    );
}

/// The repository's folder, by the one name that links resolve to.
fn root() -> PathBuf {
    repository().canonicalize().expect("the repository is there")
}

/// Every page of the repository.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    collect(&root(), &mut pages);
    pages
}

fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry of a folder").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && !FOREIGN.contains(&name.as_str()) {
            collect(&path, into);
        } else if is_page(&path) {
            into.push(path);
        }
    }
}

/// The lines of a page that are not code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// What `[text](link)` and `src="link"` name, but for other sites.
fn relative_links(text: &str) -> Vec<String> {
    let after = |line: &str, before: &str, end: char| -> Vec<String> {
        let rests = line.split(before).skip(1).map(str::to_owned).collect::<Vec<_>>();
        rests.iter().filter_map(|rest| rest.split_once(end).map(|(link, _)| link.to_owned())).collect()
    };
    prose(text)
        .flat_map(|line| {
            [after(line, "](", ')'), after(line, "src=\"", '"'), after(line, "srcset=\"", '"')].concat()
        })
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        .collect()
}

/// The path that a link of a page names.
fn target(page: &Path, link: &str) -> PathBuf {
    let (path, _) = link.split_once('#').unwrap_or((link, ""));
    if path.is_empty() { page.to_owned() } else { page.parent().expect("a page is in a folder").join(path) }
}

fn follow(from: &Path, link: &str) -> Result<(), String> {
    let target = target(from, link);
    if !target.exists() {
        return Err("is not there".into());
    }
    let Some((_, anchor)) = link.split_once('#') else { return Ok(()) };
    let there = anchors(&std::fs::read_to_string(&target).map_err(|error| error.to_string())?);
    if there.iter().any(|known| known == anchor) { Ok(()) } else { Err(format!("has only {there:?}")) }
}

/// The anchors of a page's headings: in small letters, without signs, with hyphens for spaces, numbered where they repeat.
fn anchors(text: &str) -> Vec<String> {
    let (mut seen, mut made) = (Vec::<String>::new(), Vec::new());
    for line in prose(text) {
        let heading = line.trim_start_matches('#');
        let level = line.len() - heading.len();
        if !(1..=6).contains(&level) || !heading.starts_with(' ') {
            continue;
        }
        let kept = |sign: char| sign.is_alphanumeric() || matches!(sign, ' ' | '-' | '_');
        let words: String = heading.trim().to_lowercase().chars().filter(|&sign| kept(sign)).collect();
        let anchor = words.replace(' ', "-");
        let again = seen.iter().filter(|other| **other == anchor).count();
        seen.push(anchor.clone());
        made.push(if again == 0 { anchor } else { format!("{anchor}-{again}") });
    }
    made
}
