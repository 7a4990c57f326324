//! `raftq bench disk`.

use super::measure::Measure;
use super::{report, whole};
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Signals;
use clap::Args;
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of the file, which is written over and over.
const FILE_BYTES: u64 = 64 << 20;

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq bench disk
  raftq bench disk --data-dir /data --size 1048576

Every write is followed by fdatasync, as in a node. Writes per second bound \
how often a cluster can acknowledge, bytes per second how much; a node does \
better on small messages because it writes many at once.")]
pub(crate) struct Disk {
    /// A folder on the disk; a file in it is made and removed
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
    /// Bytes of one write
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = whole(1..=16_777_216), allow_negative_numbers = true)]
    size: u64,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = whole(1..=3_600), allow_negative_numbers = true)]
    seconds: u64,
}

/// A file that is removed at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Disk {
    pub(super) async fn run(&self, output: &Output) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        let scratch = Scratch(self.data_dir.join(format!("raftq-bench-{}", std::process::id())));
        let failed = |error: std::io::Error| Failure::Failed(format!("{}: {error}", scratch.0.display()));
        let file = preallocated(&scratch.0).map_err(failed)?;
        let block = vec![0x5a; usize::try_from(self.size).expect("at most 16 MiB")];
        let measure = Arc::new(Measure::start("written and synced", Duration::from_secs(self.seconds)));
        let counting = Arc::clone(&measure);
        // Writing blocks this thread; the runtime has others.
        let watching = tokio::spawn(async move {
            let asked = signals.next().await;
            counting.end_now();
            asked
        });
        let mut offset = 0;
        while measure.goes_on() {
            let begun = Instant::now();
            file.write_all_at(&block, offset).and_then(|()| file.sync_data()).map_err(failed)?;
            measure.done(begun, 1, self.size);
            offset = if offset + 2 * self.size > FILE_BYTES { 0 } else { offset + self.size };
        }
        let conditions = json!({"data_dir": self.data_dir.display().to_string(), "size": self.size, "seconds": self.seconds});
        let asked = if watching.is_finished() { watching.await.ok() } else { None };
        report(output, &measure.report(conditions), asked)
    }
}

/// A file whose blocks are all allocated, so that a sync has nothing to do but its data.
fn preallocated(path: &Path) -> std::io::Result<File> {
    let file = File::options().write(true).create_new(true).open(path)?;
    let zeros = vec![0; 1 << 20];
    for offset in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_all()?;
    Ok(file)
}
