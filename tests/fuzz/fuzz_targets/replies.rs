//! Answers of the leader to a call that was passed on.
#![no_main]

raftqueue_fuzz::target!(raftqueue_node::fuzzing::replies, fixed: 64 << 10, each: 256);
