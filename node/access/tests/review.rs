//! Tokens of ServiceAccounts, with an API server that plays its part over TLS.

#[path = "review/server.rs"]
mod server;

use raftqueue_access::{Access, ApiServer, Credentials, Files, ReviewError, Unauthenticated};
use serde_json::json;
use server::{Answer, Server, token};
use std::time::{Duration, SystemTime};

const POLICY: &str = r#"
kubernetes: {audience: raftqueue}
roles:
- {name: shop, rules: [{topics: [orders], may: [publish]}]}
grants:
- {role: shop, to: ["serviceaccount:shop/*"]}
"#;

/// Seconds since the epoch at which tokens are shown.
const NOW_S: u64 = 1_950_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Access in a pod of this API server.
fn access(server: &Server) -> Access {
    let folder = server.folder();
    std::fs::write(folder.join("policy.yaml"), POLICY).expect("it can be written");
    Access::load(&Files { policy: folder.join("policy.yaml"), tokens: None }, Some(server.api()))
        .expect("it is right")
}

async fn show(access: &Access, token: &str, now_s: u64) -> Result<String, Unauthenticated> {
    let credentials = Credentials { bearer: Some(token), ..Credentials::default() };
    access.authenticate(credentials, at(now_s)).await.map(|caller| caller.to_string())
}

async fn refusal(access: &Access, token: &str, now_s: u64) -> String {
    show(access, token, now_s).await.expect_err("it is refused").to_string()
}

/// A token of the worker of the shop, until this time.
fn worker(expires_s: u64) -> String {
    token("system:serviceaccount:shop:worker", &["raftqueue"], expires_s)
}

#[tokio::test]
async fn a_token_of_a_service_account_names_its_caller_and_is_asked_about_once_a_minute() {
    let server = Server::start(Answer::Yes).await;
    let access = access(&server);
    let token = worker(NOW_S + 3_600);
    let caller = access
        .authenticate(Credentials { bearer: Some(&token), ..Credentials::default() }, at(NOW_S))
        .await
        .expect("it counts");
    assert_eq!(caller.to_string(), "serviceaccount:shop/worker");
    assert_eq!(caller.groups(), ["system:serviceaccounts", "system:serviceaccounts:shop"]);
    assert_eq!(caller.expires(), Some(at(NOW_S + 3_600)));
    for passed in [1, 30, 59] {
        show(&access, &token, NOW_S + passed).await.expect("it counts");
    }
    assert_eq!(server.asked().len(), 1);
    show(&access, &token, NOW_S + 60).await.expect("it counts");
    let asked = server.asked();
    assert_eq!(asked.len(), 2, "the answer was over");
    let (path, authorization, question) = &asked[0];
    assert_eq!(path, "/apis/authentication.k8s.io/v1/tokenreviews");
    assert_eq!(authorization, &format!("Bearer {}", server.own_token()));
    assert_eq!(question["kind"], "TokenReview");
    assert_eq!(question["spec"], json!({"token": token, "audiences": ["raftqueue"]}));
}

#[tokio::test]
async fn calls_at_once_with_one_token_share_one_question() {
    let server = Server::start(Answer::Yes).await;
    let access = access(&server);
    let token = worker(NOW_S + 3_600);
    server.hold();
    let calls = (0..20).map(|_| show(&access, &token, NOW_S));
    let all = async {
        let mut calls: Vec<_> = calls.map(Box::pin).collect();
        let mut answers = Vec::new();
        // All of them are begun before the first is answered.
        for call in &mut calls {
            tokio::select! { biased; answer = call => answers.push(answer), () = std::future::ready(()) => {} }
        }
        assert!(answers.is_empty(), "the API server holds its answer");
        server.release();
        for call in calls {
            answers.push(call.await);
        }
        answers
    };
    let answers = all.await;
    assert!(
        answers.iter().all(|answer| answer.as_deref() == Ok("serviceaccount:shop/worker")),
        "{answers:?}"
    );
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_its_question_to_the_next() {
    let server = Server::start(Answer::Yes).await;
    let access = access(&server);
    let token = worker(NOW_S + 3_600);
    server.hold();
    let given_up = Box::pin(show(&access, &token, NOW_S));
    tokio::select! { biased; _ = given_up => panic!("it is held"), () = server.was_asked() => {} }
    server.release();
    assert_eq!(show(&access, &token, NOW_S).await.as_deref(), Ok("serviceaccount:shop/worker"));
}

#[tokio::test]
async fn a_refusal_says_why_and_is_kept_for_five_seconds() {
    let server = Server::start(Answer::No("token has been invalidated")).await;
    let access = access(&server);
    let token = worker(NOW_S + 3_600);
    for passed in [0, 4] {
        let said = refusal(&access, &token, NOW_S + passed).await;
        assert_eq!(said, "Kubernetes does not accept the token: token has been invalidated");
    }
    assert_eq!(server.asked().len(), 1);
    server.answer(Answer::Yes);
    assert!(show(&access, &token, NOW_S + 5).await.is_ok());
}

#[tokio::test]
async fn what_cannot_count_is_refused_without_a_question() {
    let server = Server::start(Answer::Yes).await;
    let access = access(&server);
    let for_others =
        token("system:serviceaccount:shop:worker", &["https://kubernetes.default.svc"], NOW_S + 60);
    let over = worker(NOW_S - 300);
    for (token, said) in [
        (for_others.as_str(), "the token is made for `https://kubernetes.default.svc`, not for `raftqueue`"),
        (over.as_str(), "the token expired 5 minutes ago"),
        ("a.b.c", "the token is no JWT"),
        ("abc", "no static tokens count here"),
    ] {
        let told = refusal(&access, token, NOW_S).await;
        assert!(told.starts_with(said), "{told}");
    }
    assert_eq!(server.asked().len(), 0);
}

#[tokio::test]
async fn what_the_api_server_answers_is_said_in_words() {
    let server = Server::start(Answer::Yes).await;
    let access = access(&server);
    let yes = |user: &str, audiences: &[&str]| {
        Answer::Raw(
            201,
            json!({"status": {"authenticated": true, "user": {"username": user}, "audiences": audiences}})
                .to_string(),
        )
    };
    let cases = [
        (
            Answer::Raw(403, "{}".into()),
            "the API server refuses TokenReviews of this pod: grant ClusterRole system:auth-delegator to its ServiceAccount, \
             `kubectl create clusterrolebinding raftqueue-queues-demo --clusterrole=system:auth-delegator \
             --serviceaccount=queues:demo`",
            true,
        ),
        (
            Answer::Raw(401, "{}".into()),
            "the API server cannot be asked about the token: it does not accept the token of this pod",
            true,
        ),
        (
            Answer::Raw(500, "{}".into()),
            "the API server cannot be asked about the token: it answered 500 Internal",
            true,
        ),
        (
            Answer::Raw(302, String::new()),
            "the API server cannot be asked about the token: it answered 302 Found",
            true,
        ),
        (
            Answer::Raw(201, "what".into()),
            "the API server cannot be asked about the token: its answer: expected value",
            true,
        ),
        (
            Answer::Raw(201, "x".repeat(300 << 10)),
            "the API server cannot be asked about the token: its answer: length limit",
            true,
        ),
        (Answer::Cut, "the API server cannot be asked about the token: its connection: ", true),
        (Answer::Raw(201, "{}".into()), "Kubernetes does not accept the token", false),
        (
            yes("system:serviceaccount:shop:worker", &[]),
            "the token is made for nobody, not for `raftqueue`",
            false,
        ),
        (
            yes("system:serviceaccount:shop:worker", &["other"]),
            "the token is made for `other`, not for `raftqueue`",
            false,
        ),
        (yes("jane", &["raftqueue"]), "the token is that of `jane`, and only ServiceAccounts count", false),
        (yes("", &["raftqueue"]), "the token is that of ``, and only ServiceAccounts count", false),
    ];
    for (n, (answer, said, is_temporary)) in cases.into_iter().enumerate() {
        server.answer(answer);
        let token = worker(NOW_S + 600 + n as u64);
        let error = show(&access, &token, NOW_S).await.expect_err(said);
        assert!(error.to_string().starts_with(said), "{error}\n  wanted: {said}");
        assert_eq!(error.is_temporary(), is_temporary, "{error}");
    }
}

#[tokio::test]
async fn an_api_server_that_is_away_or_silent_or_another_is_told_and_asked_again_later() {
    let mut server = Server::start(Answer::Yes).await;
    let access = access(&server);
    let token = worker(NOW_S + 600);
    server.hold();
    let said = refusal(&access, &token, NOW_S).await;
    assert_eq!(said, "the API server cannot be asked about the token: it did not answer within 2 seconds");
    server.release();
    assert_eq!(refusal(&access, &token, NOW_S).await, said, "for a second nobody asks again");
    assert!(show(&access, &token, NOW_S + 1).await.is_ok());

    let other = Server::start(Answer::Yes).await;
    let files = Files { policy: server.folder().join("policy.yaml"), tokens: None };
    let told = async |api: ApiServer| {
        let access = Access::load(&files, Some(api)).expect("it is right");
        let error = show(&access, &token, NOW_S).await.expect_err("it cannot be asked");
        assert!(matches!(error, Unauthenticated::Review(ReviewError::Unavailable(_))), "{error:?}");
        error.to_string()
    };
    let wrong_ca = told(ApiServer { ca_file: other.api().ca_file, ..server.api() }).await;
    assert!(
        wrong_ca.contains("no connection to 127.0.0.1:") && wrong_ca.contains("certificate"),
        "{wrong_ca}"
    );
    let wrong_name = told(ApiServer { host: "localhost".into(), ..server.api() }).await;
    assert!(
        wrong_name.contains("no connection to localhost:") && wrong_name.contains("certificate"),
        "{wrong_name}"
    );
    let no_token = told(ApiServer { token_file: "/nowhere".into(), ..server.api() }).await;
    assert!(no_token.contains("/nowhere: it cannot be read: No such file"), "{no_token}");
    let no_ca = told(ApiServer { ca_file: server.api().token_file, ..server.api() }).await;
    assert!(no_ca.contains("token: it has no certificate"), "{no_ca}");
    let api = server.api();
    server.stop().await;
    let away = told(api).await;
    assert!(away.contains("no connection to 127.0.0.1:") && away.contains("refused"), "{away}");
}
