//! What nodes are shown, and which of them are trusted.

use crate::GLOBAL;
use clap::Args;
use raftqueue_client::{Credentials, Token};
use std::ffi::OsString;
use std::path::PathBuf;

/// What every command that talks to nodes takes besides where they are.
#[derive(Args, Debug)]
pub(crate) struct CredentialsArgs {
    /// The authorities of the nodes' certificates, PEM; encrypts all connections. An endpoint https://HOST does that, too, and trusts
    /// whom this machine trusts
    #[arg(long, global = true, help_heading = GLOBAL, env = "RAFTQ_CA_FILE", value_name = "FILE")]
    ca_file: Option<OsString>,
    /// Your certificate, PEM, where nodes want one
    #[arg(long, global = true, help_heading = GLOBAL, env = "RAFTQ_CERT_FILE", value_name = "FILE")]
    cert_file: Option<OsString>,
    /// The private key of your certificate, PEM
    #[arg(long, global = true, help_heading = GLOBAL, env = "RAFTQ_KEY_FILE", value_name = "FILE")]
    key_file: Option<OsString>,
    /// A file with the token that says who you are. Where there is no file, RAFTQ_TOKEN has the token itself
    #[arg(long, global = true, help_heading = GLOBAL, env = "RAFTQ_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<OsString>,
}

/// What a command line itself says of a cluster, without variables.
pub(crate) struct Named {
    pub(crate) endpoints: Vec<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) token_file: Option<PathBuf>,
}

impl CredentialsArgs {
    /// What was typed. `is_typed` says whether the option of this name was.
    pub(crate) fn typed(&self, endpoints: Vec<String>, is_typed: impl Fn(&str) -> bool) -> Named {
        let file = |id, file: &Option<OsString>| file.clone().filter(|_| is_typed(id)).map(PathBuf::from);
        Named {
            endpoints: if is_typed("endpoints") { endpoints } else { Vec::new() },
            ca_file: file("ca_file", &self.ca_file),
            cert_file: file("cert_file", &self.cert_file),
            key_file: file("key_file", &self.key_file),
            token_file: file("token_file", &self.token_file),
        }
    }

    pub(crate) fn read(self) -> Credentials {
        // An option would stand in the list of processes.
        #[expect(clippy::disallowed_methods, reason = "a command line reads its environment")]
        let token = std::env::var("RAFTQ_TOKEN").ok().filter(|token| !token.is_empty());
        // An empty variable is none.
        let some = |file: Option<OsString>| file.filter(|file| !file.is_empty()).map(PathBuf::from);
        let token = some(self.token_file).map(Token::File).or(token.map(Token::Text));
        Credentials {
            ca_file: some(self.ca_file),
            cert_file: some(self.cert_file),
            key_file: some(self.key_file),
            token,
        }
    }
}
