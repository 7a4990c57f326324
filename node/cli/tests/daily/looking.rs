//! Topics, dead messages, the disk, and measurements that are cut short.

use crate::cluster::Cluster;

#[test]
fn a_topic_that_may_be_there_is_made_once() {
    let cluster = Cluster::start();
    let create = "topic create orders --if-not-exists --attempts-max 1";
    assert_eq!(cluster.run(create).done(), "topic orders is created\n");
    let again = cluster.run(create);
    assert_eq!((again.code, again.out.as_str(), again.error.as_str()), (0, "topic orders exists\n", ""));
    let other = cluster.run("topic create orders --if-not-exists --attempts-max 3 --ttl 60 -o json");
    let other = other.says(0, &["--attempts-max 1, not 3", "--ttl (ms) none, not 60000"]);
    assert!(other.out.contains(r#""created":false"#), "{other:?}");
    cluster.run("topic create orders").says(1, &["TOPIC_EXISTS"]);
}

#[test]
fn dead_messages_are_chosen_by_number_and_by_reason() {
    let cluster = Cluster::with_topic("--attempts-max 1");
    cluster.run("publish orders a b c d e --key k --header shop=7").done();
    let exec = "case $RAFTQ_OFFSET in 0|2) echo timeout >&2;; *) echo broken >&2;; esac; exit 1";
    cluster.run(&format!("receive orders --all --exec '{exec}'")).says(1, &["5 messages failed"]);

    let list = cluster.run("dead list orders").done();
    let fields: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
    let column = |at: usize| fields.iter().map(|line| line[at]).collect::<Vec<_>>();
    assert_eq!(column(0), ["0", "1", "2", "3", "4"], "what is piped begins with offsets");
    assert_eq!(column(3)[..2], ["nacked: exit code 1: timeout", "nacked: exit code 1: broken"]);
    assert_eq!(column(4), ["a", "b", "c", "d", "e"]);
    let table = cluster.run("dead list orders --reason timeout -o table").done();
    let header = table.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    assert_eq!(header, ["OFFSET", "ATTEMPTS", "PUBLISHED", "REASON", "KEY", "HEADERS", "BODY"]);
    assert!(table.lines().count() == 3 && table.contains("  k    shop=7   a"), "{table}");
    assert_eq!(cluster.run("dead list orders -n 2 --bodies-only").done(), "a\nb\n");

    // Offset 1 is the oldest one that broke, and 0 the oldest of what is left.
    assert_eq!(cluster.run("dead redrive orders --reason broken -n 1").done(), "redriven: 1 message\n");
    assert_eq!(cluster.run("dead redrive orders -n 1").done(), "redriven: 1 message\n");
    assert_eq!(cluster.run("receive orders --all --ack").done(), "a\nb\n");
    assert_eq!(cluster.run("dead purge orders --reason broken --yes").done(), "dropped: 2 dead messages\n");
    assert_eq!(cluster.run("dead redrive orders --reason timeout").done(), "redriven: 1 message\n");
    assert_eq!(cluster.run("receive orders --all --ack").done(), "c\n");
    cluster.run("dead list orders").says(3, &["no dead message in orders"]);
    cluster.run("dead redrive orders 1 -n 2").says(2, &["cannot be used with"]);
}

#[test]
fn who_gets_nothing_is_told_why_and_who_mistypes_is_asked() {
    let cluster = Cluster::with_topic("");
    cluster.run("receive orders").says(3, &["no message is ready in orders, and none is leased"]);
    cluster.run("publish orders now").done();
    cluster.run("publish orders later --delay 600").done();
    let received = cluster.run("receive orders");
    let received = received.says(0, &["warning: 1 message printed without the lease", "--ack", "-o json"]);
    assert_eq!(received.out, "now\n");
    cluster.run("receive orders").says(3, &["no message is ready in orders (1 leased, 1 delayed)"]);
    cluster.run("peek orders --state dead").says(3, &["no dead message in orders"]);
    let leased = cluster.run("peek orders --state leased -o table").done();
    assert!(leased.contains("LEASED UNTIL"), "{leased}");
    for line in
        ["publish ordres x", "receive order", "peek Orders", "dead list orers", "topic describe oders"]
    {
        cluster.run(line).says(1, &["TOPIC_NOT_FOUND", "did you mean orders?"]);
    }
    let other = cluster.run("receive logs").says(1, &["TOPIC_NOT_FOUND"]);
    assert!(!other.error.contains("did you mean"), "{other:?}");
    assert_eq!(cluster.run("transfer node-0").done(), "node-0 leads now\n");
}

#[test]
fn a_log_is_read_in_parts_as_a_sum_and_by_programs() {
    let cluster = Cluster::with_topic("");
    for number in 0..5 {
        cluster.run(&format!("publish orders {number}")).done();
    }
    let whole = cluster.run("wal dump data/node-0").done();
    let indexes = |text: &str| -> Vec<u64> {
        let records = text.lines().filter_map(|line| line.trim().strip_prefix("record index "));
        records.map(|rest| rest.split(' ').next().expect("an index").parse().expect("a number")).collect()
    };
    let all = indexes(&whole);
    assert!(all.len() >= 6, "{whole}");
    let part = cluster.run(&format!("wal dump data/node-0 --from {} --limit 2", all[2]));
    assert_eq!(indexes(&part.out), all[2..4], "{part:?}");
    let part = part.says(0, &[&format!("--from {}", all[4])]);
    assert_eq!(part.out.matches("  batch ").count(), 2, "each with its batch: {}", part.out);
    let sum = cluster.run("wal dump data/node-0 --summary").done();
    assert!(indexes(&sum).is_empty() && sum.contains(&format!("index {} to ", all[0])), "{sum}");
    assert!(!sum.contains("  batch ") && sum.contains("SEGMENT ") && sum.contains("MANIFEST "), "{sum}");
    let json = cluster.run("wal dump data/node-0 -o json").json();
    let records = json.iter().filter(|line| line["kind"] == "record");
    assert!(records.filter_map(|line| line["index"].as_u64()).collect::<Vec<_>>().starts_with(&all));
    assert_eq!((&json[0]["kind"], &json[0]["name"]), (&"identity".into(), &"node-0".into()));
    assert_eq!(json.last().expect("a sum")["damaged"], 0);

    let wrong = cluster.run("wal dump data");
    wrong.says(1, &["is not the data directory of a node", "did you mean data/node-0?"]);
    std::fs::create_dir(cluster.folder().join("empty")).expect("a folder");
    let wrong = cluster.run("wal dump empty").says(1, &["empty is not the data directory of a node"]);
    assert!(!wrong.error.contains("damaged"), "{wrong:?}");
}

#[test]
fn a_measurement_that_is_cut_short_says_what_was_measured() {
    let cluster = Cluster::with_topic("");
    let bench = cluster.begin("-o json bench publish --topic orders --seconds 3600 --producers 1 --size 10");
    cluster.wait_for("messages", || cluster.counts()[0] > 0);
    bench.signal("INT");
    let ran = bench.end().says(130, &[]);
    let measured: serde_json::Value = serde_json::from_str(&ran.out).expect("an object");
    assert!(measured["acknowledged"].as_u64().expect("a count") > 0, "{measured}");
    assert!(measured["measured_seconds"].as_f64().expect("a time") < 3_000.0, "{measured}");
}
