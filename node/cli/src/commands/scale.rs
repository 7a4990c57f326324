//! `raftq scale`: more or fewer nodes for the cluster of a running `raftq up`, while it works.
//!
//! `up` starts and stops processes; who is a member is changed by the same calls as `raftq members` makes. What to do next is
//! decided anew from what is there ([`plan`]), so that whatever ends this program, the next one goes on where it ended.

mod plan;

use super::up::{Link, Request, Wanted, base_ports};
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use plan::{Known, Step, name};
use raftqueue_client::{Client, v1};
use serde_json::json;
use std::time::{Duration, Instant};

/// How often the cluster is looked at while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often what is waited for is said.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// So long nothing may go on before this program gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Gives the cluster of a running `raftq up` more nodes or fewer.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  raftq scale 5
  raftq scale 3
  raftq scale 5 --base-port 8420      for `raftq up --base-port 8420`

Nodes come and go by two, so that their number stays odd. A new one begins with a blank disk and gets the log; once it has
everything it votes. The last nodes go first: a leader among them hands over, and each is stopped once the others do without
it. Its folder stays, and is set aside as node-I.removed when a node of that number starts again. A node whose folder was lost
waits under its name: it gets the log, and takes its old place.

Whatever ends this command, run it again: it goes on where it ended.")]
pub(crate) struct Scale {
    /// How many nodes: 1, 3, 5, 7 or 9
    #[arg(value_parser = super::up::nodes)]
    nodes: u16,
    /// First port of the cluster, as `raftq up` was told [default: that of the endpoints, or 7420]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..=65_400))]
    base_port: Option<u16>,
}

/// What has been said of what is waited for.
struct Waiting {
    /// What the cluster was like when something went on last, and when that was.
    last: Option<((u64, usize, u64), Instant)>,
    said: Option<Instant>,
}

impl Scale {
    pub(super) async fn run(self, client: &Client, are_told: bool, output: &Output) -> Result<(), Failure> {
        let (timeout, told) = (client.timeout(), if are_told { client.endpoints() } else { &[] });
        let mut up = Link::connect(&base_ports(self.base_port, told)?).await?;
        let mut rows = up.ask(&Request::Run(Wanted { nodes: None, blank: Vec::new() })).await?;
        // The first nodes stay, whatever is asked for.
        let endpoints = rows.iter().map(|row| row.endpoint.clone());
        let client = Client::connect(endpoints).map_err(|error| Failure::Failed(error.to_string()))?;
        let client = client.with_timeout(timeout);
        let mut known = Known::default();
        let mut waiting = Waiting { last: None, said: None };
        loop {
            let members = match client.members(v1::MembersRequest {}).await {
                Ok(members) => members,
                Err(error) => {
                    waiting.wait((0, rows.len(), 0), &error.text, output).await?;
                    continue;
                }
            };
            let learners = members.members.iter().filter(|member| member.standing == "learner");
            let mark =
                (members.configuration_index, rows.len(), learners.map(|learner| learner.matched).sum());
            let before = u16::try_from(rows.len()).unwrap_or(u16::MAX);
            known.running = before;
            match plan::next(self.nodes, &members, &known).map_err(Failure::Failed)? {
                Step::Wait(why) => waiting.wait(mark, &why, output).await?,
                Step::Run { nodes, blank } => {
                    let wanted = Wanted { nodes: Some(nodes), blank: blank.clone() };
                    rows = up.ask(&Request::Run(wanted)).await?;
                    if nodes < before {
                        say("stop", &(nodes..before).rev().collect::<Vec<_>>(), same("stopped"), output)?;
                    } else {
                        let new: Vec<u16> =
                            if blank.is_empty() { (before..nodes).collect() } else { blank.clone() };
                        say("start", &new, same("started"), output)?;
                    }
                    let waited = members.waiting.iter();
                    let is_anew =
                        |node: &&v1::WaitingNode| blank.iter().any(|number| name(*number) == node.name);
                    known.gone.extend(waited.filter(is_anew).map(|node| node.id.clone()));
                    known.started.extend(blank);
                }
                Step::Add(nodes) => {
                    let request = v1::AddLearnerRequest {
                        nodes: ids(&nodes),
                        configuration_index: Some(members.configuration_index),
                        dry: false,
                    };
                    match client.add_learner(request).await {
                        Ok(_) => say(
                            "add",
                            &numbers(&nodes),
                            ("a learner now, and gets the log", "learners now, and get the log"),
                            output,
                        )?,
                        Err(error) => waiting.wait(mark, &error.text, output).await?,
                    }
                }
                Step::Promote(nodes) => {
                    let request = v1::PromoteRequest {
                        nodes: ids(&nodes),
                        configuration_index: Some(members.configuration_index),
                        dry: false,
                    };
                    match client.promote(request).await {
                        Ok(_) => say("promote", &numbers(&nodes), ("a voter now", "voters now"), output)?,
                        Err(error) => waiting.wait(mark, &error.text, output).await?,
                    }
                }
                Step::Replace { number, old, new } => {
                    let request = v1::ReplaceRequest {
                        old,
                        new,
                        configuration_index: Some(members.configuration_index),
                        dry: false,
                        force: false,
                    };
                    match client.replace(request).await {
                        Ok(_) => say("replace", &[number], same("a voter again, with a new disk"), output)?,
                        Err(error) => waiting.wait(mark, &error.text, output).await?,
                    }
                }
                Step::Remove(nodes) => {
                    let request = v1::RemoveRequest {
                        nodes: ids(&nodes),
                        configuration_index: Some(members.configuration_index),
                        dry: false,
                        force: false,
                    };
                    match client.remove(request).await {
                        Ok(_) => say(
                            "remove",
                            &numbers(&nodes),
                            ("a member no longer", "members no longer"),
                            output,
                        )?,
                        Err(error) => waiting.wait(mark, &error.text, output).await?,
                    }
                }
                // It may have just become a voter, or be on its way back.
                Step::Done { unwell, .. } if !unwell.is_empty() => {
                    let why = format!("all voters to be well: {}", unwell.join(", "));
                    waiting.wait(mark, &why, output).await?;
                }
                Step::Done { leader, .. } => {
                    let voters = self.nodes;
                    let (what, verb) = if voters == 1 { ("voter", "is") } else { ("voters", "are") };
                    let sentence = format!("done: there {verb} {voters} {what}, and {leader} leads");
                    return output
                        .say(&sentence, &json!({"step": "done", "voters": voters, "leader": leader}));
                }
            }
        }
    }
}

impl Waiting {
    /// Waits a little, and says for what, now and then.
    async fn wait(&mut self, mark: (u64, usize, u64), why: &str, output: &Output) -> Result<(), Failure> {
        let now = Instant::now();
        let since = match self.last {
            Some((last, since)) if last == mark => since,
            _ => {
                self.said = None;
                self.last.insert((mark, now)).1
            }
        };
        if now - since > PATIENCE {
            let limit = PATIENCE.as_secs();
            return Err(Failure::Failed(format!(
                "nothing went on for {limit} s: {why}; run this again to go on from here"
            )));
        }
        if self.said.is_none_or(|said| now - said >= SAY_EVERY) {
            // What takes but a moment is not worth a line.
            if self.said.is_some() {
                output.say(&format!("waiting: {why}"), &json!({"step": "wait", "why": why}))?;
            }
            self.said = Some(now);
        }
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(())
    }
}

/// What is said of one node and of several alike.
fn same(what: &'static str) -> (&'static str, &'static str) {
    (what, what)
}

/// `what` is said of one node, and of several.
fn say(step: &str, nodes: &[u16], what: (&str, &str), output: &Output) -> Result<(), Failure> {
    let names: Vec<String> = nodes.iter().map(|node| name(*node)).collect();
    let (verb, what) = if names.len() == 1 { ("is", what.0) } else { ("are", what.1) };
    output.say(&format!("{} {verb} {what}", names.join(", ")), &json!({"step": step, "nodes": names}))
}

fn ids(nodes: &[(u16, String)]) -> Vec<String> {
    nodes.iter().map(|(_, id)| id.clone()).collect()
}

fn numbers(nodes: &[(u16, String)]) -> Vec<u16> {
    nodes.iter().map(|(number, _)| *number).collect()
}
