//! Connections that others have opened to a port.

use prometheus::{IntCounter, IntGauge};

/// Counts the connections to one port.
#[derive(Clone, Debug)]
pub struct Meter {
    pub(super) open: IntGauge,
    pub(super) refused: IntCounter,
}

/// A connection that counts as open until it is dropped.
#[derive(Debug)]
pub struct Open(IntGauge);

impl Default for Meter {
    /// One that nobody reads.
    fn default() -> Self {
        let open = IntGauge::new("connections_open", "Unseen.").expect("the name is valid");
        let refused = IntCounter::new("connections_refused", "Unseen.").expect("the name is valid");
        Self { open, refused }
    }
}

impl Meter {
    /// A connection was let in.
    #[must_use]
    pub fn open(&self) -> Open {
        self.open.inc();
        Open(self.open.clone())
    }

    /// A connection was closed at once.
    pub fn refused(&self) {
        self.refused.inc();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
