//! A stored message.
#![no_main]

raftqueue_fuzz::target!(raftqueue_node::fuzzing::message, fixed: 16 << 10, each: 128);
