//! The list of the files that are the log. It changes only as a whole.

/// The content of `MANIFEST`. Segments from `first_segment` on are the log, and each names the one before. Older ones
/// are left over from a release that a crash cut short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The oldest segment that counts.
    pub first_segment: u64,
    /// Files that keep bodies of segments that are gone.
    pub kept_files: Vec<KeptFile>,
    /// Snapshots of the queue's state.
    pub snapshots: Vec<SnapshotFile>,
}

/// One kept file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptFile {
    /// Its number, which is its name.
    pub number: u64,
    /// Its length in bytes.
    pub size: u64,
    /// CRC32C of its index.
    pub crc: u32,
}

/// One snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its number, which is its name.
    pub number: u64,
    /// Its length in bytes.
    pub size: u64,
    /// CRC32C of its head.
    pub crc: u32,
}

impl Default for Manifest {
    fn default() -> Manifest {
        Manifest { first_segment: 1, kept_files: Vec::new(), snapshots: Vec::new() }
    }
}
