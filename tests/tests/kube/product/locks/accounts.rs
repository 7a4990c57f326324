//! Tokens of ServiceAccounts, as Kubernetes makes them and judges them.

use super::super::{BoxError, TOLD_WITHIN, Undo, soon};
use super::load::{TOPIC, said};
use super::strangers::Stranger;
use crate::case::{Outcome, Room};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

/// The ConfigMap with roles, and the Secret with hashed tokens.
pub(super) const RIGHTS: &str = "rights";
/// For whom tokens must be made.
const AUDIENCE: &str = "raftqueue";
/// The algorithm of the keys of these tests: numbers of 32 bytes.
const NUMBER_BYTES: usize = 32;

/// Accounts in another namespace, and tokens of them.
pub(super) struct Accounts<'a> {
    room: &'a Room<'a>,
    /// The other namespace.
    pub(super) namespace: String,
    /// Tokens by what is special about them.
    pub(super) tokens: BTreeMap<&'static str, String>,
}

/// The claims of a token.
fn claims(token: &str) -> Result<Value, BoxError> {
    let claims = token.split('.').nth(1).ok_or("a token has three parts")?;
    Ok(serde_json::from_slice(&BASE64.decode(claims)?)?)
}

/// A token of these claims, signed by this key.
fn signed(claims: &Value, key: &KeyPair) -> Result<String, BoxError> {
    let head = json!({"alg": "ES256", "typ": "JWT"});
    let parts = [head, claims.clone()].map(|part| BASE64.encode(part.to_string()));
    let told = parts.join(".");
    // A signature is a list of two numbers in DER; here they stand one behind the other.
    let signature = key.sign(told.as_bytes())?;
    let (mut rest, mut numbers) = (signature.get(2..).ok_or("a list of two numbers")?, Vec::new());
    while let [2, length, behind @ ..] = rest {
        let (number, after) = behind.split_at(usize::from(*length));
        let number = &number[number.len().saturating_sub(NUMBER_BYTES)..];
        numbers.extend(std::iter::repeat_n(0, NUMBER_BYTES - number.len()));
        numbers.extend_from_slice(number);
        rest = after;
    }
    Ok(format!("{told}.{}", BASE64.encode(numbers)))
}

impl<'a> Accounts<'a> {
    /// Makes a namespace beside that of the case, accounts in it, and their tokens.
    pub(super) fn make(room: &'a Room<'a>) -> Result<Self, BoxError> {
        let namespace = format!("{}-other", room.namespace);
        let run = |words: &[&str]| room.cluster().run(&[&["-n", &namespace], words].concat());
        run(&["create", "namespace", &namespace])?;
        for account in ["shop", "nobody", "gone"] {
            run(&["create", "serviceaccount", account])?;
        }
        let make = |account: &str, more: &[&str]| -> Result<String, BoxError> {
            Ok(run(&[&["create", "token", account, "--duration", "1h"], more].concat())?.trim().to_owned())
        };
        let audience = format!("--audience={AUDIENCE}");
        let shop = make("shop", &[&audience])?;
        let key = KeyPair::from_pem(&std::fs::read_to_string(room.own().state().path("pki/accounts.key"))?)?;
        let now = UNIX_EPOCH.elapsed()?.as_secs();
        let until = |end: u64| -> Result<Value, BoxError> {
            let mut claims = claims(&shop)?;
            for (claim, at) in [("iat", now - 7_200), ("nbf", now - 7_200), ("exp", end)] {
                claims[claim] = json!(at);
            }
            Ok(claims)
        };
        let tokens = BTreeMap::from([
            ("same", signed(&until(now + 3_600)?, &key)?),
            ("expired", signed(&until(now - 3_600)?, &key)?),
            ("forged", signed(&until(now + 3_600)?, &KeyPair::generate()?)?),
            ("nobody", make("nobody", &[&audience])?),
            ("gone", make("gone", &[&audience])?),
            ("others", make("shop", &["--audience=others"])?),
            ("api", make("shop", &[])?),
            ("guessed", format!("rq_{}", "0".repeat(43))),
            ("shop", shop),
        ]);
        run(&["delete", "serviceaccount", "gone"])?;
        Ok(Self { room, namespace, tokens })
    }

    /// Writes down who may do what: `shop` its orders, and whoever makes load everything.
    pub(super) fn write_rights(&self, hashed: &str) -> Outcome {
        let rights = json!({
            "kubernetes": {"audience": AUDIENCE},
            "roles": [
                {"name": "shop", "rules": [{"topics": ["orders"], "may": ["publish", "receive"]}]},
                {"name": "load", "rules": [{"topics": [TOPIC], "may": ["publish", "receive"]}]},
            ],
            "grants": [
                {"role": "shop", "to": [
                    format!("serviceaccount:{}/shop", self.namespace),
                    format!("serviceaccount:{}/gone", self.namespace),
                ]},
                {"role": "load", "to": ["token:load"]},
            ],
        });
        for (kind, field, file, text) in [
            ("ConfigMap", "data", "auth.yaml", rights.to_string()),
            ("Secret", "stringData", "tokens", hashed.to_owned()),
        ] {
            let object =
                json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": RIGHTS}, field: {file: text}});
            self.room.apply(&object.to_string())?;
        }
        Ok(())
    }

    /// Shows all tokens to the cluster. The right to ask Kubernetes about them is taken back by what this returns.
    pub(super) fn each_may_what_its_role_says(
        &self,
        stranger: &Stranger<'_>,
    ) -> Result<Undo<impl FnMut() -> Outcome + 'a>, BoxError> {
        let (room, own) = (self.room, &self.room.namespace);
        // Without the right the nodes say to whom it is to be given, and how.
        let publish = ["publish", "orders", "one"];
        let output = stranger.raftq(Some("shop"), &publish)?;
        let told = said(&output);
        assert!(!output.status.success(), "{told}");
        let remedy = told.split('`').find(|part| part.starts_with("kubectl create")).ok_or(told.clone())?;
        assert!(remedy.contains("--clusterrole=system:auth-delegator"), "{told}");
        assert!(remedy.ends_with(&format!("--serviceaccount={own}:demo")), "{told}");
        let log = room.kubectl(&["logs", "demo-1"])?;
        let is_logged = |line: &str| line.contains("\"audit\":\"unauthenticated\"") && line.contains(remedy);
        assert!(log.lines().any(is_logged), "{log}");
        // Nobody but an administrator can give it: neither the nodes nor the operator have more rights than are theirs.
        let may = |account: &str, verb: &str, what: &str| -> Result<bool, BoxError> {
            let by = format!("--as=system:serviceaccount:{account}");
            let output = room.cluster().output(&["auth", "can-i", verb, what, &by])?;
            Ok(output.status.success())
        };
        let (nodes, operator) = (format!("{own}:demo"), "raftqueue-system:raftqueue-operator");
        assert!(!may(&nodes, "create", "tokenreviews.authentication.k8s.io")?);
        for binding in ["clusterrolebindings", "rolebindings"] {
            let what = format!("{binding}.rbac.authorization.k8s.io");
            assert!(!may(operator, "create", &what)?, "{binding}");
        }
        let words: Vec<&str> = remedy.split_whitespace().skip(1).collect();
        let binding = (*words.get(2).ok_or("a name")?).to_owned();
        let undo = Undo::at_the_end(move || {
            room.cluster().run(&["delete", "clusterrolebinding", &binding, "--ignore-not-found"])?;
            Ok(())
        });
        room.cluster().run(&words)?;
        soon("the right to count", TOLD_WITHIN, || {
            let output = stranger.raftq(Some("shop"), &publish).map_err(|error| error.to_string())?;
            if output.status.success() { Ok(()) } else { Err(said(&output)) }
        })?;
        assert!(may(&nodes, "create", "tokenreviews.authentication.k8s.io")?);
        for (verb, what) in
            [("list", "secrets"), ("get", "pods"), ("create", "tokenreviews.rbac.authorization.k8s.io")]
        {
            assert!(!may(&nodes, verb, what)?, "nodes may {verb} {what}");
        }

        let name = |account: &str| format!("serviceaccount:{}/{account}", self.namespace);
        let (shop, nobody) = (name("shop"), name("nobody"));
        for (token, command, words) in [
            ("shop", &["receive", "orders", "--ack"][..], Ok("one")),
            ("shop", &["auth", "can-i", "publish", "orders"], Ok("by the role shop")),
            ("same", &publish, Ok("1 message")),
            (
                "shop",
                &["publish", "bills", "one"],
                Err(format!("PERMISSION_DENIED: {shop} may not publish to `bills`")),
            ),
            (
                "shop",
                &["topic", "create", "more"],
                Err(format!("PERMISSION_DENIED: {shop} may not manage `more`")),
            ),
            (
                "shop",
                &["purge", "orders", "--yes"],
                Err(format!("PERMISSION_DENIED: {shop} may not manage `orders`")),
            ),
            (
                "shop",
                &["members", "list"],
                Err(format!("PERMISSION_DENIED: {shop} may not browse any topic")),
            ),
            (
                "shop",
                &["members", "raise-version"],
                Err(format!("PERMISSION_DENIED: {shop} may not administer")),
            ),
            (
                "nobody",
                &publish,
                Err(format!(
                    "PERMISSION_DENIED: {nobody} may not publish to any topic: no grant gives it a role"
                )),
            ),
            (
                "others",
                &publish,
                Err("UNAUTHENTICATED: the token is made for `others`, not for `raftqueue`".to_owned()),
            ),
            ("api", &publish, Err("UNAUTHENTICATED: the token is made for".to_owned())),
            ("expired", &publish, Err("UNAUTHENTICATED: the token expired".to_owned())),
            ("gone", &publish, Err("UNAUTHENTICATED: Kubernetes does not accept the token".to_owned())),
            ("forged", &publish, Err("UNAUTHENTICATED: Kubernetes does not accept the token".to_owned())),
            ("guessed", &publish, Err("UNAUTHENTICATED".to_owned())),
        ] {
            let output = stranger.raftq(Some(token), command)?;
            let told = said(&output);
            let (is_well, words) = match &words {
                Ok(words) => (true, *words),
                Err(words) => (false, words.as_str()),
            };
            assert_eq!(output.status.success(), is_well, "{token} {command:?}: {told}");
            assert!(told.contains(words), "{token} {command:?}: {words}: {told}");
        }
        Ok(undo)
    }
}

impl Drop for Accounts<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"];
        if let Err(error) = self.room.cluster().run(&delete) {
            eprintln!("{} stays: {error}", self.namespace);
        }
    }
}
