//! `raftq recover`: the node that is left of a lost quorum goes on alone.
//!
//! Every endpoint is asked what that node knows; the one that has most comes first. What is to be done is confirmed by the token
//! that the node shows, which fits only what it is at that moment.

use crate::failure::{Failure, beside};
use crate::output::{Format, Output, Table};
use clap::Args;
use raftqueue_client::{Client, Outcome, v1};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const COLUMNS: [&str; 9] =
    ["NODE", "ID", "GENERATION", "LAST TERM", "LAST", "COMMIT", "APPLIED", "TOKEN", "NOTE"];
/// How long the node may take to be there again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Lets the node that is left of a lost quorum go on alone.
#[derive(Args, Debug)]
#[command(after_help = "\
Only for a cluster of which a majority of the voters is gone for good. What \
they acknowledged and no surviving node has is lost. As long as one of them \
may come back with its disk, start it instead.

  raftq recover                              every node that answers says what it knows; nothing is done
  raftq recover raftqueue-2 --token 5d1c...  that node goes on as the only voter, in the next generation
  raftq members list                         blank nodes that were started wait there
  raftq members add raftqueue-0 raftqueue-1
  raftq members promote raftqueue-0 raftqueue-1

Where several nodes survive, take the one with the greatest LAST TERM, and \
among those the greatest LAST: it is listed first. All others, the old disks \
that come back included, are of an older generation: they are refused, and \
have to be cleared so that they join as new nodes. Message ids, leases and \
sessions that only the lost part knew are answered as GONE or expired.

The token fits only what the node was when it showed it: its log, its members, \
its generation. On a terminal it is asked for.")]
pub(crate) struct Recover {
    /// The node that goes on, by name, id or endpoint [default: the only one that can]
    node: Option<String>,
    /// The token that the node has shown
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Go on also with a learner, or with a node that lacks messages
    #[arg(long)]
    force: bool,
}

/// A node, and what it says.
struct Survivor {
    endpoint: String,
    said: Result<v1::RecoverResponse, String>,
}

impl Survivor {
    fn is(&self, text: &str) -> bool {
        let is_it = |said: &v1::RecoverResponse| said.name == text || said.node_id == text;
        self.endpoint == text || self.said.as_ref().is_ok_and(is_it)
    }
}

impl Recover {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let mut all = ask(client).await;
        if let Some(node) = &self.node {
            all.retain(|survivor| survivor.is(node));
            if all.is_empty() {
                return Err(Failure::Failed(format!(
                    "no node `{node}` with the log of a cluster answers at the endpoints that were given"
                )));
            }
        }
        show(&all, output)?;
        let mut able = all.iter().filter_map(|survivor| {
            let said = survivor.said.as_ref().ok().filter(|said| said.refusal.is_empty())?;
            Some((survivor.endpoint.as_str(), said))
        });
        let (endpoint, said) = match (able.next(), able.next()) {
            (Some(one), None) => one,
            (Some(_), Some(_)) if self.token.is_none() => {
                return say_nothing_was_done(
                    "several nodes could go on: name one, the first has most",
                    output,
                );
            }
            (Some(_), Some(_)) => {
                let text = "several nodes could go on: name the one that is to; nothing was done";
                return Err(Failure::Usage(text.into()));
            }
            (None, _) => return Err(Failure::Failed(why_nobody(&all))),
        };
        if output.format == Format::Table {
            said.costs.iter().for_each(|cost| eprintln!("- {cost}"));
        }
        if !said.caution.is_empty() && !self.force {
            let text = format!("{} goes on only with --force: {}", said.name, said.caution);
            return Err(Failure::Failed(text));
        }
        let token = if self.token.is_some() { self.token } else { asked_token(said)? };
        let Some(token) = token else {
            let command = format!("raftq recover {} --token {}", said.name, said.token);
            return say_nothing_was_done(&format!("to go on with it: {command}"), output);
        };
        let request = v1::RecoverRequest { token: Some(token.trim().to_owned()), force: self.force };
        let decided = match client.recover(endpoint, request).await {
            Ok(decided) => decided,
            // The node may have stopped before its answer was out: then it is there in the next generation.
            Err(error) if error.outcome == Outcome::Unknown => said.clone(),
            Err(error) => return Err(error.into()),
        };
        let status = wait(client, endpoint, decided.generation + 1).await?;
        let sentence = format!(
            "{} leads alone in generation {} and term {}: start the other nodes with blank disks, then `raftq members list`, \
             `raftq members add` and `raftq members promote` (or `raftq scale` for a running `up`)",
            status.name, status.generation, status.term
        );
        output.say(
            &sentence,
            &json!({"node": status.name, "node_id": status.node_id, "generation": status.generation, "term": status.term}),
        )
    }
}

fn say_nothing_was_done(what: &str, output: &Output) -> Result<(), Failure> {
    output.say(&format!("nothing was done; {what}"), &json!({"done": false, "text": what}))
}

fn why_nobody(all: &[Survivor]) -> String {
    let whys: Vec<String> = all
        .iter()
        .map(|Survivor { endpoint, said }| match said {
            Ok(said) => format!("{}: {}", said.name, said.refusal),
            Err(error) => format!("{endpoint}: {}", beside(endpoint, error)),
        })
        .collect();
    format!("no node can go on alone ({})", whys.join("; "))
}

/// What every endpoint says, that of the node that has most first.
async fn ask(client: &Client) -> Vec<Survivor> {
    let mut asking = JoinSet::new();
    for endpoint in client.endpoints().to_vec() {
        let client = client.clone();
        asking.spawn(async move {
            let said = client.recover(&endpoint, v1::RecoverRequest::default()).await;
            Survivor { endpoint, said: said.map_err(|error| error.text) }
        });
    }
    let mut all = asking.join_all().await;
    all.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    all.sort_by_key(|survivor| {
        // Of those that have as much the one comes first that need not be forced.
        let has = |s: &v1::RecoverResponse| {
            (s.refusal.is_empty(), s.generation, s.last_term, s.last, s.caution.is_empty())
        };
        Reverse(survivor.said.as_ref().ok().map(has))
    });
    all
}

fn show(all: &[Survivor], output: &Output) -> Result<(), Failure> {
    let mut table = Table::new(&COLUMNS);
    for Survivor { endpoint, said } in all {
        match said {
            Ok(said) => table.add(cells(said), to_json(endpoint, said)),
            Err(error) => {
                let error = beside(endpoint, error);
                let mut cells = COLUMNS.map(|_| String::from("-")).to_vec();
                cells[0].clone_from(endpoint);
                error.clone_into(&mut cells[COLUMNS.len() - 1]);
                table.add(cells, json!({"endpoint": endpoint, "error": error}));
            }
        }
    }
    output.print(&table)
}

fn cells(said: &v1::RecoverResponse) -> Vec<String> {
    let note = match (said.refusal.as_str(), said.caution.as_str()) {
        ("", "") => "can go on".to_owned(),
        ("", caution) => format!("only with --force: {caution}"),
        (refusal, _) => format!("cannot: {refusal}"),
    };
    let token = if said.token.is_empty() { "-".to_owned() } else { said.token.clone() };
    let numbers = [said.generation.into(), said.last_term, said.last, said.commit, said.applied];
    let numbers = numbers.map(|number: u64| number.to_string());
    [said.name.clone(), said.node_id.clone()].into_iter().chain(numbers).chain([token, note]).collect()
}

fn to_json(endpoint: &str, said: &v1::RecoverResponse) -> Value {
    let member = |member: &v1::RecoveryMember| {
        json!({"node": member.name, "node_id": member.id, "address": member.address, "standing": member.standing,
            "own": member.own, "heard": member.heard})
    };
    json!({
        "endpoint": endpoint, "node": said.name, "node_id": said.node_id, "cluster_id": said.cluster_id,
        "generation": said.generation, "term": said.term, "last": said.last, "last_term": said.last_term,
        "commit": said.commit, "applied": said.applied, "configuration_index": said.configuration_index,
        "joint": said.joint, "complete": said.complete, "intact": said.intact,
        "members": said.members.iter().map(member).collect::<Vec<_>>(), "costs": said.costs,
        "refusal": said.refusal, "caution": said.caution, "token": said.token,
    })
}

/// The token as a person types it; nothing where nobody is there.
fn asked_token(said: &v1::RecoverResponse) -> Result<Option<String>, Failure> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    eprint!("It cannot be undone. To let {} go on alone, type its token: ", said.name);
    io::stderr().flush()?;
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    let typed = typed.trim();
    if typed.is_empty() {
        Err(Failure::Failed("nothing was done".into()))
    } else {
        Ok(Some(typed.to_owned()))
    }
}

/// Waits until the node leads in that generation.
async fn wait(client: &Client, endpoint: &str, generation: u32) -> Result<v1::StatusResponse, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = client.status(endpoint).await;
        match status {
            Ok(status) if status.generation == generation && status.role == i32::from(v1::Role::Leader) => {
                return Ok(status);
            }
            other if Instant::now() >= until => {
                let what = match other {
                    Ok(status) => {
                        format!("it is of generation {}; {}", status.generation, status.not_ready_reason)
                    }
                    Err(error) => beside(endpoint, &error.text).to_owned(),
                };
                let text = format!("{endpoint} does not lead in generation {generation} yet: {what}");
                return Err(Failure::unknown(text));
            }
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
