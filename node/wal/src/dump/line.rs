//! One line of a dump. Its text and its fields come from one template, so that people and programs are told the same.

use std::fmt;
use std::io::{self, Write};

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// Which node of which cluster the directory is of.
    Identity,
    /// One member to which it is bound.
    Bound,
    /// One slot of term and vote.
    HardState,
    /// A forced recovery that was decided.
    Recovery,
    /// Which files count.
    Manifest,
    /// One file that the manifest names, or does not.
    Named,
    /// A snapshot.
    Snapshot,
    /// A segment begins.
    Segment,
    /// One batch of a segment.
    Batch,
    /// One record of a batch.
    Record,
    /// The sealed index of a segment.
    Seal,
    /// A segment ends.
    End,
    /// A places file or a kept file begins.
    Places,
    /// What such a file has of one topic.
    Topic,
    /// One page of it.
    Page,
    /// One run of messages in it.
    Block,
    /// Something that was synced and cannot be read, or is not there.
    Damaged,
    /// Something that cannot be read and that nothing proves: most likely a torn write.
    Torn,
    /// A file that a node changed or removed while it was read.
    Gone,
    /// What was found in all.
    Sum,
}

/// One value in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineValue {
    /// A number, in decimal.
    Number(u64),
    /// A number that need not be there; as text `none`.
    Maybe(Option<u64>),
    /// Text as it is; also numbers that people know in hexadecimal.
    Text(String),
    /// A name, which the text has in quotes.
    Name(String),
    /// Yes or no; the text says it with one of these.
    Said(bool, &'static str, &'static str),
}

/// A line: a text for people, and its values by name for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    kind: LineKind,
    /// The text, with `{name}` where a value stands.
    template: &'static str,
    fields: Vec<(&'static str, LineValue)>,
}

impl Line {
    pub(super) fn new(
        kind: LineKind,
        template: &'static str,
        fields: impl IntoIterator<Item = (&'static str, LineValue)>,
    ) -> Self {
        Self { kind, template, fields: fields.into_iter().collect() }
    }

    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> LineKind {
        self.kind
    }

    /// Its values by name. Some are told only here.
    #[must_use]
    pub fn fields(&self) -> &[(&'static str, LineValue)] {
        &self.fields
    }

    /// The value of this name, if it is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.fields.iter().find(|(known, _)| *known == name).and_then(|(_, value)| match value {
            LineValue::Number(number) => Some(*number),
            LineValue::Maybe(number) => *number,
            _ => None,
        })
    }
}

impl LineKind {
    /// Its name for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LineKind::Identity => "identity",
            LineKind::Bound => "bound",
            LineKind::HardState => "hard_state",
            LineKind::Recovery => "recovery",
            LineKind::Manifest => "manifest",
            LineKind::Named => "named",
            LineKind::Snapshot => "snapshot",
            LineKind::Segment => "segment",
            LineKind::Batch => "batch",
            LineKind::Record => "record",
            LineKind::Seal => "seal",
            LineKind::End => "end",
            LineKind::Places => "places",
            LineKind::Topic => "topic",
            LineKind::Page => "page",
            LineKind::Block => "block",
            LineKind::Damaged => "damaged",
            LineKind::Torn => "torn",
            LineKind::Gone => "gone",
            LineKind::Sum => "sum",
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.template;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').expect("every template closes what it opens");
            let value = self.fields.iter().find(|(known, _)| *known == name);
            let (_, value) = value.expect("every name of a template has a value");
            write!(f, "{before}{value}")?;
            rest = after;
        }
        f.write_str(rest)
    }
}

impl fmt::Display for LineValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineValue::Number(number) | LineValue::Maybe(Some(number)) => write!(f, "{number}"),
            LineValue::Maybe(None) => f.write_str("none"),
            LineValue::Text(text) => f.write_str(text),
            LineValue::Name(name) => write!(f, "{name:?}"),
            LineValue::Said(true, text, _) | LineValue::Said(false, _, text) => f.write_str(text),
        }
    }
}

impl From<u64> for LineValue {
    fn from(number: u64) -> Self {
        LineValue::Number(number)
    }
}

impl From<usize> for LineValue {
    fn from(number: usize) -> Self {
        LineValue::Number(number as u64)
    }
}

impl From<u32> for LineValue {
    fn from(number: u32) -> Self {
        LineValue::Number(number.into())
    }
}

impl From<Option<u64>> for LineValue {
    fn from(number: Option<u64>) -> Self {
        LineValue::Maybe(number)
    }
}

impl From<String> for LineValue {
    fn from(text: String) -> Self {
        LineValue::Text(text)
    }
}

/// Takes the lines of a dump.
pub trait DumpSink {
    /// The next line.
    ///
    /// # Errors
    /// It cannot be written: the dump ends.
    fn line(&mut self, line: &Line) -> io::Result<()>;

    /// What follows is about one file. Whether it counts is known when the file is read.
    fn hold(&mut self);

    /// Whether what followed the last [`DumpSink::hold`] counts. If not, it was not to be told.
    ///
    /// # Errors
    /// It cannot be written: the dump ends.
    fn settle(&mut self, counts: bool) -> io::Result<()>;
}

/// Writes lines as text.
pub(super) struct Text<'a> {
    out: &'a mut dyn Write,
    held: Option<Vec<u8>>,
}

impl<'a> Text<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, held: None }
    }
}

impl DumpSink for Text<'_> {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        match &mut self.held {
            Some(held) => writeln!(held, "{line}"),
            None => writeln!(self.out, "{line}"),
        }
    }

    fn hold(&mut self) {
        self.held = Some(Vec::new());
    }

    fn settle(&mut self, counts: bool) -> io::Result<()> {
        match self.held.take() {
            Some(held) if counts => self.out.write_all(&held),
            _ => Ok(()),
        }
    }
}
