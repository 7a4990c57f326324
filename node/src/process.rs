//! A node as a process of its own: logging, signals, exit codes. Shared by `raftqueue-node` and `raftq up`.

use crate::config::{LogFormat, NodeArgs, log_filter, own_command};
use crate::run::{End, run};
use crate::traces::Exporter;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What the exit codes of a node mean, for `--help`.
pub const EXIT_CODES: &str = "Exit codes: 0 stopped as asked; 1 other error; 2 wrong arguments; 3 the data directory is \
refused; 4 an address cannot be served; 5 the disk failed; 6 an entry or this disk cannot be trusted.";

/// What stops a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopWith {
    /// SIGTERM or SIGINT.
    Signals,
    /// SIGTERM, SIGINT, or the end of standard input: the process that started this one has gone, or wants it to stop.
    SignalsOrStandardInput,
}

/// Runs a node until it is told to stop.
#[must_use]
pub fn main(args: NodeArgs, stop_with: StopWith) -> ExitCode {
    start_logging(args.log_format);
    let threads = usize::try_from(args.threads).unwrap_or(1);
    let config = match args.resolve() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let exporter = {
        let _runtime = runtime.enter();
        config.collector.as_ref().map(|collector| Exporter::start(collector, &config.name)).transpose()
    };
    let exporter = match exporter {
        Ok(exporter) => exporter,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to at the start");
        let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be listened to at the start");
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = standard_input_ends(), if stop_with == StopWith::SignalsOrStandardInput => {}
            }
        };
        // Its own task, so that the runtime's thread runs it rather than this one.
        match tokio::spawn(run(config, exporter.clone(), stop)).await {
            Ok(result) => result,
            Err(error) => Err(crate::run::Fatal { code: 1, text: error.to_string() }),
        }
    });
    exporter.iter().for_each(Exporter::stop);
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    match result {
        Ok(End::Stopped) => ExitCode::SUCCESS,
        Ok(End::Again) => begin_again(),
        Err(fatal) => {
            tracing::error!(code = fatal.code, "{fatal}");
            eprintln!("error: {fatal}");
            ExitCode::from(fatal.code)
        }
    }
}

/// The same program with the same arguments takes the place of this one, under the same process id: whatever this one had open
/// is closed, and it begins with what the data directory holds by now. Returns only if that cannot be.
fn begin_again() -> ExitCode {
    let error = match own_command() {
        Ok(mut command) => command.exec(),
        Err(error) => error,
    };
    eprintln!("error: cannot begin again ({error}): start it by hand");
    ExitCode::FAILURE
}

/// Resolves when nothing more can come on standard input.
async fn standard_input_ends() {
    // It has a thread of its own: a blocked read on a thread of the runtime would hold up the end of the process.
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

fn start_logging(format: LogFormat) {
    let human = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let filter = EnvFilter::try_new(log_filter()).unwrap_or_else(|error| {
        eprintln!("warning: RUST_LOG is not understood ({error}); logging at `info`");
        EnvFilter::new("info")
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only if a subscriber is installed already. Then that one does the job.
    let _ = if human {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
    } else {
        builder.json().with_target(false).try_init()
    };
}
