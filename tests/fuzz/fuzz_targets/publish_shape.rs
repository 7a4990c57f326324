//! The counting of a publish while it arrives, beside the library's own reading.
#![no_main]

raftqueue_fuzz::target!(raftqueue_node::fuzzing::publish_shape, fixed: 16 << 10, each: 256);
