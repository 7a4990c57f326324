//! The Rust client of RaftQueue.
//!
//! ```no_run
//! # async fn example() -> Result<(), raftqueue_client::Error> {
//! use raftqueue_client::{Client, v1};
//!
//! let client = Client::connect(["127.0.0.1:7420", "127.0.0.1:7430", "127.0.0.1:7440"])?;
//! let mut producer = client.producer("orders").await?;
//! producer.publish(vec![v1::NewMessage { body: "one".into(), ..Default::default() }]).await?;
//!
//! let receive = v1::ReceiveRequest { topic: "orders".into(), messages_max: 100, ..Default::default() };
//! for delivery in client.receive(receive).await?.deliveries {
//!     println!("{}", String::from_utf8_lossy(&delivery.body));
//!     client.ack(v1::AckRequest { topic: "orders".into(), leases: vec![delivery.lease], ..Default::default() }).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Client`] has one method for each call of the contract, with the contract's own messages ([`v1`]) as arguments and
//! results. It finds a node that answers, goes to the leader directly once it knows where that is, and repeats what is
//! safe to repeat until its timeout; everything else comes back as an [`Error`] that says whether the call may have
//! happened. [`Producer`] publishes inside a session, so that it can repeat even what may have happened.
//!
//! Not here: streams. Every call is one request and one answer.

mod client;
mod connections;
mod error;
mod pending;
mod producer;
mod publisher;

pub use client::Client;
pub use error::{Error, Outcome};
pub use producer::Producer;
pub use publisher::{Acknowledgement, Publisher, PublisherSettings};
pub use raftqueue_proto::v1;
