//! What a node is told when it starts: flags, environment, and the file with the members' addresses.
//!
//! The only reader of the environment. Every flag can be given as `RAFTQUEUE_...` too; a flag wins.

use crate::limits::Limits;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
/// Most bytes of the key and the headers of one message.
const MESSAGE_ATTRIBUTES_BYTES_MAX: usize =
    (raftqueue_queue::KEY_BYTES_MAX + raftqueue_queue::HEADERS_BYTES_MAX) as usize;

/// The flags of `raftqueue-node`.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// File that lists the members' addresses:
    /// {"addresses": [{"ip": "127.0.0.1", "port": 8001, "internal_port": 9001}, ...]}.
    /// `port` serves clients, `internal_port` serves the other nodes.
    #[arg(long, value_name = "FILE", requires = "index", conflicts_with_all = ["name", "members"], env = "RAFTQUEUE_CONFIG")]
    pub config: Option<PathBuf>,

    /// Which address of the file is this node's, counted from 0.
    #[arg(
        long,
        value_name = "I",
        requires = "config",
        allow_negative_numbers = true,
        env = "RAFTQUEUE_INDEX"
    )]
    pub index: Option<usize>,

    /// This node's name, one of those in --members.
    #[arg(long, requires = "members", env = "RAFTQUEUE_NAME")]
    pub name: Option<String>,

    /// The initial members, separated by commas: NAME=HOST:PORT, where PORT serves the other nodes.
    #[arg(long, value_name = "LIST", requires = "name", value_delimiter = ',', env = "RAFTQUEUE_MEMBERS")]
    pub members: Vec<String>,

    /// Address and port to serve clients on, with --members.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7420", env = "RAFTQUEUE_CLIENT_LISTEN")]
    pub client_listen: String,

    /// Address and port to serve the other nodes on, with --members. Default: this node's own address in the list.
    #[arg(long, value_name = "HOST:PORT", env = "RAFTQUEUE_PEER_LISTEN")]
    pub peer_listen: Option<String>,

    /// Where clients reach this node, if not at --client-listen; told to clients of other nodes.
    #[arg(long, value_name = "HOST:PORT", env = "RAFTQUEUE_CLIENT_ADDRESS")]
    pub client_address: Option<String>,

    /// Port for /metrics, /livez and /readyz. With --members 7422 by default; with --config none.
    #[arg(long, value_name = "PORT", env = "RAFTQUEUE_OPERATIONS_PORT")]
    pub operations_port: Option<u16>,

    /// Folder for the log and this node's identity. One node, one folder, one process at a time.
    /// Default: ./raftqueue-data/IP-PORT or ./raftqueue-data/NAME.
    #[arg(long, value_name = "DIR", env = "RAFTQUEUE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Milliseconds without a leader after which a follower campaigns: a random time between this and twice this.
    /// Lower fails over faster and bears less delay of network and processor; all nodes should agree.
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(50..=60_000),
          env = "RAFTQUEUE_ELECTION_TIMEOUT_MS")]
    pub election_timeout_ms: u64,

    /// Milliseconds to go on answering after SIGTERM, once leadership has been handed over.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600_000),
          env = "RAFTQUEUE_DRAIN_MS")]
    pub drain_ms: u64,

    /// Greatest body of one message, in bytes (1 to 16777216).
    #[arg(long, value_name = "BYTES", default_value_t = MIB, value_parser = clap::value_parser!(u64).range(1..=16 * MIB),
          env = "RAFTQUEUE_BODY_BYTES_MAX")]
    pub body_bytes_max: u64,

    /// Length of a lease in milliseconds where the consumer names none (1000 to 43200000).
    #[arg(long, value_name = "MS", default_value_t = raftqueue_queue::LEASE_MS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(raftqueue_queue::LEASE_MS_MIN..=raftqueue_queue::LEASE_MS_MAX),
          env = "RAFTQUEUE_LEASE_MS")]
    pub lease_ms: u64,

    /// Failed attempts after which a message is dead, for topics that do not say.
    #[arg(long, value_name = "COUNT", default_value_t = raftqueue_queue::ATTEMPTS_MAX_DEFAULT,
          value_parser = clap::value_parser!(u32).range(1..), env = "RAFTQUEUE_ATTEMPTS_MAX")]
    pub attempts_max: u32,

    /// Free bytes of the disk that publishing leaves alone, so that acknowledging can go on when it is full.
    #[arg(long, value_name = "BYTES", default_value_t = 192 * MIB, env = "RAFTQUEUE_RESERVE_BYTES")]
    pub reserve_bytes: u64,

    /// Size of a segment file of the log, in bytes (1048576 to 1073741824).
    #[arg(long, value_name = "BYTES", default_value_t = 64 * MIB,
          value_parser = clap::value_parser!(u64).range(MIB..=1024 * MIB), env = "RAFTQUEUE_SEGMENT_BYTES")]
    pub segment_bytes: u64,

    /// Threads that serve clients and peers. One is fastest where nodes share cores.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64),
          env = "RAFTQUEUE_THREADS")]
    pub threads: u64,

    /// How to log: for people, as JSON, or whichever fits (people on a terminal, JSON elsewhere). What to log is said by
    /// RUST_LOG, `info` by default.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto, env = "RAFTQUEUE_LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    /// A line of text each.
    Human,
    /// A JSON object each.
    Json,
}

/// One initial member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it serves the other nodes, as HOST:PORT.
    pub peer_address: String,
}

/// What a node needs to know to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub name: String,
    /// The initial members, in order of their names.
    pub members: Vec<Member>,
    /// Where to serve clients.
    pub client_listen: String,
    /// Where clients reach this node.
    pub client_address: String,
    /// Where to serve the other nodes.
    pub peer_listen: String,
    /// Where to serve operations, if anywhere.
    pub operations_listen: Option<String>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// T, in milliseconds.
    pub election_timeout_ms: u64,
    /// How long to go on answering after a request to stop.
    pub drain_ms: u64,
    /// Limits that the edges check.
    pub limits: Limits,
    /// Default lease.
    pub lease_ms: u64,
    /// Default attempts.
    pub attempts_max: u32,
    /// Free bytes to leave alone.
    pub reserve_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
}

/// A configuration that cannot be run with. The text says what is wrong and what would be right.
#[derive(Debug)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

#[derive(Deserialize)]
struct AddressFile {
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    ip: String,
    port: u16,
    internal_port: u16,
}

impl NodeArgs {
    /// The configuration that the flags and the file amount to.
    ///
    /// # Errors
    /// [`ConfigError`]: the person who starts the node must mend it.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let (name, client_listen, own, mut members, operations, folder) = match (&self.config, self.index) {
            (Some(file), Some(index)) => {
                let addresses = read_addresses(file)?;
                let count = addresses.len();
                let own = addresses.get(index).ok_or_else(|| {
                    ConfigError(format!(
                        "--index {index}: {} lists {count} addresses, so it must be 0 to {}",
                        file.display(),
                        count - 1
                    ))
                })?;
                let name = format!("{}:{}", own.ip, own.internal_port);
                let client = format!("{}:{}", own.ip, own.port);
                let operations = self.operations_port.map(|port| format!("{}:{port}", own.ip));
                let folder = format!("{}-{}", own.ip, own.port);
                let members: Vec<Member> = addresses
                    .iter()
                    .map(|a| format!("{}:{}", a.ip, a.internal_port))
                    .map(|address| Member { name: address.clone(), peer_address: address })
                    .collect();
                (name.clone(), client, name, members, operations, folder)
            }
            _ => {
                let name = self.name.clone().ok_or_else(|| {
                    ConfigError(
                        "say who this node is: --config FILE --index I, or --name NAME --members LIST".into(),
                    )
                })?;
                let members =
                    self.members.iter().map(|text| read_member(text)).collect::<Result<Vec<_>, _>>()?;
                let own = members.iter().find(|member| member.name == name).ok_or_else(|| {
                    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
                    ConfigError(format!("--name {name} is not among --members ({})", names.join(", ")))
                })?;
                let peer = own.peer_address.clone();
                let host = self.client_listen.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
                let operations = format!("{host}:{}", self.operations_port.unwrap_or(7422));
                (name.clone(), self.client_listen.clone(), peer, members, Some(operations), name)
            }
        };
        members.sort();
        if let Some(pair) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(ConfigError(format!(
                "two members are called {}; every name must differ",
                pair[0].name
            )));
        }
        let body_bytes_max = usize::try_from(self.body_bytes_max).expect("at most 16 MiB");
        let message_bytes_max = body_bytes_max + MESSAGE_ATTRIBUTES_BYTES_MAX;
        let publish_bytes_max = Limits::default().publish_bytes_max.max(message_bytes_max);
        let limits = Limits { body_bytes_max, publish_bytes_max };
        Ok(Config {
            name,
            members,
            client_address: self.client_address.unwrap_or_else(|| client_listen.clone()),
            client_listen,
            peer_listen: self.peer_listen.unwrap_or(own),
            operations_listen: operations,
            data_dir: self.data_dir.unwrap_or_else(|| Path::new("raftqueue-data").join(folder)),
            election_timeout_ms: self.election_timeout_ms,
            drain_ms: self.drain_ms,
            limits,
            lease_ms: self.lease_ms,
            attempts_max: self.attempts_max,
            reserve_bytes: self.reserve_bytes,
            segment_bytes: self.segment_bytes.next_multiple_of(4096),
        })
    }
}

fn read_addresses(file: &Path) -> Result<Vec<Address>, ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| ConfigError(format!("cannot read --config {}: {error}", file.display())))?;
    let parsed: AddressFile = serde_json::from_str(&text).map_err(|error| {
        ConfigError(format!(
            "--config {}: {error}; it must look like \
             {{\"addresses\": [{{\"ip\": \"127.0.0.1\", \"port\": 8001, \"internal_port\": 9001}}]}}",
            file.display()
        ))
    })?;
    if parsed.addresses.is_empty() {
        return Err(ConfigError(format!(
            "--config {}: `addresses` is empty; list at least one",
            file.display()
        )));
    }
    Ok(parsed.addresses)
}

fn read_member(text: &str) -> Result<Member, ConfigError> {
    match text.split_once('=') {
        Some((name, address)) if !name.is_empty() && address.contains(':') => {
            Ok(Member { name: name.to_owned(), peer_address: address.to_owned() })
        }
        _ => Err(ConfigError(format!("--members: `{text}` must be NAME=HOST:PORT"))),
    }
}

/// What is to be logged: `RUST_LOG`, or `info`.
#[must_use]
pub fn log_filter() -> String {
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the environment")]
    std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        node: NodeArgs,
    }

    fn resolve(args: &[&str]) -> Result<Config, String> {
        let cli =
            Cli::try_parse_from([&["raftqueue-node"], args].concat()).map_err(|error| error.to_string())?;
        cli.node.resolve().map_err(|error| error.to_string())
    }

    fn file(content: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, content).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (dir, path)
    }

    #[test]
    fn the_address_file_names_everything() {
        let (_dir, path) = file(
            r#"{"addresses": [{"ip": "127.0.0.1", "port": 8001, "internal_port": 9001},
                             {"ip": "127.0.0.1", "port": 8002, "internal_port": 9002, "more": 1}], "else": []}"#,
        );
        let config = resolve(&["--config", &path, "--index", "1"]).unwrap();
        assert_eq!(config.name, "127.0.0.1:9002");
        assert_eq!(
            (config.client_listen.as_str(), config.peer_listen.as_str()),
            ("127.0.0.1:8002", "127.0.0.1:9002")
        );
        assert_eq!(config.data_dir, Path::new("raftqueue-data/127.0.0.1-8002"));
        assert_eq!((config.operations_listen, config.members.len()), (None, 2));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let (_dir, good) = file(r#"{"addresses": [{"ip": "a", "port": 1, "internal_port": 2}]}"#);
        let (_dir2, empty) = file(r#"{"addresses": []}"#);
        let (_dir3, bad) = file("{");
        for (args, part) in [
            (vec!["--config", good.as_str(), "--index", "1"], "0 to 0"),
            (vec!["--config", empty.as_str(), "--index", "0"], "at least one"),
            (vec!["--config", bad.as_str(), "--index", "0"], "must look like"),
            (vec!["--config", "/nowhere", "--index", "0"], "cannot read"),
            (vec!["--config", good.as_str()], "--index"),
            (vec!["--config", good.as_str(), "--index", "-1"], "--index"),
            (vec![], "say who this node is"),
            (vec!["--name", "a", "--members", "b=h:1"], "not among"),
            (vec!["--name", "a", "--members", "a"], "NAME=HOST:PORT"),
            (vec!["--name", "a", "--members", "a=h:1,a=h:2"], "every name must differ"),
            (vec!["--config", good.as_str(), "--index", "0", "--election-timeout-ms", "1"], "50..=60000"),
        ] {
            let error = resolve(&args).unwrap_err();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }
}
