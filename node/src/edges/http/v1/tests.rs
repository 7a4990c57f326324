//! The full JSON API over a real socket, held against its description.

use super::openapi::operations;
use crate::api::{Failure, Reason};
use crate::fake::{FakeNode, Served};
use crate::wire::errors;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends a request and returns the code, the head and the body.
async fn send(served: &Served, method: &str, path: &str, body: &str) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(served.address).await.expect("it listens");
    let length = body.len();
    let method = method.to_uppercase();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    (
        code,
        head.to_lowercase(),
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")),
    )
}

/// A node with a topic of five messages.
async fn with_topic() -> Served {
    let served = Served::start(FakeNode::default()).await;
    assert_eq!(send(&served, "post", "/v1/topics", r#"{"topic": "orders"}"#).await.0, 200);
    let messages: Vec<Value> = (0..5).map(|number| json!({"body": number.to_string()})).collect();
    let publish = json!({"messages": messages}).to_string();
    assert_eq!(send(&served, "post", "/v1/topics/orders/publish", &publish).await.0, 200);
    served
}

/// The fields that a schema of the file has, and those that are required.
fn fields(file: &Value, schema: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let schema = match schema["$ref"].as_str() {
        Some(name) => file.pointer(name.trim_start_matches('#')).expect("what is named is there"),
        None => schema,
    };
    let properties = schema["properties"].as_object().map(|fields| fields.keys().cloned().collect());
    let required = schema["required"].as_array().map(|names| {
        names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect::<BTreeSet<_>>()
    });
    (properties.unwrap_or_default(), required.unwrap_or_default())
}

#[tokio::test]
async fn every_route_of_the_file_answers_with_the_fields_that_it_says() {
    let file: Value = serde_json::from_str(raftqueue_proto::OPENAPI).expect("the file is JSON");
    let mut asked = 0;
    for (path, methods) in file["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let served = with_topic().await;
            let received = send(&served, "post", "/v1/topics/orders/receive", "").await.2;
            let lease = received["deliveries"][0]["lease"].clone();
            let session = send(&served, "post", "/v1/sessions", "").await.2;
            let path_sent = path
                .replace("{topic}", "orders")
                .replace("{session}", session["session"].as_str().expect("a session"));
            let body = match path.rsplit('/').next().expect("a last part") {
                "topics" if method == "post" => json!({"topic": "other"}),
                "publish" => json!({"messages": [{"body": "x"}]}),
                "ack" | "nack" | "extend" | "release" => json!({"leases": [lease]}),
                "add-learner" | "promote" | "remove" => json!({"nodes": ["n4"]}),
                "replace" => json!({"old": "n1", "new": "n4"}),
                "can-i" => json!({"permission": "publish"}),
                _ => json!({}),
            };
            let body = if method == "post" { body.to_string() } else { String::new() };
            let (code, _, answer) = send(&served, method, &path_sent, &body).await;
            assert_eq!(code, 200, "{method} {path_sent}: {answer}");
            let answer: BTreeSet<String> = answer.as_object().expect("an object").keys().cloned().collect();
            let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
            let (known, required) = fields(&file, schema);
            assert!(answer.is_subset(&known), "{method} {path}: {answer:?} has more than {known:?}");
            assert!(required.is_subset(&answer), "{method} {path}: {answer:?} lacks some of {required:?}");
            // What the file does not know is refused, and what it knows is read.
            if method == "post" {
                let (code, _, refusal) = send(&served, method, &path_sent, r#"{"no_such_field": 1}"#).await;
                assert_eq!((code, &refusal["reason"]), (400, &"INVALID_ARGUMENT".into()), "{method} {path}");
                let request = &operation["requestBody"]["content"]["application/json"]["schema"];
                let (known, required) = fields(&file, request);
                for field in &required {
                    let mut body: Value = serde_json::from_str(&body).expect("an object");
                    for nothing in [Some(Value::Null), None] {
                        body.as_object_mut().expect("an object").remove(field);
                        body.as_object_mut()
                            .expect("an object")
                            .extend(nothing.map(|null| (field.clone(), null)));
                        let (code, ..) = send(&served, method, &path_sent, &body.to_string()).await;
                        assert_eq!(code, 400, "{method} {path} without {field}");
                    }
                }
                // What may be left out may be null.
                let mut with_nulls: Value = serde_json::from_str(&body).expect("an object");
                let nulls = known.difference(&required).map(|field| (field.clone(), Value::Null));
                with_nulls.as_object_mut().expect("an object").extend(nulls);
                let (code, _, answer) = send(&served, method, &path_sent, &with_nulls.to_string()).await;
                let exists = (409, &"TOPIC_EXISTS".into());
                assert!(
                    code == 200 || (code, &answer["reason"]) == exists,
                    "{method} {path} {with_nulls}: {answer}"
                );
                for field in known {
                    let body = json!({&field: {"of": "no type that any field has"}}).to_string();
                    let (code, _, refusal) = send(&served, method, &path_sent, &body).await;
                    let text = refusal["text"].as_str().expect("a text");
                    assert_eq!(code, 400, "{method} {path} {field}");
                    assert!(!text.contains(&format!("unknown field `{field}`")), "{method} {path}: {text}");
                }
            }
            asked += 1;
        }
    }
    assert_eq!(asked, operations().len());
}

#[tokio::test]
async fn a_message_goes_in_and_comes_out_with_everything_that_it_has() {
    let served = Served::start(FakeNode::default()).await;
    send(&served, "post", "/v1/topics", r#"{"topic": "größe", "options": {"attempts_max": 1}}"#).await;
    let path = "/v1/topics/gr%C3%B6%C3%9Fe";
    let messages = json!({"messages": [
        {"body": "ä\n", "key": "k", "headers": [{"name": "h", "value": "v"}, {"name": "b", "value_base64": "/w=="}]},
        {"body_base64": "/wA="},
    ]});
    let (code, _, published) = send(&served, "post", &format!("{path}/publish"), &messages.to_string()).await;
    assert_eq!((code, &published["count"], &published["first_offset"]), (200, &2.into(), &0.into()));
    let (_, _, received) = send(&served, "post", &format!("{path}/receive"), r#"{"messages_max": 9}"#).await;
    let [text, binary] = received["deliveries"].as_array().expect("a list").as_slice() else {
        panic!("two messages: {received}")
    };
    assert_eq!((&text["body"], &text["key"]), (&"ä\n".into(), &"k".into()));
    assert_eq!(text["headers"], json!([{"name": "h", "value": "v"}, {"name": "b", "value_base64": "/w=="}]));
    assert_eq!((&binary["body_base64"], binary.get("body")), (&"/wA=".into(), None));
    let ack = json!({"leases": [text["lease"]]}).to_string();
    assert_eq!(send(&served, "post", &format!("{path}/ack"), &ack).await.2, json!({"results": ["DONE"]}));
    assert_eq!(send(&served, "post", &format!("{path}/ack"), &ack).await.2, json!({"results": ["GONE"]}));
    let nack = json!({"leases": [binary["lease"]], "reason": "why"}).to_string();
    assert_eq!(send(&served, "post", &format!("{path}/nack"), &nack).await.2, json!({"results": ["DONE"]}));
    let (_, _, dead) = send(&served, "post", &format!("{path}/peek"), r#"{"state": "dead"}"#).await;
    assert_eq!(
        (&dead["deliveries"][0]["dead_reason"], dead["deliveries"][0].get("lease")),
        (&"why".into(), None)
    );
    let redriven = send(&served, "post", &format!("{path}/redrive-dead"), "").await.2;
    assert_eq!(redriven, json!({"count": 1}));
}

#[tokio::test]
async fn a_publish_inside_a_session_is_stored_once() {
    let served = with_topic().await;
    let session = send(&served, "post", "/v1/sessions", "").await.2["session"].clone();
    let publish =
        json!({"session": {"session": session, "sequence": 1}, "messages": [{"body": "x"}]}).to_string();
    for _ in 0..2 {
        let (code, _, published) = send(&served, "post", "/v1/topics/orders/publish", &publish).await;
        assert_eq!((code, &published["first_offset"]), (200, &5.into()));
    }
    assert_eq!(send(&served, "get", "/v1/topics/orders", "").await.2["next_offset"], 6);
}

#[tokio::test]
async fn topics_come_in_pages() {
    let served = with_topic().await;
    send(&served, "post", "/v1/topics", r#"{"topic": "second"}"#).await;
    let first = send(&served, "get", "/v1/topics?topics_max=1", "").await.2;
    assert_eq!((&first["topics"][0]["name"], &first["more"]), (&"orders".into(), &true.into()));
    let after = &first["topics"][0]["id"];
    let second = send(&served, "get", &format!("/v1/topics?topics_max=1&after={after}"), "").await.2;
    assert_eq!((&second["topics"][0]["name"], &second["more"]), (&"second".into(), &false.into()));
    for query in ["topics_max=x", "topics_max=-1", "after", "limit=3"] {
        let (code, _, refused) = send(&served, "get", &format!("/v1/topics?{query}"), "").await;
        assert_eq!((code, &refused["reason"]), (400, &"INVALID_ARGUMENT".into()), "{query}");
    }
}

#[tokio::test]
async fn rule_8_1_every_failure_says_why_and_whether_it_may_have_happened() {
    let served = with_topic().await;
    for failure in [
        Failure::not_done(Reason::TopicNotFound, "no such topic"),
        Failure::not_done(Reason::Overloaded, "later").retry_after_ms(70),
        Failure::unknown(Reason::ForwardingBroken, "who knows"),
    ] {
        served.node.fail_next(failure.clone());
        let (code, head, body) = send(&served, "get", "/v1/topics/orders", "").await;
        assert_eq!(code, errors::codes(&failure).http);
        let (reason, outcome) = (errors::reason_name(failure.reason), errors::outcome_name(failure.outcome));
        assert_eq!((&body["reason"], &body["outcome"]), (&reason.into(), &outcome.into()));
        assert_eq!(body["text"], failure.text);
        assert_eq!(body["retry_after_ms"], json!(errors::retry_after_ms(&failure)));
        assert!(head.contains(&format!("raftqueue-outcome: {}", outcome.to_lowercase())), "{head}");
    }
}

#[tokio::test]
async fn what_is_malformed_is_refused_and_never_reaches_the_node() {
    let served = with_topic().await;
    let before = served.node.calls().len();
    for (path, body, expected) in [
        ("/v1/topics", "{", "body: EOF"),
        ("/v1/topics", "[]", "body: "),
        ("/v1/topics", r#"{"topic": "t", "request_id": "xyz"}"#, "request_id: must be hexadecimal"),
        ("/v1/topics/orders/publish", r#"{"messages": [{}]}"#, "body: give it as text"),
        ("/v1/topics/orders/publish", r#"{"messages": [{"body": "a", "body_base64": "YQ=="}]}"#, "not both"),
        ("/v1/topics/orders/publish", r#"{"messages": [{"body_base64": "YQ"}]}"#, "not base64"),
        ("/v1/topics/orders/publish", r#"{"messages": [{"body": "a", "body_crc32c": 1}]}"#, "CRC32C"),
        ("/v1/topics/orders/ack", r#"{"leases": ["zz"]}"#, "leases: must be hexadecimal"),
        ("/v1/topics/orders/peek", r#"{"state": "gone"}"#, "unknown variant"),
        ("/v1/topics/orders/receive", r#"{"lease": 3}"#, "unknown field `lease`"),
        ("/v1/topics/%FF/receive", "{}", "not percent-encoded UTF-8"),
    ] {
        let (code, head, refused) = send(&served, "post", path, body).await;
        assert_eq!((code, &refused["reason"]), (400, &"INVALID_ARGUMENT".into()), "{path} {body}");
        let text = refused["text"].as_str().expect("a text");
        assert!(text.contains(expected), "{path} {body}: {text}");
        assert!(head.contains("raftqueue-outcome: not_done"), "{head}");
    }
    // Whatever is nested deeply is refused, in every call and wherever it stands, closed or not.
    let open = "[".repeat(1 << 20);
    let nested = |count: usize| format!("{}{}", "[".repeat(count), "]".repeat(count));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    let mut deep = vec![open.clone(), nested(1 << 19)];
    for inside in [&open, &nested(65), &nested(100_000), &objects] {
        deep.extend(
            ["topic", "messages", "leases", "unknown"].map(|field| format!(r#"{{"{field}": {inside}}}"#)),
        );
        deep.push(format!(r#"{{"messages": [{{"body": {inside}}}]}}"#));
        deep.push(format!(r#"{{"options": {inside}}}"#));
    }
    let all = operations().into_iter().filter(|operation| operation.method == "post");
    let paths: Vec<String> = all.map(|operation| operation.path.replace("{topic}", "orders")).collect();
    for (number, body) in deep.iter().enumerate() {
        for path in &paths {
            let (code, _, refused) = send(&served, "post", path, body).await;
            let said = (code, &refused["reason"], &refused["outcome"]);
            assert_eq!(said, (400, &"INVALID_ARGUMENT".into(), &"NOT_DONE".into()), "{path}, body {number}");
        }
    }
    let (code, _, refused) = send(&served, "get", "/v1/nothing", "").await;
    assert_eq!(code, 404);
    assert!(refused["text"].as_str().expect("a text").contains("/v1/openapi.json"));
    assert_eq!(served.node.calls().len(), before, "nobody was asked");
    let (code, _, file) = send(&served, "get", "/v1/openapi.json", "").await;
    assert_eq!((code, &file["openapi"]), (200, &"3.0.3".into()));
}

#[tokio::test]
async fn a_method_that_an_address_does_not_have_is_told_those_that_it_has() {
    let served = with_topic().await;
    let before = served.node.calls().len();
    for (method, path, allowed) in [
        ("put", "/v1/topics", "GET,HEAD,POST"),
        ("get", "/v1/topics/orders/ack", "POST"),
        ("post", "/v1/topics/orders", "DELETE,GET,HEAD,PATCH"),
        ("delete", "/v1/status", "GET,HEAD"),
    ] {
        let (code, head, refused) = send(&served, method, path, "").await;
        assert_eq!((code, &refused["reason"]), (405, &"INVALID_ARGUMENT".into()), "{method} {path}");
        let allow = head.lines().find_map(|line| line.strip_prefix("allow: ")).expect("it says which");
        let mut methods: Vec<String> = allow.split(',').map(|method| method.trim().to_uppercase()).collect();
        methods.sort();
        assert_eq!(methods.join(","), allowed, "{method} {path}");
    }
    assert_eq!(served.node.calls().len(), before, "nobody was asked");
}

#[tokio::test]
async fn what_is_null_is_left_out_wherever_it_may_be() {
    let served = with_topic().await;
    let create = r#"{"topic": "other", "options": null, "request_id": null}"#;
    assert_eq!(send(&served, "post", "/v1/topics", create).await.0, 200);
    let options = r#"{"attempts_max": null, "messages_max": null, "bytes_max": null, "ttl_ms": null}"#;
    let create = format!(r#"{{"topic": "third", "options": {options}}}"#);
    assert_eq!(send(&served, "post", "/v1/topics", &create).await.0, 200);
    let header = r#"{"name": "h", "value": null, "value_base64": "/w=="}"#;
    let message = format!(
        r#"{{"body": "x", "body_base64": null, "body_crc32c": null, "key": null, "key_base64": null,
            "headers": [{header}], "delay_ms": null, "ttl_ms": null}}"#
    );
    let bare = r#"{"body": "y", "headers": null}"#;
    let publish = format!(r#"{{"session": null, "messages": [{message}, {bare}]}}"#);
    let (code, _, answer) = send(&served, "post", "/v1/topics/orders/publish", &publish).await;
    assert_eq!((code, &answer["count"]), (200, &2.into()), "{answer}");
}
