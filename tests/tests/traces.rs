//! A call is followed from the edge to the commit: the spans that a collector of OpenTelemetry gets of real nodes, and the id by
//! which an error is found in their logs.

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use raftqueue_proto::v1;
use raftqueue_proto::v1::queue_client::QueueClient;
use raftqueue_tests::process::{Answer, CALM, Cluster};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

const TOPIC: &str = "orders";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A span that arrived.
#[derive(Clone, Debug)]
struct Seen {
    node: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    nanos: std::ops::RangeInclusive<u64>,
    is_error: bool,
    index: Option<i64>,
}

/// Takes what nodes send, as a collector does.
#[derive(Clone, Debug, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        call: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut seen = self.0.lock().expect("no test panics here");
        for of_node in call.into_inner().resource_spans {
            let resource = of_node.resource.unwrap_or_default();
            let Some(Value::StringValue(node)) = value(&resource.attributes, "service.instance.id") else {
                panic!("{resource:?} names no node");
            };
            for span in of_node.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                seen.push(Seen {
                    node: node.clone(),
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    nanos: span.start_time_unix_nano..=span.end_time_unix_nano,
                    is_error: span.status.is_some_and(|status| status.code == 2),
                    index: match value(&span.attributes, "raftqueue.index") {
                        Some(Value::IntValue(index)) => Some(*index),
                        _ => None,
                    },
                    name: span.name,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn start(runtime: &Runtime) -> (Self, String) {
        let collector = Self::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it listens"));
        let server = Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        let arriving = tokio_stream::wrappers::TcpListenerStream::new(listener);
        runtime.spawn(server.serve_with_incoming(arriving));
        (collector, endpoint)
    }

    /// The spans of a trace, by their names.
    fn of(&self, trace: &str) -> BTreeMap<String, Seen> {
        let seen = self.0.lock().expect("no test panics here").clone();
        seen.into_iter().filter(|span| span.trace == trace).map(|span| (span.name.clone(), span)).collect()
    }

    fn wait_for(&self, cluster: &Cluster, trace: &str, names: &[&str]) -> BTreeMap<String, Seen> {
        cluster.wait_for("spans", || {
            let found = self.of(trace);
            if names.iter().all(|name| found.contains_key(*name)) {
                Ok(())
            } else {
                Err(format!("{found:#?}"))
            }
        });
        self.of(trace)
    }
}

/// The trace id in the head of an answer over HTTP/1.1.
fn trace_id(answer: &Answer) -> Option<&str> {
    answer.head.lines().find_map(|line| line.strip_prefix("raftqueue-trace-id: "))
}

fn message(body: &'static [u8]) -> v1::NewMessage {
    v1::NewMessage { body: body.into(), ..Default::default() }
}

fn with_parent<T>(content: T, trace: &str, flags: &str) -> Request<T> {
    let mut call = Request::new(content);
    let parent = format!("00-{trace}-{SPAN}-{flags}");
    call.metadata_mut().insert("traceparent", parent.parse().expect("ASCII"));
    call
}

fn publish(topic: &str) -> v1::PublishRequest {
    v1::PublishRequest { topic: topic.into(), messages: vec![message(b"x")], ..Default::default() }
}

/// Three nodes that send to a collector, which begin no trace by themselves; and a client of one that does not lead.
fn traced() -> (Runtime, Collector, Cluster, usize, QueueClient<Channel>) {
    let runtime = Runtime::new().expect("threads");
    let (collector, endpoint) = Collector::start(&runtime);
    let arguments = [&CALM[..], &["--traces-endpoint", &endpoint, "--traces-ratio", "0"]].concat();
    let mut cluster = Cluster::new(3).with_arguments(&arguments);
    cluster.start_all();
    let leader = cluster.leader();
    cluster.make_topic(TOPIC);
    let follower = (leader + 1) % 3;
    let address = format!("http://127.0.0.1:{}", cluster.ports(follower).0);
    let client = runtime.block_on(QueueClient::connect(address)).expect("it listens");
    (runtime, collector, cluster, leader, client)
}

#[test]
fn a_publish_is_followed_from_the_edge_to_the_commit() {
    let (runtime, collector, cluster, leader, mut client) = traced();
    let (leading, asked) = (cluster.name(leader), cluster.name((leader + 1) % 3));
    runtime.block_on(client.publish(with_parent(publish(TOPIC), TRACE, "01"))).expect("it is stored");
    const PUBLISH: &str = "raftqueue.v1.Queue/Publish";
    let names = [PUBLISH, "pass on to the leader", "passed on", "wait for an entry", "replicate"];
    let spans = collector.wait_for(&cluster, TRACE, &names);
    assert_eq!(spans[PUBLISH].parent, SPAN, "a part of what the caller does");
    let parts = [
        ("pass on to the leader", PUBLISH, &asked),
        ("passed on", "pass on to the leader", &leading),
        ("wait for an entry", "passed on", &leading),
        ("replicate", "passed on", &leading),
    ];
    for (name, parent, node) in parts {
        let span = &spans[name];
        assert_eq!((&span.parent, &span.node), (&spans[parent].id, node), "{name}");
        // All of them have one clock.
        let (inner, outer) = (&span.nanos, &spans[parent].nanos);
        assert!(inner.start() <= inner.end(), "{name}: {inner:?}");
        assert!(
            inner.start() + 1_000_000 >= *outer.start() && inner.end() <= &(outer.end() + 1_000_000),
            "{name}"
        );
    }
    assert!(spans.values().all(|span| !span.is_error));
    assert!(spans["replicate"].index.expect("the index of an entry") > 1);
}

#[test]
fn each_batch_of_a_stream_is_followed() {
    let (runtime, collector, cluster, leader, _) = traced();
    let address = format!("http://127.0.0.1:{}", cluster.ports(leader).0);
    runtime.block_on(async {
        let mut client = QueueClient::connect(address).await.expect("it listens");
        let opened = client.open_session(v1::OpenSessionRequest::default()).await.expect("a session");
        let session = opened.into_inner().session;
        let batch = |sequence| v1::PublishRequest {
            session: Some(v1::SessionStep { session: session.clone(), sequence }),
            ..publish(TOPIC)
        };
        let batches = tokio_stream::iter([batch(1), batch(2)]);
        let answers = client.publish_stream(with_parent(batches, TRACE, "01")).await.expect("a stream");
        let mut answers = answers.into_inner();
        for _ in 0..2 {
            answers.message().await.expect("it is stored").expect("an answer");
        }
    });
    let spans =
        collector.wait_for(&cluster, TRACE, &["raftqueue.v1.Queue/PublishStream", "batch", "replicate"]);
    assert_eq!(spans["batch"].parent, spans["raftqueue.v1.Queue/PublishStream"].id);
    let batches = || {
        let all = collector.0.lock().expect("no test panics here");
        all.iter().filter(|span| span.name == "batch").count()
    };
    cluster.wait_for("both batches", || if batches() == 2 { Ok(()) } else { Err(batches().to_string()) });
}

#[test]
fn an_error_names_the_trace_by_which_the_nodes_know_the_call() {
    let (runtime, collector, cluster, leader, mut client) = traced();
    let header = |status: &Status| {
        let value = status.metadata().get("raftqueue-trace-id").expect("each error has it");
        value.to_str().expect("hexadecimal digits").to_owned()
    };
    let refused = runtime.block_on(client.publish(with_parent(publish("nowhere"), TRACE, "01")));
    assert_eq!(header(&refused.expect_err("no such topic")), TRACE);
    const PUBLISH: &str = "raftqueue.v1.Queue/Publish";
    assert!(collector.wait_for(&cluster, TRACE, &[PUBLISH, "passed on"])[PUBLISH].is_error);

    // Whoever brings no trace, or one that is not exported, is told of one, too; nothing is sent of that.
    let other = "00000000000000000000000000000007";
    let refused = runtime.block_on(client.publish(with_parent(publish("nowhere"), other, "00")));
    assert_eq!(header(&refused.expect_err("no such topic")), other);
    let made = header(&runtime.block_on(client.publish(publish("nowhere"))).expect_err("no such topic"));
    assert!(made.len() == 32 && made != TRACE && made != other, "{made}");
    let refused = cluster.http(leader).request("POST", "/v1/topics/nowhere/publish", br#"{"messages": []}"#);
    let refused = refused.expect("an answer");
    assert_eq!(trace_id(&refused).map(str::len), Some(32), "{refused:?}");
    // A stream may fail when it has long begun: its head was good.
    let ended = runtime.block_on(async {
        let session = client.open_session(v1::OpenSessionRequest::default()).await?.into_inner().session;
        let batch = |topic, sequence| v1::PublishRequest {
            session: Some(v1::SessionStep { session: session.clone(), sequence }),
            ..publish(topic)
        };
        let batches = tokio_stream::iter([batch(TOPIC, 1), batch("nowhere", 2)]);
        let mut answers = client.publish_stream(with_parent(batches, other, "00")).await?.into_inner();
        answers.message().await?.expect("the first batch is stored");
        answers.message().await
    });
    assert_eq!(header(&ended.expect_err("a stream is for one topic")), other);
    let taken = cluster.http(leader).status().expect("an answer");
    assert_eq!(trace_id(&taken), None, "it is no error");

    // What comes after all of that has arrived: so nothing else will.
    let last = "0000000000000000000000000000000a";
    runtime.block_on(client.publish(with_parent(publish(TOPIC), last, "01"))).expect("it is stored");
    collector.wait_for(&cluster, last, &[PUBLISH, "replicate"]);
    for trace in [other, &made] {
        assert!(collector.of(trace).is_empty());
    }
}

#[test]
fn a_collector_that_is_not_there_holds_up_nobody() {
    let arguments = [&CALM[..], &["--traces-endpoint", "http://127.0.0.1:9", "--traces-ratio", "1"]].concat();
    let mut cluster = Cluster::new(1).with_arguments(&arguments);
    cluster.start_all();
    cluster.make_topic(TOPIC);
    for id in 0..100 {
        cluster.publish_until_taken(0, TOPIC, &id.to_string());
    }
    assert!(cluster.stop(0).success());
}
