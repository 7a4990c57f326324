//! Whose certificates are of this cluster: those of its nodes, and of its operator.
//!
//! An authority may issue certificates to others, too, such as to clients. So what counts is the name. Where nodes are found by DNS,
//! all names directly beneath their domain are the cluster's, and a node is who its certificate says: `demo-0` is
//! `demo-0.demo-headless.shop.svc`. Where addresses are listed, the hosts of that list are the cluster's, those of the members in the
//! configuration, and those that were named besides, for nodes that are to join. What somebody says of itself never counts: it would say
//! that it is found where its certificate is for.

use super::discovery::host_of;
use super::transport::Transport;
use raftqueue_raft::NodeId;
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
    /// Further hosts of nodes.
    hosts: Vec<String>,
    /// Knows where members are now.
    transport: OnceLock<Transport>,
}

impl fmt::Debug for Household {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Household").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Household {
    /// The nodes beneath this domain, or at these addresses, each HOST:PORT, by name, and on these further hosts.
    #[must_use]
    pub fn new(domain: Option<String>, listed: BTreeMap<String, String>, hosts: Vec<String>) -> Self {
        Self { domain, listed, hosts, transport: OnceLock::new() }
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
        let configured = || self.transport.get().map(Transport::configured_addresses).unwrap_or_default();
        self.domain.as_ref().is_some_and(|domain| identity.is_beneath(domain))
            || self.listed.values().any(is_at)
            || self.hosts.iter().any(|host| identity.is_valid_for(host))
            || configured().iter().any(is_at)
    }

    /// Why whoever shows this certificate is not the node of this id, which calls itself by this name; `None` if it may be.
    pub(crate) fn contradicts(&self, identity: &Identity, node: NodeId, name: &str) -> Option<String> {
        let configured = self.transport.get().and_then(|transport| transport.configured(node));
        if let Some((known, _)) = configured.as_ref().filter(|(known, _)| known != name) {
            return Some(format!("node {node} is called {known}, and this one says {name}"));
        }
        let address = configured.map(|(_, address)| address).filter(|address| !address.is_empty());
        let hosts: Vec<String> = match (&self.domain, self.listed.get(name), address) {
            (Some(domain), ..) => vec![format!("{name}.{domain}")],
            // It waits to be added, if it is anything.
            (None, None, None) => self.hosts.clone(),
            (None, listed, configured) => listed
                .cloned()
                .into_iter()
                .chain(configured)
                .map(|address| host_of(&address).to_owned())
                .collect(),
        };
        if hosts.iter().any(|host| identity.is_valid_for(host)) {
            return None;
        }
        let at = if hosts.is_empty() { "no host that is known here".into() } else { hosts.join(" or ") };
        Some(format!("its certificate is for {}, and node {name} is found at {at}", identity.told()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftqueue_tls::Keys;
    use raftqueue_tls::fake::Authority;

    const NODE: NodeId = NodeId(7);

    fn identity(authority: &Authority, names: &[&str]) -> Identity {
        let own = authority.issue(&names.join("-"), names, |_| {});
        Keys::load(authority.files(Some(own))).expect("right").identity().expect("its own")
    }

    #[test]
    fn with_dns_a_node_is_who_its_certificate_says_and_what_lies_beneath_the_domain_is_of_the_cluster() {
        let authority = Authority::new("one");
        let household = Household::new(Some("demo-headless.shop.svc".into()), BTreeMap::new(), Vec::new());
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
        assert_eq!(household.contradicts(&first, NODE, "demo-0"), None);
        assert_eq!(household.contradicts(&all, NODE, "demo-1"), None);
        let why = household.contradicts(&first, NODE, "demo-1").expect("it is another node");
        assert!(
            why.contains("is for demo-0.demo-headless.shop.svc, and node demo-1 is found at demo-1."),
            "{why}"
        );
        assert!(household.contradicts(&operator, NODE, "demo-0").is_some(), "the operator is no node");
    }

    #[test]
    fn with_a_list_a_node_is_found_where_that_says_and_a_further_one_where_it_may_join() {
        let authority = Authority::new("one");
        let listed = [("a", "10.0.0.1:7421"), ("b", "[fd00::2]:7421")];
        let listed = listed.map(|(name, at)| (name.to_owned(), at.to_owned())).into();
        let household = Household::new(None, listed, vec!["10.0.0.3".into()]);
        let (a, b) = (identity(&authority, &["10.0.0.1"]), identity(&authority, &["fd00::2"]));
        let (c, client) = (identity(&authority, &["10.0.0.3"]), identity(&authority, &["shop.example"]));
        assert!([&a, &b, &c].iter().all(|node| household.is_of_cluster(node)));
        assert!(!household.is_of_cluster(&client));
        assert_eq!(household.contradicts(&a, NODE, "a"), None);
        assert!(household.contradicts(&a, NODE, "b").is_some());
        assert_eq!(household.contradicts(&c, NODE, "c"), None, "it waits to be added");
        assert!(household.contradicts(&c, NODE, "a").is_some());
        assert!(household.contradicts(&client, NODE, "c").is_some());
        let nobody_joins = Household::new(None, BTreeMap::new(), Vec::new());
        let why = nobody_joins.contradicts(&client, NODE, "c").expect("nobody is known");
        assert!(why.contains("found at no host that is known here"), "{why}");
    }
}
