//! A file of roles and grants.
#![no_main]

raftqueue_fuzz::target!(raftqueue_access::fuzzing::policy, fixed: 512 << 10, each: 512);
