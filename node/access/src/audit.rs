//! What is refused, and what is administered: lines of JSON at a bounded rate.
//!
//! ```json
//! {"audit":"denied","time":"2026-01-31T12:00:00.000Z","caller":"token:shop","call":"Publish","permission":"publish",
//!  "topic":"bills","peer":"10.0.0.7:51234","text":"token:shop may not publish to `bills`: ...","trace":"4bf9..."}
//! {"audit":"left-out","time":"2026-01-31T12:00:01.000Z","refused":4711,"administered":0}
//! ```
//!
//! Each is one line. Strangers can have as much refused as they like, so refusals have a rate of their own: they never push out
//! a line about what was administered.

use crate::caller::Caller;
use crate::permission::Permission;
use crate::words::shown;
use serde_json::Value;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Lines a second of each kind in the long run.
const LINES_PER_SECOND: u32 = 10;
/// Lines of each kind at once.
const BURST_LINES: u32 = 100;

/// What happened to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// Nobody knows who called, as the credentials do not count.
    Unauthenticated,
    /// Who called may not do it.
    Denied,
    /// The cluster was administered, or a topic managed.
    Administered,
}

/// A call, as a line tells of it. All that is not known is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call<'a> {
    /// Who called.
    pub caller: Option<&'a Caller>,
    /// The name of the call, as metrics have it.
    pub call: &'a str,
    /// What was needed for it.
    pub permission: Option<Permission>,
    /// The topic that it was about.
    pub topic: Option<&'a str>,
    /// The address that it came from.
    pub peer: Option<&'a str>,
    /// Why it was refused, or what came of it.
    pub text: Option<&'a str>,
    /// By what it is known in traces and logs.
    pub trace: Option<&'a str>,
}

/// Writes the lines. Any thread may; each line goes out whole.
pub struct Audit {
    write: Box<dyn Fn(&str) + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    refused: Bucket,
    administered: Bucket,
}

/// Room for lines, and how many found none.
#[derive(Debug)]
struct Bucket {
    /// In thousandths of a line, so that a clock in milliseconds loses nothing.
    room: u64,
    filled_ms: Option<u64>,
    left_out: u64,
}

impl Audit {
    /// An audit whose lines go to `write`, each without its end of line. It must not block for long: calls wait for it.
    pub fn new(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { write: Box::new(write), state: Mutex::default() }
    }

    /// Notes what happened, if there is room.
    pub fn note(&self, now: SystemTime, happened: Happened, call: &Call<'_>) {
        let now_ms = since_epoch(now);
        let (mut left_out, mut line) = (None, None);
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let bucket = match happened {
                Happened::Unauthenticated | Happened::Denied => &mut state.refused,
                Happened::Administered => &mut state.administered,
            };
            if bucket.take(now_ms) {
                left_out = state.left_out(now_ms);
                line = Some(told(now_ms, happened, call));
            } else {
                bucket.left_out = bucket.left_out.saturating_add(1);
            }
        }
        left_out.into_iter().chain(line).for_each(|line| (self.write)(&line));
    }

    /// Tells how many lines were left out, if any were and there is room again. To be called every few seconds: without a
    /// further call nobody would be told.
    pub fn settle(&self, now: SystemTime) {
        let now_ms = since_epoch(now);
        let line = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let (refused, administered) = (state.refused.fill(now_ms), state.administered.fill(now_ms));
            let is_room = (state.refused.left_out == 0 || refused)
                && (state.administered.left_out == 0 || administered);
            if is_room { state.left_out(now_ms) } else { None }
        };
        if let Some(line) = line {
            (self.write)(&line);
        }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("state", &self.state).finish_non_exhaustive()
    }
}

impl State {
    /// The line about what was left out, which is forgotten then.
    fn left_out(&mut self, now_ms: u64) -> Option<String> {
        let refused = std::mem::take(&mut self.refused.left_out);
        let administered = std::mem::take(&mut self.administered.left_out);
        if refused == 0 && administered == 0 {
            return None;
        }
        let line = [
            ("audit", Value::from("left-out")),
            ("time", utc(now_ms).into()),
            ("refused", refused.into()),
            ("administered", administered.into()),
        ];
        Some(in_json(line))
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self { room: u64::from(BURST_LINES) * 1_000, filled_ms: None, left_out: 0 }
    }
}

impl Bucket {
    /// Takes the room of a line, if there is some.
    fn take(&mut self, now_ms: u64) -> bool {
        let is_room = self.fill(now_ms);
        if is_room {
            self.room -= 1_000;
        }
        is_room
    }

    /// Makes the room that time has brought. Returns whether a line has room. A clock that is set back brings none.
    fn fill(&mut self, now_ms: u64) -> bool {
        let passed_ms = now_ms.saturating_sub(self.filled_ms.unwrap_or(now_ms));
        self.filled_ms = Some(now_ms);
        let brought = passed_ms.saturating_mul(LINES_PER_SECOND.into());
        self.room = self.room.saturating_add(brought).min(u64::from(BURST_LINES) * 1_000);
        self.room >= 1_000
    }
}

fn told(now_ms: u64, happened: Happened, call: &Call<'_>) -> String {
    let happened = match happened {
        Happened::Unauthenticated => "unauthenticated",
        Happened::Denied => "denied",
        Happened::Administered => "administered",
    };
    let line = [
        ("audit", Some(happened.to_owned())),
        ("time", Some(utc(now_ms))),
        ("caller", call.caller.map(ToString::to_string)),
        ("call", Some(shown(call.call))),
        ("permission", call.permission.map(|permission| permission.to_string())),
        ("topic", call.topic.map(shown)),
        ("peer", call.peer.map(shown)),
        // Refusals are our own words, with what came from outside cut already; so this is a bound, not a cut.
        ("text", call.text.map(|text| text.chars().take(TEXT_CHARS_MAX).collect())),
        ("trace", call.trace.map(shown)),
    ];
    in_json(line.into_iter().filter_map(|(key, value)| Some((key, Value::from(value?)))))
}

/// Longest text of a line, in characters.
const TEXT_CHARS_MAX: usize = 2_048;

/// An object on one line, its keys in this order: every line begins with what it is.
fn in_json(line: impl IntoIterator<Item = (&'static str, Value)>) -> String {
    let pairs: Vec<String> = line.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", pairs.join(","))
}

fn since_epoch(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment in milliseconds since the Unix epoch, as `2026-01-31T12:00:00.000Z`.
fn utc(ms: u64) -> String {
    let (days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (ms_of_day / 3_600_000, ms_of_day / 60_000 % 60, ms_of_day / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
}

/// Year, month and day of a day counted from 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// An audit and what it wrote.
    fn audit() -> (Audit, Arc<Mutex<Vec<Value>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&lines);
        let audit = Audit::new(move |line| {
            assert!(
                !line.contains('\n') && line.starts_with("{\"audit\":"),
                "one line, known by how it begins: {line}"
            );
            written
                .lock()
                .expect("no test panics with it")
                .push(serde_json::from_str(line).expect("it is JSON"));
        });
        (audit, lines)
    }

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
    }

    #[test]
    fn a_line_tells_who_what_and_why_and_nothing_that_is_not_known() {
        let (audit, lines) = audit();
        let caller: Caller = "token:shop".parse().expect("it is one");
        let call = Call {
            caller: Some(&caller),
            call: "Publish",
            permission: Some(Permission::Publish),
            topic: Some("bil\nls"),
            peer: Some("10.0.0.7:51234"),
            text: Some("token:shop may not \"that\""),
            trace: None,
        };
        audit.note(at(1_769_860_800_123), Happened::Denied, &call);
        audit.note(at(951_782_400_000), Happened::Unauthenticated, &Call { call: "Pop", ..Call::default() });
        let lines = lines.lock().expect("nobody else has it");
        assert_eq!(
            lines[0],
            serde_json::json!({"audit": "denied", "time": "2026-01-31T12:00:00.123Z", "caller": "token:shop",
                "call": "Publish", "permission": "publish", "topic": "bil\\nls", "peer": "10.0.0.7:51234",
                "text": "token:shop may not \"that\""})
        );
        assert_eq!(
            lines[1],
            serde_json::json!({"audit": "unauthenticated", "time": "2000-02-29T00:00:00.000Z", "call": "Pop"})
        );
    }

    #[test]
    fn a_flood_of_refusals_is_counted_and_leaves_room_for_what_was_administered() {
        let (audit, lines) = audit();
        let call = Call { call: "Publish", ..Call::default() };
        for _ in 0..1_000 {
            audit.note(at(0), Happened::Unauthenticated, &call);
        }
        let count = |audit: &str| {
            let lines = lines.lock().expect("nobody else has it");
            lines.iter().filter(|line| line["audit"] == audit).count()
        };
        assert_eq!((count("unauthenticated"), count("left-out")), (100, 0));
        audit.settle(at(0));
        assert_eq!(count("left-out"), 0, "there is no room for a line about it either");

        audit.note(at(0), Happened::Administered, &call);
        assert_eq!((count("administered"), count("left-out")), (1, 1));
        let line = lines.lock().expect("nobody else has it")[100].clone();
        assert_eq!((&line["refused"], &line["administered"]), (&900.into(), &0.into()));

        for ms in 0..10_000 {
            audit.note(at(ms), Happened::Denied, &call);
        }
        assert!((95..=100).contains(&count("denied")), "ten a second: {}", count("denied"));
    }

    #[test]
    fn what_was_left_out_is_told_once_though_nothing_more_happens() {
        let (audit, lines) = audit();
        for _ in 0..=100 {
            audit.note(at(5_000), Happened::Administered, &Call::default());
        }
        audit.settle(at(4_000));
        audit.settle(at(4_050));
        assert_eq!(
            lines.lock().expect("nobody else has it").len(),
            100,
            "a clock that was set back makes no room"
        );
        audit.settle(at(6_000));
        audit.settle(at(9_000));
        let lines = lines.lock().expect("nobody else has it");
        assert_eq!(lines.len(), 101);
        assert_eq!(lines[100]["administered"], 1);
    }

    #[test]
    fn a_line_has_a_bound_whatever_comes() {
        let (audit, lines) = audit();
        let long = "\u{1}".repeat(1 << 20);
        let caller = Caller::named(crate::Means::Certificate, long.clone());
        let call = Call {
            caller: Some(&caller),
            call: &long,
            topic: Some(&long),
            peer: Some(&long),
            text: Some(&long),
            trace: Some(&long),
            ..Call::default()
        };
        audit.note(at(0), Happened::Denied, &call);
        let size = lines.lock().expect("nobody else has it")[0].to_string().len();
        assert!(size < 32 << 10, "{size}");
    }
}
