//! The protocol as a whole, proved in one thread: scripts that tell one behaviour each, random schedules, quorums
//! against a naive definition, hostile messages, and deliberate bugs that all of this must see.

mod chaos;
mod checker;
mod cluster;
mod disk;
mod elections;
mod failover;
mod hostile;
mod installs;
mod mutants;
mod quorums;
mod random;
mod script;
mod scripts;
mod show;
