//! The commands of a log entry.
#![no_main]

raftqueue_fuzz::target!(raftqueue_node::fuzzing::entry, fixed: 64 << 10, each: 512);
