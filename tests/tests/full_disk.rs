//! Nodes whose disks fill up: publishing is refused in so many words, everything else goes on, nothing is lost.
//!
//! Needs root, for small file systems in memory; for another user each is shown as ignored.

use libtest_mimic::{Arguments, Completion, Trial};
use raftqueue_tests::process::{Cluster, PATIENCE, SmallDisk};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let may_mount = SmallDisk::mount(folder.path(), 1).is_some();
    let cases: [(&str, fn()); 2] = [
        (
            "rule_2_7_with_all_disks_full_publishing_is_refused_and_popping_goes_on",
            with_all_disks_full_publishing_is_refused_and_popping_goes_on,
        ),
        ("rule_2_7_a_minority_with_a_full_disk_holds_up_nobody", a_minority_with_a_full_disk_holds_up_nobody),
    ];
    let trials = cases.into_iter().map(|(name, case)| {
        Trial::ignorable_test(name, move || {
            if !may_mount {
                return Ok(Completion::ignored_with("only root may mount a small disk"));
            }
            case();
            Ok(Completion::Completed)
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

const ARGUMENTS: [&str; 4] = ["--segment-bytes", "4194304", "--reserve-bytes", "12582912"];
/// The deadline of a call: longer than a call takes, but short enough to go on to the next node while one finds no
/// leader.
const DEADLINE: Duration = Duration::from_secs(5);

/// A cluster of three, the first `small` of which have disks of `mebibytes`.
fn cluster(small: usize, mebibytes: u32) -> (Cluster, Vec<SmallDisk>) {
    let mut cluster = Cluster::new(3).with_arguments(&ARGUMENTS);
    let mount = |node| SmallDisk::mount(&cluster.data_dir(node), mebibytes).expect("one was mounted before");
    let disks = (0..small).map(mount).collect();
    cluster.start_all();
    (cluster, disks)
}

fn message(number: usize) -> String {
    format!("{number:05}{}", "x".repeat(200_000))
}

/// What clients were told of their messages.
#[derive(Default)]
struct Told {
    acknowledged: Vec<usize>,
    /// Each may be there: an election came between the call and its answer.
    unknown: Vec<usize>,
}

impl Told {
    /// Everything that was acknowledged is there, and nothing that was refused.
    fn check(&self, cluster: &Cluster) {
        let mut popped = pop_all(cluster);
        popped.retain(|number| !self.unknown.contains(number));
        assert_eq!(popped, self.acknowledged, "{}", cluster.logs());
    }
}

fn pop_all(cluster: &Cluster) -> Vec<usize> {
    let mut numbers = Vec::new();
    loop {
        let id = u128::try_from(numbers.len()).expect("a count") + 1;
        let answer = cluster.pop_until_answered(numbers.len() % cluster.count(), "t", id);
        if answer.code == 404 {
            return numbers;
        }
        let text =
            answer.body["message"].as_str().unwrap_or_else(|| panic!("{answer:?}\n{}", cluster.logs()));
        numbers.push(text[..5].parse().expect("a number"));
    }
}

fn with_all_disks_full_publishing_is_refused_and_popping_goes_on() {
    let (mut cluster, disks) = cluster(3, 60);
    cluster.leader();
    cluster.make_topic("t");
    let begun = Instant::now();
    let mut told = Told::default();
    for number in 0.. {
        let node = cluster.http(number % 3).with_deadline(DEADLINE);
        let answer = node.publish("t", &message(number)).expect("an answer");
        match answer.code {
            201 => told.acknowledged.push(number),
            504 => told.unknown.push(number),
            507 => {
                assert!(answer.head.contains("raftqueue-outcome: not_done"), "{}", answer.head);
                assert!(answer.head.contains("raftqueue-reason: disk_full"), "{}", answer.head);
                break;
            }
            // The lead was handed over, in vain.
            503 => {}
            code => panic!("{code}\n{}", cluster.logs()),
        }
        assert!(begun.elapsed() < PATIENCE, "{} and no end\n{}", told.acknowledged.len(), cluster.logs());
    }
    assert!((0..3).all(|node| cluster.http(node).status().expect("an answer").code == 200));
    // A restart on the full disks finds everything.
    for node in 0..3 {
        cluster.kill(node);
    }
    cluster.start_all();
    cluster.leader();
    told.check(&cluster);
    for node in 0..3 {
        cluster.kill(node);
    }
    drop(disks);
}

fn a_minority_with_a_full_disk_holds_up_nobody() {
    let (mut cluster, disks) = cluster(1, 40);
    cluster.leader();
    cluster.make_topic("t");
    let begun = Instant::now();
    let mut told = Told::default();
    // Twice what the small disk holds.
    for number in 0.. {
        let node = cluster.http(1 + number % 2).with_deadline(DEADLINE);
        let answer = node.publish("t", &message(number)).expect("an answer");
        match answer.code {
            201 => told.acknowledged.push(number),
            504 => told.unknown.push(number),
            503 => {}
            _ => panic!("{answer:?}\n{}", cluster.logs()),
        }
        if told.acknowledged.len() == 250 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{}\n{}", told.acknowledged.len(), cluster.logs());
    }
    let status = cluster.http(0).status().expect("an answer");
    assert_ne!(status.body["role"], "Leader", "{}", cluster.logs());
    // Somebody is told before it is a majority.
    cluster.wait_for("its status has a note", || {
        let status = cluster.patient(0).request("GET", "/v1/status", b"");
        let status = status.map_err(|error| format!("{error:?}"))?.body;
        let is_told = status["note"].as_str().is_some_and(|note| note.contains("its disk is nearly full"));
        if is_told { Ok(()) } else { Err(status.to_string()) }
    });
    cluster.wait_for_log("its disk is nearly full");
    // Without one of the others those with room would be no majority.
    let other = if cluster.leader() == 1 { 2 } else { 1 };
    let change = json!({"nodes": [cluster.name(other)], "dry": true}).to_string();
    cluster.wait_for("a removal is refused", || {
        let answer = cluster.patient(other).request("POST", "/v1/members/remove", change.as_bytes());
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        let is_refused = answer.body["refusal"].as_str().is_some_and(|why| why.contains("after this"));
        if is_refused { Ok(()) } else { Err(answer.text) }
    });
    told.check(&cluster);
    assert!(
        cluster.stop(0).success(),
        "a full disk does not hold up the end of its node: {}",
        cluster.logs()
    );
    drop(disks);
}
