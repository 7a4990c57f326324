//! `raftq completions`.

use crate::Arguments;
use crate::failure::Failure;
use crate::output::Output;
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

#[derive(Args)]
#[command(after_help = "\
Examples:
  source <(raftq completions bash)
  raftq completions zsh > ~/.zfunc/_raftq
  raftq completions fish > ~/.config/fish/completions/raftq.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: ShellName,
}

/// A shell that is known.
#[derive(Clone, Copy, ValueEnum)]
enum ShellName {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub(super) fn run(&self, output: &Output) -> Result<(), Failure> {
        let shell = match self.shell {
            ShellName::Bash => Shell::Bash,
            ShellName::Zsh => Shell::Zsh,
            ShellName::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        generate(shell, &mut Arguments::command(), "raftq", &mut script);
        output.write(&script)
    }
}
