//! What is in force while files change and break, and who is made of which credentials.

use super::*;
use crate::jwt::tests::{Signer, claims};
use serde_json::json;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Files of a folder of its own.
struct Folder(tempfile::TempDir);

const POLICY: &str = r#"
roles:
- {name: shop, rules: [{topics: [orders], may: [publish]}]}
grants:
- {role: shop, to: ["token:shop", "cert:shop.example"]}
"#;

impl Folder {
    /// One with a policy and a token `secret` of the name `shop`.
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        folder.write("policy.yaml", POLICY);
        folder.write("tokens", &Tokens::line("shop", "secret").expect("it is a name"));
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("it can be written");
    }

    fn files(&self) -> Files {
        Files { policy: self.path("policy.yaml"), tokens: Some(self.path("tokens")) }
    }

    fn load(&self) -> Result<Access, LoadError> {
        Access::load(&self.files(), None)
    }

    /// The policy, with an issuer whose keys are in this file.
    fn with_issuer(&self, jwks: &str) -> String {
        let path = self.path(jwks);
        format!(
            "jwt: [{{issuer: \"https://issuer.example\", audience: raftqueue, jwksFile: {path:?}}}]\n{POLICY}"
        )
    }
}

/// What is known at once: nobody is asked.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits"),
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_950_000_000)
}

fn bearer(token: &str) -> Credentials<'_> {
    Credentials { bearer: Some(token), ..Credentials::default() }
}

/// The caller, or why there is none.
fn who(access: &Access, credentials: Credentials<'_>) -> String {
    match at_once(access.authenticate(credentials, now())) {
        Ok(caller) => caller.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn each_way_to_show_who_one_is_makes_its_caller() {
    let folder = Folder::new();
    let signer = Signer::new(7);
    folder.write("jwks.json", &signer.jwks("a"));
    folder.write("policy.yaml", &folder.with_issuer("jwks.json"));
    let access = folder.load().expect("it is right");
    let jwt = signer.sign(&json!({"alg": "EdDSA", "kid": "a"}), &claims());
    let mut other = claims();
    other["iss"] = json!("https://other.example");
    let stranger = signer.sign(&json!({"alg": "EdDSA", "kid": "a"}), &other);
    let cert = |name| Credentials { certificate: Some(name), ..Credentials::default() };
    let node = Credentials { certificate: Some("node-0.example"), is_node: true, ..Credentials::default() };
    for (credentials, said) in [
        (bearer("secret"), "token:shop"),
        (bearer(&jwt), "jwt:anna"),
        (cert("shop.example"), "cert:shop.example"),
        (node, "node"),
        (Credentials::default(), "calls without credentials are refused here: show a token"),
        (bearer("secre"), "the token is none that is known here"),
        (bearer(""), "the token is none that is known here"),
        (bearer("a.b.c"), "the token is no JWT: "),
        (
            bearer(&stranger),
            "the token was issued by `https://other.example`, whose tokens do not count here",
        ),
        (cert(""), "the client certificate names nobody"),
        // Whoever shows a token is the one that it names, or nobody, whatever the certificate says.
        (Credentials { bearer: Some("secret"), ..node }, "token:shop"),
        (Credentials { bearer: Some("wrong"), ..node }, "the token is none that is known here"),
    ] {
        let told = who(&access, credentials);
        assert!(told.starts_with(said), "{told}\n  wanted: {said}");
    }
    assert!(!format!("{:?}", bearer("secret")).contains("secret"));
    let shop = Caller::named(Means::Token, "shop");
    assert!(access.check(&shop, Permission::Publish, Target::Topic("orders")).is_ok());
    assert!(access.check(&shop, Permission::Publish, Target::Topic("bills")).is_err());
}

#[test]
fn whoever_shows_nothing_is_anonymous_only_where_that_is_said() {
    let folder = Folder::new();
    folder.write("policy.yaml", &format!("anonymous: true\n{POLICY}"));
    let access = folder.load().expect("it is right");
    assert_eq!(who(&access, Credentials::default()), "anonymous");
    assert!(who(&access, bearer("wrong")).starts_with("the token is none"), "a bad token is not nothing");

    let access = Access::load(&Files { tokens: None, ..folder.files() }, None).expect("it is right");
    assert_eq!(
        who(&access, bearer("secret")),
        "no static tokens count here, as there is no tokens file, and the token is no JWT"
    );
}

#[test]
fn the_header_is_a_bearer_or_is_refused() {
    assert_eq!(Credentials::bearer_of(b"Bearer abc"), Ok("abc"));
    assert_eq!(Credentials::bearer_of(b"bearer  abc "), Ok("abc"));
    for (header, said) in [
        (&b"Basic YTpi"[..], "the header `authorization` must be `Bearer TOKEN`: names with passwords"),
        (b"abc", "the header `authorization` must be `Bearer TOKEN`, with a space between them"),
        (b"Bearer ", "the header `authorization` must be `Bearer TOKEN`, with a space between them"),
        (b"\xff\xfe x", "the header `authorization` must be `Bearer TOKEN`, in ASCII"),
        (b"", "the header `authorization` must be `Bearer TOKEN`"),
    ] {
        let error = Credentials::bearer_of(header).expect_err(said).to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn what_is_broken_at_the_start_is_told_with_its_file() {
    let cases: [(&str, &str, &str); 4] = [
        ("policy.yaml", "rolls: []", "policy.yaml: line 1: there is no `rolls` here"),
        ("tokens", "shop", "tokens: line 1: a line must be NAME sha256:HASH"),
        ("policy.yaml", "kubernetes: {audience: q}\n", "policy.yaml: there are no `roles`"),
        ("tokens", "\u{0}", "tokens: line 1: a line must be"),
    ];
    for (file, text, said) in cases {
        let folder = Folder::new();
        folder.write(file, text);
        let error = folder.load().expect_err(said).to_string();
        assert!(error.contains(said), "{error}");
    }
    let folder = Folder::new();
    folder.write("policy.yaml", &folder.with_issuer("jwks.json"));
    let error = folder.load().expect_err("there are no keys").to_string();
    assert!(
        error.contains("policy.yaml: jwksFile ") && error.contains("jwks.json: it cannot be read"),
        "{error}"
    );
    folder.write("policy.yaml", &format!("kubernetes: {{audience: q}}\n{POLICY}"));
    let error = folder.load().expect_err("this is no pod").to_string();
    assert!(error.contains("this node does not run in Kubernetes"), "{error}");
    let nowhere = Files { policy: "/nowhere".into(), tokens: None };
    let error = Access::load(&nowhere, None).expect_err("there is none").to_string();
    assert!(error.starts_with("/nowhere: it cannot be read: No such file"), "{error}");
    let folder = Files { policy: "/".into(), tokens: None };
    assert_eq!(Access::load(&folder, None).expect_err("it is none").to_string(), "/: it is not a file");
}

#[test]
fn what_changed_is_in_force_after_a_look_and_the_epoch_rises() {
    let folder = Folder::new();
    let access = folder.load().expect("it is right");
    let (epoch, before) = (access.epoch(), access.in_force());
    assert_eq!(access.refresh(), Outcome::default(), "nothing changed");
    assert_eq!(access.epoch(), epoch);

    let two =
        format!("{}\n{}", Tokens::line("shop", "new").unwrap(), Tokens::line("shop", "secret").unwrap());
    folder.write("tokens", &two);
    assert!(who(&access, bearer("new")).starts_with("the token is none"), "nobody has looked yet");
    let outcome = access.refresh();
    assert!(outcome.is_reloaded && outcome.broken == 0);
    assert_eq!(outcome.news.len(), 1);
    assert_eq!((outcome.news[0].path.clone(), outcome.news[0].is_broken), (folder.path("tokens"), false));
    assert_eq!(
        (who(&access, bearer("new")).as_str(), who(&access, bearer("secret")).as_str()),
        ("token:shop", "token:shop")
    );
    assert_eq!(access.epoch(), epoch + 1);

    folder.write("policy.yaml", &POLICY.replace("publish", "receive"));
    assert!(access.refresh().is_reloaded);
    let shop = Caller::named(Means::Token, "shop");
    let may = |in_force: &InForce| {
        in_force.decide(&shop, Permission::Publish, Target::Topic("orders")).is_allowed()
    };
    assert!(may(&before) && !may(&access.in_force()), "who holds the old one keeps it");
    assert_eq!((before.epoch(), access.epoch()), (epoch, epoch + 2));
}

#[test]
fn a_file_that_breaks_keeps_what_it_said_in_force_and_is_told_of_once() {
    let folder = Folder::new();
    let access = folder.load().expect("it is right");
    let epoch = access.epoch();
    folder.write("policy.yaml", "rolls: []");
    folder.write("tokens", &Tokens::line("other", "other").unwrap());
    let outcome = access.refresh();
    assert!(outcome.is_reloaded, "the other file is right");
    assert_eq!(outcome.broken, 1);
    let broken: Vec<_> = outcome.news.iter().filter(|news| news.is_broken).collect();
    assert_eq!(broken.len(), 1);
    assert!(broken[0].text.starts_with("line 1: there is no `rolls` here"), "{}", broken[0].text);
    assert!(broken[0].text.ends_with("; what it said before stays in force"), "{}", broken[0].text);
    assert_eq!(who(&access, bearer("other")), "token:other");
    let cert = Caller::named(Means::Certificate, "shop.example");
    assert!(access.check(&cert, Permission::Publish, Target::Topic("orders")).is_ok());

    let again = access.refresh();
    assert_eq!((again.is_reloaded, again.news.len(), again.broken), (false, 0, 1), "it is told once");
    std::fs::remove_file(folder.path("policy.yaml")).expect("it is there");
    let gone = access.refresh();
    assert!(
        gone.news[0].text.starts_with("it cannot be read: No such file"),
        "another mistake is news: {gone:?}"
    );
    assert_eq!(access.epoch(), epoch + 1);

    folder.write("policy.yaml", POLICY);
    let mended = access.refresh();
    assert_eq!((mended.is_reloaded, mended.broken, mended.news[0].is_broken), (false, 0, false));
    assert_eq!(mended.news[0].text, "it is again what is in force");
    assert_eq!(access.refresh(), Outcome::default());
}

#[test]
fn keys_come_and_go_with_the_policy_that_names_them() {
    let folder = Folder::new();
    let access = folder.load().expect("it is right");
    let (old, new) = (Signer::new(1), Signer::new(2));
    let token = |signer: &Signer| signer.sign(&json!({"alg": "EdDSA", "kid": "a"}), &claims());
    folder.write("policy.yaml", &folder.with_issuer("jwks.json"));
    let outcome = access.refresh();
    assert!(
        !outcome.is_reloaded && outcome.news[0].text.contains("jwks.json: it cannot be read"),
        "{outcome:?}"
    );
    assert!(who(&access, bearer(&token(&old))).contains("whose tokens do not count here"));

    folder.write("jwks.json", &old.jwks("a"));
    assert!(access.refresh().is_reloaded, "the policy counts as soon as its keys are there");
    assert_eq!(who(&access, bearer(&token(&old))), "jwt:anna");

    folder.write("jwks.json", &new.jwks("a"));
    assert!(access.refresh().is_reloaded);
    assert_eq!(who(&access, bearer(&token(&new))), "jwt:anna");
    assert!(
        who(&access, bearer(&token(&old))).starts_with("the signature of the token is not that of its key")
    );

    folder.write("jwks.json", "{}");
    let outcome = access.refresh();
    assert!(!outcome.is_reloaded && outcome.broken == 1);
    assert_eq!(who(&access, bearer(&token(&new))), "jwt:anna", "the last good keys stay");

    folder.write("policy.yaml", POLICY);
    let outcome = access.refresh();
    assert!(outcome.is_reloaded && outcome.broken == 0, "nobody looks at those keys any more: {outcome:?}");
    assert!(who(&access, bearer(&token(&new))).contains("whose tokens do not count here"));
}
