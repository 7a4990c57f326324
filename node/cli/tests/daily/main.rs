//! What people reach for every day, against a real node: workers, pipes, repeats, dead messages, and a look at the disk.

mod cluster;
mod looking;
mod publishing;
mod working;
