//! What the library refuses, as it reaches the client.

use super::super::Edge;
use crate::api::limits::{Limits, PLAIN_BYTES_MAX};
use crate::fake::FakeNode;
use crate::wire::errors;
use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use prost::Message;
use raftqueue_proto::v1::consume_request::Step;
use raftqueue_proto::{status, v1};
use tonic::{Code, Status};
use tower::ServiceExt;

/// Sends a call as raw bytes, straight to the routes, with further headers.
async fn raw_with(node: &FakeNode, path: &str, frames: Bytes, headers: &[(&str, &str)]) -> Status {
    let edge = Edge::new(node.clone(), Limits::default());
    let mut request = http::Request::post(path).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::new(Full::new(frames))).expect("a request");
    let response = crate::edges::http::router(&edge).oneshot(request).await.expect("it cannot fail");
    let in_head = Status::from_header_map(response.headers());
    let trailers =
        response.into_body().collect().await.expect("a body").trailers().cloned().unwrap_or_default();
    in_head.or_else(|| Status::from_header_map(&trailers)).expect("every answer has a status")
}

async fn raw(node: &FakeNode, path: &str, frames: Bytes) -> Status {
    raw_with(node, path, frames, &[]).await
}

/// A frame that claims a length, and may not have it.
fn frame(claimed_bytes: u32, content: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(claimed_bytes);
    frame.put_slice(content);
    frame.freeze()
}

fn message(message: &impl Message) -> Bytes {
    let content = message.encode_to_vec();
    frame(u32::try_from(content.len()).expect("short"), &content)
}

/// What a refusal says: code, reason, and that nothing was done.
fn refused(status: &Status) -> (Code, v1::Reason) {
    let detail = status::detail(status).unwrap_or_else(|| panic!("{status:?} has no detail"));
    assert_eq!(detail.outcome(), v1::Outcome::NotDone, "{status:?}");
    (status.code(), detail.reason())
}

/// Calls of one answer, and streams.
const CALLS: [&str; 4] = ["Publish", "CreateTopic", "PublishStream", "Consume"];

#[tokio::test]
async fn a_frame_of_a_gibibyte_is_refused_by_its_length_alone_and_says_both_sizes() {
    let node = FakeNode::default();
    for call in CALLS {
        let status = raw(&node, &format!("/raftqueue.v1.Queue/{call}"), frame(1 << 30, b"begun")).await;
        assert_eq!(refused(&status), (Code::OutOfRange, v1::Reason::TooLarge), "{call}");
        let limit = match call {
            "CreateTopic" | "Consume" => PLAIN_BYTES_MAX.to_string(),
            _ => Limits::default().frame_bytes_max().to_string(),
        };
        for number in ["1073741824", &limit] {
            assert!(status.message().contains(number), "{call} names {number}: {}", status.message());
        }
    }
    assert_eq!(node.calls(), vec![]);
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_with_a_detail() {
    let node = FakeNode::default();
    let bad_utf8 = [0x0a, 2, 0xff, 0xfe];
    let cut = [0x0a, 200, b'x'];
    for call in CALLS {
        let path = format!("/raftqueue.v1.Queue/{call}");
        for content in [&bad_utf8[..], &cut, &[0xff; 64]] {
            let status = raw(&node, &path, frame(content.len() as u32, content)).await;
            let invalid = (Code::InvalidArgument, v1::Reason::InvalidArgument);
            assert_eq!(refused(&status), invalid, "{call} {content:?}");
        }
        let broken_off = raw(&node, &path, frame(100, b"only the beginning")).await;
        assert_eq!(refused(&broken_off).1, v1::Reason::InvalidArgument, "{call}");
        let no_flag = raw(&node, &path, Bytes::from_static(&[9; 16])).await;
        assert_eq!(refused(&no_flag).1, v1::Reason::InvalidArgument, "{call}");
    }
    let empty = raw(&node, "/raftqueue.v1.Queue/CreateTopic", Bytes::new()).await;
    assert_eq!(refused(&empty).1, v1::Reason::InvalidArgument, "no frame at all");
    assert_eq!(node.calls(), vec![]);
}

#[tokio::test]
async fn what_came_before_a_refusal_on_a_stream_is_answered() {
    let node = FakeNode::default();
    let create = v1::CreateTopicRequest { topic: "orders".into(), ..Default::default() };
    assert_eq!(raw(&node, "/raftqueue.v1.Queue/CreateTopic", message(&create)).await.code(), Code::Ok);
    let start = v1::ConsumeStart { topic: "orders".into(), ..Default::default() };
    let start = message(&v1::ConsumeRequest { step: Some(Step::Start(start)) });
    let status =
        raw(&node, "/raftqueue.v1.Queue/Consume", [start, frame(1 << 30, b"")].concat().into()).await;
    assert_eq!(refused(&status), (Code::OutOfRange, v1::Reason::TooLarge));
}

#[tokio::test]
async fn fields_of_a_newer_contract_are_passed_over() {
    let node = FakeNode::default();
    let mut content = v1::CreateTopicRequest { topic: "orders".into(), ..Default::default() }.encode_to_vec();
    content.extend([0xf8, 0xff, 0x03, 1]);
    let length = u32::try_from(content.len()).expect("short");
    assert_eq!(raw(&node, "/raftqueue.v1.Queue/CreateTopic", frame(length, &content)).await.code(), Code::Ok);
}

#[tokio::test]
async fn unknown_methods_and_services_are_unimplemented() {
    let node = FakeNode::default();
    let unimplemented = (Code::Unimplemented, v1::Reason::InvalidArgument);
    for path in [
        "/raftqueue.v1.Queue/Enqueue",
        "/raftqueue.v1.Admin/Enqueue",
        "/raftqueue.v2.Queue/Publish",
        "/grpc.health.v1.Health/Ask",
        "/nothing",
    ] {
        let status = raw(&node, path, frame(0, b"")).await;
        assert_eq!(refused(&status), unimplemented, "{path}");
        assert!(!status.message().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn compression_is_refused_and_says_what_is_taken_instead() {
    let node = FakeNode::default();
    for call in CALLS {
        let path = format!("/raftqueue.v1.Queue/{call}");
        let status = raw_with(&node, &path, frame(0, b""), &[("grpc-encoding", "gzip")]).await;
        assert_eq!(refused(&status), (Code::Unimplemented, v1::Reason::InvalidArgument), "{call}");
        assert!(status.message().contains("gzip"), "{call}: {}", status.message());
        let taken = status.metadata().get("grpc-accept-encoding").expect("it is named");
        assert_eq!(taken, "identity", "{call}");
    }
}

#[test]
fn an_own_refusal_is_not_touched() {
    let own = errors::into_status(&crate::api::limits::invalid("mend it"), Some("10.0.0.1:7420"));
    assert!(super::explanation(&own).is_none());
    assert!(super::explanation(&Status::cancelled("the client has gone")).is_none());
}
