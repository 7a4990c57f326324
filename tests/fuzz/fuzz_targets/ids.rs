//! Ids, leases and sessions in bytes and digits, and `traceparent`.
#![no_main]

raftqueue_fuzz::target!(raftqueue_node::fuzzing::ids, fixed: 16 << 10, each: 64);
