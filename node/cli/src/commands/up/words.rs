//! What `raftq up` prints: its table, what to try, and what happens to its nodes.

use super::looking::Leader;
use super::{BASE_PORT_DEFAULT, NODES_DEFAULT, NODES_MAX, Nodes, Up};
use crate::commands::cluster::role_of;
use std::fmt::Write as _;
use std::path::Path;

/// What is said where nobody leads.
pub(super) const NO_LEADER: &str = "\
No node leads: that takes a majority of the voters. `raftq status` tells what each node lacks. If the disks of a majority are gone
for good, `raftq recover` shows which node can go on alone, and what that costs.";

/// Said once the cluster serves: whoever reaches these ports may do everything, which is fine on one machine and nowhere else.
const OPEN: &str = "The cluster is open: no TLS and no authentication, on loopback only. node/LOCKS.md says how to lock one.";

/// A node has died; `text` says how.
pub(super) fn died(node: u16, text: &str, no_restart: bool, comes_again: bool, log: &Path) -> String {
    if comes_again {
        return format!(
            "node-{node} {text}\n  It is not started again, since that would end in the same way: mend it, and start \
             `raftq up` again. Its log is {}",
            log.display()
        );
    }
    let then = if no_restart { "and stays down" } else { "and is started again in 2 s" };
    format!("node-{node} {text}, {then}; its log is {}", log.display())
}

/// Who leads after a death.
pub(super) fn leads(before: Option<&Leader>, now: Option<&Leader>) -> String {
    match (before, now) {
        (_, None) => NO_LEADER.to_owned(),
        (Some(before), Some(now)) if before == now => format!("{} leads still", now.name),
        (_, Some(now)) => format!("{} leads now, in term {}", now.name, now.term),
    }
}

impl Up {
    /// The nodes, each with its process and where it is reached.
    pub(super) async fn table(&self, nodes: &Nodes) -> String {
        let mut rows = vec![["NODE", "PID", "ROLE", "CLIENTS", "METRICS", "DATA"].map(str::to_owned)];
        let statuses = self.statuses(nodes).await;
        for (node, status) in nodes.all.iter().zip(&statuses) {
            rows.push([
                format!("node-{}", node.index),
                node.pid().map_or_else(|| "-".into(), |pid| pid.to_string()),
                status.as_ref().map_or("-", role_of).to_owned(),
                self.endpoint(node.index),
                format!("http://127.0.0.1:{}/metrics", self.port(node.index) + 2),
                nodes.folder.disk(node.index).display().to_string(),
            ]);
        }
        let widths: Vec<usize> =
            (0..6).map(|c| rows.iter().map(|row| row[c].len()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for row in rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        text
    }

    /// What to try in another terminal. Where the defaults would not lead there, the endpoints are told once.
    pub(super) fn examples(&self, count: usize) -> String {
        let is_default = self.base_port == BASE_PORT_DEFAULT && count == usize::from(NODES_DEFAULT);
        let export = if is_default {
            String::new()
        } else {
            let indices = (0..count).filter_map(|index| u16::try_from(index).ok());
            let endpoints: Vec<String> = indices.map(|index| self.endpoint(index)).collect();
            format!("  export RAFTQ_ENDPOINTS={}\n", endpoints.join(","))
        };
        let program = std::env::args().next().unwrap_or_else(|| "raftq".into());
        let more = if count < usize::from(NODES_MAX) { count + 2 } else { count - 2 };
        format!(
            "{OPEN}\n\nTry, in another terminal:\n{export}  \
             {program} topic create orders\n  \
             {program} publish orders 'hello' 'world'\n  \
             {program} receive orders -n 10 --ack\n  \
             {program} kill --leader\n  \
             {program} scale {more}\n\n\
             Ctrl-C stops the cluster."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leads_is_said_as_it_is() {
        let leader = |name: &str, term| Leader { name: name.into(), term, cluster_id: String::new() };
        let (one, other) = (leader("node-0", 2), leader("node-1", 3));
        assert_eq!(leads(Some(&one), Some(&other)), "node-1 leads now, in term 3");
        assert_eq!(leads(Some(&one), Some(&one)), "node-0 leads still");
        assert_eq!(leads(Some(&one), Some(&leader("node-0", 4))), "node-0 leads now, in term 4");
        assert_eq!(leads(None, Some(&one)), "node-0 leads now, in term 2");
        assert!(leads(Some(&one), None).contains("raftq recover"));
    }

    #[test]
    fn what_became_of_a_node_is_said_with_what_comes_next() {
        let said = |no_restart, comes_again| died(1, "was killed", no_restart, comes_again, Path::new("l"));
        assert_eq!(said(false, false), "node-1 was killed, and is started again in 2 s; its log is l");
        assert_eq!(said(true, false), "node-1 was killed, and stays down; its log is l");
        assert!(
            said(false, true).contains("It is not started again") && said(true, true) == said(false, true)
        );
    }
}
