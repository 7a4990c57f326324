//! Golden scripts of the queue: one behaviour each, read like a story, re-recorded with `RAFTQUEUE_RECORD=1`.
//!
//! After every command the state must keep its rules ([`State::check`]) and survive the way through its sections.

mod leader;
mod show;

use goldenscript::{ArgumentConsumer, Context};
use leader::Leader;
use raftqueue_queue::{
    Command, DeadSelection, Generation, LeaseId, MessageMeta, NAME_BYTES_MAX, PUBLISH_MESSAGES_MAX,
    Sequenced, SessionId, State, SubscriptionId, Token, TopicChange, TopicId, TopicSettings,
};
use std::error::Error;
use std::ops::Range;
use std::path::Path;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Runs the commands of a script against one state, as its leader would.
#[derive(Default)]
struct Script {
    leader: Leader,
}

impl goldenscript::Runner for Script {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &goldenscript::Command, context: &Context) -> Fallible<String> {
        let mut args = command.consume_args();
        let is_same_entry = context.tags.contains("same");
        let output = match command.name.as_str() {
            "wait" => {
                self.leader.now_ms += milliseconds(position(&mut args, "a time")?)?;
                String::new()
            }
            "clock" => {
                self.leader.now_ms = milliseconds(position(&mut args, "a time")?)?;
                String::new()
            }
            "dump" => show::state(&self.leader.state, args.next_pos()),
            "live" => show::live(&self.leader.state, position(&mut args, "a topic")?),
            "next" => show::next(&self.leader.state),
            "sequences" => {
                let id = session(position(&mut args, "a session")?)?;
                let held = self.leader.state.session(id).ok_or("no such session")?;
                held.sequences().map(|(topic, last)| format!("topic {topic}: {last}\n")).collect()
            }
            // Many pops or batches, one message each.
            "pops" => {
                let topic = position(&mut args, "a topic")?.to_string();
                let count: u64 = position(&mut args, "a count")?.parse()?;
                let first: u128 = number(&mut args, "from", 0)?;
                self.pops(&topic, count, first)
            }
            "batches" => {
                let topic = position(&mut args, "a topic")?.to_string();
                let count: u64 = position(&mut args, "a count")?.parse()?;
                let session = session(args.take_key("session").ok_or("a session is missing")?)?;
                self.batches(&topic, count, session)
            }
            name => {
                if name == "tick" {
                    self.leader.now_ms += milliseconds(position(&mut args, "a time")?)?;
                }
                let command = self.command(name, &mut args)?;
                let (reply, effects) = self.leader.apply(&command, is_same_entry);
                let reply = show::reply(&reply, &command);
                format!("{reply}\n{}", show::effects(&effects, &self.leader.state))
            }
        };
        args.reject_next()?;
        Ok(output)
    }

    fn end_command(&mut self, _: &goldenscript::Command, _: &Context) -> Fallible<String> {
        let state = &self.leader.state;
        state.check()?;
        let restored = State::from_sections(state.sections())?;
        assert_eq!(restored, *state, "a state must survive the way through its sections");
        Ok(String::new())
    }
}

impl Script {
    /// Pops as many messages, one by one with rising request ids, publishing what is missing.
    fn pops(&mut self, name: &str, count: u64, first: u128) -> String {
        let topic = self.leader.state.topic_id(name).expect("the script made the topic");
        let subscription = SubscriptionId::DEFAULT;
        let message = MessageMeta { size: 10, ..MessageMeta::default() };
        for request_id in (first..).take(count as usize) {
            let held =
                self.leader.state.subscription(topic, subscription).expect("every topic has a default");
            if !held.has_ready() {
                let messages = vec![message; 10_000.min(count as usize)];
                let publish = Command::Publish { topic: name.to_string(), session: None, messages };
                self.leader.apply(&publish, false);
            }
            let held =
                self.leader.state.subscription(topic, subscription).expect("every topic has a default");
            let offset = held.ready_from(0).next().expect("something was just published");
            let candidates = self.leader.candidates(topic, &[offset]);
            let pop =
                Command::Pop { topic, subscription, candidates, count_max: 1, request_id: Some(request_id) };
            self.leader.apply(&pop, false);
        }
        String::new()
    }

    /// Publishes as many batches of one message in a session, from sequence 1 on; each has its number as CRC.
    fn batches(&mut self, name: &str, count: u64, session: SessionId) -> String {
        for sequence in 1..=count {
            let sequenced = Sequenced { session, epoch: 0, sequence, batch_crc: sequence as u32 };
            let messages = vec![MessageMeta { size: 10, ..MessageMeta::default() }];
            let publish = Command::Publish { topic: name.to_string(), session: Some(sequenced), messages };
            let (reply, _) = self.leader.apply(&publish, false);
            assert!(matches!(reply, raftqueue_queue::Reply::Published { .. }), "{reply:?}");
        }
        String::new()
    }

    fn command(&self, name: &str, args: &mut ArgumentConsumer<'_>) -> Fallible<Command> {
        let subscription = SubscriptionId(number(args, "subscription", 0)?);
        Ok(match name {
            "topic" => Command::CreateTopic {
                name: long_name(args.next_pos().unwrap_or_default()),
                settings: TopicSettings {
                    attempts_max: number(args, "attempts", TopicSettings::default().attempts_max)?,
                    messages_max: optional(args, "messages_max")?,
                    bytes_max: optional(args, "bytes_max")?,
                    ttl_ms_default: None,
                },
                topics_max: number(args, "topics_max", 100)?,
                request_id: optional(args, "request")?,
            },
            "update" => Command::UpdateTopic {
                name: position(args, "a topic")?.to_string(),
                change: TopicChange {
                    attempts_max: optional(args, "attempts")?,
                    messages_max: limit(args, "messages_max")?,
                    bytes_max: limit(args, "bytes_max")?,
                    ttl_ms_default: None,
                },
            },
            "delete" => Command::DeleteTopic { name: position(args, "a topic")?.to_string() },
            "publish" => publish(args)?,
            "receive" => {
                let topic = self.topic(args)?;
                let lease_ms = duration(args, "lease", 30_000)?;
                let offsets = self.chosen(args, topic, subscription)?;
                let candidates = self.leader.candidates(topic, &offsets);
                Command::Receive { topic, subscription, candidates, lease_ms }
            }
            "pop" => {
                let topic = self.topic(args)?;
                let count_max = number(args, "max", 1)?;
                let request_id = optional(args, "request")?;
                let offsets = self.chosen(args, topic, subscription)?;
                let candidates = self.leader.candidates(topic, &offsets);
                Command::Pop { topic, subscription, candidates, count_max, request_id }
            }
            "ack" => {
                let topic = self.topic(args)?;
                Command::Ack { topic, subscription, leases: self.leases(args, topic)? }
            }
            "nack" => {
                let topic = self.topic(args)?;
                let delay_ms = duration(args, "delay", 0)?;
                let reason = args.take_key("reason").map(str::to_string);
                Command::Nack { topic, subscription, leases: self.leases(args, topic)?, delay_ms, reason }
            }
            "extend" => {
                let topic = self.topic(args)?;
                let lease_ms = duration(args, "lease", 30_000)?;
                Command::Extend { topic, subscription, leases: self.leases(args, topic)?, lease_ms }
            }
            "release" => {
                let topic = self.topic(args)?;
                Command::Release { topic, subscription, leases: self.leases(args, topic)? }
            }
            "redrive" => {
                let topic = self.topic(args)?;
                Command::RedriveDead { topic, subscription, selection: self.selection(args, topic)? }
            }
            "purge_dead" => {
                let topic = self.topic(args)?;
                Command::PurgeDead { topic, subscription, selection: self.selection(args, topic)? }
            }
            "purge" => Command::Purge { topic: position(args, "a topic")?.to_string(), subscription },
            "open" => Command::OpenSession {
                name: args.take_key("name").map(str::to_string),
                sessions_max: number(args, "max", 10)?,
                pairs_max: number(args, "pairs", 100)?,
            },
            "close" => Command::CloseSession {
                session: session(position(args, "a session")?)?,
                epoch: number(args, "epoch", 0)?,
            },
            // The leader found nothing overdue.
            "time" => Command::Time { overdue: Vec::new() },
            // The leader found everything that is overdue.
            "tick" => self.leader.tick(),
            "generation" => {
                Command::RaiseGeneration { generation: Generation(position(args, "a number")?.parse()?) }
            }
            other => return Err(format!("unknown command {other}").into()),
        })
    }

    /// The topic of this name, or the one with this id, which need not exist.
    fn topic(&self, args: &mut ArgumentConsumer<'_>) -> Fallible<TopicId> {
        let topic = position(args, "a topic")?;
        match topic.parse() {
            Ok(id) => Ok(TopicId(id)),
            Err(_) => self.leader.state.topic_id(topic).ok_or_else(|| format!("no topic {topic}").into()),
        }
    }

    /// The offsets listed, else the first `n` that are ready.
    fn chosen(
        &self,
        args: &mut ArgumentConsumer<'_>,
        topic: TopicId,
        subscription: SubscriptionId,
    ) -> Fallible<Vec<u64>> {
        let count = number(args, "n", 1)?;
        let listed = offsets(args)?;
        if !listed.is_empty() {
            return Ok(listed);
        }
        let held = self.leader.state.subscription(topic, subscription);
        Ok(held.into_iter().flat_map(|held| held.ready_from(0)).take(count).collect())
    }

    fn leases(&self, args: &mut ArgumentConsumer<'_>, topic: TopicId) -> Fallible<Vec<LeaseId>> {
        let mut leases = Vec::new();
        while let Some(text) = args.next_pos() {
            let (range, token) = text.split_once('@').ok_or_else(|| format!("{text} is not OFFSET@TOKEN"))?;
            let (token, generation) = match token.split_once('/') {
                Some((token, generation)) => (token, Some(Generation(generation.parse()?))),
                None => (token, None),
            };
            for offset in span(range)? {
                let known = self.leader.state.topic(topic).and_then(|topic| topic.generation_of(offset));
                let generation = generation.or(known).unwrap_or_default();
                leases.push(LeaseId { generation, offset, token: Token(token.parse()?) });
            }
        }
        Ok(leases)
    }

    fn selection(&self, args: &mut ArgumentConsumer<'_>, topic: TopicId) -> Fallible<DeadSelection> {
        let listed = offsets(args)?;
        Ok(match listed.is_empty() {
            true => DeadSelection::All,
            false => DeadSelection::Listed(self.leader.sizes(topic, &listed)),
        })
    }
}

fn publish(args: &mut ArgumentConsumer<'_>) -> Fallible<Command> {
    let topic = position(args, "a topic")?.to_string();
    let count: usize = args.next_pos().map_or(Ok(1), str::parse)?;
    let message = MessageMeta {
        size: number(args, "size", 10)?,
        crc: 0,
        delay_ms: duration(args, "delay", 0)?,
        ttl_ms: args.take_key("ttl").map(milliseconds).transpose()?,
    };
    let mut messages = vec![message; count];
    // Only every so many messages are delayed.
    let delay_every: usize = number(args, "delay_every", 1)?;
    for (position, message) in messages.iter_mut().enumerate() {
        if position % delay_every != 0 {
            message.delay_ms = 0;
        }
    }
    let sequenced = |id: &str, args: &mut ArgumentConsumer<'_>| -> Fallible<Sequenced> {
        Ok(Sequenced {
            session: session(id)?,
            epoch: number(args, "epoch", 0)?,
            sequence: number(args, "seq", 0)?,
            batch_crc: number(args, "crc", 0)?,
        })
    };
    let session = args.take_key("session").map(|id| sequenced(id, args)).transpose()?;
    Ok(Command::Publish { topic, session, messages })
}

/// Names that would fill the script: `Ln` stands for a name of n bytes.
fn long_name(name: &str) -> String {
    match name.strip_prefix("L").and_then(|length| length.parse().ok()) {
        Some(length) => "x".repeat(length),
        None => name.to_string(),
    }
}

fn session(text: &str) -> Fallible<SessionId> {
    let (generation, number) = text.split_once('.').unwrap_or(("0", text));
    Ok(SessionId { generation: Generation(generation.parse()?), number: number.parse()? })
}

fn offsets(args: &mut ArgumentConsumer<'_>) -> Fallible<Vec<u64>> {
    let mut offsets = Vec::new();
    while let Some(text) = args.next_pos() {
        offsets.extend(span(text)?);
    }
    Ok(offsets)
}

fn span(text: &str) -> Fallible<Range<u64>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Ok(first.parse()?..last.parse::<u64>()? + 1)
}

fn position<'a>(args: &mut ArgumentConsumer<'a>, what: &str) -> Fallible<&'a str> {
    args.next_pos().ok_or_else(|| format!("{what} is missing").into())
}

fn optional<T: std::str::FromStr<Err: Error + 'static>>(
    args: &mut ArgumentConsumer<'_>,
    key: &str,
) -> Fallible<Option<T>> {
    Ok(args.take_key(key).map(str::parse).transpose()?)
}

/// A limit that is changed: `none` lifts it.
fn limit(args: &mut ArgumentConsumer<'_>, key: &str) -> Fallible<Option<Option<u64>>> {
    Ok(match args.take_key(key) {
        None => None,
        Some("none") => Some(None),
        Some(max) => Some(Some(max.parse()?)),
    })
}

fn number<T: std::str::FromStr<Err: Error + 'static>>(
    args: &mut ArgumentConsumer<'_>,
    key: &str,
    or: T,
) -> Fallible<T> {
    Ok(optional(args, key)?.unwrap_or(or))
}

fn duration(args: &mut ArgumentConsumer<'_>, key: &str, or: u64) -> Fallible<u64> {
    Ok(args.take_key(key).map(milliseconds).transpose()?.unwrap_or(or))
}

fn milliseconds(text: &str) -> Fallible<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("{text} is not a time").into()),
    };
    Ok(digits.parse::<u64>()? * unit)
}

/// Plays a script and compares with what was recorded, or records it anew where that is asked for.
fn play(name: &str) -> std::io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(name);
    if std::env::var_os("RAFTQUEUE_RECORD").is_some() {
        let script = std::fs::read_to_string(&path)?;
        std::fs::write(&path, goldenscript::generate(&mut Script::default(), &script)?)?;
    }
    goldenscript::run(&mut Script::default(), path)
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        const SCRIPTS: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() -> std::io::Result<()> {
                play(stringify!($name))
            }
        )*
    };
}

scripts! {
    rule_4_1_a_generation_begins_at_an_offset,
    rule_4_1_a_topic_made_again_is_a_new_topic,
    rule_4_1_offsets_are_dense_and_a_refused_publish_takes_none,
    rule_4_1_several_ids_of_one_entry_differ,
    rule_4_2_only_candidates_that_are_still_ready_are_taken,
    rule_4_4_limits_reject_with_the_limit_and_the_value,
    rule_4_4_a_lease_is_extended_to_twelve_hours_in_all,
    rule_5_2_one_apply_expires_at_most_a_thousand_items,
    rule_5_2_the_earliest_deadline_is_known,
    rule_5_3_tokens_rise_and_are_never_reused,
    rule_6_1_a_message_returns_to_its_own_offset,
    rule_6_1_attempts_count_nack_and_expiry_but_not_release,
    rule_6_1_the_last_attempt_makes_a_message_dead,
    rule_6_2_outcomes_of_an_ack,
    rule_6_2_an_expired_lease_is_acked_until_leased_again,
    rule_6_2_outcomes_of_nack_extend_and_release,
    rule_6_3_a_time_to_live_ends_in_dead,
    rule_6_3_dead_messages_are_runs_and_count_in_limits,
    rule_6_3_a_nacks_own_text_is_kept,
    rule_6_5_a_pop_with_a_request_id_is_repeated,
    rule_6_5_kept_pops_end_by_time_and_number,
    rule_7_1_sequences_rise_by_one_per_session_and_topic,
    rule_7_1_a_named_producer_fences_its_predecessor,
    rule_7_2_a_thousand_and_twenty_four_replies_are_kept,
    rule_7_2_a_full_table_refuses_and_idle_sessions_end,
    rule_7_2_deleting_a_topic_drops_its_pairs,
    rule_8_2_a_create_with_a_request_id_is_repeated,
    delayed_messages_become_ready_in_their_time,
    purge_drops_ready_and_delayed_messages,
    redrive_makes_dead_messages_new,
    topics_are_listed_in_order_of_creation,
    what_a_topic_allows_is_changed,
}

#[test]
fn every_script_is_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder of scripts is there")
        .map(|entry| entry.expect("its entries can be read").file_name().to_string_lossy().into_owned())
        .collect();
    let mut listed: Vec<String> = SCRIPTS.iter().map(|name| (*name).to_string()).collect();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
    // The scripts rely on these.
    assert_eq!((NAME_BYTES_MAX, PUBLISH_MESSAGES_MAX), (255, 10_000));
}
