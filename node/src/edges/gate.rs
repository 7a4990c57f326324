//! Who calls, and whether it may: the one gate that every call of a client passes.
//!
//! Without a file of rights the gate stands open, and everybody is nobody in particular. With one, each request is
//! [authenticated](Gate::authenticate) before anything else of it is looked at, and each call is [admitted](Gate::admit) once it is known
//! what it wants. Streams are looked at again with every call on them ([`Gate::look_again`]): what was right when they began may have been taken
//! back, or have expired. Calls that a node passes on were admitted where they came in.

use crate::api::{Dead, Failure, Look, Method, Reason, Request, Settle, Take, Write};
use crate::traces;
use axum::extract::FromRequestParts;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderMap, header};
use raftqueue_access::{
    Access, Audit, Call as Noted, Caller, Credentials, Decision, Happened, InForce, Permission, Target,
    Unauthenticated,
};
use raftqueue_tls::Peer;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

/// Streams outlive what was shown when they began by as much as clocks may differ, as calls do.
const EXPIRY_LEEWAY: Duration = Duration::from_secs(30);

/// Who called, and what it showed. Goes with a request as an extension. Cheap to clone.
#[derive(Clone)]
pub struct Called {
    /// Who.
    pub caller: Caller,
    /// From where, if that is known.
    from: Option<Arc<str>>,
    /// The token that it showed, for streams, which outlive what is in force when they begin.
    bearer: Option<Arc<str>>,
    /// What was in force.
    epoch: u64,
}

/// The token is not shown.
impl fmt::Debug for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Called")
            .field("caller", &self.caller)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl Called {
    /// Nobody in particular, where nobody has to say who it is.
    #[must_use]
    pub fn by_anybody() -> Self {
        static ANYBODY: LazyLock<Called> = LazyLock::new(|| Called::of(Caller::anonymous()));
        ANYBODY.clone()
    }

    /// A node of this cluster, this one included.
    #[must_use]
    pub fn by_node() -> Self {
        static NODE: LazyLock<Called> = LazyLock::new(|| Called::of(Caller::node()));
        NODE.clone()
    }

    /// Who called, as the gate left it with the request.
    #[must_use]
    pub fn in_extensions(extensions: &http::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(Self::by_anybody)
    }

    fn of(caller: Caller) -> Self {
        Self { caller, from: None, bearer: None, epoch: 0 }
    }
}

impl<S: Sync> FromRequestParts<S> for Called {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::in_extensions(&parts.extensions))
    }
}

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs<'a> {
    /// This on this topic.
    On(Permission, &'a str),
    /// This on some topic.
    Somewhere(Permission),
    /// This on every topic; of `administer`, on the cluster.
    Everywhere(Permission),
    /// To look at the cluster: whoever administers it may, and whoever sees some topic.
    Sight,
}

impl<'a> Needs<'a> {
    /// What this call needs.
    #[must_use]
    pub fn of(request: &'a Request) -> Self {
        use Permission as P;
        match request {
            Request::Publish(publish) => Self::On(P::Publish, &publish.topic),
            Request::Take(Take { topic, .. }) | Request::Settle(Settle { topic, .. }) => {
                Self::On(P::Receive, topic)
            }
            Request::Dead(Dead { topic, .. })
            | Request::Write(
                Write::CreateTopic { topic, .. }
                | Write::UpdateTopic { topic, .. }
                | Write::DeleteTopic { topic }
                | Write::Purge { topic, .. },
            ) => Self::On(P::Manage, topic),
            Request::Write(Write::OpenSession { .. } | Write::CloseSession { .. }) => {
                Self::Somewhere(P::Publish)
            }
            Request::Look(Look::DescribeTopic { topic } | Look::Peek { topic, .. }) => {
                Self::On(P::Browse, topic)
            }
            Request::Look(Look::ListTopics { .. }) => Self::Somewhere(P::Browse),
            Request::Look(Look::ClusterStatus | Look::Members) => Self::Sight,
            Request::TransferLeadership { .. } | Request::Members(_) => Self::Everywhere(P::Administer),
        }
    }

    fn permission(self) -> Permission {
        match self {
            Self::On(permission, _) | Self::Somewhere(permission) | Self::Everywhere(permission) => {
                permission
            }
            Self::Sight => Permission::Browse,
        }
    }

    fn topic(self) -> Option<&'a str> {
        match self {
            Self::On(_, topic) => Some(topic),
            _ => None,
        }
    }

    /// Changes that somebody may want to find out about later.
    fn is_administered(self) -> bool {
        matches!(self.permission(), Permission::Manage | Permission::Administer)
    }
}

/// The gate. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    access: Arc<Access>,
    audit: Arc<Audit>,
}

impl Gate {
    /// Lets through what these rights allow, and notes there what must be.
    #[must_use]
    pub fn new(access: Arc<Access>, audit: Arc<Audit>) -> Self {
        Self { access, audit }
    }

    /// Who sent a request with these headers, over a connection to this peer. Waits at most for an answer of Kubernetes.
    ///
    /// # Errors
    /// It shows nobody: a failure to be passed on as it is.
    pub async fn authenticate(
        &self,
        call: &str,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Called, Failure> {
        // Before it is looked at what is shown: what changes meanwhile is looked at again.
        let epoch = self.access.epoch();
        let from = peer.address.map(|address| Arc::from(address.to_string()));
        let (shown, bearer) = match self.shown(headers, peer).await {
            Ok(shown) => shown,
            Err(error) => {
                let noted =
                    Noted { call, peer: from.as_deref(), text: Some(&error.to_string()), ..Noted::default() };
                self.note(Happened::Unauthenticated, &noted);
                let text = error.to_string();
                return Err(match error.is_temporary() {
                    // The same may count in a moment.
                    true => Failure::not_done(Reason::Overloaded, text).retry_after_ms(1_000),
                    false => Failure::not_done(Reason::Unauthenticated, text),
                });
            }
        };
        Ok(Called { caller: shown, from, bearer, epoch })
    }

    async fn shown(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<(Caller, Option<Arc<str>>), Unauthenticated> {
        let header = headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let bearer = header.map(Credentials::bearer_of).transpose()?;
        let certificate = peer.identity.as_ref().map(|identity| identity.name().unwrap_or_default());
        let credentials = Credentials { bearer, certificate, is_node: peer.is_node };
        let caller = self.access.authenticate(credentials, SystemTime::now()).await?;
        Ok((caller, bearer.map(Arc::from)))
    }

    /// Lets a call through.
    ///
    /// # Errors
    /// Its caller may not do that: a failure to be passed on, which says which rule is missing.
    pub fn admit(&self, called: &Called, call: &str, needs: Needs<'_>) -> Result<(), Failure> {
        let in_force = self.access.in_force();
        let (refused, is_refused) = match decide(&in_force, &called.caller, needs) {
            Decision::Allowed { .. } if !needs.is_administered() => return Ok(()),
            Decision::Allowed { .. } => (None, false),
            Decision::Denied(denied) => (Some(denied.to_string()), true),
        };
        let trace = traces::id().map(|id| id.to_string());
        let noted = Noted {
            caller: Some(&called.caller),
            call,
            permission: Some(needs.permission()),
            topic: needs.topic(),
            peer: called.from.as_deref(),
            text: refused.as_deref(),
            trace: trace.as_deref(),
        };
        self.note(if is_refused { Happened::Denied } else { Happened::Administered }, &noted);
        refused.map_or(Ok(()), |text| Err(Failure::not_done(Reason::PermissionDenied, text)))
    }

    /// Whether somebody may do that: by which role, or why not. Nothing is noted.
    pub(crate) fn asked(&self, called: &Called, needs: Needs<'_>) -> Result<String, String> {
        match decide(&self.access.in_force(), &called.caller, needs) {
            Decision::Allowed { role } => Ok(role.to_owned()),
            Decision::Denied(denied) => Err(denied.to_string()),
        }
    }

    /// Looks again at somebody who began a stream.
    ///
    /// # Errors
    /// What it showed has expired, or counts no more.
    pub fn look_again(&self, called: &Called) -> Result<(), Failure> {
        let now = SystemTime::now();
        let refuse = |text: String| Err(Failure::not_done(Reason::Unauthenticated, text));
        if called.caller.expires().is_some_and(|expires| expires + EXPIRY_LEEWAY <= now) {
            return refuse(
                "what was shown when the stream began has expired: begin another one with a new token".into(),
            );
        }
        if self.access.epoch() == called.epoch {
            return Ok(());
        }
        let Some(bearer) = called.bearer.as_deref() else { return Ok(()) };
        let credentials = Credentials { bearer: Some(bearer), ..Credentials::default() };
        // Tokens of service accounts would have to be asked about. They expire soon.
        match self.access.authenticate(credentials, now).now_or_never() {
            Some(Err(error)) => refuse(error.to_string()),
            Some(Ok(caller)) if caller != called.caller => {
                refuse(format!("what was shown is {caller}'s by now: begin another stream"))
            }
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// What is in force, for lists of which everybody sees a part.
    pub(crate) fn in_force(&self) -> Arc<InForce> {
        self.access.in_force()
    }

    fn note(&self, happened: Happened, noted: &Noted<'_>) {
        self.audit.note(SystemTime::now(), happened, noted);
    }
}

fn decide<'a>(in_force: &'a InForce, caller: &Caller, needs: Needs<'_>) -> Decision<'a> {
    match needs {
        Needs::On(permission, topic) => in_force.decide(caller, permission, Target::Topic(topic)),
        Needs::Everywhere(permission) => in_force.decide(caller, permission, Target::Cluster),
        Needs::Somewhere(permission) => in_force.policy().may_any(caller, permission),
        Needs::Sight => match in_force.decide(caller, Permission::Administer, Target::Cluster) {
            Decision::Denied(_) => in_force.policy().may_any(caller, Permission::Browse),
            allowed => allowed,
        },
    }
}

/// A call of a client, or of a peer for one: what every way in makes of what came.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who called.
    pub called: Called,
    /// What it asks for.
    pub request: Request,
    /// How long it may take, from now.
    pub deadline: Duration,
    /// By which way it came.
    pub origin: Origin,
}

/// By which way a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a client of this node. It may be passed on, once.
    Client,
    /// From a node that admitted it and passed it on: it is answered here or not at all.
    Peer,
    /// This node's own.
    Own,
}

impl Call {
    /// A client's.
    #[must_use]
    pub fn of_client(called: Called, request: Request, deadline: Duration) -> Self {
        Self { called, request, deadline, origin: Origin::Client }
    }

    /// One that a peer passed on.
    #[must_use]
    pub fn of_peer(request: Request, deadline: Duration) -> Self {
        Self { called: Called::by_node(), request, deadline, origin: Origin::Peer }
    }

    /// This node's own.
    #[must_use]
    pub fn own(request: Request, deadline: Duration) -> Self {
        Self { called: Called::by_node(), request, deadline, origin: Origin::Own }
    }

    /// Which one it is.
    #[must_use]
    pub fn method(&self) -> Method {
        self.request.method()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        Change, ChangeMembers, DeadAction, MessageState, Publish, Settlement, TakeKind, TopicChange,
        TopicOptions,
    };
    use crate::edges::edge::Edge;
    use crate::fake::FakeNode;
    use raftqueue_access::{Files, Means};
    use std::path::Path;
    use std::sync::Mutex;

    const RIGHTS: &str = r#"
roles:
- name: shop
  rules:
  - {topics: ["orders"], may: [publish, receive]}
- name: eyes
  rules:
  - {topics: ["orders", "z*"], may: [browse]}
- name: keeper
  rules:
  - {topics: ["orders"], may: [manage]}
- name: root
  rules:
  - may: [administer]
grants:
- {role: shop, to: ["token:shop"]}
- {role: eyes, to: ["token:eyes"]}
- {role: keeper, to: ["token:keeper"]}
- {role: root, to: ["token:root"]}
"#;

    /// A gate with these rights, and the lines of its audit.
    fn gate(folder: &Path) -> (Gate, Arc<Mutex<Vec<String>>>) {
        let policy = folder.join("auth.yaml");
        std::fs::write(&policy, RIGHTS).expect("room");
        let access = Access::load(&Files { policy, tokens: None }, None).expect("it is right");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&lines);
        let audit = Audit::new(move |line| noted.lock().expect("nobody panics").push(line.to_owned()));
        (Gate::new(Arc::new(access), Arc::new(audit)), lines)
    }

    fn by(name: &str) -> Called {
        Called::of(Caller::named(Means::Token, name))
    }

    /// Every call, and which of the roles may make it.
    fn calls() -> Vec<(Request, &'static str)> {
        let (topic, subscription) = (|| "orders".to_owned(), String::new);
        let take = |kind| {
            let (messages_max, bytes_max, wait_ms) = (1, 1, 0);
            Request::Take(Take {
                topic: topic(),
                subscription: subscription(),
                messages_max,
                bytes_max,
                wait_ms,
                kind,
            })
        };
        let settle = |settlement| {
            let leases = Vec::new();
            Request::Settle(Settle { topic: topic(), subscription: subscription(), leases, settlement })
        };
        let dead = |action| {
            Request::Dead(Dead { topic: topic(), subscription: subscription(), offsets: Vec::new(), action })
        };
        let session = crate::api::SessionId { generation: 0, number: 1, epoch: 0 };
        let change =
            |change| Request::Members(ChangeMembers { change, expected: None, force: false, dry: false });
        let peek = Look::Peek {
            topic: topic(),
            subscription: subscription(),
            state: MessageState::Ready,
            from_offset: 0,
            messages_max: 1,
            bytes_max: 1,
        };
        vec![
            (Request::Publish(Publish { topic: topic(), session: None, messages: Vec::new() }), "shop"),
            (take(TakeKind::Receive { lease_ms: None }), "shop"),
            (take(TakeKind::Pop { request_id: None }), "shop"),
            (settle(Settlement::Ack), "shop"),
            (settle(Settlement::Nack { delay_ms: 0, reason: String::new() }), "shop"),
            (settle(Settlement::Extend { lease_ms: None }), "shop"),
            (settle(Settlement::Release), "shop"),
            (Request::Write(Write::OpenSession { name: None }), "shop"),
            (Request::Write(Write::CloseSession { session }), "shop"),
            (dead(DeadAction::Redrive), "keeper"),
            (dead(DeadAction::Purge), "keeper"),
            (
                Request::Write(Write::CreateTopic {
                    topic: topic(),
                    options: TopicOptions::default(),
                    request_id: None,
                }),
                "keeper",
            ),
            (Request::Write(Write::UpdateTopic { topic: topic(), change: TopicChange::default() }), "keeper"),
            (Request::Write(Write::DeleteTopic { topic: topic() }), "keeper"),
            (Request::Write(Write::Purge { topic: topic(), subscription: subscription() }), "keeper"),
            (Request::Look(Look::ListTopics { after: None, topics_max: 1 }), "eyes"),
            (Request::Look(Look::DescribeTopic { topic: topic() }), "eyes"),
            (Request::Look(peek), "eyes"),
            (Request::Look(Look::ClusterStatus), "eyes root"),
            (Request::Look(Look::Members), "eyes root"),
            (Request::TransferLeadership { to: None }, "root"),
            (change(Change::AddLearners(Vec::new())), "root"),
            (change(Change::Promote(Vec::new())), "root"),
            (change(Change::Remove(Vec::new())), "root"),
            (change(Change::Replace { old: String::new(), new: String::new() }), "root"),
            (change(Change::RaiseVersion(None)), "root"),
        ]
    }

    #[test]
    fn every_call_needs_what_it_does_and_nobody_else_may_make_it() {
        let folder = tempfile::tempdir().expect("room");
        let (gate, _) = gate(folder.path());
        let calls = calls();
        for method in Method::ALL {
            assert!(
                calls.iter().any(|(request, _)| request.method() == *method),
                "{method:?} is in the table"
            );
        }
        for (request, may) in &calls {
            for who in ["shop", "eyes", "keeper", "root", "nobody"] {
                let admitted = gate.admit(&by(who), request.method().label(), Needs::of(request));
                assert_eq!(admitted.is_ok(), may.split(' ').any(|name| name == who), "{who}: {request:?}");
                let Err(failure) = admitted else { continue };
                assert_eq!(failure.reason, Reason::PermissionDenied);
                assert!(failure.text.contains(&format!("token:{who} may not")), "{failure:?}");
            }
            // The cluster itself may do everything.
            assert_eq!(gate.admit(&Called::by_node(), "any", Needs::of(request)), Ok(()));
        }
        let elsewhere =
            Request::Publish(Publish { topic: "bills".into(), session: None, messages: Vec::new() });
        assert!(gate.admit(&by("shop"), "publish", Needs::of(&elsewhere)).is_err());
    }

    #[test]
    fn refusals_and_what_is_administered_are_noted_and_the_rest_is_not() {
        let folder = tempfile::tempdir().expect("room");
        let (gate, lines) = gate(folder.path());
        for (request, _) in calls() {
            for who in ["shop", "eyes", "keeper", "root"] {
                lines.lock().expect("nobody panics").clear();
                let needs = Needs::of(&request);
                let is_admitted = gate.admit(&by(who), request.method().label(), needs).is_ok();
                let told = lines.lock().expect("nobody panics").join("");
                let kind = match (is_admitted, needs.is_administered()) {
                    (false, _) => "\"audit\":\"denied\"",
                    (true, true) => "\"audit\":\"administered\"",
                    (true, false) => "",
                };
                assert!(
                    told.contains(kind) && told.is_empty() == kind.is_empty(),
                    "{who} {request:?}: {told}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_list_has_what_its_caller_may_see_and_goes_on_behind_pages_without() {
        let folder = tempfile::tempdir().expect("room");
        let (gate, _) = gate(folder.path());
        let edge = Edge::new(FakeNode::default(), crate::api::limits::Limits::default());
        let deadline = Duration::from_secs(5);
        let names: Vec<String> = (0..9)
            .map(|number| format!("a{number}"))
            .chain(["orders".into(), "b".into(), "zz".into()])
            .collect();
        for topic in &names {
            let create = Write::CreateTopic {
                topic: topic.clone(),
                options: TopicOptions::default(),
                request_id: None,
            };
            edge.call(Call::own(Request::Write(create), deadline)).await.expect("it is made");
        }
        let edge = edge.behind(Some(gate));
        let list = |called: Called, after| {
            let list = Request::Look(Look::ListTopics { after, topics_max: 2 });
            edge.call(Call::of_client(called, list, deadline))
        };
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let answer = list(by("eyes"), after).await.expect("it may");
            let crate::api::Answer::Response(crate::api::Response::Topics { topics, more }) = answer else {
                panic!("{answer:?}")
            };
            after = topics.last().map(|topic| topic.id);
            seen.extend(topics.into_iter().map(|topic| topic.name));
            if !more || after.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["orders", "zz"]);
        assert_eq!(list(by("shop"), None).await.expect_err("none").reason, Reason::PermissionDenied);
    }
}
