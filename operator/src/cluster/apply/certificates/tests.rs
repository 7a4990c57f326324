//! What is written into the Secrets, and that others can read it.

use super::*;
use crate::cluster::certificates::{OPERATOR, orders};
use crate::cluster::observation::{AuthoritySeen, OwnMade, Sealed};
use crate::crd::{RaftQueue, RaftQueueSpec};
use crate::fake::{Call, client, refusal};
use x509_parser::pem::parse_x509_pem;

const NOW: i64 = 1_800_000_000;
const SECRETS: &str = "/api/v1/namespaces/shop/secrets";

fn demo() -> Asked {
    let mut object = RaftQueue::new("demo", RaftQueueSpec::default());
    object.metadata.namespace = Some("shop".into());
    object.metadata.uid = Some("uid-1".into());
    crate::cluster::validate::asked(&object, "node:1")
}

fn seen(made: OwnMade) -> Observation {
    Observation { own_certificates: Some(made), now_seconds: NOW, ..Observation::default() }
}

fn file(call: &Call, file: &str) -> String {
    let bytes: ByteString = serde_json::from_value(call.body["data"][file].clone()).unwrap();
    String::from_utf8(bytes.0).unwrap()
}

#[tokio::test]
async fn a_new_object_gets_two_secrets_the_authority_first_and_its_key_in_no_pod() {
    let (client, calls) = client(|call: &Call| (201, call.body.clone()));
    let seen = seen(OwnMade::default());
    let orders = orders(&demo(), &seen, 3);
    certify(&client, &demo(), &seen, &orders).await.unwrap();
    assert_eq!(calls.what(), [format!("POST {SECRETS}"), format!("POST {SECRETS}")]);
    let [authority, pods] = &calls.all()[..] else { panic!("{:?}", calls.what()) };
    assert_eq!(authority.body["metadata"]["name"], "demo-node-ca");
    assert_eq!(pods.body["metadata"]["name"], "demo-node-tls");
    for call in [authority, pods] {
        assert_eq!(call.body["metadata"]["ownerReferences"][0]["uid"], "uid-1", "they go with the object");
    }
    assert!(pods.body["data"].as_object().unwrap().keys().all(|file| file != "ca.key"), "{:?}", pods.body);
    assert_eq!(file(pods, "ca.crt"), file(authority, "ca.crt"));
    // Each is signed by the authority, for its names, and fits its key.
    let root = file(authority, "ca.crt");
    let (_, root) = parse_x509_pem(root.as_bytes()).unwrap();
    let root = root.parse_x509().unwrap();
    assert!(root.is_ca() && root.validity().not_after.timestamp() == NOW + AUTHORITY_SECONDS);
    for holder in ["demo-0", "demo-1", "demo-2", OPERATOR] {
        let text = file(pods, &format!("{holder}.crt"));
        let (_, pem) = parse_x509_pem(text.as_bytes()).unwrap();
        let found = pem.parse_x509().unwrap();
        assert_eq!(found.issuer(), root.subject(), "{holder}");
        assert!(!found.is_ca());
        assert_eq!(found.validity().not_before.timestamp(), NOW - BACKDATED_SECONDS);
        assert_eq!(found.validity().not_after.timestamp(), NOW + CERTIFICATE_SECONDS);
        let names = format!("{:?}", found.subject_alternative_name().unwrap().unwrap().value.general_names);
        assert!(names.contains(&format!("{holder}.demo-headless.shop.svc")), "{names}");
        let usage = found.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && usage.client_auth);
        let pair = KeyPair::from_pem(&file(pods, &format!("{holder}.key"))).unwrap();
        assert_eq!(pair.public_key_raw(), found.public_key().subject_public_key.data.as_ref());
    }
}

#[tokio::test]
async fn only_what_is_due_is_changed_in_the_secret_that_was_seen() {
    let authority = make_authority(&demo(), NOW).unwrap();
    let known = AuthoritySeen {
        id: "1".into(),
        not_before: NOW - BACKDATED_SECONDS,
        not_after: NOW + AUTHORITY_SECONDS,
        pem: authority.certificate.clone(),
    };
    let made = OwnMade {
        authority: Some(known.clone()),
        key: Sealed::of(authority.key.clone()),
        trusted: vec![
            known,
            AuthoritySeen { id: "0".into(), pem: "older\n".into(), ..AuthoritySeen::default() },
        ],
        of_authority: Some(("ca".into(), "7".into())),
        of_pods: Some(("tls".into(), "8".into())),
        ..OwnMade::default()
    };
    let issue = Holder { name: "demo-0".into(), names: vec!["demo-0.demo-headless.shop.svc".into()] };
    let orders = Orders {
        issue: vec![issue],
        drop: vec!["demo-3".into()],
        forget: vec!["0".into()],
        ..Orders::default()
    };
    let (client, calls) = client(|call: &Call| (200, call.body.clone()));
    certify(&client, &demo(), &seen(made.clone()), &orders).await.unwrap();
    let [call] = &calls.all()[..] else { panic!("{:?}", calls.what()) };
    assert_eq!(call.what, format!("PATCH {SECRETS}/demo-node-tls"));
    assert_eq!(
        (&call.body["metadata"]["uid"], &call.body["metadata"]["resourceVersion"]),
        (&json!("tls"), &json!("8"))
    );
    let files: Vec<&String> = call.body["data"].as_object().unwrap().keys().collect();
    assert_eq!(files, ["ca.crt", "demo-0.crt", "demo-0.key", "demo-3.crt", "demo-3.key"]);
    assert_eq!(call.body["data"]["demo-3.key"], Value::Null);
    assert_eq!(file(call, "ca.crt"), authority.certificate, "the older one is forgotten");
    // What an earlier object left behind becomes this one's, and a Secret that changed meanwhile is a race.
    let (client, calls) = self::client(|_: &Call| refusal(409, "Conflict"));
    let orders = Orders { adopt: true, ..Orders::default() };
    let error = certify(&client, &demo(), &seen(made), &orders).await.unwrap_err();
    assert!(error.is_race(), "{error}");
    assert_eq!(calls.what(), [format!("PATCH {SECRETS}/demo-node-ca")]);
    assert_eq!(calls.all()[0].body["metadata"]["ownerReferences"][0]["uid"], "uid-1");
}
