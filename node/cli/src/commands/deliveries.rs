//! Messages as they are shown.

use crate::failure::Failure;
use crate::output::{Format, Output, Table};
use crate::text::utc;
use raftqueue_client::v1;
use raftqueue_proto::text::{base64, hex};
use serde_json::{Map, Value, json};

/// Shows messages. The plain form, and every form with `bodies_only`, has raw bodies, one a line. The others are a
/// table, or an object for each message.
pub(super) fn show(output: &Output, deliveries: &[v1::Delivery], bodies_only: bool) -> Result<(), Failure> {
    if bodies_only || output.format == Format::Plain {
        let mut bytes = Vec::with_capacity(deliveries.iter().map(|delivery| delivery.body.len() + 1).sum());
        for delivery in deliveries {
            bytes.extend_from_slice(&delivery.body);
            bytes.push(b'\n');
        }
        return output.write(&bytes);
    }
    let mut table = Table::new(&["OFFSET", "ATTEMPTS", "PUBLISHED", "BODY", "LEASE"]);
    for delivery in deliveries {
        table.add(row(delivery), json(delivery));
    }
    output.print(&table)
}

fn row(delivery: &v1::Delivery) -> Vec<String> {
    let lease = if delivery.lease.is_empty() { delivery.dead_reason.clone() } else { hex(&delivery.lease) };
    vec![
        delivery.offset.to_string(),
        delivery.attempts.to_string(),
        utc(delivery.published_ms),
        String::from_utf8_lossy(&delivery.body).into_owned(),
        lease,
    ]
}

/// All that is known of a message. Values that are not UTF-8 are written as base64, under a name of their own.
fn json(delivery: &v1::Delivery) -> Value {
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
