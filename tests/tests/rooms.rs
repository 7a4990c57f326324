//! Code can be read downwards: no files, and no rooms, name each other in a circle.
//!
//! A circle is a set of files each of which leads to all others of the set by the names in its code, in one step or many.
//! A room is a file at the top of `src` with everything in the folder of its name, taken as one. What a file names is found
//! in its text: `use` and paths, followed through what other files re-export to the file that has it. A file and those in
//! the folder of its name (`raft.rs` and `raft/leading.rs`) are one thing told in parts and may name each other. Comments
//! and tests count for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The files or rooms of a circle, sorted: their paths in the folder, without `.rs`.
type Circle = &'static [&'static str];

/// Each folder, and the circles that it still has. This list only gets shorter.
const FOLDERS: &[(&str, &[Circle])] = &[
    ("node/raft/src", &[]),
    ("node/wal/src", &[]),
    ("node/queue/src", &[]),
    ("node/access/src", &[]),
    ("node/src", &[]),
];

/// A file, as the modules that lead to it: none for `lib.rs`.
type Module = Vec<String>;
/// A path, as its parts.
type Names = Vec<String>;
/// What leads where.
type Edges = BTreeMap<Module, BTreeSet<Module>>;

#[test]
fn no_files_and_no_rooms_name_each_other_in_a_circle() {
    let mut told = Vec::new();
    for (folder, allowed) in FOLDERS {
        let files = Files::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder));
        assert!(files.0.len() >= 10, "{folder}: the files were found");
        told.extend(differences(allowed, &files).iter().map(|told| format!("{folder}: {told}")));
    }
    assert!(told.is_empty(), "\n{}", told.join("\n"));
}

#[test]
fn circles_are_seen_and_so_is_their_end() {
    let files = |low: &str| {
        let high = "use crate::Low;\n#[cfg(test)]\nmod tests {\n    use crate::top::Top;\n}";
        let (top, lib) =
            ("use crate::high::{self, High};\nmod part;\npub struct Top;", "pub use low::Low;\nmod low;");
        let part = "use super::Top;\nfn f() -> crate::low::Low {}";
        let all = [("lib", lib), ("low", low), ("high", high), ("top", top), ("top/part", part)];
        Files::new(&all.map(|(path, text)| (module(Path::new(path)), text.to_string())).into_iter().collect())
    };
    let none = files("// crate::high\nconst LINK: &str = \"crate::high\";\npub struct Low;");
    assert_eq!(differences(&[], &none), Vec::<String>::new());
    let told = differences(&[&["high", "low"]], &none);
    assert!(told.len() == 1 && told[0].contains("high, low is gone"), "{told:?}");
    for of_files in ["use crate::high;\npub struct Low;", "pub struct Low(super::high::High);"] {
        assert_eq!(differences(&[&["high", "low"]], &files(of_files)), Vec::<String>::new());
        let told = differences(&[], &files(of_files));
        assert!(told.len() == 1 && told[0].contains("high names low\n    low names high"), "{told:?}");
    }
    let told = differences(&[], &files("use crate::top;\npub struct Low(top::Top);"));
    assert!(told.len() == 1 && told[0].contains("high, low, top"), "by way of `part` and `high`: {told:?}");
}

/// Where the circles that are there and those that are allowed differ.
fn differences(allowed: &[Circle], files: &Files) -> Vec<String> {
    let edges = files.edges();
    let mut found: BTreeMap<Names, String> = circles(&rooms(&edges)).into_iter().collect();
    found.extend(circles(&edges));
    let appeared = found.iter().filter(|(names, _)| !allowed.iter().any(|circle| circle == names));
    let gone = allowed.iter().filter(|circle| !found.keys().any(|names| *circle == names));
    let appeared = appeared.map(|(names, steps)| {
        let remedy = "Move what they share to the one that uses it, or below both.";
        format!("a circle has appeared, {}. {remedy}{steps}", names.join(", "))
    });
    appeared
        .chain(gone.map(|circle| format!("{} is gone: take it off the list", circle.join(", "))))
        .collect()
}

/// The sets whose members lead to each other, and who in them names whom.
fn circles(edges: &Edges) -> Vec<(Names, String)> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        edges.keys().map(|from| (from, reach(edges, from))).collect();
    let circle =
        |from: &Module| reached[from].iter().copied().filter(|to| reached[to].contains(from)).collect();
    let circles: BTreeSet<Vec<&Module>> = edges.keys().map(circle).collect();
    let told = |circle: Vec<&Module>| {
        let steps = circle.iter().map(|from| {
            let to = edges[*from].iter().filter(|to| circle.contains(to)).map(|to| to.join("/"));
            format!("\n    {} names {}", from.join("/"), to.collect::<Names>().join(", "))
        });
        (circle.iter().map(|file| file.join("/")).collect(), steps.collect())
    };
    circles.into_iter().filter(|circle| !circle.is_empty()).map(told).collect()
}

fn reach<'a>(edges: &'a Edges, from: &'a Module) -> BTreeSet<&'a Module> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        open.extend(edges[next].iter().filter(|other| seen.insert(*other)));
    }
    seen
}

/// The same between whole rooms.
fn rooms(edges: &Edges) -> Edges {
    let room = |file: &Module| file[..1.min(file.len())].to_vec();
    let mut rooms = Edges::new();
    for (from, to) in edges {
        let other = to.iter().map(room).filter(|to| *to != room(from));
        rooms.entry(room(from)).or_default().extend(other);
    }
    rooms
}

/// The files of a crate.
struct Files(BTreeMap<Module, File>);

/// What is to be known of a file.
#[derive(Default)]
struct File {
    /// Its code, without comments, texts and tests.
    code: String,
    /// What it brings in, under the name that it has there.
    brought: BTreeMap<String, Names>,
    /// What it brings in whole.
    globs: Vec<Names>,
    /// All paths in it.
    paths: BTreeSet<Names>,
}

impl Files {
    fn read(folder: &Path) -> Files {
        let mut found = Vec::new();
        collect(folder, &mut found);
        let within = |file: &PathBuf| file.strip_prefix(folder).expect("found in it").with_extension("");
        // Beside a `lib.rs` a `main.rs` is another crate.
        let has_library = found.iter().any(|file| within(file) == Path::new("lib"));
        found.retain(|file| !has_library || within(file) != Path::new("main"));
        let text = |file: &PathBuf| std::fs::read_to_string(file).expect("sources are text");
        Files::new(&found.iter().map(|file| (module(&within(file)), text(file))).collect())
    }

    fn new(texts: &BTreeMap<Module, String>) -> Files {
        let is_test = |file: &Module| {
            let declared = |length: usize| {
                let declaration = format!("#[cfg(test)]\nmod {};", file[length]);
                texts.get(&file[..length]).is_some_and(|parent| parent.contains(&declaration))
            };
            (0..file.len()).any(declared)
        };
        let code = texts.iter().filter(|(file, _)| !is_test(file));
        Files(code.map(|(file, text)| (file.clone(), File::new(bare(text)))).collect())
    }

    /// The files that each one names, without those in the folder of its name and those whose folder it is in.
    fn edges(&self) -> Edges {
        let named = |from: &Module| {
            let found = self.0[from].paths.iter().filter_map(|path| self.find(from, path, 0));
            found.filter(|to| !to.starts_with(from) && !from.starts_with(to)).collect()
        };
        self.0.keys().map(|from| (from.clone(), named(from))).collect()
    }

    /// The file to which a path in `from` leads; `None` if it is not of this crate.
    fn find(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        assert!(depth < 20, "{from:?}: where does {path:?} lead?");
        let ups = path.iter().take_while(|part| ["crate", "self", "super"].contains(&part.as_str())).count();
        let mut at = if path[0] == "crate" { Module::new() } else { from.clone() };
        at.truncate(at.len().saturating_sub(path.iter().filter(|part| *part == "super").count()));
        for (place, part) in path.iter().enumerate().skip(ups) {
            let child: Module = at.iter().chain([part]).cloned().collect();
            if self.0.contains_key(&child) {
                at = child;
            } else if let Some(brought) =
                self.0[&at].brought.get(part).filter(|brought| **brought != path[place..])
            {
                let path: Names = brought.iter().chain(&path[place + 1..]).cloned().collect();
                return self.find(&at, &path, depth + 1).or((place > 0).then_some(at));
            } else if place == 0 {
                return None;
            } else {
                let globs = self.0[&at].globs.iter().filter_map(|glob| self.find(&at, glob, depth + 1));
                return Some(globs.into_iter().find(|file| self.0[file].defines(part)).unwrap_or(at));
            }
        }
        Some(at)
    }
}

impl File {
    fn new(code: String) -> File {
        let mut file = File::default();
        let mut rest = String::new();
        for (number, statement) in format!(" {code}").split(" use ").enumerate() {
            let (tree, behind) = statement.split_once(';').filter(|_| number > 0).unwrap_or(("", statement));
            rest.push_str(behind);
            expand("", tree, &mut file);
        }
        let words = rest.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        let paths = words.filter(|word| word.contains("::")).map(parts).filter(|path| !path.is_empty());
        file.paths.extend(paths);
        file.code = code;
        file
    }

    fn defines(&self, name: &str) -> bool {
        let words: Vec<&str> = self.code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let kinds = ["const", "enum", "fn", "static", "struct", "trait", "type", "union"];
        words.windows(2).any(|pair| kinds.contains(&pair[0]) && pair[1] == name)
    }
}

/// What a tree of `use` brings in.
fn expand(before: &str, tree: &str, into: &mut File) {
    if let Some((front, inside)) = tree.split_once('{') {
        let (before, inside) = (format!("{before}{front}"), inside.trim_end().trim_end_matches(','));
        let (mut depth, mut start) = (0, 0);
        for (at, c) in inside.char_indices() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if c == ',' && depth == 0 || depth < 0 {
                expand(&before, &inside[start..at], into);
                start = at + 1;
            }
        }
    } else if !tree.trim().is_empty() {
        let (tree, renamed) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path = parts(&format!("{before}{tree}"));
        if path.last().is_some_and(|last| last == "*") {
            path.pop();
            into.globs.push(path.clone());
        } else {
            path.pop_if(|last| last == "self");
            let name = parts(renamed).pop().or(path.last().cloned()).expect("a path has parts");
            into.brought.insert(name, path.clone());
        }
        into.paths.insert(path);
    }
}

fn parts(path: &str) -> Names {
    path.split("::").map(|part| part.trim().to_string()).filter(|part| !part.is_empty()).collect()
}

/// Code without what only looks like it: comments, the content of texts, and the tests at the end of a file. White space
/// becomes a single blank.
fn bare(text: &str) -> String {
    let mut rest = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut code = String::new();
    while let Some(c) = rest.chars().next() {
        let quoted_sign = code.ends_with('\'') || code.ends_with("'\\");
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if c == '"' && !quoted_sign {
            text_length(&code, rest)
        } else {
            code.push(if c.is_whitespace() { ' ' } else { c });
            c.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// How long the text is that `rest` begins with, its quotes included, where `code` stands before it.
fn text_length(code: &str, rest: &str) -> usize {
    let name = code.trim_end_matches('#');
    if name.ends_with('r') {
        let end = format!("\"{}", &code[name.len()..]);
        return rest[1..].find(&end).map_or(rest.len(), |at| 1 + at + end.len());
    }
    let mut is_escaped = false;
    let end = rest[1..].find(|c| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    end.map_or(rest.len(), |at| at + 2)
}

/// `a/b` and `a/b/mod` are both `a::b`.
fn module(path: &Path) -> Module {
    let mut parts: Module = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    parts.pop_if(|last| ["lib", "main", "mod"].contains(&last.as_str()));
    parts
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry of a folder").path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}
