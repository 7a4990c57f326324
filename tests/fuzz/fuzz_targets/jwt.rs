//! A JWT, and a file of keys.
#![no_main]

raftqueue_fuzz::target!(raftqueue_access::fuzzing::jwt, fixed: 512 << 10, each: 256);
