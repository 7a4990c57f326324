//! What is encrypted: peers by default, everything turned on and off under load, and certificates that are renewed, lost or missing.

use super::neighbours::define_of;
use super::{BoxError, Queue, TOLD_WITHIN, condition_of, manifest, soon, uids};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::kubectl::condition;
use raftqueue_tests::process::Load;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "peers_are_encrypted_by_default_and_certificates_renewed_without_a_restart",
        needs: Needs::OwnCluster,
        run: peers_are_encrypted_by_default_and_certificates_renewed_without_a_restart,
    },
    Case {
        name: "encryption_is_turned_on_and_off_under_load",
        needs: Needs::OwnCluster,
        run: encryption_is_turned_on_and_off_under_load,
    },
    Case {
        name: "certificates_of_others_are_waited_for",
        needs: Needs::OwnClusterAlone,
        run: certificates_of_others_are_waited_for,
    },
];

const PRODUCERS: usize = 4;
/// How long each rests after a message.
const REST: Duration = Duration::from_millis(40);
/// Acknowledged between two changes.
const STRIDE: usize = 100;
/// How long two rounds of restarts may take.
const CHANGED_WITHIN: Duration = Duration::from_secs(240);
/// How a connection begins that speaks HTTP/2 in the open: its preface, and empty settings.
const PLAIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The fourth byte of what a node answers: the kind of a frame of settings.
const SETTINGS: u8 = 4;
/// How long a node may take to answer, and to say farewell after that.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Whether a node's port speaks with somebody who speaks plain. One that does not says so in plain words, and hangs up.
fn speaks_plain(address: SocketAddr) -> Result<bool, BoxError> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(PLAIN)?;
    let (mut said, mut part) = (Vec::new(), [0_u8; 256]);
    // Until it hangs up, or waits for more.
    while let Ok(count @ 1..) = stream.read(&mut part) {
        said.extend_from_slice(&part[..count]);
    }
    let is_farewell = said.windows(10).any(|words| words == b"speaks TLS");
    Ok(said.get(3) == Some(&SETTINGS) && !is_farewell)
}

pub(super) fn address(room: &Room<'_>, pod: &str, port: u16) -> Result<SocketAddr, BoxError> {
    let pod = room.get("pod", pod)?;
    let address = pod["status"]["podIP"].as_str().ok_or("a pod has an address")?;
    Ok(SocketAddr::new(address.parse()?, port))
}

/// The operator looks at what no watch tells of when somebody touches the object.
pub(super) fn touch(room: &Room<'_>) -> Outcome {
    let now = format!("touched={}", std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos());
    room.kubectl(&["annotate", "raftqueue", "demo", "--overwrite", &now])?;
    Ok(())
}

/// Waits until a Secret of the case is as wanted.
fn wait_secret(room: &Room<'_>, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value, BoxError> {
    touch(room)?;
    let get = ["secret", "demo-node-tls", "-n", &room.namespace];
    let found = room.cluster().wait_until(what, TOLD_WITHIN, &get, |secret| {
        let files = || {
            format!("{:?}", secret["data"].as_object().map(|data| data.keys().cloned().collect::<Vec<_>>()))
        };
        is_so(&secret["data"]).then(|| secret["data"].clone()).ok_or_else(files)
    })?;
    Ok(found)
}

fn peers_are_encrypted_by_default_and_certificates_renewed_without_a_restart(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "demo", 3)?;
    let object = queue.object()?;
    assert_eq!(condition(&object, "Encrypted").as_deref(), Some("True"), "{object}");
    let tls = &object["status"]["tls"];
    assert_eq!(
        (&tls["mode"], &tls["peers"], &tls["clients"]),
        (&json!("Auto"), &json!("Required"), &json!("Off"))
    );
    assert!(tls["expires"].is_string(), "{tls}");
    let (peers, clients) = (address(room, "demo-1", 7421)?, address(room, "demo-1", 7420)?);
    room.kube().work_inside(|| -> Outcome {
        assert!(!speaks_plain(peers)?, "a peer that shows nothing is refused");
        assert!(speaks_plain(clients)?, "clients go on as they are");
        Ok(())
    })??;
    queue.publish("orders", &["one", "two"])?;
    let before = uids(&queue, "pods")?;

    // A certificate that somebody deletes is made anew, and the pod that has to load it to come back is taken by the others.
    let old = wait_secret(room, "the certificates", |data| data["demo-1.crt"].is_string())?;
    let remove = r#"[{"op": "remove", "path": "/data/demo-1.crt"}]"#;
    room.kubectl(&["patch", "secret", "demo-node-tls", "--type=json", "-p", remove])?;
    let new = wait_secret(room, "another certificate", |data| {
        data["demo-1.crt"].is_string() && data["demo-1.crt"] != old["demo-1.crt"]
    })?;
    assert_eq!(new["demo-0.crt"], old["demo-0.crt"], "the others stay");
    queue.wait_event("CertificatesMade", "demo-1")?;
    // An authority that is lost is replaced, and both are trusted.
    room.kubectl(&["delete", "secret", "demo-node-ca"])?;
    let both = wait_secret(room, "a second authority", |data| data["ca.crt"] != old["ca.crt"])?;
    assert_eq!(both["demo-0.crt"], old["demo-0.crt"], "it signs once everybody trusts it");
    queue.wait_ready()?;
    assert_eq!(
        (uids(&queue, "pods")?, queue.restarts()?),
        (before.clone(), 0),
        "nobody was restarted for that"
    );
    room.kubectl(&["delete", "pod", "demo-1"])?;
    let get = ["pod", "demo-1", "-n", &room.namespace];
    room.cluster().wait_until("another pod", TOLD_WITHIN, &get, |pod| {
        (pod["metadata"]["uid"] != before["demo-1"].as_str())
            .then_some(())
            .ok_or_else(|| pod["status"].to_string())
    })?;
    queue.wait_ready()?;
    assert_eq!(queue.receive("orders", 2)?, ["one", "two"]);

    // Members that come are encrypted like the others.
    room.kubectl(&["scale", "raftqueue/demo", "--replicas=5"])?;
    queue.wait_condition("Ready", "True", None, CHANGED_WITHIN)?;
    wait_secret(room, "certificates for five", |data| data["demo-4.crt"].is_string())?;
    let object = queue.object()?;
    assert_eq!(condition(&object, "Encrypted").as_deref(), Some("True"), "{object}");
    assert_eq!(queue.restarts()?, 0);
    Ok(())
}

fn encryption_is_turned_on_and_off_under_load(room: &Room<'_>) -> Outcome {
    let open = json!({"tls": {"mode": "Off"}});
    let queue = Queue::applied_with(room, "demo", 3, &open)?;
    let object = queue.wait_ready()?;
    assert_eq!(condition_of(&object, "Encrypted")["reason"], "OpenByChoice", "{object}");
    let service = queue.service()?;
    let outcome = room.kube().work_inside(|| -> Result<_, BoxError> {
        soon("the topic", TOLD_WITHIN, || match service.create_topic("load") {
            Ok(answer) if [201, 409].contains(&answer.code) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        assert!(speaks_plain(address(room, "demo-1", 7421)?)?);
        let load = Load::start_gently("load", PRODUCERS, &[service], REST);
        go_on(&load)?;
        let change = |spec: &Value, peers: &str, clients: &str| -> Outcome {
            let begun = Instant::now();
            let _ = load.take_pause();
            room.apply(&manifest("demo", 3, spec))?;
            let holds = if peers == "Required" { "True" } else { "False" };
            let object = queue.wait_condition("Ready", "True", None, CHANGED_WITHIN)?;
            assert_eq!(
                condition(&object, "Encrypted").as_deref(),
                Some(holds),
                "{}",
                condition_of(&object, "Encrypted")
            );
            let tls = &object["status"]["tls"];
            assert_eq!((&tls["peers"], &tls["clients"]), (&json!(peers), &json!(clients)), "{tls}");
            go_on(&load)?;
            eprintln!(
                "{}: peers {peers}, clients {clients} after {:.1?}, longest pause {:.2?}",
                room.namespace,
                begun.elapsed(),
                load.take_pause()
            );
            Ok(())
        };
        change(&json!({"tls": {"clients": "Optional"}}), "Required", "Optional")?;
        assert!(!speaks_plain(address(room, "demo-1", 7421)?)?);
        assert!(speaks_plain(address(room, "demo-1", 7420)?)?);
        change(&open, "Off", "Off")?;
        assert!(speaks_plain(address(room, "demo-1", 7421)?)?);
        Ok(load.finish("load", &[service])?)
    })??;
    assert_eq!(queue.restarts()?, 0);
    eprintln!(
        "{}: {} acknowledged, {} unknown, {} refused; longest pause of one producer {}",
        room.namespace,
        outcome.acknowledged,
        outcome.unknown,
        outcome.refused,
        outcome.gap()
    );

    // With nobody left who speaks plain.
    room.apply(&manifest("demo", 3, &json!({"tls": {"clients": "Required"}})))?;
    queue.wait_condition("Ready", "True", None, CHANGED_WITHIN)?;
    let (peers, clients) = (address(room, "demo-1", 7421)?, address(room, "demo-1", 7420)?);
    room.kube().work_inside(|| -> Outcome {
        assert!(!speaks_plain(peers)? && !speaks_plain(clients)?);
        Ok(())
    })??;
    assert_eq!(queue.restarts()?, 0, "probes go on as they are");
    // In a pod raftq has what it needs.
    queue.publish("orders", &["one", "two"])?;
    assert_eq!(queue.receive("orders", 2)?, ["one", "two"]);
    Ok(())
}

fn certificates_of_others_are_waited_for(room: &Room<'_>) -> Outcome {
    let own = json!({"tls": {"mode": "Secret", "secretName": "own"}});
    let queue = Queue::applied_with(room, "demo", 1, &own)?;
    let object = queue.wait_condition("Ready", "False", Some("CertificatesMissing"), TOLD_WITHIN)?;
    let message = condition_of(&object, "Ready")["message"].to_string();
    assert!(message.contains("the Secret own is not there"), "{message}");
    assert!(uids(&queue, "statefulset")?.is_empty(), "no pod is made that could not start");

    let asked = json!({"tls": {"mode": "CertManager", "issuerRef": {"name": "ca"}}});
    room.apply(&manifest("demo", 1, &asked))?;
    queue.wait_condition("SpecAccepted", "False", Some("KindUnusable"), TOLD_WITHIN)?;
    let definition = define_of(room, "cert-manager.io", "Certificate")?;
    touch(room)?;
    let get = ["certificates.cert-manager.io", "demo-cert-manager", "-n", &room.namespace];
    let made = room
        .cluster()
        .wait_until("what cert-manager is asked for", TOLD_WITHIN, &get, |made| Ok(made.clone()))?;
    let domain = format!("*.demo-headless.{}.svc", room.namespace);
    assert_eq!(made["spec"]["dnsNames"][0], json!(domain), "{made}");
    assert_eq!(made["spec"]["issuerRef"]["kind"], "Issuer", "{made}");
    // An edit is put right.
    let edit = json!({"spec": {"dnsNames": ["other"]}}).to_string();
    room.kubectl(&["patch", get[0], get[1], "--type=merge", "-p", &edit])?;
    touch(room)?;
    room.cluster().wait_until("it as before", TOLD_WITHIN, &get, |now| {
        (now["spec"] == made["spec"]).then_some(()).ok_or_else(|| now["spec"].to_string())
    })?;
    // Nobody fills the Secret: the way out is another mode.
    room.apply(&manifest("demo", 1, &json!({"tls": {"mode": "Auto"}})))?;
    let object = queue.wait_ready()?;
    assert_eq!(condition(&object, "Encrypted").as_deref(), Some("True"), "{object}");
    definition.now()
}

fn go_on(load: &Load) -> Result<(), BoxError> {
    let enough = load.acknowledged() + STRIDE;
    soon("acknowledgements", TOLD_WITHIN, || {
        let acknowledged = load.acknowledged();
        if acknowledged >= enough { Ok(()) } else { Err(format!("{acknowledged} of {enough}")) }
    })?;
    Ok(())
}
