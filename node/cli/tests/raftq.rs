//! The command line as people and scripts use it, against a node in memory.

#[path = "raftq/storage.rs"]
mod storage;

use raftqueue_node::api::{Failure, LocalStatus, MemberInfo, Reason, Role};
use raftqueue_node::fake::{FakeNode, Served, leading};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use tokio::runtime::{Builder, Runtime};

/// A node in memory, served by threads of its own while the test waits for processes.
struct Node {
    served: Served,
    _runtime: Runtime,
}

/// What a command left behind.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: i32,
    out: String,
    error: String,
}

impl Ran {
    /// What was printed by a command that did what it should.
    fn done(self) -> String {
        assert_eq!((self.code, self.error.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    fn json(self) -> Vec<serde_json::Value> {
        self.done().lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect()
    }
}

impl Node {
    fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
        let served = runtime.block_on(Served::start(FakeNode::default()));
        Self { served, _runtime: runtime }
    }

    /// A node with a topic `orders`.
    fn with_topic() -> Self {
        let node = Self::start();
        node.run("topic create orders").done();
        node
    }

    /// Runs a command line, its words separated by spaces.
    fn run(&self, line: &str) -> Ran {
        self.run_with(line, b"")
    }

    fn run_with(&self, line: &str, input: &[u8]) -> Ran {
        run(&self.served.endpoint(), line, input)
    }
}

fn run(endpoints: &str, line: &str, input: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_raftq"))
        .args(line.split(' ').filter(|word| !word.is_empty()))
        .env("RAFTQ_ENDPOINTS", endpoints)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    // A command that reads nothing may be gone already.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    Ran {
        code: output.status.code().expect("it was not killed"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        error: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

#[test]
fn three_commands_take_a_person_from_nothing_to_their_messages() {
    let node = Node::start();
    assert_eq!(node.run("topic create orders").done(), "topic orders is created\n");
    assert_eq!(
        node.run_with("publish orders", b"one\ntwo\nthree").done(),
        "published to orders: 3 messages\n"
    );
    assert_eq!(node.run("receive orders -n 100 --ack").done(), "one\ntwo\nthree\n");
    let error = "no message is ready in orders, and none is leased, delayed or dead\n".to_owned();
    assert_eq!(node.run("receive orders"), Ran { code: 3, out: String::new(), error });
    assert_eq!(node.run("topic list -o json").json()[0]["leased"], 0, "they are acknowledged");
}

#[test]
fn a_message_that_could_not_be_printed_is_not_acknowledged() {
    let node = Node::with_topic();
    node.run("publish orders one").done();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut receive = Command::new(env!("CARGO_BIN_EXE_raftq"));
    receive.args(["receive", "orders", "--ack", "--endpoints", &node.served.endpoint()]).stdout(writer);
    let output = receive.output().expect("it ends");
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(1), &b""[..]),
        "nobody is there to be told"
    );
    assert_eq!(node.run("topic list -o json").json()[0]["leased"], 1);
}

#[test]
fn topics_are_listed_for_people_for_cut_and_for_jq() {
    let node = Node::with_topic();
    node.run("topic create b --attempts-max 3 --ttl 7d").done();
    node.run("publish orders x y").done();
    let plain = node.run("topic list").done();
    assert_eq!(
        plain,
        "orders\t2\t0\t0\t0\t2\t2023-11-14T22:13:20Z\nb\t0\t0\t0\t0\t0\t2023-11-14T22:13:20Z\n"
    );
    let table = node.run("topic list --output table").done();
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines[0], "TOPIC   READY  LEASED  DELAYED  DEAD  BYTES  CREATED");
    assert_eq!(lines[1], "orders  2      0       0        0     2      2023-11-14T22:13:20Z");
    assert!(!table.contains('\x1b'), "no colours where no terminal is");
    let json = node.run("topic list -o json").json();
    assert_eq!((&json[1]["topic"], &json[1]["ttl_ms"]), (&"b".into(), &604_800_000.into()));

    let described = node.run("topic describe b").done();
    assert!(
        described.contains("attempts max\t3\n") && described.contains("default ready\t0\n"),
        "{described}"
    );
    assert_eq!(node.run("topic describe orders -o json").json()[0]["ready"], 2);
    assert_eq!(node.run("topic delete b --yes").done(), "topic b is deleted\n");
    assert_eq!(node.run("topic list").done().lines().count(), 1);
}

#[test]
fn lines_of_a_file_are_published_in_batches_and_in_order() {
    let node = Node::with_topic();
    let mut text = String::new();
    for line in 0..2_500 {
        writeln!(text, "line {line}").expect("a string");
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &text).expect("written");
    let published = node.run(&format!("publish orders -o json --file {}", file.path().display())).json();
    assert_eq!(published[0]["count"], 2_500);
    assert_eq!((&published[0]["first_offset"], &published[0]["last_offset"]), (&0.into(), &2_499.into()));
    assert_eq!(node.run("receive orders --all --ack").done(), text);
    let published = node.run_with("publish orders --batch 1", b"\n\xc3\xa4\r\n\n").done();
    assert_eq!(published, "published to orders: 3 messages\n");
    assert_eq!(node.run("receive orders --all --ack").done(), "\nä\r\n\n", "every byte but the line ends");
}

#[test]
fn nothing_to_publish_is_no_error() {
    let node = Node::with_topic();
    assert_eq!(node.run_with("publish orders", b"").done(), "published to orders: 0 messages\n");
}

#[test]
fn a_publish_that_ends_early_says_how_much_is_stored() {
    let node = Node::with_topic();
    let too_long = [&b"a\nb\n"[..], &vec![b'x'; (1 << 20) + 1], b"\nc\n"].concat();
    let ran = node.run_with("publish orders --batch 1", &too_long);
    assert_eq!(ran.code, 1);
    assert!(ran.error.contains("2 messages stored") && ran.error.contains("TOO_LARGE"), "{}", ran.error);
    assert_eq!(node.run("receive orders --all --ack").done(), "a\nb\n");
}

#[test]
fn a_lost_answer_stores_nothing_twice() {
    let node = Node::with_topic();
    node.served.node.lose_next_answer(Failure::unknown(Reason::ForwardingBroken, "broken"));
    // The first answer that is lost is that of the session; the second one that of the batch.
    node.served.node.lose_next_answer(Failure::unknown(Reason::ForwardingBroken, "broken"));
    assert_eq!(node.run("publish orders x").done(), "published to orders: 1 message\n");
    assert_eq!(node.run("receive orders --all --ack").done(), "x\n");
    // The same with lines, which go over a stream.
    for _ in 0..3 {
        node.served.node.lose_next_answer(Failure::unknown(Reason::ForwardingBroken, "broken"));
    }
    assert_eq!(
        node.run_with("publish orders --batch 2", b"a\nb\nc\nd\ne\n").done(),
        "published to orders: 5 messages\n"
    );
    assert_eq!(node.run("receive orders --all --ack").done(), "a\nb\nc\nd\ne\n");
}

#[test]
fn messages_carry_keys_headers_and_times() {
    let node = Node::with_topic();
    node.run("publish orders --key k --header a=b=c --header d= --ttl 1h later --delay 10m").done();
    assert_eq!(node.run("receive orders").code, 3, "it is not due");
    let seen = node.run("peek orders --state delayed -o json").json();
    assert_eq!((&seen[0]["body"], &seen[0]["key"]), (&"later".into(), &"k".into()));
    assert_eq!(
        seen[0]["headers"],
        serde_json::json!([{"name": "a", "value": "b=c"}, {"name": "d", "value": ""}])
    );
    assert!(seen[0].get("lease").is_none(), "a look leases nothing");
}

#[test]
fn leases_go_from_receive_to_ack_as_arguments_and_as_lines() {
    let node = Node::with_topic();
    node.run("publish orders a b c d e").done();
    let received = node.run("receive orders -n 5 -o json").json();
    let lease = |position: usize| received[position]["lease"].as_str().expect("a lease").to_owned();
    assert_eq!(node.run(&format!("ack orders {}", lease(0))).done(), format!("{}\tDONE\n", lease(0)));
    assert_eq!(node.run(&format!("ack orders {}", lease(0))).done(), format!("{}\tGONE\n", lease(0)));
    let lines = format!("{}\n{}\n", lease(1), lease(2));
    assert_eq!(node.run_with("ack orders", lines.as_bytes()).done().matches("DONE").count(), 2);
    assert_eq!(
        node.run(&format!("extend orders {} --lease 10m", lease(3))).done().matches("DONE").count(),
        1
    );
    node.run(&format!("release orders {}", lease(3))).done();
    node.run(&format!("nack orders {} --delay 0s --reason why", lease(4))).done();

    let stale = node.run(&format!("ack orders {} -o json", lease(3)));
    assert_eq!(stale.code, 1);
    assert!(stale.out.contains(r#""result":"STALE""#) && stale.error.contains("1 of 1"), "{stale:?}");
    assert_eq!(node.run("receive orders --all --ack").done(), "d\ne\n", "both came back, in order");
    assert_eq!(node.run("ack orders").code, 3, "no lease on standard input");
}

#[test]
fn a_mistyped_lease_stops_everything_before_it_begins() {
    let node = Node::with_topic();
    node.run("publish orders a").done();
    let received = node.run("receive orders -o json").json();
    let lease = received[0]["lease"].as_str().expect("a lease");
    assert_eq!(node.run(&format!("ack orders {lease} xyz")).code, 2);
    let garbage = node.run(&format!("ack orders {lease} 0102"));
    assert_eq!(garbage.code, 1);
    assert!(garbage.error.contains("INVALID_ARGUMENT"), "{}", garbage.error);
    assert_eq!(node.run(&format!("ack orders {lease}")).done(), format!("{lease}\tDONE\n"));
}

#[test]
fn dead_messages_are_listed_redriven_and_dropped() {
    let node = Node::start();
    node.run("topic create orders --attempts-max 1").done();
    node.run("publish orders a b c").done();
    for received in node.run("receive orders -n 3 -o json").json() {
        let lease = received["lease"].as_str().expect("a lease");
        node.run(&format!("nack orders {lease} --reason closed")).done();
    }
    assert_eq!(node.run("dead list orders --bodies-only").done(), "a\nb\nc\n");
    let table = node.run("dead list orders -o table").done();
    assert_eq!(table.matches("closed").count(), 3, "{table}");
    assert_eq!(node.run("dead list orders --from 1 -n 1 -o json").json()[0]["dead_reason"], "closed");
    assert_eq!(node.run("dead redrive orders").code, 2, "which ones?");
    assert_eq!(node.run("dead redrive orders 1").done(), "redriven: 1 message\n");
    assert_eq!(node.run("dead purge orders --all --yes").done(), "dropped: 2 dead messages\n");
    assert_eq!(node.run("dead list orders").code, 3);
    assert_eq!(node.run("purge orders --yes -o json").json()[0]["count"], 1);
}

#[test]
fn a_body_that_is_no_text_is_printed_as_it_is_or_as_base64() {
    let node = Node::with_topic();
    assert_eq!(node.run_with("publish orders", b"\xff\xfe\n").code, 0);
    let seen = node.run("peek orders -o json").json();
    assert_eq!((seen[0].get("body"), &seen[0]["body_base64"]), (None, &"//4=".into()));
}

#[test]
fn what_is_on_a_terminal_cannot_move_its_cursor() {
    let node = Node::with_topic();
    node.run_with("publish orders", b"\x1b[2J\tx\n").done();
    let table = node.run("peek orders -o table").done();
    assert!(!table.contains('\x1b') && table.contains("\\u{1b}[2J\\tx"), "{table}");
}

#[test]
fn status_shows_every_node_and_the_cluster() {
    let node = Node::start();
    let endpoints = format!("{},{}", node.served.endpoint(), dead_address());
    let plain = run(&endpoints, "status", b"").done();
    let lines: Vec<_> = plain.lines().collect();
    assert_eq!(lines[0], format!("{}\tnode-0\tleader\t7\t42\t42\t0\tyes\t", node.served.endpoint()));
    assert!(lines[1].contains("refused") && lines.len() == 2, "{plain}");
    let table = run(&endpoints, "status -o table", b"").done();
    assert!(
        table.ends_with("node-0 leads in term 7, 1 of 1 voters active, commit 42, version 1\n"),
        "{table}"
    );
    let json = run(&endpoints, "status -o json", b"").json();
    let views: Vec<_> = json.iter().map(|line| line["view"].as_str().expect("a view")).collect();
    assert_eq!(views, ["own", "own", "cluster"]);
    assert_eq!(json[2]["members"][0]["node"], "node-0");
}

#[test]
fn status_without_quorum_still_shows_what_nodes_say() {
    let node = Node::start();
    let not_ready = Some("no leader for 3 s".to_owned());
    node.served.node.set_status(LocalStatus { role: Role::Candidate, not_ready, ..leading() });
    for _ in 0..1_000 {
        node.served.node.fail_next(Failure::not_done(Reason::NoLeader, "nobody leads"));
    }
    let ran = node.run("status --timeout 10s");
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("candidate\t7\t42\t42\t-\tno\tno leader for 3 s\n"), "{}", ran.out);
    assert!(ran.error.starts_with("error: 1 of 1 nodes answers, no leader: "), "{}", ran.error);
    // Four more members are known, and two of the five do not do.
    let mut status = leading();
    let own = status.members[0].clone();
    for id in 1..5 {
        let (name, client_address) = (format!("node-{id}"), dead_address());
        status.members.push(MemberInfo { id, name, client_address, ..own.clone() });
    }
    node.served.node.set_status(LocalStatus { role: Role::Follower, leader: None, ..status });
    let ran = node.run("status --timeout 10s");
    assert_eq!((ran.code, ran.out.lines().count()), (1, 5), "all members are shown: {ran:?}");
    let said = "error: 1 of 5 nodes answers, no leader: that takes 3 of the 5 voters\n";
    assert_eq!(ran.error, said);
}

#[test]
fn status_shows_where_each_node_finds_each_other_one() {
    let node = Node::start();
    let mut status = leading();
    let own = status.members[0].clone();
    let clients = dead_address();
    status.members.push(MemberInfo {
        id: 2,
        name: "node-1".into(),
        peer_address: "10.0.0.7:7421".into(),
        client_address: clients.clone(),
        ..own.clone()
    });
    let nowhere =
        MemberInfo { peer_address: String::new(), client_address: String::new(), active: false, ..own };
    status.members.push(MemberInfo { id: 3, name: "node-2".into(), ..nowhere });
    node.served.node.set_status(status);
    assert_eq!(
        node.run("status --peers").done(),
        format!(
            "node-0\tnode-1\t0000000000000002\t10.0.0.7:7421\tyes\t{clients}\n\
             node-0\tnode-2\t0000000000000003\t-\tno\t-\n\
             node-1\t-\t-\t{clients}: Connection refused\t-\t-\n\
             node-2\t-\t-\tno node that answers knows where it is\t-\t-\n"
        )
    );
    let json = node.run("status --peers -o json").json();
    assert_eq!((&json[0]["peer_address"], &json[1]["heard"]), (&"10.0.0.7:7421".into(), &false.into()));
    let ran = run(&dead_address(), "status --peers", b"");
    assert!(ran.code == 1 && ran.error.contains("no node says whom it knows"), "{ran:?}");
}

#[test]
fn leadership_is_handed_over() {
    let node = Node::start();
    assert_eq!(node.run("transfer node-0").done(), "node-0 leads now\n");
    let ran = node.run("transfer node-9");
    assert_eq!(ran.code, 1);
    assert!(ran.error.contains("NODE_NOT_FOUND"), "{}", ran.error);
}

#[test]
fn exit_codes_tell_refused_from_unknown_and_from_wrong_usage() {
    let node = Node::with_topic();
    let ran = node.run("topic create orders");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.error.starts_with("error: TOPIC_EXISTS"), "{}", ran.error);
    node.served.node.fail_next(Failure::unknown(Reason::DeadlineExceeded, "too late"));
    let ran = node.run("purge orders --yes");
    assert_eq!(ran.code, 4);
    assert!(ran.error.contains("may have been done"), "{}", ran.error);
    // A question has changed nothing, whatever became of it.
    for _ in 0..1_000 {
        node.served.node.fail_next(Failure::unknown(Reason::DeadlineExceeded, "too late"));
    }
    let ran = node.run("topic list --timeout 50ms");
    assert!(ran.code == 1 && !ran.error.contains("may have been done"), "{ran:?}");
    let wrong = [
        "",
        "enqueue orders",
        "publish",
        "receive orders -n 0",
        "receive orders --wait 5w",
        "publish orders --batch 0 x",
        "receive orders --all -n 5",
        "publish orders --header x y",
        "peek orders --state gone",
        "topic",
        "dead redrive",
    ];
    for line in wrong {
        assert_eq!(node.run(line).code, 2, "{line}");
    }
    assert_eq!(run("a b", "topic list", b"").code, 2, "no address");
}

/// However long a call may take: nobody is waited for who does not run.
#[test]
fn where_no_cluster_is_that_is_said_at_once() {
    let (one, other) = (dead_address(), dead_address());
    let endpoints = format!("{one}, {other},");
    for line in ["topic list", "publish orders x", "receive orders --wait 1h", "status", "bench publish"] {
        let nobody = run(&endpoints, &format!("--timeout 1h {line}"), b"");
        assert_eq!(nobody.code, 1, "{line}: {nobody:?}");
        let said = format!("error: no cluster at {one}, {other}; start one with raftq up");
        assert!(nobody.error.starts_with(&said), "{line}: {}", nobody.error);
    }
}

#[test]
fn what_cannot_be_undone_wants_a_yes_where_nobody_can_be_asked() {
    let node = Node::with_topic();
    node.run("publish orders x").done();
    for line in ["purge orders", "topic delete orders", "dead purge orders --all"] {
        let ran = node.run_with(line, b"y\n");
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{line}");
        assert!(
            ran.error.contains("--yes") && ran.error.contains("Nothing was done"),
            "{line}: {}",
            ran.error
        );
    }
    assert_eq!(node.run("topic list -o json").json()[0]["ready"], 1);
    assert_eq!(node.run("purge orders --yes").done(), "dropped: 1 message\n");
}

#[test]
fn help_has_examples_and_exit_codes() {
    for line in ["--help", "help publish", "receive --help", "topic create --help", "status -h"] {
        let help = run("", line, b"");
        assert_eq!(help.code, 0, "{line}: {}", help.error);
        assert!(help.out.contains("Usage: raftq"), "{line}");
    }
    assert!(run("", "--help", b"").out.contains("Exit codes:"));
    assert!(run("", "receive --help", b"").out.contains("raftq receive orders -n 100 --ack"));
}

#[test]
fn a_data_directory_can_be_looked_into() {
    let directory = tempfile::tempdir().expect("a directory");
    let ran = run("", &format!("wal dump {}", directory.path().display()), b"");
    assert!(ran.error.contains("is not the data directory of a node"), "{ran:?}");
    std::fs::create_dir(directory.path().join("node")).expect("a directory");
    std::fs::write(directory.path().join("node/segment-0000000000000001"), "").expect("a file");
    let ran = run("", &format!("wal dump {}/node", directory.path().display()), b"");
    assert!(ran.out.contains("0 segments, 0 records"), "all that is left is looked into: {ran:?}");
    let ran = run("", "wal dump /nowhere/at/all", b"");
    assert_eq!(ran.code, 1);
    assert!(ran.error.contains("/nowhere/at/all"), "{}", ran.error);
}

#[test]
fn shells_learn_every_command() {
    let node = Node::start();
    for shell in ["bash", "zsh", "fish"] {
        let script = node.run(&format!("completions {shell}")).done();
        for word in ["publish", "receive", "redrive", "bench", "endpoints"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    assert_eq!(node.run("completions tcsh").code, 2);
}

/// What every measurement of a cluster tells.
const MEASURED: [&str; 9] = [
    "messages_per_second",
    "megabytes_per_second",
    "acknowledged",
    "errors",
    "p50_ms",
    "p99_ms",
    "p999_ms",
    "topic",
    "endpoints",
];

fn is_measured(object: &serde_json::Value) {
    for field in MEASURED {
        assert!(!object[field].is_null(), "{field} is missing in {object}");
    }
    assert_eq!(object["errors"], 0, "{object}");
    assert!(object["acknowledged"].as_u64().expect("a count") > 0, "{object}");
    assert!(object["messages_per_second"].as_f64().expect("a rate") > 0.0, "{object}");
}

#[test]
fn a_cluster_is_measured_with_every_kind_of_load() {
    let node = Node::start();
    let publish = "-o json bench publish --seconds 1 --producers 2 --batch 4 --window 2 --size 10";
    for (more, connections) in [("", 2), (" --unary", 2), (" --connections 1", 1)] {
        let measured = node.run(&format!("{publish}{more}")).json();
        assert_eq!(measured.len(), 1, "one object");
        is_measured(&measured[0]);
        assert_eq!(measured[0]["connections"], connections);
        assert_eq!((&measured[0]["batch"], &measured[0]["window"]), (&4.into(), &2.into()));
    }
    let ran = node.run(
        "-o json bench consume --topic other --seconds 1 --consumers 2 --batch 8 --backlog 1000 --size 10",
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    let consumed: serde_json::Value = serde_json::from_str(&ran.out).expect("one object");
    is_measured(&consumed);
    assert_eq!((&consumed["consumers"], &consumed["backlog"]), (&2.into(), &1_000.into()));
    let mixed = node
        .run("-o json bench mixed --topic third --seconds 1 --producers 1 --consumers 2 --batch 8 --size 10");
    let mixed = mixed.json();
    assert_eq!(mixed.len(), 1, "one object");
    for object in [&mixed[0], &mixed[0]["published"], &mixed[0]["consumed"]] {
        is_measured(object);
    }
    let table = node.run("-o table bench mixed --topic third --seconds 1 --producers 1 --size 10").done();
    assert_eq!(table.lines().count(), 3, "a header and both sides:\n{table}");
}

#[test]
fn an_empty_topic_cannot_be_measured_and_it_is_said_what_to_do() {
    let node = Node::with_topic();
    let ran = node.run("bench consume --topic orders --seconds 1");
    assert_eq!(ran.code, 1);
    assert!(ran.error.contains("orders has no messages") && ran.error.contains("--backlog"), "{}", ran.error);
}

#[test]
fn loads_that_make_no_sense_are_named_with_what_would() {
    let node = Node::start();
    for (line, expected) in [
        ("bench publish --seconds 0", "0 is not in 1..=86400"),
        ("bench publish --producers 0", "0 is not in 1..=10000"),
        ("bench publish --producers 2 --connections 3", "a producer has one"),
        ("bench publish --batch 10001", "10001 is not in 1..=10000"),
        ("bench publish --window 0", "0 is not in 1..=1024"),
        ("bench publish --size=-1", "-1 is not in 0..=16777216"),
        ("bench publish --window -1", "-1 is not in 1..=1024"),
        ("bench publish --size 99999999999", "99999999999 is not in 0..=16777216"),
        ("bench consume --consumers 0", "0 is not in 1..=10000"),
        ("bench consume --batch -5", "-5 is not in 1..=10000"),
        ("bench mixed --consumers 1000000", "1000000 is not in 1..=10000"),
        ("bench disk --size 0", "0 is not in 1..=16777216"),
        ("bench publish --batch 10000 --size 16777216", "no node takes more than 16777216 at once"),
        ("bench mixed --batch 2 --size 16777216", "no node takes more than 16777216 at once"),
        ("bench publish --producers 10000 --window 1024 --batch 64", "GiB under way, 4 GiB is the most"),
        ("bench consume --seconds 99999999999999999999", "99999999999999999999 is not in 1..=86400"),
        ("bench consume --backlog -1", "-1 is not in 0..=1000000000"),
        ("bench publish --size 1e3", "1e3 is not in 0..=16777216"),
        ("bench publish --timeout 0s", "timeout"),
        ("bench soak --seconds 0", "0 is not in 1..=31536000"),
        ("bench soak --every 0", "0 is not in 1..=86400"),
        ("bench soak --leave -1", "-1 is not in 0..=600000"),
        ("status --storage --leader", "cannot be used with"),
    ] {
        let ran = node.run(line);
        assert_eq!(ran.code, 2, "{line}: {ran:?}");
        assert!(ran.error.contains(expected), "{line}: {}", ran.error);
    }
}

/// Listens, and says this to whoever connects; `None`: nothing, for ever.
fn stranger(words: Option<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            match words {
                Some(words) => drop(stream.write_all(words)),
                None => held.push(stream),
            }
        }
    });
    address
}

#[test]
fn a_load_for_nobody_ends_in_time_and_says_so_in_a_line() {
    let down = dead_address();
    let mute = stranger(None);
    let other = stranger(Some(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"));
    let garbage = stranger(Some(b"SSH-2.0-OpenSSH_9.9\r\n"));
    let endpoints =
        [&down, &mute, &other, &garbage, &format!("{down},{mute}"), &"localhost.invalid:1".to_owned()];
    std::thread::scope(|scope| {
        for endpoints in endpoints {
            scope.spawn(move || {
                for load in ["publish", "publish --unary", "consume", "consume --backlog 10", "mixed", "soak"]
                {
                    is_told_in_time(endpoints, load);
                }
            });
        }
    });
}

fn is_told_in_time(endpoints: &str, load: &str) {
    let begun = std::time::Instant::now();
    let ran = run(endpoints, &format!("--timeout 1s bench {load} --seconds 1"), b"");
    let took = begun.elapsed();
    assert!(matches!(ran.code, 1 | 4), "{endpoints} {load}: {ran:?}");
    let lines: Vec<&str> = ran.error.lines().filter(|line| !line.starts_with("publishing ")).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("error: "), "{endpoints} {load}: {ran:?}");
    assert_eq!(ran.out, "", "{endpoints} {load}");
    assert!(took < std::time::Duration::from_secs(20), "{endpoints} {load} took {took:?}");
}

#[test]
fn a_load_of_which_nothing_gets_through_has_no_speed() {
    let node = Node::start();
    // More than this node takes in one publish, and less than another might.
    for load in ["publish", "publish --unary", "mixed"] {
        let ran = node.run(&format!("bench {load} --seconds 1 --producers 1 --batch 5 --size 1048576"));
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{load}: {ran:?}");
        assert!(ran.error.starts_with("error: nothing was published: "), "{load}: {}", ran.error);
        assert_eq!(ran.error.lines().count(), 1, "{load}: {}", ran.error);
    }
}

#[test]
fn endpoints_of_two_clusters_are_not_measured() {
    let (one, two) = (Node::start(), Node::start());
    two.served.node.set_status(LocalStatus { cluster_id: "0b".into(), ..leading() });
    let endpoints = format!("{},{}", one.served.endpoint(), two.served.endpoint());
    for load in ["publish", "consume", "mixed", "soak"] {
        let ran = run(&endpoints, &format!("bench {load} --seconds 1"), b"");
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{load}: {ran:?}");
        assert!(ran.error.contains("give endpoints of one cluster"), "{load}: {}", ran.error);
    }
}
