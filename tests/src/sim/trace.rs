//! What happened, as one number and, if wanted, as a story.

use super::plan::{MS, Micros};
use super::random::chain;
use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, Write};

/// Lines of the story that are kept: what led to the end.
const LINES_MAX: usize = 60;

/// How much of the story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Only the hash.
    Silent,
    /// The last lines are kept.
    LastLines,
    /// Every line is kept.
    Whole,
    /// Every line is printed as it happens.
    Aloud,
}

/// The trace of one life.
#[derive(Debug)]
pub(super) struct Trace {
    telling: Telling,
    pub(super) hash: u64,
    pub(super) lines: VecDeque<String>,
}

impl Trace {
    pub(super) fn new(telling: Telling) -> Self {
        Self { telling, hash: 0, lines: VecDeque::new() }
    }

    /// Something happened. `parts` go into the hash; `line` is made only if somebody wants to read it.
    pub(super) fn note(&mut self, now: Micros, parts: &[u64], line: impl FnOnce() -> String) {
        self.hash = parts.iter().copied().fold(chain(self.hash, now), chain);
        if self.telling != Telling::Silent {
            let line = format!("{:>9}.{:03} ms  {}", now / MS, now % MS, line());
            if self.telling == Telling::Aloud {
                print_line(&line);
            }
            self.lines.push_back(line);
            if self.telling != Telling::Whole && self.lines.len() > LINES_MAX {
                self.lines.pop_front();
            }
        }
    }
}

/// Prints a line. When whoever reads has seen enough, as in `sim --seed 42 --trace | head`, the process ends: nobody wants the
/// rest.
pub fn print_line(line: impl Display) {
    if writeln!(io::stdout(), "{line}").is_err() {
        std::process::exit(1);
    }
}
