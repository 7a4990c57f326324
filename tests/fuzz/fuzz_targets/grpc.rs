//! A call of gRPC, through the whole edge.
#![no_main]

// What a header of five bytes announces is held in the budget, and then memory is taken for it: up to the largest frame.
raftqueue_fuzz::target!(raftqueue_node::fuzzing::grpc, fixed: 48 << 20, each: 512);
