//! Snapshots and messages that another node gives.
#![no_main]

raftqueue_fuzz::target!(raftqueue_node::fuzzing::given, fixed: 512 << 10, each: 256);
