//! The commands, one module each.

mod auth;
mod bench;
mod cluster;
mod completions;
pub(crate) mod context;
mod dead;
mod deliveries;
mod kill;
mod lines;
mod members;
mod node;
mod peek;
mod peers;
mod publish;
mod purge;
mod receive;
mod recover;
mod scale;
mod settle;
mod storage;
mod suggest;
mod topic;
mod unbind;
mod up;
mod wal;

use crate::failure::Failure;
use crate::output::Output;
use clap::{Args, Subcommand};
use raftqueue_client::Client;
use std::io::{self, BufRead, IsTerminal, Write};

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start a cluster on this machine and run it until Ctrl-C
    Up(up::Up),
    /// Run one node of a cluster that `up` started
    #[command(hide = true)]
    Node(Box<node::Node>),
    /// Make, change, list, describe and delete topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Publish messages: arguments, or lines of standard input or of a file
    Publish(publish::Publish),
    /// Receive messages, each leased to you until it is acknowledged
    Receive(receive::Receive),
    /// Acknowledge received messages: they are done with
    Ack(settle::Ack),
    /// Return received messages as failed attempts
    Nack(settle::Nack),
    /// Keep received messages for longer
    Extend(settle::Extend),
    /// Give back received messages on which no work was started
    Release(settle::Release),
    /// Look at messages without taking them
    Peek(peek::Peek),
    /// Show, redrive and drop messages that were given up
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Drop every message that waits in a topic
    Purge(purge::Purge),
    /// Show every node's own view, and the cluster as its leader sees it
    Status(cluster::Status),
    /// Hand leadership to another node
    Transfer(cluster::Transfer),
    /// Give the cluster of a running `raftq up` more nodes or fewer
    Scale(scale::Scale),
    /// Kill a node of a running `raftq up`, as a crash would
    Kill(kill::Kill),
    /// List, add, promote, remove and replace members
    #[command(subcommand)]
    Members(members::MembersCommand),
    /// Let the node that is left of a lost quorum go on alone
    Recover(recover::Recover),
    /// Make tokens, and check and ask what callers may do
    #[command(subcommand)]
    Auth(auth::AuthCommand),
    /// Keep clusters by names: where they are, and what is shown to them
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Measure how fast a cluster or a disk is
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Look into a node's log on disk
    #[command(subcommand)]
    Wal(wal::WalCommand),
    /// Free a node from a cluster that was never formed
    Unbind(unbind::Unbind),
    /// Print a script by which a shell completes these commands
    Completions(completions::Completions),
}

/// Which messages: a topic, and a subscription of it.
#[derive(Args, Clone)]
pub(crate) struct Target {
    /// The topic
    topic: String,
    /// The subscription. Not shown: as long as every topic has only the default one it leads nowhere
    #[arg(long, value_name = "NAME", default_value = "", hide = true)]
    subscription: String,
}

impl Command {
    /// The topic that it is about, if it is about one that must be there.
    fn topic(&self) -> Option<&str> {
        match self {
            Command::Topic(command) => command.existing(),
            Command::Publish(command) => Some(command.topic()),
            Command::Receive(command) => Some(command.topic()),
            Command::Ack(command) => Some(command.topic()),
            Command::Nack(command) => Some(command.topic()),
            Command::Extend(command) => Some(command.topic()),
            Command::Release(command) => Some(command.topic()),
            Command::Peek(command) => Some(command.topic()),
            Command::Dead(command) => Some(command.topic()),
            Command::Purge(command) => Some(command.topic()),
            _ => None,
        }
    }
}

/// Runs a command. If it fails because there is no such topic, it says which one may have been meant.
///
/// As [`run_as_typed`].
pub(crate) async fn run(
    command: Command,
    connect: impl FnOnce() -> Result<Client, Failure>,
    are_told: bool,
    output: &Output,
) -> Result<(), Failure> {
    let Some(topic) = command.topic().map(str::to_owned) else {
        return run_as_typed(command, connect, are_told, output).await;
    };
    let client = connect()?;
    let done = run_as_typed(command, || Ok(client.clone()), are_told, output).await;
    match done {
        Ok(()) => Ok(()),
        Err(failure) => Err(suggest::of_topic(&client, &topic, failure).await),
    }
}

/// Runs a command.
///
/// `connect` gives a client of the cluster; only commands that talk to a cluster call it. `are_told` says whether
/// somebody named its endpoints.
async fn run_as_typed(
    command: Command,
    connect: impl FnOnce() -> Result<Client, Failure>,
    are_told: bool,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        Command::Up(command) => command.run().await,
        Command::Node(_) => unreachable!("a node runs before there is a runtime"),
        Command::Context(_) => unreachable!("contexts are kept before a cluster is looked for"),
        Command::Unbind(command) => command.run(),
        Command::Completions(command) => command.run(output),
        Command::Topic(command) => command.run(&connect()?, output).await,
        Command::Publish(command) => command.run(&connect()?, output).await,
        Command::Receive(command) => command.run(&connect()?, output).await,
        Command::Ack(command) => command.run(&connect()?, output).await,
        Command::Nack(command) => command.run(&connect()?, output).await,
        Command::Extend(command) => command.run(&connect()?, output).await,
        Command::Release(command) => command.run(&connect()?, output).await,
        Command::Peek(command) => command.run(&connect()?, output).await,
        Command::Dead(command) => command.run(&connect()?, output).await,
        Command::Purge(command) => command.run(&connect()?, output).await,
        Command::Status(command) => command.run(&connect()?, are_told, output).await,
        Command::Transfer(command) => command.run(&connect()?, output).await,
        Command::Scale(command) => command.run(&connect()?, are_told, output).await,
        Command::Kill(command) => command.run(&connect()?, are_told, output).await,
        Command::Members(command) => command.run(&connect()?, output).await,
        Command::Recover(command) => command.run(&connect()?, output).await,
        Command::Auth(command) => command.run(connect, output).await,
        Command::Bench(command) => command.run(connect, output).await,
        Command::Wal(command) => command.run(output),
    }
}

/// Asks before something that cannot be undone. Where nobody can be asked, it must have been said before.
fn confirm(is_confirmed: bool, what: &str) -> Result<(), Failure> {
    if is_confirmed {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::Failed(format!(
            "{what} Nobody can be asked here, since standard input is no terminal: say --yes. Nothing was done"
        )));
    }
    eprint!("{what} It cannot be undone. Go on? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Failed("nothing was done".into())),
    }
}
