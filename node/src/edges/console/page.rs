//! The pages. Everything that is shown goes through [`maud`], which escapes it: names and bodies are whatever clients sent.

use super::rates::Pace;
use crate::api::{
    Deliveries, Delivery, Failure, LocalStatus, MemberStanding, MemberState, MembersInfo, StorageInfo,
    SubscriptionInfo, TopicInfo,
};
use crate::metrics::TopicSeen;
use maud::{DOCTYPE, Markup, html};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Characters of a body that are shown.
const BODY_CHARS_MAX: usize = 500;
/// Characters of a name that stand in a table.
const NAME_CHARS_MAX: usize = 80;

/// What the first page shows.
pub(super) struct Overview {
    pub(super) local: Arc<LocalStatus>,
    pub(super) storage: StorageInfo,
    pub(super) members: Result<MembersInfo, Failure>,
    /// One page of topics, and whether others follow.
    pub(super) topics: Result<(Vec<TopicInfo>, bool), Failure>,
    pub(super) is_first_page: bool,
    pub(super) seen: BTreeMap<String, TopicSeen>,
    pub(super) paces: BTreeMap<String, Pace>,
}

/// What a topic's page shows.
pub(super) struct OneTopic {
    pub(super) local: Arc<LocalStatus>,
    pub(super) topic: TopicInfo,
    pub(super) seen: Option<TopicSeen>,
    pub(super) pace: Option<Pace>,
    pub(super) may_change: bool,
    pub(super) ready: Result<Deliveries, Failure>,
    pub(super) dead: Result<Deliveries, Failure>,
}

/// How urgent something is: its colour, beside words that say the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Good,
    Watch,
    Bad,
}

impl Mood {
    fn class(self) -> &'static str {
        match self {
            Mood::Good => "good",
            Mood::Watch => "watch",
            Mood::Bad => "bad",
        }
    }
}

pub(super) fn overview(view: &Overview) -> Markup {
    let body = html! {
        section aria-label="Summary" class="tiles" { (tiles(view)) }
        section aria-label="Nodes" {
            h2 { "Nodes" }
            @match &view.members {
                Ok(members) => (nodes(members, view)),
                Err(failure) => (no_answer(failure)),
            }
        }
        section aria-label="Topics" {
            h2 { "Topics" }
            @match &view.topics {
                Ok((topics, more)) => (topics_table(topics, *more, view)),
                Err(failure) => (no_answer(failure)),
            }
        }
    };
    page(&view.local, "RaftQueue", &html! { "RaftQueue" }, &body)
}

fn tiles(view: &Overview) -> Markup {
    let (quorum, mood) = quorum(view);
    let leader =
        view.members.as_ref().ok().and_then(|members| members.members.iter().find(|member| member.leads));
    let total = |count: fn(&SubscriptionInfo) -> u64| {
        let (topics, more) = view.topics.as_ref().ok()?;
        let sum: u64 = topics.iter().flat_map(|topic| &topic.subscriptions).map(count).sum();
        Some(if *more || !view.is_first_page { format!("{} here", grouped(sum)) } else { grouped(sum) })
    };
    let dead = total(|counts| counts.dead);
    let dead_mood =
        if dead.as_deref().is_none_or(|dead| dead.starts_with('0')) { Mood::Good } else { Mood::Watch };
    let oldest = view.seen.values().filter_map(|topic| topic.oldest_ready_ms).max();
    html! {
        (tile("Leader", &leader.map_or_else(|| "none".into(), |leader| leader.name.clone()),
              if leader.is_some() { Mood::Good } else { Mood::Bad }))
        (tile("Quorum", &quorum, mood))
        (tile("Ready", &total(|counts| counts.ready).unwrap_or_else(|| "?".into()), Mood::Good))
        (tile("Dead", &dead.unwrap_or_else(|| "?".into()), dead_mood))
        (tile("Oldest ready", &oldest.map_or_else(|| "–".into(), age), Mood::Good))
    }
}

fn tile(title: &str, text: &str, mood: Mood) -> Markup {
    html! { div class={ "tile " (mood.class()) } { span class="what" { (title) } span class="value" { (text) } } }
}

/// How many voters serve, and what that means.
fn quorum(view: &Overview) -> (String, Mood) {
    let Ok(members) = &view.members else {
        return ("not known: no leader answers".into(), Mood::Bad);
    };
    let voters: Vec<_> =
        members.members.iter().filter(|member| member.standing != MemberStanding::Learner).collect();
    let well = voters.iter().filter(|member| member.unwell.is_none()).count();
    let spare = (well * 2).checked_sub(voters.len() + 1).map(|more| more / 2);
    let of = format!("{well} of {} serve", voters.len());
    match spare {
        None => (format!("{of}: no majority"), Mood::Bad),
        Some(0) if voters.len() < 3 => (of, Mood::Watch),
        Some(0) => (format!("{of}: one more, and it is lost"), Mood::Bad),
        Some(_) if well < voters.len() => (of, Mood::Watch),
        Some(_) => (of, Mood::Good),
    }
}

fn nodes(members: &MembersInfo, view: &Overview) -> Markup {
    html! {
        div class="wide" { table {
            thead { tr {
                th scope="col" { "Node" } th scope="col" { "Role" } th scope="col" { "State" }
                th scope="col" class="number" { "Behind" } th scope="col" class="number" { "Disk free" }
                th scope="col" { "Address" }
            } }
            tbody {
                @for member in &members.members { (node(member, view)) }
                @for waiting in &members.waiting {
                    tr {
                        td { (short(&waiting.name)) } td { "waiting" } td { "blank, to be added" } td class="number" { "–" }
                        td class="number" { "–" } td { (short(&waiting.address)) }
                    }
                }
            }
        } }
        @if members.joint { p class="note" { "A change of the members is half way." } }
    }
}

fn node(member: &MemberState, view: &Overview) -> Markup {
    let is_own = Some(member.id) == view.local.node_id;
    let own = Some(view.storage.free_bytes).filter(|_| is_own && view.storage.disk_bytes > 0);
    let free = own.or(member.free_bytes);
    html! {
        tr {
            th scope="row" { (short(&member.name)) @if is_own { " " span class="note" { "(this one)" } } }
            td { (member.role().name()) }
            @match &member.unwell {
                None => { td class="good" { "serves" } }
                Some(why) => { td class="bad" { (why) } }
            }
            td class="number" { @if member.lag == 0 { "0" } @else { (grouped(member.lag)) " entries" } }
            td class="number" { (free.map_or_else(|| "–".into(), bytes)) }
            td { (short(&member.address)) }
        }
    }
}

fn topics_table(topics: &[TopicInfo], more: bool, view: &Overview) -> Markup {
    html! {
        @if topics.is_empty() {
            p class="note" { "There is no topic yet. " code { "raftq topic create orders" } " makes one." }
        } @else {
            div class="wide" { table {
                thead { tr {
                    th scope="col" { "Topic" }
                    @for name in ["Ready", "Leased", "Delayed", "Dead", "Published/s", "Done with/s", "Oldest ready", "Bytes"] {
                        th scope="col" class="number" { (name) }
                    }
                } }
                tbody { @for topic in topics { (topic_row(topic, view)) } }
            } }
        }
        nav class="pages" aria-label="Pages of topics" {
            @if !view.is_first_page { a href="/" { "First topics" } " " }
            @if more && let Some(last) = topics.last() { a href={ "/?after=" (last.id) } { "Next topics" } }
        }
    }
}

fn topic_row(topic: &TopicInfo, view: &Overview) -> Markup {
    let counts = counts(topic);
    let (seen, pace) = (view.seen.get(&topic.name), view.paces.get(&topic.name));
    html! {
        tr {
            th scope="row" { a href=(link(&topic.name)) { (short(&topic.name)) } }
            td class="number" { (grouped(counts.ready)) }
            td class="number" { (grouped(counts.leased)) }
            td class="number" { (grouped(counts.delayed)) }
            td class={ "number " (if counts.dead > 0 { "watch" } else { "" }) } { (grouped(counts.dead)) }
            td class="number" { (pace.map_or_else(|| "–".into(), |pace| rate(pace.published))) }
            td class="number" { (pace.map_or_else(|| "–".into(), |pace| rate(pace.settled))) }
            td class="number" { (seen.and_then(|seen| seen.oldest_ready_ms).map_or_else(|| "–".into(), age)) }
            td class="number" { (bytes(topic.bytes)) }
        }
    }
}

pub(super) fn topic(view: &OneTopic) -> Markup {
    let counts = counts(&view.topic);
    let options = &view.topic.options;
    let or_none = |limit: Option<String>| limit.unwrap_or_else(|| "no limit".into());
    let body = html! {
        section aria-label="Counts" class="tiles" {
            (tile("Ready", &grouped(counts.ready), Mood::Good))
            (tile("Leased", &grouped(counts.leased), Mood::Good))
            (tile("Delayed", &grouped(counts.delayed), Mood::Good))
            (tile("Dead", &grouped(counts.dead), if counts.dead > 0 { Mood::Watch } else { Mood::Good }))
            (tile("Published/s", &view.pace.map_or_else(|| "–".into(), |pace| rate(pace.published)), Mood::Good))
            (tile("Done with/s", &view.pace.map_or_else(|| "–".into(), |pace| rate(pace.settled)), Mood::Good))
            (tile("Oldest ready", &view.seen.and_then(|seen| seen.oldest_ready_ms).map_or_else(|| "–".into(), age), Mood::Good))
        }
        section aria-label="Settings" {
            h2 { "Settings" }
            dl {
                div { dt { "Bytes held" } dd { (bytes(view.topic.bytes)) } }
                div { dt { "Attempts" } dd { (or_none(options.attempts_max.map(|most| most.to_string()))) } }
                div { dt { "Messages at most" } dd { (or_none(options.messages_max.map(grouped))) } }
                div { dt { "Bytes at most" } dd { (or_none(options.bytes_max.map(bytes))) } }
                div { dt { "Time to live" } dd { (or_none(options.ttl_ms.map(age))) } }
            }
        }
        section aria-label="Ready messages" {
            h2 { "Next to be taken" }
            @match &view.ready { Ok(found) => (messages(found, false)), Err(failure) => (no_answer(failure)) }
            @if view.may_change && counts.ready + counts.delayed > 0 {
                (button(&view.topic.name, "purge", "Drop everything that waits",
                    &format!("Drop every message that waits in {}? They are gone for good.", view.topic.name)))
            }
        }
        section aria-label="Dead letters" {
            h2 { "Dead letters" }
            @match &view.dead { Ok(found) => (messages(found, true)), Err(failure) => (no_answer(failure)) }
            @if view.may_change && counts.dead > 0 {
                (button(&view.topic.name, "redrive", "Make them ready again",
                    &format!("Make all {} dead messages of {} ready again?", grouped(counts.dead), view.topic.name)))
                (button(&view.topic.name, "drop-dead", "Drop them",
                    &format!("Drop all {} dead messages of {}? They are gone for good.", grouped(counts.dead), view.topic.name)))
            }
        }
        @if !view.may_change {
            p class="note" {
                "This console only shows. " code { "raftq dead redrive" } ", " code { "raftq dead purge" } " and "
                code { "raftq purge" } " change, and so does this page on a node with " code { "--console-changes" } "."
            }
        }
    };
    let title = short(&view.topic.name);
    page(
        &view.local,
        &format!("{title} – RaftQueue"),
        &html! { a href="/" { "RaftQueue" } " / " (title) },
        &body,
    )
}

/// A page instead of a topic's.
pub(super) fn no_topic(local: &LocalStatus, name: &str, failure: &Failure) -> Markup {
    let title = short(name);
    page(
        local,
        &format!("{title} – RaftQueue"),
        &html! { a href="/" { "RaftQueue" } " / " (title) },
        &no_answer(failure),
    )
}

fn button(topic: &str, action: &str, label: &str, question: &str) -> Markup {
    html! {
        button type="button" class="change" data-post={ (link(topic)) "/" (action) } data-question=(question) { (label) }
        " "
    }
}

fn messages(found: &Deliveries, are_dead: bool) -> Markup {
    html! {
        @if found.messages.is_empty() {
            p class="note" { "None." }
        } @else {
            div class="wide" { table {
                thead { tr {
                    th scope="col" class="number" { "Offset" } th scope="col" class="number" { "Attempts" }
                    @if are_dead { th scope="col" { "Reason" } }
                    th scope="col" { "Key" } th scope="col" class="number" { "Bytes" } th scope="col" { "Body" }
                } }
                tbody { @for delivery in &found.messages { (message(delivery, are_dead)) } }
            } }
        }
    }
}

fn message(delivery: &Delivery, are_dead: bool) -> Markup {
    html! {
        tr {
            th scope="row" class="number" { (delivery.message.id.offset) }
            td class="number" { (delivery.message.attempts) }
            @if are_dead { td { (delivery.message.reason) } }
            td { (text(&delivery.key, NAME_CHARS_MAX)) }
            td class="number" { (bytes(delivery.body.len() as u64)) }
            td { code { (text(&delivery.body, BODY_CHARS_MAX)) } }
        }
    }
}

fn no_answer(failure: &Failure) -> Markup {
    html! { p class="bad" role="status" { (failure.text) "." } }
}

/// The frame of every page. Without JavaScript it loads itself anew.
fn page(local: &LocalStatus, title: &str, heading: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/console/style.css";
                script src="/console/live.js" defer {}
                noscript { meta http-equiv="refresh" content="10"; }
            }
            body {
                a class="skip" href="#live" { "To the content" }
                header {
                    h1 { (heading) }
                    p class="note" {
                        "asked of " (short(&local.name))
                        @if !local.cluster_id.is_empty() { ", cluster " code { (local.cluster_id.chars().take(8).collect::<String>()) } }
                    }
                    p id="fresh" class="bad" role="status" {}
                    p id="done" role="status" {}
                }
                main id="live" {
                    @if let Some(why) = &local.not_ready { p class="bad" { "This node is not ready: " (why) "." } }
                    @if let Some(note) = &local.note { p class="bad" { "This node says: " (note) "." } }
                    (body)
                }
                footer { p class="note" { "What to do when something is wrong stands in " code { "deploy/runbooks" } "." } }
            }
        }
    }
}

/// The counts of all subscriptions together.
fn counts(topic: &TopicInfo) -> SubscriptionInfo {
    let mut sum = SubscriptionInfo::default();
    for one in &topic.subscriptions {
        sum.ready += one.ready;
        sum.leased += one.leased;
        sum.delayed += one.delayed;
        sum.dead += one.dead;
    }
    sum
}

/// A topic's address: everything that could mean something else there is escaped.
fn link(topic: &str) -> String {
    let mut link = String::from("/topics/");
    for byte in topic.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            link.push(char::from(byte));
        } else {
            link.push_str(&format!("%{byte:02X}"));
        }
    }
    link
}

fn short(name: &str) -> String {
    text(name.as_bytes(), NAME_CHARS_MAX)
}

/// Bytes as text; what is no text or cannot be seen is shown as such, and what is long is cut.
fn text(bytes: &[u8], chars_max: usize) -> String {
    let whole = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * chars_max)]);
    let is_cut = whole.chars().count() > chars_max || bytes.len() > 4 * chars_max;
    let is_shown = |character: char| !character.is_control() || character == '\n' || character == '\t';
    let mut text: String = whole
        .chars()
        .take(chars_max)
        .map(|character| if is_shown(character) { character } else { char::REPLACEMENT_CHARACTER })
        .collect();
    if is_cut {
        text.push('…');
    }
    text
}

/// With a thin space between thousands.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1_024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1_024.0;
    }
    format!("{value:.1} TiB")
}

fn age(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn rate(a_second: f64) -> String {
    if a_second < 10.0 { format!("{a_second:.1}") } else { format!("{a_second:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster of so many voters, so many of which serve.
    fn of_voters(count: u64, well: u64) -> Overview {
        let member = |id: u64| MemberState {
            id,
            name: format!("node-{id}"),
            address: "127.0.0.1:7421".into(),
            standing: MemberStanding::Voter,
            leads: id == 0,
            active: true,
            matched: 5,
            lag: id,
            complete: true,
            replaying: false,
            disk_stalled: false,
            unwell: (id >= well).then(|| "it is not heard".into()),
            stop_refusal: None,
            free_bytes: Some(3 << 30),
            versions: None,
        };
        let learner = MemberState { standing: MemberStanding::Learner, ..member(99) };
        let members = (0..count).map(member).chain([learner]).collect();
        Overview {
            local: Arc::default(),
            storage: StorageInfo::default(),
            members: Ok(MembersInfo { members, ..MembersInfo::default() }),
            topics: Ok((Vec::new(), false)),
            is_first_page: true,
            seen: BTreeMap::new(),
            paces: BTreeMap::new(),
        }
    }

    #[test]
    fn how_many_may_still_fail_is_said_in_words_and_in_a_colour() {
        for (count, well, words, mood) in [
            (3, 3, "3 of 3 serve", Mood::Good),
            (3, 2, "2 of 3 serve: one more, and it is lost", Mood::Bad),
            (3, 1, "1 of 3 serve: no majority", Mood::Bad),
            (5, 4, "4 of 5 serve", Mood::Watch),
            (4, 3, "3 of 4 serve: one more, and it is lost", Mood::Bad),
            (2, 2, "2 of 2 serve", Mood::Watch),
            (1, 1, "1 of 1 serve", Mood::Watch),
        ] {
            let view = of_voters(count, well);
            let (said, seen) = quorum(&view);
            assert_eq!((said.as_str(), seen.class()), (words, mood.class()));
        }
        let page = overview(&of_voters(3, 2)).into_string();
        for text in ["node-0", "leader", "it is not heard", "3.0 GiB", "2 entries", "learner"] {
            assert!(page.contains(text), "{text}: {page}");
        }
    }

    #[test]
    fn what_people_read_is_short_and_what_is_hostile_is_text() {
        assert_eq!((grouped(7), grouped(1_234_567)), ("7".into(), "1\u{2009}234\u{2009}567".into()));
        assert_eq!(
            (bytes(7), bytes(1_536), bytes(3 << 40)),
            ("7 B".into(), "1.5 KiB".into(), "3.0 TiB".into())
        );
        assert_eq!(
            [age(0), age(119_999), age(120_000), age(7_200_000), age(172_800_000)],
            ["0 s", "119 s", "2 min", "2 h", "2 d"]
        );
        assert_eq!((rate(0.0), rate(9.96), rate(123.4)), ("0.0".into(), "10.0".into(), "123".into()));
        assert_eq!(link("a b/../ü?x"), "/topics/a%20b%2F%2E%2E%2F%C3%BC%3Fx");
        assert_eq!(text(b"a\x1b[2J\xff", 9), "a\u{fffd}[2J\u{fffd}");
        assert_eq!(text("ü".repeat(20).as_bytes(), 3), "üüü…");
        assert_eq!(text(&[b'a'; 100], 3), "aaa…");
        let shown = button("<b>\"", "purge", "Drop", "<script>?").into_string();
        assert!(!shown.contains("<b>") && !shown.contains("<script>"), "{shown}");
    }
}
