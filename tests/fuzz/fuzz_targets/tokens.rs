//! A file of hashed tokens.
#![no_main]

raftqueue_fuzz::target!(raftqueue_access::fuzzing::tokens, fixed: 64 << 10, each: 256);
