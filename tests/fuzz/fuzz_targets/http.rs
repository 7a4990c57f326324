//! A request of the simple API or of /v1, through the whole edge.
#![no_main]

raftqueue_fuzz::target!(raftqueue_node::fuzzing::http, fixed: 4096 << 10, each: 512);
