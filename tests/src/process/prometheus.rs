//! A real Prometheus beside real nodes.

use super::{Http, Running, free_ports, repository};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder with the programs `prometheus` and `promtool`: the one that `RAFTQUEUE_PROMETHEUS` names, or one of those in which
/// programs are looked for; `None` where there is none.
///
/// # Panics
/// If `RAFTQUEUE_PROMETHEUS` names a folder without them: who sets it wants it to be used.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    let [named, path] = ["RAFTQUEUE_PROMETHEUS", "PATH"].map(std::env::var_os);
    let has = |folder: &Path| ["prometheus", "promtool"].iter().all(|name| folder.join(name).is_file());
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        assert!(has(&named), "RAFTQUEUE_PROMETHEUS: {} has no prometheus and promtool", named.display());
        return Some(named);
    }
    std::env::split_paths(&path?).find(|folder| has(folder))
}

/// Whether the Prometheus of this folder knows Kubernetes: it takes the configuration that `deploy/monitoring` has for it. Debian's
/// does not (`findings/debian-prometheus-kubernetes.sh`).
#[must_use]
pub fn knows_kubernetes(folder: &Path) -> bool {
    let mut promtool = Command::new(folder.join("promtool"));
    let arguments = ["check", "config", "--syntax-only", "prometheus-kubernetes.yaml"];
    promtool.args(arguments).current_dir(repository().join("deploy/monitoring"));
    promtool.output().is_ok_and(|output| output.status.success())
}

/// A Prometheus; it ends when it is dropped.
#[derive(Debug)]
pub struct Prometheus {
    _process: Running,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

/// How one is started.
pub struct Start<'a> {
    /// The program, as it is to be started: perhaps in another network.
    pub command: Command,
    /// The port on the loopback interface where it answers, of that network.
    pub port: u16,
    /// Its configuration but for how often it asks, and for the files of rules.
    pub configuration: Value,
    /// The text of each of those.
    pub rules: &'a [String],
}

/// The labels and the value of one series.
pub type Sample = (BTreeMap<String, String>, f64);

/// Ports of this machine that are asked, and the labels that their series get.
pub type Targets = Vec<(u16, BTreeMap<&'static str, String>)>;

impl Prometheus {
    /// Starts one that asks these ports twice a second, and works out these rules as often: each the text of a file.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(programs: &Path, targets: &Targets, rules: &[String]) -> Self {
        let of = |(port, labels): &(u16, BTreeMap<&str, String>)| {
            let job = labels.get("job").cloned().unwrap_or_else(|| "raftqueue".into());
            json!({
                "job_name": format!("{job}-{port}"),
                "honor_labels": true,
                "static_configs": [{"targets": [format!("127.0.0.1:{port}")], "labels": labels}],
            })
        };
        let configuration = json!({"scrape_configs": targets.iter().map(of).collect::<Vec<_>>()});
        let command = Command::new(programs.join("prometheus"));
        Self::start_with(Start { command, port: free_ports(1)[0], configuration, rules })
    }

    /// The same with a configuration of one's own.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start_with(start: Start<'_>) -> Self {
        let Start { mut command, port, mut configuration, rules } = start;
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let mut files = Vec::new();
        for (number, text) in rules.iter().enumerate() {
            let name = format!("rules-{number}.yaml");
            std::fs::write(folder.path().join(&name), text).expect("it can be written");
            files.push(name);
        }
        configuration["global"] =
            json!({"scrape_interval": "500ms", "evaluation_interval": "500ms", "scrape_timeout": "500ms"});
        configuration["rule_files"] = json!(files);
        // JSON is YAML.
        std::fs::write(folder.path().join("prometheus.yaml"), configuration.to_string())
            .expect("it can be written");
        let log = std::fs::File::create(folder.path().join("log")).expect("it can be written");
        let process = command
            .arg("--config.file=prometheus.yaml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it can be started");
        Self { _process: Running(process), address: (Ipv4Addr::LOCALHOST, port).into(), folder }
    }

    /// What it says of itself.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What a query results in: labels and value of each series.
    ///
    /// # Errors
    /// It does not answer, or refuses the query.
    pub fn query(&self, query: &str) -> Result<Vec<Sample>, String> {
        let answer = self.ask(&format!("query?query={}", encoded(query)))?;
        let no_vector = || format!("no vector: {answer}");
        let series = answer["result"].as_array().ok_or_else(no_vector)?;
        let one = |one: &Value| {
            let labels = serde_json::from_value(one["metric"].clone()).ok()?;
            Some((labels, one["value"][1].as_str()?.parse().ok()?))
        };
        series.iter().map(one).collect::<Option<_>>().ok_or_else(no_vector)
    }

    /// What a query resulted in from one moment to another, each in seconds since the Unix epoch, twice a second.
    ///
    /// # Errors
    /// As [`Prometheus::query`].
    pub fn history(&self, query: &str, from: f64, to: f64) -> Result<Value, String> {
        let query = encoded(query);
        self.ask(&format!("query_range?query={query}&start={from:.3}&end={to:.3}&step=0.5"))
    }

    /// What its API says at a path below `/api/v1/`.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub fn ask(&self, path: &str) -> Result<Value, String> {
        let answer = Http::at(self.address).request("GET", &format!("/api/v1/{path}"), b"");
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        if answer.code == 200 { Ok(answer.body["data"].clone()) } else { Err(answer.text) }
    }

    /// The names of the alerts that fire, about this namespace or about none.
    ///
    /// # Errors
    /// As [`Prometheus::query`].
    pub fn firing(&self, namespace: &str) -> Result<BTreeSet<String>, String> {
        let found = self.query(&format!("ALERTS{{alertstate=\"firing\", namespace=~\"{namespace}|\"}}"))?;
        Ok(found.into_iter().filter_map(|(mut labels, _)| labels.remove("alertname")).collect())
    }
}

/// As it stands in the query of a URL.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
