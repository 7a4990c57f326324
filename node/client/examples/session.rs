//! Publishes the lines of a file, each once, also where the process is killed and started again, or runs twice by mistake.
//!
//! A session with a name outlives its process: the number of a line is its place in the session, so a second run repeats
//! what the first one published, which stores nothing, and goes on behind it. Who opens the session last holds it; an
//! earlier process that is still there is refused with `FENCED`. A session ends an hour after its last use.
//!
//! `cargo run -p raftqueue-client --example session -- localhost:7420 orders nightly-import lines.txt`

use raftqueue_client::{Client, Error, Outcome, v1};

/// How often a line of unknown outcome is sent again before that is given up.
const ATTEMPTS_MAX: usize = 10;

/// Publishes lines under a name, in order, each stored once whatever became of earlier runs.
pub(crate) async fn import(
    client: &Client,
    topic: &str,
    name: &str,
    lines: impl Iterator<Item = String>,
) -> Result<u64, Error> {
    let session = client.open_session(v1::OpenSessionRequest { name: Some(name.to_owned()) }).await?.session;
    let mut published = 0;
    for (sequence, line) in (1..).zip(lines) {
        let step = v1::SessionStep { session: session.clone(), sequence };
        let message = v1::NewMessage { body: line.into(), ..Default::default() };
        let request =
            v1::PublishRequest { topic: topic.to_owned(), session: Some(step), messages: vec![message] };
        publish(client, request).await?;
        published += 1;
    }
    Ok(published)
}

/// Publishes one step of a session. One of unknown outcome may have been stored; the same number with the same messages
/// stores nothing twice.
async fn publish(client: &Client, request: v1::PublishRequest) -> Result<(), Error> {
    for attempt in 1.. {
        match client.publish(request.clone()).await {
            Err(error) if error.outcome == Outcome::Unknown && attempt < ATTEMPTS_MAX => {}
            answered => return answered.map(drop),
        }
    }
    unreachable!("the last attempt returns")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [node, topic, name, file] = arguments.as_slice() else {
        return Err(
            "give the address of a node, a topic, a name and a file: localhost:7420 orders import f".into()
        );
    };
    let lines = std::fs::read_to_string(file)?;
    let published = import(&Client::connect([node])?, topic, name, lines.lines().map(str::to_owned)).await?;
    println!("{published} lines are stored");
    Ok(())
}
