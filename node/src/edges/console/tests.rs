//! The pages as they come, over the router and a node in memory.

use super::*;
use crate::api::{NewMessage, Publish, Settle, Settlement, Take, TakeKind, TopicOptions};
use crate::edges::gate::Call;
use crate::fake::FakeNode;
use tower::ServiceExt;

const HOSTILE: &str = "<script>alert(\"a\")</script>/../?&'";

struct Got {
    code: StatusCode,
    headers: HeaderMap,
    body: String,
}

struct Asked {
    router: Router,
    node: FakeNode,
    edge: Edge<FakeNode>,
}

impl Asked {
    fn new(changes: bool) -> Self {
        let node = FakeNode::default();
        let edge = Edge::new(node.clone(), crate::api::limits::Limits::default());
        let settings = Settings { changes, hosts: Vec::new() };
        let metrics = Arc::new(Metrics::new("node-0"));
        Self { router: router(edge.clone(), metrics, Some(settings), Handle::current()), node, edge }
    }

    async fn send(&self, method: &str, path: &str, named: &[(&'static str, &str)]) -> Got {
        let mut request = http::Request::builder().method(method).uri(path).header("host", "127.0.0.1:7422");
        for (name, value) in named {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(Body::from("{}")).expect("well formed"));
        let response = response.await.expect("a router always answers");
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.expect("it ends");
        Got {
            code: head.status,
            headers: head.headers,
            body: String::from_utf8(bytes.into()).expect("UTF-8"),
        }
    }

    async fn get(&self, path: &str) -> Got {
        self.send("GET", path, &[]).await
    }

    async fn change(&self, path: &str) -> Got {
        let named = [("content-type", "application/json"), ("origin", "http://127.0.0.1:7422")];
        self.send("POST", path, &named).await
    }

    async fn call(&self, request: Request) -> Answer {
        self.edge.call(Call::own(request, DEADLINE)).await.expect("it is done")
    }

    async fn topic(&self, topic: &str, bodies: &[&str]) {
        let options = TopicOptions { attempts_max: Some(1), ..TopicOptions::default() };
        let create = Write::CreateTopic { topic: topic.into(), options, request_id: None };
        self.call(Request::Write(create)).await;
        let message = |body: &&str| NewMessage { body: (*body).to_owned().into(), ..NewMessage::default() };
        let messages = bodies.iter().map(message).collect();
        self.call(Request::Publish(Publish { topic: topic.into(), session: None, messages })).await;
    }

    /// The oldest message is given up.
    async fn let_die(&self, topic: &str, reason: &str) {
        let take = Take {
            topic: topic.into(),
            subscription: String::new(),
            messages_max: 1,
            bytes_max: 1_000,
            wait_ms: 0,
            kind: TakeKind::Receive { lease_ms: None },
        };
        let Answer::Deliveries(taken) = self.call(Request::Take(take)).await else { panic!("one is ready") };
        let message = &taken.messages[0].message;
        let lease = crate::api::LeaseId { message: message.id, token: message.token };
        let settlement = Settlement::Nack { delay_ms: 0, reason: reason.into() };
        let settle =
            Settle { topic: topic.into(), subscription: String::new(), leases: vec![lease], settlement };
        self.call(Request::Settle(settle)).await;
    }
}

#[tokio::test]
async fn the_first_page_shows_nodes_and_topics_and_a_topic_has_its_own() {
    let asked = Asked::new(true);
    assert!(asked.get("/").await.body.contains("There is no topic yet"));
    asked.topic("orders", &["first", "second"]).await;
    asked.let_die("orders", "no such customer").await;
    let page = asked.get("/").await;
    assert_eq!(page.code, StatusCode::OK);
    for text in ["<h2>Nodes</h2>", "href=\"/topics/orders\"", "asked of node-0"] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
    let page = asked.get("/topics/orders").await;
    for text in ["second", "first", "no such customer", "Make them ready again", "Drop everything that waits"]
    {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
    let missing = asked.get("/topics/none").await;
    assert_eq!(missing.code, StatusCode::NOT_FOUND);
    assert!(missing.body.contains("TopicNotFound"), "{}", missing.body);
}

#[tokio::test]
async fn what_clients_name_and_publish_is_shown_as_text() {
    let asked = Asked::new(true);
    asked.topic(HOSTILE, &[HOSTILE, "</code><img src=x onerror=alert(1)>"]).await;
    asked.let_die(HOSTILE, HOSTILE).await;
    let first = asked.get("/").await.body;
    let link = first.split("href=\"/topics/").nth(1).and_then(|rest| rest.split('"').next());
    let topic = asked.get(&format!("/topics/{}", link.expect("a link"))).await;
    assert_eq!(topic.code, StatusCode::OK, "{}", topic.body);
    for page in [&first, &topic.body] {
        assert!(page.contains("&lt;script&gt;alert("), "{page}");
        assert!(!page.contains("<script>alert") && !page.contains("<img"), "{page}");
    }
    let policy = topic.headers.get("content-security-policy").expect("it is there").to_str().expect("text");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
}

#[tokio::test]
async fn a_change_is_done_where_it_is_allowed_and_asked_for_by_a_page_of_this_host() {
    let asked = Asked::new(true);
    asked.topic("orders", &["a", "b", "c"]).await;
    asked.let_die("orders", "bad").await;
    asked.let_die("orders", "bad").await;
    let done = asked.change("/topics/orders/redrive").await;
    assert_eq!((done.code, done.body.as_str()), (StatusCode::OK, "{\"count\":2}"));
    asked.let_die("orders", "bad").await;
    assert_eq!(asked.change("/topics/orders/drop-dead").await.body, "{\"count\":1}");
    assert_eq!(asked.change("/topics/orders/purge").await.body, "{\"count\":2}");
    let none = asked.change("/topics/none/purge").await;
    assert_eq!(none.code, StatusCode::NOT_FOUND);
    assert!(none.body.contains("TopicNotFound"), "{}", none.body);

    for named in [
        &[("content-type", "application/json")][..],
        &[("content-type", "application/json"), ("origin", "http://evil.example")],
        &[("content-type", "text/plain"), ("origin", "http://127.0.0.1:7422")],
    ] {
        let refused = asked.send("POST", "/topics/orders/purge", named).await;
        assert_eq!(refused.code, StatusCode::FORBIDDEN, "{named:?}");
    }

    let shows = Asked::new(false);
    shows.topic("orders", &["a"]).await;
    let refused = shows.change("/topics/orders/purge").await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert!(refused.body.contains("--console-changes"), "{}", refused.body);
    let page = shows.get("/topics/orders").await.body;
    assert!(!page.contains("data-post") && page.contains("only shows"), "{page}");
}

#[tokio::test]
async fn without_a_leader_the_page_says_so() {
    let asked = Asked::new(true);
    for _ in 0..2 {
        asked.node.fail_next(Failure::not_done(Reason::NoLeader, "no leader is known"));
    }
    let page = asked.get("/").await;
    assert_eq!(page.code, StatusCode::OK);
    assert!(page.body.contains("not known: no leader answers"), "{}", page.body);
    assert!(page.body.contains("no leader is known."), "{}", page.body);
}

#[tokio::test]
async fn files_and_pages_say_what_they_are() {
    let asked = Asked::new(true);
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/console/style.css", "text/css; charset=utf-8"),
        ("/console/live.js", "text/javascript; charset=utf-8"),
    ] {
        let got = asked.get(path).await;
        assert_eq!(got.headers.get("content-type").expect("it is there"), kind, "{path}");
        for (name, value) in HEADERS {
            assert_eq!(got.headers.get(&name).expect("it is there"), value, "{path} {name}");
        }
    }
    // There is no second host in the request line either.
    let foreign = asked.send("GET", "/", &[("host", "evil.example")]).await;
    assert_eq!(foreign.code, StatusCode::FORBIDDEN, "two hosts are none");
}
