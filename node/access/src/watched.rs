//! A file that is looked at now and then: what was right of it last stays in force while it is broken.

use crate::tokens::{Hash, hash_of};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file, and what it says.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    path: PathBuf,
    bytes_max: usize,
    parse: fn(&str) -> Result<T, String>,
    good: Arc<T>,
    good_hash: Hash,
    /// Why it is broken, if it is, as it was told.
    broken: Option<String>,
}

/// What a look at a file found.
pub(crate) enum Look<T> {
    /// What is in force.
    Same,
    /// Something else, which is right by itself.
    New(T, Hash),
    /// Something that is not right, or nothing.
    Broken(String),
}

impl<T> Watched<T> {
    /// Reads a file for the first time.
    pub(crate) fn load(
        path: &Path,
        bytes_max: usize,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Self, String> {
        let text = read(path, bytes_max)?;
        let good = Arc::new(parse(&text)?);
        Ok(Self { path: path.to_owned(), bytes_max, parse, good, good_hash: hash_of(&text), broken: None })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it says, or last said.
    pub(crate) fn good(&self) -> &Arc<T> {
        &self.good
    }

    /// Whether what it says is not what is in force.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Reads it again.
    pub(crate) fn look(&self) -> Look<T> {
        let text = match read(&self.path, self.bytes_max) {
            Ok(text) => text,
            Err(why) => return Look::Broken(why),
        };
        let hash = hash_of(&text);
        if hash == self.good_hash {
            return Look::Same;
        }
        match (self.parse)(&text) {
            Ok(new) => Look::New(new, hash),
            Err(why) => Look::Broken(why),
        }
    }

    /// What it says now counts.
    pub(crate) fn accept(&mut self, good: T, hash: Hash) {
        self.good = Arc::new(good);
        self.good_hash = hash;
        self.broken = None;
    }

    /// It is broken. Returns whether that is news.
    pub(crate) fn refuse(&mut self, why: &str) -> bool {
        let is_news = self.broken.as_deref() != Some(why);
        self.broken = Some(why.to_owned());
        is_news
    }

    /// It says what is in force. Returns whether it was broken before.
    pub(crate) fn mended(&mut self) -> bool {
        self.broken.take().is_some()
    }
}

/// The text of a file that is not too large.
pub(crate) fn read(path: &Path, bytes_max: usize) -> Result<String, String> {
    let cannot = |error: io::Error| format!("it cannot be read: {error}");
    // Opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("it is not a file".into());
    }
    let file = File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > bytes_max {
        return Err(format!("it has more than {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}
