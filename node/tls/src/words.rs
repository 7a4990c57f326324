//! What went wrong in a handshake, for people.

use crate::identity::words;
use rustls::{AlertDescription, CertificateError, Error};
use std::io;

/// Why a connection by TLS broke, in words, if TLS had to do with it: any error in the chain of causes counts.
#[must_use]
pub fn explained(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(explain(found));
        }
        // What an error of input and output carries is not its source but itself.
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = carried.and_then(|carried| carried.downcast_ref::<Error>()) {
            return Some(explain(found));
        }
        cause = error.source();
    }
    None
}

/// True if the other end does not speak TLS at all, or has gone: what a server without TLS answers to a handshake.
#[must_use]
pub fn speaks_no_tls(error: &io::Error) -> bool {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => matches!(error, Error::InvalidMessage(_)),
        None => [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset].contains(&error.kind()),
    }
}

/// What this error of TLS means, and for whom.
#[must_use]
pub fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::NoCertificatesPresented => "it showed no certificate".into(),
        Error::InvalidMessage(_) => "it does not speak TLS".into(),
        Error::PeerIncompatible(error) => format!("it speaks another TLS: {error:?}"),
        Error::UnsupportedNameType => "its host is no name that a certificate can have".into(),
        error => error.to_string(),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    let seconds = |later: rustls::pki_types::UnixTime, earlier: rustls::pki_types::UnixTime| {
        words(std::time::Duration::from_secs(later.as_secs().saturating_sub(earlier.as_secs())))
    };
    match error {
        CertificateError::Expired => "its certificate has expired".into(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("its certificate expired {} ago", seconds(*time, *not_after))
        }
        CertificateError::NotValidYet => "its certificate is not valid yet".into(),
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("its certificate is not valid before {} from now", seconds(*not_before, *time))
        }
        CertificateError::NotValidForName => "its certificate is for another host".into(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = match &presented[..] {
                [] => "nobody".to_owned(),
                names => names.join(", "),
            };
            format!("its certificate is not for {} but for {presented}", expected.to_str())
        }
        CertificateError::UnknownIssuer => {
            "its certificate was issued by no authority that is trusted here: see the file of authorities"
                .into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate may not be used for that: its extended key usage says so".into()
        }
        CertificateError::BadSignature => "its certificate has a wrong signature".into(),
        error => format!("its certificate is not accepted: {error:?}"),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "it wants a certificate, and none was shown".into(),
        AlertDescription::UnknownCA => "it does not trust the authority of our certificate".into(),
        AlertDescription::CertificateExpired => "it says that our certificate has expired".into(),
        AlertDescription::BadCertificate | AlertDescription::UnsupportedCertificate => {
            "it does not accept our certificate".into()
        }
        AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => {
            "it speaks another TLS, or none".into()
        }
        alert => format!("it ended the handshake: {alert:?}"),
    }
}
