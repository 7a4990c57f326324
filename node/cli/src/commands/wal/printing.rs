//! Which lines of a dump are printed, and in which form.

use raftqueue_wal::{DumpSink, Line, LineKind, LineValue};
use serde_json::{Map, Value};
use std::io::{self, Write};

/// What is wanted of a dump.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chosen {
    /// Files, and nothing of what is in them.
    pub(super) is_summary: bool,
    /// Records from this index on.
    pub(super) from: Option<u64>,
    /// At most so many records.
    pub(super) limit: Option<u64>,
}

/// Prints what is wanted.
pub(super) struct Printing<'a> {
    out: &'a mut dyn Write,
    chosen: Chosen,
    is_json: bool,
    state: State,
    /// What was printed of a file that may not count, and the state before.
    held: Option<(Vec<u8>, State)>,
}

#[derive(Clone, Default)]
struct State {
    records: u64,
    /// The first record that was left out because there were enough.
    next: Option<u64>,
    /// A batch that is printed if one of its records is.
    batch: Option<String>,
}

impl<'a> Printing<'a> {
    pub(super) fn new(out: &'a mut dyn Write, chosen: Chosen, is_json: bool) -> Self {
        Self { out, chosen, is_json, state: State::default(), held: None }
    }

    /// The index of the first record that was left out because of the limit.
    pub(super) fn records_hidden(&self) -> Option<u64> {
        self.state.next
    }

    fn is_part(&self) -> bool {
        self.chosen.from.is_some() || self.chosen.limit.is_some()
    }

    fn text(&self, line: &Line) -> String {
        if self.is_json { json(line).to_string() } else { line.to_string() }
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        match &mut self.held {
            Some((held, _)) => writeln!(held, "{text}"),
            None => writeln!(self.out, "{text}"),
        }
    }

    fn record(&mut self, line: &Line) -> io::Result<()> {
        let index = line.number("index").unwrap_or_default();
        if index < self.chosen.from.unwrap_or(0) {
            return Ok(());
        }
        if self.chosen.limit.is_some_and(|limit| self.state.records >= limit) {
            self.state.next.get_or_insert(index);
            return Ok(());
        }
        if let Some(batch) = self.state.batch.take() {
            self.print(&batch)?;
        }
        self.state.records += 1;
        let text = self.text(line);
        self.print(&text)
    }
}

impl DumpSink for Printing<'_> {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        let is_detail = matches!(
            line.kind(),
            LineKind::Batch
                | LineKind::Record
                | LineKind::Seal
                | LineKind::Topic
                | LineKind::Page
                | LineKind::Block
        );
        match line.kind() {
            _ if is_detail && self.chosen.is_summary => Ok(()),
            LineKind::Batch if self.is_part() => {
                self.state.batch = Some(self.text(line));
                Ok(())
            }
            LineKind::Record => self.record(line),
            // Who asks for records does not want to read files of messages.
            _ if is_detail && self.is_part() => Ok(()),
            _ => {
                let text = self.text(line);
                self.print(&text)
            }
        }
    }

    fn hold(&mut self) {
        self.held = Some((Vec::new(), self.state.clone()));
    }

    fn settle(&mut self, counts: bool) -> io::Result<()> {
        match self.held.take() {
            Some((held, _)) if counts => self.out.write_all(&held),
            Some((_, state)) => {
                self.state = state;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// A line as an object: what it is about, and its values.
fn json(line: &Line) -> Value {
    let mut object = Map::new();
    object.insert("kind".into(), line.kind().name().into());
    for (name, value) in line.fields() {
        let value = match value {
            LineValue::Number(number) => (*number).into(),
            LineValue::Maybe(number) => (*number).into(),
            LineValue::Text(text) | LineValue::Name(text) => text.trim_end().into(),
            LineValue::Said(said, _, _) => (*said).into(),
        };
        object.insert((*name).to_owned(), value);
    }
    Value::Object(object)
}
