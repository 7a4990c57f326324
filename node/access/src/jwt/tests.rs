//! Tokens of every algorithm, made by another implementation (PyJWT 2.15), those of the RFCs, and tokens that are wrong in one thing.

use super::*;
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

/// Public keys by which `TOKENS` are signed; their private parts are gone.
const JWKS: &str = include_str!("tests/jwks.json");
/// Lines of algorithm, key and token; valid from 1900000000 to 2000000000.
const TOKENS: &str = include_str!("tests/tokens.txt");
/// A moment at which all of them are valid.
const NOW_S: u64 = 1_950_000_000;

/// An issuer that signs whatever it is told.
pub(crate) struct Signer(Ed25519KeyPair);

impl Signer {
    pub(crate) fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed has 32 bytes"))
    }

    pub(crate) fn jwks(&self, kid: &str) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x}]}).to_string()
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// Claims that are right at `NOW_S`.
pub(crate) fn claims() -> Value {
    json!({"iss": "https://issuer.example", "aud": ["other", "raftqueue"], "sub": "anna", "exp": NOW_S + 60,
        "groups": ["staff", "payments"]})
}

fn issuer() -> JwtIssuer {
    JwtIssuer {
        issuer: "https://issuer.example".into(),
        audience: "raftqueue".into(),
        jwks_file: "jwks.json".into(),
        name_claim: "sub".into(),
        groups_claim: Some("groups".into()),
        prefix: String::new(),
    }
}

fn verifier(jwks: &str) -> Verifier {
    Verifier::new(issuer(), Arc::new(Keys::parse(jwks).expect("they are right")))
}

fn tokens() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    TOKENS.lines().map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        (words[0], words[1], words[2])
    })
}

#[test]
fn tokens_of_every_algorithm_count_and_tell_who_calls() {
    let verifier = verifier(JWKS);
    assert_eq!(tokens().count(), 9);
    for (algorithm, _, token) in tokens() {
        let caller =
            verifier.verify(token, moment(NOW_S)).unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        assert_eq!(caller.to_string(), "jwt:anna");
        assert_eq!(caller.groups(), ["staff", "payments"]);
        assert_eq!(caller.expires(), Some(moment(2_000_000_000)));
    }
}

#[test]
fn a_token_counts_only_with_the_algorithm_of_its_key() {
    let verifier = verifier(JWKS);
    for (_, kid, token) in tokens() {
        let rest = token.split_once('.').expect("it has points").1;
        for algorithm in Algorithm::ALL {
            for other in ["rsa", "p256", "p384", "ed"] {
                let header = json!({"alg": algorithm.name(), "kid": other}).to_string();
                let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
                let error = verifier.verify(&forged, moment(NOW_S)).expect_err("its header was not signed");
                let is_expected = matches!(error, JwtError::Signature | JwtError::OtherAlgorithm { .. });
                assert!(is_expected, "{kid} as {} by {other}: {error}", algorithm.name());
            }
        }
    }
}

#[test]
fn not_one_bit_of_a_token_may_be_changed() {
    let verifier = verifier(JWKS);
    for (algorithm, _, token) in tokens() {
        let (signed, signature) = token.rsplit_once('.').expect("it has points");
        let bytes = URL_SAFE_NO_PAD.decode(signature).expect("it is right");
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(changed));
            assert_eq!(verifier.verify(&changed, moment(NOW_S)), Err(JwtError::Signature), "{algorithm}");
        }
        let shorter = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&bytes[1..]));
        assert_eq!(verifier.verify(&shorter, moment(NOW_S)), Err(JwtError::Signature), "{algorithm}");
        assert_eq!(
            verifier.verify(&format!("{signed}."), moment(NOW_S)),
            Err(JwtError::Signature),
            "{algorithm}"
        );
    }
}

#[test]
fn the_examples_of_the_rfcs_are_signed_by_their_keys() {
    // RFC 7515, A.3, and RFC 8037, A.4.
    let es256 = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290\
        Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let found = verifier(es256).verify(token, moment(1_300_819_000));
    let wanted = JwtError::Issuer { found: "joe".into(), wanted: "https://issuer.example".into() };
    assert_eq!(found, Err(wanted), "the signature is right, and then the issuer is looked at");

    let eddsa =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let signed = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("it is right");
    let keys = Keys::parse(eddsa).expect("it is right");
    let key = keys.find(None, Algorithm::EdDsa, "i").expect("there is one");
    assert!(key.verify(Algorithm::EdDsa, signed, &signature));
}

/// The token of claims that are right but for one.
fn changed(signer: &Signer, claim: &str, value: Value) -> String {
    let mut claims = claims();
    match value {
        Value::Null => _ = claims.as_object_mut().expect("it is one").remove(claim),
        value => claims[claim] = value,
    }
    signer.sign(&json!({"alg": "EdDSA", "kid": "a"}), &claims)
}

#[test]
fn what_is_wrong_with_a_token_is_said() {
    let signer = Signer::new(7);
    let verifier = verifier(&signer.jwks("a"));
    let with = |claim: &str, value: Value| changed(&signer, claim, value);
    let headed = |header: Value| signer.sign(&header, &claims());
    let rs256 = tokens().next().expect("there are some").2;
    for (token, said) in [
        (with("exp", json!(NOW_S - 180)), "the token expired 3 minutes ago"),
        (with("exp", json!(NOW_S - 30)), "the token expired 30 seconds ago"),
        (with("exp", json!(0)), "the token expired 22569 days ago"),
        (with("exp", json!(-5.5)), "the token expired 22569 days ago"),
        (with("exp", Value::Null), "the claim `exp` of the token is missing: a token must end some time"),
        (
            with("exp", json!("2000000000")),
            "the claim `exp` of the token must be a number of seconds since 1970",
        ),
        (with("nbf", json!(NOW_S + 31)), "the token is not valid yet: it will be in 31 seconds"),
        (with("nbf", json!("now")), "the claim `nbf` of the token must be a number of seconds since 1970"),
        (
            with("iss", json!("https://evil.example")),
            "the token was issued by `https://evil.example`, not by `https://issuer.example`",
        ),
        (
            with("iss", json!("https://issuer.example/")),
            "the token was issued by `https://issuer.example/`, not by `https://issuer.example`",
        ),
        (with("iss", Value::Null), "the claim `iss` of the token must be a text"),
        (with("aud", json!("other")), "the token is made for `other`, not for `raftqueue`"),
        (with("aud", json!(["a", "b", "c"])), "the token is made for `a` and 2 more, not for `raftqueue`"),
        (with("aud", json!([])), "the token is made for nobody, not for `raftqueue`"),
        (with("aud", Value::Null), "the claim `aud` of the token must be a text or a list of texts"),
        (
            with("aud", json!({"raftqueue": 1})),
            "the claim `aud` of the token must be a text or a list of texts",
        ),
        (with("sub", Value::Null), "the claim `sub` of the token names the caller, and is missing"),
        (
            with("sub", json!("")),
            "the claim `sub` of the token names the caller, and must have 1 to 512 bytes",
        ),
        (
            with("sub", json!("x".repeat(513))),
            "the claim `sub` of the token names the caller, and must have 1 to 512 bytes",
        ),
        (with("sub", json!(7)), "the claim `sub` of the token names the caller, and must be a text"),
        (with("groups", json!([1])), "the claim `groups` of the token must be a text or a list of texts"),
        (with("x", json!("x".repeat(8_192))), "the token has 11214 bytes, and may have 8192"),
        (
            headed(json!({"alg": "none"})),
            "the token is signed by `none`, which does not count here; RS, PS and ES with 256 or 384, RS512, PS512 and EdDSA do",
        ),
        (
            headed(json!({"alg": "HS256", "kid": "a"})),
            "the token is signed by `HS256`, which does not count here",
        ),
        (
            headed(json!({"alg": "eddsa", "kid": "a"})),
            "the token is signed by `eddsa`, which does not count here",
        ),
        (
            headed(json!({"alg": "RS256", "kid": "a"})),
            "the token is signed by RS256, and its key is for EdDSA",
        ),
        (
            headed(json!({"alg": "EdDSA", "kid": "b"})),
            "no key `b` in the JWKS file of https://issuer.example",
        ),
        (
            headed(json!({"alg": "ES256"})),
            "the token names no key (`kid`), and 0 keys of the JWKS file of https://issuer.example could be meant",
        ),
        (
            headed(json!({"alg": "EdDSA", "kid": "a", "crit": ["b64"]})),
            "the token wants extensions (`crit`), and none is understood here",
        ),
        (headed(json!({"kid": "a"})), "the token is no JWT: its header is no JSON object with `alg`"),
        (headed(json!([1])), "the token is no JWT: its header is no JSON object with `alg`"),
        (
            signer.sign(&json!({"alg": "EdDSA"}), &json!("text")),
            "the token is no JWT: its payload is no JSON object",
        ),
        (
            Signer::new(8).sign(&json!({"alg": "EdDSA", "kid": "a"}), &claims()),
            "the signature of the token is not that of its key",
        ),
        (rs256.into(), "no key `rsa` in the JWKS file of https://issuer.example"),
        ("a.b".into(), "the token is no JWT: it has not three parts with points between them"),
        ("a.b.c.d".into(), "the token is no JWT: it has not three parts with points between them"),
        ("!.b.c".into(), "the token is no JWT: a part of it is not base64url"),
        (format!("{}=", with("x", json!(1))), "the token is no JWT: a part of it is not base64url"),
    ] {
        let error = verifier.verify(&token, moment(NOW_S)).expect_err(said).to_string();
        assert!(error.starts_with(said), "{error}\n  wanted: {said}");
    }
}

#[test]
fn a_token_that_is_too_long_is_not_even_peeked_at() {
    let token = changed(&Signer::new(7), "x", json!("x".repeat(8_192)));
    assert_eq!(peek(&token).expect_err("it is too long"), JwtError::TooLong(token.len()));
}

#[test]
fn what_is_right_enough_counts() {
    let signer = Signer::new(7);
    let verifier = verifier(&signer.jwks("a"));
    for (claim, value) in [
        ("exp", json!(NOW_S - 29)),
        ("exp", json!(1e300)),
        ("nbf", json!(NOW_S + 30)),
        ("aud", json!("raftqueue")),
        ("groups", Value::Null),
        ("groups", json!("staff")),
        ("sub", json!("x".repeat(512))),
    ] {
        let token = changed(&signer, claim, value.clone());
        assert!(verifier.verify(&token, moment(NOW_S)).is_ok(), "{claim} {value}");
    }
    for header in [json!({"alg": "EdDSA"}), json!({"alg": "Ed25519", "kid": "a", "typ": "at+jwt"})] {
        let token = signer.sign(&header, &claims());
        assert!(verifier.verify(&token, moment(NOW_S)).is_ok(), "{header}");
    }
    let many: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let token = changed(&signer, "groups", json!(many));
    let caller = verifier.verify(&token, moment(NOW_S)).expect("it is right");
    assert_eq!(caller.groups().len(), GROUPS_MAX);
}

#[test]
fn a_token_that_was_right_is_over_when_it_is_over_and_others_are_not_taken_for_it() {
    let signer = Signer::new(7);
    let verifier = verifier(&signer.jwks("a"));
    let token = changed(&signer, "x", json!(0));
    for now_s in [NOW_S, NOW_S + 60, NOW_S + 89] {
        assert!(verifier.verify(&token, moment(now_s)).is_ok());
    }
    assert_eq!(verifier.verify(&token, moment(NOW_S + 90)), Err(JwtError::Expired(30)));
    let (signed, _) = token.rsplit_once('.').expect("it has points");
    let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 64]));
    assert_eq!(verifier.verify(&forged, moment(NOW_S)), Err(JwtError::Signature));
    for n in 0..=CALLERS_KEPT_MAX {
        assert!(verifier.verify(&changed(&signer, "x", json!(n)), moment(NOW_S)).is_ok());
        assert!(verifier.kept.lock().expect("nobody panicked").len() <= CALLERS_KEPT_MAX);
    }
}

#[test]
fn what_an_issuer_tells_stays_apart_from_what_others_tell() {
    let signer = Signer::new(7);
    let keys = Arc::new(Keys::parse(&signer.jwks("a")).expect("they are right"));
    let token = changed(&signer, "groups", json!(["staff", "system:serviceaccounts:shop"]));
    for (prefix, name, groups) in
        [("", "anna", &["staff"][..]), ("b/", "b/anna", &["b/staff", "b/system:serviceaccounts:shop"])]
    {
        let verifier = Verifier::new(JwtIssuer { prefix: prefix.into(), ..issuer() }, Arc::clone(&keys));
        let caller = verifier.verify(&token, moment(NOW_S)).expect("it is right");
        assert_eq!(
            (caller.name(), caller.groups().iter().map(String::as_str).collect::<Vec<_>>()),
            (name, groups.to_vec())
        );
    }
    let verifier = Verifier::new(JwtIssuer { prefix: "x".repeat(509), ..issuer() }, keys);
    assert!(verifier.verify(&token, moment(NOW_S)).is_err(), "the whole name has a bound");
}

#[test]
fn a_file_without_keys_that_count_is_refused_in_words() {
    let rsa = |n: &str| format!(r#"{{"keys":[{{"kty":"RSA","kid":"a","e":"AQAB","n":"{n}"}}]}}"#);
    let ed = r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    for (text, said) in [
        (String::new(), "it must be a JWK set, {\"keys\": [...]}: "),
        ("[]".into(), "it must be a JWK set"),
        (ed.into(), "it must be a JWK set, {\"keys\": [...]}: missing field `keys`"),
        (
            r#"{"keys":[]}"#.into(),
            "none of its keys can check a token: keys of RSA, P-256, P-384 and Ed25519",
        ),
        (r#"{"keys":[{"kty":"EC","crv":"secp256k1"}]}"#.into(), "none of its keys can check a token"),
        (format!(r#"{{"keys":[{}]}}"#, ed.replace("\"kid\"", "\"use\":\"enc\",\"kid\"")), "none of its keys"),
        (
            format!(r#"{{"keys":[{}]}}"#, ed.replace("\"kid\"", "\"alg\":\"HS256\",\"kid\"")),
            "none of its keys",
        ),
        (
            format!(r#"{{"keys":[{}]}}"#, ed.replace("\"kid\"", "\"d\":\"AA\",\"kid\"")),
            "key `a` is secret and must not be in this file",
        ),
        (r#"{"keys":[{"kty":"oct","k":"AA"}]}"#.into(), "key 1 is secret and must not be in this file"),
        (format!(r#"{{"keys":[{ed},{ed}]}}"#), "key `a` stands there twice"),
        (
            format!(r#"{{"keys":[{}]}}"#, ed.replace("11qY", "")),
            "key `a` has 29 bytes in `x`, and must have 32",
        ),
        (format!(r#"{{"keys":[{}]}}"#, ed.replace("11qY", "!!!!")), "key `a` has no `x` in base64url"),
        (
            r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA"}]}"#.into(),
            "key 1 has 1 bytes in `x`, and must have 32",
        ),
        (rsa(&URL_SAFE_NO_PAD.encode([255; 128])), "key `a` has 1024 bits, and must have 2048 to 8192"),
        (rsa(&URL_SAFE_NO_PAD.encode([255; 1_025])), "key `a` has 8200 bits, and must have 2048 to 8192"),
        (rsa("AA"), "key `a` has 0 bits, and must have 2048 to 8192"),
        (format!(r#"{{"keys":[{}]}}"#, vec!["{}"; 257].join(",")), "it has 257 keys, and may have 256"),
        (" ".repeat(KEYS_BYTES_MAX + 1), "the file has 1048577 bytes"),
    ] {
        let error = Keys::parse(&text).expect_err(said).to_string();
        assert!(error.starts_with(said), "{error}\n  wanted: {said}");
    }
}

#[test]
fn a_key_counts_only_for_what_it_says_it_is_for() {
    let jwks = JWKS.replace("\"kid\": \"rsa\"", "\"kid\": \"rsa\", \"alg\": \"PS256\"");
    let verifier = verifier(&jwks);
    for (algorithm, _, token) in tokens().filter(|(_, kid, _)| *kid == "rsa") {
        let found = verifier.verify(token, moment(NOW_S));
        assert_eq!(found.is_ok(), algorithm == "PS256", "{algorithm}: {found:?}");
        if let Err(error) = found {
            assert!(error.to_string().ends_with("and its key is for PS256"), "{error}");
        }
    }
}

#[test]
fn numbers_with_a_zero_in_front_are_the_same_numbers() {
    let set: Value = serde_json::from_str(JWKS).expect("it is JSON");
    let n = set["keys"][0]["n"].as_str().expect("it is a text");
    let padded = [vec![0], URL_SAFE_NO_PAD.decode(n).expect("it is right")].concat();
    let jwks = JWKS.replace(n, &URL_SAFE_NO_PAD.encode(padded));
    let token = tokens().next().expect("there are some").2;
    assert!(verifier(&jwks).verify(token, moment(NOW_S)).is_ok());
}

proptest! {
    #[test]
    fn no_token_makes_it_panic(
        header in ".{0,40}",
        claims in "[{}\\[\\]\":,a-z0-9.e+-]{0,60}",
        exp in proptest::num::f64::ANY,
    ) {
        let signer = Signer::new(7);
        let verifier = verifier(&signer.jwks("a"));
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for token in [
            format!("{header}.{claims}."),
            format!("{}.{}.AA", encode(&header), encode(&claims)),
            changed(&signer, "exp", json!(exp)),
            changed(&signer, "nbf", json!(exp)),
        ] {
            let _ = verifier.verify(&token, moment(NOW_S));
            let _ = peek(&token);
        }
    }
}
