//! A pod of another namespace that tries every port. Nothing but what it shows keeps it out: no policy of the network is there.

use super::super::BoxError;
use super::super::tls::address;
use super::accounts::Accounts;
use super::load::{Known, said};
use crate::case::{Outcome, POD_WITHIN, Room};
use raftqueue_tests::kube::kubectl::condition;
use raftqueue_tests::process::repository;
use raftqueue_tls::fake::Authority;
use serde_json::{Map, Value, json};
use std::ffi::{OsStr, OsString};
use std::process::{Command, Output};

const POD: &str = "stranger";
/// Where it finds what it can show.
const SHOWN: &str = "/shown";
/// The node that it tries.
const NODE: &str = "demo-1";
/// The ports of clients, of peers and of operations.
const PORTS: [u16; 3] = [7420, 7421, 7422];

/// The pod, and where the node is.
pub(super) struct Stranger<'a> {
    room: &'a Room<'a>,
    namespace: String,
    /// The name of the node, for which its certificate is.
    host: String,
    trust: String,
    /// How `curl` is started in its network; empty before it runs.
    curl: Vec<OsString>,
}

/// Every operation of `/v1`, as it is published.
fn of_v1() -> Result<Vec<(String, String)>, BoxError> {
    let text = std::fs::read_to_string(repository().join("proto/raftqueue/v1/openapi.json"))?;
    let text: Value = serde_json::from_str(&text)?;
    let mut all = Vec::new();
    for (path, methods) in text["paths"].as_object().into_iter().flatten() {
        let path = path.replace("{topic}", "orders").replace("{session}", "1");
        let methods = methods.as_object().into_iter().flatten();
        all.extend(methods.map(|(method, _)| (method.to_uppercase(), path.clone())));
    }
    Ok(all)
}

/// Every method of gRPC, as it is published.
fn of_grpc() -> Result<Vec<String>, BoxError> {
    let mut all = Vec::new();
    for file in ["queue.proto", "admin.proto"] {
        let text = std::fs::read_to_string(repository().join("proto/raftqueue/v1").join(file))?;
        let mut service = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("service ") {
                service = name.trim_end_matches([' ', '{']);
            } else if let Some(call) = line.trim_start().strip_prefix("rpc ") {
                let name = call.split('(').next().unwrap_or_default();
                all.push(format!("/raftqueue.v1.{service}/{name}"));
            }
        }
    }
    Ok(all)
}

impl<'a> Stranger<'a> {
    /// Starts it. It has the program of a node, which is alone there, and `raftq`; and what it shows, the authority included.
    pub(super) fn start(
        room: &'a Room<'a>,
        known: &Known,
        accounts: &Accounts<'_>,
    ) -> Result<Self, BoxError> {
        let mut shown: Map<_, _> =
            accounts.tokens.iter().map(|(name, token)| ((*name).to_owned(), json!(token))).collect();
        shown.insert("ca.crt".to_owned(), json!(std::fs::read_to_string(&known.trust)?));
        let image = room.get("pod", NODE)?["spec"]["containers"][0]["image"].clone();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65_532, "fsGroup": 65_532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "node", "image": image, "imagePullPolicy": "IfNotPresent",
                    "args": ["--name", "alone", "--members", "alone=127.0.0.1:7421", "--data-dir", "/data"],
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": "data", "mountPath": "/data"}, {"name": "shown", "mountPath": SHOWN},
                    ],
                }],
                "volumes": [
                    {"name": "data", "emptyDir": {}}, {"name": "shown", "secret": {"secretName": "shown"}},
                ],
            },
        });
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shown"}, "stringData": shown});
        let namespace = accounts.namespace.clone();
        for object in [secret, pod] {
            let apply = ["-n", &namespace, "apply", "--server-side", "-f", "-"];
            room.cluster().with_manifest(&apply, &object.to_string())?;
        }
        let host = format!("{NODE}.{}", known.domain);
        Ok(Self { room, namespace, host, trust: known.trust.display().to_string(), curl: Vec::new() })
    }

    /// Waits until it runs. The node that it tries stays from now on.
    pub(super) fn wait(&mut self) -> Outcome {
        self.room.cluster().wait_for_pod(&self.namespace, POD, POD_WITHIN)?;
        let address = address(self.room, NODE, 0)?.ip();
        let mut command = self.room.kube().command_in_pod(&self.namespace, POD, "node", "curl")?;
        command.args(["--silent", "--show-error", "--max-time", "10", "--write-out", "\n%{http_code}"]);
        for port in PORTS {
            command.arg("--resolve").arg(format!("{}:{port}:{address}", self.host));
        }
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        self.curl = words.map(OsStr::to_owned).collect();
        Ok(())
    }

    /// `raftq` in the pod, which asks the node by its name and trusts the authority; with one of its tokens.
    pub(super) fn raftq(&self, token: Option<&str>, command: &[&str]) -> Result<Output, BoxError> {
        let token = token.map(|token| format!("{SHOWN}/{token}"));
        let mut shown = vec!["--ca-file".to_owned(), format!("{SHOWN}/ca.crt")];
        shown.extend(token.into_iter().flat_map(|token| ["--token-file".to_owned(), token]));
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        self.exec(&[&shown, command].concat())
    }

    fn exec(&self, words: &[&str]) -> Result<Output, BoxError> {
        let exec = ["exec", "-n", &self.namespace, POD, "--", "raftq", "--timeout", "2s"];
        let endpoints = ["--endpoints", &self.host];
        Ok(self.room.cluster().output(&[&exec[..], &endpoints, words].concat())?)
    }

    /// `curl` in the network of the pod: the code, and all that came.
    fn curl(&self, words: &[&str]) -> Result<(String, String), BoxError> {
        let (program, arguments) = self.curl.split_first().ok_or("it runs")?;
        let output = Command::new(program).args(arguments).args(words).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').unwrap_or(("", &text));
        Ok((code.to_owned(), format!("{body}{}", String::from_utf8_lossy(&output.stderr))))
    }

    /// Tries all ports and calls.
    pub(super) fn gets_nothing(&self) -> Outcome {
        for namespace in [&self.namespace, &self.room.namespace] {
            let policies = self.room.cluster().json(&["get", "networkpolicies", "-n", namespace])?;
            assert_eq!(policies["items"], json!([]), "nothing but locks keeps it out");
        }
        let strange = Authority::new("strange");
        let (cert, key) = strange.issue("demo-0", &[&self.host], |_| {});
        let (cert, key) = (cert.display().to_string(), key.display().to_string());
        let own = ["--cert", cert.as_str(), "--key", key.as_str()];
        let trust = ["--cacert", self.trust.as_str()];
        let [clients, peers, operations] = PORTS;
        let plain = |port: u16, path: &str| format!("http://{}:{port}{path}", self.host);
        let tls = |port: u16, path: &str| format!("https://{}:{port}{path}", self.host);

        // Without TLS no port says more than that it speaks it; by HTTP/2, as gRPC does, it hangs up.
        let speaks_tls = "this port speaks TLS: use https://\n";
        for (port, wanted) in [(clients, "400"), (operations, "403"), (peers, "400")] {
            let (code, said) = self.curl(&[&plain(port, "/status")])?;
            assert_eq!((code.as_str(), said.as_str()), (wanted, speaks_tls), "port {port}");
            let (code, said) = self.curl(&["--http2-prior-knowledge", &plain(port, "/")])?;
            let is_refused = code == "000" || (code == "403" && said == speaks_tls);
            assert!(is_refused, "port {port}: {code}: {said}");
        }
        // A certificate of nobody's, and none where there must be one: the handshake fails.
        for (port, shown, words) in [
            (clients, &own[..], "unknown ca"),
            (operations, &own, "unknown ca"),
            (peers, &own, "unknown ca"),
            (peers, &[], "certificate required"),
        ] {
            let (code, said) = self.curl(&[&trust[..], shown, &[&tls(port, "/")]].concat())?;
            assert_eq!(code, "000", "port {port}: {said}");
            assert!(said.contains(words), "port {port}: {said}");
        }
        // By TLS, and showing nothing: no call is answered.
        let (guessed, body) = ("authorization: Bearer rq_0", r#"{"topic": "orders", "message": "a"}"#);
        let batch = r#"{"messages": [{"body": "a"}]}"#;
        let mut calls: Vec<(u16, String, Vec<&str>)> = Vec::new();
        let of_v1 = of_v1()?;
        for (method, path) in &of_v1 {
            let body = if path.ends_with("/publish") { batch } else { "{}" };
            let sent: &[&str] = if method == "GET" { &[] } else { &["-d", body] };
            calls.push((clients, path.clone(), [&["-X", method], sent].concat()));
        }
        for path in ["/", "/status", "/topic", "/message/orders", "/v1/nothing", "/nothing"] {
            calls.push((clients, path.to_owned(), Vec::new()));
        }
        for path in ["/topic", "/message"] {
            calls.push((clients, path.to_owned(), vec!["-X", "PUT", "-d", body]));
        }
        for path in ["/", "/metrics", "/topics/orders", "/console/live.js", "/nothing"] {
            calls.push((operations, path.to_owned(), Vec::new()));
        }
        calls.push((operations, "/topics/orders/purge".to_owned(), vec!["-X", "POST", "-d", "{}"]));
        assert!(calls.len() > 40, "{calls:?}");
        for (port, path, words) in &calls {
            let url = tls(*port, path);
            for shown in [&[][..], &["-H", guessed]] {
                let (code, said) =
                    self.curl(&[&trust[..], &["--include"], shown, words, &[&url]].concat())?;
                assert_eq!(code, "401", "{words:?} {url}, {shown:?}: {said}");
                let names_reason = *port == operations || said.contains("UNAUTHENTICATED");
                assert!(names_reason && said.contains("www-authenticate: Bearer"), "{words:?} {url}: {said}");
            }
        }
        let methods = of_grpc()?;
        assert!(methods.len() > 30, "{methods:?}");
        for path in &methods {
            // An empty message, and the code of UNAUTHENTICATED.
            let grpc = ["--http2", "--include", "-H", "content-type: application/grpc", "-H", "te: trailers"];
            let empty = ["--data-binary", "@-"];
            let (_, said) = self.curl(&[&trust[..], &grpc, &empty, &[&tls(clients, path)]].concat())?;
            assert!(said.contains("grpc-status: 16"), "{path}: {said}");
        }
        for (shown, command, words) in [
            (false, &["topic", "list"][..], "this speaks TLS: say https://"),
            (true, &["topic", "list"], "UNAUTHENTICATED"),
            (true, &["topic", "create", "more"], "UNAUTHENTICATED"),
            (true, &["publish", "orders", "a"], "UNAUTHENTICATED"),
            (true, &["receive", "orders"], "UNAUTHENTICATED"),
            (true, &["peek", "orders"], "UNAUTHENTICATED"),
            (true, &["purge", "orders", "--yes"], "UNAUTHENTICATED"),
            (true, &["members", "list"], "UNAUTHENTICATED"),
            (true, &["transfer"], "UNAUTHENTICATED"),
            (true, &["auth", "can-i", "administer"], "UNAUTHENTICATED"),
        ] {
            let output = if shown { self.raftq(None, command) } else { self.exec(command) }?;
            let told = said(&output);
            assert!(!output.status.success() && told.contains(words), "{command:?}: {told}");
        }
        // The kubelet reaches its probes in the open, and so does anybody: one word, and nothing else.
        for probe in ["/livez", "/readyz"] {
            for url in [plain(operations, probe), tls(operations, probe)] {
                let said = self.curl(&[&trust[..], &[&url]].concat())?;
                assert_eq!(said, ("200".to_owned(), "ok\n".to_owned()), "{url}");
            }
        }
        for node in ["demo-0", "demo-1", "demo-2"] {
            let pod = self.room.get("pod", node)?;
            assert_eq!(condition(&pod, "Ready").as_deref(), Some("True"), "{}", pod["status"]);
        }
        Ok(())
    }
}
