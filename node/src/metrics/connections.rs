//! Connections that others have opened to a port, and what they are encrypted with.

use super::{counter, counters, gauge, gauges};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a connection was closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    /// The port holds as many as it may.
    Port,
    /// Its address has as many as one may.
    Address,
}

impl Crowded {
    const ALL: [Crowded; 2] = [Crowded::Port, Crowded::Address];

    fn name(self) -> &'static str {
        match self {
            Crowded::Port => "port",
            Crowded::Address => "address",
        }
    }
}

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
            refused: refused(registry),
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
            refused: Crowded::ALL.map(|why| self.refused.with_label_values(&[port, why.name()])),
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

fn refused(registry: &Registry) -> IntCounterVec {
    let options = Opts::new(
        "raftqueue_connections_refused_total",
        "Connections that were closed at once because there were too many, by port, and by reason: of the port, or of one address.",
    );
    let counters = IntCounterVec::new(options, &["port", "reason"]).expect("the name is valid");
    registry.register(Box::new(counters.clone())).expect("the name is new");
    counters
}

/// Counts the connections to one port.
#[derive(Clone, Debug)]
pub struct Meter {
    open: IntGauge,
    refused: [IntCounter; Crowded::ALL.len()],
    handshakes_failed: IntCounter,
}

/// A connection that counts as open until it is dropped.
#[derive(Debug)]
pub struct Open(IntGauge);

impl Default for Meter {
    /// One that nobody reads.
    fn default() -> Self {
        let open = IntGauge::new("connections_open", "Unseen.").expect("the name is valid");
        let unseen = |why: Crowded| IntCounter::new(why.name(), "Unseen.").expect("the name is valid");
        let refused = Crowded::ALL.map(unseen);
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
    pub fn refused(&self, why: Crowded) {
        self.refused[why as usize].inc();
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
