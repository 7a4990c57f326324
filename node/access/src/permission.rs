//! What a caller may be allowed, and on what.

use crate::words::{did_you_mean, listed, shown};
use std::fmt;
use std::str::FromStr;

/// One thing that a role may allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Publish to a topic.
    Publish,
    /// Receive and pop of a topic, and settle what was received: ack, nack, extend, release.
    Receive,
    /// List and describe topics, and look at their messages.
    Browse,
    /// Create, change and delete topics; purge; redrive and purge what is dead.
    Manage,
    /// Act on the cluster: members, transfer, recovery, storage. Metrics are for who may browse every topic; what the console changes is managed.
    Administer,
}

/// On what a permission is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A topic, by its name, whether it exists or not.
    Topic(&'a str),
    /// The cluster. A permission of topics counts for it only where it is given on every topic, by the pattern `*`.
    Cluster,
}

impl Permission {
    /// Every one, in the order in which tables show them.
    pub const ALL: [Permission; 5] = [
        Permission::Publish,
        Permission::Receive,
        Permission::Browse,
        Permission::Manage,
        Permission::Administer,
    ];
    /// Those of topics, in the same order.
    pub const OF_TOPICS: [Permission; 4] =
        [Permission::Publish, Permission::Receive, Permission::Browse, Permission::Manage];

    /// As the policy and messages write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Permission::Publish => "publish",
            Permission::Receive => "receive",
            Permission::Browse => "browse",
            Permission::Manage => "manage",
            Permission::Administer => "administer",
        }
    }

    /// As a sentence goes on to its object: `publish to`.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Permission::Publish => "publish to",
            Permission::Receive => "receive from",
            other => other.word(),
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Permission {
    /// What would have been right.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = || Permission::ALL.map(Permission::word);
        Permission::ALL.into_iter().find(|permission| permission.word() == text).ok_or_else(|| {
            format!(
                "there is no permission `{}`; there are {}{}",
                shown(text),
                listed(words()),
                did_you_mean(text, words())
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_read_as_they_are_written() {
        for permission in Permission::ALL {
            assert_eq!(permission.to_string().parse(), Ok(permission));
        }
        let error = "recieve".parse::<Permission>().expect_err("it is mistyped");
        assert_eq!(
            error,
            "there is no permission `recieve`; there are `publish`, `receive`, `browse`, `manage` and `administer`; \
             did you mean `receive`?"
        );
        assert!("Publish".parse::<Permission>().is_err(), "one way to write each");
    }
}
