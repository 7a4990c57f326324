//! What some flags choose from.

use clap::ValueEnum;

/// How a node finds the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DiscoveryKind {
    /// Every address is given.
    Static,
    /// By names under one domain.
    Dns,
}

/// What a node with a blank disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bootstrap {
    /// Take part in forming a cluster.
    Form,
    /// Wait to be added to the one that exists.
    Join,
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
