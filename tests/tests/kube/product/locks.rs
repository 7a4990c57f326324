//! Clusters with locks: clients go over to TLS and say who they are, whoever shows nothing gets nothing, and certificates and their
//! authority change under load.

mod accounts;
mod load;
mod renewal;
mod strangers;

use super::{BoxError, Queue, TOLD_WITHIN, condition_of, manifest, soon, uids};
use crate::case::{Case, Needs, Outcome, Room};
use accounts::Accounts;
use load::{Calls, Known, TOPIC, TlsLoad, said};
use raftqueue_tests::kube::images::program_folder;
use raftqueue_tests::kube::kubectl::condition;
use raftqueue_tests::process::Load;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use strangers::Stranger;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "clients_go_over_to_tls_and_tokens_and_strangers_get_nothing",
        needs: Needs::OwnCluster,
        run: clients_go_over_to_tls_and_tokens_and_strangers_get_nothing,
    },
    Case {
        name: "certificates_and_their_authority_are_renewed_under_load",
        needs: Needs::OwnCluster,
        run: renewal::certificates_and_their_authority_are_renewed_under_load,
    },
];

/// Producers that speak plain, and how long each rests after a message.
const PRODUCERS: usize = 2;
const REST: Duration = Duration::from_millis(40);
/// Messages of theirs that are acknowledged between two changes.
const STRIDE: usize = 50;
/// How long a round of restarts may take.
const CHANGED_WITHIN: Duration = Duration::from_secs(240);

/// A token of a client that Kubernetes does not know, in a file; its hash, as the file of tokens has it.
fn make_token(name: &str, file: &Path) -> Result<String, BoxError> {
    let mut command = Command::new(program_folder().join("raftq"));
    let made = command.args(["auth", "token", name, "--out"]).arg(file).output()?;
    if made.status.success() { Ok(String::from_utf8(made.stdout)?) } else { Err(said(&made).into()) }
}

/// Changes the spec and waits until all nodes are as it says.
fn change(queue: &Queue<'_>, spec: &Value, clients: &str) -> Outcome {
    let begun = Instant::now();
    let before = uids(queue, "pods")?;
    queue.room.apply(&manifest("demo", 3, spec))?;
    // NB: the condition is true for a moment more, until the pods are older than what they are made of now.
    soon("all pods to be made anew", CHANGED_WITHIN, || {
        let now = uids(queue, "pods").map_err(|error| error.to_string())?;
        let is_anew =
            now.len() == before.len() && now.values().all(|uid| !before.values().any(|old| old == uid));
        is_anew.then_some(()).ok_or_else(|| format!("{now:?}"))
    })?;
    let object = queue.wait_condition("Ready", "True", None, CHANGED_WITHIN)?;
    assert_eq!(
        condition(&object, "Encrypted").as_deref(),
        Some("True"),
        "{}",
        condition_of(&object, "Encrypted")
    );
    assert_eq!(object["status"]["tls"]["clients"], clients, "{}", object["status"]["tls"]);
    eprintln!("{}: clients {clients} after {:.1?}", queue.room.namespace, begun.elapsed());
    Ok(())
}

fn clients_go_over_to_tls_and_tokens_and_strangers_get_nothing(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "demo", 3)?;
    for topic in ["plain", TOPIC, "orders", "bills"] {
        queue.raftq("demo-0", &["topic", "create", topic])?;
    }
    let folder = tempfile::tempdir()?;
    let (trust, token) = (folder.path().join("ca.crt"), folder.path().join("load"));
    let authority = room.get("configmap", "demo-config")?["data"]["ca.crt"].clone();
    std::fs::write(&trust, authority.as_str().ok_or("the authority is in the ConfigMap")?)?;
    let hashed = make_token("load", &token)?;
    let accounts = Accounts::make(room)?;
    accounts.write_rights(&hashed)?;
    let known = Known::of(room, trust, Some(token));
    let mut stranger = Stranger::start(room, &known, &accounts)?;

    // First either, then TLS alone. Whoever speaks plain goes on until then, and whoever speaks TLS from the first stage on.
    let service = queue.service()?;
    let plain = room.kube().work_inside(|| Load::start_gently("plain", PRODUCERS, &[service], REST))?;
    change(&queue, &json!({"tls": {"clients": "Optional"}}), "Optional")?;
    let load = TlsLoad::start(&known, Calls::Repeated);
    let enough = plain.acknowledged() + STRIDE;
    soon("acknowledgements in plain", TOLD_WITHIN, || {
        let acknowledged = plain.acknowledged();
        (acknowledged >= enough).then_some(()).ok_or(format!("{acknowledged} of {enough}"))
    })?;
    load.go_on()?;
    let plain = room.kube().work_inside(|| plain.finish("plain", &[service]))??;
    let auth =
        json!({"configMapName": accounts::RIGHTS, "tokensSecretName": accounts::RIGHTS, "tokenReview": true});
    change(&queue, &json!({"tls": {"clients": "Required"}, "auth": auth}), "Required")?;
    load.go_on()?;
    let refused = room.kube().work_inside(|| service.publish("plain", "late"))?;
    let refused = refused.map_err(|why| format!("plain is refused in words: {why:?}"))?;
    assert_eq!((refused.code, refused.text.as_str()), (400, "this port speaks TLS: use https://\n"));

    let begun = Instant::now();
    stranger.wait()?;
    let undo = accounts.each_may_what_its_role_says(&stranger)?;
    eprintln!("{}: accounts after {:.1?}", room.namespace, begun.elapsed());
    stranger.gets_nothing()?;
    undo.now()?;
    eprintln!("{}: strangers after {:.1?}", room.namespace, begun.elapsed());
    let count = load.finish()?;
    eprintln!(
        "{}: {} messages in plain, {count} by TLS; longest pause of one producer in plain {}",
        room.namespace,
        plain.acknowledged,
        plain.gap()
    );
    assert_eq!(queue.restarts()?, 0, "the kubelet reaches its probes in every stage");
    queue.wait_ready()?;
    Ok(())
}
