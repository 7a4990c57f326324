//! What is asked of the decoders of this crate when they are fuzzed: `tests/fuzz` has a target for each function here.
//!
//! Each takes any bytes at all, and panics where a promise is broken: a decoder panics, refuses without a word, says something that
//! moves the cursor of a terminal, or lets in somebody whom nothing that it read names.

use crate::jwt::{Keys, Verifier, peek};
use crate::review::asking;
use crate::{Caller, Decision, JwtIssuer, Means, Permission, Policy, Target, Tokens};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A key of each kind, and a token signed by each.
const JWKS: &str = include_str!("jwt/tests/jwks.json");
const JWTS: &str = include_str!("jwt/tests/tokens.txt");
/// What the seeds' tokens are made for.
const AUDIENCE: &str = "raftqueue";

const POLICY: &str = "\
anonymous: true
jwt:
- {issuer: \"https://issuer.example\", audience: raftqueue, jwksFile: jwks.json, nameClaim: email, groupsClaim: groups, prefix: \"a/\"}
kubernetes: {audience: raftqueue}
roles:
- name: shop
  rules:
  - topics: [\"orders\", \"orders.*\"] # a pattern
    may: [publish, receive]
- name: operations
  rules: [{topics: [\"*\"], may: [browse, manage]}, {may: [administer]}]
grants:
- {role: shop, to: [\"token:shop\", \"cert:shop.example\", \"serviceaccount:shop/*\", \"group:payments\"]}
- {role: operations, to: [\"jwt:a/anna\", anonymous]}
";

/// Text as a decoder takes it: whoever hands it over has refused what is none.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// A refusal is read by somebody at a terminal, or in a line of a log.
fn is_said<T>(read: Result<T, impl Display>) -> Option<T> {
    let error = match read {
        Ok(read) => return Some(read),
        Err(error) => error.to_string(),
    };
    assert!(!error.is_empty(), "it is refused without a word");
    assert!(!error.contains(char::is_control), "{error:?} moves the cursor");
    assert!(error.len() <= 16 << 10, "{} bytes are said", error.len());
    None
}

/// A file of roles and grants, and what it decides.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn policy(data: &[u8]) {
    let Some(policy) = text(data).and_then(|text| is_said(Policy::parse(text))) else { return };
    let callers = [
        Caller::named(Means::Token, "shop"),
        Caller::named(Means::Certificate, "shop.example"),
        Caller::named(Means::Anonymous, ""),
    ];
    for caller in callers {
        let has_role = policy.roles_of(&caller).next().is_some();
        for permission in Permission::ALL {
            for topic in ["orders", "orders.eu", "*", ""] {
                match policy.decide(&caller, permission, Target::Topic(topic)) {
                    Decision::Allowed { role } => {
                        assert!(has_role, "{caller} has no role, and `{role}` allows it");
                        assert!(policy.roles().iter().any(|known| *known.name() == *role));
                    }
                    Decision::Denied(denied) => assert!(!denied.to_string().is_empty()),
                }
            }
        }
    }
}

/// A file of hashed tokens, and tokens that are shown.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn tokens(data: &[u8]) {
    let Some(file) = text(data) else { return };
    let Some(tokens) = is_said(Tokens::parse(file)) else {
        return;
    };
    // Nobody knows a token of which only the hash is there.
    for shown in file.split_whitespace().take(64) {
        let _ = is_said(tokens.verify(shown)).map(|name| assert!(file.contains(&**name)));
    }
    for (name, _) in tokens.names().into_iter().take(8) {
        let line = Tokens::line(name, "a token").expect("a name that was read is one");
        let known = Tokens::parse(&line).expect("what is written is read");
        assert_eq!(known.verify("a token").map(|found| &**found), Ok(name));
    }
}

/// A JWT: the first byte says whether it stands alone before the keys of this crate's tests, or behind a file of keys and an empty line.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn jwt(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let Some(rest) = text(rest) else { return };
    let (keys, token) = match kind % 2 {
        0 => (JWKS, rest),
        _ => rest.split_once("\n\n").unwrap_or((rest, "")),
    };
    let Some(keys) = is_said(Keys::parse(keys)) else { return };
    let issuer = JwtIssuer {
        issuer: "https://issuer.example".into(),
        audience: AUDIENCE.into(),
        jwks_file: "jwks.json".into(),
        name_claim: "sub".into(),
        groups_claim: Some("groups".into()),
        prefix: "a/".into(),
    };
    let _ = is_said(peek(token));
    let verifier = Verifier::new(issuer, Arc::new(keys));
    for seconds in [0, 1_800_000_000, u64::from(u32::MAX)] {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let known = is_said(verifier.verify(token, now));
        // With keys of which nobody has the private halves only what was signed before counts, to the letter.
        if let Some(caller) = known.filter(|_| kind % 2 == 0) {
            assert!(
                signed().any(|(_, signed)| signed == token),
                "{caller} is known by a token that nobody signed"
            );
        }
    }
}

/// Tokens that were signed, by algorithm.
fn signed() -> impl Iterator<Item = (&'static str, &'static str)> {
    JWTS.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.nth(1)?))
    })
}

/// What the API server answers about a token of a ServiceAccount.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn token_review(data: &[u8]) {
    let Some(caller) = is_said(asking::answer(data, AUDIENCE, None)) else { return };
    assert!(caller.by() == Means::ServiceAccount, "{caller} is let in by {data:?}");
}

/// What fuzzing begins with: target, name, bytes.
#[must_use]
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let hash = "1".repeat(64);
    let mut seeds = vec![
        ("policy", "whole", POLICY.into()),
        ("policy", "least", "roles: [{name: a, rules: [{may: [administer]}]}]\ngrants: []\n".into()),
        (
            "tokens",
            "two",
            format!("shop sha256:{hash} # since May\n\nanna sha256:{}\n", "2".repeat(64)).into(),
        ),
        ("tokens", "token", format!("shop rq_{}\n", "0".repeat(43)).into()),
    ];
    seeds.extend(signed().map(|(algorithm, token)| ("jwt", algorithm, [&[0], token.as_bytes()].concat())));
    let both = format!(
        "{{\"keys\":[{{\"kty\":\"oct\"}},{{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"k\",\"x\":\"{0}\",\"y\":\"{0}\"}}]}}\n\n{1}",
        "A".repeat(43),
        signed().next().map_or("", |(_, token)| token)
    );
    seeds.push(("jwt", "keys", [&[1], both.as_bytes()].concat()));
    let known = r#"{"status":{"authenticated":true,"user":{"username":"system:serviceaccount:shop:worker","groups":["payments"]},"audiences":["raftqueue"]}}"#;
    let refused = r#"{"kind":"TokenReview","status":{"user":{},"error":"it has expired"}}"#;
    let other = r#"{"status":{"authenticated":true,"user":{"username":"anna"},"audiences":["https://kubernetes.default.svc"]}}"#;
    for (name, answer) in [("known", known), ("refused", refused), ("other", other)] {
        seeds.push(("token_review", name, answer.into()));
    }
    seeds
}
