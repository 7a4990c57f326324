//! Whose certificates are of this cluster: those of its nodes, and of its operator.
//!
//! An authority may issue certificates to others, too, such as to clients. So what counts is the name. Where nodes are found by DNS,
//! all names directly beneath their domain are the cluster's, and a node is who its certificate says: `demo-0` is
//! `demo-0.demo-headless.shop.svc`. Where addresses are listed, those of the members are the cluster's, as far as this node knows them.

use super::transport::Transport;
use raftqueue_tls::Identity;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

/// See the module's header.
pub struct Household {
    /// The domain of the nodes' names, with DNS.
    domain: Option<String>,
    /// Where the list says that each node is found, by name.
    listed: BTreeMap<String, String>,
    /// Knows where members are now.
    transport: OnceLock<Transport>,
}

impl fmt::Debug for Household {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Household").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Household {
    /// The nodes beneath this domain, or at these addresses, each HOST:PORT.
    #[must_use]
    pub fn new(domain: Option<String>, listed: BTreeMap<String, String>) -> Self {
        Self { domain, listed, transport: OnceLock::new() }
    }

    /// From now on members count as well that this one knows of.
    pub(crate) fn know(&self, transport: Transport) {
        // Set once, when the node starts.
        let _ = self.transport.set(transport);
    }

    /// True if a certificate is of a member, or of the operator.
    #[must_use]
    pub fn is_of_cluster(&self, identity: &Identity) -> bool {
        let is_at = |address: &String| identity.is_valid_for(host_of(address));
        let known = || self.transport.get().map(Transport::member_addresses).unwrap_or_default();
        self.domain.as_ref().is_some_and(|domain| identity.is_beneath(domain))
            || self.listed.values().any(is_at)
            || known().iter().any(is_at)
    }

    /// Why whoever shows this certificate is not the node of this name which says that it is found at this address; `None` if it may be.
    pub(crate) fn contradicts(&self, identity: &Identity, name: &str, announced: &str) -> Option<String> {
        let hosts: Vec<String> = match (&self.domain, self.listed.get(name)) {
            (Some(domain), _) => vec![format!("{name}.{domain}")],
            (None, listed) => listed
                .into_iter()
                .map(String::as_str)
                .chain([announced])
                .map(host_of)
                .map(str::to_owned)
                .collect(),
        };
        if hosts.iter().any(|host| identity.is_valid_for(host)) {
            return None;
        }
        Some(format!(
            "its certificate is for {}, and node {name} is found at {}",
            identity.told(),
            hosts.join(" or ")
        ))
    }
}

/// The host of HOST:PORT.
pub(crate) fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftqueue_tls::Keys;
    use raftqueue_tls::fake::Authority;

    fn identity(authority: &Authority, names: &[&str]) -> Identity {
        let own = authority.issue(&names.join("-"), names, |_| {});
        Keys::load(authority.files(Some(own))).expect("right").identity().expect("its own")
    }

    #[test]
    fn with_dns_a_node_is_who_its_certificate_says_and_what_lies_beneath_the_domain_is_of_the_cluster() {
        let authority = Authority::new("one");
        let household = Household::new(Some("demo-headless.shop.svc".into()), BTreeMap::new());
        let first = identity(&authority, &["demo-0.demo-headless.shop.svc"]);
        let all = identity(&authority, &["*.demo-headless.shop.svc"]);
        let operator = identity(&authority, &["operator.demo-headless.shop.svc"]);
        for (who, is_of_cluster) in [
            (&first, true),
            (&all, true),
            (&operator, true),
            (&identity(&authority, &["shop.example"]), false),
            (&identity(&authority, &["demo-headless.shop.svc"]), false),
            (&identity(&authority, &["demo-0.other-headless.shop.svc"]), false),
            (&identity(&authority, &["demo-0.demo-headless.bills.svc"]), false),
            (&identity(&authority, &["a.demo-0.demo-headless.shop.svc"]), false),
        ] {
            assert_eq!(household.is_of_cluster(who), is_of_cluster, "{}", who.told());
        }
        assert_eq!(
            household.contradicts(&first, "demo-0", "10.0.0.9:7421"),
            None,
            "where it is does not matter"
        );
        assert_eq!(household.contradicts(&all, "demo-1", ""), None);
        let why = household.contradicts(&first, "demo-1", "demo-0.demo-headless.shop.svc:7421");
        let why = why.expect("it is another node");
        assert!(
            why.contains("is for demo-0.demo-headless.shop.svc, and node demo-1 is found at demo-1."),
            "{why}"
        );
        assert!(household.contradicts(&operator, "demo-0", "").is_some(), "the operator is no node");
    }

    #[test]
    fn with_a_list_a_node_is_found_where_that_says_or_where_it_says_itself() {
        let authority = Authority::new("one");
        let listed = [("a", "10.0.0.1:7421"), ("b", "[fd00::2]:7421")];
        let listed = listed.map(|(name, at)| (name.to_owned(), at.to_owned())).into();
        let household = Household::new(None, listed);
        let (a, b) = (identity(&authority, &["10.0.0.1"]), identity(&authority, &["fd00::2"]));
        let (c, client) = (identity(&authority, &["10.0.0.3"]), identity(&authority, &["shop.example"]));
        assert!(household.is_of_cluster(&a) && household.is_of_cluster(&b));
        assert!(!household.is_of_cluster(&c) && !household.is_of_cluster(&client));
        assert_eq!(household.contradicts(&a, "a", ""), None);
        assert!(household.contradicts(&a, "b", "[fd00::2]:7421").is_some());
        // It waits to be added: it may say so of itself, and of nobody else.
        assert_eq!(household.contradicts(&c, "c", "10.0.0.3:7421"), None);
        assert!(household.contradicts(&client, "c", "10.0.0.3:7421").is_some());
    }
}
