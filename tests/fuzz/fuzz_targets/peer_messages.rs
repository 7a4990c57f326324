//! What peers say in their streams.
#![no_main]

raftqueue_fuzz::target!(raftqueue_node::fuzzing::peer_messages, fixed: 64 << 10, each: 256);
