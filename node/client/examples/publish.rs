//! Publishes lines of standard input to a topic, each stored once and in order, however often a leader changes meanwhile.
//!
//! `seq 1000 | cargo run -p raftqueue-client --example publish -- localhost:7420 orders`

use raftqueue_client::{Client, Error, v1};
use std::io::BufRead;

/// Publishes `lines` in order and returns how many messages were acknowledged: all of them, or an error.
pub(crate) async fn publish(
    client: &Client,
    topic: &str,
    lines: impl Iterator<Item = String>,
) -> Result<u64, Error> {
    create_if_missing(client, topic).await?;
    let publisher = client.publisher(topic).await?;
    let mut answers = Vec::new();
    let mut acknowledged = 0;
    for line in lines {
        let message = v1::NewMessage { body: line.into(), ..Default::default() };
        // Waits only while the publisher's buffer is full: batches are under way side by side.
        answers.push(publisher.send(message).await?);
        if answers.len() == 1_000 {
            acknowledged += all(&mut answers).await?;
        }
    }
    acknowledged += all(&mut answers).await?;
    publisher.close().await;
    Ok(acknowledged)
}

/// Waits until every one of them is on the disks of a majority.
async fn all(answers: &mut Vec<raftqueue_client::Acknowledgement>) -> Result<u64, Error> {
    let mut acknowledged = 0;
    for answer in answers.drain(..) {
        answer.await?;
        acknowledged += 1;
    }
    Ok(acknowledged)
}

async fn create_if_missing(client: &Client, topic: &str) -> Result<(), Error> {
    let create = v1::CreateTopicRequest { topic: topic.into(), ..Default::default() };
    match client.create_topic(create).await {
        Err(error) if error.reason != v1::Reason::TopicExists => Err(error),
        _ => Ok(()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (Some(node), Some(topic)) = (std::env::args().nth(1), std::env::args().nth(2)) else {
        return Err("give the address of a node and a topic: localhost:7420 orders".into());
    };
    let lines = std::io::stdin().lock().lines().map_while(Result::ok);
    let acknowledged = publish(&Client::connect([node])?, &topic, lines).await?;
    println!("{acknowledged} acknowledged");
    Ok(())
}
