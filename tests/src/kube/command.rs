//! Running commands and waiting for things, with messages that say what was seen.

use super::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a look at something that is waited for found.
pub enum Seen<T> {
    /// It is there.
    Done(T),
    /// Not yet; the text says what is there instead.
    NotYet(String),
}

/// Waits until `look` says [`Seen::Done`].
///
/// # Errors
/// [`Error::TimedOut`] with what was seen last; errors of `look` end the wait at once.
pub fn wait_for<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<Seen<T>, Error>,
) -> Result<T, Error> {
    let begun = Instant::now();
    loop {
        match look()? {
            Seen::Done(found) => return Ok(found),
            Seen::NotYet(seen) if begun.elapsed() >= within => {
                return Err(Error::TimedOut { what: what.to_owned(), within, seen });
            }
            Seen::NotYet(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Runs a command to its end.
///
/// # Errors
/// [`Error::Io`] if it cannot be started, [`Error::Failed`] with its output if it says no.
pub(super) fn run(command: &mut Command) -> Result<Output, Error> {
    run_with_input(command, "")
}

/// Runs a command to its end and gives it this text to read.
///
/// # Errors
/// As [`run`].
pub(super) fn run_with_input(command: &mut Command, input: &str) -> Result<Output, Error> {
    let output = output_of(command, input)?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Error::Failed { command: words(command), status: output.status, output: text_of(&output) })
}

/// Runs a command to its end, whatever it says.
///
/// # Errors
/// [`Error::Io`] if it cannot be started.
pub(super) fn output_of(command: &mut Command, input: &str) -> Result<Output, Error> {
    let mut child = command
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io(format!("start `{}`", words(command))))?;
    // A program that ends before it has read everything says why in its output. The broken pipe adds nothing.
    let writer = child.stdin.take().map(|mut pipe| {
        let input = input.to_owned();
        std::thread::spawn(move || drop(pipe.write_all(input.as_bytes())))
    });
    let output = child.wait_with_output().map_err(Error::io(format!("wait for `{}`", words(command))))?;
    if let Some(writer) = writer {
        writer.join().expect("writing to a pipe does not panic");
    }
    Ok(output)
}

/// The output of a command as text, errors first.
pub(super) fn text_of(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    [err.trim(), out.trim()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// A command as one would type it.
pub(super) fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The last lines of a file, or nothing if there is none.
pub(super) fn tail(path: &Path, lines_max: usize) -> String {
    let text =
        std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].join("\n")
}

/// Writes a whole file.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub(super) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Error> {
    std::fs::write(path, content).map_err(Error::io(format!("write {}", path.display())))
}

/// Makes a folder and all above it.
///
/// # Errors
/// [`Error::Io`] naming the folder.
pub(super) fn make_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(Error::io(format!("make the folder {}", path.display())))
}
