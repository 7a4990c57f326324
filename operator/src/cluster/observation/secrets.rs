//! What was seen of Secrets: whose certificates there are, until when, and what the operator itself shows to nodes.

use std::collections::BTreeMap;
use std::fmt;

/// What is in a Secret that somebody else fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSeen {
    /// There is no such Secret.
    Missing,
    /// It lacks something, or that cannot be read: what, in words.
    Unusable(String),
    /// A certificate with its key, and who signs.
    Usable(CertificateSeen),
}

/// A certificate, as far as decisions depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateSeen {
    /// The id of its key.
    pub id: String,
    /// The id of the key that signed it.
    pub issuer: String,
    /// The DNS names and addresses that it is for.
    pub names: Vec<String>,
    /// When it begins, in seconds since 1970.
    pub not_before: i64,
    /// When it runs out, in seconds since 1970.
    pub not_after: i64,
}

/// An authority: a certificate that signs others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthoritySeen {
    /// The id of its key.
    pub id: String,
    /// When it begins, in seconds since 1970.
    pub not_before: i64,
    /// When it runs out, in seconds since 1970.
    pub not_after: i64,
    /// Its certificate, as PEM.
    pub pem: String,
}

/// What is there of the certificates that the operator makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnMade {
    /// The Secret that pods have.
    pub secret: String,
    /// The authority that signs, if its key is there and fits.
    pub authority: Option<AuthoritySeen>,
    /// That key, as PEM.
    pub key: Sealed,
    /// The authorities that are trusted.
    pub trusted: Vec<AuthoritySeen>,
    /// The certificates that have keys, by their holders.
    pub certificates: BTreeMap<String, CertificateSeen>,
    /// The Secrets belong to nobody: an earlier object of the name left them behind.
    pub is_left_behind: bool,
    /// The Secret with the authority, if it is there: uid and version.
    pub of_authority: Option<(String, String)>,
    /// The Secret that pods have, if it is there: uid and version.
    pub of_pods: Option<(String, String)>,
}

/// A text that no log and no message shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sealed(String);

impl Sealed {
    /// Of this text.
    #[must_use]
    pub fn of(text: String) -> Self {
        Self(text)
    }

    /// The text, for those who need it.
    #[must_use]
    pub fn open(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(sealed)")
    }
}

/// By what the operator knows nodes, and they it: everything is PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The authorities that it trusts.
    pub authorities: String,
    /// Its certificate.
    pub certificate: String,
    /// The key of that.
    pub key: Sealed,
}

/// How nodes are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Their domain: with a pod's name before it, it is what the pod's certificate is for.
    pub domain: String,
    /// What the operator shows them; absent: nothing is encrypted, or what it would show is not there.
    pub credentials: Option<Credentials>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_no_debugging_text() {
        let credentials = Credentials { key: Sealed::of("the key".into()), ..Credentials::default() };
        let text = format!("{credentials:?}");
        assert!(text.contains("(sealed)") && !text.contains("the key"), "{text}");
        assert_eq!(credentials.key.open(), "the key");
    }
}
