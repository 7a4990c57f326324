//! The forwarded calls that are open here. Each is known by the node that passed it on and the number that this node
//! gave it, so that it can be given up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Most calls that are remembered because they were given up before they arrived, or just after they were answered.
const GIVEN_UP_MAX: usize = 4_096;

/// The node that passed the call on, and its number there.
pub(super) type Key = (u64, u64);

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct OpenCalls(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    open: BTreeMap<Key, oneshot::Sender<()>>,
    /// Calls that were not open when they were given up: a small message may overtake a large call.
    given_up: BTreeSet<Key>,
    /// The same, oldest first, with some that have begun meanwhile.
    oldest: VecDeque<Key>,
}

/// A call that is open; it is forgotten when this is dropped.
#[derive(Debug)]
pub(super) struct OpenCall {
    calls: Arc<OpenCalls>,
    key: Key,
    given_up: oneshot::Receiver<()>,
}

impl OpenCalls {
    /// A call begins.
    pub(super) fn begin(self: &Arc<Self>, key: Key) -> OpenCall {
        let (give_up, given_up) = oneshot::channel();
        let mut calls = self.lock();
        if calls.given_up.remove(&key) {
            let _ = give_up.send(());
        } else {
            calls.open.insert(key, give_up);
        }
        drop(calls);
        OpenCall { calls: Arc::clone(self), key, given_up }
    }

    /// A call is given up by the node that passed it on.
    pub(super) fn give_up(&self, key: Key) {
        let mut calls = self.lock();
        if let Some(call) = calls.open.remove(&key) {
            // Fails if it was just answered.
            let _ = call.send(());
            return;
        }
        if calls.given_up.insert(key) {
            calls.oldest.push_back(key);
        }
        if calls.oldest.len() > GIVEN_UP_MAX
            && let Some(oldest) = calls.oldest.pop_front()
        {
            calls.given_up.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenCall {
    /// Resolves when the call is given up, and never otherwise.
    pub(super) async fn given_up(&mut self) {
        if (&mut self.given_up).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.calls.lock().open.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_call_is_given_up_before_it_came_while_it_is_open_and_not_after() {
        let calls = Arc::new(OpenCalls::default());
        let mut open = calls.begin((1, 1));
        let mut other = calls.begin((2, 1));
        assert_eq!(open.given_up().now_or_never(), None);
        calls.give_up((1, 1));
        assert_eq!(open.given_up().now_or_never(), Some(()));
        assert_eq!(other.given_up().now_or_never(), None, "it is another node's");
        calls.give_up((1, 2));
        assert_eq!(calls.begin((1, 2)).given_up().now_or_never(), Some(()), "it was overtaken");
        drop((open, other));
        assert!(calls.lock().open.is_empty());
    }

    #[test]
    fn what_is_given_up_too_late_does_not_pile_up() {
        let calls = Arc::new(OpenCalls::default());
        for call in 0..2 * GIVEN_UP_MAX as u64 {
            drop(calls.begin((1, call)));
            calls.give_up((1, call));
        }
        assert_eq!(calls.lock().given_up.len(), GIVEN_UP_MAX);
    }
}
