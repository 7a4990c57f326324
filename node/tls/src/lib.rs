//! TLS of RaftQueue: certificates in files, who they say that somebody is, and connections.
//!
//! Every place that opens or accepts a TCP connection goes through here: a port of a node by a [`Door`], whoever connects by
//! [`Keys::connect`]. [`Keys`] holds what stands in the [`Files`] and reads them again when they change; connections that are open go on
//! with what they began with, so that certificates rotate without a restart. Several certificates may stand in the file of authorities,
//! which is how an old and a new authority overlap.
//!
//! What it does not do: it decides nobody's rights. An [`Identity`] says what a certificate says; what that may do is decided elsewhere.

mod door;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod identity;
mod keys;
mod stream;
mod words;

pub use door::{Door, IsNode, Mode, Refused, Whom};
pub use files::{Files, TlsError};
pub use identity::Identity;
pub use keys::{Keys, Refreshed};
pub use stream::{Peer, Stream};
pub use words::{explain, explained, speaks_no_tls};

#[cfg(test)]
mod tests;
