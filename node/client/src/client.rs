//! One method for each call of the contract, and the loop that repeats what is safe to repeat.

use crate::connections::{Connection, Connections};
use crate::credentials::{Channel, Credentials};
use crate::repeat::Repeat;
use crate::strangers;
use crate::{Consumer, ConsumerSettings, Error, Outcome, Producer, Publisher, PublisherSettings};
use bytes::Bytes;
use raftqueue_proto::v1::{self, admin_client::AdminClient, queue_client::QueueClient};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long a call may take in all, with its repeats, unless the client is told otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Pause before the first repeat; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// An attempt that has less time than this is not begun, unless the timeout is short.
const ATTEMPT_MIN: Duration = Duration::from_millis(100);
/// Longest pause between repeats, unless the node asks for a longer one.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Largest answer that is read, in bytes: far more than a node sends, so that no answer fails at a limit here.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Metadata in which a node that does not lead names the leader.
const LEADER_METADATA: &str = "raftqueue-leader";

/// A client of one cluster. Cheap to clone; clones share connections.
///
/// Dropping the future of a call leaves the call's outcome unknown.
#[derive(Clone, Debug)]
pub struct Client {
    connections: Arc<Connections>,
    timeout: Duration,
    waits_for_nodes: bool,
}

type Attempt<R> = Pin<Box<dyn Future<Output = Result<Response<R>, Status>> + Send>>;

/// Methods that pass a message of the contract on as it is.
macro_rules! calls {
    ($connect:ident: $($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident, $repeat:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                ///
                /// The node's refusal, or no answer; the outcome says whether it may have happened.
                pub async fn $name(&self, request: v1::$request) -> Result<v1::$response, Error> {
                    self.call(request, Repeat::$repeat, 0, |channel, request| {
                        Box::pin(async move { $connect(channel).$name(request).await })
                    })
                    .await
                }
            )*
        }
    };
}

calls! { queue:
    /// Deletes a topic with all its messages.
    delete_topic(DeleteTopicRequest) -> DeleteTopicResponse, Risky;
    /// Lists topics in order of creation, one page of them.
    list_topics(ListTopicsRequest) -> ListTopicsResponse, Read;
    /// One topic with its counts.
    describe_topic(DescribeTopicRequest) -> DescribeTopicResponse, Read;
    /// Acknowledges leased messages. `GONE` counts as success: the message was acknowledged before, perhaps by an
    /// earlier attempt of this call whose answer was lost.
    ack(AckRequest) -> AckResponse, Harmless;
    /// Returns leased messages as failed attempts.
    nack(NackRequest) -> NackResponse, Risky;
    /// Sets the end of leases anew.
    extend(ExtendRequest) -> ExtendResponse, Harmless;
    /// Gives back leased messages on which no work was started.
    release(ReleaseRequest) -> ReleaseResponse, Risky;
    /// Changes what a topic allows.
    update_topic(UpdateTopicRequest) -> UpdateTopicResponse, Risky;
    /// Looks at messages without taking them.
    peek(PeekRequest) -> PeekResponse, Read;
    /// Makes dead messages ready again.
    redrive_dead(RedriveDeadRequest) -> RedriveDeadResponse, Risky;
    /// Drops dead messages.
    purge_dead(PurgeDeadRequest) -> PurgeDeadResponse, Risky;
    /// Drops every message that waits.
    purge(PurgeRequest) -> PurgeResponse, Risky;
    /// Opens a producer session; [`Client::producer`] does so by itself. If the answer is lost, the session ends by
    /// itself after an hour without use.
    open_session(OpenSessionRequest) -> OpenSessionResponse, Harmless;
    /// Ends a producer session.
    close_session(CloseSessionRequest) -> CloseSessionResponse, Risky;
}

calls! { admin:
    /// The cluster as its leader sees it.
    cluster_status(ClusterStatusRequest) -> ClusterStatusResponse, Read;
    /// Hands leadership to another node.
    transfer_leadership(TransferLeadershipRequest) -> TransferLeadershipResponse, Risky;
    /// The members as the leader sees them, and the nodes that wait to be added.
    members(MembersRequest) -> MembersResponse, Read;
    /// Makes waiting nodes learners.
    add_learner(AddLearnerRequest) -> MemberChangeResponse, Risky;
    /// Makes learners voters.
    promote(PromoteRequest) -> MemberChangeResponse, Risky;
    /// Raises the active version of commands and formats.
    raise_version(RaiseVersionRequest) -> MemberChangeResponse, Risky;
    /// Removes members.
    remove(RemoveRequest) -> MemberChangeResponse, Risky;
    /// Puts a learner in the place of a voter.
    replace(ReplaceRequest) -> MemberChangeResponse, Risky;
}

impl Client {
    /// A client of the cluster that `endpoints` belong to, each HOST:PORT or a URI. No connection is made before the
    /// first call.
    ///
    /// # Errors
    ///
    /// There are no endpoints, or one is no address: the caller must be corrected.
    pub fn connect(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, Error> {
        Self::connect_with(endpoints, Credentials::default())
    }

    /// The same with credentials. An endpoint `https://HOST:PORT` is reached by TLS, and with any file of TLS all are.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`], or a file of the credentials is not right.
    pub fn connect_with(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        credentials: Credentials,
    ) -> Result<Self, Error> {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        let connections = Arc::new(Connections::new(endpoints, credentials)?);
        Ok(Self { connections, timeout: TIMEOUT_DEFAULT, waits_for_nodes: true })
    }

    /// A client of the same cluster with its own connections: the two share none.
    #[must_use]
    pub fn independent(&self) -> Self {
        let (endpoints, credentials) = (self.connections.endpoints(), self.connections.credentials());
        // The files were right when this client was made; if they are not any more, the two share what was read then.
        let connections = Connections::new(endpoints.to_vec(), credentials.clone());
        Self { connections: connections.map_or_else(|_| Arc::clone(&self.connections), Arc::new), ..*self }
    }

    /// The same client, which does not wait for nodes to be started: if every endpoint refuses a connection, and none was ever made,
    /// a call fails at once. Otherwise it goes on trying until its timeout, as it does through a fail-over.
    #[must_use]
    pub fn without_waiting_for_nodes(mut self) -> Self {
        self.waits_for_nodes = false;
        self
    }

    /// The same client with another timeout: how long a call may take in all, with its repeats. The time that a call
    /// waits for messages is added. 5 seconds unless set.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a call may take in all, as it was set.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The endpoints, as they were given.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        self.connections.endpoints()
    }

    /// A producer for one topic, with its own session: its publishes can be repeated without harm.
    ///
    /// # Errors
    ///
    /// No session could be opened.
    pub async fn producer(&self, topic: impl Into<String>) -> Result<Producer, Error> {
        Producer::open(self.clone(), topic.into()).await
    }

    /// A publisher for one topic: many batches under way at once, in order, each stored once.
    ///
    /// # Errors
    ///
    /// No session could be opened.
    pub async fn publisher(&self, topic: impl Into<String>) -> Result<Publisher, Error> {
        self.publisher_with(topic, PublisherSettings::default()).await
    }

    /// The same with settings of the caller's.
    ///
    /// # Errors
    ///
    /// A setting is out of its range, or no session could be opened.
    pub async fn publisher_with(
        &self,
        topic: impl Into<String>,
        settings: PublisherSettings,
    ) -> Result<Publisher, Error> {
        Publisher::open(self.clone(), topic.into(), settings).await
    }

    /// A consumer of one topic. Messages come as fast as they are settled, through fail-overs, and stay leased while
    /// they are worked on. It begins at once, and connects by itself.
    ///
    /// # Panics
    ///
    /// There is no tokio runtime.
    #[must_use]
    pub fn consumer(&self, topic: impl Into<String>) -> Consumer {
        self.consumer_with(topic, ConsumerSettings::default()).expect("the default settings are in range")
    }

    /// The same with settings of the caller's.
    ///
    /// # Errors
    ///
    /// A setting is out of its range.
    ///
    /// # Panics
    ///
    /// There is no tokio runtime.
    pub fn consumer_with(
        &self,
        topic: impl Into<String>,
        settings: ConsumerSettings,
    ) -> Result<Consumer, Error> {
        Consumer::start(self.clone(), topic.into(), settings)
    }

    pub(crate) async fn connection(&self) -> Result<Connection, Error> {
        self.connections.get().await
    }

    /// Opens a stream of batches, and learns where the leader is.
    pub(crate) async fn open_publish_stream(
        &self,
        connection: &Connection,
        requests: mpsc::Receiver<v1::PublishRequest>,
    ) -> Result<Streaming<v1::PublishResponse>, Error> {
        let answer = queue(connection.channel.clone()).publish_stream(ReceiverStream::new(requests)).await;
        self.take_stream(connection, answer)
    }

    /// Opens a consumer's stream, and learns where the leader is.
    pub(crate) async fn open_consume_stream(
        &self,
        connection: &Connection,
        requests: mpsc::Receiver<v1::ConsumeRequest>,
    ) -> Result<Streaming<v1::ConsumeResponse>, Error> {
        let answer = queue(connection.channel.clone()).consume(ReceiverStream::new(requests)).await;
        self.take_stream(connection, answer)
    }

    fn take_stream<R>(
        &self,
        connection: &Connection,
        answer: Result<Response<Streaming<R>>, Status>,
    ) -> Result<Streaming<R>, Error> {
        let answer = answer.map_err(|status| Error::from(&status))?;
        let hint = answer.metadata().get(LEADER_METADATA).and_then(|hint| hint.to_str().ok());
        self.connections.note_leader(&connection.address, hint);
        Ok(answer.into_inner())
    }

    /// Makes a topic. Without a request id it gets a random one, so that repeating it here is harmless.
    ///
    /// # Errors
    ///
    /// The node's refusal, or no answer; the outcome says whether it may have happened.
    pub async fn create_topic(
        &self,
        mut request: v1::CreateTopicRequest,
    ) -> Result<v1::CreateTopicResponse, Error> {
        fill_request_id(&mut request.request_id);
        self.call(request, Repeat::Harmless, 0, |channel, request| {
            Box::pin(async move { queue(channel).create_topic(request).await })
        })
        .await
    }

    /// Publishes a batch: all of its messages or none. Every body without a CRC gets one, which is checked wherever the
    /// body goes from here on. A publish of unknown outcome is repeated only with a session.
    ///
    /// # Errors
    ///
    /// The node's refusal, or no answer; the outcome says whether it may have happened.
    pub async fn publish(&self, mut request: v1::PublishRequest) -> Result<v1::PublishResponse, Error> {
        for message in &mut request.messages {
            message.body_crc32c.get_or_insert_with(|| crc32c::crc32c(&message.body));
        }
        let repeat = if request.session.is_some() { Repeat::Harmless } else { Repeat::Risky };
        self.call(request, repeat, 0, |channel, request| {
            Box::pin(async move { queue(channel).publish(request).await })
        })
        .await
    }

    /// Leases messages; waits for the first one as long as the request says.
    ///
    /// # Errors
    ///
    /// The node's refusal, or no answer. A receive of unknown outcome may have leased messages to nobody; they come back
    /// when the lease ends.
    pub async fn receive(&self, request: v1::ReceiveRequest) -> Result<v1::ReceiveResponse, Error> {
        let wait_ms = request.wait_ms;
        self.call(request, Repeat::Risky, wait_ms, |channel, request| {
            Box::pin(async move { queue(channel).receive(request).await })
        })
        .await
    }

    /// Takes messages: receives and acknowledges in one step. Without a request id it gets a random one, so that
    /// repeating it here is harmless.
    ///
    /// # Errors
    ///
    /// The node's refusal, or no answer. A pop of unknown outcome may have taken messages: repeat it with the same
    /// request id within a minute to have them.
    pub async fn pop(&self, mut request: v1::PopRequest) -> Result<v1::PopResponse, Error> {
        fill_request_id(&mut request.request_id);
        let wait_ms = request.wait_ms;
        self.call(request, Repeat::Harmless, wait_ms, |channel, request| {
            Box::pin(async move { queue(channel).pop(request).await })
        })
        .await
    }

    /// Returns what the node at `endpoint` says of itself: its own view, which may be out of date. Asks no other node.
    ///
    /// # Errors
    ///
    /// The node does not answer within the timeout.
    pub async fn status(&self, endpoint: &str) -> Result<v1::StatusResponse, Error> {
        let ask = |channel| -> Attempt<v1::StatusResponse> {
            Box::pin(async move { admin(channel).status(v1::StatusRequest {}).await })
        };
        self.ask_only(endpoint, Repeat::Read, ask).await
    }

    /// Returns what the node at `endpoint` keeps on its disk and in memory. Asks no other node.
    ///
    /// # Errors
    ///
    /// The node does not answer within the timeout, or is of a version that does not know this call.
    pub async fn storage(&self, endpoint: &str) -> Result<v1::StorageResponse, Error> {
        let ask = |channel| -> Attempt<v1::StorageResponse> {
            Box::pin(async move { admin(channel).storage(v1::StorageRequest {}).await })
        };
        self.ask_only(endpoint, Repeat::Read, ask).await
    }

    /// Returns who the nodes take this client for, and whether that one may do something: `permission` is publish, receive, browse,
    /// manage or administer; without a topic it is asked whether there is any.
    ///
    /// # Errors
    ///
    /// There is no such permission, the credentials show nobody, or no node answers.
    pub async fn can_i(&self, permission: &str, topic: &str) -> Result<v1::CanIResponse, Error> {
        let request = v1::CanIRequest { permission: permission.to_owned(), topic: topic.to_owned() };
        self.call(request, Repeat::Read, 0, |channel, request| {
            Box::pin(async move { admin(channel).can_i(request).await })
        })
        .await
    }

    /// Asks the node at `endpoint` what it knows that may have to go on alone; with the token of such an answer it does. Asks
    /// no other node.
    ///
    /// # Errors
    ///
    /// The node's refusal, or no answer; the outcome says whether it may have happened.
    pub async fn recover(
        &self,
        endpoint: &str,
        request: v1::RecoverRequest,
    ) -> Result<v1::RecoverResponse, Error> {
        // Only the token makes it more than a question.
        let repeat = if request.token.is_some() { Repeat::Risky } else { Repeat::Read };
        let ask = |channel| -> Attempt<v1::RecoverResponse> {
            Box::pin(async move { admin(channel).recover(request).await })
        };
        self.ask_only(endpoint, repeat, ask).await
    }

    async fn ask_only<R>(
        &self,
        endpoint: &str,
        repeat: Repeat,
        ask: impl FnOnce(Channel) -> Attempt<R>,
    ) -> Result<R, Error> {
        let asking = async {
            let connection = self.connections.get_only(endpoint).await?;
            match ask(connection.channel.clone()).await {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => {
                    let error = Error::from(&status);
                    if error.is_of_connection() {
                        self.connections.leave(&connection, true);
                    }
                    Err(Box::pin(recognized(endpoint, error)).await)
                }
            }
        };
        let answer = tokio::time::timeout(self.timeout, asking).await;
        let answer = answer.unwrap_or_else(|_| Err(Error::unheard("no answer in time")));
        answer.map_err(|error| repeat.judged(error, false))
    }

    /// Calls until there is an answer, as long as time is left and another attempt is safe and can help.
    async fn call<Q: Clone, R>(
        &self,
        request: Q,
        repeat: Repeat,
        wait_ms: u64,
        attempt: impl Fn(Channel, Request<Q>) -> Attempt<R>,
    ) -> Result<R, Error> {
        let deadline = Instant::now() + self.timeout + Duration::from_millis(wait_ms);
        // One that is cut off is of unknown outcome, although nothing was done so far: none begins in the last moments.
        let needed = ATTEMPT_MIN.min(self.timeout / 8);
        let mut pause = PAUSE_MIN;
        let mut was_unknown = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // An attempt may take all the time that is left: a slow call is not sent a second time while it runs. A
            // node that hangs ends its connection.
            let error = match self.attempt(request.clone(), left, &attempt).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            was_unknown |= error.outcome == Outcome::Unknown;
            let is_safe = repeat != Repeat::Risky || error.outcome == Outcome::NotDone;
            let is_nobody_there =
                !self.waits_for_nodes && error.refused_at().is_some() && !self.connections.has_connected();
            let rest = pause.max(Duration::from_millis(error.retry_after_ms.unwrap_or(0)));
            let can_help = error.is_passing && !is_nobody_there && Instant::now() + rest + needed < deadline;
            if !is_safe || !can_help {
                return Err(repeat.judged(error, was_unknown));
            }
            tokio::time::sleep(rest).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn attempt<Q, R>(
        &self,
        request: Q,
        patience: Duration,
        attempt: &impl Fn(Channel, Request<Q>) -> Attempt<R>,
    ) -> Result<R, Error> {
        let begun = Instant::now();
        let connection = tokio::time::timeout(patience, self.connections.get())
            .await
            .unwrap_or_else(|_| Err(Error::unreachable("no connection was made in time")))?;
        let left = patience.saturating_sub(begun.elapsed());
        let mut request = Request::new(request);
        request.set_timeout(left);
        let answer = tokio::time::timeout(left, attempt(connection.channel.clone(), request)).await;
        match answer {
            Ok(Ok(answer)) => {
                let hint = answer.metadata().get(LEADER_METADATA).and_then(|hint| hint.to_str().ok());
                self.connections.note_leader(&connection.address, hint);
                Ok(answer.into_inner())
            }
            Ok(Err(status)) => {
                let error = self.note_failure(&connection, Error::from(&status));
                Err(Box::pin(recognized(&connection.address, error)).await)
            }
            Err(_) => Err(self.note_failure(&connection, Error::unheard("no answer in time"))),
        }
    }

    /// Learns from a failure which node to ask next.
    pub(crate) fn note_failure(&self, connection: &Connection, error: Error) -> Error {
        use v1::Reason as R;
        let hint = error.leader_hint.as_deref();
        if error.is_of_connection() {
            self.connections.leave(connection, true);
        } else if hint.is_none() && matches!(error.reason, R::NoLeader | R::NotLeader | R::ShuttingDown) {
            self.connections.leave(connection, false);
        } else {
            self.connections.note_leader(&connection.address, hint);
        }
        error
    }
}

/// The same error; or what it is that answers at `address` in this way, if it is no node.
async fn recognized(address: &str, error: Error) -> Error {
    if !error.is_foreign {
        return error;
    }
    match strangers::look(address).await {
        Some(what) => Error::not_sent(format!("{address}: not a RaftQueue client port ({what})")),
        None => error,
    }
}

fn queue(channel: Channel) -> QueueClient<Channel> {
    QueueClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

fn admin(channel: Channel) -> AdminClient<Channel> {
    AdminClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Gives a request a random id where it has none.
fn fill_request_id(request_id: &mut Bytes) {
    if request_id.is_empty() {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the operating system gives random bytes");
        *request_id = Bytes::copy_from_slice(&random);
    }
}
