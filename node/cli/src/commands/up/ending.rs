//! How a node ended: what it said last, and whether starting it again could help.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

/// Most bytes of a log that are read for its last words.
const LAST_BYTES_MAX: u64 = 16 << 10;
/// What a node says last if it gives up.
const LAST_WORDS: &str = "error: ";

/// The end of a node's process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// How, and why, in one line.
    pub(super) text: String,
    /// It would end in the same way if it were started again.
    pub(super) comes_again: bool,
}

impl Ending {
    /// `begun`: how long the log was when the node was started. What stands before that is of an earlier run.
    pub(super) fn read(status: ExitStatus, log: &Path, begun: u64) -> Self {
        if let Some(signal) = status.signal() {
            // Its log knows nothing of that.
            let how = match signal {
                9 => "was killed".to_owned(),
                signal => format!("was ended by signal {signal}"),
            };
            return Self { text: how, comes_again: false };
        }
        let code = status.code().unwrap_or_default();
        let (how, comes_again) = match code {
            0 => ("stopped", false),
            2 => ("ended: wrong arguments", true),
            3 => ("ended: its data folder is refused", true),
            4 => ("ended: an address cannot be served", true),
            5 => ("ended: its disk failed", true),
            6 => ("ended: its disk cannot be trusted", true),
            _ => ("ended", false),
        };
        let words = last_words(log, begun).filter(|_| code != 0);
        let text = match words {
            Some(words) => format!("{how} (exit code {code}): {words}"),
            None => format!("{how} (exit code {code})"),
        };
        Self { text, comes_again }
    }
}

/// The last thing that a node said in this run: why it gave up, or else its last line.
pub(super) fn last_words(log: &Path, begun: u64) -> Option<String> {
    let mut file = std::fs::File::open(log).ok()?;
    let end = file.metadata().ok()?.len();
    let from = begun.max(end.saturating_sub(LAST_BYTES_MAX));
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(LAST_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut lines = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let last = lines.clone().next()?;
    let why = lines.find_map(|line| line.strip_prefix(LAST_WORDS));
    Some(why.unwrap_or(last).to_owned())
}

/// How long a log is by now.
pub(super) fn length(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn an_ending_is_told_in_the_words_of_this_run_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("node-0.log");
        let before = "12:00 ERROR old\nerror: of an earlier run\n";
        let now = "12:01  INFO begun\n12:01 ERROR taken code=4\nerror: cannot serve clients on h:1\n";
        std::fs::write(&log, format!("{before}{now}")).expect("written");
        let begun = before.len() as u64;
        let ending = Ending::read(exit(4), &log, begun);
        assert_eq!(
            ending.text,
            "ended: an address cannot be served (exit code 4): cannot serve clients on h:1"
        );
        assert!(ending.comes_again);
        // It said nothing in this run.
        let ending = Ending::read(exit(3), &log, length(&log));
        assert_eq!(ending.text, "ended: its data folder is refused (exit code 3)");
        // A panic has no word of its own.
        let ending = Ending::read(exit(101), &folder.path().join("none"), 0);
        assert_eq!((ending.text.as_str(), ending.comes_again), ("ended (exit code 101)", false));
    }

    #[test]
    fn only_what_would_end_in_the_same_way_is_not_begun_again() {
        let again = |code| Ending::read(exit(code), Path::new("none"), 0).comes_again;
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(again), [false, false, true, true, true, true, true]);
        let killed = Ending::read(ExitStatus::from_raw(9), Path::new("none"), 0);
        assert_eq!(killed, Ending { text: "was killed".into(), comes_again: false });
        let ended = Ending::read(ExitStatus::from_raw(15), Path::new("none"), 0);
        assert_eq!(ended.text, "was ended by signal 15");
    }
}
