//! Who calls.

use crate::words::{did_you_mean, listed, shown};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

/// Longest name of a caller, in bytes. Names of hosts end at 253, those of ServiceAccounts with their namespace at 317.
pub(crate) const NAME_BYTES_MAX: usize = 512;
/// How many groups of a caller count; what an issuer tells beyond them is a mistake of its configuration.
pub(crate) const GROUPS_MAX: usize = 256;

/// By what a caller has shown who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Means {
    /// By nothing; it counts only where the policy says `anonymous: true`.
    Anonymous,
    /// By a client certificate; the name is its first DNS SAN, else its URI SAN, else its common name.
    Certificate,
    /// By a token of the tokens file; the name is the one that the file gives it.
    Token,
    /// By a JWT of an issuer of the policy; the name is what its `nameClaim` says.
    Jwt,
    /// By a token of a Kubernetes ServiceAccount; the name is `NAMESPACE/NAME`.
    ServiceAccount,
    /// By a certificate of the cluster itself, as nodes and the operator have one. It may do everything.
    Node,
}

impl Means {
    /// Every one of them that comes with a name, so that a grant can name it.
    pub const NAMED: [Means; 4] = [Means::Certificate, Means::Token, Means::Jwt, Means::ServiceAccount];

    /// As grants and messages write it, in front of the name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Means::Anonymous => "anonymous",
            Means::Certificate => "cert",
            Means::Token => "token",
            Means::Jwt => "jwt",
            Means::ServiceAccount => "serviceaccount",
            Means::Node => "node",
        }
    }
}

/// Somebody who calls, as far as it has shown who it is. A clone shares all of it.
///
/// Two callers are equal if means, name and groups are; until when the credentials hold is not compared.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    by: Means,
    name: String,
    groups: Vec<String>,
    expires: Option<SystemTime>,
}

impl Inner {
    /// What decides.
    fn key(&self) -> (Means, &str, &[String]) {
        (self.by, &self.name, &self.groups)
    }
}

impl Caller {
    /// Whoever shows nothing.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::of(Means::Anonymous, String::new(), Vec::new(), None)
    }

    /// The cluster itself.
    #[must_use]
    pub fn node() -> Self {
        Self::of(Means::Node, String::new(), Vec::new(), None)
    }

    /// A caller with a name and without groups. The name of [`Means::Anonymous`] and [`Means::Node`] is not used.
    #[must_use]
    pub fn named(by: Means, name: impl Into<String>) -> Self {
        Self::of(by, name.into(), Vec::new(), None)
    }

    pub(crate) fn of(by: Means, name: String, groups: Vec<String>, expires: Option<SystemTime>) -> Self {
        let name = if matches!(by, Means::Anonymous | Means::Node) { String::new() } else { name };
        Self(Arc::new(Inner { by, name, groups, expires }))
    }

    /// The same caller in these groups, of which as many count as a caller may have, 256.
    #[must_use]
    pub fn in_groups(&self, groups: impl IntoIterator<Item = String>) -> Self {
        let groups = groups.into_iter().take(GROUPS_MAX).collect();
        Self::of(self.0.by, self.0.name.clone(), groups, self.0.expires)
    }

    /// By what it has shown who it is.
    #[must_use]
    pub fn by(&self) -> Means {
        self.0.by
    }

    /// Its name, without the means; empty for `anonymous` and `node`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its groups: of a JWT those of the `groupsClaim`, of a ServiceAccount those that Kubernetes tells.
    #[must_use]
    pub fn groups(&self) -> &[String] {
        &self.0.groups
    }

    /// Until when what it has shown is good, if that ends: a stream that lasts longer must be ended or shown something new.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.expires
    }
}

impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.key() == other.0.key()
    }
}

impl Eq for Caller {}

impl Hash for Caller {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}

/// `token:shop`, `serviceaccount:shop/worker`, `anonymous`, `node`; harmless to a terminal and not too long.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.by {
            Means::Anonymous | Means::Node => f.write_str(self.0.by.word()),
            by => write!(f, "{}:{}", by.word(), shown(&self.0.name)),
        }
    }
}

/// Why a text names no caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CallerError(String);

/// Reads what [`Display`](fmt::Display) writes; the caller is in no groups.
impl FromStr for Caller {
    type Err = CallerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "anonymous" => return Ok(Caller::anonymous()),
            "node" => return Ok(Caller::node()),
            _ => {}
        }
        let right = "as `token:shop`, `serviceaccount:shop/worker`, `anonymous` and `node` do";
        let Some((means, name)) = text.split_once(':') else {
            return Err(CallerError(format!("`{}` does not say means and name, {right}", shown(text))));
        };
        let by = named_means(means).map_err(CallerError)?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(CallerError(format!(
                "the name behind `{means}:` must have 1 to {NAME_BYTES_MAX} bytes"
            )));
        }
        if by == Means::ServiceAccount && !name.contains('/') {
            return Err(CallerError(format!(
                "`{}` has no namespace: it is serviceaccount:NAMESPACE/NAME",
                shown(text)
            )));
        }
        Ok(Caller::named(by, name))
    }
}

/// The means that a word in front of a name says.
pub(crate) fn named_means(word: &str) -> Result<Means, String> {
    let words = || Means::NAMED.map(Means::word);
    Means::NAMED.into_iter().find(|means| means.word() == word).ok_or_else(|| {
        format!(
            "there are no means `{}`; there are {}{}",
            shown(word),
            listed(words()),
            did_you_mean(word, words())
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_read_as_it_is_written() {
        for text in [
            "anonymous",
            "node",
            "token:shop",
            "cert:a.example",
            "jwt:auth0|1:2",
            "serviceaccount:shop/worker",
        ] {
            let caller: Caller = text.parse().expect(text);
            assert_eq!(caller.to_string(), text);
            assert_eq!(caller, text.parse().expect(text));
        }
        assert_eq!(Caller::named(Means::Node, "x").to_string(), "node", "the cluster has no names");
        assert_eq!(Caller::named(Means::Jwt, "a\nb").to_string(), "jwt:a\\nb");
    }

    #[test]
    fn what_names_no_caller_is_told_what_would() {
        for (text, part) in [
            ("shop", "does not say means and name, as `token:shop`"),
            (
                "tokens:shop",
                "there are no means `tokens`; there are `cert`, `token`, `jwt` and `serviceaccount`; did you mean `token`?",
            ),
            ("group:shop", "there are no means `group`"),
            ("token:", "1 to 512 bytes"),
            ("serviceaccount:worker", "serviceaccount:NAMESPACE/NAME"),
            ("", "`` does not say"),
        ] {
            let error = text.parse::<Caller>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn callers_are_equal_by_what_decides() {
        let caller = Caller::named(Means::Jwt, "a");
        let later = Caller::of(Means::Jwt, "a".into(), Vec::new(), Some(SystemTime::UNIX_EPOCH));
        assert_eq!(caller, later);
        assert_ne!(caller, caller.in_groups(["g".into()]));
        assert_ne!(caller, Caller::named(Means::Token, "a"));
        assert_eq!(caller.in_groups((0..300).map(|n| n.to_string())).groups().len(), GROUPS_MAX);
    }
}
