//! `raftq kill`: ends a node of a running `raftq up` as a crash would.

use super::up::{Link, Request, Row, base_ports};
use crate::failure::Failure;
use crate::output::Output;
use clap::{ArgGroup, Args};
use raftqueue_client::{Client, v1};
use serde_json::json;
use std::time::Duration;

/// Kills a node of a running `raftq up`, as a crash would: with SIGKILL.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("whom").required(true)), after_help = "Examples:
  raftq kill --leader
  raftq kill node-1
  raftq kill 1 --base-port 8420       for `raftq up --base-port 8420`

`raftq up` starts the node again after two seconds, unless it was told \
--no-restart. What was acknowledged is kept.")]
pub(crate) struct Kill {
    /// The node: its name, its number, or where it serves clients
    #[arg(group = "whom")]
    node: Option<String>,
    /// The node that leads
    #[arg(long, group = "whom")]
    leader: bool,
    /// First port of the cluster, as `raftq up` was told [default: that of the endpoints, or 7420]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..=65_400))]
    base_port: Option<u16>,
}

impl Kill {
    pub(super) async fn run(self, client: &Client, are_told: bool, output: &Output) -> Result<(), Failure> {
        let told = if are_told { client.endpoints() } else { &[] };
        let mut up = Link::connect(&base_ports(self.base_port, told)?).await?;
        let rows = up.ask(&Request::Look).await?;
        let wanted = match self.node {
            Some(node) => node,
            None => leader(&rows, client.timeout()).await?,
        };
        let node = number(&wanted, &rows)?;
        let killed = up.ask(&Request::Kill(node)).await?;
        let Some(Row { pid: Some(pid), restarts, .. }) = killed.first() else {
            return Err(Failure::Failed(format!("`raftq up` does not say that node-{node} is killed")));
        };
        let then = if *restarts { "is started again in 2 s" } else { "stays down" };
        output.say(
            &format!("node-{node} (pid {pid}) is killed, and {then}"),
            &json!({"node": format!("node-{node}"), "pid": pid, "restarts": restarts}),
        )
    }
}

/// The name of the node that leads.
async fn leader(rows: &[Row], timeout: Duration) -> Result<String, Failure> {
    let running = rows.iter().filter(|row| row.pid.is_some()).map(|row| row.endpoint.clone());
    let client = Client::connect(running).map_err(|_| Failure::Failed("no node runs".into()))?;
    let status = client
        .without_waiting_for_nodes()
        .with_timeout(timeout)
        .cluster_status(v1::ClusterStatusRequest {})
        .await?;
    let leader = status.members.into_iter().find(|member| member.id == status.leader);
    leader.map(|member| member.name).ok_or_else(|| Failure::Failed("no node leads".into()))
}

/// The number of the node that is meant.
fn number(wanted: &str, rows: &[Row]) -> Result<u16, Failure> {
    let is_it = |(number, row): &(usize, &Row)| {
        wanted == row.endpoint || wanted == number.to_string() || wanted == format!("node-{number}")
    };
    let found = rows.iter().enumerate().find(is_it).and_then(|(number, _)| u16::try_from(number).ok());
    found.ok_or_else(|| {
        let names: Vec<String> = (0..rows.len()).map(|number| format!("node-{number}")).collect();
        Failure::Failed(format!("there is no node `{wanted}`: there are {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_goes_by_its_name_its_number_and_its_endpoint() {
        let row = |port| Row { endpoint: format!("127.0.0.1:{port}"), pid: None, restarts: true };
        let rows = [row(7_420), row(7_430)];
        for wanted in ["1", "node-1", "127.0.0.1:7430"] {
            assert_eq!(number(wanted, &rows).expect("there is one"), 1, "{wanted}");
        }
        for wanted in ["2", "node-2", "", "01", "7430"] {
            let Err(Failure::Failed(why)) = number(wanted, &rows) else { panic!("{wanted} is none") };
            assert!(why.contains("there are node-0, node-1"), "{why}");
        }
    }
}
