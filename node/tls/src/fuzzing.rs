//! What is asked of certificates and keys in files when they are fuzzed, by a target of `tests/fuzz`.

use crate::files::Texts;
use crate::{Files, Identity, Keys};
use rustls::pki_types::CertificateDer;
use std::time::{Duration, SystemTime};

/// What stands between the texts of an input; no PEM has it.
const BETWEEN: u8 = 0;

const CERTIFICATE: &[u8] = include_bytes!("fuzzing/node.crt");
const KEY: &[u8] = include_bytes!("fuzzing/node.key");
const AUTHORITY: &[u8] = include_bytes!("fuzzing/ca.crt");

/// Certificates: the first byte says whether a bare one follows, as it comes in a handshake, or the texts of three files: a certificate,
/// its key, the authorities.
///
/// # Panics
/// Where a decoder panics, a file is refused without a word, or what is said moves the cursor of a terminal.
pub fn certificates(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    if kind % 4 == 3 {
        if let Some(identity) = Identity::read(&CertificateDer::from(rest.to_vec())) {
            asked(&identity);
        }
        return;
    }
    let mut texts = rest.split(|byte| *byte == BETWEEN).map(<[u8]>::to_vec);
    let mut next = || texts.next().unwrap_or_default();
    let (certificate, key, authorities) = (next(), next(), next());
    let own = (kind % 4 != 2).then_some((certificate, key));
    let files = Files {
        own: own.is_some().then(|| ("node.crt".into(), "node.key".into())),
        authorities: Some("ca.crt".into()),
        client_authorities: None,
    };
    match Keys::of_texts(files, Texts::of(own, authorities), kind % 4 == 0) {
        Ok(keys) => {
            if let Some(identity) = keys.identity() {
                asked(&identity);
            }
            let _ = keys.trouble(at(0)).map(|trouble| is_said(&trouble.to_string()));
        }
        Err(error) => is_said(&error.to_string()),
    }
}

/// All that is ever asked of a name.
fn asked(identity: &Identity) {
    is_said(&identity.told());
    for seconds in [0, 1_800_000_000, 1 << 40] {
        let _ = identity.trouble(at(seconds)).map(|trouble| is_said(&trouble));
    }
    let _ = (identity.expires(), identity.name());
    assert!(!(identity.is_valid_for("") || identity.is_beneath("")), "it is valid for nothing");
}

/// Whoever runs the process reads it.
fn is_said(text: &str) {
    assert!(!text.is_empty(), "it is refused without a word");
    assert!(!text.contains(char::is_control), "{text:?} moves the cursor");
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What fuzzing begins with: target, name, bytes.
#[must_use]
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let files = |kind: u8, texts: &[&[u8]]| [&[kind], texts.join(&BETWEEN).as_slice()].concat();
    vec![
        ("certificates", "node", files(0, &[CERTIFICATE, KEY, AUTHORITY])),
        ("certificates", "client", files(1, &[CERTIFICATE, KEY, AUTHORITY])),
        ("certificates", "authorities", files(2, &[b"", b"", &[AUTHORITY, CERTIFICATE].concat()])),
        ("certificates", "no-key", files(0, &[CERTIFICATE, CERTIFICATE, AUTHORITY])),
        ("certificates", "bare", [&[3], bare().as_slice()].concat()),
    ]
}

/// The certificate as it comes in a handshake.
fn bare() -> Vec<u8> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(CERTIFICATE).map(|certificate| certificate.to_vec()).unwrap_or_default()
}
