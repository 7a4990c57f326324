//! Real nodes with locks: encrypted connections, certificates that change under load, and callers who may do this and not that.

use raftqueue_client::{Client, Credentials, Outcome, Token, v1};
use raftqueue_proto::peer::v1 as peer;
use raftqueue_proto::peer::v1::peer_client::PeerClient;
use raftqueue_tests::process::{CALM, Cluster, PATIENCE, RIGHTS, Rights, programs, wait_for};
use raftqueue_tls::Keys;
use raftqueue_tls::fake::Authority;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The arguments of nodes with certificates of this authority.
fn locked(authority: &Authority, own: &(PathBuf, PathBuf), more: &[&str]) -> Vec<String> {
    let tls = [
        ("--tls-cert-file", own.0.as_path()),
        ("--tls-key-file", own.1.as_path()),
        ("--tls-ca-file", authority.certificate()),
    ];
    let tls = tls.iter().flat_map(|(flag, path)| [(*flag).to_owned(), path.display().to_string()]);
    tls.chain(more.iter().chain(&CALM).map(|&argument| argument.to_owned())).collect()
}

fn cluster(count: usize, arguments: &[String]) -> Cluster {
    let mut cluster = Cluster::new(count).with_operations();
    set_arguments(&mut cluster, arguments);
    cluster
}

fn set_arguments(cluster: &mut Cluster, arguments: &[String]) {
    cluster.set_arguments(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
}

fn endpoints(cluster: &Cluster) -> Vec<String> {
    (0..cluster.count()).map(|node| format!("127.0.0.1:{}", cluster.ports(node).0)).collect()
}

fn trusting(authority: &Authority) -> Credentials {
    Credentials { ca_file: Some(authority.certificate().to_owned()), ..Credentials::default() }
}

fn raftq(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = Command::new(programs().join("raftq"));
    command.env("RAFTQ_ENDPOINTS", endpoints(cluster).join(",")).args(arguments);
    command.output().expect("it can be started")
}

/// What a command of `curl` says: the code, and all that came.
fn curl(arguments: &[&str]) -> (String, String) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}"])
        .args(arguments)
        .output()
        .expect("curl is part of every machine that runs these tests");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').unwrap_or(("", &text));
    (code.to_owned(), format!("{body}{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_another_authority_come_into_force_under_load_and_no_call_fails() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let own = old.issue("node", &["127.0.0.1"], |_| {});
    let mut cluster = cluster(3, &locked(&old, &own, &["--tls-clients", "optional"]));
    cluster.start_all();
    cluster.leader();
    let client =
        Client::connect_with(endpoints(&cluster), trusting(&old)).expect("right").with_timeout(PATIENCE);
    let topic = v1::CreateTopicRequest { topic: "orders".into(), ..Default::default() };
    client.create_topic(topic).await.expect("it is made");
    // One goes on by the connections that it has; another one makes a connection for each call.
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = [false, true]
        .into_iter()
        .map(|is_new| {
            let (client, stop, done) = (client.clone(), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let client = if is_new { client.independent() } else { client.clone() };
                    let message = v1::NewMessage { body: "a".into(), ..Default::default() };
                    let batch = v1::PublishRequest {
                        topic: "orders".into(),
                        messages: vec![message],
                        ..Default::default()
                    };
                    client.publish(batch).await.expect("no call fails");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = || {
        let (before, done) = (done.load(Ordering::Relaxed), Arc::clone(&done));
        async move {
            while done.load(Ordering::Relaxed) < before + 20 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    more().await;
    let expires = "raftqueue_tls_certificate_expires_timestamp_seconds";
    let before = cluster.metric(0, expires);
    // Old and new overlap, then what is shown is of the new one, then the old one counts no more.
    let both: Vec<u8> = [old.certificate(), new.certificate()]
        .iter()
        .flat_map(|path| std::fs::read(path).expect("there"))
        .collect();
    replace(old.certificate(), &both);
    wait_until_read(&cluster, 2).await;
    more().await;
    let soon = std::time::SystemTime::now() + Duration::from_secs(20 * 86_400);
    let issued = new.issue("node", &["127.0.0.1"], |params| params.not_after = soon.into());
    replace(&own.0, &std::fs::read(&issued.0).expect("there"));
    replace(&own.1, &std::fs::read(&issued.1).expect("there"));
    for node in 0..3 {
        cluster.reaches(node, expires, |at| at < before);
    }
    more().await;
    replace(old.certificate(), &std::fs::read(new.certificate()).expect("there"));
    wait_until_read(&cluster, 4).await;
    more().await;
    // The nodes find each other by the new ones alone.
    let leader = cluster.leader();
    let other = (leader + 1) % 3;
    cluster.kill(other);
    cluster.start(other);
    cluster.wait_ready(other);
    more().await;
    stop.store(true, Ordering::Relaxed);
    for task in load {
        tokio::time::timeout(PATIENCE, task).await.expect("it ends").expect("no call failed");
    }
    for node in 0..3 {
        assert!(
            cluster.metric(node, "raftqueue_tls_handshakes_failed_total{port=\"peers\"}") < 0.5,
            "{}",
            cluster.logs()
        );
    }
}

/// Replaces a file at once, as Kubernetes does.
fn replace(path: &Path, bytes: &[u8]) {
    let aside = path.with_extension("new");
    std::fs::write(&aside, bytes).expect("room");
    std::fs::rename(aside, path).expect("it can be replaced");
}

/// Waits until every node has said so often which certificate is in force: once when it starts, then after each change.
async fn wait_until_read(cluster: &Cluster, times: usize) {
    cluster.wait_until("all nodes have read their files again", || {
        cluster.whole_logs().matches("the certificate in force").count() >= times * cluster.count()
    });
}

#[test]
fn a_running_cluster_is_encrypted_node_by_node_and_opened_again() {
    let authority = Authority::new("one");
    let own = authority.issue("node", &["127.0.0.1"], |_| {});
    let mut cluster = cluster(3, &CALM.map(str::to_owned));
    cluster.start_all();
    cluster.leader();
    cluster.make_topic("orders");
    let mut stored = 0;
    let off: Vec<String> = CALM.map(str::to_owned).into();
    let stage = |mode: &str| locked(&authority, &own, &["--tls-clients", "off", "--tls-peers", mode]);
    for arguments in [stage("optional"), stage("required"), stage("optional"), off] {
        set_arguments(&mut cluster, &arguments);
        for node in 0..3 {
            cluster.stop(node);
            cluster.start(node);
            cluster.wait_ready(node);
            cluster.publish_until_taken((node + 1) % 3, "orders", &stored.to_string());
            stored += 1;
        }
        if arguments.contains(&"required".to_owned()) {
            // Nobody without a certificate is let in by now.
            let (_, said) =
                curl(&["--http2-prior-knowledge", &format!("http://127.0.0.1:{}/", cluster.ports(0).1)]);
            assert!(said.contains("curl:"), "{said}");
            let failed = "raftqueue_tls_handshakes_failed_total{port=\"peers\"}";
            cluster.reaches(0, failed, |count| count > 0.5);
        }
    }
    for message in 0..stored {
        let answer = cluster.pop_until_answered(0, "orders", 7_000 + message);
        assert_eq!(answer.body["message"], message.to_string(), "{answer:?}");
    }
}

#[tokio::test]
async fn the_peers_port_lets_in_nodes_of_this_cluster_and_nobody_else() {
    let (authority, strange) = (Authority::new("one"), Authority::new("two"));
    let own = authority.issue("node", &["127.0.0.1"], |_| {});
    let mut cluster = cluster(1, &locked(&authority, &own, &["--tls-clients", "off"]));
    cluster.start_all();
    cluster.leader();
    let port = cluster.ports(0).1;
    let ask = |keys: Option<Arc<Keys>>| async move {
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
        let channel = match keys {
            None => endpoint.connect().await.map_err(|error| format!("{error:?}"))?,
            Some(keys) => {
                let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
                    .await
                    .map_err(|error| error.to_string())?;
                let stream = keys.connect(stream, "127.0.0.1").await.map_err(|error| format!("{error}"))?;
                let stream = std::sync::Mutex::new(Some(stream));
                let connector = tower_once(stream);
                endpoint.connect_with_connector(connector).await.map_err(|error| format!("{error:?}"))?
            }
        };
        let request = peer::ForwardRequest::default();
        let answer = PeerClient::new(channel).forward(request).await;
        Err::<(), String>(format!(
            "{:?}",
            answer.map(drop).expect_err("no call of nobody's cluster is answered")
        ))
    };
    let keys = |own, authorities: &Authority| {
        let files = raftqueue_tls::Files { own, ..authorities.files(None) };
        Arc::new(Keys::load(files).expect("right"))
    };
    let client = authority.issue("client", &["shop.example"], |_| {});
    let both = authority.folder().join("both.crt");
    let texts =
        [authority.certificate(), strange.certificate()].map(|path| std::fs::read(path).expect("there"));
    std::fs::write(&both, texts.concat()).expect("room");
    let unknown = strange.issue("node", &["127.0.0.1"], |_| {});
    let unknown =
        raftqueue_tls::Files { own: Some(unknown), authorities: Some(both), client_authorities: None };
    let unknown = Arc::new(Keys::load(unknown).expect("right"));
    for (who, shown, words) in [
        ("nobody in particular, in plain", None, "INADEQUATE_SECURITY"),
        ("nobody in particular, by TLS", Some(keys(None, &authority)), "CertificateRequired"),
        ("a node of another authority", Some(unknown), "UnknownCA"),
        ("a client", Some(keys(Some(client), &authority)), "its certificate is for shop.example"),
        ("a node", Some(keys(Some(own.clone()), &authority)), "it belongs to no cluster yet"),
    ] {
        let refused =
            tokio::time::timeout(PATIENCE, ask(shown)).await.expect("it does not hang").expect_err(who);
        assert!(refused.contains(words), "{who}: {refused}");
    }
    // Each is on record, but the node, which was refused for something else.
    for (kind, call, words) in [
        ("unauthenticated", "handshake", "it does not speak TLS, which this port wants"),
        ("unauthenticated", "handshake", "certificate"),
        ("denied", "peer", "its certificate is for shop.example"),
    ] {
        let begins = format!("\"audit\":\"{kind}\"");
        cluster.wait_until("it is on record", || {
            let logs = cluster.whole_logs();
            logs.lines().any(|line| {
                line.contains(&begins)
                    && line.contains(&format!("\"call\":\"{call}\""))
                    && line.contains(words)
            })
        });
    }
}

/// Says hello to a node's port as somebody who shows this certificate; what it is told.
async fn greet(port: u16, keys: &Keys, hello: peer::Hello) -> String {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let stream = keys.connect(stream, "127.0.0.1").await.expect("it is let in");
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
    let channel = endpoint.connect_with_connector(tower_once(std::sync::Mutex::new(Some(stream)))).await;
    let frame = peer::PeerFrame { frame: Some(peer::peer_frame::Frame::Hello(hello)) };
    let mut client = PeerClient::new(channel.expect("it speaks HTTP/2"));
    match client.control(tokio_stream::iter([frame])).await {
        Err(status) => status.message().to_owned(),
        Ok(frames) => match frames.into_inner().message().await {
            Err(status) => status.message().to_owned(),
            Ok(frame) => format!("{frame:?}"),
        },
    }
}

/// Who says that it is found where its certificate is for could be anybody, and so could who calls itself by a member's name.
#[tokio::test]
async fn a_client_is_no_node_whatever_it_says_of_itself() {
    let (authority, of_clients) = (Authority::new("one"), Authority::new("clients"));
    let own = authority.issue("node", &["127.0.0.1"], |_| {});
    let rights = Rights::new(&["root"]);
    let ca = of_clients.certificate().display().to_string();
    let mut arguments = locked(&authority, &own, &["--tls-client-ca-file", &ca]);
    arguments.extend(rights.arguments());
    let mut cluster = cluster(1, &arguments);
    cluster.start_all();
    cluster.wait_ready(0);
    let shop = authority.issue("shop", &["shop.example"], |_| {});
    let keys = Keys::load(authority.files(Some(shop.clone()))).expect("right");
    let log = cluster.whole_logs();
    let cluster_id =
        log.split("cluster=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("it says so");
    let cluster_id = u128::from_str_radix(cluster_id, 16).expect("hexadecimal").to_be_bytes().to_vec();
    let hello = peer::Hello {
        format: 1,
        cluster_id: cluster_id.clone().into(),
        from: 77,
        name: "zz".into(),
        boot_id: 5,
        nonce: 6,
        version_min: 1,
        version_max: 2,
        peer_address: "shop.example:1".into(),
        ..peer::Hello::default()
    };
    for name in ["zz".to_owned(), cluster.name(0)] {
        let said = greet(cluster.ports(0).1, &keys, peer::Hello { name, ..hello.clone() }).await;
        assert!(said.contains("its certificate is for shop.example"), "{said}");
    }
    // A node's own certificate goes further, so that it is the certificate which was refused.
    let node = Keys::load(authority.files(Some(own))).expect("right");
    let said = greet(cluster.ports(0).1, &node, peer::Hello { name: cluster.name(0), ..hello }).await;
    assert!(said.contains("Hello"), "{said}");
    // Neither that nor a node's host in a certificate of clients' authority makes anybody the cluster itself.
    let posing = of_clients.issue("posing", &["127.0.0.1"], |_| {});
    for own in [shop, posing] {
        let credentials = Credentials {
            ca_file: Some(authority.certificate().to_owned()),
            cert_file: Some(own.0),
            key_file: Some(own.1),
            token: None,
        };
        let client =
            Client::connect_with(endpoints(&cluster), credentials).expect("right").with_timeout(PATIENCE);
        let right = client.can_i("administer", "").await.expect("it is known");
        assert!(!right.allowed && right.caller.starts_with("cert:"), "{right:?}");
    }
}

/// A connector that gives this connection, once.
fn tower_once(
    stream: std::sync::Mutex<Option<raftqueue_tls::Stream>>,
) -> impl tower::Service<
    tonic::transport::Uri,
    Response = hyper_util::rt::TokioIo<raftqueue_tls::Stream>,
    Error = std::io::Error,
    Future = std::future::Ready<std::io::Result<hyper_util::rt::TokioIo<raftqueue_tls::Stream>>>,
> + Send
+ 'static {
    tower::service_fn(move |_| {
        let taken = stream.lock().expect("nobody panics").take();
        std::future::ready(
            taken.map(hyper_util::rt::TokioIo::new).ok_or_else(|| std::io::Error::other("only once")),
        )
    })
}

/// What stands in README and `SECURITY.md` about each way in and each wrong credential.
#[test]
fn each_way_in_refuses_each_wrong_credential_in_words() {
    let (authority, strange) = (Authority::new("one"), Authority::new("two"));
    let own = authority.issue("node", &["127.0.0.1"], |_| {});
    let rights = Rights::new(&["shop", "watcher", "root"]);
    let mut arguments = locked(&authority, &own, &["--tls-clients", "required", "--console-changes"]);
    arguments.extend(rights.arguments());
    let mut cluster = cluster(1, &arguments);
    cluster.start_all();
    let (clients, _) = cluster.ports(0);
    let operations = cluster.operations_port(0);
    let trust = authority.certificate().display().to_string();
    let token = |name: &str| format!("authorization: Bearer {}", rights.token(name));
    let root = token("root");
    let at = |path: &str| format!("https://127.0.0.1:{clients}{path}");
    wait_for(
        "it leads",
        || cluster.logs(),
        || {
            let (code, said) = curl(&["--cacert", &trust, "-H", &root, &at("/status")]);
            if said.contains("Leader") { Ok(()) } else { Err(format!("{code}: {said}")) }
        },
    );
    let made =
        curl(&["--cacert", &trust, "-H", &root, "-X", "PUT", "-d", r#"{"topic": "orders"}"#, &at("/topic")]);
    assert_eq!(made.0, "201", "{made:?}");
    let made =
        curl(&["--cacert", &trust, "-H", &root, "-X", "PUT", "-d", r#"{"topic": "bills"}"#, &at("/topic")]);
    assert_eq!(made.0, "201", "{made:?}");

    // Without TLS, or by an authority that is not trusted: no further.
    let plain = format!("http://127.0.0.1:{clients}/status");
    let (code, said) = curl(&[&plain]);
    assert_eq!((code.as_str(), said.as_str()), ("400", "this port speaks TLS: use https://\n"));
    let other = strange.certificate().display().to_string();
    let (code, said) = curl(&["--cacert", &other, &at("/status")]);
    assert_eq!(code, "000", "{said}");

    // Nobody, and who shows what does not count.
    let nobody = "calls without credentials are refused here";
    let wrong = "authorization: Bearer rq_0000000000000000000000000000000000000000000";
    let basic = "authorization: Basic c2hvcDpzaG9w";
    for (path, is_words) in [
        ("/", false),
        ("/status", false),
        ("/topic", false),
        ("/message/orders", false),
        ("/v1/status", true),
        ("/v1/topics", true),
        ("/v1/openapi.json", true),
        ("/v1/nothing", true),
        ("/nothing", false),
    ] {
        for (shown, words) in
            [(None, nobody), (Some(wrong), "token"), (Some(basic), "must be `Bearer TOKEN`")]
        {
            let at = at(path);
            let mut arguments = vec!["--cacert", &trust, "--include"];
            arguments.extend(shown.iter().flat_map(|shown| ["-H", shown]));
            arguments.push(&at);
            let (code, said) = curl(&arguments);
            assert_eq!(code, "401", "{path}, {shown:?}: {said}");
            assert!(said.to_lowercase().contains("www-authenticate: bearer"), "{said}");
            assert!(said.contains("UNAUTHENTICATED"), "{path}, {shown:?}: {said}");
            let told = said.replace("%60", "`");
            assert!(told.contains(words), "{path}, {shown:?}: {said}");
            assert_eq!(said.contains("\"outcome\""), is_words, "{path}: {said}");
        }
    }

    // Who is known, and may not.
    let shop = token("shop");
    let publish = |shown: &str, topic: &str| {
        let body = format!(r#"{{"messages": [{{"body": "a"}}], "topic": "{topic}"}}"#);
        let body = body.replace(&format!(r#", "topic": "{topic}""#), "");
        curl(&["--cacert", &trust, "-H", shown, "-d", &body, &at(&format!("/v1/topics/{topic}/publish"))])
    };
    assert_eq!(publish(&shop, "orders").0, "200");
    let (code, said) = publish(&shop, "bills");
    assert_eq!(code, "403", "{said}");
    assert!(
        said.contains("PERMISSION_DENIED") && said.contains("token:shop may not publish to `bills`"),
        "{said}"
    );
    assert_eq!(publish(&token("watcher"), "orders").0, "403");
    let (code, said) = curl(&["--cacert", &trust, "-H", &token("watcher"), &at("/message/orders")]);
    assert_eq!(code, "403", "{said}");
    let (_, listed) = curl(&["--cacert", &trust, "-H", &token("watcher"), &at("/topic")]);
    assert_eq!(listed, r#"{"success": true, "topics": ["orders", "bills"]}"#);
    let (code, said) = curl(&["--cacert", &trust, "-H", &shop, &at("/topic")]);
    assert_eq!(code, "403", "who may see no topic has no list of them: {said}");
    let (code, said) = curl(&["--cacert", &trust, "-H", &shop, &at("/v1/members")]);
    assert_eq!(code, "403", "{said}");

    // A certificate says who one is, too.
    let certificate = authority.issue("shop", &["shop.example"], |_| {});
    let (cert, key) = (certificate.0.display().to_string(), certificate.1.display().to_string());
    let (code, said) = curl(&[
        "--cacert",
        &trust,
        "--cert",
        &cert,
        "--key",
        &key,
        "-d",
        r#"{"messages": [{"body": "b"}]}"#,
        &at("/v1/topics/orders/publish"),
    ]);
    assert_eq!(code, "200", "{said}");
    let unknown = strange.issue("shop", &["shop.example"], |_| {});
    let (cert, key) = (unknown.0.display().to_string(), unknown.1.display().to_string());
    let (code, said) = curl(&["--cacert", &trust, "--cert", &cert, "--key", &key, &at("/status")]);
    assert_eq!(code, "000", "{said}");

    // The operations port: the probes alone without TLS, and metrics for who may see every topic.
    let open = |path: &str| format!("http://127.0.0.1:{operations}{path}");
    let locked = |path: &str| format!("https://127.0.0.1:{operations}{path}");
    for probe in ["/livez", "/readyz"] {
        assert_eq!(curl(&[&open(probe)]), ("200".into(), "ok\n".into()));
        assert_eq!(curl(&["--cacert", &trust, &locked(probe)]), ("200".into(), "ok\n".into()));
    }
    for path in ["/metrics", "/", "/topics/orders", "/console/live.js"] {
        let (code, said) = curl(&[&open(path)]);
        assert_eq!((code.as_str(), said.as_str()), ("403", "this port speaks TLS: use https://\n"), "{path}");
        let (code, said) = curl(&["--cacert", &trust, &locked(path)]);
        assert_eq!(code, "401", "{path}: {said}");
        assert!(said.contains(nobody), "{path}: {said}");
    }
    assert_eq!(curl(&["--cacert", &trust, "-H", &shop, &locked("/metrics")]).0, "403");
    let (code, said) = curl(&["--cacert", &trust, "-H", &token("watcher"), &locked("/metrics")]);
    assert!(code == "200" && said.contains("raftqueue_ready"), "{code}: {said}");
    let change = |shown: &str| {
        let origin = format!("origin: https://127.0.0.1:{operations}");
        let json = "content-type: application/json";
        curl(&[
            "--cacert",
            &trust,
            "-X",
            "POST",
            "-H",
            shown,
            "-H",
            &origin,
            "-H",
            json,
            "-d",
            "{}",
            &locked("/topics/orders/purge"),
        ])
    };
    let (code, said) = change(&token("watcher"));
    assert!(code == "403" && said.contains("may not manage `orders`"), "{code}: {said}");

    // Leases name their topic by a number: whose they are is looked at, too.
    let leased = curl(&[
        "--cacert",
        &trust,
        "-H",
        &root,
        "-d",
        r#"{"messages": [{"body": "b"}]}"#,
        &at("/v1/topics/bills/publish"),
    ]);
    assert_eq!(leased.0, "200", "{leased:?}");
    let (_, leased) = curl(&["--cacert", &trust, "-H", &root, "-X", "POST", &at("/v1/topics/bills/receive")]);
    let lease =
        leased.split("\"lease\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("one is leased");
    let leases = format!(r#"{{"leases": ["{lease}"]}}"#);
    for what in ["ack", "nack", "extend", "release"] {
        let path = |topic: &str| at(&format!("/v1/topics/{topic}/{what}"));
        let (code, said) = curl(&["--cacert", &trust, "-H", &shop, "-d", &leases, &path("orders")]);
        assert!(
            code == "400" && said.contains("these leases are not of the topic `orders`"),
            "{what}: {code}: {said}"
        );
        assert_eq!(curl(&["--cacert", &trust, "-H", &shop, "-d", &leases, &path("bills")]).0, "403");
    }
    // A producer's name is its own: the same name of another caller is another producer.
    let open = |shown: &str| {
        curl(&["--cacert", &trust, "-H", shown, "-d", r#"{"name": "billing"}"#, &at("/v1/sessions")])
    };
    let session = |said: &str| {
        said.split("\"session\":\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned)
    };
    let (first, second) = (open(&root), open(&shop));
    let first = session(&first.1).unwrap_or_else(|| panic!("{first:?} {second:?}"));
    assert_ne!(Some(&first), session(&second.1).as_ref());
    let step =
        format!(r#"{{"messages": [{{"body": "c"}}], "session": {{"session": "{first}", "sequence": 1}}}}"#);
    let (code, said) = curl(&["--cacert", &trust, "-H", &root, "-d", &step, &at("/v1/topics/bills/publish")]);
    assert_eq!(code, "200", "nobody fenced it: {said}");

    // raftq: what it says, and how it ends.
    let ask = |shown: &[&str], command: &[&str]| {
        let output = raftq(&cluster, &[shown, command].concat());
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let file = |name: &str| rights.path(name).display().to_string();
    let (trust_it, shop_it) = (["--ca-file", &trust], ["--token-file", &file("shop")]);
    let both = [&trust_it[..], &shop_it[..]].concat();
    for (shown, command, code, words) in [
        (&[][..], &["topic", "list"][..], 1, "this speaks TLS: say https://"),
        (&["--ca-file", &other], &["topic", "list"], 1, "was issued by no authority that is trusted here"),
        (&trust_it, &["topic", "list"], 1, "UNAUTHENTICATED: calls without credentials are refused here"),
        (&both, &["publish", "bills", "a"], 1, "PERMISSION_DENIED: token:shop may not publish to `bills`"),
        (&both, &["members", "list"], 1, "PERMISSION_DENIED"),
        (&both, &["publish", "orders", "a"], 0, "1 message"),
        (&both, &["auth", "can-i", "publish", "orders"], 0, "yes, token:shop may: by the role shop"),
        (&both, &["auth", "can-i", "publish", "bills"], 1, "token:shop may not publish to `bills`"),
        (&both, &["auth", "can-i", "administer"], 1, "may not administer"),
    ] {
        let (ended, said) = ask(shown, command);
        assert_eq!(ended, Some(code), "{shown:?} {command:?}: {said}");
        assert!(said.contains(words), "{shown:?} {command:?}: {said}");
    }

    // What was refused and what was administered is on record.
    let logs = cluster.whole_logs();
    for (kind, words) in [
        ("unauthenticated", nobody),
        ("denied", "token:shop may not publish to `bills`"),
        ("administered", "\"caller\":\"token:root\""),
    ] {
        let noted = logs.lines().filter(|line| line.contains(&format!("\"audit\":\"{kind}\"")));
        assert!(noted.clone().any(|line| line.contains(words)), "{kind}: {:?}", noted.collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_taken_back_end_what_goes_on_by_them() {
    let rights = Rights::new(&["shop", "watcher", "root"]);
    let mut arguments = CALM.map(str::to_owned).to_vec();
    arguments.extend(rights.arguments());
    let mut cluster = cluster(1, &arguments);
    cluster.start_all();
    let by = |name: &str| {
        let token = Some(Token::File(rights.path(name)));
        let credentials = Credentials { token, ..Credentials::default() };
        Client::connect_with(endpoints(&cluster), credentials).expect("right").with_timeout(PATIENCE)
    };
    let topic = v1::CreateTopicRequest { topic: "orders".into(), ..Default::default() };
    by("root").create_topic(topic).await.expect("it is made");
    let shop = by("shop");
    let publisher = shop.publisher("orders").await.expect("it may");
    let mut consumer = shop.consumer("orders");
    let message = || v1::NewMessage { body: "a".into(), ..Default::default() };
    publisher.publish(message()).await.expect("it may");
    consumer.receive().await.expect("it may").ack();
    // Its token is taken back. What is broken on the way changes nothing.
    let tokens = std::fs::read_to_string(rights.path("tokens")).expect("there");
    replace(&rights.path("tokens"), b"this is no file of tokens\n");
    cluster.wait_for_log("what it said before stays in force");
    let without: String =
        tokens.lines().filter(|line| !line.starts_with("shop ")).map(|line| format!("{line}\n")).collect();
    replace(&rights.path("tokens"), without.as_bytes());
    let refused = tokio::time::timeout(PATIENCE, async {
        loop {
            match publisher.publish(message()).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return error,
            }
        }
    });
    let refused = refused.await.expect("it ends");
    assert_eq!(
        (refused.reason, refused.outcome),
        (v1::Reason::Unauthenticated, Outcome::NotDone),
        "{refused}"
    );
    let refused = tokio::time::timeout(PATIENCE, async {
        loop {
            match consumer.receive().await {
                Ok(delivery) => drop(delivery.ack()),
                Err(error) => return error,
            }
        }
    });
    assert_eq!(refused.await.expect("it ends").reason, v1::Reason::Unauthenticated);
    // A token that is somebody else's by now is not good for the streams of who had it before.
    let publisher = by("root").publisher("orders").await.expect("it may");
    publisher.publish(message()).await.expect("it may");
    replace(&rights.path("tokens"), without.replace("root ", "shop ").as_bytes());
    let refused = tokio::time::timeout(PATIENCE, async {
        loop {
            match publisher.publish(message()).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return error,
            }
        }
    });
    assert_eq!(refused.await.expect("it ends").reason, v1::Reason::Unauthenticated);
    replace(&rights.path("tokens"), without.as_bytes());
    cluster.wait_until("the tokens are as before", || {
        raftq(&cluster, &["--token-file", &rights.path("root").display().to_string(), "topic", "list"])
            .status
            .success()
    });
    // A role that is changed counts at once, and others go on.
    let described = |name: &str| {
        let client = by(name);
        async move { client.describe_topic(v1::DescribeTopicRequest { topic: "orders".into() }).await }
    };
    described("watcher").await.expect("it may");
    replace(&rights.path("auth.yaml"), RIGHTS.replace("may: [browse]", "may: [publish]").as_bytes());
    let refused = tokio::time::timeout(PATIENCE, async {
        loop {
            match described("watcher").await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return error,
            }
        }
    });
    assert_eq!(refused.await.expect("it ends").reason, v1::Reason::PermissionDenied);
    described("root").await.expect("it may");
}
