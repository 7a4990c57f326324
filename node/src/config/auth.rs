//! The flags of who may call.

use super::{ConfigError, of_environment};
use clap::Args;
use raftqueue_access::{ApiServer, Files};
use std::path::PathBuf;

/// Who may call, and do what.
#[derive(Args, Clone, Debug, Default)]
pub struct AuthArgs {
    /// Roles, and who has them: YAML. Whoever has none may do nothing. Without this file everybody may do everything. Looked at again
    /// every few seconds; one that is not right leaves what was read before in force, so replace it at once. It says nothing of the port
    /// of the other nodes: that one wants --tls-peers required. `raftq auth check FILE` explains it.
    #[arg(long, value_name = "FILE", env = "RAFTQUEUE_AUTH_FILE")]
    pub auth_file: Option<PathBuf>,

    /// Tokens by which callers show who they are, each a line with its name and hash, as `raftq auth token NAME` makes it.
    #[arg(long, value_name = "FILE", requires = "auth_file", env = "RAFTQUEUE_AUTH_TOKENS_FILE")]
    pub auth_tokens_file: Option<PathBuf>,
}

/// Who may call, and do what.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// Where it stands.
    pub files: Files,
    /// Who is asked about tokens of ServiceAccounts; `None` where this is no pod.
    pub api_server: Option<ApiServer>,
}

impl AuthArgs {
    /// `None` where everybody may do everything.
    pub(super) fn settings(self) -> Result<Option<AuthSettings>, ConfigError> {
        let Some(policy) = self.auth_file else { return Ok(None) };
        let files = Files { policy, tokens: self.auth_tokens_file };
        Ok(Some(AuthSettings { files, api_server: api_server_of_this_pod() }))
    }
}

/// Kubernetes tells every pod where its API server is.
fn api_server_of_this_pod() -> Option<ApiServer> {
    let host = of_environment("KUBERNETES_SERVICE_HOST")?;
    let port = of_environment("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok()).unwrap_or(443);
    Some(ApiServer::of_pod(host, port))
}
