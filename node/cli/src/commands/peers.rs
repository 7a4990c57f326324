//! `raftq status --peers`: where each node finds each other one.

use super::cluster::View;
use crate::failure::{Failure, beside};
use crate::output::{Output, Table};
use serde_json::json;

/// Prints a line for each node and each member that it knows.
pub(super) fn show(views: &[View], output: &Output) -> Result<(), Failure> {
    let mut table = Table::new(&["NODE", "PEER", "ID", "ADDRESS", "HEARD", "CLIENTS"]);
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    for View { endpoint, node, status, .. } in views {
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                let name = node.as_deref().unwrap_or(endpoint);
                let mut cells = vec![String::from("-"); 6];
                cells[0] = or_dash(name);
                beside(name, error).clone_into(&mut cells[3]);
                table
                    .add(cells, json!({"view": "peers", "endpoint": endpoint, "node": node, "error": error}));
                continue;
            }
        };
        for peer in status.members.iter().filter(|peer| peer.id != status.node_id) {
            let cells = vec![
                status.name.clone(),
                peer.name.clone(),
                peer.id.clone(),
                or_dash(&peer.peer_address),
                if peer.active { "yes".into() } else { "no".into() },
                or_dash(&peer.client_address),
            ];
            let object = json!({
                "view": "peers",
                "endpoint": endpoint,
                "node": status.name,
                "peer": peer.name,
                "peer_id": peer.id,
                "peer_address": peer.peer_address,
                "heard": peer.active,
                "client_address": peer.client_address,
            });
            table.add(cells, object);
        }
    }
    output.print(&table)?;
    match views.iter().find_map(|view| view.status.as_ref().err()) {
        Some(error) if views.iter().all(|view| view.status.is_err()) => {
            Err(Failure::Failed(format!("no node says whom it knows: {error}")))
        }
        _ => Ok(()),
    }
}
