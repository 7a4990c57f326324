//! What is done about a `RaftQueue`: the pass over one object, and the rooms that are its steps.
//!
//! Nothing here knows when it runs, or how often: that is [`crate::controller`].

pub mod apply;
pub mod build;
pub mod events;
pub mod observation;
pub mod observe;
pub mod pass;
pub mod plan;
pub mod status;
pub mod validate;
