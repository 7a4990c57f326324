//! Behaviour of the whole crate, on the fake disk and once on a real one.

mod append;
mod crash;
mod dump;
mod forced;
mod formats;
mod frozen;
mod identity;
mod keeper;
mod keeping;
mod life;
mod model;
mod places;
mod reading;
mod rot;
mod schedules;
mod small_files;
mod snapshot;
mod support;
mod switching;
