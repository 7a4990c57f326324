//! What a benchmark counts, and how it reports that.

use crate::failure::Failure;
use crate::output::Table;
use crate::text::grouped;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Longest time that the histogram tells apart, in microseconds: ten minutes.
const LONGEST_MICROS: u64 = 600_000_000;

/// Counts what many tasks do within one span of time.
#[derive(Debug)]
pub(super) struct Measure {
    what: &'static str,
    begun: Instant,
    end: Instant,
    late: Late,
    counts: Mutex<Counts>,
}

/// What becomes of what was begun before the end and is done after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    /// It does not count.
    Ignored,
    /// It counts in full: where sums matter, and not speed.
    Counted,
    /// Its latency counts, and it does not: where no stall may be hidden.
    Timed,
}

#[derive(Debug)]
struct Counts {
    messages: u64,
    bytes: u64,
    requests: u64,
    errors: u64,
    /// Requests that were due and never begun.
    missed: u64,
    last_error: Option<String>,
    latencies: Histogram<u64>,
    /// When something was last done.
    last_done: Option<Instant>,
    /// Counting ended before its time.
    ended: Option<Instant>,
}

impl Counts {
    fn waited(&mut self, waited: Duration) {
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(micros.clamp(1, LONGEST_MICROS));
    }
}

impl Measure {
    /// Counts from now for so long. `what` names what is counted, such as `published`.
    pub(super) fn start(what: &'static str, length: Duration) -> Self {
        let begun = Instant::now();
        let latencies =
            Histogram::new_with_bounds(1, LONGEST_MICROS, 3).expect("the bounds and digits are valid");
        let counts = Counts {
            messages: 0,
            bytes: 0,
            requests: 0,
            errors: 0,
            missed: 0,
            last_error: None,
            latencies,
            last_done: None,
            ended: None,
        };
        Self { what, begun, end: begun + length, late: Late::Ignored, counts: Mutex::new(counts) }
    }

    /// Lets what was begun before the end count when it is done after it: where sums matter, and not speed.
    pub(super) fn counting_late(self) -> Self {
        Self { late: Late::Counted, ..self }
    }

    /// Lets the latency of what was begun before the end count when it is done after it.
    pub(super) fn timing_late(self) -> Self {
        Self { late: Late::Timed, ..self }
    }

    /// When counting ends.
    pub(super) fn end(&self) -> Instant {
        self.end
    }

    /// True while something begun now still counts.
    pub(super) fn goes_on(&self) -> bool {
        Instant::now() < self.end && self.lock().ended.is_none()
    }

    /// How long nothing was done, also before the first time.
    pub(super) fn idle(&self) -> Duration {
        self.lock().last_done.unwrap_or(self.begun).elapsed()
    }

    /// Ends counting at the time when something was last done. False if nothing ever was.
    pub(super) fn end_early(&self) -> bool {
        let mut counts = self.lock();
        counts.ended = counts.ended.or(counts.last_done);
        counts.ended.is_some()
    }

    /// So many messages and bytes, begun at `begun`, are done. What is done after the end does not count, as a rule.
    pub(super) fn done(&self, begun: Instant, messages: u64, bytes: u64) {
        let is_in_time = self.goes_on();
        if !is_in_time && self.late == Late::Ignored {
            return;
        }
        let mut counts = self.lock();
        if is_in_time || self.late == Late::Counted {
            counts.last_done = Some(Instant::now());
            counts.messages += messages;
            counts.bytes += bytes;
            counts.requests += 1;
        }
        counts.waited(begun.elapsed());
    }

    /// Something that was due at `due` failed: whoever waited for it has waited so long.
    pub(super) fn failed_since(&self, due: Instant, error: &impl ToString) {
        self.failed(error);
        self.lock().waited(due.elapsed());
    }

    /// Something was due at `due` and was not begun before the end: its latency is what it had waited by then.
    pub(super) fn missed(&self, due: Instant) {
        let mut counts = self.lock();
        counts.missed += 1;
        counts.waited(self.end.saturating_duration_since(due));
    }

    /// A request failed.
    pub(super) fn failed(&self, error: &impl ToString) {
        let mut counts = self.lock();
        counts.errors += 1;
        counts.last_error = Some(error.to_string());
    }

    /// Ends counting now.
    pub(super) fn end_now(&self) {
        let mut counts = self.lock();
        counts.ended = counts.ended.or(Some(Instant::now()));
    }

    /// How many messages were done so far.
    pub(super) fn messages(&self) -> u64 {
        self.lock().messages
    }

    /// How many requests failed so far, and the last error.
    pub(super) fn errors(&self) -> (u64, Option<String>) {
        let counts = self.lock();
        (counts.errors, counts.last_error.clone())
    }

    /// How far it has come, in a few words.
    pub(super) fn brief(&self) -> String {
        let counts = self.lock();
        format!("{} {}, {} errors", counts.messages, self.what, counts.errors)
    }

    /// What was measured, and under which conditions.
    pub(super) fn report(&self, conditions: Value) -> Report {
        let counts = self.lock();
        let ended = counts.ended.unwrap_or_else(Instant::now).min(self.end);
        let seconds = (ended - self.begun).as_secs_f64();
        let millis = |quantile: f64| counts.latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        Report {
            what: self.what,
            messages_per_second: counts.messages as f64 / seconds,
            megabytes_per_second: counts.bytes as f64 / seconds / 1e6,
            acknowledged: counts.messages,
            errors: counts.errors,
            last_error: counts.last_error.clone(),
            requests: counts.requests,
            missed: counts.missed,
            cpu_micros: None,
            p50_ms: millis(0.5),
            p99_ms: millis(0.99),
            p999_ms: millis(0.999),
            max_ms: counts.latencies.max() as f64 / 1_000.0,
            seconds,
            conditions,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of a measurement.
#[derive(Debug)]
pub(super) struct Report {
    what: &'static str,
    messages_per_second: f64,
    megabytes_per_second: f64,
    acknowledged: u64,
    errors: u64,
    last_error: Option<String>,
    requests: u64,
    missed: u64,
    /// Microseconds of processor time that all nodes together spent.
    cpu_micros: Option<u64>,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    seconds: f64,
    conditions: Value,
}

impl Report {
    /// Refuses to report a speed if every request failed.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match &self.last_error {
            Some(error) if self.acknowledged == 0 => Err(Failure::Failed(format!(
                "nothing was {}: {} errors, the last: {error}",
                self.what,
                grouped(self.errors)
            ))),
            _ => Ok(()),
        }
    }

    /// What is said behind the figures if requests failed: they are no measurement of what was asked for.
    ///
    /// # Errors
    /// That some failed, with the last reason.
    pub(super) fn check_errors(&self) -> Result<(), Failure> {
        match &self.last_error {
            Some(error) => Err(Failure::Failed(format!(
                "{} of {} requests failed, the last: {error}",
                grouped(self.errors),
                grouped(self.errors + self.requests)
            ))),
            None => Ok(()),
        }
    }

    /// Requests that were due and never begun.
    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    /// What all nodes together spent on it, in microseconds of processor time, if that is known.
    pub(super) fn with_cpu(self, cpu_micros: Option<u64>) -> Self {
        Self { cpu_micros, ..self }
    }

    fn cpu_micros_per_message(&self) -> Option<f64> {
        let micros = self.cpu_micros.filter(|_| self.acknowledged > 0)?;
        Some(micros as f64 / self.acknowledged as f64)
    }

    /// One row; in JSON everything that was counted, and every condition.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(&[
            "WHAT",
            "MESSAGES/S",
            "MB/S",
            "P50 MS",
            "P99 MS",
            "P99.9 MS",
            "MAX MS",
            "MESSAGES",
            "ERRORS",
            "CPU US/MSG",
        ]);
        self.add_to(&mut table);
        table
    }

    /// Adds the row to a table of several.
    pub(super) fn add_to(&self, table: &mut Table) {
        let cells = vec![
            self.what.to_owned(),
            format!("{:.0}", self.messages_per_second),
            format!("{:.1}", self.megabytes_per_second),
            format!("{:.2}", self.p50_ms),
            format!("{:.2}", self.p99_ms),
            format!("{:.2}", self.p999_ms),
            format!("{:.2}", self.max_ms),
            self.acknowledged.to_string(),
            self.errors.to_string(),
            self.cpu_micros_per_message().map_or("-".to_owned(), |micros| format!("{micros:.1}")),
        ];
        table.add(cells, self.json());
    }

    /// Everything that was counted, and every condition.
    pub(super) fn json(&self) -> Value {
        let rounded = |number: f64| (number * 1_000.0).round() / 1_000.0;
        let mut object = Map::new();
        let mut set = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
        set("what", json!(self.what));
        set("messages_per_second", json!(rounded(self.messages_per_second)));
        set("megabytes_per_second", json!(rounded(self.megabytes_per_second)));
        set("acknowledged", json!(self.acknowledged));
        set("errors", json!(self.errors));
        set("last_error", json!(self.last_error));
        set("requests", json!(self.requests));
        set("missed", json!(self.missed));
        set("cpu_us_per_message", json!(self.cpu_micros_per_message().map(rounded)));
        set("p50_ms", json!(rounded(self.p50_ms)));
        set("p99_ms", json!(rounded(self.p99_ms)));
        set("p999_ms", json!(rounded(self.p999_ms)));
        set("max_ms", json!(rounded(self.max_ms)));
        set("measured_seconds", json!(rounded(self.seconds)));
        if let Value::Object(conditions) = &self.conditions {
            for (name, value) in conditions {
                set(name, value.clone());
            }
        }
        Value::Object(object)
    }
}
