//! States, replies and effects as text.

use raftqueue_queue::{
    Command, DeadReason, DeadRun, DelayedMessage, Delivery, Effects, Head, LeaseResult, LeasedMessage,
    PairSection, PopSection, Reply, RetriedMessage, Section, SessionHead, State, TopicHead,
};
use std::fmt::Write as _;

/// 1500 as `1500ms`, 2000 as `2s`.
fn time(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

fn result(result: LeaseResult) -> &'static str {
    match result {
        LeaseResult::Done => "DONE",
        LeaseResult::Gone => "GONE",
        LeaseResult::Stale => "STALE",
        LeaseResult::Invalid => "INVALID",
    }
}

fn deliveries(deliveries: &[Delivery]) -> String {
    let one = |delivery: &Delivery| {
        let mut text = delivery.offset.to_string();
        if delivery.generation.0 > 0 {
            write!(text, "/{}", delivery.generation).expect("a string takes everything");
        }
        if delivery.attempts > 0 {
            write!(text, "(attempts {})", delivery.attempts).expect("a string takes everything");
        }
        text
    };
    match deliveries {
        [] => "nothing".to_string(),
        [first, .., last] if deliveries.len() > 20 => {
            format!("{} .. {} ({} messages)", one(first), one(last), deliveries.len())
        }
        some => some.iter().map(one).collect::<Vec<_>>().join(" "),
    }
}

pub(crate) fn reply(reply: &Reply, command: &Command) -> String {
    let again = |repeated: &bool| if *repeated { " (repeated)" } else { "" };
    match reply {
        Reply::Created { topic, repeated } => format!("created topic {topic}{}", again(repeated)),
        Reply::Updated { settings } => {
            let limit = |max: Option<u64>| max.map_or_else(|| "none".to_string(), |max| max.to_string());
            let (messages, bytes) = (limit(settings.messages_max), limit(settings.bytes_max));
            format!("attempts {}, messages {messages}, bytes {bytes}", settings.attempts_max)
        }
        Reply::Deleted { topic } => format!("deleted topic {topic}"),
        Reply::Published { topic, generation, first_offset, count, repeated } => {
            let end = first_offset + u64::from(*count);
            let generation =
                if generation.0 > 0 { format!(" in generation {generation}") } else { String::new() };
            format!("published {first_offset}..{end} in topic {topic}{generation}{}", again(repeated))
        }
        Reply::Received { token, expires_ms, deliveries: some, .. } => {
            format!("token {token} until {}: {}", time(*expires_ms), deliveries(some))
        }
        Reply::Popped { deliveries: some, repeated, .. } => {
            format!("popped {}{}", deliveries(some), again(repeated))
        }
        Reply::Settled { results } => {
            let (Command::Ack { leases, .. }
            | Command::Nack { leases, .. }
            | Command::Release { leases, .. }) = command
            else {
                panic!("only these settle: {command:?}");
            };
            assert_eq!(leases.len(), results.len());
            let one = |(lease, of): (_, &LeaseResult)| -> String {
                let lease: &raftqueue_queue::LeaseId = lease;
                format!("{} {}", lease.offset, result(*of))
            };
            if results.len() > 20 && results.iter().all(|of| *of == results[0]) {
                return format!("{} times {}", results.len(), result(results[0]));
            }
            leases.iter().zip(results).map(one).collect::<Vec<_>>().join(", ")
        }
        Reply::Extended { extensions } => {
            let one = |extension: &raftqueue_queue::Extension| match extension.result {
                LeaseResult::Done => format!("until {}", time(extension.expires_ms)),
                other => result(other).to_string(),
            };
            extensions.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        Reply::Redriven { count } => format!("redriven {count}"),
        Reply::Purged { count, bytes } => format!("purged {count} ({bytes} bytes)"),
        Reply::SessionOpened { session, epoch, resumed } => {
            format!("session {session} at epoch {epoch}{}", if *resumed { " (resumed)" } else { "" })
        }
        Reply::SessionClosed => "closed".to_string(),
        Reply::Done => "done".to_string(),
        Reply::AlreadyDone => "already done".to_string(),
        Reply::Refused(refused) => format!("refused: {refused}"),
    }
}

pub(crate) fn effects(effects: &Effects, state: &State) -> String {
    let mut text = String::new();
    for (topic, ..) in &effects.ready {
        let name = state.topic(*topic).map_or("a topic that is gone", |topic| topic.name());
        write!(text, "  ready in {name}").expect("a string takes everything");
    }
    for topic in &effects.deleted {
        write!(text, "  deleted {topic}").expect("a string takes everything");
    }
    for (count, what) in [
        (effects.leases_expired, "leases expired"),
        (effects.died, "died"),
        (effects.sessions_expired, "sessions expired"),
    ] {
        if count > 0 {
            write!(text, "  {count} {what}").expect("a string takes everything");
        }
    }
    if text.is_empty() { text } else { format!(" {text}\n") }
}

/// What a subscription holds, its sections put together.
#[derive(Default)]
struct Held {
    bytes: u64,
    ready: Vec<(u64, u64)>,
    retried: Vec<RetriedMessage>,
    waived: Vec<(u64, u64)>,
    leased: Vec<LeasedMessage>,
    delayed: Vec<DelayedMessage>,
    dead: Vec<DeadRun>,
    redriven: Vec<DeadRun>,
}

struct Topic {
    head: TopicHead,
    generations: Vec<(raftqueue_queue::Generation, u64)>,
    subscriptions: Vec<Held>,
}

/// The sections of a state, put together.
#[derive(Default)]
struct Whole {
    head: Head,
    topics: Vec<Topic>,
    sessions: Vec<(SessionHead, Vec<PairSection>)>,
    pops: Vec<PopSection>,
}

impl Whole {
    fn of(state: &State) -> Whole {
        let mut whole = Whole::default();
        state.sections().for_each(|section| whole.take(section));
        whole
    }

    fn take(&mut self, section: Section) {
        let topic = self.topics.last_mut();
        match section {
            Section::Head(head) => self.head = head,
            Section::Topic(head) => {
                self.topics.push(Topic { head, generations: Vec::new(), subscriptions: Vec::new() });
            }
            Section::Generations(some) => topic.expect("a topic came").generations.extend(some),
            Section::Subscription(head) => {
                let held = Held { bytes: head.bytes, ..Held::default() };
                topic.expect("a topic came").subscriptions.push(held);
            }
            Section::Session(head) => self.sessions.push((head, Vec::new())),
            Section::Pair(pair) => self.sessions.last_mut().expect("a session came").1.push(pair),
            Section::Pops(some) => self.pops.extend(some),
            held => {
                let topic = topic.expect("a topic came");
                topic.subscriptions.last_mut().expect("a subscription came").take(held);
            }
        }
    }
}

impl Held {
    fn take(&mut self, section: Section) {
        match section {
            Section::Ready(runs) => self.ready.extend(runs),
            Section::Retried(some) => self.retried.extend(some),
            Section::Waived(runs) => self.waived.extend(runs),
            Section::Leased(some) => self.leased.extend(some),
            Section::Delayed(some) => self.delayed.extend(some),
            Section::Dead(runs) => self.dead.extend(runs),
            Section::Redriven(runs) => self.redriven.extend(runs),
            other => panic!("a subscription holds no {}", other.name()),
        }
    }
}

/// The whole state, or one topic of it.
pub(crate) fn state(state: &State, topic: Option<&str>) -> String {
    let whole = Whole::of(state);
    let mut text = String::new();
    for of in whole.topics.iter().filter(|of| topic.is_none_or(|topic| of.head.name == topic)) {
        show_topic(&mut text, of).expect("a string takes everything");
    }
    if topic.is_none() {
        for (session, pairs) in &whole.sessions {
            show_session(&mut text, session, pairs).expect("a string takes everything");
        }
        let kept = whole.pops.len() - whole.head.pops_kept as usize;
        for (position, pop) in whole.pops.iter().enumerate() {
            show_pop(&mut text, pop, position >= kept).expect("a string takes everything");
        }
    }
    if text.is_empty() { "nothing\n".to_string() } else { text }
}

fn show_topic(text: &mut String, topic: &Topic) -> std::fmt::Result {
    write!(text, "topic {} {}: next {}", topic.head.id, topic.head.name, topic.head.next_offset)?;
    for (generation, first) in topic.generations.iter().filter(|(generation, _)| generation.0 > 0) {
        write!(text, ", generation {generation} from {first}")?;
    }
    writeln!(text)?;
    topic.subscriptions.iter().try_for_each(|held| show_subscription(text, held))
}

fn show_subscription(text: &mut String, held: &Held) -> std::fmt::Result {
    let runs = |runs: &[(u64, u64)]| {
        let one = |&(start, end): &(u64, u64)| {
            if start + 1 == end { start.to_string() } else { format!("{start}..{end}") }
        };
        match runs {
            [first, .., last] if runs.len() > 20 => {
                format!("{} .. {} ({} runs)", one(first), one(last), runs.len())
            }
            some => some.iter().map(one).collect::<Vec<_>>().join(" "),
        }
    };
    if !held.ready.is_empty() {
        writeln!(text, "  ready {}", runs(&held.ready))?;
    }
    for retried in held.retried.iter().take(6) {
        write!(text, "    {} attempts {}", retried.offset, retried.attempts)?;
        match retried.late_ack {
            Some(token) => writeln!(text, ", ack still accepted under {token}")?,
            None => writeln!(text)?,
        }
    }
    if !held.waived.is_empty() {
        writeln!(text, "    deadline waived {}", runs(&held.waived))?;
    }
    for lease in held.leased.iter().take(6) {
        write!(text, "  leased {} token {} until {}", lease.offset, lease.token, time(lease.expires_ms))?;
        show_rest(text, lease.attempts, lease.deadline_ms, lease.is_waived)?;
    }
    for delayed in held.delayed.iter().take(6) {
        write!(text, "  delayed {} until {}", delayed.offset, time(delayed.due_ms))?;
        show_rest(text, delayed.attempts, delayed.deadline_ms, delayed.is_waived)?;
    }
    for count in [held.leased.len(), held.delayed.len()].into_iter().filter(|&count| count > 6) {
        writeln!(text, "  and so on, {count} in all")?;
    }
    for dead in &held.dead {
        let reason = match &dead.reason {
            DeadReason::Expired => "expired",
            DeadReason::LeaseExpired => "lease expired",
            DeadReason::Nacked => "nacked",
            DeadReason::NackedBecause(because) => because,
        };
        writeln!(
            text,
            "  dead {} attempts {}: {reason}",
            runs(&[(dead.offsets.start, dead.offsets.end)]),
            dead.attempts
        )?;
    }
    for run in &held.redriven {
        writeln!(text, "  redriven {}", runs(&[(run.offsets.start, run.offsets.end)]))?;
    }
    writeln!(text, "  bytes {}", held.bytes)
}

fn show_rest(
    text: &mut String,
    attempts: u32,
    deadline_ms: Option<u64>,
    is_waived: bool,
) -> std::fmt::Result {
    if attempts > 0 {
        write!(text, ", attempts {attempts}")?;
    }
    if let Some(deadline_ms) = deadline_ms {
        write!(text, ", expires at {}", time(deadline_ms))?;
    }
    if is_waived {
        write!(text, ", deadline waived")?;
    }
    writeln!(text)
}

fn show_session(text: &mut String, session: &SessionHead, pairs: &[PairSection]) -> std::fmt::Result {
    write!(text, "session {}", session.id)?;
    if let Some(name) = &session.name {
        write!(text, " {name} epoch {}", session.epoch)?;
    }
    writeln!(text, ", used at {}", time(session.used_ms))?;
    for pair in pairs {
        writeln!(
            text,
            "  topic {}: last {}, {} replies",
            pair.topic,
            pair.last_sequence,
            pair.replies.len()
        )?;
    }
    Ok(())
}

fn show_pop(text: &mut String, pop: &PopSection, is_kept: bool) -> std::fmt::Result {
    let what = if is_kept { deliveries(&pop.deliveries) } else { "remembered".to_string() };
    writeln!(text, "pop {} at {} of topic {}: {what}", pop.request_id, time(pop.popped_ms), pop.topic)
}

/// Live offsets of a topic as maximal runs.
pub(crate) fn live(state: &State, name: &str) -> String {
    let Some(topic) = state.topic_id(name).and_then(|id| state.topic(id)) else {
        return "no topic".to_string();
    };
    let runs: Vec<(u64, u64)> = topic.live_runs(0..u64::MAX).map(|run| (run.start, run.end)).collect();
    for offset in 0..topic.next_offset() {
        let is_listed = runs.iter().any(|&(start, end)| (start..end).contains(&offset));
        assert_eq!(topic.is_live(offset), is_listed, "offset {offset}");
    }
    let runs: Vec<String> = runs.iter().map(|(start, end)| format!("{start}..{end}")).collect();
    format!("live {}", runs.join(" "))
}

/// When something ends next.
pub(crate) fn next(state: &State) -> String {
    state.earliest_deadline_ms().map_or("nothing ends".to_string(), |ms| format!("next end {}", time(ms)))
}
