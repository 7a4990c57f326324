//! Places files and kept files.
#![no_main]

raftqueue_fuzz::target!(raftqueue_wal::fuzzing::places, fixed: 256 << 10, each: 64);
