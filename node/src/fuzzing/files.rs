//! The files that an operator gives to a node.

use crate::config::NodeArgs;
use crate::settings::{SettingsArgs, parse};
use clap::Parser;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Parser, Debug)]
struct Line {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// The file of settings, or that of addresses: the first byte says which, and which address is the node's own.
///
/// # Panics
/// Where a decoder breaks its promise, or a file is refused without a word.
pub fn settings(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    // A process of its own, and one file at a time.
    let folder = ["/dev/shm", "/tmp"].iter().map(PathBuf::from).find(|folder| folder.is_dir());
    let file = folder.unwrap_or_default().join(format!("raftqueue-fuzz-{}", std::process::id()));
    std::fs::write(&file, text).expect("a file can be written");
    let path = file.clone().into_os_string();
    let line: Vec<OsString> = match kind % 2 {
        0 => vec!["node".into(), "--settings".into(), path],
        _ => vec!["node".into(), "--config".into(), path, "--index".into(), (kind >> 1).to_string().into()],
    };
    match parse::<Line>(line) {
        // A file of settings may name the file of addresses, which is not this one.
        Ok(line) if line.node.config.as_ref().is_none_or(|config| *config == file) => {
            if let Err(error) = line.node.resolve() {
                assert!(!error.to_string().is_empty());
            }
        }
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = std::fs::remove_file(&file);
}
