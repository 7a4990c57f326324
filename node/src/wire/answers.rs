//! What a client is told when its call succeeded.
//!
//! [`Write`] takes an [`Answer`] apart into the response that belongs to the call. An answer of another kind means that
//! this node's own replica is broken, and panics. Answers of other nodes are judged before they get here.

use crate::api::Answer;

/// A response that is written to the wire.
pub(crate) trait Write: Sized {
    /// The response for `answer`; `None` if that is the answer to another call.
    fn write(answer: Answer) -> Option<Self>;
}

/// The response that belongs to a call answered with `answer`.
///
/// # Panics
///
/// The answer is that of another call: the replica is broken.
pub(crate) fn write<R: Write>(answer: Answer) -> R {
    let kind = std::any::type_name::<R>();
    R::write(answer)
        .unwrap_or_else(|| panic!("the replica gave another call's answer where a {kind} was due"))
}
