//! Following one call: an id by which its errors and its lines in the log are found, and, where a collector of traces is named,
//! the spans of its way from the edge to the commit.
//!
//! The id is that of the caller's own trace if it came with one (`traceparent`, W3C Trace Context), else one that is made when the
//! first error or line needs it. A call that is not followed costs no more than a look for that header.

mod export;
mod parent;
mod steps;

pub(crate) use export::Traced;
pub use export::{Collector, Exporter};
pub(crate) use parent::Parent;
pub(crate) use steps::{Steps, Watched};

use crate::entropy;
use std::cell::Cell;
use std::fmt;
use std::future::Future;

/// The header with the caller's trace: W3C Trace Context, level 1.
pub const PARENT_HEADER: &str = "traceparent";
/// The header of an answer that is an error: what the log of the nodes calls this call.
pub const TRACE_HEADER: &str = "raftqueue-trace-id";

/// What all spans and lines of one call have in common: 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceId(u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The call that a task works for.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    id: Cell<Option<TraceId>>,
    traced: Option<Traced>,
}

tokio::task_local! {
    static CURRENT: Call;
}

impl Call {
    /// A call that came with `parent`, and is exported as `traced`.
    pub(crate) fn new(parent: Option<Parent>, traced: Option<Traced>) -> Self {
        let id = traced.as_ref().map(Traced::id).or(parent.map(|parent| parent.trace_id));
        Self { id: Cell::new(id.map(TraceId)), traced }
    }

    /// Its id, which is made now if it had none.
    pub(crate) fn id(&self) -> TraceId {
        let id = self.id.get().unwrap_or_else(|| TraceId(entropy::random_wide()));
        self.id.set(Some(id));
        id
    }

    /// The call that the running task works for, if it works for one.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Its span has ended, if it is exported.
    pub(crate) fn end(&self, error: Option<String>) {
        if let Some(traced) = &self.traced {
            traced.end(error);
        }
    }

    /// Runs `work` for this call. Returns what it has become, too: it may have an id by then.
    pub(crate) async fn run<F: Future>(self, work: F) -> (F::Output, Self) {
        let work = async {
            let done = work.await;
            (done, CURRENT.with(Self::clone))
        };
        CURRENT.scope(self, work).await
    }

    /// The same for what ends at once.
    pub(crate) fn run_now<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), work)
    }
}

/// What is told to the node that a call is passed on to where its spans are not exported: its lines are to have the same id.
pub(crate) fn unexported_parent() -> Option<Parent> {
    let trace_id = CURRENT.try_with(Call::id).ok()?.0;
    Some(Parent { trace_id, span_id: entropy::random(), is_sampled: false })
}

/// The id of the call that the running task works for, for a line of the log.
pub(crate) fn id() -> Option<TraceId> {
    CURRENT.try_with(Call::id).ok()
}

/// The same call where its spans are exported.
pub(crate) fn traced() -> Option<Traced> {
    CURRENT.try_with(|call| call.traced.clone()).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_has_the_id_of_its_caller_or_one_that_stays() {
        let parent = Parent { trace_id: 7, span_id: 1, is_sampled: false };
        let (seen, _) = Call::new(Some(parent), None).run(async { id() }).await;
        assert_eq!(seen.expect("within a call").to_string(), format!("{:032x}", 7));
        let (seen, call) = Call::new(None, None).run(async { (id(), id()) }).await;
        assert_eq!(seen, (Some(call.id()), Some(call.id())));
        let (_, other) = Call::new(None, None).run(async {}).await;
        assert_ne!(other.id(), call.id());
        assert_eq!(id(), None, "nobody is worked for here");
    }
}
