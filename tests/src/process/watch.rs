//! What stands in `deploy/monitoring`, before a real Prometheus: alerts that fire and clear, and panels that show something.
//!
//! All times of the rules are divided by sixty: a minute of theirs is a second here.

use super::prometheus::Prometheus;
use super::{repository, wait_for};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A file of `deploy/monitoring`.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn read(name: &str) -> String {
    let path = repository().join("deploy/monitoring").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rules about a topic: `cluster`, `queues`, `storage`, `operator`.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn rules(topic: &str) -> Value {
    serde_saphyr::from_str(&read(&format!("{topic}-rules.yaml"))).expect("it is YAML")
}

/// A file of rules with all times divided by sixty: those that something has to last for, those that are looked back on, and the
/// quarter of an hour that a message may be old.
///
/// # Panics
/// If they are none.
#[must_use]
pub fn faster(mut rules: Value) -> String {
    for group in rules["groups"].as_array_mut().expect("it has groups") {
        for rule in group["rules"].as_array_mut().expect("it has rules") {
            let query = rule["expr"].as_str().expect("a query").replace("> 900", "> 15");
            rule["expr"] = with_times(&query).into();
            if let Some(lasting) = rule["for"].as_str() {
                rule["for"] = with_times(&format!("[{lasting}]")).trim_matches(['[', ']']).into();
            }
        }
    }
    rules.to_string()
}

/// A query in which `[15m]` is `[15s]`, `[1h]` is `[1m]`, a day an hour, and `offset 1m` is `offset 1s`.
fn with_times(query: &str) -> String {
    let query = query.replace("offset 1m", "offset 1s");
    // From the smallest unit on: what has become one is not met again.
    query.replace("m]", "s]").replace("h]", "m]").replace("d]", "h]")
}

/// A Prometheus, and what is seen in it of one namespace while things go wrong.
#[derive(Debug)]
pub struct Watch {
    /// It.
    pub prometheus: Prometheus,
    namespace: String,
    begun: Instant,
    rows: Vec<String>,
}

impl Watch {
    /// Begins: what has one of these namespaces, as an expression of Prometheus, or none at all.
    #[must_use]
    pub fn begin(prometheus: Prometheus, namespace: &str) -> Self {
        Self { prometheus, namespace: namespace.to_owned(), begun: Instant::now(), rows: Vec::new() }
    }

    /// Waits until all these alerts fire, or none of them does any more.
    pub fn wait(&mut self, what: &str, alerts: &[&str], fire: bool) {
        let begun = Instant::now();
        let mut seen: BTreeMap<&str, Duration> = BTreeMap::new();
        wait_for(
            what,
            || self.prometheus.log(),
            || {
                let firing = self.prometheus.firing(&self.namespace)?;
                for alert in alerts.iter().filter(|alert| firing.contains(**alert) == fire) {
                    seen.entry(alert).or_insert_with(|| begun.elapsed());
                }
                let is_so = alerts.iter().all(|alert| firing.contains(*alert) == fire);
                if is_so { Ok(()) } else { Err(format!("{firing:?}")) }
            },
        );
        for (alert, after) in seen {
            let word = if fire { "fires" } else { "clears" };
            self.rows.push(format!("{what:<44} {alert:<26} {word} after {:>4.1} s", after.as_secs_f64()));
        }
    }

    /// What was waited for, a line each.
    #[must_use]
    pub fn told(&self) -> String {
        let all = self.begun.elapsed().as_secs_f64();
        format!("{}\nall of it took {all:.1} s; a minute of the rules is a second here", self.rows.join("\n"))
    }
}

/// What Grafana asks for a part of a panel, with everything chosen.
fn asked(target: &Value) -> String {
    let mut query = target["expr"].as_str().expect("a query").to_owned();
    for variable in ["$job", "$namespace", "$raftqueue", "$instance", "$topic"] {
        query = query.replace(variable, ".*");
    }
    query = with_times(&query).replace("$__rate_interval", "5s");
    assert!(!query.contains('$'), "{query}");
    query
}

/// Writes what each panel of these dashboards showed since the watch began, for `deploy/monitoring/pictures/draw.py`: a file for each
/// dashboard, which is the dashboard with the answers of Prometheus beside its queries.
///
/// # Panics
/// If it cannot be written, or Prometheus does not answer.
pub fn record(watch: &Watch, topics: &[&str], folder: &Path) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs_f64();
    let from = now - watch.begun.elapsed().as_secs_f64();
    for topic in topics {
        let mut dashboard: Value =
            serde_json::from_str(&read(&format!("{topic}-dashboard.json"))).expect("it is JSON");
        for panel in dashboard["panels"].as_array_mut().expect("it has panels") {
            for target in panel["targets"].as_array_mut().into_iter().flatten() {
                let history = watch.prometheus.history(&asked(target), from, now);
                target["history"] = history.expect("it is answered")["result"].clone();
            }
        }
        dashboard["shown"] = json!({"from": from, "to": now, "told": watch.rows});
        std::fs::write(folder.join(format!("{topic}.json")), dashboard.to_string())
            .expect("it can be written");
    }
}

/// Asks what Grafana asks for each panel of these dashboards, with everything chosen; an error names those that show nothing.
///
/// # Errors
/// The panels, or what Prometheus says of a query.
///
/// # Panics
/// If a dashboard is none.
pub fn empty_panels(prometheus: &Prometheus, topics: &[&str]) -> Result<(), String> {
    let mut empty = BTreeSet::new();
    for topic in topics {
        let dashboard: Value =
            serde_json::from_str(&read(&format!("{topic}-dashboard.json"))).expect("it is JSON");
        for panel in dashboard["panels"].as_array().expect("it has panels") {
            let targets = panel["targets"].as_array();
            let title = panel["title"].as_str().expect("a title");
            for target in targets.into_iter().flatten() {
                let query = asked(target);
                if prometheus.query(&query).map_err(|error| format!("{title}: {query}: {error}"))?.is_empty()
                {
                    empty.insert(format!("{title}: {query}"));
                }
            }
        }
    }
    match empty.is_empty() {
        true => Ok(()),
        false => Err(format!("nothing to see in:\n{}", empty.into_iter().collect::<Vec<_>>().join("\n"))),
    }
}
