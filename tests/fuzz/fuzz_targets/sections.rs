//! The sections of a snapshot, and the state that they make.
#![no_main]

raftqueue_fuzz::target!(raftqueue_node::fuzzing::sections, fixed: 256 << 10, each: 512);
