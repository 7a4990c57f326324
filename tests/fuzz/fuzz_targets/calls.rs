//! A call of a client, as a client or a peer sends it in protobuf.
#![no_main]

raftqueue_fuzz::target!(raftqueue_node::fuzzing::calls, fixed: 64 << 10, each: 256);
