//! What is encrypted, as it becomes part of a plan.

use super::super::Shape;
use super::*;
use crate::cluster::encryption::{Encryption, PodEncryption, Source};
use crate::cluster::observation::{OwnMade, SecretSeen};
use crate::crd::{IssuerRef, Phase, Reason, Tls, TlsMode, TlsStage};

fn with_tls(asked: Asked, mode: TlsMode) -> Asked {
    let secret_name = (mode == TlsMode::Secret).then(|| "own".to_owned());
    let tls = Tls { mode, secret_name, ..Tls::default() };
    Asked { spec: RaftQueueSpec { tls: Some(tls), ..asked.spec.clone() }, ..asked }
}

fn said(plan: &Plan, about: ConditionType) -> (Truth, Reason) {
    let finding = found(plan, about);
    (finding.holds, finding.reason)
}

/// All pods speak so, and nothing else remembers it.
fn speaking(mut seen: Observation, peers: TlsStage, secret: Option<&str>) -> Observation {
    for pod in seen.pods.values_mut() {
        pod.encryption =
            PodEncryption { secret: secret.map(str::to_owned), peers, ..PodEncryption::default() };
    }
    seen
}

fn encryption(plan: &Plan) -> Option<Encryption> {
    plan.shape.as_ref().map(|shape: &Shape| shape.encryption.clone())
}

#[test]
fn a_new_object_is_encrypted_and_its_certificates_are_made_with_it() {
    let plan = planned(&demo(3), &Observation::default());
    let encryption = encryption(&plan).unwrap();
    assert_eq!((encryption.source, encryption.peers), (Some(Source::Auto), TlsStage::Required));
    assert!(plan.certificates.authority && plan.certificates.issue.len() == 4, "{:?}", plan.certificates);
    assert_eq!(said(&plan, ConditionType::Encrypted), (Truth::True, Reason::AsAsked));
}

/// An upgrade of the operator restarts nothing and makes nothing: it is told how it could be encrypted, and no more.
#[test]
fn an_older_cluster_stays_open_and_ready_and_is_told_how_it_could_be_encrypted() {
    let id = cluster(7);
    let plan = planned(&latched(3, id), &well(3, id));
    assert_eq!(encryption(&plan), Some(Encryption::default()));
    assert!(plan.certificates.is_empty() && plan.step.is_none());
    assert_eq!(said(&plan, ConditionType::Ready), (Truth::True, Reason::AsAsked));
    assert_eq!(said(&plan, ConditionType::Encrypted), (Truth::False, Reason::OpenByAge));
    let message = &found(&plan, ConditionType::Encrypted).message;
    let command =
        r#"kubectl patch raftqueue -n shop demo --type=merge -p '{"spec":{"tls":{"mode":"Auto"}}}'"#;
    assert!(message.contains(command), "{message}");
    let chosen = planned(&with_tls(latched(3, id), TlsMode::Off), &well(3, id));
    assert_eq!(said(&chosen, ConditionType::Encrypted), (Truth::False, Reason::OpenByChoice));
}

#[test]
fn a_cluster_on_its_way_is_not_ready_and_tells_the_end() {
    let id = cluster(7);
    let plan = planned(&with_tls(latched(3, id), TlsMode::Auto), &well(3, id));
    assert_eq!(encryption(&plan).unwrap().peers, TlsStage::Optional);
    assert_eq!(plan.certificates.issue.len(), 4, "before pods need them");
    assert_eq!(said(&plan, ConditionType::Ready), (Truth::False, Reason::TlsChanging));
    assert_eq!(said(&plan, ConditionType::Progressing), (Truth::True, Reason::TlsChanging));
    assert_eq!(said(&plan, ConditionType::Encrypted), (Truth::False, Reason::TlsChanging));
    let last = plan.ahead.last().unwrap();
    assert!(last.contains("peers TLS only, clients plain"), "{last}");
    let there = speaking(well(3, id), TlsStage::Required, Some("demo-node-tls"));
    let plan = planned(&with_tls(latched(3, id), TlsMode::Auto), &there);
    assert_eq!(said(&plan, ConditionType::Encrypted), (Truth::True, Reason::AsAsked));
    assert_eq!((plan.phase, plan.ahead), (Phase::Ready, Vec::new()));
}

#[test]
fn certificates_that_are_not_there_hold_up_what_needs_them_and_are_told() {
    let id = cluster(7);
    let missing =
        |seen: Observation| Observation { secrets: [("own".to_owned(), SecretSeen::Missing)].into(), ..seen };
    let fresh = planned(&with_tls(demo(3), TlsMode::Secret), &missing(Observation::default()));
    let is_held = |plan: &Plan| plan.shape.as_ref().is_some_and(|shape| shape.is_set_held);
    assert_eq!((is_held(&fresh), fresh.phase), (true, Phase::Pending), "no pod is made that could not start");
    let open = planned(&with_tls(latched(3, id), TlsMode::Secret), &missing(well(3, id)));
    assert_eq!(encryption(&open), Some(Encryption::default()), "it goes on as it is");
    assert!(!is_held(&open));
    for plan in [&fresh, &open] {
        for (about, holds) in [
            (ConditionType::Ready, Truth::False),
            (ConditionType::Degraded, Truth::True),
            (ConditionType::SpecAccepted, Truth::False),
            (ConditionType::Encrypted, Truth::False),
        ] {
            assert_eq!(said(plan, about), (holds, Reason::CertificatesMissing), "{about}");
        }
    }
    // A pod that needs them to start again is not restarted, whatever for.
    let mut seen = missing(speaking(well(3, id), TlsStage::Required, Some("own")));
    seen.pods.get_mut("demo-2").unwrap().revision = Some("demo-old".into());
    let plan = planned(&with_tls(latched(3, id), TlsMode::Secret), &seen);
    assert_eq!(plan.step, None);
    assert!(plan.ahead[0].starts_with("wait for the certificates"), "{:?}", plan.ahead);
    let open = speaking(seen, TlsStage::Off, None);
    assert!(planned(&latched(3, id), &open).step.is_some(), "else it is");
}

/// Seen: a new object waited for cert-manager, which nobody had asked.
#[test]
fn cert_manager_is_asked_before_there_are_pods() {
    let mut asked = with_tls(demo(3), TlsMode::CertManager);
    let issuer = IssuerRef { name: "ca".into(), kind: "Issuer".into(), group: "cert-manager.io".into() };
    asked.spec.tls.as_mut().unwrap().issuer_ref = Some(issuer);
    let plan = planned(&asked, &Observation::default());
    let shape = plan.shape.unwrap();
    assert!(shape.is_set_held && shape.is_asked_of_cert_manager);
    let children = crate::cluster::build::build(&asked, &shape);
    assert!(children.is_set_held && children.certificate.is_some());
}

#[test]
fn certificates_are_made_only_by_an_operator_that_may_act() {
    let id = cluster(7);
    let seen = speaking(well(3, id), TlsStage::Required, Some("demo-node-tls"));
    let mut paused = latched(3, id);
    paused.spec.paused = true;
    assert!(planned(&paused, &seen).certificates.is_empty());
    let mut paused = with_tls(latched(3, id), TlsMode::Off);
    assert_eq!(planned(&paused, &seen).encryption.peers, TlsStage::Optional);
    paused.spec.paused = true;
    assert_eq!(planned(&paused, &seen).encryption.peers, TlsStage::Required, "pods are made as before");
    let mut even = latched(3, id);
    even.spec.replicas = 2;
    assert!(
        !planned(&even, &seen).certificates.is_empty(),
        "a spec that is refused keeps nobody from renewing"
    );
    let mut foreign = seen.clone();
    foreign.children.insert(Child::NodeTls, child(Ownership::Foreign));
    let plan = planned(&latched(3, id), &foreign);
    assert!(plan.certificates.is_empty());
    assert_eq!(said(&plan, ConditionType::SpecAccepted), (Truth::False, Reason::NameTaken));
}

#[test]
fn when_the_first_one_runs_out_is_known() {
    let id = cluster(7);
    let mut seen = speaking(well(3, id), TlsStage::Required, Some("demo-node-tls"));
    let mut made = OwnMade { secret: "demo-node-tls".into(), ..OwnMade::default() };
    for (holder, not_after) in [("demo-0", 30), ("demo-1", 10), ("operator", 20)] {
        let found = crate::cluster::observation::CertificateSeen { not_after, ..Default::default() };
        made.certificates.insert(holder.into(), found);
    }
    seen.own_certificates = Some(made);
    assert_eq!(planned(&latched(3, id), &seen).expires, Some(10));
    assert_eq!(planned(&latched(3, id), &well(3, id)).expires, None);
}
