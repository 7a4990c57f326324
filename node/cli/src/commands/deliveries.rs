//! Messages as they are shown.

use crate::failure::Failure;
use crate::output::{Format, Output, Table};
use crate::text::utc;
use raftqueue_client::v1;
use raftqueue_proto::text::{base64, hex};
use serde_json::{Map, Value, json};

/// What the messages are that are shown, and how.
#[derive(Clone, Copy)]
pub(super) struct Showing {
    /// Why they are shown: decides which columns there are.
    pub(super) which: Which,
    /// Raw bodies, whatever the form of the output.
    pub(super) bodies_only: bool,
    /// What stands behind a raw body.
    pub(super) end: u8,
    pub(super) part: Part,
}

/// Whether what is shown is all there is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it: a table has the columns that it needs.
    All,
    /// The first of several parts: nobody knows which columns the others need.
    First,
    /// One of the others: there was a header.
    Later,
}

/// Messages that are shown together are in one state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Leased to whoever sees them.
    Received,
    /// Received, and acknowledged once they are shown: nobody needs the lease.
    Acknowledged,
    Ready,
    Leased,
    Delayed,
    Dead,
}

impl Which {
    /// As in "no ready message".
    pub(super) fn name(self) -> &'static str {
        match self {
            Which::Received | Which::Acknowledged | Which::Ready => "ready",
            Which::Leased => "leased",
            Which::Delayed => "delayed",
            Which::Dead => "dead",
        }
    }
}

/// Shows messages. The plain form has raw bodies, one a line, except of dead messages: their offsets and reasons come first.
/// The others are a table, or an object for each message.
pub(super) fn show(output: &Output, deliveries: &[v1::Delivery], showing: Showing) -> Result<(), Failure> {
    let is_plain = output.format == Format::Plain;
    if showing.bodies_only || (is_plain && showing.which != Which::Dead) {
        let mut bytes = Vec::with_capacity(deliveries.iter().map(|delivery| delivery.body.len() + 1).sum());
        for delivery in deliveries {
            bytes.extend_from_slice(&delivery.body);
            bytes.push(showing.end);
        }
        return output.write(&bytes);
    }
    // Whoever cuts fields wants the same ones, whatever the messages have.
    let columns = columns(showing.which, |has| match showing.part {
        Part::All => !is_plain && deliveries.iter().any(has),
        Part::First | Part::Later => true,
    });
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let mut table = Table::new(&names);
    if showing.part == Part::Later {
        table = table.headless();
    }
    for delivery in deliveries {
        table.add(columns.iter().map(|(_, cell)| cell(delivery)).collect(), json(delivery));
    }
    output.print(&table)
}

/// A column's name, and what of a message stands in it.
type Column = (&'static str, fn(&v1::Delivery) -> String);

/// Keys and headers have columns if `is_shown` says so of messages that have some.
fn columns(which: Which, is_shown: impl Fn(fn(&v1::Delivery) -> bool) -> bool) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![
        ("OFFSET", |delivery| delivery.offset.to_string()),
        ("ATTEMPTS", |delivery| delivery.attempts.to_string()),
        ("PUBLISHED", |delivery| utc(delivery.published_ms)),
    ];
    match which {
        Which::Leased => columns.push(("LEASED UNTIL", |delivery| utc(delivery.deadline_ms))),
        Which::Delayed => columns.push(("DUE", |delivery| utc(delivery.deadline_ms))),
        Which::Dead => columns.push(("REASON", |delivery| delivery.dead_reason.clone())),
        Which::Received | Which::Acknowledged | Which::Ready => {}
    }
    if is_shown(|delivery| !delivery.key.is_empty()) {
        columns.push(("KEY", |delivery| String::from_utf8_lossy(&delivery.key).into_owned()));
    }
    if is_shown(|delivery| !delivery.headers.is_empty()) {
        columns.push(("HEADERS", |delivery| headers(&delivery.headers)));
    }
    columns.push(("BODY", |delivery| String::from_utf8_lossy(&delivery.body).into_owned()));
    if which == Which::Received {
        columns.push(("LEASE", |delivery| hex(&delivery.lease)));
    }
    columns
}

fn headers(headers: &[v1::Header]) -> String {
    let pair = |header: &v1::Header| format!("{}={}", header.name, String::from_utf8_lossy(&header.value));
    headers.iter().map(pair).collect::<Vec<_>>().join(", ")
}

/// All that is known of a message. Values that are not UTF-8 are written as base64, under a name of their own.
pub(super) fn json(delivery: &v1::Delivery) -> Value {
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
    set("offset", delivery.offset.into());
    set("id", hex(&delivery.id).into());
    set("attempts", delivery.attempts.into());
    set("published_ms", delivery.published_ms.into());
    if !delivery.lease.is_empty() {
        set("lease", hex(&delivery.lease).into());
    }
    if delivery.deadline_ms > 0 {
        set("deadline_ms", delivery.deadline_ms.into());
    }
    if !delivery.dead_reason.is_empty() {
        set("dead_reason", delivery.dead_reason.clone().into());
    }
    let (name, value) = text_or_base64("body", &delivery.body);
    set(&name, value);
    if !delivery.key.is_empty() {
        let (name, value) = text_or_base64("key", &delivery.key);
        set(&name, value);
    }
    if !delivery.headers.is_empty() {
        let header = |header: &v1::Header| {
            let (name, value) = text_or_base64("value", &header.value);
            json!({"name": header.name, name: value})
        };
        set("headers", delivery.headers.iter().map(header).collect());
    }
    Value::Object(object)
}

fn text_or_base64(name: &str, bytes: &[u8]) -> (String, Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), text.into()),
        Err(_) => (format!("{name}_base64"), base64(bytes).into()),
    }
}
