//! The example programs of `tests/clients`, each with its language's stock gRPC library, against three real nodes whose
//! leader is killed in the middle. An independent reader says what was stored, once or twice.
//!
//! `RAFTQUEUE_CLIENTS` decides: unset, every case is shown as ignored; `auto`, those run whose tools are there; `require`, a
//! missing tool is a failure. Packages come from the languages' registries, in fixed versions, and are kept in the cache.

mod locked;
mod program;
mod relay;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use program::{Program, Said};
use raftqueue_tests::clients;
use raftqueue_tests::process::{Cluster, Http, PATIENCE, repository, wait_for};
use relay::Relay;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, ExitCode};

/// A language, and the tools that building its programs takes.
const LANGUAGES: [(&str, &[&str]); 4] = [
    ("python", &["flock", "python3"]),
    ("go", &["flock", "go", "protoc"]),
    ("typescript", &["flock", "node", "npm"]),
    ("java", &["flock", "javac", "mvn"]),
];

const TOPIC: &str = "orders";
/// Messages published.
const MESSAGES: u64 = 300;
/// Answers that the publisher still gets before the leader dies.
const PUBLISHED_FIRST: u64 = 100;
/// Frames that the consumer still gets.
const CONSUMED_FIRST: u64 = 20;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each has three nodes, and compilers that take all there is.
    arguments.test_threads = Some(1);
    let shown = Trial::test("the_readme_shows_what_runs", || {
        LANGUAGES.iter().for_each(|(language, _)| is_shown(language));
        Ok(())
    });
    let trials = LANGUAGES.map(|(language, tools)| {
        let name = format!("{language}_goes_through_killed_leaders");
        case(&name, tools, move || goes_through_killed_leaders(language))
    });
    let (_, tools) = LANGUAGES[0];
    let policy =
        case("a_retry_policy_repeats_what_is_unknown", tools, a_retry_policy_repeats_what_is_unknown);
    let locked = case("python_is_refused_in_words", tools, locked::python_is_refused_in_words);
    libtest_mimic::run(&arguments, [shown, policy, locked].into_iter().chain(trials).collect()).exit_code()
}

/// A case that takes tools.
fn case(
    name: &str,
    tools: &'static [&str],
    run: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || match clients::left_out(tools)? {
        Some(why) => Ok(Completion::ignored_with(why)),
        None => run().map(|()| Completion::Completed),
    })
}

/// Where the program is of which the README shows a part.
fn shown_file(language: &str) -> &'static str {
    match language {
        "python" => "python/hello.py",
        "go" => "go/hello/main.go",
        "typescript" => "typescript/hello.ts",
        "java" => "java/src/main/java/org/example/Hello.java",
        other => panic!("no such language: {other}"),
    }
}

/// The README's snippet of a language is a part of the program that the case of that language runs.
fn is_shown(language: &str) {
    let lines = |text: &str| -> Vec<String> { text.lines().map(|line| line.trim().to_owned()).collect() };
    let read =
        |path: &str| std::fs::read_to_string(repository().join(path)).expect("it is in the repository");
    let readme = read("README.md");
    let (_, rest) = readme.split_once(&format!("```{language}\n")).unwrap_or_else(|| panic!("no {language}"));
    let (snippet, _) = rest.split_once("\n```").expect("a block ends");
    let (snippet, program) =
        (lines(snippet), lines(&read(&format!("tests/clients/{}", shown_file(language)))));
    assert!((10..=20).contains(&snippet.len()), "{language}: {} lines", snippet.len());
    let is_part = program.windows(snippet.len()).any(|part| part == snippet);
    assert!(is_part, "the README's {language} is not what tests/clients/{} runs", shown_file(language));
}

/// Makes the programs of a language in a folder.
fn build(language: &str, folder: &Path) -> Result<(), Failed> {
    let output = Command::new(repository().join("tests/clients/build"))
        .arg(language)
        .args([&clients::cache()?, folder])
        .output()
        .map_err(|error| format!("bash cannot be started: {error}"))?;
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned().into()) }
}

fn goes_through_killed_leaders(language: &str) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    build(language, folder.path())?;
    let (hello, worker) = (folder.path().join("hello"), folder.path().join("worker"));
    let mut cluster = Cluster::started(3);
    the_snippet_runs(&hello, &mut cluster);
    a_refusal_says_why(&worker, &mut cluster);
    create(&mut cluster, TOPIC);
    let stored = publishes_each_line_once(&worker, &mut cluster);
    let told = consumes_everything(&worker, &mut cluster, &stored);
    who_leaves_gives_back(&worker, &mut cluster);
    println!("{language}: {told}");
    Ok(())
}

/// A library that is told to repeat UNAVAILABLE repeats a publish that was stored, since a connection that breaks is UNAVAILABLE,
/// too. In a session that is harmless, and without one it is not.
fn a_retry_policy_repeats_what_is_unknown() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    build("python", folder.path())?;
    let mut cluster = Cluster::started(3);
    // Answers before that of the publish, and how often the message is stored.
    for (how, before, stored) in [("plain", 0, 2), ("session", 1, 1)] {
        create(&mut cluster, how);
        let (leader, relay, endpoints) = relayed(&mut cluster);
        relay.hold_after(before);
        let program = Program::start(&folder.path().join("policy"), &endpoints, &[how, how], "");
        dies_with_an_answer(&mut cluster, leader, &relay, &program);
        let said = program.end(&cluster);
        assert!(said.is_well, "{how}: {said:#?}");
        assert_eq!(said.lines, [format!("published {}", stored - 1)], "{how}: {said:#?}");
        assert_eq!(counts(&mut cluster, how), [stored, 0, 0, 0, stored], "{how}: stored so often");
        cluster.start(leader);
    }
    Ok(())
}

/// A client of the node that leads, which has all the time it needs.
fn reader(cluster: &mut Cluster) -> Http {
    let leader = cluster.leader();
    cluster.http(leader).with_deadline(PATIENCE)
}

fn asked(cluster: &mut Cluster, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = reader(cluster).request(method, path, body.as_bytes()).expect("the leader answers");
    assert_eq!(answer.code, 200, "{path}: {}", answer.text);
    answer.body
}

fn create(cluster: &mut Cluster, topic: &str) {
    asked(cluster, "POST", "/v1/topics", &json!({"topic": topic}));
}

/// How many messages of a topic are ready, leased, delayed or dead, and how many it ever got.
fn counts(cluster: &mut Cluster, topic: &str) -> [u64; 5] {
    let topic = asked(cluster, "GET", &format!("/v1/topics/{topic}"), &Value::Null);
    let default = &topic["subscriptions"][0];
    let count = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no count: {topic}"));
    [
        count(&default["ready"]),
        count(&default["leased"]),
        count(&default["delayed"]),
        count(&default["dead"]),
        count(&topic["next_offset"]),
    ]
}

fn ports(cluster: &Cluster) -> Vec<u16> {
    (0..cluster.count()).map(|node| cluster.ports(node).0).collect()
}

/// What the README shows does what it says.
fn the_snippet_runs(hello: &Path, cluster: &mut Cluster) {
    create(cluster, "greetings");
    let said = Program::start(hello, &ports(cluster), &[], "").end(cluster);
    assert!(said.is_well, "{said:#?}");
    assert_eq!(said.lines, ["0 hello"], "{said:#?}");
    assert_eq!(counts(cluster, "greetings"), [0, 0, 0, 0, 1], "it is acknowledged");
}

/// The library reads what the node says of a failure.
fn a_refusal_says_why(worker: &Path, cluster: &mut Cluster) {
    let said = Program::start(worker, &ports(cluster), &["publish", "nowhere"], "lost\n").end(cluster);
    assert!(!said.is_well && said.lines.is_empty(), "{said:#?}");
    let last = said.notes.last().expect("it says why");
    assert!(last.starts_with("error: REASON_TOPIC_NOT_FOUND OUTCOME_NOT_DONE: "), "{said:#?}");
}

/// The endpoints with a relay to the leader first: libraries connect to the first that answers.
fn relayed(cluster: &mut Cluster) -> (usize, Relay, Vec<u16>) {
    let leader = cluster.leader();
    let relay = Relay::new(cluster.ports(leader).0);
    let others = (0..cluster.count()).filter(|node| *node != leader);
    let ports = std::iter::once(relay.port()).chain(others.map(|node| cluster.ports(node).0)).collect();
    (leader, relay, ports)
}

/// The leader dies with an answer that nobody ever gets.
fn dies_with_an_answer(cluster: &mut Cluster, leader: usize, relay: &Relay, program: &Program) {
    wait_for(
        "an answer is held back",
        || program.notes(),
        || relay.is_holding().then_some(()).ok_or_else(|| "none is".to_owned()),
    );
    cluster.kill(leader);
    relay.lose();
}

/// Publishes while the leader is killed. A publish whose answer got lost is repeated, and stored once. Returns what is stored,
/// by offset, as the reader sees it.
fn publishes_each_line_once(worker: &Path, cluster: &mut Cluster) -> Vec<String> {
    let line = |number| match number % 50 {
        7 => format!("fail {number}"),
        31 => format!("slow {number}"),
        _ => format!("order {number}"),
    };
    let lines: Vec<String> = (0..MESSAGES).map(line).collect();
    let (leader, relay, endpoints) = relayed(cluster);
    // One answer opens the session.
    relay.hold_after(1 + PUBLISHED_FIRST);
    let input = lines.join("\n") + "\n";
    let program = Program::start(worker, &endpoints, &["publish", TOPIC], &input);
    dies_with_an_answer(cluster, leader, &relay, &program);
    let said = program.end(cluster);
    assert!(said.is_well, "{said:#?}");

    let peek = json!({"state": "ready", "messages_max": 1000, "bytes_max": 1 << 20});
    let peeked = asked(cluster, "POST", &format!("/v1/topics/{TOPIC}/peek"), &peek);
    let stored: Vec<String> = peeked["deliveries"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|one| one["body"].as_str().expect("text").to_owned())
        .collect();
    assert_eq!(stored, lines, "each line is stored once, in its order; the program noted {:#?}", said.notes);
    let acknowledged: Vec<String> =
        lines.iter().enumerate().map(|(offset, line)| format!("published {offset} {line}")).collect();
    assert_eq!(said.lines, acknowledged, "and the program was told where");
    let repeated = format!("again: publish {} ", PUBLISHED_FIRST + 1);
    assert!(said.notes.iter().any(|note| note.starts_with(&repeated)), "no {repeated}: {said:#?}");
    cluster.start(leader);
    stored
}

/// What a consumer said of a message.
#[derive(Debug, Default)]
struct Life {
    /// Attempts that had failed, at each delivery.
    attempts: Vec<u64>,
    /// What its acknowledgements did.
    done: usize,
    gone: usize,
}

/// Consumes while the leader is killed. Returns how often what happened.
fn consumes_everything(worker: &Path, cluster: &mut Cluster, stored: &[String]) -> String {
    let (leader, relay, endpoints) = relayed(cluster);
    relay.hold_after(CONSUMED_FIRST);
    let program = Program::start(worker, &endpoints, &["consume", TOPIC, &MESSAGES.to_string()], "");
    dies_with_an_answer(cluster, leader, &relay, &program);
    let said = program.end(cluster);
    assert!(said.is_well, "{said:#?}");
    let lives = lives(&said, stored);
    let known: BTreeSet<u64> = (0..MESSAGES).collect();
    assert_eq!(lives.keys().copied().collect::<BTreeSet<_>>(), known, "every message was delivered");
    for (offset, life) in &lives {
        let body = &stored[usize::try_from(*offset).expect("small")];
        // That it is gone says that an earlier acknowledgement counted, whose answer was lost.
        assert!(life.done <= 1 && life.done + life.gone > 0, "{offset} {body}: {life:?}");
        let has_failed = life.attempts.last() > Some(&0);
        assert!(!body.starts_with("fail") || has_failed, "{offset} {body} was given back once: {life:?}");
    }
    for result in ["nack ", "extend "] {
        let done = |line: &&String| line.starts_with(result) && line.ends_with(" DONE");
        assert!(said.lines.iter().any(|line| done(&line)), "no {result}counted: {said:#?}");
    }
    assert!(said.notes.iter().any(|note| note.starts_with("again: consume ")), "{said:#?}");
    assert_eq!(counts(cluster, TOPIC), [0, 0, 0, 0, MESSAGES], "nothing is left, and nothing was added");
    let deliveries: usize = lives.values().map(|life| life.attempts.len()).sum();
    let gone = lives.values().filter(|life| life.gone > 0).count();
    let doubled = lives.values().filter(|life| life.attempts.len() > 1).count();
    format!(
        "{MESSAGES} published and stored once; all acknowledged, {gone} by a lost answer; {deliveries} deliveries, of {doubled} \
         messages more than one"
    )
}

/// A consumer that has had enough closes its side: what it got and did not begin is there for others at once.
fn who_leaves_gives_back(worker: &Path, cluster: &mut Cluster) {
    create(cluster, "more");
    let messages: Vec<Value> = (0..100).map(|number| json!({"body": format!("order {number}")})).collect();
    asked(cluster, "POST", "/v1/topics/more/publish", &json!({"messages": messages}));
    let said = Program::start(worker, &ports(cluster), &["consume", "more", "40"], "").end(cluster);
    assert!(said.is_well, "{said:#?}");
    let [ready, leased, delayed, dead, next_offset] = counts(cluster, "more");
    assert_eq!([leased, delayed, dead, next_offset], [0, 0, 0, 100], "{said:#?}");
    assert!((1..=60).contains(&ready), "{ready} are left: {said:#?}");
}

/// What the consumer said, by offset.
fn lives(said: &Said, stored: &[String]) -> BTreeMap<u64, Life> {
    let mut lives: BTreeMap<u64, Life> = BTreeMap::new();
    for line in &said.lines {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let offset: u64 = words[1].parse().expect("an offset");
        let life = lives.entry(offset).or_default();
        match words[..] {
            ["received", _, attempts, body] => {
                let is_stored =
                    stored.get(usize::try_from(offset).expect("small")).is_some_and(|one| one == body);
                assert!(is_stored, "{line}");
                life.attempts.push(attempts.parse().expect("a number"));
            }
            ["ack", _, "DONE"] => life.done += 1,
            ["ack", _, "GONE"] => life.gone += 1,
            ["ack" | "nack" | "extend", _, _] => {}
            _ => panic!("not a line of a consumer: {line}"),
        }
    }
    lives
}
