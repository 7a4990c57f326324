//! How the folder of a version was made: a node of one, to which everything happens that the log and a snapshot can tell of.
//!
//! Its times are real ones, so a node that opens it later finds that leases, delays and times to live have ended. What lives
//! is the same whenever it looks.

use super::{ARGUMENTS, read_living, wait_until_stored};
use bytes::Bytes;
use raftqueue_client::{Client, v1};
use raftqueue_tests::process::{Cluster, PATIENCE};
use raftqueue_wal::disk::fake::write_folder;
use std::time::Duration;

/// Bytes of a message that fills a segment together with three others.
const LARGE: usize = 250 << 10;
const HOUR_MS: u64 = 3_600_000;

/// What stands in the repository: the folder, and what lives in it.
pub(crate) struct Recorded {
    pub(crate) folder: String,
    pub(crate) living: String,
}

pub(crate) async fn record() -> Recorded {
    let mut cluster = Cluster::new(1).with_links().with_operations().with_arguments(&ARGUMENTS);
    cluster.start(0);
    cluster.leader();
    let story = Story { client: super::client(&cluster), cluster: &cluster };
    story.begin().await;
    story.tell("first").await;
    story.fill().await;
    // The log goes on in a new segment, with the entry of a new term.
    cluster.stop(0);
    cluster.start(0);
    cluster.leader();
    let story = Story { client: super::client(&cluster), cluster: &cluster };
    story.tell("second").await;
    let living = read_living(&story.client).await;
    cluster.kill(0);
    let mut files = Vec::new();
    for file in std::fs::read_dir(cluster.data_dir(0)).expect("it is there").flatten() {
        let name = file.file_name().into_string().expect("names are text");
        if name != "LOCK" && !name.starts_with("spare") {
            files.push((name, std::fs::read(file.path()).expect("it can be read")));
        }
    }
    files.sort();
    let folder = write_folder(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    Recorded { folder, living }
}

fn message(body: impl Into<Bytes>) -> v1::NewMessage {
    v1::NewMessage { body: body.into(), ..Default::default() }
}

struct Story<'a> {
    client: Client,
    cluster: &'a Cluster,
}

impl Story<'_> {
    async fn begin(&self) {
        let options = v1::TopicOptions { attempts_max: Some(2), ..Default::default() };
        for (topic, options) in [("orders", options), ("waiting", v1::TopicOptions::default())] {
            let request = v1::CreateTopicRequest {
                topic: topic.into(),
                options: Some(options),
                request_id: vec![topic.len() as u8; 16].into(),
            };
            self.client.create_topic(request).await.expect("made");
        }
    }

    /// Everything that a client can ask for, with something left of each.
    async fn tell(&self, part: &str) {
        let limited = v1::TopicOptions {
            messages_max: Some(1_000),
            bytes_max: Some(1 << 20),
            ttl_ms: Some(HOUR_MS),
            ..Default::default()
        };
        for topic in [format!("{part} gone"), format!("{part} limited")] {
            let request = v1::CreateTopicRequest { topic, options: Some(limited), ..Default::default() };
            self.client.create_topic(request).await.expect("made");
        }
        self.publish(&format!("{part} gone"), vec![message("gone")]).await;
        let request = v1::DeleteTopicRequest { topic: format!("{part} gone") };
        self.client.delete_topic(request).await.expect("deleted");
        self.publish(&format!("{part} limited"), vec![message("limited")]).await;
        self.sessions(part).await;
        self.deaths(part).await;
        self.leases(part).await;
        for number in 0..70 {
            self.publish("waiting", vec![message(format!("{part} {number}"))]).await;
        }
    }

    async fn sessions(&self, part: &str) {
        for name in [Some("importer".to_owned()), None] {
            let is_closed = name.is_none();
            // A named producer goes on where it was.
            let first = if part == "second" && !is_closed { 3 } else { 1 };
            let opened = self.client.open_session(v1::OpenSessionRequest { name }).await.expect("opened");
            for sequence in first..first + 2 {
                let session = Some(v1::SessionStep { session: opened.session.clone(), sequence });
                let header = v1::Header { name: "n".into(), value: "v".into() };
                let full = v1::NewMessage {
                    key: "key".into(),
                    headers: vec![header],
                    ..message(format!("{part} {sequence}"))
                };
                let later = v1::NewMessage { delay_ms: 24 * HOUR_MS, ..message("later") };
                let mortal = v1::NewMessage { ttl_ms: Some(24 * HOUR_MS), ..message("mortal") };
                let messages = vec![full, later, mortal];
                let request = v1::PublishRequest { topic: "waiting".into(), session, messages };
                self.client.publish(request).await.expect("published");
            }
            if is_closed {
                let request = v1::CloseSessionRequest { session: opened.session };
                self.client.close_session(request).await.expect("closed");
            }
        }
    }

    /// Messages that died in each way; some were sent again, some dropped.
    async fn deaths(&self, part: &str) {
        let of = format!("{part} deaths");
        let options = Some(v1::TopicOptions { attempts_max: Some(2), ..Default::default() });
        let request = v1::CreateTopicRequest { topic: of.clone(), options, ..Default::default() };
        self.client.create_topic(request).await.expect("made");
        let messages = (0..5)
            .map(|number| v1::NewMessage { ttl_ms: Some(1), ..message(format!("{part} expired {number}")) });
        let published = self.publish(&of, messages.collect()).await;
        self.until_counted(&of, "five are dead", |counts| counts.ready == 0 && counts.dead >= 5).await;
        let (topic, first) = (of.clone(), published.first_offset);
        let request =
            v1::PurgeDeadRequest { topic: topic.clone(), offsets: vec![first], ..Default::default() };
        self.client.purge_dead(request).await.expect("dropped");
        let request =
            v1::RedriveDeadRequest { topic, offsets: vec![first + 1, first + 2], ..Default::default() };
        self.client.redrive_dead(request).await.expect("sent again");
        let messages =
            ["because", "without a word", "in silence"].map(|how| message(format!("{part} died {how}")));
        self.publish(&of, messages.into()).await;
        for attempt in 0..2 {
            for reason in ["it does not fit", ""] {
                let leases = self.receive(&of, if attempt == 0 { 2 } else { 1 }, None).await;
                let request = v1::NackRequest {
                    topic: of.clone(),
                    leases,
                    reason: reason.into(),
                    delay_ms: u64::from(attempt == 0),
                    ..Default::default()
                };
                self.client.nack(request).await.expect("given back");
                self.until_counted(&of, "nothing waits", |counts| counts.delayed == 0).await;
            }
        }
        // What nobody answers for dies of that.
        loop {
            self.receive(&of, 10, Some(1_000)).await;
            self.until_counted(&of, "leases have ended", |counts| counts.leased == 0).await;
            if self.counts(&of).await.ready == 0 {
                break;
            }
        }
        let request =
            v1::RedriveDeadRequest { topic: of.clone(), offsets: vec![first + 3], ..Default::default() };
        self.client.redrive_dead(request).await.expect("sent again");
    }

    async fn leases(&self, part: &str) {
        let messages = (0..12).map(|number| message(format!("{part} order {number}")));
        self.publish("orders", messages.collect()).await;
        let leases = self.receive("orders", 6, None).await;
        let topic = || "orders".to_owned();
        let request = v1::PopRequest {
            topic: topic(),
            messages_max: 2,
            request_id: vec![part.len() as u8; 16].into(),
            ..Default::default()
        };
        assert_eq!(self.client.pop(request).await.expect("taken").deliveries.len(), 2);
        let request = v1::AckRequest { topic: topic(), leases: leases[..2].to_vec(), ..Default::default() };
        self.client.ack(request).await.expect("done");
        let request = v1::NackRequest {
            topic: topic(),
            leases: leases[2..3].to_vec(),
            delay_ms: HOUR_MS,
            ..Default::default()
        };
        self.client.nack(request).await.expect("given back");
        let request =
            v1::ReleaseRequest { topic: topic(), leases: leases[3..4].to_vec(), ..Default::default() };
        self.client.release(request).await.expect("given back");
        let request = v1::ExtendRequest {
            topic: topic(),
            leases: leases[4..].to_vec(),
            lease_ms: Some(10 * HOUR_MS),
            ..Default::default()
        };
        self.client.extend(request).await.expect("extended");
        let request = v1::NackRequest {
            topic: topic(),
            leases: self.receive("orders", 1, None).await,
            ..Default::default()
        };
        self.client.nack(request).await.expect("given back");
        let purged = format!("{part} limited");
        self.client.purge(v1::PurgeRequest { topic: purged, ..Default::default() }).await.expect("dropped");
    }

    /// So much goes through that two snapshots cut the log, that one segment stays for what lives in it, and that of others
    /// the little that lives is copied out.
    async fn fill(&self) {
        self.client
            .create_topic(v1::CreateTopicRequest { topic: "large".into(), ..Default::default() })
            .await
            .expect("made");
        for number in 0..40_u8 {
            self.publish("large", vec![message(vec![number; LARGE])]).await;
            self.publish("large", vec![message(format!("small {number}"))]).await;
            if number >= 4 {
                let leases = self.receive("large", 2, None).await;
                let leases = if number % 3 == 0 { leases[..1].to_vec() } else { leases };
                let request = v1::AckRequest { topic: "large".into(), leases, ..Default::default() };
                self.client.ack(request).await.expect("done");
            }
        }
        wait_until_stored(self.cluster).await;
    }

    async fn publish(&self, topic: &str, messages: Vec<v1::NewMessage>) -> v1::PublishResponse {
        let request = v1::PublishRequest { topic: topic.into(), session: None, messages };
        self.client.publish(request).await.expect("published")
    }

    async fn receive(&self, topic: &str, messages_max: u32, lease_ms: Option<u64>) -> Vec<Bytes> {
        let lease_ms = lease_ms.or(Some(HOUR_MS));
        let request =
            v1::ReceiveRequest { topic: topic.into(), messages_max, lease_ms, ..Default::default() };
        let received = self.client.receive(request).await.expect("received");
        received.deliveries.into_iter().map(|delivery| delivery.lease).collect()
    }

    async fn counts(&self, topic: &str) -> v1::SubscriptionInfo {
        super::describe(&self.client, topic).await.subscriptions.remove(0)
    }

    async fn until_counted(&self, topic: &str, what: &str, is_so: impl Fn(&v1::SubscriptionInfo) -> bool) {
        let begun = std::time::Instant::now();
        while !is_so(&self.counts(topic).await) {
            assert!(begun.elapsed() < PATIENCE, "{what}: {:?}", self.counts(topic).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
