//! Authorities and certificates for tests.

use crate::Files;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An authority, and a folder with its certificate and what it issues. Panics where there is no room for files.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
}

#[expect(clippy::missing_panics_doc, reason = "the type says it")]
impl Authority {
    /// A new one of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = folder.path().join("ca.crt");
        std::fs::write(&certificate, params.self_signed(&key).expect("a certificate").pem()).expect("room");
        Self { folder, issuer: Issuer::new(params, key), certificate }
    }

    /// The file with its certificate.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate for these names of DNS and addresses, and its key, in files of this name.
    pub fn issue(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let issued = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |kind: &str| self.folder.path().join(format!("{file}.{kind}"));
        std::fs::write(path("crt"), issued.pem()).expect("room");
        std::fs::write(path("key"), key.serialize_pem()).expect("room");
        (path("crt"), path("key"))
    }

    /// The files of somebody who has this certificate and trusts this authority.
    #[must_use]
    pub fn files(&self, own: Option<(PathBuf, PathBuf)>) -> Files {
        Files { own, authorities: Some(self.certificate.clone()), client_authorities: None }
    }
}
