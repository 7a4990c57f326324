//! Messages that this node cannot read. They are kept out of everybody's way here, but another node may read them.
//!
//! A leader that meets one sets it aside for a moment and gives back its lease. So the message spoils no answer, and is
//! not leased again and again for nobody. Another node may hold the same bytes unharmed. So the leader hands over, if
//! there is a node to take over and everything else goes on meanwhile. It does so once for each message, and more and
//! more rarely: a message that nobody can read, or a disk full of them, must not send the lead around in circles.

use super::Replica;
use super::aside::Target;
use crate::api::{Failure, MessageRef, Reason};
use raftqueue_queue::{self as queue, Command, Generation, SubscriptionId, Token, TopicId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long such a message is not offered by this leader, in milliseconds; then it is tried again.
const REST_MS: u64 = 1_000;
/// Most messages that rest one by one. Beyond that, a whole topic rests.
const RESTING_MAX: usize = 16_384;
/// Ticks between such a message and the hand-over: by then an entry gives back what was leased.
const HAND_OVER_TICKS: u32 = 10;
/// Pause between two hand-overs because of such messages, in milliseconds; it doubles each time.
const PAUSE_MS_MIN: u64 = 60_000;
/// The longest such pause.
const PAUSE_MS_MAX: u64 = 64 * PAUSE_MS_MIN;
/// Most messages for which a hand-over was tried already. With so many of them it does not help.
const TRIED_MAX: usize = 1_024;

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// Until when each rests, oldest first.
    resting: VecDeque<(u64, Target, u64)>,
    /// The same by target.
    kept: BTreeMap<Target, BTreeSet<u64>>,
    /// Until when targets rest as a whole: too much there cannot be read to be remembered one by one.
    targets: BTreeMap<Target, u64>,
    /// A hand-over was tried for these.
    tried: BTreeSet<(TopicId, u64)>,
    /// Ticks until one is tried.
    hands_over_in: Option<u32>,
    /// No hand-over before this moment, on the monotonic clock.
    not_before_ms: u64,
    pause_ms: u64,
}

impl Unread {
    /// Messages that rest.
    pub(super) fn count(&self) -> usize {
        self.resting.len()
    }

    /// Messages that rest there.
    pub(super) fn count_at(&self, target: Target) -> usize {
        self.kept.get(&target).map_or(0, BTreeSet::len)
    }

    pub(super) fn is_any_at(&self, target: Target) -> bool {
        self.kept.contains_key(&target) || self.rests(target)
    }

    /// Nothing of it is offered at the moment.
    pub(super) fn rests(&self, target: Target) -> bool {
        self.targets.contains_key(&target)
    }

    pub(super) fn is_kept(&self, target: Target, offset: u64) -> bool {
        self.kept.get(&target).is_some_and(|kept| kept.contains(&offset))
    }

    /// This node leads no longer. When it leads again, everything is tried again; hand-overs that were tried stay
    /// known.
    pub(super) fn leave(&mut self) {
        self.resting.clear();
        self.kept.clear();
        self.targets.clear();
        self.hands_over_in = None;
    }

    fn keep(&mut self, until_ms: u64, target: Target, offset: u64) {
        if self.kept.entry(target).or_default().insert(offset) {
            self.resting.push_back((until_ms, target, offset));
        }
    }

    /// All of a target rests. Returns what rested there by itself, to be given back.
    fn rest(&mut self, until_ms: u64, target: Target) -> BTreeSet<u64> {
        self.targets.insert(target, until_ms);
        self.resting.retain(|(_, other, _)| *other != target);
        self.kept.remove(&target).unwrap_or_default()
    }

    /// The next target that has rested for long enough.
    fn pop_rested_target(&mut self, now_ms: u64) -> Option<Target> {
        let target =
            self.targets.iter().find(|(_, until_ms)| **until_ms <= now_ms).map(|(target, _)| *target)?;
        self.targets.remove(&target);
        Some(target)
    }

    /// The next that has rested for long enough.
    fn pop_rested(&mut self, now_ms: u64) -> Option<(Target, u64)> {
        let (until_ms, target, offset) = *self.resting.front()?;
        if until_ms > now_ms {
            return None;
        }
        self.resting.pop_front();
        if let Some(kept) = self.kept.get_mut(&target) {
            kept.remove(&offset);
            if kept.is_empty() {
                self.kept.remove(&target);
            }
        }
        Some((target, offset))
    }

    /// Notes that a hand-over is due, if it may help.
    fn consider_hand_over(&mut self, now_ms: u64, target: Target, offsets: &[u64]) {
        let room = TRIED_MAX.saturating_sub(self.tried.len());
        let before = self.tried.len();
        self.tried.extend(offsets.iter().take(room).map(|offset| (target.0, *offset)));
        if self.tried.len() > before && now_ms >= self.not_before_ms && self.hands_over_in.is_none() {
            self.hands_over_in = Some(HAND_OVER_TICKS);
        }
    }

    /// True on the tick on which a hand-over is due.
    fn is_hand_over_due(&mut self, now_ms: u64) -> bool {
        let Some(ticks) = &mut self.hands_over_in else { return false };
        *ticks -= 1;
        if *ticks > 0 {
            return false;
        }
        self.hands_over_in = None;
        self.pause_ms = (2 * self.pause_ms).clamp(PAUSE_MS_MIN, PAUSE_MS_MAX);
        self.not_before_ms = now_ms + self.pause_ms;
        true
    }
}

/// What a call is told if only such messages are left.
pub(super) fn failure() -> Failure {
    let text = format!(
        "the messages that are left in this topic cannot be read at this node at the moment; they are kept, and tried \
         again after {} s. Where `raftq status --storage` says that messages are lost, no node has them: `raftq purge` ends it",
        REST_MS / 1_000
    );
    Failure::not_done(Reason::DataUnreadable, text).retry_after_ms(1_000)
}

fn by_target(messages: &[MessageRef]) -> BTreeMap<Target, Vec<&MessageRef>> {
    let mut targets: BTreeMap<Target, Vec<&MessageRef>> = BTreeMap::new();
    for message in messages {
        let target = (TopicId(message.id.topic), SubscriptionId::DEFAULT);
        targets.entry(target).or_default().push(message);
    }
    targets
}

impl Replica {
    /// Messages of an answer could not be read. Those that a call has leased go back without an attempt. Others, which
    /// were only shown or were taken by a pop, matter only if they are ready.
    pub(super) fn on_messages_unreadable(&mut self, messages: &[MessageRef], are_leased: bool) {
        if !self.raft.is_leader() {
            return;
        }
        for (target, messages) in by_target(messages) {
            let subscription = self.state.subscription(target.0, target.1);
            let is_ready = |offset: &u64| subscription.is_some_and(|there| there.is_ready(*offset));
            let offsets = messages.iter().map(|message| message.id.offset);
            let kept = offsets.filter(|offset| are_leased || is_ready(offset)).collect();
            self.keep_unread(target, kept);
        }
        if are_leased {
            self.release(messages);
        }
    }

    /// What a call has leased for nobody goes back without an attempt.
    pub(super) fn release(&mut self, messages: &[MessageRef]) {
        if !self.raft.is_leader() {
            return;
        }
        self.steps.take(messages.len());
        for ((topic, subscription), messages) in by_target(messages) {
            let lease = |message: &&MessageRef| queue::LeaseId {
                generation: Generation(message.id.generation),
                offset: message.id.offset,
                token: Token(message.token),
            };
            let leases = messages.iter().map(lease).collect();
            self.propose_later(None, Command::Release { topic, subscription, leases });
        }
    }

    /// Does not offer these for a while.
    pub(super) fn keep_unread(&mut self, target: Target, offsets: Vec<u64>) {
        if offsets.is_empty() {
            return;
        }
        self.steps.take(offsets.len());
        let now_ms = self.now.mono_ms;
        self.unread.consider_hand_over(now_ms, target, &offsets);
        for offset in &offsets {
            self.unread.keep(now_ms + REST_MS, target, *offset);
        }
        self.receives.keep_aside(target, offsets.into_iter());
        if self.unread.resting.len() > RESTING_MAX {
            self.steps.look_at(self.unread.resting.len());
            let kept = self.unread.rest(now_ms + REST_MS, target);
            self.steps.take(kept.len());
            self.receives.give_back(target, kept.into_iter());
        }
    }

    /// On a tick: offers again what has rested, and hands over where that may help.
    pub(super) fn try_unread_again(&mut self) {
        let now_ms = self.now.mono_ms;
        // If a turn has no room, the rest waits until the next tick.
        while self.steps.has_room()
            && let Some((target, offset)) = self.unread.pop_rested(now_ms)
        {
            self.steps.take(1);
            self.receives.give_back(target, std::iter::once(offset));
        }
        while self.steps.has_room()
            && let Some(target) = self.unread.pop_rested_target(now_ms)
        {
            self.steps.take(1);
            self.receives.wake(target, u64::MAX);
        }
        if self.unread.is_hand_over_due(now_ms)
            && let Some(to) = self.raft.best_successor()
        {
            // Refused while another hand-over is under way, which is as good. If it fails, this node leads on.
            let _ = self.raft.transfer_leadership(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = (TopicId(1), SubscriptionId::DEFAULT);

    /// The minutes at which a leader hands over that meets this message at every tick for so many minutes.
    fn hand_overs(minutes: u64, message: impl Fn(u64) -> u64) -> Vec<u64> {
        let mut unread = Unread::default();
        let moments = (0..minutes * 60_000).step_by(10);
        let is_due = |now_ms: &u64| {
            unread.consider_hand_over(*now_ms, TARGET, &[message(*now_ms)]);
            unread.is_hand_over_due(*now_ms)
        };
        moments.filter(is_due).map(|now_ms| now_ms / 60_000).collect()
    }

    #[test]
    fn a_message_that_nobody_can_read_does_not_send_the_lead_around() {
        assert_eq!(hand_overs(60, |_| 7), [0]);
    }

    #[test]
    fn a_disk_full_of_such_messages_is_left_ever_more_rarely() {
        assert_eq!(hand_overs(16, |now_ms| now_ms / 1_000), [0, 1, 3, 7, 15]);
    }

    #[test]
    fn what_rests_comes_back_and_is_bounded() {
        let mut unread = Unread::default();
        unread.keep(10, TARGET, 1);
        unread.keep(20, TARGET, 2);
        unread.keep(30, TARGET, 2);
        assert_eq!((unread.count_at(TARGET), unread.count()), (2, 2));
        assert_eq!(unread.pop_rested(9), None);
        assert_eq!(unread.pop_rested(10), Some((TARGET, 1)));
        assert!(!unread.is_kept(TARGET, 1) && unread.is_kept(TARGET, 2));
        assert_eq!(unread.rest(40, TARGET), [2].into());
        assert!(unread.is_any_at(TARGET) && unread.rests(TARGET) && !unread.is_kept(TARGET, 2));
        assert_eq!((unread.pop_rested(50), unread.pop_rested_target(39)), (None, None));
        assert_eq!((unread.pop_rested_target(40), unread.is_any_at(TARGET)), (Some(TARGET), false));
    }
}
