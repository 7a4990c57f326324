//! What comes to its end although no command says so: leases, delays, sessions, kept pops, redrives, and what sessions
//! counted in topics that are gone. All of it within the budget of one apply, so that no apply is long.

use crate::state::State;
use crate::{Effects, Overdue, SessionId};
use std::sync::Arc;

impl State {
    /// Ends what is over: leases and delays, then sessions, then kept pops. Then goes on with what earlier commands left.
    pub(crate) fn expire(&mut self, budget: &mut usize, effects: &mut Effects) {
        while *budget > 0 {
            let mut ends = self.ends.iter().map(|(&end, ())| end);
            let Some((first_ms, topic, subscription)) = ends.next() else { break };
            if first_ms > self.now_ms {
                break;
            }
            // Up to the time when another subscription comes first.
            let until_ms = ends.next().map_or(self.now_ms, |(second_ms, ..)| second_ms.min(self.now_ms));
            drop(ends);
            let times = (self.now_ms, until_ms);
            let spent = self.with_subscription((topic, subscription), effects, |scope| {
                scope.subscription.expire(times, *budget, scope.settings.attempts_max, scope.moves)
            });
            *budget -= spent.expect("an end leads to a subscription");
        }
        while *budget > 0
            && let Some((end_ms, session)) = self.sessions.next_end()
            && end_ms <= self.now_ms
        {
            let topics = self.end_session(session, effects);
            effects.sessions_expired += 1;
            *budget = budget.saturating_sub(1 + topics);
        }
        while *budget > 0
            && let Some(messages) = self.release_pop(self.now_ms, effects)
        {
            *budget = budget.saturating_sub(messages.max(1));
        }
        while *budget > 0 && self.pops.forget(self.now_ms) {
            effects.steps += 1;
            *budget -= 1;
        }
        self.drop_leaving(budget, effects);
        while *budget > 0
            && let Some((&target, ())) = self.redriving.first()
        {
            let spent = self.with_subscription(target, effects, |scope| {
                scope.subscription.list_redriven(*budget, scope.moves)
            });
            *budget -= spent.expect("a redrive is one of a subscription");
        }
    }

    pub(crate) fn expire_overdue(&mut self, overdue: &[Overdue], budget: &mut usize, effects: &mut Effects) {
        let now_ms = self.now_ms;
        for Overdue { topic, subscription, candidates } in overdue {
            let spent = self.with_subscription((*topic, *subscription), effects, |scope| {
                scope.subscription.expire_overdue(candidates, *budget, now_ms, scope.moves)
            });
            // If the topic is gone meanwhile, so are its messages.
            *budget -= spent.unwrap_or(0);
        }
    }

    /// Ends a session; says in how many topics it counted.
    pub(crate) fn end_session(&mut self, id: SessionId, effects: &mut Effects) -> usize {
        let session = self.sessions.end(id);
        effects.steps += 1 + session.pairs.len() as u64;
        for (topic, _) in session.sequences() {
            if let Some(topic) = self.topics.get_mut(&topic) {
                Arc::make_mut(topic).sessions.remove(&id);
            } else if let Some(sessions) = self.leaving.get_mut(&topic) {
                sessions.remove(&id);
                if sessions.is_empty() {
                    self.leaving.remove(&topic);
                }
            }
        }
        session.pairs.len()
    }

    /// Forgets what sessions counted in topics that are gone, as far as the budget goes.
    pub(crate) fn drop_leaving(&mut self, budget: &mut usize, effects: &mut Effects) {
        while *budget > 0
            && let Some((&topic, _)) = self.leaving.first()
        {
            let sessions = self.leaving.get_mut(&topic).expect("it was just looked at");
            if let Some((session, ())) = sessions.pop_first() {
                self.sessions.drop_pair(session, topic);
                effects.steps += 2;
                *budget -= 1;
            }
            if self.leaving.get(&topic).is_some_and(|sessions| sessions.is_empty()) {
                self.leaving.remove(&topic);
            }
        }
    }

    /// Lets go of the messages of the oldest kept pop, if its time is over or there are too many. Returns how many.
    pub(crate) fn release_pop(&mut self, now_ms: u64, effects: &mut Effects) -> Option<usize> {
        let pop = self.pops.release(now_ms)?;
        effects.steps += 1;
        if let Some(topic) = self.topics.get_mut(&pop.topic) {
            effects.released.push(pop.topic);
            let kept = &mut Arc::make_mut(topic).kept;
            for run in pop.runs() {
                effects.steps += 1;
                kept.remove(run);
            }
        }
        Some(pop.deliveries.len())
    }
}
