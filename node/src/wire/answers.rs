//! What is said to a client when its call succeeded.
//!
//! [`Write`] takes an [`Answer`] apart into the response that belongs to the call. An answer of another kind is a
//! broken promise of this node's own replica, and panics; answers of other nodes are judged before they get here.

use super::convert::{write_cluster, write_delivery, write_lease_result, write_node_id, write_topic};
use super::ids;
use crate::api::{Answer, LeaseResult, MessageId, Response};
use raftqueue_proto::v1;

/// A response that is written to the wire.
pub(crate) trait Write: Sized {
    /// The response that `answer` is; `None` when it is the answer to another call.
    fn write(answer: Answer) -> Option<Self>;
}

/// The response that belongs to a call answered with `answer`.
///
/// # Panics
///
/// The answer is that of another call: the replica is broken.
pub(crate) fn write<R: Write>(answer: Answer) -> R {
    let kind = std::any::type_name::<R>();
    R::write(answer)
        .unwrap_or_else(|| panic!("the replica gave another call's answer where a {kind} was due"))
}

macro_rules! write_response {
    ($response:ty, $pattern:pat => $value:expr) => {
        impl Write for $response {
            fn write(answer: Answer) -> Option<Self> {
                match answer {
                    $pattern => Some($value),
                    _ => None,
                }
            }
        }
    };
}

write_response!(v1::CreateTopicResponse, Answer::Response(Response::TopicCreated { topic }) => Self { topic_id: topic });
write_response!(v1::DeleteTopicResponse, Answer::Response(Response::TopicDeleted) => Self {});
write_response!(v1::ListTopicsResponse, Answer::Response(Response::Topics { topics, more }) =>
    Self { topics: topics.into_iter().map(write_topic).collect(), more });
write_response!(v1::DescribeTopicResponse, Answer::Response(Response::Topic(topic)) =>
    Self { topic: Some(write_topic(topic)) });
write_response!(v1::ReceiveResponse, Answer::Deliveries(deliveries) =>
    Self { deliveries: deliveries.messages.into_iter().map(write_delivery).collect() });
write_response!(v1::PopResponse, Answer::Deliveries(deliveries) =>
    Self { deliveries: deliveries.messages.into_iter().map(write_delivery).collect() });
write_response!(v1::PeekResponse, Answer::Deliveries(deliveries) =>
    Self { deliveries: deliveries.messages.into_iter().map(write_delivery).collect() });
write_response!(v1::AckResponse, Answer::Response(Response::Leases(results)) => Self { results: write_results(&results) });
write_response!(v1::NackResponse, Answer::Response(Response::Leases(results)) => Self { results: write_results(&results) });
write_response!(v1::ExtendResponse, Answer::Response(Response::Leases(results)) => Self { results: write_results(&results) });
write_response!(v1::ReleaseResponse, Answer::Response(Response::Leases(results)) => Self { results: write_results(&results) });
write_response!(v1::RedriveDeadResponse, Answer::Response(Response::Count(count)) => Self { count });
write_response!(v1::PurgeDeadResponse, Answer::Response(Response::Count(count)) => Self { count });
write_response!(v1::PurgeResponse, Answer::Response(Response::Count(count)) => Self { count });
write_response!(v1::OpenSessionResponse, Answer::Response(Response::SessionOpened { session }) =>
    Self { session: ids::encode_session(session) });
write_response!(v1::CloseSessionResponse, Answer::Response(Response::SessionClosed) => Self {});
write_response!(v1::ClusterStatusResponse, Answer::Response(Response::Cluster(cluster)) => write_cluster(cluster));
write_response!(v1::TransferLeadershipResponse, Answer::Response(Response::Transferred { leader }) =>
    Self { leader: write_node_id(leader) });

impl Write for v1::PublishResponse {
    fn write(answer: Answer) -> Option<Self> {
        match answer {
            Answer::Response(Response::Published { topic, generation, first_offset, count }) => {
                let first_id = ids::encode_message_id(MessageId { generation, topic, offset: first_offset });
                Some(Self { first_offset, count, first_id, already_done: false })
            }
            Answer::Response(Response::AlreadyDone) => Some(Self { already_done: true, ..Self::default() }),
            _ => None,
        }
    }
}

fn write_results(results: &[LeaseResult]) -> Vec<i32> {
    results.iter().map(|result| write_lease_result(*result)).collect()
}
