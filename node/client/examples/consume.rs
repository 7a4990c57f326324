//! Prints the messages of a topic and acknowledges each once it is printed: what a process that dies had printed and not
//! acknowledged comes again, to it or to another.
//!
//! `cargo run -p raftqueue-client --example consume -- localhost:7420 orders 1000`

use raftqueue_client::{Client, Error};

/// Hands `count` messages to `work`, and acknowledges those on which it succeeded. One on which it failed comes again
/// after a second, and is kept dead after as many attempts as its topic allows.
pub(crate) async fn consume(
    client: &Client,
    topic: &str,
    count: u64,
    mut work: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), Error> {
    let mut consumer = client.consumer(topic);
    let mut done = 0;
    while done < count {
        // Leased for as long as it is held here.
        let delivery = consumer.receive().await?;
        match work(&delivery.body) {
            Ok(()) => {
                done += 1;
                // Sent together with others. What it resolves to says whether the lease had ended meanwhile.
                delivery.ack();
            }
            Err(reason) => drop(delivery.nack(std::time::Duration::from_secs(1), reason)),
        }
    }
    // Waits until the last acknowledgements are done, and gives back what had arrived beyond.
    consumer.close().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [node, topic, count] = arguments.as_slice() else {
        return Err(
            "give the address of a node, a topic and a number of messages: localhost:7420 orders 1000".into(),
        );
    };
    let client = Client::connect([node])?;
    consume(&client, topic, count.parse()?, |body| {
        println!("{}", String::from_utf8_lossy(body));
        Ok(())
    })
    .await?;
    Ok(())
}
