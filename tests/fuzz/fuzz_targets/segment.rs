//! Heads, frames, records and indexes of a segment.
#![no_main]

raftqueue_fuzz::target!(raftqueue_wal::fuzzing::segment, fixed: 64 << 10, each: 64);
