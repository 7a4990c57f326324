//! A real Prometheus beside real nodes.

use super::{Http, Running, free_ports};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
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

/// A Prometheus; it ends when it is dropped.
#[derive(Debug)]
pub struct Prometheus {
    _process: Running,
    port: u16,
    folder: tempfile::TempDir,
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
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let mut files = Vec::new();
        for (number, text) in rules.iter().enumerate() {
            let name = format!("rules-{number}.yaml");
            std::fs::write(folder.path().join(&name), text).expect("it can be written");
            files.push(name);
        }
        let of = |(port, labels): &(u16, BTreeMap<&str, String>)| {
            let job = labels.get("job").cloned().unwrap_or_else(|| "raftqueue".into());
            json!({
                "job_name": format!("{job}-{port}"),
                "honor_labels": true,
                "static_configs": [{"targets": [format!("127.0.0.1:{port}")], "labels": labels}],
            })
        };
        let configuration = json!({
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms", "scrape_timeout": "500ms"},
            "rule_files": files,
            "scrape_configs": targets.iter().map(of).collect::<Vec<_>>(),
        });
        // JSON is YAML.
        std::fs::write(folder.path().join("prometheus.yaml"), configuration.to_string())
            .expect("it can be written");
        let port = free_ports(1)[0];
        let log = std::fs::File::create(folder.path().join("log")).expect("it can be written");
        let process = Command::new(programs.join("prometheus"))
            .arg("--config.file=prometheus.yaml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it can be started");
        Self { _process: Running(process), port, folder }
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
        let path = format!("/api/v1/query?query={}", encoded(query));
        let answer = Http::new(self.port).request("GET", &path, b"");
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        if answer.code != 200 {
            return Err(answer.text);
        }
        let found = &answer.body["data"]["result"];
        let series = found.as_array().ok_or_else(|| format!("no vector: {}", answer.text))?;
        let one = |one: &Value| {
            let labels = serde_json::from_value(one["metric"].clone()).ok()?;
            Some((labels, one["value"][1].as_str()?.parse().ok()?))
        };
        series.iter().map(one).collect::<Option<_>>().ok_or_else(|| format!("no vector: {}", answer.text))
    }

    /// The names of the alerts that fire.
    ///
    /// # Errors
    /// As [`Prometheus::query`].
    pub fn firing(&self) -> Result<BTreeSet<String>, String> {
        let found = self.query("ALERTS{alertstate=\"firing\"}")?;
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
