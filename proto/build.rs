//! Compiles the `.proto` files with protox, so that no `protoc` has to be installed.

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 3] =
    ["raftqueue/v1/queue.proto", "raftqueue/v1/admin.proto", "raftqueue/peer/v1/peer.proto"];

/// What clients see; the peer protocol is not listed by reflection.
const CLIENT_FILES: [&str; 2] = ["raftqueue/v1/queue.proto", "raftqueue/v1/admin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is set by cargo")?);
    fs::write(out.join("client_descriptors.bin"), protox::compile(CLIENT_FILES, ["."])?.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(protox::compile(FILES, ["."])?)?;
    Ok(())
}
