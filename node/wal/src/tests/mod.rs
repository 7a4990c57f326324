//! Behaviour of the whole crate on the fake disk.

mod append;
mod support;
