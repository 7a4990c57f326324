//! The thread of the core.

use super::Fatal;
use tokio::runtime::{Handle, Runtime};

/// The thread of everything that must never wait for a client's bytes: the driver, the peers' streams, the operations
/// port. So heartbeats and probes are answered, however busy the threads are that serve clients.
pub(super) struct Core(Option<Runtime>);

impl Core {
    pub(super) fn start() -> Result<Self, Fatal> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("core")
            .enable_all()
            .build()
            .map_err(|error| Fatal { code: 1, text: format!("cannot start a thread: {error}") })?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn handle(&self) -> &Handle {
        self.0.as_ref().expect("taken only when it is dropped").handle()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Everything that must end well has ended. A read of the disk that hangs is not waited for.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
