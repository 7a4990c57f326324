//! What a node is told when it starts: flags, environment, and the file with the members' addresses.
//!
//! The only reader of the environment. Every flag can be given as `RAFTQUEUE_...` too; a flag wins.

mod addresses;
mod auth;
mod console;
mod kinds;
mod tls;
mod traces;

use self::addresses::read_addresses;
use crate::api::budget;
use crate::api::limits::Limits;
use crate::edges::console::Settings as ConsoleSettings;
use crate::traces::Collector;
pub use auth::{AuthArgs, AuthSettings};
use clap::Args;
pub use console::ConsoleArgs;
pub use kinds::{Bootstrap, DiscoveryKind, LogFormat};
use std::fmt;
use std::path::{Path, PathBuf};
pub use tls::{TlsArgs, TlsSettings};
pub use traces::TracesArgs;

const MIB: u64 = 1 << 20;
/// The port for the other nodes if only a name is given.
const PEER_PORT: u16 = 7421;
/// Default of the milliseconds without a leader after which a follower campaigns.
pub const ELECTION_TIMEOUT_MS_DEFAULT: u64 = 300;
/// All addresses of this machine, of both kinds; see [`crate::run`] for machines without the newer kind.
const ANY_HOST: &str = "[::]";
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

    /// This node's name: one of those in --members, or that of a node which is to join them.
    #[arg(long, env = "RAFTQUEUE_NAME")]
    pub name: Option<String>,

    /// The initial members, separated by commas: NAME=HOST:PORT, where PORT serves the other nodes; with --discovery dns
    /// just their names.
    #[arg(long, value_name = "LIST", value_delimiter = ',', env = "RAFTQUEUE_MEMBERS")]
    pub members: Vec<String>,

    /// How to find the other nodes: where --config or --members says, or by DNS as NAME.SERVICE, looked up anew at every
    /// attempt to connect.
    #[arg(long, value_enum, default_value_t = DiscoveryKind::Static, conflicts_with = "config",
          env = "RAFTQUEUE_DISCOVERY")]
    pub discovery: DiscoveryKind,

    /// The DNS name under which every node has a name of its own, with --discovery dns: that of a headless service, such
    /// as demo-headless.default.svc.
    #[arg(long, value_name = "DOMAIN", env = "RAFTQUEUE_SERVICE")]
    pub service: Option<String>,

    /// What a node with a blank disk does: form a cluster together with all other initial members, or wait to be added
    /// to the cluster that exists. A node that belongs to a cluster goes on with it either way.
    #[arg(long, value_enum, default_value_t = Bootstrap::Form, env = "RAFTQUEUE_BOOTSTRAP")]
    pub bootstrap: Bootstrap,

    /// The cluster that this node's disk must belong to, 32 hexadecimal digits. With the disk of another one the node
    /// serves nobody, and tells so. Default: whichever the disk says.
    #[arg(long, value_name = "ID", value_parser = read_cluster_id, env = "RAFTQUEUE_CLUSTER_ID")]
    pub cluster_id: Option<u128>,

    /// Address and port to serve clients on, with --members. Default: 127.0.0.1:7420; with --discovery dns port 7420 of all addresses.
    #[arg(long, value_name = "HOST:PORT", env = "RAFTQUEUE_CLIENT_LISTEN")]
    pub client_listen: Option<String>,

    /// Address and port to serve the other nodes on, with --members. Default: this node's own address in the list; with
    /// --discovery dns port 7421 of all addresses.
    #[arg(long, value_name = "HOST:PORT", env = "RAFTQUEUE_PEER_LISTEN")]
    pub peer_listen: Option<String>,

    /// Where clients reach this node, if not at --client-listen or, with --discovery dns, NAME.SERVICE:7420; told to
    /// clients of other nodes.
    #[arg(long, value_name = "HOST:PORT", env = "RAFTQUEUE_CLIENT_ADDRESS")]
    pub client_address: Option<String>,

    /// Where the other nodes reach this one, if not where the list of members or --peer-listen says; told to them.
    #[arg(long, value_name = "HOST:PORT", env = "RAFTQUEUE_PEER_ADDRESS")]
    pub peer_address: Option<String>,

    /// Port for /metrics, /livez and /readyz. With --members 7422 by default; with --config none.
    #[arg(long, value_name = "PORT", env = "RAFTQUEUE_OPERATIONS_PORT")]
    pub operations_port: Option<u16>,

    /// What is encrypted.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Who may call.
    #[command(flatten)]
    pub auth: AuthArgs,

    /// What the console may do.
    #[command(flatten)]
    pub console: ConsoleArgs,

    /// Where spans of calls go.
    #[command(flatten)]
    pub traces: TracesArgs,

    /// Folder for the log and this node's identity. One node, one folder, one process at a time.
    /// Default: ./raftqueue-data/IP-PORT or ./raftqueue-data/NAME.
    #[arg(long, value_name = "DIR", env = "RAFTQUEUE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Milliseconds without a leader after which a follower campaigns: a random time between this and twice this.
    /// Lower fails over faster and bears less delay of network and processor; all nodes should agree.
    #[arg(long, value_name = "MS", default_value_t = ELECTION_TIMEOUT_MS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(50..=60_000), env = "RAFTQUEUE_ELECTION_TIMEOUT_MS")]
    pub election_timeout_ms: u64,

    /// Milliseconds to go on answering after SIGTERM, once leadership has been handed over.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600_000),
          env = "RAFTQUEUE_DRAIN_MS")]
    pub drain_ms: u64,

    /// Milliseconds to wait for another process that holds the data directory, as the one that this one replaces does
    /// until it has ended. With 0, one that is held is refused at once.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600_000),
          env = "RAFTQUEUE_LOCK_WAIT_MS")]
    pub lock_wait_ms: u64,

    /// Greatest body of one message, in bytes (1 to 16777216).
    #[arg(long, value_name = "BYTES", default_value_t = MIB, value_parser = clap::value_parser!(u64).range(1..=16 * MIB),
          env = "RAFTQUEUE_BODY_BYTES_MAX")]
    pub body_bytes_max: u64,

    /// Most bytes that are held in memory for clients: requests until they are answered, and answers until they are sent.
    /// What finds no room is refused. Default: an eighth of the memory limit of the control group, 64 MiB at least;
    /// 268435456 where there is no limit. The largest single call must fit.
    #[arg(long, value_name = "BYTES", env = "RAFTQUEUE_CLIENT_BYTES_MAX")]
    pub client_bytes_max: Option<u64>,

    /// Most connections from one address (IPv6: one /64) to the port of clients. Default: half of what that port holds.
    #[arg(long, value_name = "COUNT", env = "RAFTQUEUE_CONNECTIONS_PER_ADDRESS_MAX")]
    pub connections_per_address_max: Option<std::num::NonZeroU32>,

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
    #[arg(long, value_name = "BYTES", default_value_t = crate::replica::RESERVE_BYTES_DEFAULT, env = "RAFTQUEUE_RESERVE_BYTES")]
    pub reserve_bytes: u64,

    /// Size of a segment file of the log, in bytes (1048576 to 1073741824).
    #[arg(long, value_name = "BYTES", default_value_t = 64 * MIB,
          value_parser = clap::value_parser!(u64).range(MIB..=1024 * MIB), env = "RAFTQUEUE_SEGMENT_BYTES")]
    pub segment_bytes: u64,

    /// Bytes a second that are read of this node's disk in the background, to find what does not verify before somebody needs
    /// it. 0: nothing is read for that.
    #[arg(long, value_name = "BYTES", default_value_t = 8 * MIB,
          value_parser = clap::value_parser!(u64).range(0..=1024 * MIB), env = "RAFTQUEUE_SCRUB_BYTES_PER_SECOND")]
    pub scrub_bytes_per_second: u64,

    /// Threads that serve clients; one more has the log's driver and the peers. One is fastest where nodes share cores.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64),
          env = "RAFTQUEUE_THREADS")]
    pub threads: u64,

    /// How to log: for people, as JSON, or whichever fits (people on a terminal, JSON elsewhere). What to log is said by
    /// RUST_LOG, `info` by default.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto, env = "RAFTQUEUE_LOG_FORMAT")]
    pub log_format: LogFormat,
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
    /// The domain beneath which the nodes have their names, with DNS.
    pub domain: Option<String>,
    /// What is encrypted, if anything is.
    pub tls: Option<TlsSettings>,
    /// Who may call, if not everybody.
    pub auth: Option<AuthSettings>,
    /// What to do with a blank disk.
    pub bootstrap: Bootstrap,
    /// The cluster that the disk must belong to, if it matters.
    pub cluster_id: Option<u128>,
    /// Where to serve clients.
    pub client_listen: String,
    /// Where clients reach this node.
    pub client_address: String,
    /// Where to serve the other nodes.
    pub peer_listen: String,
    /// Where the other nodes reach this node.
    pub peer_address: String,
    /// Where to serve operations, if anywhere.
    pub operations_listen: Option<String>,
    /// What the console there may do, if there is one.
    pub console: Option<ConsoleSettings>,
    /// Who takes spans of calls, if anybody does.
    pub collector: Option<Collector>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// T, in milliseconds.
    pub election_timeout_ms: u64,
    /// How long to go on answering after a request to stop.
    pub drain_ms: u64,
    /// How long to wait for another process that holds the data directory.
    pub lock_wait_ms: u64,
    /// Limits that the edges check, and the default lease.
    pub limits: Limits,
    /// Most bytes held for clients.
    pub client_bytes_max: usize,
    /// Most connections of clients from one address; `None`: half of all.
    pub connections_per_address_max: Option<usize>,
    /// Default attempts.
    pub attempts_max: u32,
    /// Free bytes to leave alone.
    pub reserve_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes a second that are read in the background; 0 for none.
    pub scrub_bytes_per_second: u64,
}

/// A configuration with which no node can run. The text says what is wrong and what would be right.
#[derive(Debug)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl NodeArgs {
    /// The configuration that the flags and the file amount to.
    ///
    /// # Errors
    /// [`ConfigError`]: the person who starts the node must correct it.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let who = match (&self.config, self.index) {
            (Some(file), Some(index)) => self.by_file(file, index)?,
            _ => self.by_name()?,
        };
        let WhoAndWhere {
            name,
            mut members,
            client_listen,
            client_address,
            peer_address,
            peer_listen,
            operations,
            folder,
        } = who;
        // Whoever listens elsewhere than the list says is found there, unless that is no place to be found at.
        let listens = self.peer_listen.clone().filter(|at| {
            self.discovery == DiscoveryKind::Static && !at.starts_with(ANY_HOST) && !at.starts_with("0.0.0.0")
        });
        let peer_address = self.peer_address.clone().or(listens).unwrap_or(peer_address);
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
        let limits = Limits { body_bytes_max, publish_bytes_max, lease_ms_default: self.lease_ms };
        let least = budget::bytes_for(limits.call_bytes_max());
        let client_bytes_max = match self.client_bytes_max {
            Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
            None => budget::default_bytes(budget::cgroup::memory_limit()).max(least),
        };
        if client_bytes_max < least {
            return Err(ConfigError(format!(
                "--client-bytes-max {client_bytes_max} is too little: a single call may take {} bytes with \
                 --body-bytes-max {}, and so it must be at least {least}",
                limits.call_bytes_max(),
                limits.body_bytes_max
            )));
        }
        let client_address = self.client_address.unwrap_or(client_address);
        let console = self.console.settings([&name, &client_address, &peer_address]);
        Ok(Config {
            name,
            members,
            domain: self.service.filter(|_| self.discovery == DiscoveryKind::Dns),
            tls: self.tls.settings()?,
            auth: self.auth.settings()?,
            bootstrap: self.bootstrap,
            cluster_id: self.cluster_id,
            client_address,
            client_listen,
            peer_address,
            peer_listen: self.peer_listen.unwrap_or(peer_listen),
            operations_listen: operations,
            console,
            collector: self.traces.collector()?,
            data_dir: self.data_dir.unwrap_or_else(|| Path::new("raftqueue-data").join(folder)),
            election_timeout_ms: self.election_timeout_ms,
            drain_ms: self.drain_ms,
            lock_wait_ms: self.lock_wait_ms,
            limits,
            client_bytes_max,
            attempts_max: self.attempts_max,
            reserve_bytes: self.reserve_bytes,
            segment_bytes: self.segment_bytes.next_multiple_of(4096),
            scrub_bytes_per_second: self.scrub_bytes_per_second,
            connections_per_address_max: self.connections_per_address_max.map(|count| count.get() as usize),
        })
    }

    fn by_file(&self, file: &Path, index: usize) -> Result<WhoAndWhere, ConfigError> {
        let addresses = read_addresses(file)?;
        let count = addresses.len();
        let own = addresses.get(index).ok_or_else(|| {
            ConfigError(format!(
                "--index {index}: {} lists {count} addresses, so it must be 0 to {}",
                file.display(),
                count - 1
            ))
        })?;
        let members = addresses.iter().map(|a| format!("{}:{}", a.host(), a.internal_port));
        let client_listen = format!("{}:{}", own.host(), own.port);
        let name = format!("{}:{}", own.host(), own.internal_port);
        Ok(WhoAndWhere {
            name: name.clone(),
            members: members.map(|at| Member { name: at.clone(), peer_address: at }).collect(),
            client_address: client_listen.clone(),
            client_listen,
            peer_address: name.clone(),
            peer_listen: name,
            operations: self.operations_port.map(|port| format!("{}:{port}", own.host())),
            folder: format!("{}-{}", own.ip, own.port),
        })
    }

    fn by_name(&self) -> Result<WhoAndWhere, ConfigError> {
        let Some(name) = self.name.clone().filter(|_| !self.members.is_empty()) else {
            return Err(ConfigError(
                "say who this node is: --config FILE --index I, or --name NAME --members LIST".into(),
            ));
        };
        let members =
            self.members.iter().map(|text| self.read_member(text)).collect::<Result<Vec<_>, _>>()?;
        let own = members.iter().find(|member| member.name == name);
        if own.is_none() && self.bootstrap == Bootstrap::Form {
            let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            return Err(ConfigError(format!(
                "--name {name} is not among --members ({}); a node that is to join them is started with --bootstrap join",
                names.join(", ")
            )));
        }
        let (client_listen, peer_listen) = match self.discovery {
            DiscoveryKind::Static => {
                let Some(peer) = own.map(|own| own.peer_address.clone()).or_else(|| self.peer_listen.clone())
                else {
                    return Err(ConfigError(format!(
                        "say where {name} serves the other nodes: --peer-listen"
                    )));
                };
                ("127.0.0.1:7420".to_owned(), peer)
            }
            DiscoveryKind::Dns => (format!("{ANY_HOST}:7420"), format!("{ANY_HOST}:7421")),
        };
        let peer_address = match &self.service {
            Some(service) if self.discovery == DiscoveryKind::Dns => format!("{name}.{service}:{PEER_PORT}"),
            _ => peer_listen.clone(),
        };
        let client_listen = self.client_listen.clone().unwrap_or(client_listen);
        let (host, client_port) = client_listen.rsplit_once(':').unwrap_or(("127.0.0.1", "7420"));
        let client_address = match &self.service {
            Some(service) if self.discovery == DiscoveryKind::Dns => {
                format!("{name}.{service}:{client_port}")
            }
            _ => client_listen.clone(),
        };
        Ok(WhoAndWhere {
            operations: Some(format!("{host}:{}", self.operations_port.unwrap_or(7422))),
            folder: name.clone(),
            name,
            members,
            client_address,
            client_listen,
            peer_address,
            peer_listen,
        })
    }

    fn read_member(&self, text: &str) -> Result<Member, ConfigError> {
        let (name, peer_address) = match (self.discovery, &self.service, text.split_once('=')) {
            (DiscoveryKind::Dns, None, _) => {
                return Err(ConfigError(
                    "--discovery dns needs --service, the domain of the nodes' names".into(),
                ));
            }
            (DiscoveryKind::Dns, Some(service), None) if !text.is_empty() => {
                (text, format!("{text}.{service}:{PEER_PORT}"))
            }
            (DiscoveryKind::Dns, Some(_), _) => {
                return Err(ConfigError(format!(
                    "--members: `{text}` must be a name alone, since --discovery dns says where it is"
                )));
            }
            (DiscoveryKind::Static, _, Some((name, address)))
                if !name.is_empty() && address.contains(':') =>
            {
                (name, address.to_owned())
            }
            (DiscoveryKind::Static, _, _) => {
                return Err(ConfigError(format!("--members: `{text}` must be NAME=HOST:PORT")));
            }
        };
        Ok(Member { name: name.to_owned(), peer_address })
    }
}

/// Who a node is, and where.
struct WhoAndWhere {
    name: String,
    members: Vec<Member>,
    client_listen: String,
    client_address: String,
    peer_address: String,
    peer_listen: String,
    operations: Option<String>,
    folder: String,
}

fn read_cluster_id(text: &str) -> Result<u128, String> {
    let id = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten().filter(|id| *id != 0);
    id.ok_or_else(|| "it must be 32 hexadecimal digits, not all zero".into())
}

/// The command by which this process was started.
///
/// # Errors
/// What the system says if the program cannot be found any more.
pub(crate) fn own_command() -> std::io::Result<std::process::Command> {
    let (program, arguments) = (std::env::current_exe()?, std::env::args_os().skip(1));
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// What the environment says, if that is not empty.
fn of_environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the environment")]
    let told = std::env::var(name);
    told.ok().filter(|text| !text.is_empty())
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
    fn an_address_of_ipv6_in_the_file_is_one() {
        let (_dir, path) = file(
            r#"{"addresses": [{"ip": "::1", "port": 8001, "internal_port": 9001},
                             {"ip": "fd00::2", "port": 8002, "internal_port": 9002}]}"#,
        );
        let config =
            resolve(&["--config", &path, "--index", "0", "--operations-port", "7422"]).expect("it is valid");
        let members: Vec<&str> = config.members.iter().map(|member| member.peer_address.as_str()).collect();
        assert_eq!(members, ["[::1]:9001", "[fd00::2]:9002"]);
        let listens = [&config.client_listen, &config.peer_listen, &config.client_address];
        assert_eq!(listens, ["[::1]:8001", "[::1]:9001", "[::1]:8001"]);
        assert_eq!(config.operations_listen.as_deref(), Some("[::1]:7422"));
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
            (vec!["--name", "a"], "say who this node is"),
            (vec!["--name", "a", "--members", "b=h:1"], "not among"),
            (vec!["--name", "a", "--members", "b=h:1", "--bootstrap", "join"], "--peer-listen"),
            (vec!["--name", "a", "--members", "a", "--discovery", "dns"], "needs --service"),
            (
                vec!["--name", "a", "--members", "a=h:1", "--discovery", "dns", "--service", "s"],
                "a name alone",
            ),
            (vec!["--config", good.as_str(), "--index", "0", "--discovery", "dns"], "cannot be used with"),
            (vec!["--name", "a", "--members", "a=h:1", "--cluster-id", "12"], "32 hexadecimal digits"),
            (vec!["--name", "a", "--members", "a"], "NAME=HOST:PORT"),
            (vec!["--name", "a", "--members", "a=h:1,a=h:2"], "every name must differ"),
            (vec!["--config", good.as_str(), "--index", "0", "--election-timeout-ms", "1"], "50..=60000"),
            (vec!["--config", good.as_str(), "--index", "0", "--client-bytes-max", "1000"], "at least"),
        ] {
            let error = resolve(&args).unwrap_err();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }

    #[test]
    fn the_largest_call_fits_the_budget_whatever_the_limits_are() {
        let (_dir, path) = file(r#"{"addresses": [{"ip": "a", "port": 1, "internal_port": 2}]}"#);
        for body_bytes_max in ["1", "1048576", "16777216"] {
            let flags = ["--config", &path, "--index", "0", "--body-bytes-max", body_bytes_max];
            let config = resolve(&flags).unwrap();
            let budget = budget::Budget::new(config.client_bytes_max);
            for share in budget::Share::ALL {
                drop(budget.charge(share, config.limits.call_bytes_max()).expect("it fits"));
            }
            let flags = [flags.as_slice(), &["--client-bytes-max", "1000000000"]].concat();
            assert_eq!(resolve(&flags).unwrap().client_bytes_max, 1_000_000_000);
        }
    }

    #[test]
    fn by_dns_a_name_is_enough() {
        let base =
            ["--discovery", "dns", "--service", "demo-headless.default.svc", "--members", "demo-0,demo-1"];
        let config = resolve(&[base.as_slice(), &["--name", "demo-1"]].concat()).unwrap();
        assert_eq!(config.client_address, "demo-1.demo-headless.default.svc:7420");
        assert_eq!(config.members[0].peer_address, "demo-0.demo-headless.default.svc:7421");
        assert_eq!(
            (config.client_listen.as_str(), config.peer_listen.as_str(), config.operations_listen.as_deref()),
            ("[::]:7420", "[::]:7421", Some("[::]:7422"))
        );
        assert_eq!((config.bootstrap, config.cluster_id), (Bootstrap::Form, None));
        let id = "00000000000000000000000000000abc";
        let joins = ["--name", "demo-2", "--bootstrap", "join", "--cluster-id", id];
        let config = resolve(&[base.as_slice(), &joins].concat()).unwrap();
        assert_eq!(
            (config.bootstrap, config.cluster_id, config.members.len()),
            (Bootstrap::Join, Some(0xabc), 2)
        );
    }
}
