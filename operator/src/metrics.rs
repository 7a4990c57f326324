//! Metrics of the operator. Labels are static, but for namespace and name of objects that exist, and those are bounded.

use crate::crd::{ConditionType, RaftQueueStatus};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Most objects with series of their own. Further ones are counted, but not shown one by one.
const OBJECTS_MAX: usize = 1_000;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassResult {
    /// Everything was done that was due.
    Done,
    /// A call to the API server failed.
    Failed,
    /// It took too long.
    TimedOut,
    /// The object cannot be read.
    NotReadable,
}

/// All metrics, and who has series of their own.
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    duration: Histogram,
    steps: IntCounterVec,
    leads: IntGauge,
    condition: IntGaugeVec,
    objects: Mutex<BTreeSet<(String, String)>>,
}

impl Metrics {
    /// Registered, all zero.
    ///
    /// # Panics
    /// Never: the names differ from each other and are well formed, and a test makes them.
    #[must_use]
    pub fn new() -> Self {
        let counter = |name: &str, help: &str, label: &str| {
            IntCounterVec::new(Opts::new(name, help), &[label]).expect("a well-formed name")
        };
        let buckets = vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let duration = HistogramOpts::new(
            "raftqueue_operator_reconcile_duration_seconds",
            "How long one look at a RaftQueue took, with everything done about it",
        );
        let metrics = Self {
            registry: Registry::new(),
            reconciles: counter(
                "raftqueue_operator_reconciles_total",
                "Looks at RaftQueues, by how they ended",
                "result",
            ),
            duration: Histogram::with_opts(duration.buckets(buckets)).expect("ascending bounds"),
            steps: counter(
                "raftqueue_operator_steps_total",
                "Steps that touched a pod, a member or a disk",
                "step",
            ),
            leads: IntGauge::new("raftqueue_operator_leads", "1 while this operator holds the lease")
                .expect("a well-formed name"),
            condition: IntGaugeVec::new(
                Opts::new(
                    "raftqueue_status_condition",
                    "Conditions of RaftQueues: 1 true, 0 false, -1 unknown or absent",
                ),
                &["namespace", "name", "type"],
            )
            .expect("a well-formed name"),
            objects: Mutex::default(),
        };
        for result in [PassResult::Done, PassResult::Failed, PassResult::TimedOut, PassResult::NotReadable] {
            metrics.reconciles.with_label_values(&[label(result)]);
        }
        let collectors: [Box<dyn prometheus::core::Collector>; 5] = [
            Box::new(metrics.reconciles.clone()),
            Box::new(metrics.duration.clone()),
            Box::new(metrics.steps.clone()),
            Box::new(metrics.leads.clone()),
            Box::new(metrics.condition.clone()),
        ];
        for collector in collectors {
            metrics.registry.register(collector).expect("each name is registered once");
        }
        metrics
    }

    /// A pass ended.
    pub fn count_pass(&self, result: PassResult, took: Duration) {
        self.reconciles.with_label_values(&[label(result)]).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A step was taken.
    pub fn count_step(&self, step: &'static str) {
        self.steps.with_label_values(&[step]).inc();
    }

    /// This operator holds the lease, or no longer does.
    pub fn set_leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    /// Shows the conditions of an object.
    pub fn show(&self, namespace: &str, name: &str, status: &RaftQueueStatus) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        if !objects.contains(&key) && objects.len() >= OBJECTS_MAX {
            return;
        }
        objects.insert(key);
        for about in ConditionType::ALL {
            let found = crate::crd::condition(&status.conditions, *about);
            let value = match found.map(|condition| condition.status.as_str()) {
                Some("True") => 1,
                Some("False") => 0,
                _ => -1,
            };
            self.condition.with_label_values(&[namespace, name, &about.to_string()]).set(value);
        }
    }

    /// Shows these objects only, given by namespace and name: the others are gone.
    pub fn keep_only(&self, there: &BTreeSet<(String, String)>) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        for (namespace, name) in objects.extract_if(.., |object| !there.contains(object)) {
            for about in ConditionType::ALL {
                // If it is absent already, that is as good.
                let _ = self.condition.remove_label_values(&[
                    namespace.as_str(),
                    name.as_str(),
                    about.to_string().as_str(),
                ]);
            }
        }
    }

    /// All of it, in the text form of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "cannot write the metrics");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn label(result: PassResult) -> &'static str {
    match result {
        PassResult::Done => "ok",
        PassResult::Failed => "error",
        PassResult::TimedOut => "timeout",
        PassResult::NotReadable => "not_readable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::path::Path;

    #[test]
    fn what_is_counted_is_shown_and_what_is_gone_is_not() {
        let metrics = Metrics::new();
        metrics.count_pass(PassResult::Done, Duration::from_millis(20));
        metrics.show("shop", "demo", &RaftQueueStatus::default());
        let text = metrics.render();
        assert!(text.contains(r#"raftqueue_operator_reconciles_total{result="ok"} 1"#), "{text}");
        assert!(text.contains(r#"raftqueue_operator_reconciles_total{result="error"} 0"#), "{text}");
        assert!(
            text.contains(r#"raftqueue_status_condition{name="demo",namespace="shop",type="Ready"} -1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"raftqueue_operator_reconcile_duration_seconds_bucket{le="0.025"} 1"#),
            "{text}"
        );
        metrics.show("shop", "other", &RaftQueueStatus::default());
        metrics.keep_only(&BTreeSet::from([("shop".to_owned(), "other".to_owned())]));
        let text = metrics.render();
        assert!(!text.contains("demo") && text.contains("other"), "{text}");
    }

    /// `RAFTQUEUE_RECORD=1 cargo test -p raftqueue-operator series` writes the file anew.
    #[test]
    fn the_file_lists_every_series() {
        let metrics = Metrics::new();
        metrics.show("shop", "demo", &RaftQueueStatus::default());
        metrics.count_step("any");
        let mut listed = String::new();
        for family in metrics.registry.gather() {
            let labels = family.get_metric()[0].get_label().iter().map(|label| label.name());
            let labels: Vec<&str> = labels.collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            writeln!(listed, "{}{labels}  {kind}\n    {}", family.name(), family.help()).expect("to memory");
        }
        if std::env::var_os("RAFTQUEUE_RECORD").is_some() {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics/series.txt");
            std::fs::write(file, listed).expect("written");
            return;
        }
        assert_eq!(include_str!("metrics/series.txt"), listed);
    }

    #[test]
    fn series_of_objects_are_bounded() {
        let metrics = Metrics::new();
        for number in 0..OBJECTS_MAX + 10 {
            metrics.show("shop", &format!("queue-{number}"), &RaftQueueStatus::default());
        }
        let shown = metrics.render().matches(r#"type="Ready""#).count();
        assert_eq!(shown, OBJECTS_MAX);
        // Those that went make room for those that came.
        metrics.keep_only(&BTreeSet::new());
        metrics.show("shop", "late", &RaftQueueStatus::default());
        assert!(metrics.render().contains("late"));
    }
}
