//! Every limit of the queue, with its unit.
//!
//! A limit whose name ends in `_DEFAULT` can be set. The value in force travels in a command or in replicated state, so
//! that nodes with different settings still agree. The other limits are the same on every node of one version. Changing
//! one that [`State::apply`](crate::State::apply) checks changes what a replay gives, and needs a new version.

/// Greatest body of one message in bytes, unless set otherwise. Checked where a message enters a node.
pub const BODY_BYTES_MAX_DEFAULT: u32 = 1 << 20;
/// What [`BODY_BYTES_MAX_DEFAULT`] can be raised to.
pub const BODY_BYTES_MAX: u32 = 16 << 20;
/// Greatest key of one message in bytes. Checked where a message enters a node.
pub const KEY_BYTES_MAX: u32 = 1 << 10;
/// Most headers of one message. Checked where a message enters a node.
pub const HEADERS_MAX: u32 = 64;
/// Greatest sum of all header names and values of one message in bytes. Checked where a message enters a node.
pub const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Longest name of a topic or of a producer in bytes of UTF-8; the shortest is 1, and control characters are refused.
pub const NAME_BYTES_MAX: usize = 255;
/// Most messages of one publish.
pub const PUBLISH_MESSAGES_MAX: usize = 10_000;
/// Greatest sum of the messages of one publish in bytes, unless set otherwise. Checked where a batch enters a node.
pub const PUBLISH_BYTES_MAX_DEFAULT: u64 = 4 << 20;
/// Most candidates of one receive or pop, and most messages that one call returns.
pub const RECEIVE_MESSAGES_MAX: usize = 1_000;
/// Most leases that one ack, nack, extend or release may name.
pub const SETTLE_LEASES_MAX: usize = 10_000;
/// Most dead messages that one redrive or purge may list.
pub const DEAD_LISTED_MAX: usize = 1_000;
/// Most topics of a cluster, unless set otherwise.
pub const TOPICS_MAX_DEFAULT: u64 = 100_000;
/// Length of a lease in milliseconds where the caller names none, unless set otherwise.
pub const LEASE_MS_DEFAULT: u64 = 30_000;
/// Shortest lease, and shortest extension, in milliseconds.
pub const LEASE_MS_MIN: u64 = 1_000;
/// Longest lease in milliseconds; also the most that extensions can add up to, counted from the grant.
pub const LEASE_MS_MAX: u64 = 12 * 60 * 60 * 1_000;
/// Attempts after which a message is dead, unless its topic says otherwise.
pub const ATTEMPTS_MAX_DEFAULT: u32 = 16;
/// Longest text of a nack in bytes of UTF-8.
pub const NACK_REASON_BYTES_MAX: usize = 256;
/// Most open sessions of a cluster, unless set otherwise.
pub const SESSIONS_MAX_DEFAULT: u64 = 10_000;
/// Most topics that one session may have published to.
pub const SESSION_TOPICS_MAX: usize = 1_000;
/// Most (session, topic) pairs of a cluster, unless set otherwise.
pub const SESSION_PAIRS_MAX_DEFAULT: u64 = 100_000;
/// Replies kept per (session, topic), so also the most publishes that a producer may have outstanding there.
pub const SESSION_REPLIES_MAX: usize = 1_024;
/// Log time in milliseconds without a call after which a session ends.
pub const SESSION_IDLE_MS: u64 = 60 * 60 * 1_000;
/// Log time in milliseconds for which the messages of a pop with a request id are kept for a repeat.
pub const POP_KEPT_MS: u64 = 60_000;
/// Most pops kept for a repeat; the oldest gives way.
pub const POP_KEPT_MAX: usize = 10_000;
/// Log time in milliseconds for which the request id of a pop is remembered. A repeat that comes when the messages are
/// no longer kept is told so, and takes nothing. After that time an id counts as never seen.
pub const POP_REMEMBERED_MS: u64 = 60 * 60 * 1_000;
/// Most request ids remembered without their messages; the oldest gives way.
pub const POP_REMEMBERED_MAX: usize = 100_000;
/// Most items (leases, delays, deadlines, sessions, kept pops) that one apply ends because their time is over.
pub const EXPIRED_PER_APPLY_MAX: usize = 1_000;
/// Most runs of redriven messages that one apply makes ready; the next ones go on.
pub const REDRIVEN_PER_APPLY_MAX: usize = 1_000;
/// Counters beyond this are not believed. So there is always room to count on without overflow.
pub(crate) const COUNTER_MAX: u64 = 1 << 62;
