//! The flags of TLS.

use super::ConfigError;
use clap::Args;
use raftqueue_tls::{Files, Mode};
use std::path::PathBuf;

/// What is encrypted, and by which certificates.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsArgs {
    /// This node's certificate, and those between it and its authority: PEM. It names the host at which the other nodes find
    /// this one. Looked at again every few seconds: one that changes counts for connections that begin.
    #[arg(long, value_name = "FILE", requires_all = ["tls_key_file", "tls_ca_file"], env = "RAFTQUEUE_TLS_CERT_FILE")]
    pub tls_cert_file: Option<PathBuf>,

    /// The private key of that certificate: PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file", env = "RAFTQUEUE_TLS_KEY_FILE")]
    pub tls_key_file: Option<PathBuf>,

    /// The authorities that issue the certificates of all nodes, and those of clients: PEM. Several may stand in it, so that an old and
    /// a new one overlap.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file", env = "RAFTQUEUE_TLS_CA_FILE")]
    pub tls_ca_file: Option<PathBuf>,

    /// Further authorities, whose certificates clients may show, and no node: PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file", env = "RAFTQUEUE_TLS_CLIENT_CA_FILE")]
    pub tls_client_ca_file: Option<PathBuf>,

    /// Further hosts of nodes, names of DNS or addresses, separated by commas: where addresses are listed, a node that is to join and is
    /// in no list is known by its certificate for one of them.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        requires = "tls_cert_file",
        env = "RAFTQUEUE_TLS_PEER_HOSTS"
    )]
    pub tls_peer_hosts: Vec<String>,

    /// Whether the other nodes come by TLS, where each shows its certificate: off, required, or optional, which accepts both and
    /// connects by TLS where the other one can, for the time in which a cluster is changed from one to the other. Default: required
    /// where there is a certificate, else off.
    #[arg(long, value_name = "MODE", value_parser = ["off", "optional", "required"], env = "RAFTQUEUE_TLS_PEERS")]
    pub tls_peers: Option<String>,

    /// Whether clients come by TLS, and whoever asks the operations port, where /livez and /readyz are answered without it all
    /// the same. Default: required where there is a certificate, else off.
    #[arg(long, value_name = "MODE", value_parser = ["off", "optional", "required"], env = "RAFTQUEUE_TLS_CLIENTS")]
    pub tls_clients: Option<String>,
}

/// What is encrypted, and by which certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Where certificates stand.
    pub files: Files,
    /// Further hosts whose certificates are of nodes.
    pub peer_hosts: Vec<String>,
    /// Connections between nodes.
    pub peers: Mode,
    /// Connections of clients, and to the operations port.
    pub clients: Mode,
}

impl TlsArgs {
    /// `None` where nothing is encrypted.
    pub(super) fn settings(self) -> Result<Option<TlsSettings>, ConfigError> {
        let mode = |flag: &str, text: &Option<String>, default| match text {
            Some(text) => text.parse().map_err(|why| ConfigError(format!("{flag}: {why}"))),
            None => Ok(default),
        };
        let (Some(certificate), Some(key), Some(authorities)) =
            (self.tls_cert_file, self.tls_key_file, self.tls_ca_file)
        else {
            for (flag, asked) in [("--tls-peers", &self.tls_peers), ("--tls-clients", &self.tls_clients)] {
                if mode(flag, asked, Mode::Off)? != Mode::Off {
                    let asked = asked.as_deref().unwrap_or_default();
                    return Err(ConfigError(format!(
                        "{flag} {asked} needs certificates: --tls-cert-file, --tls-key-file and --tls-ca-file"
                    )));
                }
            }
            return Ok(None);
        };
        let files = Files {
            own: Some((certificate, key)),
            authorities: Some(authorities),
            client_authorities: self.tls_client_ca_file,
        };
        Ok(Some(TlsSettings {
            files,
            peer_hosts: self.tls_peer_hosts.into_iter().filter(|host| !host.is_empty()).collect(),
            peers: mode("--tls-peers", &self.tls_peers, Mode::Required)?,
            clients: mode("--tls-clients", &self.tls_clients, Mode::Required)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(modes: (Option<&str>, Option<&str>), has_files: bool) -> TlsArgs {
        let file = |name: &str| has_files.then(|| PathBuf::from(name));
        TlsArgs {
            tls_cert_file: file("a.crt"),
            tls_key_file: file("a.key"),
            tls_ca_file: file("ca.crt"),
            tls_client_ca_file: None,
            tls_peer_hosts: Vec::new(),
            tls_peers: modes.0.map(str::to_owned),
            tls_clients: modes.1.map(str::to_owned),
        }
    }

    #[test]
    fn certificates_mean_that_all_is_encrypted_unless_somebody_says_otherwise() {
        let modes = |asked, has_files| {
            let settings = args(asked, has_files).settings().map_err(|error| error.to_string());
            settings.map(|settings| settings.map(|settings| (settings.peers, settings.clients)))
        };
        assert_eq!(modes((None, None), false), Ok(None));
        assert_eq!(modes((Some("off"), None), false), Ok(None));
        assert_eq!(modes((None, None), true), Ok(Some((Mode::Required, Mode::Required))));
        assert_eq!(modes((Some("optional"), Some("off")), true), Ok(Some((Mode::Optional, Mode::Off))));
        let refused = modes((None, Some("required")), false).expect_err("there are none");
        assert!(refused.contains("--tls-clients required needs certificates: --tls-cert-file"), "{refused}");
    }
}
