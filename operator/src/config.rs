//! The operator's settings: flags, and the only reader of the environment.

use clap::{Parser, ValueEnum};
use std::io::IsTerminal;
use std::net::SocketAddr;

/// Turns RaftQueue objects into running clusters of nodes, and keeps them that way.
///
/// It runs in Kubernetes, installed by `kubectl apply -k deploy`, and finds the API server by itself there. Elsewhere
/// it takes KUBECONFIG, for trying a change. Of all operators in a namespace only the one that holds the lease acts.
#[derive(Parser, Clone, Debug)]
#[command(name = "raftqueue-operator", version, after_help = AFTER_HELP)]
pub struct Config {
    /// Image of the nodes of a RaftQueue that names none. A cluster keeps the image it began with; changing this changes
    /// no cluster that exists.
    #[arg(long, value_name = "IMAGE", env = "RAFTQUEUE_NODE_IMAGE", default_value = DEFAULT_IMAGE)]
    pub node_image: String,

    /// Namespace whose RaftQueues are looked after. Default: all namespaces.
    #[arg(long, value_name = "NAMESPACE", env = "RAFTQUEUE_OPERATOR_WATCH_NAMESPACE")]
    pub watch_namespace: Option<String>,

    /// Namespace of the lease by which operators agree on who acts: its own.
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "RAFTQUEUE_OPERATOR_NAMESPACE",
        default_value = "raftqueue-system"
    )]
    pub namespace: String,

    /// Name of this operator among others: its pod. Default: the name of the machine.
    #[arg(long, value_name = "NAME", env = "RAFTQUEUE_OPERATOR_NAME")]
    pub name: Option<String>,

    /// Where /metrics, /livez and /readyz are served. By default at every address, of IPv6 and of IPv4.
    #[arg(long, value_name = "IP:PORT", env = "RAFTQUEUE_OPERATOR_LISTEN", default_value = "[::]:8080")]
    pub listen: SocketAddr,

    /// How many RaftQueues are looked at at the same time.
    #[arg(long, value_name = "COUNT", env = "RAFTQUEUE_OPERATOR_CONCURRENCY", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,

    /// How log lines look.
    #[arg(long, value_enum, env = "RAFTQUEUE_OPERATOR_LOG_FORMAT", default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,

    /// What is logged, as `level` or `target=level,...`.
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    pub log: String,
}

/// The image that goes with this version.
const DEFAULT_IMAGE: &str = concat!("raftqueue-node:", env!("CARGO_PKG_VERSION"));

const AFTER_HELP: &str = "\
Exit codes: 0 after SIGTERM or SIGINT; 1 where it cannot start; 2 for a wrong command line. One that loses the lease, as in
an outage of the API server, changes nothing until it holds it again.

See what it does: kubectl get raftqueues -A, kubectl describe raftqueue NAME, and the conditions in its status.";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Name of this operator among others.
    #[must_use]
    pub fn identity(&self) -> String {
        let of_machine = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let name = self.name.clone().or_else(of_machine).unwrap_or_default();
        match name.trim() {
            "" => format!("operator-{}", std::process::id()),
            name => name.to_owned(),
        }
    }

    /// Whether log lines are JSON.
    #[must_use]
    pub fn logs_json(&self) -> bool {
        match self.log_format {
            LogFormat::Auto => !std::io::stderr().is_terminal(),
            LogFormat::Human => false,
            LogFormat::Json => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed_and_teaches() {
        Config::command().debug_assert();
        let help = Config::command().render_long_help().to_string();
        for words in ["kubectl apply -k deploy", "[env: RAFTQUEUE_NODE_IMAGE", "Exit codes", "[::]:8080"] {
            assert!(help.contains(words), "{words}: {help}");
        }
    }

    #[test]
    fn the_default_image_is_that_of_this_version() {
        let config = Config::parse_from(["raftqueue-operator", "--name", "me"]);
        assert_eq!(config.node_image, "raftqueue-node:0.1.0");
        assert_eq!(config.identity(), "me");
    }
}
