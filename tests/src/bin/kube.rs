//! A real Kubernetes to play with: `cargo run -p raftqueue-tests --bin kube -- up`.
//!
//! Its network is one of its own and stays so: no link to the host, no packet filter or address of the host is touched. So
//! that the usual commands work all the same, `env` puts a `kubectl` on the PATH that enters that network first, and
//! `inside`, which does the same for any command.

use clap::{Parser, Subcommand};
use raftqueue_tests::kube::cache::{Programs, find_or_build_prometheus};
use raftqueue_tests::kube::images::{PRODUCT, build_product};
use raftqueue_tests::kube::state::State;
use raftqueue_tests::kube::{Error, Kube, Options, check_machine, playground, stop};
use std::process::ExitCode;
use std::time::Instant;

/// A real one-node Kubernetes on this machine, in namespaces of its own. Needs root.
///
/// The programs are built once (about 10 minutes, Go 1.26 or newer) and kept in $XDG_CACHE_HOME/raftqueue, else
/// ~/.cache/raftqueue. Nothing is installed, and nothing of the host's network is changed.
#[derive(Parser)]
#[command(name = "kube", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "Example:
  cargo run -p raftqueue-tests --bin kube -- up
  cargo run -p raftqueue-tests --bin kube -- load
  eval \"$(cargo run -q -p raftqueue-tests --bin kube -- env)\"
  kubectl get nodes
  cargo run -p raftqueue-tests --bin kube -- down";

#[derive(Subcommand)]
enum Action {
    /// Start it and leave it running; nothing happens if it runs already
    Up {
        #[command(flatten)]
        which: Which,
        /// Without a node: the API and its controllers only, no pods
        #[arg(long)]
        no_node: bool,
        /// How many volumes of 10 GiB are made for claims of the default storage class
        #[arg(long, default_value_t = 12)]
        volumes: usize,
    },
    /// Stop it and clear everything away, volumes included; nothing happens if it does not run
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Build the images of RaftQueue without Docker and give them to its node
    Load {
        #[command(flatten)]
        which: Which,
        /// Which images: node, operator (default: both)
        #[arg(value_parser = PRODUCT)]
        images: Vec<String>,
    },
    /// Print what a shell needs to use it: eval "$(... env)"
    Env {
        #[command(flatten)]
        which: Which,
    },
    /// Collect logs, events and objects into a folder
    Collect {
        #[command(flatten)]
        which: Which,
    },
    /// Build a Prometheus that knows Kubernetes if there is none (about 3 minutes, once), and print the folder of its programs
    Prometheus,
    /// Start one that ends with this process, and wait
    #[command(hide = true)]
    Hold {
        #[command(flatten)]
        which: Which,
        /// Without a node
        #[arg(long)]
        no_node: bool,
    },
}

#[derive(clap::Args)]
struct Which {
    /// Its name; several can run beside each other
    #[arg(long, default_value = "playground")]
    name: String,
}

fn main() -> ExitCode {
    match perform(Arguments::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn perform(action: Action) -> Result<(), Error> {
    match action {
        Action::Up { which, no_node, volumes } => up(&Options { name: which.name, node: !no_node, volumes }),
        Action::Down { which } => down(&which.name),
        Action::Load { which, images } => load(&which.name, &images),
        Action::Env { which } => {
            print!("{}", playground::shell_settings(&State::named(&which.name)?)?);
            Ok(())
        }
        Action::Collect { which } => {
            println!("{}", playground::collect(&State::named(&which.name)?)?.display());
            Ok(())
        }
        Action::Prometheus => {
            println!("{}", find_or_build_prometheus()?.display());
            Ok(())
        }
        Action::Hold { which, no_node } => hold(&Options { name: which.name, node: !no_node, volumes: 2 }),
    }
}

fn up(options: &Options) -> Result<(), Error> {
    let state = State::named(&options.name)?;
    if playground::is_running(&state) {
        println!("`{}` runs already; its state is in {}", state.name(), state.folder().display());
        return Ok(());
    }
    check_machine()?;
    Programs::find_or_build()?;
    let kube = Kube::start(options)?;
    let own = kube.own("a playground")?;
    playground::write_commands(own)?;
    println!("ready after {:.1?}; logs and volumes are in {}", own.ready_after(), state.folder().display());
    let suffix =
        if options.name == "playground" { String::new() } else { format!(" --name {}", options.name) };
    println!("next:  cargo run -p raftqueue-tests --bin kube -- load{suffix}");
    println!("       eval \"$(cargo run -q -p raftqueue-tests --bin kube -- env{suffix})\"");
    println!("stop:  cargo run -p raftqueue-tests --bin kube -- down{suffix}");
    kube.leave_running()
}

fn down(name: &str) -> Result<(), Error> {
    let state = State::named(name)?;
    let _lock = State::lock_all()?;
    for cleared in stop::clear_abandoned()? {
        println!("cleared away what `{cleared}` left behind");
    }
    if state.exists() {
        stop::stop(&state)?;
        println!("`{name}` is stopped, and nothing of it is left");
    } else {
        println!("`{name}` does not run");
    }
    Ok(())
}

fn load(name: &str, images: &[String]) -> Result<(), Error> {
    let state = State::named(name)?;
    if !playground::is_running(&state) {
        return Err(Error::NotRunning { name: name.to_owned() });
    }
    let all: Vec<&str> =
        if images.is_empty() { PRODUCT.to_vec() } else { images.iter().map(String::as_str).collect() };
    let begun = Instant::now();
    eprintln!("building {} as static release programs", all.join(" and "));
    let images = build_product(&all)?;
    eprintln!("built in {:.1?}", begun.elapsed());
    for image in images {
        playground::load(&state, &image)?;
        println!("loaded {}", image.reference());
    }
    Ok(())
}

fn hold(options: &Options) -> Result<(), Error> {
    let kube = Kube::start(options)?;
    println!("held: {}", kube.own("holding")?.state().folder().display());
    // Until standard input ends.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    kube.stop()
}
