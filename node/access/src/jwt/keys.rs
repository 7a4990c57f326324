//! Public keys of an issuer: a JWK set (RFC 7517).

use super::JwtError;
use crate::words::shown;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Size of the file, in bytes.
pub(crate) const KEYS_BYTES_MAX: usize = 1 << 20;
/// Keys of a file; issuers have two or three.
const KEYS_MAX: usize = 256;
/// Bits of a key for RSA: fewer are too weak, more are not checked by ring.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// The keys of an issuer that can check signatures.
#[derive(Debug)]
pub struct Keys(Vec<Key>);

/// Why a file has no keys of an issuer; whoever wrote it must mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeysError(String);

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    kid: Option<String>,
    /// The only algorithm that it is for, if it says so.
    only: Option<Algorithm>,
    public: Public,
}

#[derive(Debug)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// How a token may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    pub(super) const ALL: [Algorithm; 9] = [
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
    ];

    /// The algorithm of this name, if it counts.
    pub(super) fn named(name: &str) -> Option<Self> {
        // RFC 9864 gives EdDSA with this curve a name of its own.
        let name = if name == "Ed25519" { "EdDSA" } else { name };
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::EdDsa => "EdDSA",
        }
    }
}

/// How ring checks it, with each kind of key.
enum Check {
    Rsa(&'static RsaParameters),
    Other(&'static dyn VerificationAlgorithm),
}

impl Key {
    /// How a signature by this algorithm is checked with this key; `None` if the key is of another type, or for another algorithm.
    fn check(&self, algorithm: Algorithm) -> Option<Check> {
        if self.only.is_some_and(|only| only != algorithm) {
            return None;
        }
        Some(match (&self.public, algorithm) {
            (Public::Rsa { .. }, Algorithm::Rs256) => Check::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            (Public::Rsa { .. }, Algorithm::Rs384) => Check::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            (Public::Rsa { .. }, Algorithm::Rs512) => Check::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            (Public::Rsa { .. }, Algorithm::Ps256) => Check::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            (Public::Rsa { .. }, Algorithm::Ps384) => Check::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            (Public::Rsa { .. }, Algorithm::Ps512) => Check::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            (Public::P256(_), Algorithm::Es256) => Check::Other(&signature::ECDSA_P256_SHA256_FIXED),
            (Public::P384(_), Algorithm::Es384) => Check::Other(&signature::ECDSA_P384_SHA384_FIXED),
            (Public::Ed25519(_), Algorithm::EdDsa) => Check::Other(&signature::ED25519),
            _ => return None,
        })
    }

    /// Whether this key made this signature by this algorithm.
    pub(super) fn verify(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        match (self.check(algorithm), &self.public) {
            (Some(Check::Rsa(parameters)), Public::Rsa { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok()
            }
            (Some(Check::Other(by)), Public::P256(point) | Public::P384(point) | Public::Ed25519(point)) => {
                UnparsedPublicKey::new(by, point).verify(signed, signature).is_ok()
            }
            _ => false,
        }
    }

    /// What it is for, as a message says it.
    fn purpose(&self) -> &'static str {
        match (self.only, &self.public) {
            (Some(only), _) => only.name(),
            (None, Public::Rsa { .. }) => "RS256 and others of RSA",
            (None, Public::P256(_)) => "ES256",
            (None, Public::P384(_)) => "ES384",
            (None, Public::Ed25519(_)) => "EdDSA",
        }
    }
}

impl Keys {
    /// Reads a JWK set. Keys of types that cannot check a token here, and keys for encryption, are passed over.
    ///
    /// # Errors
    /// What is wrong with the file, if none of its keys is of use, or if one of them is secret.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Map<String, Value>>,
        }
        if text.len() > KEYS_BYTES_MAX {
            let size = text.len();
            return Err(KeysError(format!("the file has {size} bytes, and may have {KEYS_BYTES_MAX}")));
        }
        let set: Set = serde_json::from_str(text).map_err(|error| {
            KeysError(format!("it must be a JWK set, {{\"keys\": [...]}}: {}", shown(&error.to_string())))
        })?;
        if set.keys.len() > KEYS_MAX {
            return Err(KeysError(format!("it has {} keys, and may have {KEYS_MAX}", set.keys.len())));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (position, jwk) in set.keys.iter().enumerate() {
            let named = match jwk.get("kid").and_then(Value::as_str) {
                Some(kid) => format!("key `{}`", shown(kid)),
                None => format!("key {}", position + 1),
            };
            if let Some(key) = key_of(jwk).map_err(|problem| KeysError(format!("{named} {problem}")))? {
                if key.kid.is_some() && keys.iter().any(|other| other.kid == key.kid) {
                    return Err(KeysError(format!("{named} stands there twice")));
                }
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return Err(KeysError(
                "none of its keys can check a token: keys of RSA, P-256, P-384 and Ed25519 for signatures can".into(),
            ));
        }
        Ok(Self(keys))
    }

    /// The key of this name, or the only one that fits if no name is said.
    pub(super) fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        issuer: &str,
    ) -> Result<&Key, JwtError> {
        let issuer = || issuer.to_owned();
        let key = match kid {
            Some(kid) => self
                .0
                .iter()
                .find(|key| key.kid.as_deref() == Some(kid))
                .ok_or_else(|| JwtError::NoKey { kid: kid.to_owned(), issuer: issuer() })?,
            None => {
                let fitting: Vec<&Key> = self.0.iter().filter(|key| key.check(algorithm).is_some()).collect();
                match fitting[..] {
                    [key] => key,
                    _ => return Err(JwtError::NoKeyNamed { fitting: fitting.len(), issuer: issuer() }),
                }
            }
        };
        match key.check(algorithm) {
            Some(_) => Ok(key),
            None => Err(JwtError::OtherAlgorithm { algorithm: algorithm.name(), key: key.purpose() }),
        }
    }
}

/// A key, `None` if it is of no use here, or what is wrong with it.
fn key_of(jwk: &Map<String, Value>) -> Result<Option<Key>, String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if text("kty") == Some("oct") || ["d", "k"].iter().any(|part| jwk.contains_key(*part)) {
        return Err("is secret and must not be in this file, which has public keys: make another, this one is known now".into());
    }
    if text("use").is_some_and(|used| used != "sig") {
        return Ok(None);
    }
    let only = match text("alg") {
        Some(name) => match Algorithm::named(name) {
            Some(algorithm) => Some(algorithm),
            None => return Ok(None),
        },
        None => None,
    };
    let bytes = |name: &str| {
        let bytes = text(name).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(|| format!("has no `{name}` in base64url"))
    };
    let sized = |name: &str, size: usize| match bytes(name)? {
        bytes if bytes.len() == size => Ok(bytes),
        bytes => Err(format!("has {} bytes in `{name}`, and must have {size}", bytes.len())),
    };
    let point = |size: usize| -> Result<Vec<u8>, String> {
        Ok([vec![4], sized("x", size)?, sized("y", size)?].concat())
    };
    let public = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => {
            // Some issuers write a zero in front, which ring does not take.
            let trimmed =
                |bytes: Vec<u8>| -> Vec<u8> { bytes.into_iter().skip_while(|byte| *byte == 0).collect() };
            let (n, e) = (trimmed(bytes("n")?), trimmed(bytes("e")?));
            let bits = n.first().map_or(0, |first| 8 * n.len() - first.leading_zeros() as usize);
            if !RSA_BITS.contains(&bits) {
                return Err(format!(
                    "has {bits} bits, and must have {} to {}",
                    RSA_BITS.start(),
                    RSA_BITS.end()
                ));
            }
            Public::Rsa { n, e }
        }
        (Some("EC"), Some("P-256")) => Public::P256(point(32)?),
        (Some("EC"), Some("P-384")) => Public::P384(point(48)?),
        (Some("OKP"), Some("Ed25519")) => Public::Ed25519(sized("x", 32)?),
        _ => return Ok(None),
    };
    Ok(Some(Key { kid: text("kid").map(str::to_owned), only, public }))
}
