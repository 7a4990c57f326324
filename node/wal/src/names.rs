//! The names of files, and the numbers in those that are numbered.

/// A forced recovery that was decided and is not carried out yet.
pub(crate) const RECOVERY: &str = "RECOVERY";
/// Snapshots of the queue's state.
pub(crate) const SNAPSHOT: &str = "snapshot-";
/// Which messages stand in a segment.
pub(crate) const PLACES: &str = "places-";
/// Bodies that outlived their segments.
pub(crate) const KEPT: &str = "kept-";

/// The name of a file: a prefix and the number in hexadecimal.
pub(crate) fn numbered(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:016x}")
}

/// The number in a name; `None` for other files.
pub(crate) fn number_of(prefix: &str, name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_prefix(prefix)?, 16).ok()?;
    (numbered(prefix, number) == name).then_some(number)
}

/// The number in the name of a file that the manifest must name, segments left out; `None` for other files.
pub(crate) fn file_number(name: &str) -> Option<u64> {
    [SNAPSHOT, PLACES, KEPT].iter().find_map(|prefix| number_of(prefix, name))
}
