//! What is remembered between passes. No decision of the operator depends on it. It matters only for when it looks
//! again, and how thoroughly.

use super::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Least time between the beginnings of two passes over an object. What a node says may change with every look, and each change of
/// a status calls the next pass.
pub(super) const SPACING: Duration = Duration::from_millis(500);
/// Pause after the first pass over an object that failed. Each further failure doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause after a pass that failed.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long the API server need not be asked about an object of which nothing was heard. Then it is asked, in case a
/// watch has gone deaf.
const QUIET_FOR: Duration = Duration::from_secs(300);

/// How long the API server need not be asked about an object that is not as asked, while nothing is heard of it and nothing of it
/// changes. What only time or somebody else's objects decide is seen that late.
const STUCK_FOR_MAX: Duration = Duration::from_secs(10);
/// As many whole looks a second at objects that are stuck, at most, however many there are.
const STUCK_LOOKS_PER_SECOND: u32 = 20;

/// Everything that is remembered.
pub(super) struct Memory<U> {
    objects: Mutex<BTreeMap<Key, Remembered<U>>>,
    jitter: RandomState,
}

impl<U> Default for Memory<U> {
    fn default() -> Self {
        Self { objects: Mutex::default(), jitter: RandomState::default() }
    }
}

/// What is remembered of one object.
struct Remembered<U> {
    /// Passes that failed in a row.
    failures: u32,
    /// When the last one began.
    began: Option<Instant>,
    /// How often something that belongs to it was heard to change.
    touches: u64,
    /// The last look, if nothing changed by it.
    quiet: Option<Quiet<U>>,
    /// Since when no look has changed anything.
    unchanged: Option<Instant>,
}

impl<U> Default for Remembered<U> {
    fn default() -> Self {
        Self { failures: 0, began: None, touches: 0, quiet: None, unchanged: None }
    }
}

/// A whole look that changed nothing. What no watch tells of can change after it without being heard of; and where not all is as
/// asked, what time decides.
#[derive(Clone)]
pub(super) struct Quiet<U> {
    /// When it was.
    pub(super) at: Instant,
    /// Everything was as asked.
    pub(super) is_steady: bool,
    /// Touches when it began.
    pub(super) touches: u64,
    /// Version of the object.
    pub(super) version: Option<String>,
    /// What no watch tells of.
    pub(super) untold: U,
}

impl<U: Clone> Memory<U> {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Remembered<U>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait after another failure of this object.
    pub(super) fn pause(&self, object: &Key) -> Duration {
        let mut objects = self.objects();
        let remembered = objects.entry(object.clone()).or_default();
        remembered.failures = remembered.failures.saturating_add(1);
        (remembered.quiet, remembered.unchanged) = (None, None);
        pause(remembered.failures, self.jitter.hash_one((object, remembered.failures)))
    }

    /// Asks to begin a pass over this object. Absent: it may; else how long it has to wait.
    pub(super) fn begin(&self, object: &Key) -> Option<Duration> {
        let mut objects = self.objects();
        let remembered = objects.entry(object.clone()).or_default();
        let early = remembered.began.and_then(|began| SPACING.checked_sub(began.elapsed()));
        if early.is_none() {
            remembered.began = Some(Instant::now());
        }
        early
    }

    /// A pass over this object went well.
    pub(super) fn forgive(&self, object: &Key) {
        if let Some(remembered) = self.objects().get_mut(object) {
            remembered.failures = 0;
        }
    }

    /// Whether the last pass over this object went well.
    pub(super) fn is_first_failure(&self, object: &Key) -> bool {
        self.objects().get(object).is_none_or(|remembered| remembered.failures == 0)
    }

    /// Something that belongs to this object was heard to change.
    pub(super) fn touch(&self, object: Key) {
        let mut objects = self.objects();
        let remembered = objects.entry(object).or_default();
        remembered.touches = remembered.touches.wrapping_add(1);
    }

    /// Touches of this object so far.
    pub(super) fn touches(&self, object: &Key) -> u64 {
        self.objects().get(object).map_or(0, |remembered| remembered.touches)
    }

    /// A whole look has ended: quiet, or not.
    pub(super) fn looked(&self, object: &Key, quiet: Option<Quiet<U>>) {
        if let Some(remembered) = self.objects().get_mut(object) {
            let since = quiet.as_ref().map(|quiet| quiet.at);
            remembered.unchanged = remembered.unchanged.filter(|_| since.is_some()).or(since);
            remembered.quiet = quiet;
        }
    }

    /// The last look, if nothing of this object was heard since, and it was not too long ago.
    pub(super) fn quiet(&self, object: &Key, version: Option<&str>, now: Instant) -> Option<Quiet<U>> {
        let objects = self.objects();
        let remembered = objects.get(object)?;
        let quiet = remembered.quiet.as_ref()?;
        let is_unheard = quiet.touches == remembered.touches && quiet.version.as_deref() == version;
        let enough = match quiet.is_steady {
            true => QUIET_FOR,
            false => {
                let unchanged =
                    remembered.unchanged.map_or(Duration::ZERO, |since| quiet.at.duration_since(since));
                stuck_for(unchanged, objects.len())
            }
        };
        (is_unheard && now.duration_since(quiet.at) < enough).then(|| quiet.clone())
    }

    /// Forgets all objects but these. Those that are gone cause no pass that could.
    pub(super) fn keep_only(&self, there: &BTreeSet<Key>) {
        self.objects().retain(|object, _| there.contains(object));
    }
}

/// How long a stuck object is left alone on which no look has changed anything for so long, among so many objects.
fn stuck_for(unchanged: Duration, objects: usize) -> Duration {
    let share = u32::try_from(objects).unwrap_or(u32::MAX);
    let of_all = Duration::from_secs(1).saturating_mul(share) / STUCK_LOOKS_PER_SECOND;
    unchanged.min(STUCK_FOR_MAX).max(of_all)
}

/// The pause after this many failures in a row: from half to all of a time that doubles, up to [`PAUSE_MAX`].
fn pause(failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
    let share = u32::try_from(random % 1_000).unwrap_or(0);
    whole / 2 + whole / 2 * share / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Key {
        ("shop".to_owned(), "demo".to_owned())
    }

    fn quiet(memory: &Memory<()>) -> Option<Quiet<()>> {
        let touches = memory.touches(&demo());
        Some(Quiet { at: Instant::now(), is_steady: true, touches, version: Some("7".into()), untold: () })
    }

    #[test]
    fn pauses_double_to_a_limit_and_differ() {
        for (failures, most) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (100, 60), (u32::MAX, 60)] {
            for random in [0, 1, 499, 999, u64::MAX] {
                let pause = pause(failures, random);
                let most = Duration::from_secs(most);
                assert!(pause >= most / 2 && pause <= most, "{failures} {random}: {pause:?}");
            }
        }
        assert_ne!(pause(3, 0), pause(3, 500));
    }

    #[test]
    fn an_object_is_quiet_until_something_of_it_is_heard() {
        let memory = Memory::default();
        assert_eq!(memory.begin(&demo()), None);
        let is_quiet = |version: &str| memory.quiet(&demo(), Some(version), Instant::now()).is_some();
        assert!(!is_quiet("7"), "never looked at");
        memory.looked(&demo(), quiet(&memory));
        assert!(is_quiet("7"));
        assert!(!is_quiet("8"), "the object itself has changed");
        memory.touch(("shop".into(), "other".into()));
        assert!(is_quiet("7"));
        memory.touch(demo());
        assert!(!is_quiet("7"), "a child has changed");
        // What was heard during the look counts, too.
        let before = quiet(&memory);
        memory.touch(demo());
        memory.looked(&demo(), before);
        assert!(!is_quiet("7"));
    }

    #[test]
    fn a_quiet_object_is_looked_at_whole_now_and_then_and_after_a_failure() {
        let memory = Memory::default();
        memory.begin(&demo());
        memory.looked(&demo(), quiet(&memory));
        let is_quiet = |now| memory.quiet(&demo(), Some("7"), now).is_some();
        assert!(is_quiet(Instant::now()) && !is_quiet(Instant::now() + QUIET_FOR));
        memory.pause(&demo());
        assert!(!is_quiet(Instant::now()));
    }

    #[test]
    fn a_stuck_object_is_looked_at_less_often_the_longer_nothing_changes() {
        let memory = Memory::default();
        memory.begin(&demo());
        let begun = Instant::now();
        let look = |second: u64| {
            let at = begun + Duration::from_secs(second);
            memory.looked(&demo(), quiet(&memory).map(|quiet| Quiet { at, is_steady: false, ..quiet }));
        };
        let is_quiet =
            |second: u64| memory.quiet(&demo(), Some("7"), begun + Duration::from_secs(second)).is_some();
        look(0);
        assert!(!is_quiet(2), "it has only just become so");
        look(4);
        assert!(is_quiet(7) && !is_quiet(8));
        look(1_000);
        assert!(is_quiet(1_009) && !is_quiet(1_010));
        memory.touch(demo());
        assert!(!is_quiet(1_001), "something of it was heard");
        // Something changed: it begins anew.
        memory.looked(&demo(), None);
        look(1_002);
        assert!(!is_quiet(1_004));
        assert_eq!(
            stuck_for(Duration::from_secs(5), 600),
            Duration::from_secs(30),
            "of many each waits longer"
        );
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let memory = Memory::<()>::default();
        let other: Key = ("shop".into(), "other".into());
        for object in [demo(), other.clone()] {
            memory.pause(&object);
        }
        memory.keep_only(&BTreeSet::from([other.clone()]));
        assert!(memory.is_first_failure(&demo()) && !memory.is_first_failure(&other));
        assert_eq!(memory.objects().len(), 1);
    }
}
