//! What encrypts: the arguments and the volumes of a pod, and what cert-manager is asked for.
//!
//! The probes stay as they are: a node answers them in the open whatever it speaks.

use super::child;
use crate::cluster::encryption::{Encryption, Source};
use crate::cluster::plan::Shape;
use crate::cluster::validate::Asked;
use crate::crd::{Auth, IssuerRef, TlsStage};
use crate::names;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, DownwardAPIProjection, DownwardAPIVolumeFile, EnvVar,
    KeyToPath, ObjectFieldSelector, ProjectedVolumeSource, SecretVolumeSource, ServiceAccountTokenProjection,
    Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// Where a node finds its certificate.
const TLS_PATH: &str = "/etc/raftqueue-tls";
/// Where it finds who may do what.
const AUTH_PATH: &str = "/etc/raftqueue-auth";
const AUTH_FILE: &str = "auth.yaml";
/// Where it finds the tokens of clients.
const TOKENS_PATH: &str = "/etc/raftqueue-tokens";
const TOKENS_FILE: &str = "tokens";
const TOKENS_VOLUME: &str = "tokens";
/// Where every client of Kubernetes looks for its token.
const ACCOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ACCOUNT_VOLUME: &str = "service-account";
/// How long such a token lasts, in seconds, as in pods that get one by default. It is renewed in time.
const ACCOUNT_TOKEN_SECONDS: i64 = 3_607;
/// The pod's group may read keys, and nobody else.
const SECRET_MODE: i32 = 0o440;
/// Everybody in the pod may read the rest.
const OPEN_MODE: i32 = 0o444;
/// How long a certificate of cert-manager lasts, and how long before its end it is renewed: ninety days, and a third of that.
const DURATION: (&str, &str) = ("2160h0m0s", "720h0m0s");

/// What cert-manager is asked for; the part of the kind that is used here.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cert-manager.io",
    version = "v1",
    kind = "Certificate",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSpec {
    /// The Secret that is filled.
    pub secret_name: String,
    /// Who signs.
    pub issuer_ref: IssuerRef,
    /// What it is for.
    pub dns_names: Vec<String>,
    /// What it may be used for.
    pub usages: Vec<String>,
    /// How long it lasts.
    pub duration: String,
    /// How long before its end it is renewed.
    pub renew_before: String,
    /// Its key.
    pub private_key: PrivateKey,
}

/// The key of a certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrivateKey {
    /// Its kind.
    pub algorithm: String,
    /// Its size, in bits.
    pub size: i32,
    /// When it is made anew.
    pub rotation_policy: String,
}

/// The certificate for all nodes: they share it, by a wildcard.
pub(super) fn build_certificate(asked: &Asked, shape: &Shape) -> Option<Certificate> {
    let issuer_ref = asked.spec.tls.as_ref().and_then(|tls| tls.issuer_ref.clone())?;
    // It is asked for before the pods are made to have it.
    shape.is_asked_of_cert_manager.then(|| {
        let domain = names::domain(&asked.name, &asked.namespace);
        let service = format!("{}.{}.svc", asked.name, asked.namespace);
        let both = |name: String| [name.clone(), format!("{name}.cluster.local")];
        let mut dns_names: Vec<String> = both(format!("*.{domain}")).into();
        dns_names.extend(both(service));
        dns_names.extend([
            format!("{}.{}", asked.name, asked.namespace),
            asked.name.clone(),
            "localhost".into(),
        ]);
        Certificate {
            metadata: child(asked, names::cert_manager(&asked.name)),
            spec: CertificateSpec {
                secret_name: names::cert_manager(&asked.name),
                issuer_ref,
                dns_names,
                usages: ["digital signature", "server auth", "client auth"].map(str::to_owned).into(),
                duration: DURATION.0.into(),
                renew_before: DURATION.1.into(),
                private_key: PrivateKey {
                    algorithm: "ECDSA".into(),
                    size: 256,
                    rotation_policy: "Always".into(),
                },
            },
        }
    })
}

/// Metadata of a Secret that the operator fills.
#[must_use]
pub fn build_secret_metadata(asked: &Asked, name: String) -> ObjectMeta {
    child(asked, name)
}

/// The arguments of a node that is made like that; none where all is open.
pub(super) fn encryption_arguments(encryption: &Encryption) -> Vec<String> {
    let mut all = Vec::new();
    let mut say = |flag: &str, value: String| all.extend([flag.to_owned(), value]);
    if let Some(source) = &encryption.source {
        let [certificate, key, authorities] = files(source);
        say("--tls-cert-file", certificate);
        say("--tls-key-file", key);
        say("--tls-ca-file", authorities);
        say(names::PEERS_FLAG, encryption.peers.flag().to_owned());
        say(names::CLIENTS_FLAG, encryption.clients.flag().to_owned());
    }
    if let Some(auth) = &encryption.auth {
        say("--auth-file", format!("{AUTH_PATH}/{AUTH_FILE}"));
        if auth.tokens_secret_name.is_some() {
            say("--auth-tokens-file", format!("{TOKENS_PATH}/{TOKENS_FILE}"));
        }
    }
    all
}

/// What `raftq` in such a pod has in its environment, so that `kubectl exec POD -- raftq` goes on: it is the node, and may do what that may.
pub(super) fn encryption_variables(encryption: &Encryption) -> Vec<EnvVar> {
    let Some(source) = encryption.source.as_ref().filter(|_| encryption.clients != TlsStage::Off) else {
        return Vec::new();
    };
    let names = ["RAFTQ_CERT_FILE", "RAFTQ_KEY_FILE", "RAFTQ_CA_FILE"];
    let one =
        |(name, file): (&str, String)| EnvVar { name: name.into(), value: Some(file), value_from: None };
    names.into_iter().zip(files(source)).map(one).collect()
}

/// The certificate, the key and the authorities in a pod. Kubernetes puts in the name of the pod.
fn files(source: &Source) -> [String; 3] {
    let file = if source.is_by_node() { "$(RAFTQUEUE_NAME)" } else { "tls" };
    [format!("{TLS_PATH}/{file}.crt"), format!("{TLS_PATH}/{file}.key"), format!("{TLS_PATH}/ca.crt")]
}

/// The volumes of such a pod, and where they are mounted.
pub(super) fn encryption_volumes(asked: &Asked, encryption: &Encryption) -> Vec<(Volume, &'static str)> {
    let certificates = encryption
        .source
        .as_ref()
        .map(|source| (secret(names::TLS_VOLUME, source.secret(&asked.name)), TLS_PATH));
    let mut all: Vec<(Volume, &str)> = certificates.into_iter().collect();
    if let Some(auth) = &encryption.auth {
        all.extend(auth_volumes(auth));
    }
    all
}

fn auth_volumes(auth: &Auth) -> Vec<(Volume, &'static str)> {
    let grants = ConfigMapVolumeSource {
        name: auth.config_map_name.clone(),
        default_mode: Some(OPEN_MODE),
        ..ConfigMapVolumeSource::default()
    };
    let grants = Volume { name: names::AUTH_VOLUME.into(), config_map: Some(grants), ..Volume::default() };
    let mut all = vec![(grants, AUTH_PATH)];
    if let Some(tokens) = &auth.tokens_secret_name {
        all.push((secret(TOKENS_VOLUME, tokens.clone()), TOKENS_PATH));
    }
    if auth.token_review {
        all.push((account(), ACCOUNT_PATH));
    }
    all
}

fn secret(name: &str, secret: String) -> Volume {
    let source = SecretVolumeSource {
        secret_name: Some(secret),
        default_mode: Some(SECRET_MODE),
        ..SecretVolumeSource::default()
    };
    Volume { name: name.into(), secret: Some(source), ..Volume::default() }
}

/// A token of the nodes' service account, as pods get it that ask for none in particular.
fn account() -> Volume {
    let token = ServiceAccountTokenProjection {
        path: "token".into(),
        expiration_seconds: Some(ACCOUNT_TOKEN_SECONDS),
        audience: None,
    };
    let authorities = ConfigMapProjection {
        name: "kube-root-ca.crt".into(),
        items: Some(vec![KeyToPath { key: "ca.crt".into(), path: "ca.crt".into(), mode: None }]),
        optional: None,
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".into(),
        field_ref: Some(ObjectFieldSelector {
            field_path: "metadata.namespace".into(),
            ..ObjectFieldSelector::default()
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let projections = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(authorities), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    Volume {
        name: ACCOUNT_VOLUME.into(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(projections),
            default_mode: Some(SECRET_MODE),
        }),
        ..Volume::default()
    }
}
