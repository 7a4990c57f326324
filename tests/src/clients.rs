//! Whether tests with other languages' tools run: those of the example programs, and of clients made of the OpenAPI file.

use crate::kube::environment;
use std::path::PathBuf;
use std::process::Command;

/// Why a case that takes these tools is left out; `None`: it runs. `RAFTQUEUE_CLIENTS` decides: unset, all are left out; `auto`,
/// those are whose tools are missing; `require`, none is.
///
/// # Errors
/// The variable has another value, or a tool is missing that is required.
pub fn left_out(tools: &[&str]) -> Result<Option<String>, String> {
    #[expect(clippy::disallowed_methods, reason = "tests take their settings from the environment")]
    let wish = std::env::var("RAFTQUEUE_CLIENTS").unwrap_or_default();
    let is_required = match wish.as_str() {
        "" => return Ok(Some("RAFTQUEUE_CLIENTS is unset (auto or require)".to_owned())),
        "auto" => false,
        "require" => true,
        other => return Err(format!("RAFTQUEUE_CLIENTS is auto or require, or unset, and not `{other}`")),
    };
    let is_there = |tool: &str| {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", tool]).output();
        found.is_ok_and(|output| output.status.success())
    };
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| !is_there(tool)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let text = format!("missing on this machine: {}", missing.join(", "));
    if is_required { Err(text) } else { Ok(Some(text)) }
}

/// Where packages of other languages are kept from one run to the next.
///
/// # Errors
/// The environment names no such place.
pub fn cache() -> Result<PathBuf, String> {
    Ok(environment::cache_folder().map_err(|error| error.to_string())?.join("clients"))
}
