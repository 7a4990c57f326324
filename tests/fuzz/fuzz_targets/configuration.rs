//! A cluster configuration inside a record.
#![no_main]

raftqueue_fuzz::target!(raftqueue_wal::fuzzing::configuration, fixed: 64 << 10, each: 64);
