//! Connections that others have opened to a port, and what they are encrypted with.

use super::{counter, counters, gauge, gauges};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is counted of all ports.
#[derive(Debug)]
pub(crate) struct Connections {
    open: IntGaugeVec,
    refused: IntCounterVec,
    handshakes_failed: IntCounterVec,
    expires: IntGauge,
    reloads_failed: IntCounter,
}

impl Connections {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            open: gauges(
                registry,
                "raftqueue_connections_open",
                "Connections that are open, by the port they came to.",
                &["port"],
            ),
            refused: counters(
                registry,
                "raftqueue_connections_refused_total",
                "Connections that were closed at once because there were too many, by port.",
                "port",
                &[],
            ),
            handshakes_failed: counters(
                registry,
                "raftqueue_tls_handshakes_failed_total",
                "Connections that were closed since their handshake failed or they came without TLS, by port.",
                "port",
                &[],
            ),
            expires: gauge(
                registry,
                "raftqueue_tls_certificate_expires_timestamp_seconds",
                "When the certificate in force expires, in seconds since 1970; 0 without one.",
            ),
            reloads_failed: counter(
                registry,
                "raftqueue_reloads_failed_total",
                "Looks at files of certificates and rights that had changed and were not right: what was read before stays in force.",
            ),
        }
    }

    pub(super) fn meter(&self, port: &'static str) -> Meter {
        Meter {
            open: self.open.with_label_values(&[port]),
            refused: self.refused.with_label_values(&[port]),
            handshakes_failed: self.handshakes_failed.with_label_values(&[port]),
        }
    }

    /// When the certificate in force expires.
    pub(crate) fn expires(&self, at: SystemTime) {
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.expires.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Files have changed, and are not right.
    pub(crate) fn reload_failed(&self) {
        self.reloads_failed.inc();
    }
}

/// Counts the connections to one port.
#[derive(Clone, Debug)]
pub struct Meter {
    open: IntGauge,
    refused: IntCounter,
    handshakes_failed: IntCounter,
}

/// A connection that counts as open until it is dropped.
#[derive(Debug)]
pub struct Open(IntGauge);

impl Default for Meter {
    /// One that nobody reads.
    fn default() -> Self {
        let open = IntGauge::new("connections_open", "Unseen.").expect("the name is valid");
        let refused = IntCounter::new("connections_refused", "Unseen.").expect("the name is valid");
        let handshakes_failed = IntCounter::new("handshakes_failed", "Unseen.").expect("the name is valid");
        Self { open, refused, handshakes_failed }
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

    /// A connection was closed, since it spoke without TLS where that is wanted, or its handshake failed.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
