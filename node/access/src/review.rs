//! Tokens of Kubernetes ServiceAccounts: the API server is asked what it thinks of them (TokenReview).

use crate::caller::Caller;
use std::path::PathBuf;
use std::time::SystemTime;

/// Where the API server is, and what this pod shows it.
#[derive(Clone, Debug)]
pub struct ApiServer {
    /// Its host, as KUBERNETES_SERVICE_HOST has it.
    pub host: String,
    /// Its port, as KUBERNETES_SERVICE_PORT has it.
    pub port: u16,
    /// The token of this pod's own ServiceAccount; read anew for each question, as the kubelet renews it.
    pub token_file: PathBuf,
    /// The CA that must have signed the API server's certificate, in PEM.
    pub ca_file: PathBuf,
}

impl ApiServer {
    /// The API server of a pod, with the files where the kubelet puts them.
    #[must_use]
    pub fn of_pod(host: impl Into<String>, port: u16) -> Self {
        let folder = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        Self { host: host.into(), port, token_file: folder.join("token"), ca_file: folder.join("ca.crt") }
    }
}

/// Why a token of a ServiceAccount does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The API server cannot be asked now; the caller may try again.
    #[error("the API server cannot be asked about the token: {0}")]
    Unavailable(String),
}

/// Asks the API server, and keeps its answers for a while.
#[derive(Debug)]
pub(crate) struct Reviewer {
    _api: ApiServer,
}

impl Reviewer {
    pub(crate) fn new(api: ApiServer) -> Self {
        Self { _api: api }
    }

    /// The caller that a token names.
    pub(crate) async fn review(
        &self,
        _token: &str,
        _audience: &str,
        _expires: Option<SystemTime>,
    ) -> Result<Caller, ReviewError> {
        std::future::ready(Err(ReviewError::Unavailable("it is not asked yet".into()))).await
    }
}
