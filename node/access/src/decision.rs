//! Whether a caller may do something, and if not, which rule is missing.

use crate::caller::{Caller, Means};
use crate::permission::{Permission, Target};
use crate::policy::{Policy, Role};
use crate::words::shown;
use std::fmt;
use std::sync::Arc;

/// How many of a caller's roles a refusal names.
const ROLES_NAMED_MAX: usize = 5;

/// What the policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It may, by this role; by `node` if it is the cluster itself.
    Allowed {
        /// The first of its roles that allows it.
        role: &'a str,
    },
    /// It may not.
    Denied(Box<Denied>),
}

/// A refusal: its text says who, what, and which rule is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    caller: Caller,
    permission: Permission,
    on: On,
    /// Names of the caller's roles, as many as are named.
    roles: Vec<String>,
    roles_count: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum On {
    Topic(String),
    /// Some topic, whichever.
    SomeTopic,
    /// Every topic there may be.
    EveryTopic,
    Cluster,
}

/// What a caller may do on which topics, looked up once: for lists.
#[derive(Debug)]
pub struct Filter<'a> {
    policy: &'a Policy,
    permission: Permission,
    /// `None`: the cluster itself, which may do everything.
    roles: Option<Arc<[usize]>>,
}

impl Policy {
    /// Whether a caller may do this.
    ///
    /// Nothing is allocated where it may and was asked about lately; it takes time in proportion to the caller's roles and
    /// their patterns that have a `*`.
    #[must_use]
    pub fn decide(&self, caller: &Caller, permission: Permission, target: Target<'_>) -> Decision<'_> {
        let allows = |role: &Role| match target {
            Target::Topic(topic) => role.allows(permission, topic),
            Target::Cluster => role.allows_everywhere(permission),
        };
        let on = || match target {
            _ if permission == Permission::Administer => On::Cluster,
            Target::Topic(topic) => On::Topic(topic.to_owned()),
            Target::Cluster => On::EveryTopic,
        };
        self.first_of(caller, permission, allows, on)
    }

    /// Whether a caller may do this on some topic at all. For questions that name none, as for a list: what is in the answer
    /// must then be [filtered](Policy::filter).
    #[must_use]
    pub fn may_any(&self, caller: &Caller, permission: Permission) -> Decision<'_> {
        let on = || if permission == Permission::Administer { On::Cluster } else { On::SomeTopic };
        self.first_of(caller, permission, |role| role.allows_somewhere(permission), on)
    }

    /// On which topics a caller may do this.
    #[must_use]
    pub fn filter(&self, caller: &Caller, permission: Permission) -> Filter<'_> {
        let roles = (caller.by() != Means::Node).then(|| self.positions_of(caller));
        Filter { policy: self, permission, roles }
    }

    fn first_of(
        &self,
        caller: &Caller,
        permission: Permission,
        allows: impl Fn(&Role) -> bool,
        on: impl FnOnce() -> On,
    ) -> Decision<'_> {
        if caller.by() == Means::Node {
            return Decision::Allowed { role: Means::Node.word() };
        }
        let positions = self.positions_of(caller);
        let roles = || positions.iter().map(|position| &self.roles()[*position]);
        match roles().find(|role| allows(role)) {
            Some(role) => Decision::Allowed { role: role.name() },
            None => Decision::Denied(Box::new(Denied {
                caller: caller.clone(),
                permission,
                on: on(),
                roles: roles().take(ROLES_NAMED_MAX).map(|role| role.name().to_owned()).collect(),
                roles_count: positions.len(),
            })),
        }
    }
}

impl Filter<'_> {
    /// Whether the caller may do it on this topic.
    #[must_use]
    pub fn allows(&self, topic: &str) -> bool {
        let Some(roles) = &self.roles else { return true };
        roles.iter().any(|position| self.policy.roles()[*position].allows(self.permission, topic))
    }

    /// Whether the caller may do it on every topic there may be: then nothing needs to be asked one by one.
    #[must_use]
    pub fn allows_everything(&self) -> bool {
        let Some(roles) = &self.roles else { return true };
        roles.iter().any(|position| self.policy.roles()[*position].allows_everywhere(self.permission))
    }
}

impl Decision<'_> {
    /// Whether it may.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allowed { .. })
    }

    /// The refusal as an error.
    ///
    /// # Errors
    /// [`Denied`] if it may not; the caller of the API gets its text as PERMISSION_DENIED.
    pub fn or_denied(self) -> Result<(), Box<Denied>> {
        match self {
            Decision::Allowed { .. } => Ok(()),
            Decision::Denied(denied) => Err(denied),
        }
    }
}

impl Denied {
    /// Who may not.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What it may not.
    #[must_use]
    pub fn permission(&self) -> Permission {
        self.permission
    }

    /// On which topic, if it was about one.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        match &self.on {
            On::Topic(topic) => Some(topic),
            _ => None,
        }
    }

    /// A rule that would allow it, as it would stand in the policy.
    fn missing_rule(&self) -> String {
        let topics = match &self.on {
            On::Topic(topic) => Some(in_yaml(&shown(topic))),
            On::SomeTopic => Some("TOPIC".to_owned()),
            On::EveryTopic => Some("\"*\"".to_owned()),
            On::Cluster => None,
        };
        match topics {
            Some(topics) => format!("{{topics: [{topics}], may: [{}]}}", self.permission),
            None => format!("{{may: [{}]}}", self.permission),
        }
    }
}

/// A text as it may stand in a list of YAML.
fn in_yaml(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    if is_plain { text.to_owned() } else { format!("{text:?}") }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} may not {}", self.caller, self.permission.verb())?;
        match &self.on {
            On::Topic(topic) => write!(f, " `{}`", shown(topic))?,
            On::SomeTopic => f.write_str(" any topic")?,
            On::EveryTopic => f.write_str(" every topic")?,
            On::Cluster => f.write_str(" the cluster")?,
        }
        let rule = self.missing_rule();
        if self.roles.is_empty() {
            let caller = in_yaml(&self.caller.to_string());
            write!(
                f,
                ": no grant gives it a role; a grant {{role: ROLE, to: [{caller}]}} of a role with the rule {rule} would allow it"
            )?;
            if self.caller.by() == Means::Anonymous {
                f.write_str(", or show credentials")?;
            }
            return Ok(());
        }
        write!(f, ": none of its roles ({}", self.roles.join(", "))?;
        if let more @ 1.. = self.roles_count - self.roles.len() {
            write!(f, " and {more} more")?;
        }
        write!(f, ") allows it; a rule {rule} in one of them would")
    }
}

impl std::error::Error for Denied {}
