//! The file of contexts.
#![no_main]

raftqueue_fuzz::target!(raftqueue_client::fuzzing::contexts, fixed: 512 << 10, each: 512);
