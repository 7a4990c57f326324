//! Metrics of the operator: those of the loop and of what it runs, in one registry.

use crate::cluster::metrics::ClusterMetrics;
use crate::controller::PassMetrics;
use prometheus::{IntGauge, Registry};
use raftqueue_metrics::{Form, Process};

/// All metrics.
pub struct Metrics {
    /// What the loop counts.
    pub passes: PassMetrics,
    /// What is counted and shown of RaftQueues.
    pub clusters: ClusterMetrics,
    process: Process,
    registry: Registry,
    leads: IntGauge,
}

impl Metrics {
    /// Registered, all zero.
    ///
    /// # Panics
    /// Never: the names differ from each other and are well formed, and a test makes them.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let leads = IntGauge::new("raftqueue_operator_leads", "1 while this operator holds the lease")
            .expect("a well-formed name");
        registry.register(Box::new(leads.clone())).expect("its name is registered once");
        Self {
            passes: PassMetrics::new(&registry),
            clusters: ClusterMetrics::new(&registry),
            process: Process::new(&registry),
            registry,
            leads,
        }
    }

    /// This operator holds the lease, or no longer does.
    pub fn set_leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    /// All of it, in the form that a scraper asked for. Reads files of the kernel's, which are there at once.
    #[must_use]
    pub fn render(&self, form: Form) -> Vec<u8> {
        self.process.observe();
        form.write(&self.registry.gather())
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.render(Form::Text)).expect("it is text")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::PassResult;
    use std::fmt::Write as _;
    use std::path::Path;
    use std::time::Duration;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        metrics.passes.count(PassResult::Done, Duration::from_millis(20));
        metrics.set_leads(true);
        let text = metrics.text();
        for line in [
            r#"raftqueue_operator_reconciles_total{result="ok"} 1"#,
            r#"raftqueue_operator_reconciles_total{result="error"} 0"#,
            r#"raftqueue_operator_reconcile_duration_seconds_bucket{le="0.025"} 1"#,
            "raftqueue_operator_leads 1",
        ] {
            assert!(text.contains(line), "{line} is not in: {text}");
        }
    }

    /// `RAFTQUEUE_RECORD=1 cargo test -p raftqueue-operator series` writes the file anew.
    #[test]
    fn the_file_lists_every_series() {
        let metrics = Metrics::new();
        let expires = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
        ));
        let tls = Some(crate::crd::TlsStatus { expires, ..Default::default() });
        metrics.clusters.show("shop", "demo", &crate::crd::RaftQueueStatus { tls, ..Default::default() });
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
}
