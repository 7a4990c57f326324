//! What is dialled, by what the pod was made with and by what there is to show.

use super::*;
use crate::cluster::encryption::PodEncryption;
use crate::cluster::observation::{Credentials, NodeSeen, Sealed};
use rcgen::{CertificateParams, KeyPair};

fn pod(clients: TlsStage) -> PodSeen {
    PodSeen {
        uid: "u".into(),
        revision: None,
        restarted: None,
        ready: true,
        deleting: false,
        trouble: None,
        encryption: PodEncryption { clients, ..PodEncryption::default() },
        address: Some("10.0.0.7".into()),
        node: NodeSeen::NotAsked,
    }
}

fn way() -> Way {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["operator.demo-headless.shop.svc".into()])
        .unwrap()
        .self_signed(&key)
        .unwrap()
        .pem();
    let credentials =
        Credentials { authorities: certificate.clone(), certificate, key: Sealed::of(key.serialize_pem()) };
    Way { domain: "demo-headless.shop.svc".into(), credentials: Some(credentials) }
}

fn scheme(way: &Way, pod: &PodSeen) -> Result<String, String> {
    let endpoint = endpoint(way, "demo-0", pod, Duration::from_secs(1))?;
    Ok(endpoint.uri().scheme_str().unwrap_or_default().to_owned())
}

/// A pod that was made before the last stage is called as it speaks, not as the others do.
#[test]
fn a_node_is_called_as_its_own_pod_was_made() {
    let (way, open) = (way(), Way::default());
    for (clients, shown, hidden) in [
        (TlsStage::Off, "http", "http"),
        (TlsStage::Optional, "https", "http"),
        (TlsStage::Required, "https", "http"),
    ] {
        assert_eq!(scheme(&way, &pod(clients)).unwrap(), shown, "{clients:?}");
        assert_eq!(scheme(&open, &pod(clients)).unwrap(), hidden, "{clients:?}, with nothing to show");
    }
}

#[test]
fn what_cannot_be_dialled_is_told() {
    let nowhere = PodSeen { address: None, ..pod(TlsStage::Off) };
    assert_eq!(scheme(&way(), &nowhere).unwrap_err(), "demo-0 has no address");
    let mut broken = way();
    broken.credentials.as_mut().unwrap().key = Sealed::of("words".into());
    let why = scheme(&broken, &pod(TlsStage::Required)).unwrap_err();
    assert!(why.starts_with("the operator's certificate cannot be shown"), "{why}");
}
