//! How messages, entries and writes read in a story.

use raftqueue_raft::{AppendOutcome, Configuration, Entry, Envelope, MemberKind, Message, Payload, Write};

pub(crate) fn envelope(envelope: &Envelope) -> String {
    let Envelope { from, to, term, .. } = envelope;
    format!("n{from} -> n{to} term {term}: {}", message(&envelope.message))
}

/// One word per kind of message, as scripts name them.
pub(crate) fn kind(message: &Message) -> &'static str {
    match message {
        Message::PreVote { .. } => "pre-vote",
        Message::PreVoteReply { .. } => "pre-vote-reply",
        Message::Vote { .. } => "vote",
        Message::VoteReply { .. } => "vote-reply",
        Message::Append { .. } => "append",
        Message::AppendReply { .. } => "append-reply",
        Message::Heartbeat { .. } => "heartbeat",
        Message::HeartbeatReply { .. } => "heartbeat-reply",
        Message::TimeoutNow => "timeout-now",
        Message::Install { .. } => "install",
    }
}

fn message(message: &Message) -> String {
    let kind = kind(message);
    match message {
        Message::PreVote { last_index, last_term, replaying: is_replaying } => {
            format!("{kind}, log ends at {last_index}@{last_term}{}", replaying(*is_replaying))
        }
        Message::Vote { last_index, last_term, transfer } => {
            let transfer = if *transfer { ", for a transfer" } else { "" };
            format!("{kind}, log ends at {last_index}@{last_term}{transfer}")
        }
        Message::PreVoteReply { granted } | Message::VoteReply { granted } => {
            format!("{kind}, {}", if *granted { "granted" } else { "refused" })
        }
        Message::Append { prev_index, prev_term, entries, commit } => {
            format!("{kind} after {prev_index}@{prev_term} {}, commit {commit}", range(entries))
        }
        Message::AppendReply { outcome: AppendOutcome::Accepted { durable }, disk_stalled } => {
            format!("{kind}, durable {durable}{}", stalled(*disk_stalled))
        }
        Message::AppendReply {
            outcome: AppendOutcome::Rejected { prev_index, hint_index, hint_term },
            disk_stalled,
        } => {
            format!("{kind}, no {prev_index}, try {hint_index}@{hint_term}{}", stalled(*disk_stalled))
        }
        Message::Heartbeat { commit, round } => format!("{kind}, commit {commit}, round {round}"),
        Message::HeartbeatReply { round, received, disk_stalled, replaying: is_replaying, incomplete } => {
            let (stalled, replaying) = (stalled(*disk_stalled), replaying(*is_replaying));
            let incomplete = if *incomplete { ", incomplete" } else { "" };
            format!("{kind}, round {round}, received {received}{stalled}{replaying}{incomplete}")
        }
        Message::TimeoutNow => kind.to_owned(),
        Message::Install { start } => format!("{kind} what lies before {}@{}", start.0, start.1),
    }
}

fn stalled(disk_stalled: bool) -> &'static str {
    if disk_stalled { ", disk stalled" } else { "" }
}

fn replaying(replaying: bool) -> &'static str {
    if replaying { ", replaying" } else { "" }
}

fn range(entries: &[Entry]) -> String {
    match entries {
        [] => "nothing".to_owned(),
        [one] => format!("{}@{}", one.index, one.term),
        [first, .., last] => format!("{}@{}..{}@{}", first.index, first.term, last.index, last.term),
    }
}

/// A log, oldest entry first.
pub(crate) fn log<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let shown: Vec<_> = entries
        .into_iter()
        .map(|entry| format!("{}@{}:{}", entry.index, entry.term, payload(&entry.payload)))
        .collect();
    if shown.is_empty() { "nothing".to_owned() } else { shown.join(" ") }
}

fn payload(payload: &Payload) -> String {
    match payload {
        Payload::Noop => "-".to_owned(),
        Payload::Config(members) => configuration(members),
        Payload::Command { meta, .. } => String::from_utf8_lossy(meta).into_owned(),
    }
}

/// `{voters+learners<outgoing voters}`, and the version once it is not 0.
pub(crate) fn configuration(configuration: &Configuration) -> String {
    let of = |kind| {
        let ids = configuration.members.iter().filter(|(_, member)| member.kind == kind);
        ids.map(|(id, _)| id.to_string()).collect::<Vec<_>>().join(",")
    };
    let outgoing: Vec<_> = configuration.outgoing.iter().map(ToString::to_string).collect();
    let mut shown = of(MemberKind::Voter);
    if !of(MemberKind::Learner).is_empty() {
        shown += &format!("+{}", of(MemberKind::Learner));
    }
    if !outgoing.is_empty() {
        shown += &format!("<{}", outgoing.join(","));
    }
    let version = match configuration.version {
        0 => String::new(),
        version => format!("v{version}"),
    };
    format!("{{{shown}}}{version}")
}

pub(crate) fn write(write: &Write) -> String {
    let mut parts = Vec::new();
    if write.hard_state_changed() {
        let vote = write.hard_state().vote.map_or("no vote".to_owned(), |vote| format!("vote n{vote}"));
        parts.push(format!("term {} {vote}", write.hard_state().term));
    }
    if let Some((index, term)) = write.reset() {
        parts.push(format!("begin behind {index}@{term}"));
    }
    if let Some(from) = write.truncate_from() {
        parts.push(format!("cut from {from}"));
    }
    if !write.entries().is_empty() {
        parts.push(format!("append {}", range(write.entries())));
    }
    parts.join(", ")
}
