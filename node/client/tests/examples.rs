//! The programs in `examples/` do what they say.

#[expect(dead_code, reason = "its main is for a command line")]
#[path = "../examples/consume.rs"]
mod consume;
#[expect(dead_code, reason = "its main is for a command line")]
#[path = "../examples/publish.rs"]
mod publish;
#[expect(dead_code, reason = "its main is for a command line")]
#[path = "../examples/session.rs"]
mod session;

use raftqueue_client::{Client, v1};
use raftqueue_node::fake::{FakeNode, Served};

const TOPIC: &str = "orders";

async fn served() -> (Served, Client) {
    let served = Served::start(FakeNode::default()).await;
    let client = Client::connect([served.endpoint()]).expect("an address");
    (served, client)
}

#[tokio::test]
async fn what_is_published_is_consumed_in_order() {
    let (_served, client) = served().await;
    let lines: Vec<String> = (0..2_500).map(|number| format!("line {number}")).collect();
    let acknowledged = publish::publish(&client, TOPIC, lines.iter().cloned()).await.expect("published");
    assert_eq!(acknowledged, 2_500);

    let mut seen = Vec::new();
    let count = lines.len() as u64;
    consume::consume(&client, TOPIC, count, |body| {
        seen.push(String::from_utf8(body.to_vec()).expect("as published"));
        Ok(())
    })
    .await
    .expect("consumed");
    assert_eq!(seen, lines);
    let described =
        client.describe_topic(v1::DescribeTopicRequest { topic: TOPIC.into() }).await.expect("there");
    assert_eq!(described.topic.expect("described").bytes, 0, "all of them are acknowledged");
}

#[tokio::test]
async fn work_that_fails_comes_again() {
    let (_served, client) = served().await;
    publish::publish(&client, TOPIC, ["one".to_owned()].into_iter()).await.expect("published");
    let mut attempts = 0;
    consume::consume(&client, TOPIC, 1, |_| {
        attempts += 1;
        if attempts == 1 { Err("not yet".to_owned()) } else { Ok(()) }
    })
    .await
    .expect("consumed");
    assert_eq!(attempts, 2);
}

#[tokio::test]
async fn an_import_that_runs_again_stores_nothing_twice() {
    let (_served, client) = served().await;
    publish::publish(&client, TOPIC, std::iter::empty()).await.expect("the topic is there");
    let lines = |count: usize| (0..count).map(|number| format!("line {number}"));
    // The first run ended in the middle of the file.
    assert_eq!(session::import(&client, TOPIC, "import", lines(3)).await.expect("stored"), 3);
    assert_eq!(session::import(&client, TOPIC, "import", lines(5)).await.expect("stored"), 5);

    let mut seen = Vec::new();
    consume::consume(&client, TOPIC, 5, |body| {
        seen.push(String::from_utf8(body.to_vec()).expect("as published"));
        Ok(())
    })
    .await
    .expect("consumed");
    assert_eq!(seen, lines(5).collect::<Vec<_>>());
    let described =
        client.describe_topic(v1::DescribeTopicRequest { topic: TOPIC.into() }).await.expect("there");
    assert_eq!(described.topic.expect("described").next_offset, 5, "nothing was stored twice");
}
