//! `raftq`: RaftQueue from the command line.
//!
//! [`commands`] has one module for each command: its arguments, its help, and what it does. [`output`] decides how
//! results look; [`endpoints`] reads where nodes are and [`credentials`] what is shown to them, [`contexts`] has both by names, [`kube`]
//! reaches nodes in Kubernetes; [`failure`] decides what is said and which code is returned if a command fails. A command knows a cluster only through `raftqueue-client`.

mod commands;
mod contexts;
mod credentials;
mod endpoints;
mod failure;
mod kube;
mod output;
mod signals;
mod text;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use commands::Command;
use commands::context::Said;
use contexts::Way;
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
  130  ended by Ctrl-C: what was begun is done or given back

Output:
  On a terminal results are tables. Piped, they are plain: values separated by \
tabs, one result a line, no header, and received messages as their raw bodies, one \
a line. --output table and --output json (one object a line) give that form \
everywhere.

Durations are 500ms, 30s, 5m, 12h, 7d or 1h30m; a number alone counts seconds.

Contexts:
  An option counts before its variable, and that before the context (raftq \
context). The context in use counts where nobody says where nodes are, so that \
what it shows goes to its own cluster alone; one that --context names counts for \
whatever else is not said.";

/// Stands over what every command takes, below what is its own.
const GLOBAL: &str = "Global options";

/// Talks to a RaftQueue cluster: topics, messages, and the cluster itself.
#[derive(Parser)]
#[command(name = "raftq", version, after_help = EXIT_CODES, propagate_version = true, max_term_width = 80)]
struct Arguments {
    /// Nodes to talk to, any of the cluster, separated by commas; port 7420 where none is said. The default is where `raftq up`
    /// starts them; in a pod of a cluster that is its own node [default: 127.0.0.1:7420,127.0.0.1:7430,127.0.0.1:7440]
    #[arg(long, global = true, help_heading = GLOBAL, env = "RAFTQ_ENDPOINTS", value_delimiter = ',', value_name = "HOST[:PORT]")]
    endpoints: Vec<String>,
    /// A RaftQueue in Kubernetes whose nodes to talk to, instead of --endpoints. kubectl opens the ports, with its kubeconfig. Called
    /// by the name kubectl-raftq this program is `kubectl raftq [-n NAMESPACE] NAME COMMAND`
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "[NAMESPACE/]NAME")]
    kube: Option<String>,
    /// The context to take endpoints and files from, where no option and no variable says them [default: the one in use, where no
    /// endpoints are said]
    #[arg(long, global = true, help_heading = GLOBAL, env = "RAFTQ_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    #[command(flatten)]
    credentials: credentials::CredentialsArgs,
    /// How long a call may take, with its repeats
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "DURATION", default_value = "5s", value_parser = text::parse_positive_duration)]
    timeout: Duration,
    /// How results look [default: table on a terminal, plain otherwise]
    #[arg(long, short, global = true, help_heading = GLOBAL, value_enum)]
    output: Option<Format>,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let typed = Arguments::command().get_matches_from(kube::words(std::env::args_os()));
    let arguments = Arguments::from_arg_matches(&typed)
        .unwrap_or_else(|error| error.format(&mut Arguments::command()).exit());
    match arguments.command {
        // A node has a runtime of its own, with its own settings.
        Command::Node(node) => node.run(),
        _ => run(arguments, &typed),
    }
}

#[tokio::main]
async fn run(arguments: Arguments, typed: &ArgMatches) -> ExitCode {
    let output = Output::new(arguments.output);
    // An empty variable is none.
    let named = arguments.context.as_deref().filter(|name| !name.is_empty());
    let is_typed = |option: &str| typed.value_source(option) == Some(ValueSource::CommandLine);
    if let Command::Context(command) = arguments.command {
        let typed = arguments.credentials.typed(arguments.endpoints, is_typed);
        let said = Said { typed, context: named, kube: arguments.kube.as_deref() };
        return match command.run(said, &output) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(),
        };
    }
    // The ports are open until the command is done.
    let forwards = match arguments.kube.as_deref().map(kube::reach).transpose() {
        Ok(forwards) => forwards,
        Err(failure) => return failure.report(),
    };
    let told = match &forwards {
        Some(forwards) => Ok(forwards.endpoints.clone()),
        None => endpoints::read(&arguments.endpoints),
    };
    let told = match told {
        Ok(told) => told,
        Err(failure) => return failure.report(),
    };
    if let Some(name) = named
        && !told.is_empty()
        && forwards.is_none()
        && !is_typed("endpoints")
    {
        eprintln!("warning: RAFTQ_ENDPOINTS counts before the endpoints of the context {name}");
    }
    let given = Way { endpoints: told, credentials: arguments.credentials.read() };
    let way = contexts::complete(given, forwards.is_some(), named);
    let are_told = way.as_ref().is_ok_and(|way| !way.endpoints.is_empty());
    let connect = || {
        // Told only to commands that need a cluster.
        let Way { mut endpoints, credentials } = way?;
        if endpoints.is_empty() {
            endpoints = ENDPOINTS_DEFAULT.map(str::to_owned).to_vec();
        }
        let client = Client::connect_with(endpoints, credentials)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(client.with_timeout(arguments.timeout).without_waiting_for_nodes())
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

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    /// Every command that people see, with its help as it looks when it is piped.
    fn all_helps() -> Vec<(String, String)> {
        fn walk(command: &mut clap::Command, path: &str, helps: &mut Vec<(String, String)>) {
            let path = format!("{path} {}", command.get_name());
            helps.push((path.clone(), command.render_long_help().to_string()));
            helps.push((format!("{path} (short)"), command.render_help().to_string()));
            let shown = |inner: &&mut clap::Command| !inner.is_hide_set() && inner.get_name() != "help";
            for inner in command.get_subcommands_mut().filter(shown) {
                walk(inner, &path, helps);
            }
        }
        let mut command = Arguments::command();
        command.build();
        let mut helps = Vec::new();
        walk(&mut command, "", &mut helps);
        helps
    }

    #[test]
    fn help_fits_a_terminal_of_80_columns_and_is_not_broken_twice() {
        for (path, help) in all_helps() {
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{path}: {line}");
            }
        }
    }

    #[test]
    fn what_every_command_takes_stands_behind_what_is_its_own() {
        for (path, help) in all_helps() {
            let heading = help.find("\nGlobal options:\n").unwrap_or_else(|| panic!("{path} has none"));
            let own = help.find("\nOptions:\n").unwrap_or_else(|| panic!("{path} has none of its own"));
            assert!(own < heading, "{path}");
            for option in ["--endpoints", "--kube", "--context", "--timeout", "--output"] {
                let at = help.find(&format!("{option} <")).unwrap_or_else(|| panic!("{path}: {option}"));
                assert!(at > heading, "{path}: {option}");
            }
        }
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
