//! What the API server answers about a token.
#![no_main]

raftqueue_fuzz::target!(raftqueue_access::fuzzing::token_review, fixed: 64 << 10, each: 256);
