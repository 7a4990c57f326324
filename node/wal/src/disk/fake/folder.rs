//! A whole data directory as text, so that one can be kept in the repository and read in a diff.
//!
//! ```text
//! file NAME SIZE
//!  OFFSET HEX          32 bytes at most
//!  OFFSET HEX*COUNT    one byte, so many times
//! ```
//!
//! What no line names is zero.

use super::FakeDisk;
use std::fmt::Write;

/// Bytes of a line.
const LINE_BYTES: usize = 32;
/// From so many equal bytes on they are counted.
const RUN_BYTES: usize = 24;

/// Writes files down, in the order in which they come.
#[must_use]
pub fn write_folder<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut text = String::new();
    for (name, bytes) in files {
        let _ = writeln!(text, "file {name} {}", bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let run = bytes[at..].iter().take_while(|byte| **byte == bytes[at]).count();
            if bytes[at] == 0 && (run >= RUN_BYTES || at + run == bytes.len()) {
                at += run;
            } else if run >= RUN_BYTES {
                let _ = writeln!(text, " {at} {:02x}*{run}", bytes[at]);
                at += run;
            } else {
                let begin = at;
                while at < bytes.len() && at - begin < LINE_BYTES && !begins_run(&bytes[at..]) {
                    at += 1;
                }
                let digits: String = bytes[begin..at].iter().map(|byte| format!("{byte:02x}")).collect();
                let _ = writeln!(text, " {begin} {digits}");
            }
        }
    }
    text
}

fn begins_run(bytes: &[u8]) -> bool {
    let run = bytes.iter().take(RUN_BYTES).take_while(|byte| **byte == bytes[0]).count();
    run == RUN_BYTES || bytes[0] == 0 && run == bytes.len()
}

/// The files of a text that [`write_folder`] made.
///
/// # Panics
/// If it is no such text.
#[must_use]
pub fn read_folder(text: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| word.parse::<usize>().expect("a number");
        match words[..] {
            ["file", name, size] => files.push((name.to_owned(), vec![0; number(size)])),
            [offset, content] => {
                let (_, bytes) = files.last_mut().expect("a file is named first");
                let at = number(offset);
                let (digits, times) = content.split_once('*').unwrap_or((content, "1"));
                let content: Vec<u8> = (0..digits.len() / 2)
                    .map(|place| u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).expect("hex"))
                    .collect();
                let content = content.repeat(number(times));
                bytes[at..at + content.len()].copy_from_slice(&content);
            }
            _ => panic!("`{line}` is no line of a folder"),
        }
    }
    files
}

impl FakeDisk {
    /// A disk with the files of a text that [`write_folder`] made.
    ///
    /// # Panics
    /// If it is no such text.
    #[must_use]
    pub fn of_folder(text: &str) -> FakeDisk {
        let disk = FakeDisk::new(1);
        for (name, bytes) in read_folder(text) {
            disk.put(&name, &bytes);
        }
        disk
    }
}
