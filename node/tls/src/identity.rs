//! Who a certificate says that somebody is.

use rustls::pki_types::{CertificateDer, ServerName};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use webpki::EndEntityCert;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What a certificate says. It was issued by an authority that is trusted, unless it is the own one.
#[derive(Clone, Debug)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
    uris: Vec<String>,
    common_name: Option<String>,
    begins: SystemTime,
    expires: SystemTime,
}

impl Identity {
    /// Reads a certificate; `None` if it is none.
    #[must_use]
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(certificate).ok()?;
        let mut identity = Self {
            certificate: certificate.clone().into_owned(),
            dns: Vec::new(),
            addresses: Vec::new(),
            uris: Vec::new(),
            common_name: read
                .subject()
                .iter_common_name()
                .next()
                .and_then(|name| name.as_str().ok())
                .map(str::to_owned),
            begins: time(read.validity().not_before.timestamp()),
            expires: time(read.validity().not_after.timestamp()),
        };
        let names = read.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => identity.dns.push(name.to_ascii_lowercase()),
                GeneralName::URI(uri) => identity.uris.push((*uri).to_owned()),
                GeneralName::IPAddress(bytes) => identity.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Some(identity)
    }

    /// What its owner is called: the first name of DNS in it, else the first URI, else its common name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let alternative = self.dns.first().or(self.uris.first()).or(self.common_name.as_ref());
        alternative.map(String::as_str)
    }

    /// True if whoever serves at this host, a name of DNS or an address, may show it. A `*` stands for one label.
    #[must_use]
    pub fn is_valid_for(&self, host: &str) -> bool {
        let Some(name) = server_name(host) else { return false };
        let read = EndEntityCert::try_from(&self.certificate);
        read.is_ok_and(|read| read.verify_is_valid_for_subject_name(&name).is_ok())
    }

    /// True if one of its names of DNS lies directly beneath this domain.
    #[must_use]
    pub fn is_beneath(&self, domain: &str) -> bool {
        let domain = domain.to_ascii_lowercase();
        self.dns.iter().any(|name| name.split_once('.').is_some_and(|(_, parent)| parent == domain))
    }

    /// When it becomes invalid.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// What is wrong with its dates at this time, if something is.
    #[must_use]
    pub fn trouble(&self, now: SystemTime) -> Option<String> {
        if let Ok(since) = now.duration_since(self.expires) {
            return Some(format!("the certificate expired {} ago", words(since)));
        }
        let until = self.begins.duration_since(now).ok()?;
        (until > Duration::ZERO)
            .then(|| format!("the certificate is not valid before {} from now", words(until)))
    }

    /// For whom it is, for people.
    #[must_use]
    pub fn told(&self) -> String {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let all: Vec<String> =
            self.dns.iter().cloned().chain(addresses).chain(self.uris.iter().cloned()).collect();
        match (&all[..], &self.common_name) {
            ([], Some(name)) => name.clone(),
            ([], None) => "nobody".into(),
            _ => all.join(", "),
        }
    }
}

/// A host as certificates name it: without the brackets of an address of IPv6, and without the dot at the end of a name.
pub(crate) fn server_name(host: &str) -> Option<ServerName<'static>> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.strip_suffix('.').unwrap_or(host).to_owned()).ok()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

fn time(seconds: i64) -> SystemTime {
    // Nothing is valid before 1970.
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// A time span in the largest unit of which there are two.
pub(crate) fn words(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7_200 => (seconds / 60, "minutes"),
        7_200..172_800 => (seconds / 3_600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit}")
}
