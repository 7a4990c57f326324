//! Long work, away from the threads that serve clients: reading the disk, checking, decoding.
//!
//! The runtime would start hundreds of threads for it. They would take the processor from the driver, and hold as many
//! half-done answers in memory. So only a few run at a time. The others wait, and hold only what they need to begin.

use crate::api::{Failure, Reason};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// So many threads for long work. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    room: Arc<Semaphore>,
}

impl Workers {
    /// At most so many at a time.
    #[must_use]
    pub(crate) fn new(count: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(count)) }
    }

    /// Does the work when it is its turn. Work that has begun runs to its end, even if nobody waits for it any more.
    ///
    /// # Errors
    /// The node stops; nothing is known of the work.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let permit = Arc::clone(&self.room).acquire_owned().await.expect("it is never closed");
        let working = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        match working.await {
            Ok(done) => Ok(done),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {
                Err(Failure::unknown(Reason::ShuttingDown, "the node stopped before the call was done"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn work_waits_for_its_turn_and_gives_its_permit_back() {
        let workers = Workers::new(1);
        let (go, gone) = mpsc::channel::<()>();
        let (began, begun) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let workers = workers.clone();
            async move {
                workers
                    .run(move || {
                        began.send(()).expect("somebody waits");
                        gone.recv().is_err()
                    })
                    .await
            }
        });
        begun.await.expect("it has begun");
        let mut second = Box::pin(workers.run(|| 2));
        let early = futures_util::FutureExt::now_or_never(second.as_mut());
        assert_eq!(early, None, "there is one permit");
        drop(go);
        assert_eq!(first.await.expect("it ends"), Ok(true));
        assert_eq!(second.await, Ok(2));
    }
}
