//! `raftq publish` from pipes and files, and again.

use crate::cluster::Cluster;
use std::fmt::Write as _;

#[test]
fn a_line_of_a_pipe_is_published_while_the_pipe_stays_open() {
    let cluster = Cluster::with_topic("");
    let mut publisher = cluster.begin("publish orders");
    publisher.type_in("one\n");
    assert_eq!(cluster.run("receive orders --ack --wait 60s").done(), "one\n");
    publisher.type_in("two\nthr");
    assert_eq!(cluster.run("receive orders --ack --wait 60s").done(), "two\n", "and not half of a line");
    publisher.type_in("ee");
    let ran = publisher.end();
    assert_eq!(ran.done(), "published to orders: 3 messages\n");
    assert_eq!(cluster.run("receive orders --ack").done(), "three\n");

    let mut publisher = cluster.begin("publish orders");
    publisher.type_in("four\n");
    cluster.wait_for("the line", || cluster.counts()[0] == 1);
    publisher.signal("INT");
    let ran = publisher.end_by_itself().says(130, &[]);
    assert_eq!(ran.out, "published to orders: 1 message\n");
}

#[test]
fn messages_end_where_the_user_says() {
    let cluster = Cluster::with_topic("");
    assert_eq!(cluster.run_with("publish orders -0", "a\nb\0c").done(), "published to orders: 2 messages\n");
    assert_eq!(cluster.run("receive orders --all --ack -0").done(), "a\nb\0c\0\n");
    cluster.run_with("publish orders --delimiter ,", "1,2,3").done();
    cluster.run_with("publish orders --delimiter '\\x1e'", "4\u{1e}5\n").done();
    assert_eq!(cluster.run("receive orders --all --ack").done(), "1\n2\n3\n4\n5\n\n");
    cluster.run("publish orders --delimiter ab").says(2, &["must be one byte"]);

    cluster.write("letter", "Dear Sir,\n\nno.\n");
    let published = cluster.run("publish orders --body-file letter --body-file letter -o json").json();
    assert_eq!(published[0]["count"], 2);
    cluster.run_with("publish orders --body-file -", "typed\nlines").done();
    assert_eq!(
        cluster.run("receive orders --all --ack").done(),
        "Dear Sir,\n\nno.\n\nDear Sir,\n\nno.\n\ntyped\nlines\n"
    );
    cluster.run("publish orders --body-file nosuch").says(1, &["nosuch"]);
    cluster.run("publish orders --body-file letter x").says(2, &["--body-file"]);
}

#[test]
fn the_same_command_again_stores_nothing_twice() {
    let cluster = Cluster::with_topic("");
    let lines = |range: std::ops::Range<u32>| {
        range.fold(String::new(), |mut text, number| {
            writeln!(text, "line {number}").expect("a string");
            text
        })
    };
    cluster.write("lines", &lines(0..3_000));
    let publish = "publish orders --file lines --session nightly";
    assert_eq!(
        cluster.run(publish).done(),
        "published to orders: 3000 messages, and 0 that had been stored before\n"
    );
    assert_eq!(
        cluster.run(publish).done(),
        "published to orders: 0 messages, and 3000 that had been stored before\n"
    );
    // A longer file goes on where the shorter one ended.
    cluster.write("lines", &lines(0..3_010));
    let published = cluster.run(&format!("{publish} -o json")).json();
    assert_eq!((&published[0]["count"], &published[0]["repeated"]), (&10.into(), &3_000.into()));
    assert_eq!(published[0]["first_offset"], 3_000);
    // Another input is never taken for a repeat.
    cluster.write("lines", &lines(0..3_005).replace("line 3004", "line x"));
    cluster.run(publish).says(1, &["another message as number 3005", "SEQUENCE_REUSED", "--session"]);
    cluster.write("lines", &lines(5_000..5_100));
    cluster.run(publish).says(1, &["over 1,024 messages more than these", "another --session name"]);
    assert_eq!(cluster.run("receive orders --all --ack").done(), lines(0..3_010));

    // Arguments are steps, too.
    for count in ["1 message, and 0", "0 messages, and 1"] {
        let published = cluster.run("publish orders hello --session job-17 --key k").done();
        assert_eq!(published, format!("published to orders: {count} that had been stored before\n"));
    }
    cluster.run("publish orders hello --session job-17 --key other").says(1, &["SEQUENCE_REUSED"]);
    assert_eq!(cluster.run("receive orders --all --ack").done(), "hello\n");
}

#[test]
fn a_run_that_was_killed_is_repeated_and_goes_on() {
    let cluster = Cluster::with_topic("");
    let mut killed = cluster.begin("publish orders --session import");
    killed.type_in("one\ntwo\n");
    cluster.wait_for("both lines", || cluster.counts()[0] == 2);
    // A later run takes the session over: the first one is told, and stores nothing more.
    let mut second = cluster.begin("publish orders --session import");
    second.type_in("one\ntwo\nthree\n");
    cluster.wait_for("the third line", || cluster.counts()[0] == 3);
    killed.type_in("three\n");
    killed.end().says(1, &["FENCED", "another command publishes as session import now"]);
    second.signal("KILL");
    drop(second.end());
    let published = cluster.run_with("publish orders --session import", "one\ntwo\nthree\nfour\n").done();
    assert_eq!(published, "published to orders: 1 message, and 3 that had been stored before\n");
    assert_eq!(cluster.run("receive orders --all --ack").done(), "one\ntwo\nthree\nfour\n");
}
