//! The certificates that the operator makes: which there are to be, and what is due. PURE: the moment is an argument, and keys are made
//! elsewhere ([`crate::cluster::apply`]).
//!
//! There is one authority (ten years) in a Secret that no pod has, and a certificate (ninety days) for each node and one for the operator
//! in a Secret that every pod has. What has gone two thirds of its time is made anew. Nodes load what changes without a restart, but not
//! all in the same moment: a new authority is trusted by everybody for an hour before it signs, and the old one for an hour after the
//! last certificate of its has gone. Whatever somebody deletes from either Secret is made anew.

use crate::cluster::observation::{AuthoritySeen, CertificateSeen, Observation, OwnMade, SecretSeen};
use crate::cluster::validate::Asked;
use crate::names;
use std::collections::BTreeSet;

/// How long an authority lasts, in seconds: ten years. It signs for two thirds of that.
pub const AUTHORITY_SECONDS: i64 = 3_650 * 86_400;
/// How long a certificate lasts, in seconds: ninety days.
pub const CERTIFICATE_SECONDS: i64 = 90 * 86_400;
/// How far before the moment in which it is made a certificate begins, in seconds: the clocks of machines differ.
pub const BACKDATED_SECONDS: i64 = 3_600;
/// How long after a change of the Secret every node has it for sure, in seconds. Kubernetes takes a minute or two.
pub const SPREAD_SECONDS: i64 = 3_600;
/// The holder that is no node.
pub const OPERATOR: &str = "operator";
/// The file with the authorities that are trusted.
pub const AUTHORITY_FILE: &str = "ca.crt";
/// The file with the key of the authority.
pub const AUTHORITY_KEY_FILE: &str = "ca.key";

/// Somebody who gets a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The name of its files, without `.crt` and `.key`.
    pub name: String,
    /// DNS names and addresses that the certificate is for; the first is by whom it is known.
    pub names: Vec<String>,
}

/// What is due about the certificates. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// A new authority is made.
    pub authority: bool,
    /// Authorities that are trusted no longer, by their ids.
    pub forget: Vec<String>,
    /// Certificates that are made.
    pub issue: Vec<Holder>,
    /// Holders that are gone.
    pub drop: Vec<String>,
    /// What is trusted does not name the authority that signs.
    pub trust: bool,
    /// The Secrets were left behind by an earlier object, and become those of this one.
    pub adopt: bool,
}

impl Orders {
    /// Whether nothing is due.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everybody who gets a certificate, of so many pods.
#[must_use]
pub fn holders(asked: &Asked, pods: i32) -> Vec<Holder> {
    let domain = names::domain(&asked.name, &asked.namespace);
    let both = |host: String| [host.clone(), format!("{host}.cluster.local")];
    let (name, namespace) = (&asked.name, &asked.namespace);
    let of_node = |node: String| {
        let mut all: Vec<String> = both(format!("{node}.{domain}")).into();
        // The client service, as it is called from near and far, and the pod itself.
        all.extend(both(format!("{name}.{namespace}.svc")));
        all.extend([format!("{name}.{namespace}"), name.clone(), "localhost".into(), "127.0.0.1".into()]);
        Holder { name: node, names: all }
    };
    let mut holders: Vec<Holder> = asked.nodes(pods).into_iter().map(of_node).collect();
    holders.push(Holder { name: OPERATOR.into(), names: both(format!("{OPERATOR}.{domain}")).into() });
    holders
}

/// What is due, for so many pods.
#[must_use]
pub fn orders(asked: &Asked, seen: &Observation, pods: i32) -> Orders {
    let made = seen.own_certificates.clone().unwrap_or_default();
    let now = seen.now_seconds;
    let holders = holders(asked, pods.max(asked.spec.replicas));
    let mut orders = Orders { adopt: made.is_left_behind, ..Orders::default() };
    let signing =
        made.authority.as_ref().filter(|authority| !is_due(authority.not_before, authority.not_after, now));
    let Some(signing) = signing else {
        orders.authority = true;
        // It signs at once for those who have nothing, and for the others once everybody trusts it.
        orders.issue = holders.into_iter().filter(|holder| !is_usable(&made, holder, now)).collect();
        return orders;
    };
    orders.trust = !made.trusted.iter().any(|trusted| trusted.id == signing.id);
    let is_spread = !orders.trust && now >= made_at(signing.not_before) + SPREAD_SECONDS;
    let is_first = made.trusted.iter().all(|trusted| trusted.id == signing.id);
    let is_wanted = |holder: &Holder| {
        let found = made.certificates.get(&holder.name).filter(|_| is_usable(&made, holder, now));
        found.is_none_or(|found| {
            let is_older = found.issuer != signing.id || is_due(found.not_before, found.not_after, now);
            is_older && (is_spread || is_first)
        })
    };
    let known: BTreeSet<&String> = holders.iter().map(|holder| &holder.name).collect();
    let is_gone = |name: &&String| !known.contains(name) && !seen.pods.contains_key(name.as_str());
    orders.drop = made.certificates.keys().filter(is_gone).cloned().collect();
    let is_last_gone = holders.iter().all(|holder| {
        made.certificates.get(&holder.name).is_some_and(|found| {
            found.issuer == signing.id && now >= made_at(found.not_before) + SPREAD_SECONDS
        })
    });
    let others = made.trusted.iter().filter(|trusted| trusted.id != signing.id);
    orders.forget = others.filter(|_| is_last_gone).map(|trusted| trusted.id.clone()).collect();
    orders.issue = holders.into_iter().filter(is_wanted).collect();
    orders
}

/// When the first of these certificates runs out, in seconds since 1970.
#[must_use]
pub fn expires(seen: &Observation, secret: &str) -> Option<i64> {
    match seen.secrets.get(secret) {
        Some(SecretSeen::Usable(certificate)) => Some(certificate.not_after),
        _ => {
            let made = seen.own_certificates.as_ref().filter(|made| made.secret == secret)?;
            let authority = made.authority.iter().map(|authority| authority.not_after);
            made.certificates.values().map(|found| found.not_after).chain(authority).min()
        }
    }
}

/// Whether a holder has a certificate that everybody takes, for all its names and now.
fn is_usable(made: &OwnMade, holder: &Holder, now: i64) -> bool {
    made.certificates.get(&holder.name).is_some_and(|found| {
        let is_trusted =
            made.trusted.iter().any(|trusted| trusted.id == found.issuer && now < trusted.not_after);
        is_trusted && now < found.not_after && has_names(found, holder)
    })
}

fn has_names(found: &CertificateSeen, holder: &Holder) -> bool {
    let (found, wanted): (BTreeSet<&String>, BTreeSet<&String>) =
        (found.names.iter().collect(), holder.names.iter().collect());
    found == wanted
}

/// Whether two thirds of its time have gone.
fn is_due(not_before: i64, not_after: i64, now: i64) -> bool {
    now >= not_before.saturating_add(not_after.saturating_sub(not_before).saturating_mul(2) / 3)
}

/// When something was made that begins then.
fn made_at(not_before: i64) -> i64 {
    not_before.saturating_add(BACKDATED_SECONDS)
}

impl AuthoritySeen {
    /// The authority with this certificate.
    #[must_use]
    pub fn of(certificate: &CertificateSeen, pem: &str) -> Self {
        Self {
            id: certificate.id.clone(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            pem: pem.to_owned(),
        }
    }
}

impl CertificateSeen {
    /// Whether it is for this host, by its name or by a wildcard for its first label.
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| {
            let name = name.to_ascii_lowercase();
            name == host || name.strip_prefix("*.").is_some_and(|domain| Some(domain) == parent)
        })
    }
}

#[cfg(test)]
mod tests;
