//! `raftq members`: who is a member, and how that is changed.

use crate::failure::Failure;
use crate::output::{Format, Output, Table};
use clap::{Args, Subcommand};
use raftqueue_client::{Client, v1};
use serde_json::{Value, json};

/// What to do with members.
#[derive(Subcommand)]
#[command(after_help = "\
A node that is to join is started with --bootstrap join and the addresses of \
some members; it is listed as waiting. Then:

  raftq members list
  raftq members add raftqueue-3
  raftq members promote raftqueue-3

Nodes are named by name, or by id where two have one name. Each change is \
refused while another one is under way, and where the cluster would not be \
well after it; --dry only says so. --as-of INDEX refuses it where the members \
have changed since that index was in force, which `list` shows.

Exit code 0 says that the change is in force for good, 1 that nothing was \
done, 4 that nobody knows: list the members.")]
pub(crate) enum MembersCommand {
    /// List the members as the leader sees them, and the nodes that wait
    #[command(after_help = "Examples:
  raftq members list
  raftq members list -o json | jq -r 'select(.kind == \"waiting\").node'")]
    List,
    /// Make waiting nodes learners: they get the log, and do not vote
    #[command(after_help = "Examples:
  raftq members add raftqueue-3 raftqueue-4")]
    Add(Nodes),
    /// Make learners voters, once they have everything
    #[command(after_help = "Examples:
  raftq members promote raftqueue-3 raftqueue-4")]
    Promote(Nodes),
    /// Remove members; a leader hands over
    #[command(after_help = "Examples:
  raftq members remove raftqueue-4 --dry
  raftq members remove raftqueue-4")]
    Remove(Forced),
    /// Let the cluster use what only newer builds know; there is no way back to older ones
    #[command(after_help = "\
What the nodes write to their disks and to each other has the form of one version, which all of them know. A newer build of \
some nodes, or of all, changes nothing in it, so each can go back to the older build. Once all members run the newer build and \
you are content with it, raise the version: what needs it works from then on (such as `raftq topic update`, of version 2), and an \
older build is refused.

Examples:
  raftq members raise-version --dry
  raftq members raise-version")]
    RaiseVersion(RaiseVersion),
    /// Put a learner in the place of a voter, in one step
    #[command(after_help = "Examples:
  raftq members replace raftqueue-1 9f3c2a11d0e4b578")]
    Replace(Replace),
}

/// How a change is asked for.
#[derive(Args)]
pub(crate) struct How {
    /// Only say why it would be refused, if it would
    #[arg(long)]
    dry: bool,
    /// Refuse it if another configuration is in force than the one at this index
    #[arg(long, value_name = "INDEX")]
    as_of: Option<u64>,
}

/// One to three nodes.
#[derive(Args)]
pub(crate) struct Nodes {
    /// One to three nodes by name or id
    #[arg(required = true, num_args = 1..=3)]
    nodes: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// One to three nodes, whatever the others are like.
#[derive(Args)]
pub(crate) struct Forced {
    #[command(flatten)]
    nodes: Nodes,
    /// Remove them also if no quorum of the others is well
    #[arg(long)]
    force: bool,
}

/// A version, and how it is asked for.
#[derive(Args)]
pub(crate) struct RaiseVersion {
    /// The version that is to be in force [default: the newest that all members run]
    #[arg(value_name = "VERSION")]
    to: Option<u32>,
    #[command(flatten)]
    how: How,
}

/// A voter and a learner.
#[derive(Args)]
pub(crate) struct Replace {
    /// The voter that goes, by name or id
    old: String,
    /// The learner that takes its place, by name or id
    new: String,
    #[command(flatten)]
    how: How,
    /// Replace a voter that is well
    #[arg(long)]
    force: bool,
}

impl MembersCommand {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        match self {
            Self::List => list(client, output).await,
            Self::Add(Nodes { nodes, how }) => {
                let (configuration_index, dry) = (how.as_of, how.dry);
                let request = v1::AddLearnerRequest { nodes: nodes.clone(), configuration_index, dry };
                let answer = client.add_learner(request).await?;
                say(&answer, dry, &format!("{} will get the log", nodes.join(", ")), output)
            }
            Self::Promote(Nodes { nodes, how }) => {
                let (configuration_index, dry) = (how.as_of, how.dry);
                let request = v1::PromoteRequest { nodes: nodes.clone(), configuration_index, dry };
                let answer = client.promote(request).await?;
                say(&answer, dry, &format!("{} may vote", nodes.join(", ")), output)
            }
            Self::Remove(Forced { nodes: Nodes { nodes, how }, force }) => {
                let (configuration_index, dry) = (how.as_of, how.dry);
                let request = v1::RemoveRequest { nodes: nodes.clone(), configuration_index, dry, force };
                let answer = client.remove(request).await?;
                let done = format!("{} may be stopped: no member any more", nodes.join(", "));
                say(&answer, dry, &done, output)
            }
            Self::RaiseVersion(RaiseVersion { to: version, how }) => {
                let (configuration_index, dry) = (how.as_of, how.dry);
                let request = v1::RaiseVersionRequest { version, configuration_index, dry };
                let answer = client.raise_version(request).await?;
                say(
                    &answer,
                    dry,
                    "the version is raised, and no member can run an older build from now on",
                    output,
                )
            }
            Self::Replace(Replace { old, new, how, force }) => {
                let (configuration_index, dry) = (how.as_of, how.dry);
                let done = format!("{new} has taken the place of {old}");
                let request = v1::ReplaceRequest { old, new, configuration_index, dry, force };
                let answer = client.replace(request).await?;
                say(&answer, dry, &done, output)
            }
        }
    }
}

/// What became of a change. A dry one that would be refused is a failure, as the change itself would be.
fn say(answer: &v1::MemberChangeResponse, dry: bool, done: &str, output: &Output) -> Result<(), Failure> {
    let index = answer.configuration_index;
    if !answer.refusal.is_empty() {
        return Err(Failure::Failed(format!("it would be refused: {}", answer.refusal)));
    }
    let sentence = match dry {
        true => format!("it would be done, as of the configuration at index {index}"),
        false => format!("{done}; the configuration at index {index} is in force"),
    };
    output.say(&sentence, &json!({"configuration_index": index, "dry": dry}))
}

async fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let members = client.members(v1::MembersRequest {}).await?;
    let mut table = Table::new(&["NODE", "ID", "KIND", "ADDRESS", "MATCHED", "LAG", "STATE", "STOP"]);
    for member in &members.members {
        let kind = if member.leads { "leader".to_owned() } else { member.standing.clone() };
        table.add(
            vec![
                member.name.clone(),
                member.id.clone(),
                kind,
                member.address.clone(),
                member.matched.to_string(),
                member.lag.to_string(),
                or(&member.unwell, "well"),
                if member.stop_refusal.is_empty() {
                    "safe".into()
                } else {
                    format!("no: {}", member.stop_refusal)
                },
            ],
            member_json(member),
        );
    }
    for node in &members.waiting {
        let [lacks, none] = ["-", ""].map(str::to_owned);
        let cells = vec![
            node.name.clone(),
            node.id.clone(),
            "waiting".into(),
            node.address.clone(),
            lacks.clone(),
            lacks,
            "no member yet".into(),
            none,
        ];
        let object = json!({"node": node.name, "node_id": node.id, "kind": "waiting", "address": node.address,
            "client_address": node.client_address});
        table.add(cells, object);
    }
    output.print(&table)?;
    let change = match (members.joint, members.settled) {
        (true, _) => ", a change is half way",
        (false, false) => ", a change is under way",
        (false, true) => "",
    };
    let index = members.configuration_index;
    match output.format {
        // Only lines of nodes, for `cut` and `awk`.
        Format::Plain => Ok(()),
        Format::Table | Format::Json => output.say(
            &format!(
                "configuration {index} is in force in term {}{change}{}",
                members.term,
                version(&members)
            ),
            &json!({"configuration_index": index, "joint": members.joint, "settled": members.settled,
                "leader": members.leader, "term": members.term, "last": members.last,
                "version": members.version}),
        ),
    }
}

/// The version in force, and what to do where all members run a newer one. An older leader does not say it.
fn version(members: &v1::MembersResponse) -> String {
    let newest = members.members.iter().map(|member| member.version_max).min().unwrap_or_default();
    match members.version {
        0 => String::new(),
        version if newest > version => {
            format!("; version {version}, and all run {newest}: raise it with `raftq members raise-version`")
        }
        version => format!("; version {version}"),
    }
}

fn or(text: &str, other: &str) -> String {
    if text.is_empty() { other.to_owned() } else { text.to_owned() }
}

fn member_json(member: &v1::MemberState) -> Value {
    json!({
        "node": member.name,
        "node_id": member.id,
        "kind": member.standing,
        "leads": member.leads,
        "address": member.address,
        "active": member.active,
        "matched": member.matched,
        "lag": member.lag,
        "complete": member.complete,
        "replaying": member.replaying,
        "disk_stalled": member.disk_stalled,
        "unwell": member.unwell,
        "stop_refusal": member.stop_refusal,
        "version_min": member.version_min,
        "version_max": member.version_max,
    })
}
