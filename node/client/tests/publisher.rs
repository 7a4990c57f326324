//! The publisher against nodes in memory, over real sockets: in order, and stored once, whatever breaks.

use raftqueue_client::{Client, Error, Outcome, Publisher, PublisherSettings, v1};
use raftqueue_node::api::{Failure, Method, Outcome as NodeOutcome, Publish, Reason, Request};
use raftqueue_node::fake::{FakeNode, Served};
use std::time::Duration;

const TOPIC: &str = "orders";

async fn with_topic() -> (Served, Client) {
    let served = Served::start(FakeNode::default()).await;
    let client = Client::connect([served.endpoint()]).expect("addresses");
    let create = v1::CreateTopicRequest { topic: TOPIC.into(), ..Default::default() };
    client.create_topic(create).await.expect("created");
    (served, client)
}

fn message(number: usize) -> v1::NewMessage {
    v1::NewMessage { body: number.to_string().into(), ..Default::default() }
}

async fn bodies(client: &Client) -> Vec<usize> {
    let mut bodies = Vec::new();
    loop {
        let pop = v1::PopRequest { topic: TOPIC.into(), messages_max: 1_000, ..Default::default() };
        let popped = client.pop(pop).await.expect("popped").deliveries;
        if popped.is_empty() {
            return bodies;
        }
        let number = |delivery: v1::Delivery| {
            String::from_utf8_lossy(&delivery.body).parse::<usize>().expect("a number")
        };
        bodies.extend(popped.into_iter().map(number));
    }
}

async fn publish_all(publisher: &Publisher, count: usize) -> Vec<u64> {
    let mut answers = Vec::new();
    for number in 0..count {
        answers.push(publisher.send(message(number)).await.expect("handed over"));
    }
    let mut offsets = Vec::new();
    for answer in answers {
        let answer = answer.await.expect("acknowledged");
        assert_eq!(answer.count, 1);
        offsets.push(answer.first_offset);
    }
    offsets
}

#[tokio::test]
async fn messages_are_stored_in_the_order_in_which_they_are_handed_over() {
    let (served, client) = with_topic().await;
    let publisher = client.publisher(TOPIC).await.expect("a session");
    let offsets = publish_all(&publisher, 5_000).await;
    assert_eq!(offsets, (0..5_000).collect::<Vec<u64>>());
    publisher.close().await;
    assert_eq!(bodies(&client).await, (0..5_000).collect::<Vec<_>>());
    let publishes = served.node.calls().into_iter().filter(|call| call.method() == Method::Publish);
    assert!(publishes.count() < 1_000, "messages that waited shared batches");
}

#[tokio::test]
async fn answers_that_are_lost_are_asked_for_again_and_nothing_is_stored_twice() {
    let (served, client) = with_topic().await;
    let settings = PublisherSettings { batch_messages: 3, window: 4, ..PublisherSettings::default() };
    let publisher = client.publisher_with(TOPIC, settings).await.expect("a session");
    for round in 0..10 {
        let lost = Failure { outcome: NodeOutcome::Unknown, ..no_leader() };
        served.node.lose_next_answer(lost);
        if round % 3 == 0 {
            served.node.fail_next(no_leader());
        }
        let answers = (0..20).map(|number| publisher.send(message(20 * round + number)));
        for answer in answers.collect::<Vec<_>>() {
            drop(answer.await.expect("handed over"));
        }
        publisher.flush().await;
    }
    assert_eq!(bodies(&client).await, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refusal_fails_what_was_handed_over_behind_it_and_the_next_goes_on() {
    let (served, client) = with_topic().await;
    let settings = PublisherSettings { batch_messages: 1, window: 1, ..PublisherSettings::default() };
    let publisher = client.publisher_with(TOPIC, settings).await.expect("a session");
    publisher.publish(message(0)).await.expect("published");
    served.node.fail_next(Failure::not_done(Reason::LimitReached, "full"));
    let refused = publisher.send(message(1)).await.expect("handed over");
    let behind = publisher.send(message(2)).await.expect("handed over");
    let refused = refused.await.expect_err("refused");
    assert_eq!((refused.reason, refused.outcome), (v1::Reason::LimitReached, Outcome::NotDone));
    let behind = behind.await.expect_err("behind it");
    assert_eq!(behind.outcome, Outcome::NotDone);
    assert!(behind.text.contains("before it was refused"), "{behind}");
    publisher.publish(message(3)).await.expect("the way is free again");
    assert_eq!(bodies(&client).await, [0, 3]);
}

#[tokio::test]
async fn a_session_that_ended_is_replaced() {
    let (served, client) = with_topic().await;
    let publisher = client.publisher(TOPIC).await.expect("a session");
    publisher.publish(message(0)).await.expect("published");
    served.node.fail_next(Failure::not_done(Reason::SessionExpired, "idle for an hour"));
    let error = publisher.publish(message(1)).await.expect_err("told, since it may matter");
    assert_eq!((error.reason, error.outcome), (v1::Reason::SessionExpired, Outcome::NotDone));
    publisher.publish(message(2)).await.expect("in a session of its own");
    publisher.publish(message(3)).await.expect("and the next");
    assert_eq!(bodies(&client).await, [0, 2, 3]);
}

#[tokio::test]
async fn a_message_that_is_not_acknowledged_in_time_is_of_unknown_outcome() {
    let (served, client) = with_topic().await;
    let settings = PublisherSettings { timeout: Duration::from_millis(300), ..PublisherSettings::default() };
    let publisher = client.publisher_with(TOPIC, settings).await.expect("a session");
    publisher.publish(message(0)).await.expect("published");
    for _ in 0..1_000 {
        served.node.fail_next(no_leader());
    }
    let error = publisher.publish(message(1)).await.expect_err("no leader all the time");
    assert_eq!(error.outcome, Outcome::Unknown, "{error}");
}

#[tokio::test]
async fn nothing_is_sent_in_a_session_that_was_given_up() {
    let (served, client) = with_topic().await;
    let settings = PublisherSettings { timeout: Duration::from_secs(2), ..PublisherSettings::default() };
    let publisher = client.publisher_with(TOPIC, settings).await.expect("a session");
    publisher.publish(message(0)).await.expect("published");
    for _ in 0..1_000 {
        served.node.fail_next(no_leader());
    }
    publisher.publish(message(1)).await.expect_err("no leader all the time");
    // The first message may be stored yet: what follows must not take its number, nor wait behind it.
    let next = publisher.send(message(2)).await.expect("handed over");
    let opened = || served.node.calls().iter().filter(|call| call.method() == Method::OpenSession).count();
    let asked = async {
        while opened() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), asked).await.expect("it asks for another session");
    let sent = served.node.calls().len();
    served.node.stop_failing();
    next.await.expect("in a session of its own");
    let session_of = |call: &Request| match call {
        Request::Publish(Publish { session, .. }) => session.map(|step| (step.session.number, step.sequence)),
        _ => None,
    };
    let calls = served.node.calls();
    let first = calls.iter().find_map(session_of).expect("the first message");
    let after: Vec<_> = calls[sent..].iter().filter_map(session_of).collect();
    assert!(
        !after.is_empty() && after.iter().all(|(number, step)| *number != first.0 && *step == 1),
        "{after:?}"
    );
    assert_eq!(bodies(&client).await, [0, 2]);
}

#[tokio::test]
async fn while_no_node_is_there_messages_wait_within_bounds() {
    let (served, client) = with_topic().await;
    let settings = PublisherSettings { buffer_bytes: 1_000, ..PublisherSettings::default() };
    let publisher = client.publisher_with(TOPIC, settings).await.expect("a session");
    let address = served.address;
    let node = served.stop().await;
    let mut answers = Vec::new();
    // Each takes its bytes and a little more; the buffer holds some and then makes the caller wait.
    let full = loop {
        let sent =
            tokio::time::timeout(Duration::from_millis(200), publisher.send(message(answers.len()))).await;
        match sent {
            Ok(sent) => answers.push(sent.expect("handed over")),
            Err(_) => break answers.len(),
        }
        assert!(answers.len() < 100, "nothing holds the caller back");
    };
    assert!(full > 3, "{full}");
    let served = Served::start_at(node, address).await;
    for answer in answers {
        answer.await.expect("acknowledged in the end");
    }
    assert_eq!(bodies(&client).await, (0..full).collect::<Vec<_>>());
    drop(served);
}

/// Its disk is slow, or a thousand others were there before: sending all of it again would make that worse.
#[tokio::test]
async fn a_node_that_takes_long_is_not_sent_the_same_again() {
    let (served, client) = with_topic().await;
    let publisher = client.publisher(TOPIC).await.expect("a session");
    let mut producer = client.producer(TOPIC).await.expect("a session");
    served.node.hold(true);
    let streamed = publisher.send(message(0)).await.expect("handed over");
    let called = tokio::spawn(async move { producer.publish(vec![message(1)]).await });
    // What is shown is that nothing happens, for longer than either waited before it sent everything again.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    served.node.hold(false);
    streamed.await.expect("acknowledged");
    called.await.expect("it does not panic").expect("acknowledged");
    let publishes = served.node.calls().into_iter().filter(|call| call.method() == Method::Publish);
    assert_eq!(publishes.count(), 2);
}

/// The node's process is paused, or its machine is gone without a word.
#[tokio::test]
async fn a_node_that_hangs_is_left_for_another() {
    let (served, _) = with_topic().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let between = listener.local_addr().expect("bound").to_string();
    let (hang, hangs) = tokio::sync::watch::channel(false);
    let behind = served.address;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut hangs = hangs.clone();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(behind).await.expect("it listens");
                tokio::select! {
                    () = async { drop(hangs.wait_for(|hangs| *hangs).await) } => std::future::pending().await,
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                }
            });
        }
    });
    let client = Client::connect([between, served.endpoint()]).expect("addresses");
    let client = client.with_timeout(Duration::from_secs(60));
    let publisher = client.publisher(TOPIC).await.expect("a session");
    publisher.publish(message(0)).await.expect("published");
    let mut producer = client.independent().producer(TOPIC).await.expect("a session");
    hang.send_replace(true);
    publisher.publish(message(1)).await.expect("at the other endpoint");
    producer.publish(vec![message(2)]).await.expect("at the other endpoint");
    assert_eq!(bodies(&client).await, [0, 1, 2]);
}

#[tokio::test]
async fn closing_ends_the_session_with_the_last_clone() {
    let (served, client) = with_topic().await;
    let publisher = client.publisher(TOPIC).await.expect("a session");
    publisher.clone().close().await;
    publisher.publish(message(0)).await.expect("the other clone goes on");
    let closed = || served.node.calls().iter().filter(|call| call.method() == Method::CloseSession).count();
    assert_eq!(closed(), 0);
    publisher.close().await;
    assert_eq!(closed(), 1);
}

fn named(name: &str) -> PublisherSettings {
    PublisherSettings { session: Some(name.into()), ..PublisherSettings::default() }
}

async fn publish_one(publisher: &Publisher, number: usize) -> Result<v1::PublishResponse, Error> {
    publisher.send_batch(vec![message(number)]).await.expect("handed over").await
}

#[tokio::test]
async fn a_session_with_a_name_stays_and_its_next_publisher_repeats_it() {
    let (served, client) = with_topic().await;
    let first = client.publisher_with(TOPIC, named("nightly")).await.expect("a session");
    for number in 0..3 {
        publish_one(&first, number).await.expect("published");
    }
    first.clone().close().await;
    assert!(
        served.node.calls().iter().all(|call| call.method() != Method::CloseSession),
        "it is for the next"
    );
    let second = client.publisher_with(TOPIC, named("nightly")).await.expect("the same session");
    let other = client.publisher_with(TOPIC, named("weekly")).await.expect("another session");
    for number in 0..5 {
        publish_one(&second, number).await.expect("stored now, or before");
    }
    let fenced = publish_one(&first, 3).await.expect_err("the other holds the session");
    assert_eq!(fenced.reason, v1::Reason::Fenced);
    publish_one(&other, 5).await.expect("published");
    assert_eq!(bodies(&client).await, [0, 1, 2, 3, 4, 5]);
}

/// A later batch would take the step of the one that failed, and a repeat would not find it there.
#[tokio::test]
async fn in_a_session_with_a_name_nothing_is_published_behind_a_failure() {
    let (served, client) = with_topic().await;
    let publisher = client.publisher_with(TOPIC, named("nightly")).await.expect("a session");
    publish_one(&publisher, 0).await.expect("published");
    served.node.fail_next(Failure::not_done(Reason::LimitReached, "full"));
    let refused = publish_one(&publisher, 1).await.expect_err("refused");
    assert_eq!(refused.reason, v1::Reason::LimitReached);
    for number in 2..4 {
        let behind = publish_one(&publisher, number).await.expect_err("behind it");
        assert_eq!((behind.reason, behind.outcome), (v1::Reason::LimitReached, Outcome::NotDone));
    }
    publisher.close().await;
    let next = client.publisher_with(TOPIC, named("nightly")).await.expect("the same session");
    for number in 0..3 {
        publish_one(&next, number).await.expect("stored now, or before");
    }
    assert_eq!(bodies(&client).await, [0, 1, 2]);
}

#[tokio::test]
async fn settings_out_of_range_are_named() {
    let (_served, client) = with_topic().await;
    let settings = PublisherSettings { window: 0, ..PublisherSettings::default() };
    let error = client.publisher_with(TOPIC, settings).await.expect_err("no window");
    assert!(error.text.contains("window must be 1 to 1024, not 0"), "{error}");
}

fn no_leader() -> Failure {
    Failure::not_done(Reason::NoLeader, "no leader").retry_after_ms(1)
}
