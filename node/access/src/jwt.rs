//! JWTs that an issuer signed, checked against its public keys (RFC 7515, 7517, 7518, 7519, 8037).
//!
//! Only asymmetric signatures count. Which one is checked is up to the key, not up to the token: the algorithm that a token names
//! must be one of its key's type, and the key's own `alg`, if it says one. The signature is checked by ring, which TLS uses, too;
//! a crate for JWTs would add a second set of the same cryptography, and reads its clock itself. Time is an argument here.

mod keys;

pub(crate) use keys::KEYS_BYTES_MAX;
pub use keys::{Keys, KeysError};

use crate::caller::{Caller, GROUPS_MAX, Means, NAME_BYTES_MAX};
use crate::policy::JwtIssuer;
use crate::tokens::{Hash, hash_of};
use crate::words::{shown, span};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keys::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Length of a token, in bytes: what proxies let through in a header.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// How far the clocks of issuer and node may be apart, in seconds.
const LEEWAY_S: u64 = 30;

/// Callers whose tokens need no second look at the signature, which takes up to a tenth of a millisecond. Where there are more, all
/// are looked at anew.
const CALLERS_KEPT_MAX: usize = 1_024;

/// An issuer with its keys: what makes callers of its tokens.
#[derive(Debug)]
pub struct Verifier {
    issuer: JwtIssuer,
    keys: Arc<Keys>,
    /// By the hashes of tokens whose signature and claims were right; only the end has to be looked at again.
    kept: Mutex<HashMap<Hash, Caller>>,
}

/// What a token says of itself, which nobody has checked yet: enough to know whom to ask.
#[derive(Debug)]
pub struct Peek {
    /// The claim `iss`.
    pub issuer: Option<String>,
    /// The claim `sub`.
    pub subject: Option<String>,
    /// The claim `aud`.
    pub audiences: Vec<String>,
    /// The claim `exp`, seconds since the epoch.
    pub expires_s: Option<u64>,
}

/// Why a JWT does not count. Whoever shows it must get another, but for [`JwtError::NoKey`] and [`JwtError::NoKeyNamed`], which may
/// be a JWKS file that is not up to date.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is too long to be read.
    #[error("the token has {0} bytes, and may have {TOKEN_BYTES_MAX}")]
    TooLong(usize),
    /// It is not three parts of base64url with JSON in the first two.
    #[error("the token is no JWT: {0}")]
    Malformed(&'static str),
    /// Its signature is of a kind that does not count.
    #[error("the token is signed by `{}`, which does not count here; RS, PS and ES with 256 or 384, RS512, PS512 and EdDSA do", shown(.0))]
    Algorithm(String),
    /// It wants what is not understood here.
    #[error("the token wants extensions (`crit`), and none is understood here")]
    Critical,
    /// None of the keys has its `kid`.
    #[error("no key `{}` in the JWKS file of {}", shown(.kid), shown(.issuer))]
    NoKey {
        /// The key that the token names.
        kid: String,
        /// The issuer.
        issuer: String,
    },
    /// It names no key, and there is not exactly one that it could be.
    #[error("the token names no key (`kid`), and {fitting} keys of the JWKS file of {} could be meant", shown(.issuer))]
    NoKeyNamed {
        /// How many fit its algorithm.
        fitting: usize,
        /// The issuer.
        issuer: String,
    },
    /// Its algorithm is not one of the key.
    #[error("the token is signed by {algorithm}, and its key is for {key}")]
    OtherAlgorithm {
        /// What the token names.
        algorithm: &'static str,
        /// What the key is for.
        key: &'static str,
    },
    /// The key did not sign it.
    #[error("the signature of the token is not that of its key")]
    Signature,
    /// It is not valid any more.
    #[error("the token expired {} ago", span(*.0))]
    Expired(u64),
    /// It is not valid yet.
    #[error("the token is not valid yet: it will be in {}", span(*.0))]
    NotYet(u64),
    /// It is of another issuer.
    #[error("the token was issued by `{}`, not by `{}`", shown(.found), shown(.wanted))]
    Issuer {
        /// Who issued it.
        found: String,
        /// Who must have.
        wanted: String,
    },
    /// It is made for others.
    #[error("the token is made for {}, not for `{}`", audiences(.found), shown(.wanted))]
    Audience {
        /// For whom it is.
        found: Vec<String>,
        /// For whom it must be.
        wanted: String,
    },
    /// A claim is missing or of the wrong form.
    #[error("the claim `{}` of the token {problem}", shown(.claim))]
    Claim {
        /// Which.
        claim: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// The three parts, as they came.
struct Parts<'a> {
    signed: &'a str,
    header: Header,
    claims: Map<String, Value>,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn read(token: &'a str) -> Result<Self, JwtError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtError::TooLong(token.len()));
        }
        let parts: Vec<&str> = token.splitn(4, '.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err(JwtError::Malformed("it has not three parts with points between them"));
        };
        let bytes = |part: &str| {
            URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed("a part of it is not base64url"))
        };
        Ok(Self {
            signed: &token[..header.len() + 1 + claims.len()],
            header: serde_json::from_slice(&bytes(header)?)
                .map_err(|_| JwtError::Malformed("its header is no JSON object with `alg`"))?,
            claims: serde_json::from_slice(&bytes(claims)?)
                .map_err(|_| JwtError::Malformed("its payload is no JSON object"))?,
            signature: bytes(signature)?,
        })
    }
}

/// What a token says of itself, without a check of it.
///
/// # Errors
/// [`JwtError::TooLong`] and [`JwtError::Malformed`]: it is no JWT at all.
pub fn peek(token: &str) -> Result<Peek, JwtError> {
    let claims = Parts::read(token)?.claims;
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str).map(str::to_owned);
    Ok(Peek {
        issuer: text("iss"),
        subject: text("sub"),
        audiences: texts(claims.get("aud")).unwrap_or_default(),
        expires_s: claims.get("exp").and_then(seconds),
    })
}

impl Peek {
    /// Refuses what cannot count, by what it says of itself: made for others, or over. Returns until when it says it is valid.
    pub(crate) fn check(&self, audience: &str, now: SystemTime) -> Result<Option<SystemTime>, JwtError> {
        if !self.audiences.iter().any(|found| found == audience) {
            return Err(JwtError::Audience { found: self.audiences.clone(), wanted: audience.to_owned() });
        }
        if let Some(expires_s) = self.expires_s {
            not_over(expires_s, now)?;
        }
        Ok(self.expires_s.map(moment))
    }
}

impl Verifier {
    /// An issuer with its keys.
    #[must_use]
    pub fn new(issuer: JwtIssuer, keys: Arc<Keys>) -> Self {
        Self { issuer, keys, kept: Mutex::default() }
    }

    /// What the claim `iss` must be.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer.issuer
    }

    /// The caller that a token names, if the issuer signed it, for us, and it is valid now.
    ///
    /// # Errors
    /// The first thing that is wrong with it. Whether the signature is right is asked before anything that the token says of
    /// itself.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Caller, JwtError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtError::TooLong(token.len()));
        }
        let hash = hash_of(token);
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().get(&hash).cloned();
        if let Some(caller) = known {
            not_over(caller.expires().map_or(0, seconds_at), now)?;
            return Ok(caller);
        }
        let caller = self.verify_anew(token, now)?;
        let mut kept = kept();
        if kept.len() >= CALLERS_KEPT_MAX {
            kept.clear();
        }
        kept.insert(hash, caller.clone());
        Ok(caller)
    }

    fn verify_anew(&self, token: &str, now: SystemTime) -> Result<Caller, JwtError> {
        let Parts { signed, header, claims, signature } = Parts::read(token)?;
        if header.crit.is_some() {
            return Err(JwtError::Critical);
        }
        let Some(algorithm) = Algorithm::named(&header.alg) else {
            return Err(JwtError::Algorithm(header.alg));
        };
        let key = self.keys.find(header.kid.as_deref(), algorithm, &self.issuer.issuer)?;
        if !key.verify(algorithm, signed.as_bytes(), &signature) {
            return Err(JwtError::Signature);
        }
        let expires = self.check(&claims, now)?;
        let name = self.name(&claims)?;
        let groups = match &self.issuer.groups_claim {
            Some(claim) if claims.contains_key(claim) => {
                texts(claims.get(claim)).ok_or_else(|| wrong(claim, "must be a text or a list of texts"))?
            }
            _ => Vec::new(),
        };
        let groups = groups.into_iter().map(|group| format!("{}{group}", self.issuer.prefix));
        // Those that begin with `system:` are what Kubernetes tells of ServiceAccounts.
        let groups = groups.filter(|group| !group.starts_with("system:")).take(GROUPS_MAX).collect();
        Ok(Caller::of(Means::Jwt, name, groups, Some(expires)))
    }

    /// Checks of whom, for whom and when. Returns until when it is valid.
    fn check(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<SystemTime, JwtError> {
        let found =
            claims.get("iss").and_then(Value::as_str).ok_or_else(|| wrong("iss", "must be a text"))?;
        if found != self.issuer.issuer {
            return Err(JwtError::Issuer { found: found.to_owned(), wanted: self.issuer.issuer.clone() });
        }
        let found =
            texts(claims.get("aud")).ok_or_else(|| wrong("aud", "must be a text or a list of texts"))?;
        if !found.contains(&self.issuer.audience) {
            return Err(JwtError::Audience { found, wanted: self.issuer.audience.clone() });
        }
        let time = |claim: &str| match claims.get(claim) {
            None => Ok(None),
            Some(value) => match seconds(value) {
                Some(seconds) => Ok(Some(seconds)),
                None => Err(wrong(claim, "must be a number of seconds since 1970")),
            },
        };
        let expires_s = time("exp")?.ok_or_else(|| wrong("exp", "is missing: a token must end some time"))?;
        not_over(expires_s, now)?;
        if let Some(begins_s) = time("nbf")?
            && begins_s > seconds_at(now).saturating_add(LEEWAY_S)
        {
            return Err(JwtError::NotYet(begins_s - seconds_at(now)));
        }
        Ok(moment(expires_s))
    }

    fn name(&self, claims: &Map<String, Value>) -> Result<String, JwtError> {
        let claim = &self.issuer.name_claim;
        let Some(name) = claims.get(claim) else {
            return Err(wrong(claim, "names the caller, and is missing"));
        };
        let name = name.as_str().ok_or_else(|| wrong(claim, "names the caller, and must be a text"))?;
        let whole = format!("{}{name}", self.issuer.prefix);
        if name.is_empty() || whole.len() > NAME_BYTES_MAX {
            return Err(wrong(claim, "names the caller, and must have 1 to 512 bytes"));
        }
        Ok(whole)
    }
}

fn wrong(claim: &str, problem: &'static str) -> JwtError {
    JwtError::Claim { claim: claim.to_owned(), problem }
}

/// A moment as a claim tells it, in whole seconds; what lies before 1970 is 1970. The latest is in the year 9999.
fn seconds(value: &Value) -> Option<u64> {
    const MAX: f64 = 253_402_300_799.0;
    // A claim may have a fraction (RFC 7519, NumericDate). A cast of floating point to a whole number saturates.
    value.as_f64().filter(|seconds| seconds.is_finite()).map(|seconds| seconds.clamp(0.0, MAX) as u64)
}

/// Refuses what has ended, as far as the clocks may be apart.
fn not_over(expires_s: u64, now: SystemTime) -> Result<(), JwtError> {
    let now_s = seconds_at(now);
    if now_s >= expires_s.saturating_add(LEEWAY_S) {
        return Err(JwtError::Expired(now_s - expires_s));
    }
    Ok(())
}

fn seconds_at(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The moment so many seconds after the epoch.
pub(crate) fn moment(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A claim that may be one text or a list of them.
fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    match value? {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Audiences as a sentence names them.
pub(crate) fn audiences(found: &[String]) -> String {
    match found {
        [] => "nobody".to_owned(),
        [one] => format!("`{}`", shown(one)),
        [one, rest @ ..] => format!("`{}` and {} more", shown(one), rest.len()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
