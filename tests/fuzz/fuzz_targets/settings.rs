//! The file of settings and that of addresses.
#![no_main]

raftqueue_fuzz::target!(raftqueue_node::fuzzing::settings, fixed: 4096 << 10, each: 256);
