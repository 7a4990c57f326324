//! The file of `--config`: where all initial members are.

use super::ConfigError;
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct AddressFile {
    addresses: Vec<Address>,
}

/// An initial member: `port` is for clients, `internal_port` for the other nodes.
#[derive(Deserialize)]
pub(super) struct Address {
    pub(super) ip: String,
    pub(super) port: u16,
    pub(super) internal_port: u16,
}

impl Address {
    /// As it stands before a port.
    pub(super) fn host(&self) -> String {
        if self.ip.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{}]", self.ip) } else { self.ip.clone() }
    }
}

/// The members that a file lists: one at least.
pub(super) fn read_addresses(file: &Path) -> Result<Vec<Address>, ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| ConfigError(format!("cannot read --config {}: {error}", file.display())))?;
    let parsed: AddressFile = serde_json::from_str(&text).map_err(|error| {
        ConfigError(format!(
            "--config {}: {error}; it must look like \
             {{\"addresses\": [{{\"ip\": \"127.0.0.1\", \"port\": 8001, \"internal_port\": 9001}}]}}",
            file.display()
        ))
    })?;
    if parsed.addresses.is_empty() {
        return Err(ConfigError(format!(
            "--config {}: `addresses` is empty; list at least one",
            file.display()
        )));
    }
    Ok(parsed.addresses)
}
