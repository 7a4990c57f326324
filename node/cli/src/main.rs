//! `raftq`: RaftQueue from the command line.
//!
//! [`commands`] has one module for each command: its arguments, its help, and what it does. [`output`] decides how
//! results look; [`kube`] reaches nodes in Kubernetes; [`failure`] decides what is said and which code is returned if a
//! command fails. A command knows a cluster only through `raftqueue-client`.

mod commands;
mod failure;
mod kube;
mod output;
mod text;

use clap::Parser;
use commands::Command;
use failure::Failure;
use output::{Format, Output};
use raftqueue_client::Client;
use std::process::ExitCode;
use std::time::Duration;

/// Every thread allocates and frees messages of many sizes. With this allocator that takes about a tenth less time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where nodes are looked for if nobody says where they are: where `raftq up` starts them. Some of them may be missing.
const ENDPOINTS_DEFAULT: [&str; 3] = ["127.0.0.1:7420", "127.0.0.1:7430", "127.0.0.1:7440"];

/// Said below the help of every command.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused or failed: nothing was done, or the message says how much was
  2  wrong usage
  3  nothing there: no message to receive or to look at
  4  no answer: it may have been done, or may still be

Output:
  On a terminal results are tables. Piped, they are plain: values separated by tabs, one result a line, no header, and
  received messages as their raw bodies, one a line. --output table and --output json (one object a line) give that
  form everywhere.";

/// Talks to a RaftQueue cluster: topics, messages, and the cluster itself.
#[derive(Parser)]
#[command(name = "raftq", version, after_help = EXIT_CODES, propagate_version = true, max_term_width = 110)]
struct Arguments {
    /// Nodes to talk to, any of the cluster, separated by commas. The default is where `raftq up` starts them; in a pod
    /// of a cluster that is its own node [default: 127.0.0.1:7420,127.0.0.1:7430,127.0.0.1:7440]
    #[arg(long, global = true, env = "RAFTQ_ENDPOINTS", value_delimiter = ',', value_name = "HOST:PORT")]
    endpoints: Vec<String>,
    /// A RaftQueue in Kubernetes whose nodes to talk to, instead of --endpoints. kubectl opens the ports, with its kubeconfig. Called
    /// by the name kubectl-raftq this program is `kubectl raftq [-n NAMESPACE] NAME COMMAND`
    #[arg(long, global = true, value_name = "[NAMESPACE/]NAME")]
    kube: Option<String>,
    /// How long a call may take, with its repeats
    #[arg(long, global = true, value_name = "DURATION", default_value = "5s", value_parser = text::parse_positive_duration)]
    timeout: Duration,
    /// How results look [default: table on a terminal, plain otherwise]
    #[arg(long, short, global = true, value_enum)]
    output: Option<Format>,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(kube::words(std::env::args_os()));
    match arguments.command {
        // A node has a runtime of its own, with its own settings.
        Command::Node(node) => node.run(),
        _ => run(arguments),
    }
}

#[tokio::main]
async fn run(arguments: Arguments) -> ExitCode {
    let output = Output::new(arguments.output);
    // The ports are open until the command is done.
    let forwards = match arguments.kube.as_deref().map(kube::reach).transpose() {
        Ok(forwards) => forwards,
        Err(failure) => return failure.report(),
    };
    let told = forwards.as_ref().map_or(arguments.endpoints, |forwards| forwards.endpoints.clone());
    let are_told = !told.is_empty();
    let endpoints = if are_told { told } else { ENDPOINTS_DEFAULT.map(str::to_owned).to_vec() };
    let connect = || {
        let client = Client::connect(endpoints).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(client.with_timeout(arguments.timeout))
    };
    let done = commands::run(arguments.command, connect, are_told, &output).await;
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} says what it does");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} explains {}", argument.get_id());
            }
            if command.has_subcommands() {
                command
                    .get_subcommands()
                    .filter(|command| command.get_name() != "help")
                    .for_each(|inner| check(inner, &path));
            } else {
                let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(example.contains("raftq "), "{path} has an example");
            }
        }
        // `raftq up` calls the hidden commands, not people.
        let shown = Arguments::command();
        shown
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .for_each(|command| check(command, "raftq"));
    }
}
