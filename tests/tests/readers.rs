//! Many clients that read much of the leader at once: it goes on leading, and publishers notice no more of them than of as
//! many processes that only use the processor.
//!
//! `RAFTQUEUE_READERS_SECONDS=60` reads for so long, with 100 readers of a gigabyte, beside publishers at 500 messages/s,
//! compares that with processes which burn, and judges times. `cargo test --release` measures what is shipped.

use raftqueue_tests::process::{Cluster, Http};
use serde_json::json;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

const MIB: u64 = 1 << 20;
const BODY_BYTES: usize = 100 << 10;
const PUBLISHERS: u32 = 10;
/// How long a publish may take. The client waits longer, so that it gets every answer.
const DEADLINE_MS: u64 = 5_000;

/// How much is read, for how long, by how many.
struct Plan {
    readers: usize,
    messages: usize,
    time: Duration,
    /// Messages a second, of all publishers.
    rate: u32,
    is_judged: bool,
}

impl Plan {
    fn chosen() -> Self {
        #[expect(clippy::disallowed_methods, reason = "tests take their budgets from the environment")]
        let seconds = std::env::var("RAFTQUEUE_READERS_SECONDS").ok();
        match seconds.and_then(|text| text.parse().ok()) {
            Some(seconds) => Self {
                readers: 100,
                messages: 10_000,
                time: Duration::from_secs(seconds),
                rate: 500,
                is_judged: true,
            },
            None => {
                Self { readers: 12, messages: 400, time: Duration::from_secs(4), rate: 100, is_judged: false }
            }
        }
    }
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    bytes: AtomicU64,
    answers: AtomicU64,
    refused: AtomicU64,
    /// Answers that are being read right now.
    reading: AtomicU64,
}

/// Sends a request and reads the answer: its status, once it is all there.
async fn exchange(port: u16, request: &str, counts: Option<&Counts>) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; 256 << 10];
    let mut status = None;
    let mut is_counted = false;
    loop {
        let count = stream.read(&mut buffer).await?;
        if status.is_none() {
            let head = String::from_utf8_lossy(&buffer[..count.min(64)]).into_owned();
            status = head.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
            if let Some(counts) = counts.filter(|_| status == Some(200)) {
                is_counted = true;
                counts.reading.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(counts) = counts.filter(|_| is_counted) {
            counts.bytes.fetch_add(count as u64, Ordering::Relaxed);
            if count == 0 {
                counts.reading.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if count == 0 {
            return status.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn post(path: &str, body: &str, deadline_ms: u64) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\nraftqueue-deadline-ms: {deadline_ms}\r\n\
         connection: close\r\n\r\n{body}"
    )
}

/// Looks at 16 MiB from some offset on, again and again. After a refusal it asks again after a moment.
async fn read(port: u16, reader: usize, messages: usize, counts: Arc<Counts>) {
    let mut from = reader * 97;
    while !counts.stop.load(Ordering::Relaxed) {
        from = (from + 163) % messages;
        let body = json!({"messages_max": 1_000, "bytes_max": 16 << 20, "from_offset": from}).to_string();
        match exchange(port, &post("/v1/topics/t/peek", &body, 60_000), Some(&counts)).await {
            Ok(200) => drop(counts.answers.fetch_add(1, Ordering::Relaxed)),
            Ok(429 | 503) => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => panic!("a reader was told {other:?}"),
        }
    }
}

/// Publishes at a steady rate; how long each took, and how many have an unknown outcome.
async fn publish(port: u16, every: Duration, counts: Arc<Counts>) -> (Vec<Duration>, usize) {
    let request = post("/v1/topics/p/publish", r#"{"messages": [{"body": "a small message"}]}"#, DEADLINE_MS);
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut times, mut unknown) = (Vec::new(), 0);
    while !counts.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let begun = Instant::now();
        match exchange(port, &request, None).await {
            Ok(200) => times.push(begun.elapsed()),
            other => {
                eprintln!("a publisher was told {other:?} after {:?}", begun.elapsed());
                unknown += 1;
            }
        }
    }
    (times, unknown)
}

/// What came of it.
#[derive(Debug)]
#[expect(dead_code, reason = "it is shown as a whole")]
struct Seen {
    published: usize,
    unknown: usize,
    p50: Duration,
    p99: Duration,
    longest: Duration,
    /// Fewest answers that were being read at once, after the first second.
    reading_min: u64,
    megabytes_per_second: u64,
    answers: u64,
    refused: u64,
}

async fn run(port: u16, plan: &Plan, readers: usize) -> Seen {
    let counts = Arc::new(Counts::default());
    let every = Duration::from_secs(1) * PUBLISHERS / plan.rate;
    let publishers: Vec<_> =
        (0..PUBLISHERS).map(|_| tokio::spawn(publish(port, every, Arc::clone(&counts)))).collect();
    let readers: Vec<_> = (0..readers)
        .map(|reader| tokio::spawn(read(port, reader, plan.messages, Arc::clone(&counts))))
        .collect();
    let begun = Instant::now();
    let mut reading_min = u64::MAX;
    while begun.elapsed() < plan.time {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if begun.elapsed() > Duration::from_secs(1) {
            reading_min = reading_min.min(counts.reading.load(Ordering::Relaxed));
        }
    }
    let bytes = counts.bytes.load(Ordering::Relaxed);
    counts.stop.store(true, Ordering::Relaxed);
    let (mut times, mut unknown) = (Vec::new(), 0);
    for publisher in publishers {
        let (its_times, its_unknown) = publisher.await.expect("a publisher ends");
        times.extend(its_times);
        unknown += its_unknown;
    }
    for reader in readers {
        reader.await.expect("a reader is answered");
    }
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    Seen {
        published: times.len(),
        unknown,
        p50: at(50),
        p99: at(99),
        longest: times.last().copied().unwrap_or_default(),
        reading_min,
        megabytes_per_second: bytes / 1_000_000 / plan.time.as_secs().max(1),
        answers: counts.answers.load(Ordering::Relaxed),
        refused: counts.refused.load(Ordering::Relaxed),
    }
}

/// Processes that only use the processor, until this is dropped.
struct Burning(Vec<Child>);

impl Burning {
    fn start(count: usize) -> Self {
        let burn = || {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .stdin(Stdio::null())
                .spawn()
                .expect("a shell can be started")
        };
        Self((0..count).map(|_| burn()).collect())
    }
}

impl Drop for Burning {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn fill(http: Http, messages: usize) {
    const BATCH: usize = 30;
    let message = json!({"body": "x".repeat(BODY_BYTES)});
    let http = http.with_deadline(Duration::from_secs(30));
    for first in (0..messages).step_by(BATCH) {
        let batch = json!({"messages": vec![message.clone(); BATCH.min(messages - first)]}).to_string();
        let answer = http.request("POST", "/v1/topics/t/publish", batch.as_bytes()).expect("answered");
        // On a busy machine the nodes may elect meanwhile. The part that counts begins later.
        assert!(answer.code == 200 || answer.text.contains("UNKNOWN"), "{}", answer.text);
    }
}

/// Elections that each node has seen, and its ticks that were later than 50 ms.
fn standing(cluster: &Cluster) -> Vec<(u64, u64)> {
    const TICKS: &str = "raftqueue_loop_lag_seconds_count";
    const IN_TIME: &str = "raftqueue_loop_lag_seconds_bucket{le=\"0.05\"}";
    let of = |node| {
        // Of one moment: there are a hundred ticks a second.
        let [term, ticks, in_time] = cluster.metrics_at_once(node, ["raftqueue_raft_term", TICKS, IN_TIME]);
        (term as u64, (ticks - in_time) as u64)
    };
    (0..cluster.count()).map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_much_cost_the_leader_neither_its_lead_nor_its_publishers() {
    let plan = Plan::chosen();
    let mut cluster = Cluster::new(3).with_operations();
    if !plan.is_judged {
        // The machine may be busy with other tests. Readers of this kind have held a leader up for two seconds and more.
        cluster = cluster.with_arguments(&["--election-timeout-ms", "1000"]);
    }
    cluster.start_all();
    let leader = cluster.leader();
    for topic in ["t", "p"] {
        assert_eq!(cluster.http(leader).create_topic(topic).expect("answered").code, 201);
    }
    fill(cluster.http(leader), plan.messages);
    let port = cluster.ports(leader).0;
    let beside = plan.is_judged.then(|| Burning::start(plan.readers));
    let burning = match beside {
        Some(burning) => {
            let seen = run(port, &plan, 0).await;
            drop(burning);
            println!("beside {} processes that burn: {seen:?}", plan.readers);
            Some(seen)
        }
        None => None,
    };
    // So many busy processes may cost a leader its lead. Readers have no part in that.
    let leader = cluster.leader();
    let port = cluster.ports(leader).0;
    let idle = cluster.forget_peak(leader);
    let before = standing(&cluster);
    let seen = run(port, &plan, plan.readers).await;
    let after = standing(&cluster);
    let peak = cluster.peak_bytes(leader);
    println!("beside {} readers: {seen:?}", plan.readers);
    println!(
        "terms and late ticks: {before:?} before, {after:?} after; {} MiB idle, {} MiB at the most",
        idle / MIB,
        peak / MIB
    );
    assert!(seen.answers > 0 && seen.published > 0, "{seen:?}");
    assert_eq!(seen.unknown, 0, "every publish has an outcome: {seen:?}");
    for ((before, _), (after, _)) in before.iter().zip(&after) {
        assert_eq!(before, after, "nobody stood for election");
    }
    assert_eq!(cluster.leader(), leader);
    if let Some(burning) = burning {
        let allowed = Duration::from_millis(100).max(3 * burning.p99);
        assert!(seen.p99 <= allowed, "{seen:?} beside {burning:?}");
        assert!(seen.reading_min >= 4, "{seen:?}");
        assert!(seen.megabytes_per_second >= 100, "{seen:?}");
        let late = |standing: &[(u64, u64)]| standing[leader].1;
        assert_eq!(late(&before), late(&after), "ticks of the leader later than 50 ms");
    }
}
