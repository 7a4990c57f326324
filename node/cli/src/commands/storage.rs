//! `raftq status --storage`: what each node keeps on its disk.

use super::cluster::{View, note_of};
use crate::failure::{Failure, beside};
use crate::output::{Format, Output, Table};
use crate::text::{counted, grouped, size, span};
use raftqueue_client::{Client, v1};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

const COLUMNS: [&str; 13] = [
    "ENDPOINT", "NODE", "LOG", "RELEASED", "KEPT", "LIVE", "STORED", "SNAPSHOT", "AGE", "SIZE", "USED",
    "FREE", "NOTE",
];

/// What a node keeps, or why it does not say so.
pub(super) type Kept = Result<v1::StorageResponse, String>;

/// Asks at once all nodes that answered a moment ago. The answers are in the order of the views.
pub(super) async fn ask(client: &Client, views: &[View]) -> Vec<Kept> {
    ask_if(client, views, |view| view.status.as_ref().map(drop).map_err(Clone::clone)).await
}

/// The same, those included that did not answer then.
pub(super) async fn ask_again(client: &Client, views: &[View]) -> Vec<Kept> {
    ask_if(client, views, |view| match (&view.status, view.endpoint.as_str()) {
        (Err(error), "") => Err(error.clone()),
        _ => Ok(()),
    })
    .await
}

async fn ask_if(
    client: &Client,
    views: &[View],
    is_asked: impl Fn(&View) -> Result<(), String>,
) -> Vec<Kept> {
    let mut asking = JoinSet::new();
    for (position, view) in views.iter().enumerate() {
        let (client, endpoint) = (client.clone(), view.endpoint.clone());
        let is_asked = is_asked(view);
        asking.spawn(async move {
            let kept = match is_asked {
                Ok(()) => client.storage(&endpoint).await.map_err(|error| error.text),
                Err(error) => Err(error),
            };
            (position, kept)
        });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by_key(|(position, _)| *position);
    answers.into_iter().map(|(_, kept)| kept).collect()
}

/// Asks those nodes, and prints a line for each.
pub(super) async fn show(client: &Client, views: Vec<View>, output: &Output) -> Result<(), Failure> {
    let answers = ask(client, &views).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let mut table = Table::new(&COLUMNS);
    for (view, kept) in views.iter().zip(&answers) {
        match kept {
            Ok(kept) => {
                let not_ready = view.status.as_ref().map_or("", note_of);
                let cells = row(&view.endpoint, kept, not_ready, now_ms, output.format);
                table.add(cells, json_of(&view.endpoint, kept));
            }
            Err(error) => {
                let error = beside(&view.endpoint, error);
                let mut cells = COLUMNS.map(|_| String::from("-")).to_vec();
                let name = view.node.clone().or(view.status.as_ref().ok().map(|status| status.name.clone()));
                if !view.endpoint.is_empty() {
                    cells[0].clone_from(&view.endpoint);
                }
                if let Some(name) = &name {
                    cells[1].clone_from(name);
                }
                error.clone_into(&mut cells[COLUMNS.len() - 1]);
                let object =
                    json!({"view": "storage", "endpoint": view.endpoint, "node": name, "error": error});
                table.add(cells, object);
            }
        }
    }
    output.print(&table)?;
    if answers.iter().any(Result::is_ok) {
        return Ok(());
    }
    let error = answers.into_iter().find_map(Result::err).unwrap_or_default();
    Err(Failure::Failed(format!("no node says what it keeps: {error}")))
}

fn row(
    endpoint: &str,
    kept: &v1::StorageResponse,
    not_ready: &str,
    now_ms: u64,
    format: Format,
) -> Vec<String> {
    // Whoever cuts fields wants plain numbers.
    let is_for_people = format == Format::Table;
    let bytes = |bytes: u64| if is_for_people { size(bytes) } else { bytes.to_string() };
    let (snapshot, age, snapshot_bytes) = match &kept.snapshot {
        Some(snapshot) => {
            let age_ms = now_ms.saturating_sub(snapshot.written_ms);
            let age = if is_for_people { span(age_ms) } else { (age_ms / 1_000).to_string() };
            (snapshot.index.to_string(), age, bytes(snapshot.bytes))
        }
        None => ("-".into(), "-".into(), "-".into()),
    };
    vec![
        endpoint.to_owned(),
        kept.name.clone(),
        kept.log_segments.to_string(),
        kept.released_segments.to_string(),
        kept.kept_files.to_string(),
        bytes(kept.live_bytes),
        bytes(kept.stored_bytes),
        snapshot,
        age,
        snapshot_bytes,
        bytes(kept.used_bytes),
        bytes(kept.free_bytes),
        note(kept, not_ready),
    ]
}

/// What else is to be known: what is lacking, what is damaged, or why the node is not ready.
fn note(kept: &v1::StorageResponse, not_ready: &str) -> String {
    let mut notes = Vec::new();
    if kept.incomplete {
        notes.push(match kept.lacking {
            Some(1) => "installing: 1 message to come".to_owned(),
            Some(lacking) => format!("installing: {} messages to come", grouped(lacking)),
            None => "installing: what is to come is being counted".to_owned(),
        });
    }
    if kept.lost > 0 {
        notes.push(format!("{} lost: no member has them, see its log", counted(kept.lost, "message")));
    }
    if kept.damaged_files > 0 {
        let files = counted(kept.damaged_files, "file");
        notes.push(format!("{files} unusable at its start: see its log, or raftq wal dump"));
    }
    if kept.log_holes > 0 {
        notes.push(format!("{} damaged in its log, to be mended", counted(kept.log_holes, "record")));
    }
    if kept.repairs > 0 {
        notes.push(format!("{} mended", counted(kept.repairs, "damaged place")));
    }
    if notes.is_empty() {
        notes.push(not_ready.to_owned());
    }
    notes.join("; ")
}

/// Everything that a node says of what it keeps.
pub(super) fn json_of(endpoint: &str, kept: &v1::StorageResponse) -> Value {
    let snapshot = kept.snapshot.map(|snapshot| {
        json!({"index": snapshot.index, "bytes": snapshot.bytes, "written_ms": snapshot.written_ms})
    });
    json!({
        "view": "storage",
        "endpoint": endpoint,
        "node": kept.name,
        "node_id": kept.node_id,
        "segment_bytes": kept.segment_bytes,
        "log_segments": kept.log_segments,
        "released_segments": kept.released_segments,
        "kept_files": kept.kept_files,
        "kept_bytes": kept.kept_bytes,
        "stored_bytes": kept.stored_bytes,
        "live_bytes": kept.live_bytes,
        "snapshot": snapshot,
        "snapshots_bytes": kept.snapshots_bytes,
        "incomplete": kept.incomplete,
        "lacking": kept.lacking,
        "lost": kept.lost,
        "damaged_files": kept.damaged_files,
        "used_bytes": kept.used_bytes,
        "free_bytes": kept.free_bytes,
        "disk_bytes": kept.disk_bytes,
        "messages": kept.messages,
        "message_bytes": kept.message_bytes,
        "resident_bytes": kept.resident_bytes,
        "cpu_ms": kept.cpu_ms,
        "log_holes": kept.log_holes,
        "repairs": kept.repairs,
        "scrubbed_bytes": kept.scrubbed_bytes,
        "scrub_passes": kept.scrub_passes,
        "scrub_damaged": kept.scrub_damaged,
    })
}
