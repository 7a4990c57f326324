//! A life of certificates, by the hour: nobody ever shows what another does not trust.

use super::*;
use crate::cluster::observation::OwnMade;
use crate::crd::{RaftQueue, RaftQueueSpec};
use std::collections::BTreeMap;

const DAY: i64 = 86_400;
const HOUR: i64 = 3_600;
const BEGIN: i64 = 1_800_000_000;

fn asked(replicas: i32) -> Asked {
    let mut object = RaftQueue::new("demo", RaftQueueSpec { replicas, ..RaftQueueSpec::default() });
    object.metadata.namespace = Some("shop".into());
    object.metadata.uid = Some("uid-1".into());
    crate::cluster::validate::asked(&object, "node:1")
}

/// What is in the Secrets, changed as orders say.
#[derive(Default)]
struct World {
    made: OwnMade,
    now: i64,
    count: u32,
    /// What each node has loaded: whom it trusts and who signed its own, as it was an hour ago.
    loaded: BTreeMap<String, (BTreeSet<String>, String)>,
}

impl World {
    fn at(now: i64) -> Self {
        Self { now, ..Self::default() }
    }

    fn orders(&self, asked: &Asked) -> Orders {
        let own_certificates = Some(self.made.clone());
        let seen = Observation { own_certificates, now_seconds: self.now, ..Observation::default() };
        orders(asked, &seen, asked.spec.replicas)
    }

    /// What is due is done, and looked at once more at once, as the operator does after each act. Returns what was due first.
    fn take(&mut self, asked: &Asked) -> Orders {
        let first = self.act(asked);
        self.act(asked);
        first
    }

    fn act(&mut self, asked: &Asked) -> Orders {
        let orders = self.orders(asked);
        let begins = self.now - BACKDATED_SECONDS;
        if orders.authority {
            self.count += 1;
            let id = format!("authority {}", self.count);
            let not_after = self.now + AUTHORITY_SECONDS;
            self.made.authority = Some(AuthoritySeen { pem: id.clone(), id, not_before: begins, not_after });
        }
        if !orders.is_empty() {
            let signing = self.made.authority.clone().unwrap();
            self.made.trusted.retain(|trusted| !orders.forget.contains(&trusted.id));
            if !self.made.trusted.contains(&signing) {
                self.made.trusted.push(signing.clone());
            }
            for holder in &orders.issue {
                let found = CertificateSeen {
                    issuer: signing.id.clone(),
                    names: holder.names.clone(),
                    not_before: begins,
                    not_after: self.now + CERTIFICATE_SECONDS,
                    ..CertificateSeen::default()
                };
                self.made.certificates.insert(holder.name.clone(), found);
            }
            for holder in &orders.drop {
                self.made.certificates.remove(holder);
            }
        }
        orders
    }

    /// An hour passes. Some nodes load at once, others only at its end.
    fn pass_an_hour(&mut self, what: &str) {
        let trusted: BTreeSet<String> = self.made.trusted.iter().map(|trusted| trusted.id.clone()).collect();
        let fresh: BTreeMap<String, (BTreeSet<String>, String)> = self
            .made
            .certificates
            .iter()
            .map(|(holder, found)| (holder.clone(), (trusted.clone(), found.issuer.clone())))
            .collect();
        for (one, (_, shown)) in self.loaded.iter().chain(&fresh) {
            for (other, (trusted, _)) in self.loaded.iter().chain(&fresh) {
                assert!(
                    trusted.contains(shown),
                    "{what}: {other} does not trust {one}, whom {shown} has signed"
                );
            }
        }
        for found in self.made.certificates.values() {
            assert!(self.now < found.not_after, "{what}: one has run out");
        }
        self.loaded = fresh;
        self.now += HOUR;
    }
}

#[test]
fn a_new_object_gets_everything_at_once_and_then_nothing() {
    let mut world = World::at(BEGIN);
    let orders = world.take(&asked(3));
    let names: Vec<&str> = orders.issue.iter().map(|holder| holder.name.as_str()).collect();
    assert_eq!((orders.authority, names), (true, vec!["demo-0", "demo-1", "demo-2", "operator"]));
    let [first, .., operator] = &orders.issue[..] else { panic!("{orders:?}") };
    for name in [
        "demo-0.demo-headless.shop.svc",
        "demo-0.demo-headless.shop.svc.cluster.local",
        "demo.shop.svc",
        "demo",
        "localhost",
        "127.0.0.1",
    ] {
        assert!(first.names.iter().any(|found| found == name), "{name}: {first:?}");
    }
    assert_eq!(first.names[0], "demo-0.demo-headless.shop.svc", "by which it is known");
    assert_eq!(operator.names[0], "operator.demo-headless.shop.svc", "beneath the domain of the nodes");
    assert_eq!(world.orders(&asked(3)), Orders::default());
}

#[test]
fn two_thirds_of_its_time_and_a_certificate_is_renewed_alone() {
    let mut world = World::at(BEGIN);
    world.take(&asked(3));
    // It began an hour before it was made.
    let due = BEGIN - BACKDATED_SECONDS + (CERTIFICATE_SECONDS + BACKDATED_SECONDS) * 2 / 3;
    world.now = due - 1;
    assert_eq!(world.orders(&asked(3)), Orders::default());
    world.now = due;
    let orders = world.orders(&asked(3));
    assert_eq!((orders.issue.len(), orders.authority, orders.trust), (4, false, false));
    assert!((59 * DAY..61 * DAY).contains(&(due - BEGIN)), "{}", due - BEGIN);
}

#[test]
fn twenty_years_pass_and_everybody_always_trusts_everybody() {
    let (asked, mut world) = (asked(3), World::at(BEGIN));
    let (mut authorities, mut issued) = (0, 0);
    // By hours where something happens, else by weeks.
    while world.now < BEGIN + 20 * 365 * DAY {
        let orders = world.take(&asked);
        authorities += u32::from(orders.authority);
        issued += orders.issue.len();
        world.pass_an_hour("renewal");
        let is_quiet = orders.is_empty() && world.made.trusted.len() == 1;
        world.now += if is_quiet { 7 * DAY } else { 0 };
    }
    assert_eq!(authorities, 3, "one more after each two thirds of ten years");
    assert!((4 * 100..4 * 130).contains(&issued), "{issued}");
    assert_eq!(world.made.trusted.len(), 1, "old ones are forgotten");
}

#[test]
fn a_lost_authority_is_replaced_and_the_old_one_trusted_until_nobody_needs_it() {
    let (asked, mut world) = (asked(3), World::at(BEGIN));
    world.take(&asked);
    for _ in 0..5 {
        world.pass_an_hour("calm");
    }
    world.made.authority = None;
    let first = world.take(&asked);
    assert_eq!(
        (first.authority, first.issue.len()),
        (true, 0),
        "what is good stays until all trust the new one"
    );
    assert_eq!(world.made.trusted.len(), 2);
    let mut hours = 0;
    while world.made.trusted.len() > 1 {
        world.pass_an_hour("a lost authority");
        world.take(&asked);
        hours += 1;
        assert!(hours < 6, "{:?}", world.made);
    }
    assert!(world.made.certificates.values().all(|found| found.issuer == "authority 2"));
}

#[test]
fn what_somebody_deletes_is_made_anew_at_once() {
    let (asked, mut world) = (asked(3), World::at(BEGIN));
    world.take(&asked);
    world.pass_an_hour("calm");
    world.made.certificates.remove("demo-1");
    let orders = world.orders(&asked);
    assert_eq!(orders.issue.iter().map(|holder| holder.name.as_str()).collect::<Vec<_>>(), ["demo-1"]);
    // The whole Secret of the pods.
    (world.made.trusted, world.made.certificates) = (Vec::new(), BTreeMap::new());
    let orders = world.orders(&asked);
    assert_eq!((orders.authority, orders.trust, orders.issue.len()), (false, true, 4));
}

#[test]
fn nodes_that_come_and_go_take_theirs_with_them() {
    let mut world = World::at(BEGIN);
    world.take(&asked(1));
    let more = world.take(&asked(3));
    assert_eq!(more.issue.len(), 2, "before their pods are made");
    let fewer = world.orders(&asked(1));
    assert_eq!((fewer.drop, fewer.issue), (vec!["demo-1".to_owned(), "demo-2".to_owned()], Vec::new()));
}

#[test]
fn a_certificate_for_other_names_is_another_one() {
    let (asked, mut world) = (asked(3), World::at(BEGIN));
    world.take(&asked);
    world.made.certificates.get_mut("demo-2").unwrap().names.pop();
    assert_eq!(world.orders(&asked).issue.len(), 1);
}

#[test]
fn a_wildcard_stands_for_one_label() {
    let of = |name: &str| CertificateSeen { names: vec![name.into()], ..CertificateSeen::default() };
    for (name, host, expected) in [
        ("*.demo.shop.svc", "a.demo.shop.svc", true),
        ("*.demo.shop.svc", "a.b.demo.shop.svc", false),
        ("*.demo.shop.svc", "demo.shop.svc", false),
        ("*.Demo.shop.svc", "a.demo.shop.svc", true),
        ("a.demo.shop.svc", "a.demo.shop.svc", true),
        ("", "a", false),
    ] {
        assert_eq!(of(name).is_for(host), expected, "{name} {host}");
    }
}
