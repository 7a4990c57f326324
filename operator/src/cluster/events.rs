//! Events: what changed, told once, when it changes.
//!
//! They follow from the conditions before and after a pass. So an operator that was restarted tells nothing twice.

use crate::cluster::certificates::Orders;
use crate::cluster::plan::{Correction, Resized, Step};
use crate::crd::{ConditionType, RaftQueueStatus, Reason, condition};
use kube::runtime::events::{Event, EventType};

/// Most bytes of a note that the API server takes.
const NOTE_BYTES_MAX: usize = 1_000;

/// When the change of a condition is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// When it becomes true.
    True,
    /// When it becomes false.
    False,
    /// When it becomes false after it was true.
    Lost,
    /// When it becomes false because something takes too long.
    Overdue,
}

/// Conditions whose change is told, when, and whether it is bad news.
const TELLING: &[(ConditionType, Told, EventType)] = &[
    (ConditionType::Ready, Told::True, EventType::Normal),
    (ConditionType::Available, Told::Lost, EventType::Warning),
    (ConditionType::Degraded, Told::True, EventType::Warning),
    (ConditionType::Progressing, Told::Overdue, EventType::Warning),
    (ConditionType::UpToDate, Told::False, EventType::Normal),
    (ConditionType::StorageReady, Told::False, EventType::Warning),
    (ConditionType::SpecAccepted, Told::False, EventType::Warning),
    (ConditionType::Encrypted, Told::False, EventType::Normal),
    (ConditionType::Paused, Told::True, EventType::Normal),
    (ConditionType::Reconciled, Told::False, EventType::Warning),
    (ConditionType::SingleMember, Told::True, EventType::Warning),
    (ConditionType::RecoveryPossible, Told::True, EventType::Warning),
];

/// The events of a pass.
#[must_use]
pub fn events(before: &RaftQueueStatus, after: &RaftQueueStatus) -> Vec<Event> {
    let mut events = Vec::new();
    if let (None, Some(id)) = (&before.cluster_id, &after.cluster_id) {
        events.push(event(
            EventType::Normal,
            "ClusterFound",
            "Observe",
            &format!("the nodes are cluster {id}"),
        ));
    }
    let generation = |status: &RaftQueueStatus| status.generation.unwrap_or(0);
    if generation(after) > generation(before) {
        let costs = before.recovery.as_ref().map_or_else(
            || "what only the other nodes had is lost".to_owned(),
            |offer| format!("before, it was known that {}", offer.message),
        );
        let note =
            format!("the cluster was forced to recover and is of generation {}: {costs}", generation(after));
        events.push(event(EventType::Warning, "GenerationRaised", "Observe", &note));
    }
    for (about, told, kind) in TELLING {
        let now = condition(&after.conditions, *about);
        let then = condition(&before.conditions, *about);
        let same = now.map(|now| (&now.status, &now.reason)) == then.map(|then| (&then.status, &then.reason));
        let Some(now) = now.filter(|_| !same) else { continue };
        let is_told = match told {
            Told::True => now.status == "True",
            Told::False => now.status == "False",
            Told::Overdue => now.reason == Reason::StepOverdue.to_string(),
            Told::Lost => now.status == "False" && then.is_some_and(|then| then.status == "True"),
        };
        // At the beginning disks have no volume yet. If that lasts, the trouble of the pods is told.
        if is_told && now.reason != Reason::DisksMissing.to_string() {
            let reason = if *about == ConditionType::Ready { "Ready" } else { now.reason.as_str() };
            events.push(event(*kind, reason, "Observe", &now.message));
        }
    }
    events
}

/// The event of a step that was taken.
#[must_use]
pub fn event_of(step: &Step) -> Event {
    let told = step.told();
    let kind = if told.is_warning { EventType::Warning } else { EventType::Normal };
    event(kind, told.reason, told.action, &told.note)
}

/// The event of another number of pods, with the steps ahead as they were before.
#[must_use]
pub fn event_of_resizing(resized: Resized, ahead: &[String]) -> Event {
    let Resized { from, to } = resized;
    let reason = if to > from { "PodsAdded" } else { "PodsRemoved" };
    event(EventType::Normal, reason, "SetReplicas", &format!("{from} pods become {to}: {}", ahead.join("; ")))
}

/// The event of certificates that were made; absent where only what is trusted, or whose they are, has changed.
#[must_use]
pub fn event_of_certificates(orders: &Orders) -> Option<Event> {
    let holders: Vec<&str> = orders.issue.iter().map(|holder| holder.name.as_str()).collect();
    let note = match (orders.authority, holders.is_empty()) {
        (true, true) => "a new CA was made: it signs once every node trusts it".to_owned(),
        (true, false) => format!("a CA was made, and certificates for {}", holders.join(", ")),
        (false, false) => {
            format!("certificates were made for {}: nodes take them without a restart", holders.join(", "))
        }
        (false, true) => return None,
    };
    Some(event(EventType::Normal, "CertificatesMade", "Certify", &note))
}

/// The event of a status that could not be written. The status of the object is old then, and only an event can say so.
#[must_use]
pub fn event_of_unwritten_status(why: &str) -> Event {
    event(EventType::Warning, "StatusNotWritten", "WriteStatus", why)
}

/// The event of a correction that was made.
#[must_use]
pub fn event_of_correction(name: &str, correction: Correction) -> Event {
    match correction {
        Correction::Scaled { by_hand, to } => event(
            EventType::Warning,
            "ScaledByHand",
            "SetReplicas",
            &format!(
                "StatefulSet {name} was scaled to {by_hand} by hand: set back to {to}. Its claims are kept. How many nodes \
                 there are is for spec.replicas of the RaftQueue to say"
            ),
        ),
        Correction::Retention => event(
            EventType::Warning,
            "RetentionCorrected",
            "KeepClaims",
            &format!(
                "StatefulSet {name} would have deleted disks when scaled or deleted: it keeps them now. What becomes of the \
                 disks is for spec.storage.retention of the RaftQueue to say"
            ),
        ),
    }
}

fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    let end = (0..=NOTE_BYTES_MAX.min(note.len())).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
    Event {
        type_,
        reason: reason.into(),
        note: Some(note[..end].to_owned()),
        action: action.into(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{Finding, conclude};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn status(findings: &[(ConditionType, bool, Reason)]) -> RaftQueueStatus {
        let found = findings
            .iter()
            .map(|(about, holds, reason)| Finding {
                about: *about,
                holds: (*holds).into(),
                reason: *reason,
                message: "words".into(),
            })
            .collect();
        let now = Time(Timestamp::from_second(0).unwrap());
        RaftQueueStatus { conditions: conclude(&[], found, None, &now), ..RaftQueueStatus::default() }
    }

    fn told(before: &RaftQueueStatus, after: &RaftQueueStatus) -> Vec<String> {
        events(before, after).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn a_change_is_told_once() {
        use ConditionType as About;
        let none = RaftQueueStatus::default();
        let forming =
            status(&[(About::Ready, false, Reason::Forming), (About::Available, false, Reason::Forming)]);
        let ready =
            status(&[(About::Ready, true, Reason::AsAsked), (About::Available, true, Reason::LeaderElected)]);
        let lost =
            status(&[(About::Ready, false, Reason::NoLeader), (About::Available, false, Reason::NoLeader)]);
        assert_eq!(told(&none, &forming), Vec::<String>::new());
        assert_eq!(told(&forming, &ready), ["Ready"]);
        assert_eq!(told(&ready, &ready), Vec::<String>::new());
        assert_eq!(told(&ready, &lost), ["NoLeader"]);
        assert_eq!(told(&none, &status(&[(About::SingleMember, true, Reason::OneMember)])), ["OneMember"]);
    }

    #[test]
    fn another_reason_for_the_same_is_told_and_other_words_are_not() {
        let at_risk = status(&[(ConditionType::Degraded, true, Reason::QuorumAtRisk)]);
        let crashing = status(&[(ConditionType::Degraded, true, Reason::CrashLooping)]);
        assert_eq!(told(&at_risk, &crashing), ["CrashLooping"]);
        let mut other_words = crashing.clone();
        other_words.conditions[0].message = "others".into();
        assert_eq!(told(&crashing, &other_words), Vec::<String>::new());
    }

    #[test]
    fn disks_on_their_way_are_not_told_and_those_too_small_are() {
        let of = |reason| status(&[(ConditionType::StorageReady, false, reason)]);
        assert_eq!(told(&RaftQueueStatus::default(), &of(Reason::DisksMissing)), Vec::<String>::new());
        assert_eq!(told(&of(Reason::DisksMissing), &of(Reason::DisksCannotShrink)), ["DisksCannotShrink"]);
    }

    #[test]
    fn a_step_that_is_overdue_is_told_and_one_that_ends_is_not() {
        let of = |holds, reason| status(&[(ConditionType::Progressing, holds, reason)]);
        let (goes_on, overdue) = (of(true, Reason::Scaling), of(false, Reason::StepOverdue));
        assert_eq!(told(&goes_on, &overdue), ["StepOverdue"]);
        assert_eq!(told(&overdue, &overdue), Vec::<String>::new());
        assert_eq!(told(&overdue, &goes_on), Vec::<String>::new());
        assert_eq!(told(&goes_on, &of(false, Reason::AsAsked)), Vec::<String>::new());
    }

    #[test]
    fn a_note_is_cut_between_letters() {
        let long = "ä".repeat(NOTE_BYTES_MAX);
        let note = event(EventType::Normal, "R", "A", &long).note.unwrap();
        assert_eq!(note.len(), NOTE_BYTES_MAX);
        let odd = event(EventType::Normal, "R", "A", &format!("a{long}")).note.unwrap();
        assert_eq!(odd.len(), NOTE_BYTES_MAX - 1);
    }
}
