//! How nodes are called: plain, or by TLS, as each pod was made.
//!
//! A node is called at the address of its pod, and known by its name: what it shows must be for that. The operator shows a certificate
//! beneath the domain of the nodes, by which they take it for the cluster itself.

use super::observation::{PodSeen, Way};
use crate::crd::TlsStage;
use crate::names;
use std::time::Duration;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// Where a node can be called, connecting within so long.
///
/// # Errors
/// In words, what is wrong with its address or with what the operator would show.
pub(super) fn endpoint(way: &Way, name: &str, pod: &PodSeen, within: Duration) -> Result<Endpoint, String> {
    let address = pod.address.as_deref().ok_or_else(|| format!("{name} has no address"))?;
    let shows = way.credentials.as_ref().filter(|_| pod.encryption.clients != TlsStage::Off);
    let uri = names::client_uri(address, shows.is_some());
    let endpoint = Endpoint::from_shared(uri).map_err(|error| format!("{address} is no address: {error}"))?;
    let endpoint = endpoint.connect_timeout(within);
    let Some(credentials) = shows else { return Ok(endpoint) };
    let tls = ClientTlsConfig::new()
        .domain_name(format!("{name}.{}", way.domain))
        .ca_certificate(Certificate::from_pem(&credentials.authorities))
        .identity(Identity::from_pem(&credentials.certificate, credentials.key.open()))
        .timeout(within);
    endpoint
        .tls_config(tls)
        .map_err(|error| format!("the operator's certificate cannot be shown: {}", words(&error)))
}

/// An error with its causes: that of the transport alone says only "transport error".
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
