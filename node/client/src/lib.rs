//! The Rust client of RaftQueue.
//!
//! Publishing, and consuming, at full speed:
//!
//! ```no_run
//! # async fn example() -> Result<(), raftqueue_client::Error> {
//! use raftqueue_client::{Client, v1};
//!
//! let client = Client::connect(["127.0.0.1:7420", "127.0.0.1:7430", "127.0.0.1:7440"])?;
//! let publisher = client.publisher("orders").await?;
//! publisher.publish(v1::NewMessage { body: "one".into(), ..Default::default() }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! ```no_run
//! # async fn example() -> Result<(), raftqueue_client::Error> {
//! use raftqueue_client::Client;
//!
//! let mut consumer = Client::connect(["127.0.0.1:7420"])?.consumer("orders");
//! loop {
//!     let delivery = consumer.receive().await?;
//!     println!("{}", String::from_utf8_lossy(&delivery.body));
//!     delivery.ack();
//! }
//! # }
//! ```
//!
//! | what | for |
//! |---|---|
//! | [`Publisher`] | many messages, batches under way at once, in order, each stored once |
//! | [`Producer`] | one batch after the other, each stored once |
//! | [`Consumer`] | messages as fast as they are settled, leased while they are worked on |
//! | [`Contexts`] | where clusters are and what is shown to them, from the file that `raftq context` writes |
//! | [`Client`] | one method for each call of the contract, with the contract's own messages ([`v1`]) |
//!
//! Whole programs stand in `examples/`.
//!
//! # What is promised
//!
//! * **An acknowledged publish is kept**: a majority of the nodes has it on disk when it is acknowledged.
//! * **Stored once**: what a [`Publisher`] or [`Producer`] sends again after a broken connection or a fail-over is
//!   stored once, as long as its session lives. A session ends only after an hour without use. Then the publish fails
//!   with an unknown outcome and is not repeated. A plain [`Client::publish`] has no session, and is repeated only if
//!   it was certainly not done.
//! * **Delivered until acknowledged**: a [`Consumer`] sees each message at least once. It comes again if a lease ended,
//!   or if an acknowledgement was lost with its process. [`Settled`] says when an acknowledgement came too late.
//! * **Order**: messages are stored in the order in which one publisher hands them over. They are delivered in the
//!   order of the topic, except those that come again; when a stream breaks, messages that were on their way come
//!   again, too.
//! * **Honest errors**: every [`Error`] says whether the call may have happened ([`Outcome`]). A question that was not answered
//!   has changed nothing, so its outcome is never unknown.
//! * **Bounded memory**: a publisher holds at most [`PublisherSettings::buffer_bytes`] that are not acknowledged, and a
//!   consumer at most what [`ConsumerSettings`] grant. Whoever hands over more waits.
//!
//! Nobody has to know where the leader is. A client starts with any endpoint that answers. Once it is told of the
//! leader and can reach it within 200 ms, it goes there directly. If it cannot, it stays with its endpoint, which
//! passes calls on.

mod client;
mod connections;
mod consumer;
mod contexts;
mod credentials;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod pending;
mod producer;
mod publisher;
mod repeat;
mod strangers;

pub use client::Client;
pub use consumer::{Consumer, ConsumerSettings, Delivery, Settled, Settlement};
pub use contexts::{Context, ContextError, Contexts};
pub use credentials::{Credentials, Token};
pub use error::{Error, Outcome};
pub use producer::Producer;
pub use publisher::{Acknowledgement, Publisher, PublisherSettings};
pub use raftqueue_proto::v1;
