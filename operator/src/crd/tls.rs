//! What is encrypted, by whose certificates, and where it is written who may do what.

use super::schema;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Greatest length of the name of an object of Kubernetes, in characters.
const NAME_LENGTH_MAX: usize = 253;

/// Encryption of the nodes' ports.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::without_null)]
#[x_kube(
    validation = Rule::new("self.mode != 'Secret' || has(self.secretName)").message(
        "tls.mode Secret needs tls.secretName: the Secret that has tls.crt, tls.key and ca.crt"
    ),
    validation = Rule::new("self.mode == 'Secret' || !has(self.secretName)").message(
        "tls.secretName is for tls.mode Secret: set that, or leave the name out, since in the other modes the Secret is made"
    ),
    validation = Rule::new("self.mode != 'CertManager' || has(self.issuerRef)").message(
        "tls.mode CertManager needs tls.issuerRef: the Issuer or ClusterIssuer that signs"
    ),
    validation = Rule::new("self.mode == 'CertManager' || !has(self.issuerRef)").message(
        "tls.issuerRef is for tls.mode CertManager: set that, or leave the issuer out"
    ),
    validation = Rule::new("self.mode != 'Off' || self.clients == 'Off'").message(
        "tls.clients needs certificates, and tls.mode Off has none: set tls.mode to Auto, Secret or CertManager"
    )
)]
pub struct Tls {
    /// Whose certificates the nodes have. Auto: the operator makes a CA and certificates and renews them. Secret: those of
    /// `secretName`. CertManager: cert-manager makes them. Off: none, everything is in the open. In every mode but Off peers
    /// encrypt and prove to each other who they are. A change restarts the pods, one at a time and the leader last, once for each
    /// of the stages Off, Optional and Required; to certificates of another kind it goes by way of Off.
    #[serde(default)]
    pub mode: TlsMode,

    /// The Secret of mode Secret, in the same namespace, with `tls.crt`, `tls.key` and `ca.crt`. The certificate must be good for
    /// servers and for clients, and for the name of every node: `*.NAME-headless.NAMESPACE.svc`. What is renewed in it needs no
    /// restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_LENGTH_MAX))]
    pub secret_name: Option<String>,

    /// Who signs in mode CertManager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,

    /// What clients speak at ports 7420 and 7422. Off: plain. Optional: either. Required: TLS only, but for the probes of Kubernetes.
    /// For clients that exist, set Optional first and Required once all of them speak TLS. They need the CA, which is `ca.crt` in the
    /// ConfigMap `NAME-config`.
    #[serde(default)]
    pub clients: TlsStage,
}

/// Whose certificates the nodes have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// Nobody's: there are none.
    Off,
    /// The operator's.
    #[default]
    Auto,
    /// Those of a Secret that somebody else fills.
    Secret,
    /// Those of cert-manager.
    CertManager,
}

/// What a port speaks; the stages are passed in this order, and each understands its neighbours.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum TlsStage {
    /// Plain only.
    #[default]
    Off,
    /// Either.
    Optional,
    /// TLS only.
    Required,
}

impl TlsStage {
    /// All of them, in their order.
    const ALL: [Self; 3] = [Self::Off, Self::Optional, Self::Required];

    /// The stage as the flags of a node have it.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }

    /// The stage of this flag; absent for any other word.
    #[must_use]
    pub fn of_flag(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.flag() == word)
    }

    /// The stage next to this one on the way to that one; that one itself if there is none between.
    #[must_use]
    pub fn towards(self, other: Self) -> Self {
        if self.is_near(other) { other } else { Self::Optional }
    }

    /// Whether the two understand each other: they are the same, or neighbours.
    #[must_use]
    pub fn is_near(self, other: Self) -> bool {
        (self as u8).abs_diff(other as u8) <= 1
    }
}

/// An issuer of cert-manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = NAME_LENGTH_MAX))]
    pub name: String,
    /// Its kind: Issuer, or ClusterIssuer.
    #[serde(default = "issuer_kind_default")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its group.
    #[serde(default = "issuer_group_default")]
    #[schemars(length(min = 1, max = NAME_LENGTH_MAX))]
    pub group: String,
}

fn issuer_kind_default() -> String {
    "Issuer".to_owned()
}

fn issuer_group_default() -> String {
    "cert-manager.io".to_owned()
}

/// Where it is written who may do what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::without_null)]
pub struct Auth {
    /// The ConfigMap whose key `auth.yaml` has roles and grants. Whoever none of them names may do nothing. A change of it needs no
    /// restart.
    #[schemars(length(min = 1, max = NAME_LENGTH_MAX))]
    pub config_map_name: String,

    /// The Secret whose key `tokens` has the hashed tokens of clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_LENGTH_MAX))]
    pub tokens_secret_name: Option<String>,

    /// Gives the nodes a token of their service account, with which they ask Kubernetes whose a client's token is. Their service
    /// account, which has the name of the RaftQueue, needs the role `system:auth-delegator` for that.
    #[serde(default)]
    pub token_review: bool,
}

/// What is encrypted, as pods are made now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::without_null)]
pub struct TlsStatus {
    /// Whose certificates: Off, Auto, Secret or CertManager. Where `spec.tls` is left out it stays what it is.
    pub mode: String,

    /// The Secret that they are in; absent in mode Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,

    /// What peers speak: Off, Optional or Required.
    pub peers: String,

    /// What clients speak: Off, Optional or Required.
    pub clients: String,

    /// When the first of the certificates runs out, unless it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_reached_by_way_of_those_between() {
        use TlsStage::{Off, Optional, Required};
        for (from, to, next) in [
            (Off, Required, Optional),
            (Required, Off, Optional),
            (Off, Optional, Optional),
            (Optional, Required, Required),
            (Optional, Off, Off),
            (Off, Off, Off),
        ] {
            assert_eq!(from.towards(to), next, "{from:?} {to:?}");
        }
        assert!(!Off.is_near(Required) && !Required.is_near(Off) && Optional.is_near(Off));
        for stage in TlsStage::ALL {
            assert_eq!(TlsStage::of_flag(stage.flag()), Some(stage));
        }
        assert_eq!(TlsStage::of_flag("Required"), None);
    }
}
