//! Publishing without duplicates.

use crate::{Client, Error, Outcome};
use bytes::Bytes;
use raftqueue_proto::v1;

/// Publishes to one topic inside a session: batch after batch, each stored once, however often it is sent.
///
/// Invariant: `next_sequence` is the number of the next batch; `unknown` is the batch that was sent under it and whose
/// outcome is unknown.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    topic: String,
    session: Bytes,
    next_sequence: u64,
    unknown: Option<Vec<v1::NewMessage>>,
}

impl Producer {
    pub(crate) async fn open(client: Client, topic: String) -> Result<Self, Error> {
        let session = client.open_session(v1::OpenSessionRequest { name: None }).await?.session;
        Ok(Self { client, topic, session, next_sequence: 1, unknown: None })
    }

    /// Publishes a batch: all of its messages or none, and once.
    ///
    /// After an error of unknown outcome the same messages must be published again before any others: that is the
    /// repeat, and stores nothing twice. After an error that says `NotDone` any messages may follow.
    ///
    /// Dropping the future is like an error of unknown outcome.
    ///
    /// # Errors
    ///
    /// The node's refusal, or no answer until the timeout. `SESSION_EXPIRED` ends this producer: open another. A batch
    /// of unknown outcome then stays so.
    pub async fn publish(&mut self, messages: Vec<v1::NewMessage>) -> Result<v1::PublishResponse, Error> {
        if self.unknown.as_ref().is_some_and(|unknown| *unknown != messages) {
            return Err(Error::not_sent(
                "the outcome of the last batch is unknown: publish it again before another",
            ));
        }
        let step = v1::SessionStep { session: self.session.clone(), sequence: self.next_sequence };
        let request =
            v1::PublishRequest { topic: self.topic.clone(), session: Some(step), messages: messages.clone() };
        let was_unknown = self.unknown.replace(messages).is_some();
        match self.client.publish(request).await {
            Ok(published) => {
                self.unknown = None;
                self.next_sequence += 1;
                Ok(published)
            }
            // An earlier attempt with this batch may still be carried out, whatever the result of this one.
            Err(error) if was_unknown => Err(Error { outcome: Outcome::Unknown, ..error }),
            Err(error) => {
                if error.outcome == Outcome::NotDone {
                    self.unknown = None;
                }
                Err(error)
            }
        }
    }

    /// Ends the session. A session that is not closed ends by itself after an hour without use.
    ///
    /// # Errors
    ///
    /// The node's refusal, or no answer. Either way nothing is lost that was published.
    pub async fn close(self) -> Result<(), Error> {
        self.client.close_session(v1::CloseSessionRequest { session: self.session }).await?;
        Ok(())
    }
}
