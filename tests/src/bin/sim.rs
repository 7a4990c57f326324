//! The simulator by hand: one seed as a story, or many until a rule is broken.
//!
//! It lives the same lives as `cargo test -p raftqueue-tests --test simulation`, and checks the same rules; only that
//! test asks that every kind of fault was met.

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use raftqueue_tests::sim::{self, Broken, Coverage, History, Summary, Telling, print_line};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Seeds that are lived if nothing is asked for.
const SEEDS: u64 = 300;

/// Lives whole clusters in one thread, each from one seed.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  sim                          seeds 0 to 299
  sim --seconds 3600 --first 1000000
  sim --seed 42 --trace        everything that happens in one life
  sim --points --seeds 3       a crash at every call to a disk of three short lives of each kind

Exit codes: 0 all rules were kept, 1 one was broken or nobody reads on, 2 the arguments are wrong.")]
struct Arguments {
    /// Only this seed
    #[arg(long, conflicts_with_all = ["seeds", "seconds", "first"])]
    seed: Option<u64>,
    /// Print everything that happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// So many seeds [default: 300, or as many as fit into --seconds]
    #[arg(long)]
    seeds: Option<u64>,
    /// As many seeds as fit into so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Instead: short lives, each lived again with a crash at every call to a disk, in several ways
    #[arg(long, conflicts_with = "seed")]
    points: bool,
    /// Tell a broken life as it is, without making it smaller
    #[arg(long)]
    no_shrink: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let broken = match arguments.seed {
        Some(seed) => live_one(seed, arguments.trace),
        None if arguments.points => crash_everywhere(&arguments),
        None => live_many(&arguments),
    };
    let Err(broken) = broken else { return ExitCode::SUCCESS };
    // Printed before it is made smaller, which takes a while.
    print_line(format_args!("{broken}commit {}", commit()));
    if arguments.points {
        return ExitCode::FAILURE;
    }
    if !arguments.no_shrink && !arguments.trace {
        let shrunk = sim::shrink(broken.seed).expect("one seed is one life");
        print_line(format_args!("made smaller: {shrunk}"));
    }
    print_line(format_args!("the whole life: sim --seed {} --trace", broken.seed));
    ExitCode::FAILURE
}

fn live_one(seed: u64, is_traced: bool) -> Result<(), Box<Broken>> {
    let telling = if is_traced { Telling::Aloud } else { Telling::LastLines };
    let life = sim::live_telling(seed, telling)?;
    print_line(format_args!("seed {seed} ends well\n{}\n{}", life.summary, life.coverage));
    Ok(())
}

fn live_many(arguments: &Arguments) -> Result<(), Box<Broken>> {
    let begun = Instant::now();
    let seconds = arguments.seconds.map(Duration::from_secs);
    let count = arguments.seeds.unwrap_or(if seconds.is_some() { u64::MAX } else { SEEDS });
    let bar = progress(if seconds.is_some() { None } else { Some(count) });
    let (mut sum, mut coverage) = (Summary::default(), Coverage::default());
    for seed in arguments.first..arguments.first.saturating_add(count) {
        if seconds.is_some_and(|seconds| begun.elapsed() > seconds) {
            break;
        }
        let life = sim::live(seed).inspect_err(|_| bar.finish_and_clear())?;
        sum.add(&life.summary);
        coverage.add(&life.coverage);
        bar.inc(1);
    }
    bar.finish_and_clear();
    print_line(format_args!("{sum}\n{coverage}  in {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

fn crash_everywhere(arguments: &Arguments) -> Result<(), Box<Broken>> {
    let begun = Instant::now();
    let seconds = arguments.seconds.map(Duration::from_secs);
    let goes_on = || seconds.is_none_or(|seconds| begun.elapsed() <= seconds);
    let count = arguments.seeds.unwrap_or(if seconds.is_some() { u64::MAX } else { 1 });
    for seed in arguments.first..arguments.first.saturating_add(count) {
        for history in [History::HandOver, History::CutOff] {
            if !goes_on() {
                return Ok(());
            }
            let done = sim::crash_at_every_call(history, seed, goes_on)?;
            print_line(format_args!("{history:?}, seed {seed}: {done}"));
            print_line(format_args!("  in {:.1} s", begun.elapsed().as_secs_f64()));
        }
    }
    Ok(())
}

/// A bar on a terminal; nothing where the output goes elsewhere.
fn progress(seeds: Option<u64>) -> ProgressBar {
    let (bar, template) = match seeds {
        Some(seeds) => {
            (ProgressBar::new(seeds), "{elapsed_precise} {wide_bar} {pos}/{len} seeds, {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{elapsed_precise} {spinner} {pos} seeds, {per_sec}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is well formed"))
}

/// The commit of the sources as they lie now: they may have changed since this was built.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match (git(&["rev-parse", "HEAD"]), git(&["status", "--porcelain", "--untracked-files=no"])) {
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), _) => format!("{commit}, with changes that are not committed"),
        (None, _) => "unknown: this is no checkout of git".into(),
    }
}
