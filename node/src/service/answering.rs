//! A call until it is answered: here while this node leads, else by the leader, whoever that will be by then.

use super::refusals::outside;
use super::{Forwarded, NodeService};
use crate::api::{Answer, Failure, Reason, Request};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Pause before a call tries again to reach a leader that has open streams but no connection for calls.
const DIAL_AGAIN: Duration = Duration::from_millis(50);
/// Pause before a call is passed again to a node that should lead and said that it does not, unless news of the leader
/// come before. Each attempt costs the whole call.
const PASS_AGAIN: Duration = Duration::from_millis(300);
/// With less time than this, a call that found no leader is not tried again: it would end with an unknown outcome.
const LAST_TRY: Duration = Duration::from_millis(40);

impl NodeService {
    /// Answers a call here, or has the leader answer it, before the deadline.
    ///
    /// Nearly all calls are answered by the first try here. What the others need is four times as large, and every call would be
    /// allocated and moved with it; so it has a place of its own.
    pub(super) async fn answer(
        &self,
        request: Request,
        deadline: Instant,
        forwarded: bool,
    ) -> Result<Answer, Failure> {
        if self.leads() && !self.inner.stopping.load(Ordering::Relaxed) {
            match self.ask_driver(&request, deadline).await {
                // It was not done, and another node may lead by now. The caller need not know.
                Err(failure) if failure.reason == Reason::NotLeader && !forwarded => {}
                result => return result,
            }
        }
        Box::pin(self.answer_somehow(request, deadline, forwarded)).await
    }

    /// The same wherever the leader is, or will be.
    async fn answer_somehow(
        &self,
        request: Request,
        deadline: Instant,
        forwarded: bool,
    ) -> Result<Answer, Failure> {
        let mut leadership = self.inner.leadership.clone();
        let mut reached = self.inner.transport.reached();
        let mut seeking: Option<Instant> = None;
        loop {
            if self.inner.stopping.load(Ordering::Relaxed) {
                return Err(self.why_stopping());
            }
            let now = *leadership.borrow_and_update();
            reached.mark_unchanged();
            let begun = Instant::now();
            let attempt = match now.leader {
                Some(_) if now.is_own => Forwarded::Ended(self.ask_driver(&request, deadline).await),
                _ if forwarded => {
                    return Err(Failure::not_done(Reason::NotLeader, "this node does not lead (any more)"));
                }
                Some(leader) => self.forward(leader, &request, deadline).await,
                None if self.inner.own.is_outside() => return Err(outside()),
                None => Forwarded::NoWay { is_cut_off: true },
            };
            let longest = match attempt {
                // It was not done, and another node may lead by now. The caller need not know.
                Forwarded::Ended(Err(failure)) if failure.reason == Reason::NotLeader && !forwarded => {
                    PASS_AGAIN
                }
                Forwarded::Ended(result) => return result,
                Forwarded::NoWay { is_cut_off: true } => Duration::MAX,
                Forwarded::NoWay { is_cut_off: false } => DIAL_AGAIN,
            };
            if begun.elapsed() >= self.inner.leader_wait {
                // There was a leader for a long time, and now another node has its turn.
                seeking = None;
            }
            let since = *seeking.get_or_insert_with(Instant::now);
            let until = deadline.min(since + self.inner.leader_wait);
            let left = until.saturating_duration_since(Instant::now()).saturating_sub(LAST_TRY);
            let news = async {
                tokio::select! {
                    _ = leadership.changed() => {}
                    _ = reached.changed() => {}
                }
            };
            let waited = tokio::time::timeout(longest.min(left), news).await;
            if waited.is_err() && left <= longest {
                let waited_ms = since.elapsed().as_millis();
                let text =
                    format!("no leader could be reached from this node for {waited_ms} ms; nothing was done");
                return Err(Failure::not_done(Reason::NoLeader, text).retry_after_ms(100));
            }
        }
    }
}
