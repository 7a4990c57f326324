//! Prints the definition of the custom resource: `cargo run -p raftqueue-operator --bin crdgen > deploy/crd.yaml`.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(raftqueue_operator::crd::manifest().as_bytes())
}
