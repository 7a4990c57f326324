//! IDENTITY, HARDSTATE, MANIFEST and RECOVERY.
#![no_main]

raftqueue_fuzz::target!(raftqueue_wal::fuzzing::small_files, fixed: 64 << 10, each: 64);
