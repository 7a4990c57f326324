//! A log on a disk, as a start opens it and a dump shows it.
#![no_main]

raftqueue_fuzz::target!(raftqueue_wal::fuzzing::log, fixed: 1024 << 10, each: 64);
