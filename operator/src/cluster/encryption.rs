//! What is encrypted: how pods are made, what they are to be made like, and the way from one to the other. PURE.
//!
//! A port speaks plain, either, or TLS only ([`TlsStage`]), and neighbours among these understand each other. So the pods are made for
//! the next stage only once each of them understands it, and restarts, one at a time, do the rest ([`crate::cluster::plan`]). How pods
//! are made now is remembered by their template; nothing here remembers anything.

use crate::cluster::observation::{Observation, SecretSeen};
use crate::cluster::validate::Asked;
use crate::crd::{Auth, Reason, Tls, TlsMode, TlsStage, TlsStatus};
use crate::names;
use serde::{Deserialize, Serialize};

/// Whose certificates the nodes have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The operator's.
    Auto,
    /// Those of this Secret.
    Secret(String),
    /// Those of cert-manager.
    CertManager,
}

impl Source {
    /// The Secret that pods mount, of an object of this name.
    #[must_use]
    pub fn secret(&self, object: &str) -> String {
        match self {
            Self::Auto => names::node_tls(object),
            Self::Secret(name) => name.clone(),
            Self::CertManager => names::cert_manager(object),
        }
    }

    /// The source of the Secret that a pod mounts.
    fn of_secret(object: &str, secret: &str) -> Self {
        match secret {
            own if own == names::node_tls(object) => Self::Auto,
            own if own == names::cert_manager(object) => Self::CertManager,
            other => Self::Secret(other.to_owned()),
        }
    }

    /// Whether each node has a certificate of its own.
    #[must_use]
    pub fn is_by_node(&self) -> bool {
        *self == Self::Auto
    }

    fn mode(&self) -> TlsMode {
        match self {
            Self::Auto => TlsMode::Auto,
            Self::Secret(_) => TlsMode::Secret,
            Self::CertManager => TlsMode::CertManager,
        }
    }
}

/// How pods are made. The default is open to everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// Whose certificates they have; absent where no port speaks TLS.
    pub source: Option<Source>,
    /// What peers speak.
    pub peers: TlsStage,
    /// What clients speak.
    pub clients: TlsStage,
    /// Where it is written who may do what; absent: everybody may do everything.
    pub auth: Option<Auth>,
}

/// How a pod was made, as its arguments and volumes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodEncryption {
    /// The Secret with its certificates.
    pub secret: Option<String>,
    /// What it speaks with peers.
    pub peers: TlsStage,
    /// What it speaks with clients.
    pub clients: TlsStage,
    /// Its node asks who may do what.
    pub has_auth: bool,
}

impl Encryption {
    /// Whether nothing is encrypted and everybody may do everything, as it was before there was a choice.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// As the status says it.
    #[must_use]
    pub fn status(&self, object: &str) -> TlsStatus {
        let mode = self.source.as_ref().map_or(TlsMode::Off, Source::mode);
        TlsStatus {
            mode: format!("{mode:?}"),
            secret_name: self.source.as_ref().map(|source| source.secret(object)),
            peers: format!("{:?}", self.peers),
            clients: format!("{:?}", self.clients),
            expires: None,
        }
    }

    /// What a status says; absent if an operator of another version wrote something else.
    #[must_use]
    pub fn of_status(object: &str, status: &TlsStatus) -> Option<Self> {
        let stage = |text: &str| TlsStage::of_flag(&text.to_ascii_lowercase());
        let source = status.secret_name.as_deref().map(|secret| Source::of_secret(object, secret));
        let of_status = Self {
            source,
            peers: stage(&status.peers)?,
            clients: stage(&status.clients)?,
            ..Self::default()
        };
        Some(of_status.whole())
    }

    fn of_pod(object: &str, pod: &PodEncryption) -> Self {
        let source = pod.secret.as_deref().map(|secret| Source::of_secret(object, secret));
        Self { source, peers: pod.peers, clients: pod.clients, auth: None }.whole()
    }

    /// The same without what makes no sense: certificates that no port shows, and grants where nobody can show one.
    fn whole(mut self) -> Self {
        if self.source.is_none() {
            (self.peers, self.clients) = (TlsStage::Off, TlsStage::Off);
        }
        if self.peers == TlsStage::Off && self.clients == TlsStage::Off {
            self.source = None;
        }
        if self.clients == TlsStage::Off {
            self.auth = None;
        }
        self
    }

    /// Whether a pod that was made like that and one of these understand each other at every port.
    fn fits(&self, object: &str, pod: &PodEncryption) -> bool {
        let secret = self.source.as_ref().map(|source| source.secret(object));
        let is_same_authority = match (&secret, &pod.secret) {
            (Some(secret), Some(of_pod)) => secret == of_pod,
            _ => true,
        };
        // Calls are passed on between nodes at the port of clients. Who asks who somebody is refuses a node that shows no certificate.
        let shows = |clients: TlsStage| clients != TlsStage::Off;
        is_same_authority
            && self.peers.is_near(pod.peers)
            && self.clients.is_near(pod.clients)
            && (self.auth.is_none() || shows(pod.clients))
            && (!pod.has_auth || shows(self.clients))
    }

    /// The next stage on the way to what is wanted.
    fn towards(&self, wanted: &Self) -> Self {
        let is_other = self.source.is_some() && self.source != wanted.source;
        // Two authorities would not trust each other: the old one goes first.
        let to = if is_other { Self::default() } else { wanted.clone() };
        let source = self.source.clone().or_else(|| to.source.clone());
        let next = Self {
            source,
            peers: self.peers.towards(to.peers),
            clients: self.clients.towards(to.clients),
            auth: to.auth,
        };
        next.whole()
    }
}

/// How pods are made from now on, and what there is to say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// How pods are made from now on.
    pub now: Encryption,
    /// How they are to be in the end.
    pub wanted: Encryption,
    /// Why the certificates that are wanted, or that pods have, cannot be used.
    pub blocked: Option<(Reason, String)>,
    /// A pod that is made now could not start, for want of its certificates.
    pub is_unstartable: bool,
    /// Nobody has said what the cluster is to be, and it is open because it is old.
    pub is_open_by_age: bool,
}

impl Turn {
    /// Whether pods are to be made anew before all is as wanted, and once more after that.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.now != self.wanted
    }

    /// What comes after the restarts that are due, in words.
    #[must_use]
    pub fn ahead(&self) -> Option<String> {
        let is_on = self.is_under_way() && !self.is_held();
        is_on.then(|| format!("then restart each once more until it speaks so: {}", self.wanted.words()))
    }

    /// Nothing is begun on the way, for want of certificates.
    fn is_held(&self) -> bool {
        self.blocked.is_some() && self.now.source != self.wanted.source
    }
}

impl Encryption {
    /// What is spoken, as people say it.
    #[must_use]
    pub fn words(&self) -> String {
        let spoken = |stage: TlsStage| match stage {
            TlsStage::Off => "plain",
            TlsStage::Optional => "plain or TLS",
            TlsStage::Required => "TLS only",
        };
        let asks = if self.auth.is_some() { ", and nodes ask who may do what" } else { "" };
        format!("peers {}, clients {}{asks}", spoken(self.peers), spoken(self.clients))
    }
}

/// How the pods of an object are made, as far as anything tells; absent: there is nothing yet.
#[must_use]
pub fn kept(asked: &Asked, seen: &Observation, template: Option<&Encryption>) -> Option<Encryption> {
    let of_status = || asked.encryption_kept.clone();
    let of_pod = || seen.pods.values().next().map(|pod| Encryption::of_pod(&asked.name, &pod.encryption));
    let is_there = seen.set.is_some() || asked.latched.is_some();
    template.cloned().or_else(of_status).or_else(of_pod).or_else(|| is_there.then(Encryption::default))
}

/// What an object asks for, of pods that are made like that.
#[must_use]
pub fn wanted(asked: &Asked, kept: Option<&Encryption>) -> Encryption {
    let auth = asked.spec.auth.clone();
    let (source, clients) = match &asked.spec.tls {
        Some(tls) => (source_of(tls), tls.clients),
        // A cluster that forms has encrypted peers. One that is there stays what it is.
        None => (kept.map_or(Some(Source::Auto), |kept| kept.source.clone()), TlsStage::Off),
    };
    // The operator, and nodes that pass on calls, show who they are at the port of clients.
    let clients = if auth.is_some() { clients.max(TlsStage::Optional) } else { clients };
    Encryption { source, peers: TlsStage::Required, clients, auth }.whole()
}

fn source_of(tls: &Tls) -> Option<Source> {
    match tls.mode {
        TlsMode::Off => None,
        TlsMode::Auto => Some(Source::Auto),
        TlsMode::Secret => tls.secret_name.clone().map(Source::Secret),
        TlsMode::CertManager => Some(Source::CertManager),
    }
}

/// The sources whose Secrets have to be looked at.
#[must_use]
pub fn sources(asked: &Asked, seen: &Observation, template: Option<&Encryption>) -> Vec<Source> {
    let kept = kept(asked, seen, template);
    let wanted = wanted(asked, kept.as_ref());
    let mut sources: Vec<Source> = kept.and_then(|kept| kept.source).into_iter().collect();
    sources.extend(wanted.source.filter(|source| !sources.contains(source)));
    sources
}

/// Decides how pods are made from now on, of a set of so many.
#[must_use]
pub fn decide(asked: &Asked, seen: &Observation, template: Option<&Encryption>, pods: i32) -> Turn {
    let kept = kept(asked, seen, template);
    let wanted = wanted(asked, kept.as_ref());
    let is_open_by_age = asked.spec.tls.is_none() && wanted.source.is_none();
    let mut turn = Turn { is_open_by_age, wanted, ..Turn::default() };
    if asked.spec.auth.is_some() && turn.wanted.source.is_none() {
        let why = "spec.auth needs certificates, since the operator has to prove who it is, and this cluster has none: set \
                   spec.tls.mode to Auto. Until then everybody may do everything";
        turn.blocked = Some((Reason::ConfigRefused, why.to_owned()));
    }
    let lacks =
        |source: &Option<Source>| source.as_ref().and_then(|source| lacking(asked, seen, source, pods));
    let lacks_wanted = lacks(&turn.wanted.source);
    // Nobody is there who would have to be understood.
    let is_alone = seen.pods.is_empty() || (pods == 1 && seen.pods.len() == 1);
    turn.now = match kept {
        Some(kept) if lacks_wanted.is_some() && turn.wanted.source != kept.source => kept,
        None => turn.wanted.clone(),
        Some(_) if is_alone => turn.wanted.clone(),
        Some(kept) => next(asked, seen, &kept, &turn.wanted),
    };
    let lacks_now = lacks(&turn.now.source);
    turn.is_unstartable = lacks_now.is_some();
    turn.blocked = turn.blocked.or(lacks_wanted).or(lacks_now);
    turn
}

/// The furthest stage on the way that every pod understands.
fn next(asked: &Asked, seen: &Observation, kept: &Encryption, wanted: &Encryption) -> Encryption {
    let step = kept.towards(wanted);
    let ways = [
        step.clone(),
        Encryption { auth: kept.auth.clone(), ..step.clone() }.whole(),
        Encryption { source: kept.source.clone(), clients: kept.clients, ..step }.whole(),
        Encryption { auth: wanted.auth.clone(), ..kept.clone() }.whole(),
    ];
    let understood = |way: &Encryption| seen.pods.values().all(|pod| way.fits(&asked.name, &pod.encryption));
    ways.into_iter().find(understood).unwrap_or_else(|| kept.clone())
}

/// Why the certificates of this source cannot be used; absent if they can.
fn lacking(asked: &Asked, seen: &Observation, source: &Source, pods: i32) -> Option<(Reason, String)> {
    if *source == Source::Auto {
        // Those are made before the pods.
        return None;
    }
    let secret = source.secret(&asked.name);
    if *source == Source::CertManager && seen.certificates != crate::cluster::observation::KindSeen::Usable {
        let why = match seen.certificates {
            crate::cluster::observation::KindSeen::Forbidden => {
                "the operator may not use the kind Certificate (cert-manager.io/v1). Give it the rights that \
                 deploy/operator/rbac.yaml has: kubectl apply -k deploy"
            }
            _ => {
                "this Kubernetes does not know the kind Certificate (cert-manager.io/v1). Install cert-manager, or set it to Auto"
            }
        };
        return Some((Reason::KindUnusable, format!("spec.tls.mode is CertManager, but {why}")));
    }
    let made_by = match source {
        Source::CertManager => {
            format!(
                "cert-manager makes it: kubectl describe certificate -n {} {secret} tells what keeps it from that",
                asked.namespace
            )
        }
        _ => format!(
            "make it with tls.crt, tls.key and ca.crt: kubectl create secret generic -n {} {secret} --from-file=tls.crt \
             --from-file=tls.key --from-file=ca.crt",
            asked.namespace
        ),
    };
    let why = match seen.secrets.get(&secret) {
        None | Some(SecretSeen::Missing) => format!("the Secret {secret} is not there: {made_by}"),
        Some(SecretSeen::Unusable(why)) => format!("the Secret {secret} cannot be used: {why}; {made_by}"),
        Some(SecretSeen::Usable(certificate)) => {
            let domain = names::domain(&asked.name, &asked.namespace);
            let nodes = asked.nodes(pods.max(asked.spec.replicas));
            let hosts = nodes.iter().map(|node| format!("{node}.{domain}"));
            let lacks: Vec<String> = hosts.filter(|host| !certificate.is_for(host)).collect();
            if seen.now_seconds >= certificate.not_after {
                format!(
                    "the certificate in Secret {secret} has run out: renew it. Nodes take it without a restart"
                )
            } else if let Some(host) = lacks.first() {
                format!(
                    "the certificate in Secret {secret} is not for {host}, by which the nodes know each other: have it made for \
                     *.{domain}"
                )
            } else {
                return None;
            }
        }
    };
    Some((Reason::CertificatesMissing, format!("{why}. No pod is restarted for it until then")))
}

#[cfg(test)]
mod tests;
