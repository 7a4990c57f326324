//! A request to the console.
#![no_main]

raftqueue_fuzz::target!(raftqueue_node::fuzzing::console, fixed: 4096 << 10, each: 64);
