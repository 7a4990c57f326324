//! Contexts: where clusters are and what is shown to them, by names in a file, as `raftq context` writes it.
//!
//! ```yaml
//! current: demo
//! contexts:
//! - name: demo
//!   endpoints: [queue.example:7420]
//!   caFile: ca.crt          # relative to the folder of this file
//!   tokenFile: demo.token   # never the token itself
//! ```
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use raftqueue_client::{Client, Contexts};
//! use std::path::Path;
//!
//! let file = Path::new("/home/anna/.config/raftq/config.yaml");
//! let contexts = Contexts::read(file)?;
//! let context = contexts.get("demo").ok_or("there is no such context")?;
//! let client = Client::connect_with(context.endpoints.clone(), context.credentials(file))?;
//! # Ok(())
//! # }
//! ```

use crate::{Credentials, Token};
use serde::{Deserialize, Serialize};
use serde_saphyr::{Error as YamlError, Spanned};
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// Size of the file, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// How many contexts there may be.
const CONTEXTS_MAX: usize = 1_024;
/// Endpoints of one context.
const ENDPOINTS_MAX: usize = 64;
/// Length of a name, in bytes.
const NAME_BYTES_MAX: usize = 253;
/// Length of an endpoint, or of a file's path, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;
/// Longest text of a file that a message repeats, in characters.
const SHOWN_CHARS_MAX: usize = 255;

/// Where a cluster is, and what is shown to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Context {
    /// Its name: 1 to 253 letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Nodes, one to 64: HOST:PORT each, or https://HOST:PORT.
    pub endpoints: Vec<String>,
    /// As [`Credentials::ca_file`]. A path that is relative begins at the folder of the contexts' file, here and below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// As [`Credentials::cert_file`]; with [`key_file`](Self::key_file), or neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// As [`Credentials::key_file`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// A file with the token. The token itself is not kept among contexts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

impl Context {
    /// What is shown to the cluster. `file` is where this context was read: relative paths begin at its folder.
    #[must_use]
    pub fn credentials(&self, file: &Path) -> Credentials {
        let folder = file.parent().unwrap_or(Path::new(""));
        let at = |path: &Option<PathBuf>| path.as_ref().map(|path| folder.join(path));
        Credentials {
            ca_file: at(&self.ca_file),
            cert_file: at(&self.cert_file),
            key_file: at(&self.key_file),
            token: at(&self.token_file).map(Token::File),
        }
    }

    fn files(&self) -> [(&'static str, &Option<PathBuf>); 4] {
        [
            ("caFile", &self.ca_file),
            ("certFile", &self.cert_file),
            ("keyFile", &self.key_file),
            ("tokenFile", &self.token_file),
        ]
    }

    /// What is wrong with it, if anything is.
    fn check(&self) -> Result<(), String> {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.chars().all(is_of_name) {
            return Err(format!(
                "`{}` is no name: it must have 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`",
                shown(&self.name)
            ));
        }
        if self.endpoints.is_empty() || self.endpoints.len() > ENDPOINTS_MAX {
            return Err(format!(
                "`endpoints` must name 1 to {ENDPOINTS_MAX} nodes, as in [queue.example:7420]"
            ));
        }
        let is_one_word = |text: &str| {
            !text.is_empty()
                && text.len() <= TEXT_BYTES_MAX
                && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        if let Some(wrong) = self.endpoints.iter().find(|endpoint| !is_one_word(endpoint)) {
            return Err(format!("`{}` is no endpoint; right would be queue.example:7420", shown(wrong)));
        }
        for (field, file) in self.files() {
            let Some(file) = file else { continue };
            let text = file.to_str().filter(|text| text.len() <= TEXT_BYTES_MAX);
            if text.is_none_or(|text| text.is_empty() || text.contains(char::is_control)) {
                return Err(format!("`{field}` must be the path of a file: text on one line, not empty"));
            }
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            return Err("a certificate and its key go together: `certFile` and `keyFile`, or neither".into());
        }
        Ok(())
    }
}

/// All contexts of a file, and which of them is in use.
///
/// No two have the same name, and the one in use is among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    contexts: Vec<Context>,
}

/// Why contexts cannot be read or changed: for whoever wrote the file, in words with the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ContextError {
    text: String,
}

impl ContextError {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// `line` counts from 1; 0 where none is known.
    fn at(line: u64, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { text: if line == 0 { text } else { format!("line {line}: {text}") } }
    }
}

/// The file as it is written by hand: where something stands is told with what is wrong there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    current: Option<Spanned<String>>,
    #[serde(default)]
    contexts: Vec<Spanned<WrittenContext>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenContext {
    name: String,
    endpoints: Vec<String>,
    ca_file: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
    token_file: Option<String>,
}

impl Contexts {
    /// Reads a file. One that does not exist has no contexts.
    ///
    /// # Errors
    /// It cannot be read, or is not right; the text names the file, and a person has to mend it.
    pub fn read(file: &Path) -> Result<Self, ContextError> {
        let within = |text: String| ContextError::new(format!("{}: {text}", file.display()));
        let opened = match File::open(file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(within(error.to_string())),
        };
        let mut bytes = Vec::new();
        // One byte more than there may be, so that it is seen.
        let read = opened.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| within(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| within("it is no text in UTF-8".into()))?;
        Self::parse(&text).map_err(|error| within(error.text))
    }

    /// Reads the text of a file. An empty one has no contexts.
    ///
    /// # Errors
    /// It is not right; a person has to mend it.
    pub fn parse(text: &str) -> Result<Self, ContextError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(ContextError::new(format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let is_empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(is_empty) {
            return Ok(Self::default());
        }
        let options = serde_saphyr::options! {
            merge_keys: serde_saphyr::MergeKeyPolicy::Error,
            strict_booleans: true,
            emit_comments: false,
            with_snippet: false,
            budget: serde_saphyr::budget! { max_events: 100_000, max_aliases: 0, max_anchors: 0, max_depth: 8, max_documents: 1 },
        };
        let written: Written =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| explained(&error))?;
        let mut read = Self::default();
        for one in written.contexts {
            let line = one.referenced.line();
            let WrittenContext { name, endpoints, ca_file, cert_file, key_file, token_file } = one.value;
            let [ca_file, cert_file, key_file, token_file] =
                [ca_file, cert_file, key_file, token_file].map(|file| file.map(PathBuf::from));
            let context = Context { name, endpoints, ca_file, cert_file, key_file, token_file };
            read.add(context).map_err(|error| ContextError::at(line, error.text))?;
        }
        if let Some(current) = written.current {
            let line = current.referenced.line();
            read.choose(Some(&current.value)).map_err(|error| ContextError::at(line, error.text))?;
        }
        Ok(read)
    }

    /// The text of a file with these contexts.
    ///
    /// # Errors
    /// Never as long as YAML can be written.
    pub fn to_yaml(&self) -> Result<String, ContextError> {
        serde_saphyr::to_string(self).map_err(|error| ContextError::new(error.to_string()))
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Context> {
        self.contexts.iter()
    }

    /// The context of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Context> {
        self.contexts.iter().find(|context| context.name == name)
    }

    /// The context in use, if one is.
    #[must_use]
    pub fn current(&self) -> Option<&Context> {
        self.get(self.current.as_deref()?)
    }

    /// Adds one behind the others.
    ///
    /// # Errors
    /// It is not right, its name is taken, or there are too many: nothing is changed.
    pub fn add(&mut self, context: Context) -> Result<(), ContextError> {
        context.check().map_err(ContextError::new)?;
        if self.get(&context.name).is_some() {
            return Err(ContextError::new(format!("there is a context `{}` already", context.name)));
        }
        if self.contexts.len() >= CONTEXTS_MAX {
            return Err(ContextError::new(format!("there may be {CONTEXTS_MAX} contexts, and no more")));
        }
        self.contexts.push(context);
        Ok(())
    }

    /// Takes one out, and out of use. `false`: there is none of this name.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.contexts.len();
        self.contexts.retain(|context| context.name != name);
        self.current = self.current.take().filter(|current| current != name);
        self.contexts.len() < before
    }

    /// Takes the one of this name into use; `None`: none is any more.
    ///
    /// # Errors
    /// There is none of this name: nothing is changed.
    pub fn choose(&mut self, name: Option<&str>) -> Result<(), ContextError> {
        if let Some(name) = name
            && self.get(name).is_none()
        {
            return Err(ContextError::new(format!("there is no context `{}`", shown(name))));
        }
        self.current = name.map(str::to_owned);
        Ok(())
    }
}

/// What is wrong with the form, in words of this file.
fn explained(error: &YamlError) -> ContextError {
    let error = error.without_snippet();
    let line = error.location().map_or(0, |location| location.line());
    let text = match error {
        YamlError::SerdeUnknownField { field, .. } if field == "token" => {
            "a token is not kept in this file: write it into a file of its own, and name that by `tokenFile`"
                .to_owned()
        }
        YamlError::SerdeUnknownField { field, expected, .. } => {
            let names: Vec<String> = expected.iter().map(|name| format!("`{name}`")).collect();
            format!("there is no `{}` here; there are {}", shown(field), names.join(", "))
        }
        YamlError::SerdeMissingField { field, .. } => format!("`{field}` is missing"),
        YamlError::DuplicateMappingKey { key: Some(key), .. } => {
            format!("`{}` stands here a second time", shown(key))
        }
        other => {
            let text = other.render();
            // Its last words are the place, which stands in front already.
            shown(text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text))
        }
    };
    ContextError::at(line, text)
}

/// Text of a file as a message may repeat it: on one line, harmless to a terminal, and not too long.
fn shown(text: &str) -> String {
    let mut safe = String::new();
    for (position, c) in text.chars().enumerate() {
        if position == SHOWN_CHARS_MAX {
            safe.push('…');
            break;
        }
        if c.is_control() { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# written by hand
current: demo
contexts:
- name: demo
  endpoints: [queue.example:7420, \"https://[::1]:7430\"]
  caFile: ca.crt
  certFile: /etc/queue/anna.crt
  keyFile: keys/anna.key
  tokenFile: ../demo.token
- {name: here, endpoints: [\"127.0.0.1:7420\"]}
";

    #[test]
    fn a_file_is_read_with_its_paths_beside_it_and_written_as_it_is_read() {
        let contexts = Contexts::parse(FILE).expect("right");
        let names: Vec<&str> = contexts.iter().map(|context| context.name.as_str()).collect();
        assert_eq!((names, contexts.current()), (vec!["demo", "here"], contexts.get("demo")));
        let credentials =
            contexts.current().expect("in use").credentials(Path::new("/home/anna/q/config.yaml"));
        let Some(Token::File(token)) = &credentials.token else { panic!("{credentials:?}") };
        assert_eq!(
            [
                credentials.ca_file.as_deref(),
                credentials.cert_file.as_deref(),
                credentials.key_file.as_deref(),
                Some(token.as_path())
            ]
            .map(|file| file.and_then(Path::to_str)),
            [
                Some("/home/anna/q/ca.crt"),
                Some("/etc/queue/anna.crt"),
                Some("/home/anna/q/keys/anna.key"),
                Some("/home/anna/q/../demo.token")
            ]
        );
        assert!(contexts.get("here").expect("there").credentials(Path::new("c")).token.is_none());
        assert_eq!(Contexts::parse(&contexts.to_yaml().expect("YAML")), Ok(contexts));
        for empty in ["", "\n", "# nothing yet\n", "contexts: []\n"] {
            assert_eq!(Contexts::parse(empty), Ok(Contexts::default()), "{empty:?}");
        }
    }

    #[test]
    fn what_is_not_right_is_refused_with_its_line() {
        let many: String =
            (0..=CONTEXTS_MAX).map(|at| format!("- {{name: c{at}, endpoints: [a]}}\n")).collect();
        for (text, words) in [
            (
                FILE.replace("caFile", "ca"),
                "line 6: there is no `ca` here; there are `name`, `endpoints`, `caFile`",
            ),
            (FILE.replace("tokenFile", "token"), "line 9: a token is not kept in this file"),
            (FILE.replace("current: demo", "current: dmeo"), "line 2: there is no context `dmeo`"),
            (FILE.replace("name: here", "name: demo"), "line 10: there is a context `demo` already"),
            (FILE.replace("name: here", "name: a b"), "line 10: `a b` is no name"),
            (FILE.replace("  keyFile: keys/anna.key\n", ""), "line 4: a certificate and its key go together"),
            (FILE.replace("[\"127.0.0.1:7420\"]", "[]"), "line 10: `endpoints` must name 1 to 64 nodes"),
            (FILE.replace("\"127.0.0.1:7420\"", "a b"), "line 10: `a b` is no endpoint"),
            (FILE.replace("ca.crt", "''"), "line 4: `caFile` must be the path of a file"),
            (FILE.replace("- name: demo\n  endp", "- endp"), "`name` is missing"),
            (
                FILE.replace("current: demo", "current: demo\ncurrent: here"),
                "`current` stands here a second time",
            ),
            (FILE.replace("current: demo", "current: &a demo"), "line 2: "),
            (format!("contexts:\n{many}"), "line 1026: there may be 1024 contexts"),
            ("contexts: [".into(), "line 1"),
            ("just text".into(), "line 1: "),
            (" ".repeat(FILE_BYTES_MAX) + "x", "more than 1048576 bytes"),
        ] {
            let error = Contexts::parse(&text).expect_err(words).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn one_that_is_removed_is_no_longer_in_use() {
        let mut contexts = Contexts::parse(FILE).expect("right");
        assert!(contexts.choose(Some("nobody")).is_err() && contexts.current().is_some());
        assert!(contexts.remove("demo") && !contexts.remove("demo"));
        assert_eq!(contexts.current(), None);
        contexts.choose(Some("here")).expect("there");
        contexts.choose(None).expect("none");
        assert_eq!((contexts.current(), contexts.iter().count()), (None, 1));
    }

    #[test]
    fn a_file_is_named_where_it_is_wrong_and_one_that_is_missing_has_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.yaml");
        assert_eq!(Contexts::read(&file), Ok(Contexts::default()));
        std::fs::write(&file, b"\xff").expect("room");
        let error = Contexts::read(&file).expect_err("no text").to_string();
        assert!(error.starts_with(&file.display().to_string()) && error.contains("UTF-8"), "{error}");
        assert!(Contexts::read(folder.path()).is_err(), "a folder is no file");
    }
}
