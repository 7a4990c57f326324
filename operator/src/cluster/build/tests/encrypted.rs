//! Children of what is encrypted.

use super::{Bootstrap, Shape, build, cluster, golden, of, shape};
use crate::cluster::build::encryption_kept;
use crate::cluster::encryption::{Encryption, Source};
use crate::cluster::validate::Asked;
use crate::crd::TlsStage;
use crate::names;
use serde_json::{Value, json};

fn encrypted(asked: &Asked, source: Source, clients: TlsStage) -> Shape {
    let encryption = Encryption {
        source: Some(source),
        peers: TlsStage::Required,
        clients,
        auth: asked.spec.auth.clone(),
    };
    Shape {
        is_asked_of_cert_manager: encryption.source == Some(Source::CertManager),
        encryption,
        authorities: Some("-----BEGIN CERTIFICATE-----\n".into()),
        ..shape(asked, Bootstrap::Join(Some(cluster())))
    }
}

#[test]
fn three_nodes_with_certificates_of_the_operator() {
    let asked = of(json!({}));
    golden(&asked, &encrypted(&asked, Source::Auto, TlsStage::Off), "three-encrypted");
}

#[test]
fn one_node_with_certificates_of_cert_manager_and_grants() {
    let asked = of(json!({
        "replicas": 1, "tls": {"mode": "CertManager", "issuerRef": {"name": "ca", "kind": "ClusterIssuer"}, "clients": "Required"},
        "auth": {"configMapName": "grants", "tokensSecretName": "tokens", "tokenReview": true},
        "monitoring": {"serviceMonitor": {"enabled": true}}}));
    golden(&asked, &encrypted(&asked, Source::CertManager, TlsStage::Required), "one-granted");
}

/// The kubelet has no certificate, and asks in the open whatever a node speaks.
#[test]
fn probes_and_ports_are_the_same_in_the_open_and_encrypted() {
    let asked = of(json!({}));
    let container = |shape: &Shape| {
        let set = serde_json::to_value(build(&asked, shape).stateful_set).unwrap();
        set["spec"]["template"]["spec"]["containers"][0].clone()
    };
    let (open, closed) = (
        container(&shape(&asked, Bootstrap::Form)),
        container(&encrypted(&asked, Source::Auto, TlsStage::Required)),
    );
    for part in ["livenessProbe", "readinessProbe", "startupProbe", "ports", "securityContext"] {
        assert_eq!(open[part], closed[part], "{part}");
    }
    assert_ne!(open["args"], closed["args"]);
}

/// What pods are made like is remembered by their template, and one that an older operator kept is open and stays as it is.
#[test]
fn a_template_remembers_what_it_speaks() {
    let asked = of(json!({"auth": {"configMapName": "grants"}}));
    let kept = |shape: &Shape| {
        let set = build(&asked, shape).stateful_set;
        set.metadata.annotations.unwrap()[names::TEMPLATE_ANNOTATION].clone()
    };
    let open = shape(&asked, Bootstrap::Form);
    let of_open: Value = serde_json::from_str(&kept(&open)).unwrap();
    let mut fields: Vec<&String> = of_open["of"].as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["config", "image", "imagePullPolicy", "resources"], "as older operators wrote it");
    assert_eq!(encryption_kept(&kept(&open)), Some(Encryption::default()));
    for source in [Source::Auto, Source::Secret("own".into()), Source::CertManager] {
        let shape = encrypted(&asked, source, TlsStage::Optional);
        assert_eq!(encryption_kept(&kept(&shape)), Some(shape.encryption.clone()));
        assert_ne!(kept(&shape), kept(&open));
    }
    assert_eq!(encryption_kept("{}"), None);
}

/// Authorities that are renewed reach clients and the settings' ConfigMap, and restart nobody.
#[test]
fn what_is_trusted_is_no_matter_of_the_template() {
    let asked = of(json!({}));
    let shape = encrypted(&asked, Source::Auto, TlsStage::Off);
    let renewed = Shape { authorities: Some("another".into()), ..shape.clone() };
    let (before, after) = (build(&asked, &shape), build(&asked, &renewed));
    assert_eq!(before.stateful_set, after.stateful_set);
    assert_eq!(after.config_map.data.unwrap()["ca.crt"], "another");
}
