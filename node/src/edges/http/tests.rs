//! The simple API over a real socket, byte for byte.

use crate::api::{
    Failure, LeaseId, LocalStatus, MessageId, NewMessage, Outcome, Publish, Reason, Request, Role, Settle,
    Settlement,
};
use crate::edges::gate::Call;
use crate::edges::service::Service;
use crate::fake::{FakeNode, Served, leading};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A response, taken apart.
struct Got {
    code: u16,
    head: String,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name).map(|(_, v)| v))
    }
}

/// Sends one request, byte for byte, and reads what comes until the connection closes.
async fn exchange(served: &Served, request: &[u8]) -> Got {
    let mut stream = TcpStream::connect(served.address).await.expect("the node listens");
    stream.write_all(request).await.expect("the node reads");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("the node answers and closes");
    let text = String::from_utf8(bytes).expect("every answer is UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a head has a code");
    Got { code, head: head.to_lowercase(), body: body.to_owned() }
}

async fn send(served: &Served, line: &str, headers: &str, body: &[u8]) -> Got {
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
    );
    exchange(served, &[head.as_bytes(), body].concat()).await
}

async fn started() -> Served {
    Served::start(FakeNode::default()).await
}

/// Sends each request of a script in turn: `METHOD PATH [BODY] => CODE BODY`.
async fn check(served: &Served, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (request, expected) = line.split_once(" => ").expect("a line has an arrow");
        let mut words = request.splitn(3, ' ');
        let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
        let got = send(served, &format!("{method} {path}"), "", words.next().unwrap_or("").as_bytes()).await;
        assert_eq!(format!("{} {}", got.code, got.body).trim_end(), expected, "{request}");
        assert_eq!(got.header("content-type"), Some("application/json"), "{request}");
    }
}

#[tokio::test]
async fn every_row_of_the_contract() {
    let served = started().await;
    let script = r#"
        GET /topic => 200 {"success": true, "topics": []}
        PUT /topic {"topic": "orders"} => 201 {"success": true}
        PUT /topic {"topic": "orders"} => 409 {"success": false}
        PUT /topic {"topic": "größe / 1 %", "unknown": [1, {"x": null}]} => 201 {"success": true}
        PUT /topic {"topic": "a"} => 201 {"success": true}
        GET /topic => 200 {"success": true, "topics": ["orders", "größe / 1 %", "a"]}
        PUT /message {"topic": "a", "message": "[[[[\"", "x": [[[[[[[[[[[[]]]]]]]]]]]]} => 201 {"success": true}
        GET /message/orders => 404 {"success": false}
        GET /message/none => 404 {"success": false}
        PUT /message {"topic": "none", "message": "m"} => 404 {"success": false}
        PUT /message {"topic": "orders", "message": "first"} => 201 {"success": true}
        PUT /message {"message": "a \"b\"\n\u00e4 \ud83d\ude00 \u0000", "topic": "orders"} => 201 {"success": true}
        PUT /message {"topic": "orders", "message": ""} => 201 {"success": true}
        PUT /message {"topic": "größe / 1 %", "message": "m"} => 201 {"success": true}
        GET /message/orders => 200 {"success": true, "message": "first"}
        GET /message/orders => 200 {"success": true, "message": "a \"b\"\nä 😀 \u0000"}
        GET /message/orders => 200 {"success": true, "message": ""}
        GET /message/orders => 404 {"success": false}
        GET /message/gr%C3%B6%C3%9Fe%20%2F%201%20%25 => 200 {"success": true, "message": "m"}
        GET /status => 200 {"role": "Leader", "term": 7}
    "#;
    check(&served, script).await;
}

#[tokio::test]
async fn status_is_the_nodes_own_view_also_without_a_leader() {
    let served = started().await;
    for (role, name) in [(Role::Follower, "Follower"), (Role::Candidate, "Candidate")] {
        served.node.set_status(LocalStatus { role, term: 0, leader: None, ..LocalStatus::default() });
        check(&served, &format!("GET /status => 200 {{\"role\": \"{name}\", \"term\": 0}}")).await;
    }
    assert_eq!(served.node.calls(), vec![], "the queue was not asked");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_not_found_and_take_nothing() {
    let served = started().await;
    let script = r#"
        PUT /topic {"topic": "t"} => 201 {"success": true}
        PUT /message {"topic": "t", "message": "m"} => 201 {"success": true}
        PUT / => 404 {"success": false}
        GET /topics => 404 {"success": false}
        GET /topic/ => 404 {"success": false}
        GET /message => 404 {"success": false}
        GET /message/ => 404 {"success": false}
        GET /message/t/x => 404 {"success": false}
        POST /topic {"topic": "u"} => 404 {"success": false}
        DELETE /topic {"topic": "t"} => 404 {"success": false}
        POST /message {"topic": "t", "message": "m"} => 404 {"success": false}
        PUT /message/t {"topic": "t", "message": "m"} => 404 {"success": false}
        DELETE /message/t => 404 {"success": false}
        OPTIONS /topic => 404 {"success": false}
        PUT /status => 404 {"success": false}
        HEAD /message/t => 404
        HEAD /topic => 404
        GET /message/t => 200 {"success": true, "message": "m"}
    "#;
    check(&served, script).await;
}

#[tokio::test]
async fn a_refusal_says_in_a_header_what_would_be_right() {
    let served = started().await;
    assert_eq!(send(&served, "PUT /topic", "", br#"{"topic": "t"}"#).await.code, 201);
    for (request, body, words) in [
        ("GET /message/t", "", "the topic is there, and no message in it is ready"),
        ("GET /nowhere", "", "no such call: there are /topic, /message, /message/topic and /status"),
        ("POST /topic", "", "/topic takes put and get"),
        ("POST /message", "", "/message takes put"),
        ("POST /message/t", "", "/message/topic takes get"),
        ("POST /status", "", "/status takes get"),
        ("PUT /topic", r#"{"topic": ""}"#, "topic: a name has 1 to 255 bytes"),
        ("PUT /topic", "{", "body: eof while parsing"),
    ] {
        let got = send(&served, request, "", body.as_bytes()).await;
        let said = got.header("raftqueue-message").unwrap_or_default();
        assert!(said.contains(words), "{request} {body}: {said}");
        assert_eq!(got.body, r#"{"success": false}"#, "the body is exactly that of the contract");
    }
    // Whatever is quoted, the header stays short.
    let got = send(&served, "PUT /topic", "", format!("\"{}\"", "ä".repeat(100_000)).as_bytes()).await;
    assert_eq!(got.code, 400);
    assert!(
        got.header("raftqueue-message").is_some_and(|said| (500..2_000).contains(&said.len())),
        "{}",
        got.head.len()
    );
    served.node.fail_next(Failure::not_done(Reason::TopicNotFound, "no topic \"größe\":\n100 %"));
    let got = send(&served, "GET /message/t", "", b"").await;
    assert_eq!(got.header("raftqueue-message"), Some("no topic \"gr%c3%b6%c3%9fe\":%0a100 %25"));
}

#[tokio::test]
async fn whoever_looks_is_told_what_answers_here() {
    let served = started().await;
    let got = send(&served, "GET /", "", b"").await;
    assert_eq!((got.code, got.header("content-type")), (200, Some("application/json")));
    for words in
        [env!("CARGO_PKG_VERSION"), "raftqueue.v1.Queue", "/v1/openapi.json", "PUT /message", "README.md"]
    {
        assert!(got.body.contains(words), "{words}: {}", got.body);
    }
    assert_eq!(send(&served, "HEAD /", "", b"").await.code, 200);
    assert_eq!(served.node.calls(), vec![], "nobody was asked");
}

#[tokio::test]
async fn what_is_malformed_is_refused_and_never_reaches_the_node() {
    let served = started().await;
    let long = "o".repeat(256);
    let mut bodies: Vec<Vec<u8>> = [
        "",
        "x",
        "null",
        "[]",
        "\"t\"",
        "{}",
        "{\"topic\"",
        r#"{"topic": 1}"#,
        r#"{"topic": null}"#,
        r#"{"topic": ""}"#,
        r#"{"topic": "a\u0000b"}"#,
        r#"{"topic": "\ud800"}"#,
        r#"{"topic": "t"} x"#,
        r#"{"topic": ["t"]}"#,
        r#"{"Topic": "t"}"#,
        r#"{"topic": "t", "topic": "u"}"#,
        "{\"topic\": \"a\nb\"}",
    ]
    .iter()
    .map(|body| body.as_bytes().to_vec())
    .collect();
    bodies.push(b"{\"topic\": \"\xff\"}".to_vec());
    bodies.push(b"\xef\xbb\xbf{\"topic\": \"t\"}".to_vec());
    bodies.push(format!(r#"{{"topic": "{long}"}}"#).into_bytes());
    // Nested deeply, closed or not, in fields that are asked for and in those that are skipped.
    let nested =
        |open: &str, count: usize, close: &str| format!("{}{}", open.repeat(count), close.repeat(count));
    for deep in [
        nested("[", 1 << 19, ""),
        nested("[", 65, "]"),
        nested("[", 1 << 18, "]"),
        nested("{\"a\":", 100_000, ""),
        nested("{\"a\":[", 100_000, "]}"),
    ] {
        bodies.push(format!(r#"{{"topic": "t", "x": {deep}}}"#).into_bytes());
        bodies.push(format!(r#"{{"topic": {deep}}}"#).into_bytes());
        bodies.push(deep.into_bytes());
    }
    for body in &bodies {
        let got = send(&served, "PUT /topic", "", body).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]);
        assert_eq!((got.code, got.body.as_str()), (400, r#"{"success": false}"#), "{shown}");
        assert_eq!(got.header("raftqueue-outcome"), Some("not_done"), "{shown}");
    }
    for body in
        [r#"{"topic": "t"}"#, r#"{"topic": "t", "message": 1}"#, r#"{"topic": "t", "message": {"a": 1}}"#]
    {
        assert_eq!(send(&served, "PUT /message", "", body.as_bytes()).await.code, 400, "{body}");
    }
    for path in
        [format!("/message/{long}"), "/message/%ff".into(), "/message/a%00b".into(), "/message/%0A".into()]
    {
        assert_eq!(send(&served, &format!("GET {path}"), "", b"").await.code, 400, "{path}");
    }
    assert_eq!(served.node.calls(), vec![], "nothing of this was a call");
}

#[tokio::test]
async fn the_content_type_of_a_request_is_not_looked_at() {
    let served = started().await;
    for (position, header) in
        ["", "content-type: text/plain\r\n", "content-type: \r\n"].into_iter().enumerate()
    {
        let body = format!(r#"{{"topic": "t{position}"}}"#);
        assert_eq!(send(&served, "PUT /topic", header, body.as_bytes()).await.code, 201, "{header:?}");
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_too_large_and_one_at_it_is_not() {
    let served = started().await;
    assert_eq!(send(&served, "PUT /topic", "", br#"{"topic": "t"}"#).await.code, 201);
    let put = |message: String| format!(r#"{{"topic": "t", "message": "{message}"}}"#).into_bytes();
    let largest = "m".repeat(1 << 20);
    assert_eq!(send(&served, "PUT /message", "", &put(largest.clone())).await.code, 201);
    let escaped = put("\\u0041".repeat(1 << 20));
    assert_eq!(send(&served, "PUT /message", "", &escaped).await.code, 201, "however it is escaped");
    let got = send(&served, "PUT /message", "", &put(largest + "m")).await;
    assert_eq!((got.code, got.body.as_str()), (413, r#"{"success": false}"#));
    assert_eq!(got.header("raftqueue-reason"), Some("too_large"));
    let got = send(&served, "PUT /message", "", &vec![b' '; 10 << 20]).await;
    assert_eq!(got.code, 413, "more than any body could need, refused after it was written in full");
}

#[tokio::test]
async fn every_failure_has_its_code_and_its_headers() {
    let served = started().await;
    let cases = [
        (Reason::InvalidArgument, 400),
        (Reason::TopicNotFound, 404),
        (Reason::TopicExists, 409),
        (Reason::TooLarge, 413),
        (Reason::LimitReached, 429),
        (Reason::Overloaded, 429),
        (Reason::DiskFull, 507),
        (Reason::NoLeader, 503),
        (Reason::NotLeader, 503),
        (Reason::ShuttingDown, 503),
        (Reason::DataUnreadable, 503),
        (Reason::AlreadyDone, 409),
    ];
    let requests = ["PUT /topic", "GET /topic", "PUT /message", "GET /message/t"];
    for (position, (reason, code)) in cases.into_iter().enumerate() {
        let request = requests[position % requests.len()];
        let body = br#"{"topic": "t", "message": "m"}"#;
        served.node.fail_next(Failure::not_done(reason, "text\nof two lines"));
        let got = send(&served, request, "", body).await;
        assert_eq!((got.code, got.body.as_str()), (code, r#"{"success": false}"#), "{reason:?}");
        assert_eq!(got.header("raftqueue-outcome"), Some("not_done"), "{reason:?}");
        assert_eq!(got.header("retry-after").is_some(), code == 429 || code == 507, "{reason:?}");

        served.node.fail_next(Failure::unknown(reason, ""));
        let got = send(&served, request, "", body).await;
        assert_eq!((got.code, got.body.as_str()), (504, r#"{"success": false}"#), "{reason:?}");
        assert_eq!(got.header("raftqueue-outcome"), Some("unknown"), "{reason:?}");
    }
    served.node.fail_next(Failure::not_done(Reason::Overloaded, "").retry_after_ms(1_001));
    let got = send(&served, "GET /topic", "", b"").await;
    assert_eq!(
        (got.header("retry-after"), got.header("raftqueue-retry-after-ms")),
        (Some("2"), Some("1001"))
    );
}

#[tokio::test]
async fn a_message_that_is_no_text_is_given_in_base64_and_marked() {
    let served = started().await;
    let call = |request| served.node.call(Call::own(request, Duration::from_secs(1)));
    send(&served, "PUT /topic", "", br#"{"topic": "t"}"#).await;
    let message = |body: &'static [u8]| NewMessage { body: body.into(), ..NewMessage::default() };
    let messages = vec![message(b"\xff\xfe"), message(b"text")];
    call(Request::Publish(Publish { topic: "t".into(), session: None, messages })).await.expect("published");
    let got = send(&served, "GET /message/t", "", b"").await;
    assert_eq!((got.code, got.body.as_str()), (200, r#"{"success": true, "message": "//4="}"#));
    assert_eq!(got.header("raftqueue-encoding"), Some("base64"));
    let got = send(&served, "GET /message/t", "", b"").await;
    assert_eq!(
        (got.body.as_str(), got.header("raftqueue-encoding")),
        (r#"{"success": true, "message": "text"}"#, None)
    );
}

#[tokio::test]
async fn rule_6_5_a_pop_with_a_request_id_can_be_repeated() {
    let served = started().await;
    let script = r#"
        PUT /topic {"topic": "t"} => 201 {"success": true}
        PUT /message {"topic": "t", "message": "1"} => 201 {"success": true}
        PUT /message {"topic": "t", "message": "2"} => 201 {"success": true}
    "#;
    check(&served, script).await;
    let id = "raftqueue-request-id: 123e4567-e89b-12d3-a456-426614174000\r\n";
    let same = "raftqueue-request-id: 123E4567E89B12D3A456426614174000\r\n";
    for header in [id, same] {
        assert_eq!(
            send(&served, "GET /message/t", header, b"").await.body,
            r#"{"success": true, "message": "1"}"#
        );
    }
    assert_eq!(send(&served, "GET /message/t", "", b"").await.body, r#"{"success": true, "message": "2"}"#);
    for wrong in ["x", "123e4567", "123e4567e89b12d3a4564266141740000", "ö"] {
        let header = format!("raftqueue-request-id: {wrong}\r\n");
        assert_eq!(send(&served, "GET /message/t", &header, b"").await.code, 400, "{wrong}");
    }
}

#[tokio::test]
async fn rule_8_2_a_creation_with_a_request_id_can_be_repeated() {
    let served = started().await;
    let id = "raftqueue-request-id: 00000000000000000000000000000001\r\n";
    for (header, code) in [(id, 201), (id, 201), ("", 409)] {
        assert_eq!(send(&served, "PUT /topic", header, br#"{"topic": "t"}"#).await.code, code);
    }
}

#[tokio::test]
async fn the_deadline_is_900_ms_unless_a_header_says_otherwise() {
    #[derive(Clone)]
    struct Mirror;
    impl Service for Mirror {
        type Driven = std::future::Ready<Result<crate::api::Answer, Failure>>;

        async fn call(&self, call: Call) -> Result<crate::api::Answer, Failure> {
            Err(Failure::not_done(Reason::Overloaded, "")
                .retry_after_ms(u64::try_from(call.deadline.as_millis()).unwrap()))
        }
        fn local_status(&self) -> std::sync::Arc<LocalStatus> {
            std::sync::Arc::default()
        }
    }
    use crate::api::limits::Limits;
    use crate::edges::edge::Edge;
    use tower::ServiceExt;
    let router = super::router(&Edge::new(Mirror, Limits::default()));
    let cases = [("", Some(900)), ("5000", Some(5_000)), ("99999999", Some(600_000)), ("1", Some(1))];
    let refused = ["0", "-1", "1.5", "x", "99999999999999999999"].map(|text| (text, None));
    for (header, expected) in cases.into_iter().chain(refused) {
        let mut request = http::Request::get("/topic");
        if !header.is_empty() {
            request = request.header("raftqueue-deadline-ms", header);
        }
        let request = request.body(axum::body::Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("it cannot fail");
        let seen = response.headers().get("raftqueue-retry-after-ms");
        let seen: Option<u64> = seen.map(|ms| ms.to_str().unwrap().parse().unwrap());
        match expected {
            // A little of it is gone by the time the node is called.
            Some(ms) => {
                assert!(seen.is_some_and(|seen| seen <= ms && seen + 500 >= ms), "{header}: {seen:?}");
            }
            None => assert_eq!(response.status(), 400, "{header}"),
        }
    }
}

#[tokio::test]
async fn a_body_that_never_comes_is_not_proposed_in_time() {
    let served = started().await;
    let head = "PUT /topic HTTP/1.1\r\nhost: node\r\nconnection: close\r\nraftqueue-deadline-ms: 20\r\n";
    let request = format!("{head}content-length: 20\r\n\r\n{{\"topic\"");
    let got = exchange(&served, request.as_bytes()).await;
    assert_eq!((got.code, got.body.as_str()), (503, r#"{"success": false}"#));
    assert_eq!(got.header("raftqueue-outcome"), Some("not_done"));
    assert_eq!(served.node.calls(), vec![]);
}

#[tokio::test]
async fn a_node_that_does_not_lead_names_the_leader() {
    let served = started().await;
    assert_eq!(
        send(&served, "GET /topic", "", b"").await.header("raftqueue-leader"),
        None,
        "it leads itself"
    );
    let leader_address = Some("10.0.0.1:7420".to_owned());
    served.node.set_status(LocalStatus { role: Role::Follower, leader_address, ..leading() });
    for request in ["GET /topic", "GET /message/none", "GET /status"] {
        let got = send(&served, request, "", b"").await;
        assert_eq!(got.header("raftqueue-leader"), Some("10.0.0.1:7420"), "{request}");
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_garbage_ends_only_itself() {
    let served = started().await;
    let two = b"GET /status HTTP/1.1\r\nhost: n\r\n\r\nGET /status HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n";
    let got = exchange(&served, two).await;
    assert_eq!(got.body.matches(r#"{"role": "Leader", "term": 7}"#).count(), 2, "{}", got.body);
    for garbage in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxx",
    ] {
        let mut stream = TcpStream::connect(served.address).await.expect("the node listens");
        stream.write_all(garbage).await.expect("the node reads");
        let mut rest = Vec::new();
        // Whether it answers before it closes is up to the protocol; it must close, and live on.
        let _ = stream.read_to_end(&mut rest).await;
    }
    assert_eq!(send(&served, "GET /status", "", b"").await.code, 200);
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_the_port() {
    let served = started().await;
    let mut idle = TcpStream::connect(served.address).await.expect("the node listens");
    assert_eq!(send(&served, "GET /status", "", b"").await.code, 200);
    let address = served.address;
    let node = served.stop().await;
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    let lease = LeaseId { message: MessageId { generation: 0, topic: 1, offset: 0 }, token: 1 };
    let ack = Request::Settle(Settle {
        topic: "t".into(),
        subscription: String::new(),
        leases: vec![lease],
        settlement: Settlement::Ack,
    });
    let failure =
        node.call(Call::own(ack, Duration::from_secs(1))).await.expect_err("there is no such topic");
    assert_eq!(failure.outcome, Outcome::NotDone, "the node itself lives on");
}

#[tokio::test]
async fn a_compressed_body_is_refused_and_told_how_bodies_are_taken() {
    let served = started().await;
    let gzip = "content-encoding: gzip\r\n";
    for line in ["PUT /topic", "PUT /message", "POST /v1/topics", "POST /v1/topics/orders/publish"] {
        let got = send(&served, line, gzip, b"\x1f\x8b").await;
        assert_eq!((got.code, got.header("accept-encoding")), (415, Some("identity")), "{line}");
        assert_eq!(got.header("raftqueue-outcome"), Some("not_done"), "{line}");
        let is_v1 = line.contains("/v1/");
        assert!(
            if is_v1 { got.body.contains("NOT_DONE") } else { got.body == r#"{"success": false}"# },
            "{line}"
        );
    }
    let plain = "content-encoding: identity\r\n";
    assert_eq!(send(&served, "PUT /topic", plain, br#"{"topic": "orders"}"#).await.code, 201);
    assert_eq!(served.node.calls().len(), 1, "nobody was asked but for the last one");
}

#[tokio::test]
async fn rule_10_2_a_body_for_which_there_is_no_room_is_refused_and_small_ones_are_not() {
    use crate::api::budget::{Budget, Share};
    use crate::api::limits::Limits;
    use crate::edges::edge::Edge;
    use tower::ServiceExt;
    let budget = Budget::new(64 << 20);
    let node = FakeNode::default();
    let router = super::router(&Edge::new(node.clone(), Limits::default()).with_budget(budget.clone()));
    let put = async |path: &str, body: String| {
        let request = http::Request::put(path).header("expect", "100-continue");
        let request = request.body(axum::body::Body::from(body)).expect("a request");
        router.clone().oneshot(request).await.expect("it cannot fail")
    };
    let message = |length: usize| format!(r#"{{"topic": "t", "message": "{}"}}"#, "x".repeat(length));
    assert_eq!(put("/topic", r#"{"topic": "t"}"#.into()).await.status(), 201);
    let calls = node.calls().len();
    let full = [(Share::Replies, 42), (Share::Forwarded, 14)]
        .map(|(share, mib)| budget.charge(share, mib << 20).expect("there is room"));
    let refused = put("/message", message(100_000)).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["raftqueue-reason"], "OVERLOADED");
    assert!(refused.headers().contains_key("raftqueue-retry-after-ms"));
    assert_eq!(node.calls().len(), calls, "nothing of this was a call");
    assert_eq!(put("/message", message(1_000)).await.status(), 201);
    drop(full);
    assert_eq!(put("/message", message(100_000)).await.status(), 201);
    assert_eq!(budget.used(), 0, "everything is given back");
}

#[tokio::test]
async fn rule_10_2_json_holds_what_it_becomes_when_it_is_decoded() {
    use crate::api::budget::{Budget, Share};
    use crate::api::limits::Limits;
    use crate::edges::edge::Edge;
    use tower::ServiceExt;
    let budget = Budget::new(64 << 20);
    let node = FakeNode::default();
    let router = super::router(&Edge::new(node.clone(), Limits::default()).with_budget(budget.clone()));
    let post = async |path: &str, body: &str| {
        let request =
            http::Request::post(path).body(axum::body::Body::from(body.to_owned())).expect("a request");
        router.clone().oneshot(request).await.expect("it cannot fail").status()
    };
    assert_eq!(post("/v1/topics", r#"{"topic": "t"}"#).await, 200);
    // Half a megabyte of text, six of memory.
    let header = r#"{"name":"n"},"#.repeat(63) + r#"{"name":"n"}"#;
    let message = format!(r#"{{"body":"","headers":[{header}]}},"#);
    let batch = format!(r#"{{"messages":[{}{{"body":""}}]}}"#, message.repeat(600));
    let publish = "/v1/topics/t/publish";
    let _replies = budget.charge(Share::Replies, 40 << 20).expect("there is room");
    let forwarded = budget.charge(Share::Forwarded, 12 << 20).expect("there is room");
    assert!(batch.len() < 1 << 20, "there is room for {} bytes", batch.len());
    assert_eq!(post(publish, &batch).await, 429);
    drop(forwarded);
    assert_eq!(post(publish, &batch).await, 200);
    // Where nothing else finds room, what makes room does.
    let left = budget.charge(Share::Settling, (24 << 20) - 10_000).expect("there is room");
    for (call, is_served) in
        [("ack", true), ("release", true), ("nack", true), ("extend", true), ("pop", false)]
    {
        let refused = post(&format!("/v1/topics/t/{call}"), "{}").await == 429;
        assert_eq!(refused, !is_served, "{call}");
    }
    drop(left);
    assert_eq!(budget.used(), 40 << 20, "everything is given back");
    assert_eq!(node.calls().len(), 2, "only what was within the limits became a call");
}

#[test]
fn rule_10_2_of_a_list_that_is_too_long_no_more_is_kept_than_tells_so() {
    let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
    for (count, kept) in [(1, 1), (10, 10), (11, 11), (1_000, 11)] {
        let list: super::v1::AtMost<10, u8> = serde_json::from_str(&list(count)).expect("a list");
        assert_eq!(list.len(), kept);
    }
    serde_json::from_str::<super::v1::AtMost<10, u8>>("[0,").expect_err("no list");
}
