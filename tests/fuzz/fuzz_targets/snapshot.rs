//! A snapshot file.
#![no_main]

raftqueue_fuzz::target!(raftqueue_wal::fuzzing::snapshot, fixed: 4096 << 10, each: 64);
