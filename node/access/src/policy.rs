//! Who may do what: roles, and who has them. Nobody may do what no role of his allows.
//!
//! ```yaml
//! anonymous: true            # whoever shows no credentials is the caller `anonymous`; else such a call is refused
//! jwt:
//! - issuer: https://issuer.example
//!   audience: raftqueue
//!   jwksFile: /etc/raftqueue-auth/jwks.json
//!   nameClaim: sub           # the default
//!   groupsClaim: groups      # none is read where it is not said
//!   prefix: ""               # in front of its names and groups; needed where there are two issuers
//! kubernetes:
//!   audience: raftqueue      # tokens of ServiceAccounts count if they are made for this
//! roles:
//! - name: shop
//!   rules:
//!   - topics: ["orders", "orders.*"]    # `*` stands for any characters, and is the only wildcard
//!     may: [publish, receive, browse]
//! - name: operations
//!   rules:
//!   - topics: ["*"]
//!     may: [browse, manage]
//!   - may: [administer]                 # of the cluster: no topics
//! grants:
//! - role: shop
//!   to: ["token:shop", "serviceaccount:shop/*", "group:payments", "cert:*.shop.example"]
//! ```

mod reading;

pub(crate) use reading::FILE_BYTES_MAX;

use crate::caller::{Caller, Means};
use crate::pattern::Pattern;
use crate::permission::Permission;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Callers whose roles are kept ready. Where more call, all are looked up anew, which takes microseconds.
const CALLERS_KEPT_MAX: usize = 1_024;

/// A file of roles and grants that was read and checked.
#[derive(Debug)]
pub struct Policy {
    is_anonymous_known: bool,
    jwt: Vec<JwtIssuer>,
    kubernetes: Option<Kubernetes>,
    roles: Vec<Role>,
    grants: Vec<Grant>,
    /// Positions in `roles` of callers that were asked about lately.
    kept: Mutex<HashMap<Caller, Arc<[usize]>>>,
}

/// An issuer whose JWTs count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtIssuer {
    /// What the claim `iss` must be, to the letter.
    pub issuer: String,
    /// What must be among the claim `aud`.
    pub audience: String,
    /// The file of its public keys, a JWK set.
    pub jwks_file: PathBuf,
    /// The claim that names the caller.
    pub name_claim: String,
    /// The claim with the groups of the caller, a list of texts or one text; `None`: none is read.
    pub groups_claim: Option<String>,
    /// What is put in front of the names and groups that it tells, so that no other issuer can tell the same; may be empty if
    /// there is no other.
    pub prefix: String,
}

/// That tokens of ServiceAccounts count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// For what such a token must be made.
    pub audience: String,
}

/// A role: what it allows.
#[derive(Debug)]
pub struct Role {
    name: String,
    rules: Vec<Rule>,
    /// The topics that are named in full, by permission, in the order of [`Permission::OF_TOPICS`].
    exact: [BTreeSet<Box<str>>; 4],
    /// The patterns of topics, in the same order.
    patterns: [Vec<Pattern>; 4],
    may_administer: bool,
}

/// One rule of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The topics; none if it allows to administer the cluster.
    pub topics: Vec<Pattern>,
    /// What it allows on them.
    pub may: Vec<Permission>,
}

/// Who has a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The role's position in [`Policy::roles`].
    role: usize,
    to: Vec<Subject>,
}

/// Whom a grant names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `anonymous`: whoever shows no credentials.
    Anonymous,
    /// `group:PATTERN`: whoever is in a group of this name.
    Group(Pattern),
    /// `token:PATTERN` and the like: whoever has shown by these means to have this name.
    Named(Means, Pattern),
}

/// Why a file is no policy: the line, what is wrong there, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    line: Option<u64>,
    text: String,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// Whatever does not fit, with the line and what would be right; who wrote the file must mend it. Nothing of such a file
    /// counts.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        reading::read(text)
    }

    /// Whether whoever shows no credentials is a caller, `anonymous`.
    #[must_use]
    pub fn is_anonymous_known(&self) -> bool {
        self.is_anonymous_known
    }

    /// The issuers whose JWTs count.
    #[must_use]
    pub fn jwt(&self) -> &[JwtIssuer] {
        &self.jwt
    }

    /// Whether tokens of ServiceAccounts count, and which.
    #[must_use]
    pub fn kubernetes(&self) -> Option<&Kubernetes> {
        self.kubernetes.as_ref()
    }

    /// The roles, in the file's order.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The grants, in the file's order, each with the name of its role.
    pub fn grants(&self) -> impl Iterator<Item = (&str, &Grant)> {
        self.grants.iter().map(|grant| (self.roles[grant.role].name.as_str(), grant))
    }

    /// The roles of a caller, in the file's order. The cluster itself has none, and needs none.
    pub fn roles_of(&self, caller: &Caller) -> impl Iterator<Item = &Role> {
        let positions = self.positions_of(caller);
        (0..positions.len()).map(move |position| &self.roles[positions[position]])
    }

    /// Positions of the roles of a caller, ascending. Nothing is allocated for a caller that was asked about lately.
    pub(crate) fn positions_of(&self, caller: &Caller) -> Arc<[usize]> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(positions) = kept().get(caller) {
            return Arc::clone(positions);
        }
        // With many grants and groups this takes a while, in which other callers are not held up.
        let found: BTreeSet<usize> =
            self.grants.iter().filter(|grant| grant.names(caller)).map(|grant| grant.role).collect();
        let positions: Arc<[usize]> = found.into_iter().collect();
        let mut kept = kept();
        if kept.len() >= CALLERS_KEPT_MAX {
            kept.clear();
        }
        kept.insert(caller.clone(), Arc::clone(&positions));
        positions
    }
}

impl Role {
    fn new(name: String, rules: Vec<Rule>) -> Self {
        let mut role = Self {
            name,
            rules: Vec::new(),
            exact: Default::default(),
            patterns: Default::default(),
            may_administer: false,
        };
        for rule in &rules {
            for permission in &rule.may {
                let Some(place) = place_of(*permission) else {
                    role.may_administer = true;
                    continue;
                };
                for topic in &rule.topics {
                    if topic.is_exact() {
                        role.exact[place].insert(topic.as_str().into());
                    } else {
                        role.patterns[place].push(topic.clone());
                    }
                }
            }
        }
        Self { rules, ..role }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its rules, in the file's order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether it allows this on a topic. Whoever may administer may do so whatever the topic.
    #[must_use]
    pub fn allows(&self, permission: Permission, topic: &str) -> bool {
        let Some(place) = place_of(permission) else { return self.may_administer };
        self.exact[place].contains(topic) || self.patterns[place].iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether it allows this on every topic there may be.
    #[must_use]
    pub fn allows_everywhere(&self, permission: Permission) -> bool {
        let Some(place) = place_of(permission) else { return self.may_administer };
        self.patterns[place].iter().any(Pattern::is_everything)
    }

    /// Whether it allows this on some topic.
    #[must_use]
    pub fn allows_somewhere(&self, permission: Permission) -> bool {
        let Some(place) = place_of(permission) else { return self.may_administer };
        !self.exact[place].is_empty() || !self.patterns[place].is_empty()
    }
}

/// The place of a permission of topics in the arrays of a role.
fn place_of(permission: Permission) -> Option<usize> {
    Permission::OF_TOPICS.iter().position(|of_topics| *of_topics == permission)
}

impl Grant {
    /// Whom it names.
    #[must_use]
    pub fn to(&self) -> &[Subject] {
        &self.to
    }

    fn names(&self, caller: &Caller) -> bool {
        self.to.iter().any(|subject| subject.names(caller))
    }
}

impl Subject {
    /// Whether this caller is meant.
    #[must_use]
    pub fn names(&self, caller: &Caller) -> bool {
        match self {
            Subject::Anonymous => caller.by() == Means::Anonymous,
            Subject::Group(pattern) => caller.groups().iter().any(|group| pattern.matches(group)),
            Subject::Named(by, pattern) => *by == caller.by() && pattern.matches(caller.name()),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Anonymous => f.write_str(Means::Anonymous.word()),
            Subject::Group(pattern) => write!(f, "group:{pattern}"),
            Subject::Named(by, pattern) => write!(f, "{}:{pattern}", by.word()),
        }
    }
}

impl PolicyError {
    fn at(line: u64, text: impl Into<String>) -> Self {
        Self { line: (line > 0).then_some(line), text: text.into() }
    }

    /// The line of the file, counted from 1, where it is known.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        self.line
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl std::error::Error for PolicyError {}

#[cfg(test)]
mod tests;
