//! The way from one stage to another, of clusters made by hand.

use super::*;
use crate::cluster::observation::{CertificateSeen, KindSeen, NodeSeen, PodSeen};
use crate::crd::{IssuerRef, RaftQueue, RaftQueueSpec};
use TlsStage::{Off, Optional, Required};

fn asked(tls: Option<Tls>) -> Asked {
    let spec = RaftQueueSpec { tls, ..RaftQueueSpec::default() };
    let mut object = RaftQueue::new("demo", spec);
    object.metadata.namespace = Some("shop".into());
    object.metadata.uid = Some("uid-1".into());
    crate::cluster::validate::asked(&object, "node:1")
}

fn tls(mode: TlsMode, clients: TlsStage) -> Option<Tls> {
    let secret_name = (mode == TlsMode::Secret).then(|| "own".to_owned());
    let issuer = IssuerRef { name: "ca".into(), kind: "Issuer".into(), group: "cert-manager.io".into() };
    let issuer_ref = (mode == TlsMode::CertManager).then_some(issuer);
    Some(Tls { mode, secret_name, issuer_ref, clients })
}

fn auth() -> Option<Auth> {
    Some(Auth { config_map_name: "grants".into(), tokens_secret_name: None, token_review: false })
}

fn made(source: Option<Source>, peers: TlsStage, clients: TlsStage) -> Encryption {
    Encryption { source, peers, clients, auth: None }
}

fn pod(made: &Encryption) -> PodSeen {
    PodSeen {
        uid: "u".into(),
        revision: None,
        restarted: None,
        ready: true,
        deleting: false,
        trouble: None,
        encryption: PodEncryption {
            secret: made.source.as_ref().map(|source| source.secret("demo")),
            peers: made.peers,
            clients: made.clients,
            has_auth: made.auth.is_some(),
        },
        address: None,
        node: NodeSeen::NotAsked,
    }
}

fn with_pods(pods: &[&Encryption]) -> Observation {
    let pods = pods.iter().enumerate().map(|(ordinal, made)| (format!("demo-{ordinal}"), pod(made)));
    let certificate = CertificateSeen {
        names: vec!["*.demo-headless.shop.svc".into()],
        not_after: 1_000,
        ..Default::default()
    };
    Observation {
        pods: pods.collect(),
        secrets: ["own", "demo-cert-manager"]
            .map(|secret| (secret.to_owned(), SecretSeen::Usable(certificate.clone())))
            .into(),
        ..Observation::default()
    }
}

/// Restarts one pod after the other until nothing changes; every two pods that are there at one time must understand each other, and
/// the stages are returned.
fn live(asked: &Asked, from: &Encryption) -> Vec<Encryption> {
    let (mut pods, mut template) = (vec![from.clone(); 3], from.clone());
    let mut stages = vec![from.clone()];
    for _ in 0..30 {
        let seen = with_pods(&pods.iter().collect::<Vec<_>>());
        for made in pods.iter().chain([&template]) {
            for (name, other) in &seen.pods {
                assert!(made.fits("demo", &other.encryption), "{made:?} and {name} {other:?}");
            }
        }
        let turn = decide(asked, &seen, Some(&template), 3);
        if turn.now != template {
            template = turn.now.clone();
            stages.push(template.clone());
        }
        match pods.iter_mut().find(|made| **made != template) {
            Some(older) => older.clone_from(&template),
            None if turn.is_under_way() => {}
            None => return stages,
        }
    }
    panic!("it never ends: {stages:?}");
}

fn steps(asked: &Asked, from: &Encryption) -> Vec<(TlsStage, TlsStage, bool)> {
    live(asked, from).iter().map(|made| (made.peers, made.clients, made.auth.is_some())).collect()
}

#[test]
fn every_way_passes_only_neighbours_and_ends_as_asked() {
    let open = Encryption::default();
    let auto = |clients| made(Some(Source::Auto), Required, clients);
    let off = (Off, Off, false);
    let to = |clients| asked(tls(TlsMode::Auto, clients));
    assert_eq!(steps(&to(Off), &open), [off, (Optional, Off, false), (Required, Off, false)]);
    assert_eq!(steps(&to(Required), &open), [off, (Optional, Optional, false), (Required, Required, false)]);
    assert_eq!(steps(&to(Optional), &auto(Off)), [(Required, Off, false), (Required, Optional, false)]);
    let down = steps(&asked(tls(TlsMode::Off, Off)), &auto(Required));
    assert_eq!(down, [(Required, Required, false), (Optional, Optional, false), off]);
    assert_eq!(steps(&to(Off), &auto(Off)).len(), 1, "nothing is due");
}

/// Nodes that trust other authorities would not talk to each other.
#[test]
fn certificates_of_another_kind_come_by_way_of_none() {
    let stages = live(&asked(tls(TlsMode::Secret, Off)), &made(Some(Source::Auto), Required, Off));
    let told: Vec<_> = stages.iter().map(|made| (made.source.clone(), made.peers)).collect();
    let own = || Some(Source::Secret("own".into()));
    assert_eq!(
        told,
        [
            (Some(Source::Auto), Required),
            (Some(Source::Auto), Optional),
            (None, Off),
            (own(), Optional),
            (own(), Required)
        ]
    );
}

/// A node that asks who somebody is refuses calls that another node passes on in the open.
#[test]
fn nodes_ask_who_may_do_what_only_once_all_of_them_show_who_they_are() {
    let mut asks = asked(tls(TlsMode::Auto, Off));
    asks.spec.auth = auth();
    assert_eq!(
        steps(&asks, &Encryption::default()),
        [(Off, Off, false), (Optional, Optional, false), (Required, Optional, true)]
    );
    let asking = Encryption { auth: auth(), ..made(Some(Source::Auto), Required, Optional) };
    let end = steps(&asked(tls(TlsMode::Off, Off)), &asking);
    assert_eq!(end, [(Required, Optional, true), (Optional, Optional, false), (Off, Off, false)]);
    // Without certificates nobody could show anything: it is told.
    let mut open = asked(None);
    (open.spec.auth, open.encryption_kept) = (auth(), Some(Encryption::default()));
    let turn = decide(&open, &with_pods(&[&Encryption::default()]), None, 1);
    assert_eq!((turn.now.auth, turn.blocked.unwrap().0), (None, Reason::ConfigRefused));
}

#[test]
fn what_forms_is_encrypted_and_what_is_there_stays_as_it_is() {
    let nothing = Observation::default();
    let (left_out, auto) = (asked(None), made(Some(Source::Auto), Required, Off));
    let fresh = decide(&left_out, &nothing, None, 3);
    assert_eq!((fresh.now.clone(), fresh.is_open_by_age), (auto.clone(), false), "at once, without stages");
    // Older: its status names no encryption, its set and its pods have none.
    let id = crate::cluster::observation::ClusterId::parse(&"7".repeat(32));
    let open = Encryption::default();
    let older = Asked { latched: id, ..left_out.clone() };
    let pods = with_pods(&[&open, &open, &open]);
    for (asked, seen, template) in
        [(&older, &nothing, None), (&left_out, &pods, None), (&left_out, &nothing, Some(&open))]
    {
        let turn = decide(asked, seen, template, 3);
        assert_eq!((turn.now, turn.is_open_by_age), (open.clone(), true));
    }
    // And what was encrypted stays that, whichever of its memories is left.
    let by_status = Encryption::of_status("demo", &auto.status("demo")).unwrap();
    let told = Asked { encryption_kept: Some(by_status), ..older };
    let pods = with_pods(&[&auto, &auto, &auto]);
    for (asked, seen, template) in
        [(&told, &nothing, None), (&left_out, &pods, None), (&left_out, &nothing, Some(&auto))]
    {
        assert_eq!(decide(asked, seen, template, 3).now, auto);
    }
}

#[test]
fn without_usable_certificates_nothing_is_begun() {
    let wants = asked(tls(TlsMode::Secret, Off));
    let open = Encryption::default();
    let with = |secret: SecretSeen| {
        let mut seen = with_pods(&[&open, &open, &open]);
        seen.secrets.insert("own".into(), secret);
        decide(&wants, &seen, Some(&open), 3)
    };
    let certificate = |names: &str, not_after| {
        SecretSeen::Usable(CertificateSeen { names: vec![names.into()], not_after, ..Default::default() })
    };
    for (secret, words) in [
        (SecretSeen::Missing, "kubectl create secret generic -n shop own"),
        (SecretSeen::Unusable("it lacks ca.crt".into()), "cannot be used: it lacks ca.crt"),
        (certificate("*.demo-headless.shop.svc", 0), "has run out"),
        (certificate("*.other.shop.svc", 9), "is not for demo-0.demo-headless.shop.svc"),
        (certificate("demo-0.demo-headless.shop.svc", 9), "is not for demo-1.demo-headless.shop.svc"),
    ] {
        let turn = with(secret);
        let (reason, message) = turn.blocked.clone().unwrap();
        assert_eq!((turn.now, reason), (open.clone(), Reason::CertificatesMissing), "{message}");
        assert!(message.contains(words), "{message}");
        assert!(!turn.is_unstartable, "pods that are open need none");
    }
    assert_eq!(with(certificate("*.demo-headless.shop.svc", 9)).now.peers, Optional);
    // Pods that have such certificates and those that are made anew cannot start.
    let encrypted = made(Some(Source::Secret("own".into())), Required, Off);
    let mut seen = with_pods(&[&encrypted, &encrypted, &encrypted]);
    seen.secrets.insert("own".into(), SecretSeen::Missing);
    let turn = decide(&wants, &seen, Some(&encrypted), 3);
    assert!(turn.is_unstartable && turn.now == encrypted, "{turn:?}");
    assert!(decide(&wants, &Observation::default(), None, 3).is_unstartable, "nor a first one");
}

#[test]
fn cert_manager_must_be_there() {
    let wants = asked(tls(TlsMode::CertManager, Off));
    let open = Encryption::default();
    for (kind, words) in
        [(KindSeen::Unknown, "Install cert-manager"), (KindSeen::Forbidden, "kubectl apply -k deploy")]
    {
        let seen = Observation { certificates: kind, ..with_pods(&[&open, &open, &open]) };
        let turn = decide(&wants, &seen, Some(&open), 3);
        let (reason, message) = turn.blocked.unwrap();
        assert_eq!((turn.now, reason), (open.clone(), Reason::KindUnusable));
        assert!(message.contains(words), "{message}");
    }
    let seen = with_pods(&[&open, &open, &open]);
    assert_eq!(decide(&wants, &seen, Some(&open), 3).now.peers, Optional);
}

#[test]
fn one_node_needs_no_stages() {
    let open = Encryption::default();
    let turn = decide(&asked(tls(TlsMode::Auto, Required)), &with_pods(&[&open]), Some(&open), 1);
    assert_eq!(turn.now, made(Some(Source::Auto), Required, Required));
}
