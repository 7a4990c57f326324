//! Certificates and keys as PEM in files, and a bare certificate of a handshake.
#![no_main]

raftqueue_fuzz::target!(raftqueue_tls::fuzzing::certificates, fixed: 1024 << 10, each: 256);
