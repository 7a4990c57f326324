//! What was seen of the nodes, and whether they keep to their bound.

use crate::commands::cluster::View;
use crate::commands::storage;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::text::{grouped, size};
use indicatif::ProgressBar;
use raftqueue_client::{Client, v1};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Segments that a node may have while messages come.
const SEGMENTS_BUSY: u64 = 8;
/// Segments that it may have when none have come for [`RESTED_AFTER`].
const SEGMENTS_RESTED: u64 = 4;
const RESTED_AFTER: Duration = Duration::from_secs(30);
/// What a message takes beside its own bytes.
const MESSAGE_BYTES: u64 = 64;
const COLUMNS: [&str; 10] = [
    "TIME",
    "PUBLISHED/S",
    "CONSUMED/S",
    "WAITING",
    "LEFT",
    "LIVE MIB",
    "DISK MIB",
    "BOUND MIB",
    "HOLDS",
    "MEMORY MIB",
];
/// Digits of a size in MiB, and what stands between two nodes.
const NODE_WIDTH: usize = 6;
const BETWEEN: &str = " / ";

/// What the load has done by a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Duration,
    pub(super) published: u64,
    pub(super) consumed: u64,
    pub(super) waiting: u64,
    pub(super) left: u64,
}

/// What a node had, and what it may have.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) seconds: u64,
    pub(super) node: String,
    pub(super) used_bytes: u64,
    pub(super) bound_bytes: u64,
}

impl Judged {
    /// Judges one node.
    fn new(seconds: u64, kept: &v1::StorageResponse, live_bytes: u64, is_rested: bool) -> Self {
        let segments = if is_rested { SEGMENTS_RESTED } else { SEGMENTS_BUSY };
        Self {
            seconds,
            node: kept.name.clone(),
            used_bytes: kept.used_bytes,
            bound_bytes: segments * kept.segment_bytes + 2 * live_bytes + kept.snapshots_bytes,
        }
    }

    /// Whether it keeps to its bound.
    pub(super) fn holds(&self) -> bool {
        self.used_bytes <= self.bound_bytes
    }

    /// How near it is to its bound; above 1 it is beyond.
    fn share(&self) -> f64 {
        self.used_bytes as f64 / self.bound_bytes.max(1) as f64
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "seconds": self.seconds,
            "node": self.node,
            "used_bytes": self.used_bytes,
            "bound_bytes": self.bound_bytes,
        })
    }
}

/// Looks at the nodes of a cluster again and again, and prints what it sees.
pub(super) struct Watch<'a> {
    nodes: Vec<View>,
    output: &'a Output,
    last: Sample,
    /// Since when nothing is published any more.
    published_at: Option<Instant>,
    worst: Option<Judged>,
    resident_bytes_max: u64,
}

impl<'a> Watch<'a> {
    pub(super) fn new(nodes: Vec<View>, output: &'a Output) -> Self {
        let last = Sample { at: Duration::ZERO, published: 0, consumed: 0, waiting: 0, left: 0 };
        Self { nodes, output, last, published_at: None, worst: None, resident_bytes_max: 0 }
    }

    /// Nothing more is published from now on.
    pub(super) fn published(&mut self) {
        self.published_at = Some(Instant::now());
    }

    /// The node that came nearest to its bound, or farthest beyond.
    pub(super) fn worst(&self) -> Option<&Judged> {
        self.worst.as_ref()
    }

    /// The most memory that a node was seen with.
    pub(super) fn resident_bytes_max(&self) -> u64 {
        self.resident_bytes_max
    }

    /// Prints which nodes are watched, and what stands in which column.
    pub(super) fn show_header(&self, bar: &ProgressBar) -> Result<(), Failure> {
        if self.output.format != Format::Table {
            return Ok(());
        }
        let names: Vec<&str> = self.nodes.iter().map(name_of).collect();
        let header = self.line(&COLUMNS.map(str::to_owned));
        self.write(bar, &format!("nodes: {}\n{header}", names.join(BETWEEN)))
    }

    /// Asks every node, and prints a line of what they say.
    pub(super) async fn look(
        &mut self,
        client: &Client,
        now: Sample,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let answers = storage::ask_again(client, &self.nodes).await;
        let seconds = now.at.as_secs();
        let is_rested = self.published_at.is_some_and(|at| at.elapsed() >= RESTED_AFTER);
        // A node that is behind knows of fewer messages than its disk has room for.
        let live_bytes = answers.iter().flatten().filter_map(live_bytes).max().unwrap_or(0);
        let judged: Vec<Option<Judged>> = answers
            .iter()
            .map(|kept| kept.as_ref().ok().map(|kept| Judged::new(seconds, kept, live_bytes, is_rested)))
            .collect();
        for one in judged.iter().flatten() {
            if self.worst.as_ref().is_none_or(|worst| one.share() > worst.share()) {
                self.worst = Some(one.clone());
            }
        }
        let resident_bytes = answers.iter().flatten().map(|kept| kept.resident_bytes);
        self.resident_bytes_max = resident_bytes.chain([self.resident_bytes_max]).max().unwrap_or(0);
        let text = self.told(&now, live_bytes, is_rested, &answers, &judged);
        self.last = now;
        self.write(bar, &text)
    }

    fn told(
        &self,
        now: &Sample,
        live_bytes: u64,
        is_rested: bool,
        answers: &[storage::Kept],
        judged: &[Option<Judged>],
    ) -> String {
        let seconds = (now.at - self.last.at).as_secs_f64().max(0.001);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rates are small and positive"
        )]
        let rate = |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds).round() as u64;
        let (published, consumed) =
            (rate(now.published, self.last.published), rate(now.consumed, self.last.consumed));
        if self.output.format == Format::Json {
            let node = |(view, (kept, judged)): (&View, (&storage::Kept, &Option<Judged>))| {
                let mut object = match kept {
                    Ok(kept) => storage::json_of(&view.endpoint, kept),
                    Err(error) => json!({"endpoint": view.endpoint, "node": name_of(view), "error": error}),
                };
                if let Some(judged) = judged {
                    object["bound_bytes"] = json!(judged.bound_bytes);
                    object["holds"] = json!(judged.holds());
                }
                object
            };
            let nodes: Vec<Value> = self.nodes.iter().zip(answers.iter().zip(judged)).map(node).collect();
            let object = json!({
                "what": "sample",
                "seconds": (now.at.as_secs_f64() * 10.0).round() / 10.0,
                "published_per_second": published,
                "consumed_per_second": consumed,
                "waiting": now.waiting,
                "left": now.left,
                "live_bytes": live_bytes,
                "rested": is_rested,
                "nodes": nodes,
            });
            return format!("{object}\n");
        }
        let is_plain = self.output.format == Format::Plain;
        let number = |number: u64| if is_plain { number.to_string() } else { grouped(number) };
        let bytes = |bytes: u64| if is_plain { bytes.to_string() } else { mebibytes(bytes) };
        let each = |bytes_of: &dyn Fn(&v1::StorageResponse) -> u64| {
            let all =
                answers.iter().map(|kept| kept.as_ref().map_or("-".into(), |kept| bytes(bytes_of(kept))));
            if is_plain {
                all.collect::<Vec<String>>().join("/")
            } else {
                all.map(|text| format!("{text:>NODE_WIDTH$}")).collect::<Vec<String>>().join(BETWEEN)
            }
        };
        let least = judged.iter().flatten().map(|judged| judged.bound_bytes).min();
        let holds = match judged.iter().flatten().map(Judged::holds).reduce(|all, one| all && one) {
            Some(true) => "yes",
            Some(false) => "NO",
            // Nobody has answered.
            None => "-",
        };
        self.line(&[
            if is_plain { now.at.as_secs().to_string() } else { format!("{} s", now.at.as_secs()) },
            number(published),
            number(consumed),
            number(now.waiting),
            number(now.left),
            bytes(live_bytes),
            each(&|kept| kept.used_bytes),
            least.map_or("-".into(), bytes),
            holds.into(),
            each(&|kept| kept.resident_bytes),
        ])
    }

    /// A line whose cells stand below each other, though nobody knows what is to come.
    fn line(&self, cells: &[String; 10]) -> String {
        if self.output.format == Format::Plain {
            return format!("{}\n", cells.join("\t"));
        }
        let nodes = self.nodes.len().max(1) * (NODE_WIDTH + BETWEEN.len()) - BETWEEN.len();
        let widths = [8, 11, 10, 9, 7, 8, nodes, 9, 5, nodes];
        let cells = cells.iter().zip(widths).zip(COLUMNS);
        let cells: Vec<String> =
            cells.map(|((cell, width), column)| format!("{cell:>0$}", width.max(column.len()))).collect();
        format!("{}\n", cells.join("  "))
    }

    fn write(&self, bar: &ProgressBar, text: &str) -> Result<(), Failure> {
        bar.suspend(|| self.output.write(text.as_bytes()))
    }
}

fn name_of(view: &View) -> &str {
    let told = view.status.as_ref().ok().map(|status| status.name.as_str());
    view.node.as_deref().or(told).filter(|name| !name.is_empty()).unwrap_or(&view.endpoint)
}

/// What the messages that a node holds take; `None` while it does not know.
fn live_bytes(kept: &v1::StorageResponse) -> Option<u64> {
    Some(kept.message_bytes? + MESSAGE_BYTES * kept.messages?)
}

/// A size in MiB, for a column that says so.
fn mebibytes(bytes: u64) -> String {
    let text = size(bytes);
    match text.strip_suffix(" MiB") {
        Some(number) => number.to_owned(),
        None => format!("{:.1}", bytes as f64 / f64::from(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> v1::StorageResponse {
        v1::StorageResponse {
            name: "a".into(),
            segment_bytes: 100,
            snapshots_bytes: 7,
            used_bytes: 900,
            ..Default::default()
        }
    }

    #[test]
    fn a_node_may_have_segments_twice_what_lives_and_its_snapshots() {
        let busy = Judged::new(5, &kept(), 50, false);
        assert_eq!((busy.bound_bytes, busy.holds()), (907, true));
        let rested = Judged::new(5, &kept(), 50, true);
        assert_eq!((rested.bound_bytes, rested.holds()), (507, false));
        assert!(rested.share() > busy.share());
    }

    #[test]
    fn what_lives_is_bodies_and_what_stands_beside_them() {
        let held = v1::StorageResponse { messages: Some(3), message_bytes: Some(30), ..kept() };
        assert_eq!(live_bytes(&held), Some(30 + 3 * 64));
        assert_eq!(live_bytes(&kept()), None, "a node that replays does not know");
    }

    #[test]
    fn sizes_are_all_of_one_unit() {
        for (bytes, text) in [(0, "0.0"), (1 << 19, "0.5"), (210 << 20, "210.0"), (3 << 30, "3072.0")] {
            assert_eq!(mebibytes(bytes), text);
        }
    }
}
