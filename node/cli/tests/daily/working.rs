//! `raftq receive --exec` and `--follow`: a worker, and a watcher.

use crate::cluster::Cluster;

#[test]
fn a_command_that_ends_well_acknowledges_and_one_that_fails_gives_its_reason() {
    let cluster = Cluster::with_topic("--attempts-max 1");
    cluster.run("publish orders one bad two").done();
    cluster.write(
        "handle.sh",
        "read -r body\n\
         if [ \"$body\" = bad ]; then echo first >&2; echo 'no such customer' >&2; exit 3; fi\n\
         echo \"$RAFTQ_TOPIC $RAFTQ_OFFSET $RAFTQ_DELIVERY $body\" >> done.txt\n",
    );
    let ran = cluster.run("receive orders --all --exec 'sh handle.sh'");
    let ran = ran.says(
        1,
        &["offset 1, attempt 1: exit code 3: no such customer", "first\n", "2 messages acknowledged"],
    );
    assert_eq!(ran.out, "", "what commands print is all that is printed");
    assert_eq!(cluster.read("done.txt"), "orders 0 1 one\norders 2 1 two\n");
    let dead = cluster.run("dead list orders").done();
    assert!(
        dead.starts_with("1\t1\t") && dead.ends_with("\tnacked: exit code 3: no such customer\tbad\n"),
        "{dead}"
    );
    assert_eq!(cluster.counts(), [0, 0, 0, 1]);
    cluster.run("receive orders --all --exec true").says(3, &["no message is ready in orders (1 dead)"]);
}

#[test]
fn a_message_that_failed_rests_and_is_tried_again() {
    let cluster = Cluster::with_topic("");
    cluster.run("publish orders flaky").done();
    let ran = cluster.run("receive orders --all --retry-delay 10m --exec 'kill -9 $$'");
    ran.says(1, &["offset 0, attempt 1: killed by signal 9; rests for 600s", "1 message failed"]);
    assert_eq!(cluster.counts(), [0, 0, 1, 0]);
    let due = cluster.run("peek orders --state delayed -o table").done();
    assert!(
        due.starts_with("OFFSET  ATTEMPTS  PUBLISHED             DUE ") && due.contains("  1  "),
        "{due}"
    );
    cluster.run("publish orders flaky").done();
    // The second attempt comes by itself.
    let worker = cluster.begin(
        "receive orders --retry-delay 0 --exec 'echo $RAFTQ_DELIVERY >> tries; [ $RAFTQ_DELIVERY = 3 ]'",
    );
    cluster.wait_for("the third attempt", || cluster.read("tries").ends_with("3\n"));
    worker.signal("TERM");
    worker.end().says(0, &["1 message acknowledged, 2 returned"]);
    assert_eq!(cluster.read("tries"), "1\n2\n3\n");
    assert_eq!(cluster.counts(), [0, 0, 1, 0]);
}

#[test]
fn a_command_knows_its_message_and_may_get_several() {
    let cluster = Cluster::with_topic("");
    cluster.run("publish orders body --key k --header trace-id=t --header n=1").done();
    let show = "printf '%s|' \"$RAFTQ_KEY\" \"$RAFTQ_HEADER_TRACE_ID\" \"$RAFTQ_HEADERS\" $RAFTQ_COUNT; cat";
    cluster.write("show.sh", show);
    let shown = cluster.run("receive orders --all --exec 'sh show.sh'").done();
    assert_eq!(
        shown
            .replace("\"name\":\"n\",\"value\":\"1\"", "N")
            .replace("\"name\":\"trace-id\",\"value\":\"t\"", "T"),
        "k|t|[{T},{N}]|1|body\n",
        "the body has no end of line of its own"
    );
    cluster.run("publish orders a b c d e").done();
    let shown =
        cluster.run("receive orders --all -n 10 --exec 'cat; echo $RAFTQ_OFFSETS/$RAFTQ_COUNT'").done();
    // How many come together nobody promises.
    let bodies: Vec<&str> = shown.lines().filter(|line| !line.contains('/')).collect();
    assert_eq!(bodies, ["a", "b", "c", "d", "e"], "{shown}");
    let offsets: String = shown.lines().filter(|line| line.contains('/')).collect();
    assert!(offsets.starts_with('1') && offsets.contains('5'), "{shown}");
    cluster.run("publish orders 'one\nmessage'").done();
    let shown = cluster.run("receive orders --all -n 10 -0 --exec 'tr \"\\0\" @'").done();
    assert_eq!(shown, "one\nmessage@\n");
    cluster.run("publish orders x").done();
    let shown = cluster.run("receive orders --all -o json --exec cat").json();
    assert_eq!((&shown[0]["body"], &shown[0]["attempts"]), (&"x".into(), &0.into()));
    assert!(shown[0]["lease"].is_string(), "{shown:?}");
    // It can talk to the cluster, wherever that is.
    cluster.run("publish orders y").done();
    let raftq = env!("CARGO_BIN_EXE_raftq");
    let exec = format!("receive orders --all --exec '{raftq} extend $RAFTQ_TOPIC $RAFTQ_LEASE --lease 1h'");
    assert!(cluster.run(&exec).done().ends_with("\tDONE\n"));
    assert_eq!(cluster.counts(), [0; 4]);
}

#[test]
fn ctrl_c_lets_the_command_finish_and_gives_back_what_was_not_begun() {
    let cluster = Cluster::with_topic("");
    cluster.run("publish orders one two").done();
    let exec = "touch begun; while [ ! -e go ]; do sleep 0.02; done; cat > done.txt";
    let worker = cluster.begin(&format!("receive orders --exec '{exec}' 2> said.txt"));
    cluster.wait_for_file("begun");
    worker.signal("INT");
    cluster.wait_for("it to be heard", || cluster.read("said.txt").contains("finishing 1 command"));
    // It waits, as long as it takes.
    cluster.write("go", "");
    worker.end().says(130, &[]);
    assert!(cluster.read("said.txt").ends_with("1 message acknowledged, 0 returned\n"));
    assert_eq!(cluster.read("done.txt"), "one");
    assert_eq!(cluster.counts(), [1, 0, 0, 0]);
    assert_eq!(cluster.run("peek orders -o json").json()[0]["attempts"], 0, "nobody had begun it");
}

#[test]
fn ctrl_c_twice_stops_the_command_and_its_message_comes_again() {
    let cluster = Cluster::with_topic("");
    cluster.run("publish orders one").done();
    let exec = "touch begun; while :; do sleep 0.02; done";
    let worker = cluster.begin(&format!("receive orders --retry-delay 0 --exec '{exec}' 2> said.txt"));
    cluster.wait_for_file("begun");
    worker.signal("INT");
    cluster.wait_for("the first one to be heard", || cluster.read("said.txt").contains("Ctrl-C again stops"));
    worker.signal("INT");
    worker.end().says(130, &[]);
    let said = cluster.read("said.txt");
    assert!(said.contains("offset 0, attempt 1: killed by signal 15"), "{said}");
    assert!(said.ends_with("0 messages acknowledged, 1 returned\n"), "{said}");
    assert_eq!(cluster.counts(), [1, 0, 0, 0]);
}

#[test]
fn a_command_that_cannot_be_run_costs_no_message_an_attempt() {
    let cluster = Cluster::with_topic("--attempts-max 1");
    cluster.run("publish orders one").done();
    for command in ["nosuchcommand", "/etc/passwd", "exit 127"] {
        let ran = cluster.run(&format!("receive orders --exec '{command}'"));
        ran.says(1, &["the command cannot be run", "exit code 12"]);
        assert_eq!(cluster.counts(), [1, 0, 0, 0]);
    }
    assert_eq!(cluster.run("peek orders -o json").json()[0]["attempts"], 0);
}

#[test]
fn a_lease_is_extended_while_its_command_runs() {
    let cluster = Cluster::with_topic("");
    cluster.run("publish orders one").done();
    let exec = "touch begun; while [ ! -e go ]; do sleep 0.02; done";
    let worker = cluster.begin(&format!("receive orders --lease 2s --exec '{exec}'"));
    cluster.wait_for_file("begun");
    let deadline = || {
        let leased = cluster.run("peek orders --state leased -o json");
        leased.out.lines().next().map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).expect("an object");
            message["deadline_ms"].as_u64().expect("a time")
        })
    };
    let mut first = None;
    cluster.wait_for("a later end of the lease", || {
        let now = deadline();
        first = first.or(now);
        now > first
    });
    cluster.write("go", "");
    worker.signal("TERM");
    worker.end().says(0, &[]);
}

#[test]
fn several_commands_run_at_once() {
    let cluster = Cluster::with_topic("");
    cluster.run("publish orders one two three").done();
    // None of them ends before all have begun.
    let exec = "touch begun.$RAFTQ_OFFSET; while [ ! -e begun.0 ] || [ ! -e begun.1 ] || [ ! -e begun.2 ]; do sleep 0.02; done";
    cluster.run(&format!("receive orders --all -P 3 --exec '{exec}'")).says(0, &["3 messages acknowledged"]);
    assert_eq!(cluster.counts(), [0; 4]);
}

#[test]
fn who_follows_a_topic_sees_messages_as_they_come() {
    let cluster = Cluster::with_topic("");
    let watcher = cluster.begin("receive orders --follow --ack");
    cluster.run("publish orders one").done();
    assert_eq!(watcher.line(), "one");
    cluster.run("publish orders two three").done();
    assert_eq!([watcher.line(), watcher.line()], ["two", "three"]);
    watcher.signal("INT");
    watcher.end().says(130, &[]);
    assert_eq!(cluster.counts(), [0; 4], "what was printed is acknowledged");

    // Under nohup the end of a terminal is not the end.
    let watcher = cluster.begin_ignoring_hang_ups("receive orders --follow --ack");
    cluster.run("publish orders one").done();
    assert_eq!(watcher.line(), "one");
    watcher.signal("HUP");
    cluster.run("publish orders two").done();
    assert_eq!(watcher.line(), "two");
    watcher.signal("TERM");
    watcher.end().says(0, &[]);

    cluster.run("publish orders four five").done();
    let ran = cluster.run("receive orders --follow -n 1 --ack -0");
    assert_eq!((ran.code, ran.out.as_str()), (0, "four\0\n"));
    assert_eq!(cluster.counts(), [1, 0, 0, 0], "what was not printed is given back");
    let ran = cluster.run("receive orders --follow -n 1");
    let ran = ran.says(0, &["warning: each message is printed without the lease", "--ack"]);
    assert_eq!(ran.out, "five\n");
    assert_eq!(cluster.counts(), [0, 1, 0, 0]);
    cluster.run("receive ordres --follow").says(1, &["TOPIC_NOT_FOUND", "did you mean orders?"]);
}
