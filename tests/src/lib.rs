//! What the tests of the whole need: a simulator of clusters.

pub mod process;
pub mod sim;
