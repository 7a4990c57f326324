//! How the processes of RaftQueue, node and operator, answer a Prometheus: [`Form`] has the forms of an answer, and [`Process`]
//! what every process tells of itself.
//!
//! What there is to tell of a node or of the operator, and where it is asked for, stands with them.

mod form;
mod open;
mod process;

pub use form::Form;
pub use process::Process;
