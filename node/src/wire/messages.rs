//! Raft messages and entries, to and from what peers say. Bytes from a peer never cause a panic: what cannot be is
//! dropped.

use crate::replica::Vitals;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_raft::{AppendOutcome, Entry, Envelope, GroupId, Index, Message, NodeId, Payload, Term};
use raftqueue_wal::format::configuration;
use std::sync::Arc;

/// Largest message between nodes that is decoded, in bytes: an entry, a forwarded publish or a forwarded answer. Each
/// holds at most two bodies of 16 MiB and what surrounds them. A larger message is refused by its length alone.
pub(crate) const PEER_MESSAGE_BYTES_MAX: usize = 64 << 20;

/// An envelope as it travels.
#[must_use]
pub fn write_envelope(envelope: Envelope, vitals: Vitals) -> pb::Envelope {
    let Envelope { from, to, group, term, message } = envelope;
    let (mut disk_is_stalled, mut is_replaying, mut is_incomplete) = (None, false, false);
    let message = match message {
        Message::PreVote { last_index, last_term, replaying } => {
            pb::envelope::Message::PreVote(pb::PreVote {
                last_index: last_index.0,
                last_term: last_term.0,
                replaying,
            })
        }
        Message::PreVoteReply { granted } => {
            pb::envelope::Message::PreVoteReply(pb::PreVoteReply { granted })
        }
        Message::Vote { last_index, last_term, transfer } => pb::envelope::Message::Vote(pb::Vote {
            last_index: last_index.0,
            last_term: last_term.0,
            transfer,
        }),
        Message::VoteReply { granted } => {
            disk_is_stalled = Some(false);
            pb::envelope::Message::VoteReply(pb::VoteReply { granted })
        }
        Message::Append { prev_index, prev_term, entries, commit } => {
            pb::envelope::Message::Append(pb::Append {
                prev_index: prev_index.0,
                prev_term: prev_term.0,
                entries: entries.into_iter().map(write_entry).collect(),
                commit: commit.0,
            })
        }
        Message::AppendReply { outcome, disk_stalled } => {
            disk_is_stalled = Some(disk_stalled);
            let outcome = match outcome {
                AppendOutcome::Accepted { durable } => {
                    pb::append_reply::Outcome::Accepted(pb::AppendAccepted { durable: durable.0 })
                }
                AppendOutcome::Rejected { prev_index, hint_index, hint_term } => {
                    pb::append_reply::Outcome::Rejected(pb::AppendRejected {
                        prev_index: prev_index.0,
                        hint_index: hint_index.0,
                        hint_term: hint_term.0,
                    })
                }
            };
            pb::envelope::Message::AppendReply(pb::AppendReply { outcome: Some(outcome) })
        }
        Message::Heartbeat { commit, round } => {
            pb::envelope::Message::Heartbeat(pb::Heartbeat { commit: commit.0, round })
        }
        Message::HeartbeatReply { round, received, disk_stalled, replaying, incomplete } => {
            (disk_is_stalled, is_replaying, is_incomplete) = (Some(disk_stalled), replaying, incomplete);
            pb::envelope::Message::HeartbeatReply(pb::HeartbeatReply { round, received: received.0 })
        }
        Message::TimeoutNow => pb::envelope::Message::TimeoutNow(pb::TimeoutNow {}),
        Message::Install { start } => {
            let (start_index, start_term) = (start.0.0, start.1.0);
            pb::envelope::Message::Install(pb::Install { start_index, start_term })
        }
    };
    pb::Envelope {
        from: from.0,
        to: to.0,
        group: group.0,
        term: term.0,
        vitals: disk_is_stalled.map(|disk_stalled| pb::Vitals {
            wall_clock_ms: vitals.wall_ms,
            free_bytes: vitals.free_bytes,
            disk_stalled,
            replaying: is_replaying,
            incomplete: is_incomplete,
        }),
        message: Some(message),
    }
}

/// An envelope that arrived; `None` if it says nothing that this version knows.
#[must_use]
pub fn read_envelope(envelope: pb::Envelope) -> Option<(Envelope, Option<Vitals>)> {
    let disk_stalled = envelope.vitals.is_some_and(|vitals| vitals.disk_stalled);
    let replaying = envelope.vitals.is_some_and(|vitals| vitals.replaying);
    let incomplete = envelope.vitals.is_some_and(|vitals| vitals.incomplete);
    let message = match envelope.message? {
        pb::envelope::Message::PreVote(pb::PreVote { last_index, last_term, replaying }) => {
            Message::PreVote { last_index: Index(last_index), last_term: Term(last_term), replaying }
        }
        pb::envelope::Message::PreVoteReply(pb::PreVoteReply { granted }) => {
            Message::PreVoteReply { granted }
        }
        pb::envelope::Message::Vote(pb::Vote { last_index, last_term, transfer }) => {
            Message::Vote { last_index: Index(last_index), last_term: Term(last_term), transfer }
        }
        pb::envelope::Message::VoteReply(pb::VoteReply { granted }) => Message::VoteReply { granted },
        pb::envelope::Message::Append(pb::Append { prev_index, prev_term, entries, commit }) => {
            Message::Append {
                prev_index: Index(prev_index),
                prev_term: Term(prev_term),
                entries: entries.into_iter().map(read_entry).collect::<Option<_>>()?,
                commit: Index(commit),
            }
        }
        pb::envelope::Message::AppendReply(pb::AppendReply { outcome }) => {
            let outcome = match outcome? {
                pb::append_reply::Outcome::Accepted(pb::AppendAccepted { durable }) => {
                    AppendOutcome::Accepted { durable: Index(durable) }
                }
                pb::append_reply::Outcome::Rejected(rejected) => AppendOutcome::Rejected {
                    prev_index: Index(rejected.prev_index),
                    hint_index: Index(rejected.hint_index),
                    hint_term: Term(rejected.hint_term),
                },
            };
            Message::AppendReply { outcome, disk_stalled }
        }
        pb::envelope::Message::Heartbeat(pb::Heartbeat { commit, round }) => {
            Message::Heartbeat { commit: Index(commit), round }
        }
        pb::envelope::Message::HeartbeatReply(pb::HeartbeatReply { round, received }) => {
            Message::HeartbeatReply { round, received: Index(received), disk_stalled, replaying, incomplete }
        }
        pb::envelope::Message::TimeoutNow(pb::TimeoutNow {}) => Message::TimeoutNow,
        pb::envelope::Message::Install(pb::Install { start_index, start_term }) => {
            Message::Install { start: (Index(start_index), Term(start_term)) }
        }
    };
    let vitals =
        envelope.vitals.map(|vitals| Vitals { wall_ms: vitals.wall_clock_ms, free_bytes: vitals.free_bytes });
    let envelope = Envelope {
        from: NodeId(envelope.from),
        to: NodeId(envelope.to),
        group: GroupId(envelope.group),
        term: Term(envelope.term),
        message,
    };
    Some((envelope, vitals))
}

/// True for messages that must never wait behind entries. Appends stay in order among themselves, also those without
/// entries: such an append asks what has arrived, so it must not overtake entries that were sent before it.
#[must_use]
pub fn is_control(message: &Message) -> bool {
    !matches!(message, Message::Append { .. })
}

pub(crate) fn write_entry(entry: Entry) -> pb::Entry {
    let (kind, meta, bodies) = match entry.payload {
        Payload::Noop => (pb::EntryKind::Noop, bytes::Bytes::new(), bytes::Bytes::new()),
        Payload::Config(members) => {
            (pb::EntryKind::Config, configuration::encode(&members).into(), bytes::Bytes::new())
        }
        Payload::Command { meta, bodies } => (pb::EntryKind::Command, meta, bodies),
    };
    pb::Entry { index: entry.index.0, term: entry.term.0, kind: kind.into(), meta, bodies }
}

pub(crate) fn read_entry(entry: pb::Entry) -> Option<Entry> {
    let payload = match entry.kind() {
        pb::EntryKind::Noop => Payload::Noop,
        pb::EntryKind::Config => Payload::Config(Arc::new(configuration::decode(&entry.meta).ok()?)),
        pb::EntryKind::Command => Payload::Command { meta: entry.meta, bodies: entry.bodies },
        pb::EntryKind::Unspecified => return None,
    };
    Some(Entry { index: Index(entry.index), term: Term(entry.term), payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_log_begins_travels_and_waits_for_no_entries() {
        let message = Message::Install { start: (Index(9), Term(4)) };
        assert!(is_control(&message));
        let sent = Envelope { from: NodeId(1), to: NodeId(2), group: GroupId(0), term: Term(7), message };
        let (read, _) =
            read_envelope(write_envelope(sent.clone(), Vitals::default())).expect("it can be read");
        assert_eq!(read, sent);
    }

    #[test]
    fn rule_10_4_peers_tell_each_other_whether_they_replay_or_lack_messages() {
        let vitals = Vitals { wall_ms: 5, free_bytes: 6 };
        for (replaying, incomplete) in [(false, false), (true, false), (false, true)] {
            for message in [
                Message::PreVote { last_index: Index(3), last_term: Term(2), replaying },
                Message::HeartbeatReply {
                    round: 4,
                    received: Index(3),
                    disk_stalled: !replaying,
                    replaying,
                    incomplete,
                },
            ] {
                let (from, to) = (NodeId(1), NodeId(2));
                let sent = Envelope { from, to, group: GroupId(0), term: Term(7), message };
                let (read, _) = read_envelope(write_envelope(sent.clone(), vitals)).expect("it can be read");
                assert_eq!(read, sent);
            }
        }
    }
}
