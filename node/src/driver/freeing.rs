//! Frees what is too large to be freed on the driver: a thread of its own.
//!
//! A topic with a million leases takes a tenth of a second to be freed, and a heartbeat would wait for it. What comes here
//! was in memory before and only leaves it, so the line needs no bound of its own.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// Something that is only to be freed.
type Garbage = Box<dyn Send>;

/// The thread, and the way to it. [`Freeing::stop`] ends it.
#[derive(Debug)]
pub(crate) struct Freeing {
    garbage: Sender<Garbage>,
    thread: JoinHandle<()>,
}

impl Freeing {
    pub(crate) fn start() -> Self {
        let (garbage, pieces) = channel::<Garbage>();
        let thread = std::thread::Builder::new()
            .name("free".into())
            .spawn(move || pieces.into_iter().for_each(drop))
            .expect("a process that has just started can start a thread");
        Self { garbage, thread }
    }

    /// Takes what nobody needs any more; costs no time by what is in it.
    pub(crate) fn free(&self, garbage: impl Send + 'static) {
        // The thread ends only after this value; otherwise it would be freed here.
        let _ = self.garbage.send(Box::new(garbage));
    }

    /// Waits until all is freed. Blocks.
    pub(crate) fn stop(self) {
        let Self { garbage, thread } = self;
        drop(garbage);
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Says on which thread it was freed.
    struct Piece(Arc<Mutex<Option<String>>>);

    impl Drop for Piece {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = std::thread::current().name().map(str::to_owned);
        }
    }

    #[test]
    fn rule_10_1_what_is_large_is_freed_on_another_thread() {
        let freed_on = Arc::new(Mutex::new(None));
        let freeing = Freeing::start();
        freeing.free(Piece(Arc::clone(&freed_on)));
        freeing.stop();
        assert_eq!(freed_on.lock().unwrap().as_deref(), Some("free"));
    }
}
