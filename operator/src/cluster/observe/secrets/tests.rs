//! Secrets as others fill them, and as the operator does.

use super::*;
use crate::crd::{RaftQueue, RaftQueueSpec};
use k8s_openapi::ByteString;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer};

fn demo() -> Asked {
    let mut object = RaftQueue::new("demo", RaftQueueSpec::default());
    object.metadata.namespace = Some("shop".into());
    object.metadata.uid = Some("ours".into());
    crate::cluster::validate::asked(&object, "node:1")
}

fn secret(files: &[(&str, &str)]) -> Secret {
    let data = files.iter().map(|(file, text)| ((*file).to_owned(), ByteString(text.as_bytes().to_vec())));
    Secret { data: Some(data.collect()), ..Secret::default() }
}

/// A certificate for this name, its key, and its authority with the key of that.
fn made(name: &str) -> [String; 4] {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(params, KeyPair::from_pem(&authority_key.serialize_pem()).unwrap());
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec![name.to_owned(), "10.0.0.7".into(), "::1".into()]).unwrap();
    leaf.use_authority_key_identifier_extension = true;
    let certificate = leaf.signed_by(&key, &issuer).unwrap().pem();
    [certificate, key.serialize_pem(), authority, authority_key.serialize_pem()]
}

#[test]
fn a_secret_of_others_is_told_by_what_it_lacks() {
    let [certificate, key, authority, other_key] = made("*.demo-headless.shop.svc");
    let whole = [("tls.crt", certificate.as_str()), ("tls.key", &key), ("ca.crt", &authority)];
    let SecretSeen::Usable(found) = see(&secret(&whole)) else { panic!("{:?}", see(&secret(&whole))) };
    assert_eq!(found.names, ["*.demo-headless.shop.svc", "10.0.0.7", "::1"]);
    assert!(found.is_for("demo-0.demo-headless.shop.svc") && found.not_after > found.not_before);
    let damaged = certificate.replacen("MII", "AAA", 1);
    for (file, text, words) in [
        ("ca.crt", "", "it lacks ca.crt"),
        ("tls.crt", "words", "tls.crt: it has no certificate in PEM"),
        ("tls.crt", damaged.as_str(), "tls.crt: a certificate cannot be read"),
        ("tls.key", "words", "tls.key is no private key"),
        ("tls.key", other_key.as_str(), "tls.key is not the key of the certificate"),
        ("ca.crt", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "ca.crt: "),
    ] {
        let changed = whole.map(|(name, good)| (name, if name == file { text } else { good }));
        match see(&secret(&changed)) {
            SecretSeen::Unusable(why) => assert!(why.contains(words), "{file}: {why}"),
            other => panic!("{file} {words}: {other:?}"),
        }
    }
    assert!(
        matches!(see(&Secret::default()), SecretSeen::Unusable(why) if why.contains("tls.crt and tls.key and ca.crt"))
    );
}

/// Whatever is in a Secret, reading it ends, and without a panic.
#[test]
fn bytes_of_strangers_are_only_read() {
    let [certificate, ..] = made("demo");
    let bytes = certificate.as_bytes();
    for cut in (0..bytes.len()).step_by(7) {
        let _ = certificates(std::str::from_utf8(&bytes[..cut]).unwrap());
        let mut turned = bytes.to_vec();
        turned[cut] = if turned[cut] == b'A' { b'B' } else { b'A' };
        let _ = certificates(std::str::from_utf8(&turned).unwrap());
    }
    let many = certificate.repeat(LIST_MAX + 1);
    assert!(certificates(&many).unwrap_err().contains("more than"));
}

#[test]
fn what_the_operator_made_is_known_again_and_what_does_not_fit_is_not() {
    let [certificate, key, authority, authority_key] = made("demo-0.demo-headless.shop.svc");
    let of_pods = [
        ("ca.crt", authority.as_str()),
        ("demo-0.crt", &certificate),
        ("demo-0.key", &key),
        ("demo-1.crt", &certificate),
        ("demo-1.key", &authority_key),
        ("demo-2.crt", &certificate),
        ("operator.crt", &certificate),
        ("operator.key", &key),
    ];
    let of_authority = [("ca.crt", authority.as_str()), ("ca.key", &authority_key)];
    let found = own_made(&demo(), Some(&secret(&of_pods)), Some(&secret(&of_authority)));
    assert_eq!(found.certificates.keys().collect::<Vec<_>>(), ["demo-0", "operator"], "with keys that fit");
    let signing = found.authority.unwrap();
    assert_eq!(found.trusted, std::slice::from_ref(&signing));
    assert_eq!(found.certificates["demo-0"].issuer, signing.id, "who signed is known by its key");
    assert_eq!(signing.pem, authority, "and can be written again as it was");
    let without = [("ca.crt", authority.as_str()), ("ca.key", &key)];
    assert_eq!(own_made(&demo(), None, Some(&secret(&without))).authority, None);
    let shown = credentials(&secret(&of_pods), &Source::Auto).unwrap();
    assert_eq!((shown.certificate.as_str(), shown.key.open()), (certificate.as_str(), key.as_str()));
    assert_eq!(credentials(&secret(&of_pods), &Source::CertManager), None);
}
