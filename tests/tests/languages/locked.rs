//! What a stock gRPC library, Python's, is told at a port that has locks: by each wrong credential a code and words.

use super::build;
use libtest_mimic::Failed;
use raftqueue_tests::process::{CALM, Cluster, Rights, programs, wait_for};
use raftqueue_tls::fake::Authority;
use std::process::Command;

pub(crate) fn python_is_refused_in_words() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    build("python", folder.path())?;
    let (authority, strange) = (Authority::new("one"), Authority::new("two"));
    let own = authority.issue("node", &["127.0.0.1"], |_| {});
    let rights = Rights::new(&["shop", "root"]);
    let trust = authority.certificate().display().to_string();
    let files = [("--tls-cert-file", &own.0), ("--tls-key-file", &own.1)];
    let mut arguments: Vec<String> = CALM.map(str::to_owned).into();
    arguments.extend(["--tls-ca-file".into(), trust.clone()]);
    arguments.extend(files.iter().flat_map(|(flag, file)| [(*flag).to_owned(), file.display().to_string()]));
    arguments.extend(rights.arguments());
    let mut cluster = Cluster::new(1).with_operations();
    cluster.set_arguments(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    cluster.start_all();
    let endpoint = format!("127.0.0.1:{}", cluster.ports(0).0);
    let root = rights.path("root").display().to_string();
    let mut raftq = Command::new(programs().join("raftq"));
    raftq.args([
        "--endpoints",
        &endpoint,
        "--ca-file",
        &trust,
        "--token-file",
        &root,
        "topic",
        "create",
        "orders",
    ]);
    wait_for(
        "there is a topic",
        || cluster.logs(),
        || match raftq.output() {
            Ok(done) if done.status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );

    std::fs::write(rights.path("wrong"), format!("rq_{}", "0".repeat(43)))?;
    let other = strange.certificate().display().to_string();
    let say = |ca: Option<&str>, token: Option<&str>, topic: &str| {
        let mut program = Command::new(folder.path().join("locked"));
        program.args([&endpoint, topic]).env_remove("RAFTQ_CA_FILE").env_remove("RAFTQ_TOKEN_FILE");
        program.envs(ca.map(|file| ("RAFTQ_CA_FILE", file.to_owned())));
        program.envs(token.map(|name| ("RAFTQ_TOKEN_FILE", rights.path(name).display().to_string())));
        let output = program.output().expect("it can be started");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let trust = Some(trust.as_str());
    for (what, said, wanted) in [
        // The library is told with GOAWAY that it must not go on so, and tries again until its deadline.
        ("without TLS", say(None, None, "orders"), ["DEADLINE_EXCEEDED ", "Deadline Exceeded"]),
        (
            "an authority that did not issue the node's certificate",
            say(Some(&other), Some("shop"), "orders"),
            ["UNAVAILABLE ", "CERTIFICATE_VERIFY_FAILED"],
        ),
        (
            "no token",
            say(trust, None, "orders"),
            ["UNAUTHENTICATED ", "calls without credentials are refused here"],
        ),
        ("a wrong token", say(trust, Some("wrong"), "orders"), ["UNAUTHENTICATED ", "token"]),
        (
            "a token without the right",
            say(trust, Some("shop"), "bills"),
            ["PERMISSION_DENIED ", "token:shop may not publish to `bills`"],
        ),
        ("the right one", say(trust, Some("shop"), "orders"), ["OK", "OK\n"]),
    ] {
        println!("{what}: {}", said.lines().next().unwrap_or_default());
        assert!(said.starts_with(wanted[0]) && said.contains(wanted[1]), "{what}: {said}");
    }
    Ok(())
}
