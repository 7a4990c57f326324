//! Makes the certificates that are due, and writes them into the two Secrets of an object.
//!
//! The authority is written first: if this is cut off in between, the next look finds an authority that is not trusted yet, and goes on
//! from there. A Secret that was seen is changed only as it was seen, so nothing of another hand is lost.

use super::{ApplyError, failed};
use crate::cluster::build::build_secret_metadata;
use crate::cluster::certificates::{
    AUTHORITY_FILE, AUTHORITY_KEY_FILE, AUTHORITY_SECONDS, BACKDATED_SECONDS, CERTIFICATE_SECONDS, Holder,
    Orders,
};
use crate::cluster::observation::Observation;
use crate::cluster::validate::Asked;
use crate::names::{self, MANAGER};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Files of a Secret that change; absent: they go.
type Files = BTreeMap<String, Option<String>>;

/// An authority that signs.
struct Authority {
    certificate: String,
    key: String,
}

/// Makes what is due. What the API server says of a Secret that was changed meanwhile is a race like any other.
///
/// # Errors
/// The first call that the API server refused.
pub async fn certify(
    client: &Client,
    asked: &Asked,
    seen: &Observation,
    orders: &Orders,
) -> Result<(), ApplyError> {
    let made = seen.own_certificates.clone().unwrap_or_default();
    let strange = |error: rcgen::Error| {
        let error = kube::Error::Service(Box::new(error));
        failed::<Secret>("make the certificates of", &names::node_tls(&asked.name), error)
    };
    let authority = if orders.authority {
        let authority = make_authority(asked, seen.now_seconds).map_err(strange)?;
        let files = [(AUTHORITY_FILE, &authority.certificate), (AUTHORITY_KEY_FILE, &authority.key)];
        let files = files.map(|(file, text)| (file.to_owned(), Some(text.clone()))).into();
        write(client, asked, &names::node_ca(&asked.name), made.of_authority.as_ref(), &files).await?;
        Some(authority)
    } else {
        if orders.adopt {
            let name = names::node_ca(&asked.name);
            write(client, asked, &name, made.of_authority.as_ref(), &Files::new()).await?;
        }
        made.authority.as_ref().map(|authority| Authority {
            certificate: authority.pem.clone(),
            key: made.key.open().to_owned(),
        })
    };
    let Some(authority) = authority else { return Ok(()) };
    let mut files = Files::new();
    let kept = made.trusted.iter().filter(|trusted| !orders.forget.contains(&trusted.id));
    let mut trusted: String = kept.map(|trusted| trusted.pem.as_str()).collect();
    if !trusted.contains(authority.certificate.trim()) {
        trusted.push_str(&authority.certificate);
    }
    files.insert(AUTHORITY_FILE.to_owned(), Some(trusted));
    for holder in &orders.issue {
        let (certificate, key) = issue(&authority, holder, seen.now_seconds).map_err(strange)?;
        files.insert(format!("{}.crt", holder.name), Some(certificate));
        files.insert(format!("{}.key", holder.name), Some(key));
    }
    for holder in &orders.drop {
        files.extend(["crt", "key"].map(|kind| (format!("{holder}.{kind}"), None)));
    }
    write(client, asked, &names::node_tls(&asked.name), made.of_pods.as_ref(), &files).await
}

/// Makes a Secret with these files, or changes them in the one that was seen.
async fn write(
    client: &Client,
    asked: &Asked,
    name: &str,
    seen: Option<&(String, String)>,
    files: &Files,
) -> Result<(), ApplyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &asked.namespace);
    let metadata = build_secret_metadata(asked, name.to_owned());
    let bytes = |text: &String| ByteString(text.clone().into_bytes());
    let Some((uid, version)) = seen else {
        let data =
            files.iter().filter_map(|(file, text)| Some((file.clone(), bytes(text.as_ref()?)))).collect();
        let secret = Secret { metadata, data: Some(data), ..Secret::default() };
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        return api
            .create(&params, &secret)
            .await
            .map(drop)
            .map_err(|error| failed::<Secret>("make", name, error));
    };
    let data: Map<String, Value> =
        files.iter().map(|(file, text)| (file.clone(), json!(text.as_ref().map(bytes)))).collect();
    let metadata = json!({"uid": uid, "resourceVersion": version, "labels": metadata.labels,
                          "ownerReferences": metadata.owner_references});
    let patch = json!({"metadata": metadata, "data": data});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patched = api.patch(name, &params, &Patch::Merge(patch)).await;
    patched.map(drop).map_err(|error| failed::<Secret>("change", name, error))
}

/// An authority that begins now. Its name says of which object it is, and since when, for whoever looks at it.
fn make_authority(asked: &Asked, now: i64) -> Result<Authority, rcgen::Error> {
    let mut params = lasting(now, AUTHORITY_SECONDS);
    params.distinguished_name =
        named(&format!("RaftQueue {}", asked.name), &format!("{} {now}", asked.namespace));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pair = KeyPair::generate()?;
    Ok(Authority { certificate: params.self_signed(&pair)?.pem(), key: pair.serialize_pem() })
}

/// A certificate for a node or for the operator, and its key: good for servers and clients alike.
fn issue(authority: &Authority, holder: &Holder, now: i64) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(holder.names.clone())?;
    let CertificateParams { not_before, not_after, .. } = lasting(now, CERTIFICATE_SECONDS);
    (params.not_before, params.not_after) = (not_before, not_after);
    params.distinguished_name = named(&holder.name, "RaftQueue");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let pair = KeyPair::generate()?;
    Ok((params.signed_by(&pair, &issuer)?.pem(), pair.serialize_pem()))
}

/// Begins a little before now, and lasts so long from now.
fn lasting(now: i64, seconds: i64) -> CertificateParams {
    let at =
        |moment: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(moment).unwrap_or(0));
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (at(now - BACKDATED_SECONDS), at(now + seconds));
    params
}

fn named(common: &str, organization: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name.push(DnType::OrganizationName, organization);
    name
}

#[cfg(test)]
mod tests;
