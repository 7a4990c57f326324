//! What is in the Secrets with certificates. They are read by their names, and only where an object asks for them: nothing watches
//! Secrets. Bytes of others are only read here, and what is wrong with them is told.

use super::{of_others, ownership};
use crate::cluster::build::Certificate;
use crate::cluster::certificates::{AUTHORITY_FILE, AUTHORITY_KEY_FILE, OPERATOR};
use crate::cluster::encryption::{Encryption, Source, kept, sources};
use crate::cluster::observation::{
    AuthoritySeen, CertificateSeen, Child, ChildSeen, Credentials, Observation, OwnMade, Ownership, Sealed,
    SecretSeen,
};
use crate::cluster::validate::Asked;
use crate::names;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use rcgen::{KeyPair, PublicKeyData};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;

/// Most certificates that are read from a file of authorities, and most names that are read from a certificate.
const LIST_MAX: usize = 64;
/// The files of a Secret that somebody else fills.
const FILES: [&str; 3] = ["tls.crt", "tls.key", AUTHORITY_FILE];

/// Looks at what pods have, or are to have, and at what the operator shows to nodes.
pub(super) async fn look(
    client: &Client,
    asked: &Asked,
    seen: &mut Observation,
    template: Option<&Encryption>,
) -> Result<(), kube::Error> {
    let of_pods = kept(asked, seen, template).and_then(|kept| kept.source);
    for source in sources(asked, seen, template) {
        let is_of_pods = of_pods.as_ref() == Some(&source);
        let name = source.secret(&asked.name);
        let secret = secret(client, asked, &name).await?;
        if is_of_pods && let Some(secret) = &secret {
            seen.authorities = text(secret, AUTHORITY_FILE).map(str::to_owned);
            seen.way.credentials = credentials(secret, &source);
        }
        if source == Source::CertManager {
            let (kind, found) = of_others::<Certificate>(client, &asked.namespace, &name).await?;
            seen.certificates = kind;
            if let Some(found) = &found {
                remember(asked, seen, Child::Certificate, found);
            }
        }
        if source == Source::Auto {
            let authority = self::secret(client, asked, &names::node_ca(&asked.name)).await?;
            for (child, found) in [(Child::NodeTls, &secret), (Child::NodeCa, &authority)] {
                if let Some(found) = found {
                    remember(asked, seen, child, &found.metadata);
                }
            }
            seen.own_certificates = Some(own_made(asked, secret.as_ref(), authority.as_ref()));
        } else {
            seen.secrets.insert(name, secret.as_ref().map_or(SecretSeen::Missing, see));
        }
    }
    Ok(())
}

async fn secret(client: &Client, asked: &Asked, name: &str) -> Result<Option<Secret>, kube::Error> {
    Api::<Secret>::namespaced(client.clone(), &asked.namespace).get_opt(name).await
}

fn remember(asked: &Asked, seen: &mut Observation, child: Child, found: &ObjectMeta) {
    let owner = ownership(asked, found);
    let (holder, uid) = (super::holder(found), found.uid.clone().unwrap_or_default());
    seen.fingerprints.insert(child, super::Fingerprint::of(found));
    seen.children.insert(child, ChildSeen { owner, holder, uid, cluster_id: None, template: None });
}

fn text<'a>(secret: &'a Secret, file: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(file)?.0).ok()
}

/// What the operator shows to nodes that have this.
fn credentials(secret: &Secret, source: &Source) -> Option<Credentials> {
    let holder = if source.is_by_node() { OPERATOR } else { "tls" };
    Some(Credentials {
        authorities: text(secret, AUTHORITY_FILE)?.to_owned(),
        certificate: text(secret, &format!("{holder}.crt"))?.to_owned(),
        key: Sealed::of(text(secret, &format!("{holder}.key"))?.to_owned()),
    })
}

/// What is in a Secret that somebody else fills.
fn see(secret: &Secret) -> SecretSeen {
    let lacks: Vec<&str> = FILES
        .into_iter()
        .filter(|file| text(secret, file).is_none_or(|text| text.trim().is_empty()))
        .collect();
    if !lacks.is_empty() {
        return SecretSeen::Unusable(format!("it lacks {}", lacks.join(" and ")));
    }
    let [certificate, key, authorities] = FILES.map(|file| text(secret, file).unwrap_or_default());
    let found = match certificates(certificate) {
        Ok(all) => all,
        Err(why) => return SecretSeen::Unusable(format!("tls.crt: {why}")),
    };
    if let Err(why) = certificates(authorities) {
        return SecretSeen::Unusable(format!("ca.crt: {why}"));
    }
    if !key.contains("PRIVATE KEY-----") {
        return SecretSeen::Unusable("tls.key is no private key in PEM".to_owned());
    }
    let Some((seen, public, _)) = found.into_iter().next() else {
        return SecretSeen::Unusable("tls.crt has no certificate".to_owned());
    };
    // A key of a kind that is not known here is for the nodes to judge.
    match KeyPair::from_pem(key) {
        Ok(pair) if pair.der_bytes() != public.as_slice() => {
            SecretSeen::Unusable("tls.key is not the key of the certificate in tls.crt".to_owned())
        }
        _ => SecretSeen::Usable(seen),
    }
}

/// What is there of the certificates that the operator makes. What cannot be read counts as not there, and is made anew.
fn own_made(asked: &Asked, of_pods: Option<&Secret>, of_authority: Option<&Secret>) -> OwnMade {
    let id =
        |secret: &Secret| (secret.uid().unwrap_or_default(), secret.resource_version().unwrap_or_default());
    let is_orphan = |secret: &&Secret| ownership(asked, &secret.metadata) == Ownership::Orphan;
    let mut made = OwnMade {
        secret: names::node_tls(&asked.name),
        of_pods: of_pods.map(id),
        of_authority: of_authority.map(id),
        is_left_behind: of_pods.into_iter().chain(of_authority).any(|secret| is_orphan(&secret)),
        ..OwnMade::default()
    };
    if let Some((found, key)) = of_authority.and_then(signing) {
        (made.authority, made.key) = (Some(found), Sealed::of(key));
    }
    let Some(secret) = of_pods else { return made };
    let trusted = text(secret, AUTHORITY_FILE).and_then(|text| certificates(text).ok()).unwrap_or_default();
    made.trusted = trusted.iter().map(|(seen, _, pem)| AuthoritySeen::of(seen, pem)).collect();
    let files = secret.data.iter().flat_map(BTreeMap::keys);
    for holder in files.filter_map(|file| file.strip_suffix(".crt")).filter(|holder| *holder != "ca") {
        let pair = text(secret, &format!("{holder}.key")).and_then(|key| KeyPair::from_pem(key).ok());
        let found = text(secret, &format!("{holder}.crt")).and_then(|text| certificates(text).ok());
        if let (Some(pair), Some((seen, public, _))) = (pair, found.and_then(|all| all.into_iter().next()))
            && pair.der_bytes() == public.as_slice()
        {
            made.certificates.insert(holder.to_owned(), seen);
        }
    }
    made
}

/// The authority of this Secret with its key, if that fits.
fn signing(secret: &Secret) -> Option<(AuthoritySeen, String)> {
    let key = text(secret, AUTHORITY_KEY_FILE)?;
    let pair = KeyPair::from_pem(key).ok()?;
    let (seen, public, pem) = certificates(text(secret, AUTHORITY_FILE)?).ok()?.into_iter().next()?;
    (pair.der_bytes() == public.as_slice()).then(|| (AuthoritySeen::of(&seen, &pem), key.to_owned()))
}

/// The certificates of a file, each with the bits of its public key and as PEM of its own.
///
/// # Errors
/// In words, what of it cannot be read.
fn certificates(file: &str) -> Result<Vec<(CertificateSeen, Vec<u8>, String)>, String> {
    let mut all = Vec::new();
    let mut rest = file;
    while let Some((block, behind)) = next_block(rest) {
        if all.len() >= LIST_MAX {
            return Err(format!("it has more than {LIST_MAX} certificates"));
        }
        rest = behind;
        let (_, pem) = parse_x509_pem(block.as_bytes()).map_err(|error| format!("it is no PEM: {error}"))?;
        let read = pem.parse_x509().map_err(|error| format!("a certificate cannot be read: {error}"))?;
        let mut seen = CertificateSeen {
            not_before: read.validity().not_before.timestamp(),
            not_after: read.validity().not_after.timestamp(),
            ..CertificateSeen::default()
        };
        for extension in read.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => seen.id = hexadecimal(id.0),
                ParsedExtension::AuthorityKeyIdentifier(by) => {
                    seen.issuer = by.key_identifier.as_ref().map(|id| hexadecimal(id.0)).unwrap_or_default();
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    seen.names = names.general_names.iter().take(LIST_MAX).filter_map(name).collect();
                }
                _ => {}
            }
        }
        // One that signs itself need not say by whom it is signed.
        if seen.issuer.is_empty() && read.issuer() == read.subject() {
            seen.issuer.clone_from(&seen.id);
        }
        let public = read.public_key().subject_public_key.data.to_vec();
        all.push((seen, public, format!("{block}\n")));
    }
    if all.is_empty() { Err("it has no certificate in PEM".to_owned()) } else { Ok(all) }
}

/// The next certificate of a file, as it stands there, and what stands behind it.
fn next_block(file: &str) -> Option<(&str, &str)> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let begun = &file[file.find(BEGIN)?..];
    let length = begun.find(END)? + END.len();
    Some(begun.split_at(length))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            bytes => {
                <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string())
            }
        },
        _ => None,
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests;
