//! What an edge sees of a node: one call, and the node's own view of itself.
//!
//! The edges (gRPC, HTTP, calls forwarded by a peer) know nothing but [`Service`]. They decode, check what
//! [`crate::limits`] can check, call, and encode; whether this node leads, forwards or refuses is decided behind it.

use crate::api::{Delivery, Failure, MemberInfo, Request, Response};
use crate::budget::Account;
use crate::service::Driven;
use futures_util::future::BoxFuture;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A node, as its edges use it. Cheap to clone.
pub trait Service: Clone + Send + Sync + Unpin + 'static {
    /// Answers one call of a client.
    ///
    /// `deadline` is how long the call may take, from now; the answer comes no later, if only to say that the time is
    /// over. `forwarded` says that a peer passed the call on, so that it is never passed on again.
    ///
    /// Dropping the future drops a call that was not proposed yet; one that was proposed runs on, unheard.
    ///
    /// # Errors
    ///
    /// A [`Failure`] to be passed to the client as it is.
    fn call(
        &self,
        request: Request,
        deadline: Duration,
        forwarded: bool,
    ) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// Begins calls that this node's own driver is to propose in this order, next to each other where it can. None of them
    /// is passed on: if this node does not lead, each fails with `NOT_LEADER`, not done.
    ///
    /// One [`Begun`] for each request. Dropping one is as dropping the future of [`Service::call`].
    fn begin(&self, requests: Vec<Request>, deadline: Duration) -> Vec<Begun> {
        let alone = |request| {
            let own = self.clone();
            Begun::Alone(Box::pin(async move { own.call(request, deadline, true).await }))
        };
        requests.into_iter().map(alone).collect()
    }

    /// What the node says of itself: at once, also without quorum, and possibly out of date.
    fn local_status(&self) -> Arc<LocalStatus>;
}

/// A call that is under way, and will be answered.
pub enum Begun {
    /// The driver has it, whether this is polled or not.
    Driven(Driven),
    /// It goes on only while it is polled.
    Alone(BoxFuture<'static, Result<Answer, Failure>>),
    /// It could not begin; taken by the first poll.
    Failed(Option<Failure>),
}

impl Future for Begun {
    type Output = Result<Answer, Failure>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Begun::Driven(driven) => Pin::new(driven).poll(context),
            Begun::Alone(call) => call.as_mut().poll(context),
            Begun::Failed(failure) => Poll::Ready(Err(failure.take().expect("polled once it was ready"))),
        }
    }
}

/// What comes back from a call that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Everything but messages. Never [`Response::Messages`], whose bodies are read before an edge sees them.
    Response(Response),
    /// The messages of a receive, pop or peek.
    Deliveries(Deliveries),
}

/// Messages, with what is held of the budget for them until they are sent.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    /// The messages.
    pub messages: Vec<Delivery>,
    /// What is held; `None` where nobody counts, as in tests.
    pub held: Option<Arc<Account>>,
}

impl From<Vec<Delivery>> for Deliveries {
    fn from(messages: Vec<Delivery>) -> Self {
        Self { messages, held: None }
    }
}

impl PartialEq for Deliveries {
    fn eq(&self, other: &Self) -> bool {
        self.messages == other.messages
    }
}

impl Eq for Deliveries {}

/// What a message takes beside its bytes, while it waits to be sent.
pub const DELIVERY_BYTES: usize = 512;

/// Bytes that messages take while they wait to be sent.
#[must_use]
pub fn deliveries_bytes(messages: &[Delivery]) -> usize {
    let headers = |delivery: &Delivery| {
        delivery.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    };
    messages
        .iter()
        .map(|delivery| DELIVERY_BYTES + delivery.body.len() + delivery.key.len() + headers(delivery))
        .sum()
}

/// What a node believes that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Leads, as far as it knows.
    Leader,
    /// Follows; also a blank node and a learner.
    #[default]
    Follower,
    /// Asks for votes.
    Candidate,
}

impl Role {
    /// The role as people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Leader => "Leader",
            Role::Follower => "Follower",
            Role::Candidate => "Candidate",
        }
    }
}

/// One node's own view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalStatus {
    /// Its id; `None` before its data directory is formatted.
    pub node_id: Option<u64>,
    /// Its name.
    pub name: String,
    /// The cluster it belongs to, 32 hexadecimal digits; empty for a node that belongs to none.
    pub cluster_id: String,
    /// Forced recoveries of that cluster.
    pub generation: u32,
    /// Active version of commands and formats.
    pub version: u32,
    /// What it believes that it is.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader it knows.
    pub leader: Option<u64>,
    /// Where clients reach that leader, as HOST:PORT.
    pub leader_address: Option<String>,
    /// Last index that it knows to be committed.
    pub commit: u64,
    /// Last index applied.
    pub applied: u64,
    /// Last index in its log.
    pub last: u64,
    /// Members as in its newest configuration.
    pub members: Vec<MemberInfo>,
    /// Why it is not fit to serve; `None` when it is: a member, with a leader known recently, all applied that was committed
    /// when it started, and little lag.
    pub not_ready: Option<String>,
}

impl LocalStatus {
    /// The client address to hint at in answers: the leader's, when that is another node and its address is known.
    #[must_use]
    pub fn leader_hint(&self) -> Option<&str> {
        match self.role {
            Role::Leader => None,
            Role::Follower | Role::Candidate => {
                self.leader_address.as_deref().filter(|address| !address.is_empty())
            }
        }
    }
}
