//! The console in a real browser: what a person sees, and what a hostile page cannot do. Pictures are left in the folder that the
//! test names.
//!
//! Needs Debian's Chromium; without it the case is shown as ignored.

use libtest_mimic::{Arguments, Completion, Trial};
use raftqueue_tests::process::browser::{self, Browser};
use raftqueue_tests::process::{CALM, Cluster, wait_for};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&";

fn main() -> ExitCode {
    let case = Trial::ignorable_test("a_person_sees_nodes_topics_and_dead_letters_and_redrives_them", || {
        let Some(program) = browser::program() else {
            return Ok(Completion::ignored_with("there is no chromium"));
        };
        a_person_sees_nodes_topics_and_dead_letters_and_redrives_them(&program);
        Ok(Completion::Completed)
    });
    libtest_mimic::run(&Arguments::from_args(), vec![case]).exit_code()
}

fn call(cluster: &Cluster, node: usize, path: &str, request: &Value) -> Value {
    let answer = cluster.patient(node).request("POST", path, request.to_string().as_bytes());
    let answer = answer.expect("an answer");
    assert_eq!(answer.code, 200, "{answer:?}\n{}", cluster.logs());
    answer.body
}

/// Waits until an expression in the page is true.
fn wait(browser: &mut Browser, what: &str, expression: &str) {
    wait_for(what, String::new, || match browser.try_value(expression)? {
        Value::Bool(true) => Ok(()),
        _ => Err(browser.try_value("document.body ? document.body.innerText : ''")?.to_string()),
    });
}

/// Opens a page and waits until it is whole.
fn open(browser: &mut Browser, url: &str) {
    browser.open(url);
    wait(
        browser,
        "the page to be whole",
        &format!("location.href === {url:?} && document.readyState === 'complete'"),
    );
}

/// The port of a page that knows nothing of RaftQueue.
fn foreign_page() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4_096]);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 8\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(format!("{head}<p>a</p>").as_bytes());
        }
    });
    port
}

fn a_person_sees_nodes_topics_and_dead_letters_and_redrives_them(program: &Path) {
    let pictures = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("console");
    std::fs::create_dir_all(&pictures).expect("it can be made");
    let mut cluster = Cluster::new(3).with_operations();
    cluster.set_arguments(&[&CALM[..], &["--console-changes"]].concat());
    cluster.start_all();
    let leader = cluster.leader();
    (0..3).for_each(|node| cluster.wait_ready(node));
    call(&cluster, leader, "/v1/topics", &json!({"topic": HOSTILE, "options": {"attempts_max": 1}}));
    call(&cluster, leader, "/v1/topics", &json!({"topic": "orders"}));
    let path = "/v1/topics/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%22'%26";
    call(
        &cluster,
        leader,
        &format!("{path}/publish"),
        &json!({"messages": [{"body": HOSTILE}, {"body": "second"}]}),
    );
    let taken = call(&cluster, leader, &format!("{path}/receive"), &json!({"messages_max": 1}));
    let nack = json!({"leases": [taken["deliveries"][0]["lease"]], "reason": HOSTILE});
    call(&cluster, leader, &format!("{path}/nack"), &nack);

    // Any node shows all of it.
    let asked = (leader + 1) % 3;
    let base = format!("http://127.0.0.1:{}", cluster.operations_port(asked));
    let mut browser = Browser::start(program);
    open(&mut browser, &format!("{base}/"));
    wait(&mut browser, "all to serve", "document.body.innerText.includes('3 of 3 serve')");
    let text = browser.value("document.body.innerText").as_str().expect("text").to_owned();
    for seen in ["Leader", "orders", HOSTILE, "this one"] {
        assert!(text.contains(seen), "{seen}: {text}");
    }
    browser.picture(&pictures.join("first.png"));

    // It goes on by itself.
    call(&cluster, leader, "/v1/topics/orders/publish", &json!({"messages": [{"body": "a"}, {"body": "b"}]}));
    let ready = "[...document.querySelectorAll('tr')].some(row => row.innerText.startsWith('orders') && row.cells[1].innerText === '2')";
    wait(&mut browser, "the new messages to be seen", ready);

    // With the keyboard, and on a phone in the dark.
    browser.call(
        "Input.dispatchKeyEvent",
        &json!({"type": "keyDown", "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}),
    );
    assert_eq!(
        browser.value("document.activeElement.className"),
        "skip",
        "the first thing that the keyboard reaches"
    );
    let phone = json!({"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true});
    browser.call("Emulation.setDeviceMetricsOverride", &phone);
    let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    browser.call("Emulation.setEmulatedMedia", &dark);
    assert_eq!(
        browser.value("document.documentElement.scrollWidth <= innerWidth"),
        true,
        "nothing hangs over the edge"
    );
    assert_eq!(browser.value("getComputedStyle(document.body).backgroundColor"), "rgb(13, 17, 23)");
    browser.picture(&pictures.join("phone.png"));
    browser.call("Emulation.clearDeviceMetricsOverride", &json!({}));

    // A topic's page: what was published is text, and a change is asked about and done.
    let link = browser
        .value("[...document.querySelectorAll('td a, th a')].find(a => a.innerText.startsWith('<img')).href");
    let url = link.as_str().expect("a link").to_owned();
    open(&mut browser, &url);
    // Its name, its body and the reason.
    let seen = format!("document.body.innerText.split({}).length > 3", Value::from(HOSTILE));
    wait(&mut browser, "all of the topic", &seen);
    wait(&mut browser, "the button", "!!document.querySelector('button[data-post$=\"/redrive\"]')");
    browser.picture(&pictures.join("topic.png"));
    assert!(browser.questions.is_empty(), "a page that was published ran: {:?}", browser.questions);
    browser.value("document.querySelector('button[data-post$=\"/redrive\"]').click()");
    wait(
        &mut browser,
        "the dead one to be ready",
        "document.querySelectorAll('main .tile')[3].innerText.includes('0')",
    );
    assert_eq!(browser.questions.len(), 1, "{:?}", browser.questions);
    wait(
        &mut browser,
        "it to be said",
        "document.getElementById('done').innerText.includes('Done: 1 messages')",
    );

    // A page of another origin cannot change anything: see below that the messages are there.
    open(&mut browser, &format!("http://127.0.0.1:{}/", foreign_page()));
    let purge = format!(
        "fetch('{base}/topics/orders/purge', {{method: 'POST', headers: {{'content-type': 'application/json'}}, body: '{{}}'}}) \
         .then(answer => answer.status, error => String(error))"
    );
    browser.value(&purge);
    let plain = purge
        .replace("application/json", "text/plain")
        .replace("method: 'POST'", "method: 'POST', mode: 'no-cors'");
    browser.value(&plain);

    // Without JavaScript the tables are there, and nothing was purged.
    browser.call("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    browser.open(&format!("{base}/topics/orders"));
    let page = wait_for("the page without scripts", String::new, || {
        let found = browser.try_call("DOM.getDocument", &json!({"depth": 0}))?;
        let html = browser.try_call("DOM.getOuterHTML", &json!({"nodeId": found["root"]["nodeId"]}))?;
        let html = html["outerHTML"].as_str().unwrap_or_default().to_owned();
        if html.contains("Next to be taken") { Ok(html) } else { Err(html) }
    });
    assert!(page.contains("<code>a</code>") && page.contains("<code>b</code>"), "{page}");

    // When nobody leads it says so.
    browser.call("Emulation.setScriptExecutionDisabled", &json!({"value": false}));
    open(&mut browser, &format!("{base}/"));
    let third = (0..3).find(|node| ![leader, asked].contains(node)).expect("there are three");
    cluster.kill(leader);
    cluster.kill(third);
    wait(&mut browser, "the loss to be seen", "document.body.innerText.includes('no leader answers')");
    browser.picture(&pictures.join("no-quorum.png"));
    assert_eq!(browser.questions.len(), 1, "{:?}", browser.questions);
    println!("pictures: {}", pictures.display());
}
