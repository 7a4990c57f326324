//! `raftq context`: clusters by names, with where they are and what is shown to them.

use crate::contexts::ContextFile;
use crate::credentials::Named;
use crate::failure::Failure;
use crate::output::{Format, Output, Table};
use clap::{Args, Subcommand};
use raftqueue_client::{Client, Context, Contexts};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(crate) enum ContextCommand {
    /// Add a context: where a cluster is, and what is shown to it
    #[command(after_help = "\
Examples:
  raftq context add here --endpoints 127.0.0.1:7420
  raftq context add demo --endpoints queue.example --ca-file ca.crt \\
    --token-file demo.token --use

It has what stands on this command line: --endpoints, --ca-file, --cert-file, \
--key-file and --token-file. Variables are not looked at. A token is never kept \
in it, only the file that has one.")]
    Add(Add),
    /// Show all contexts
    #[command(after_help = "\
Examples:
  raftq context list
  raftq context list -o json | jq -r .name")]
    List,
    /// Take a context into use: it counts where no endpoints are told
    #[command(after_help = "\
Examples:
  raftq context use demo
  raftq context use --none")]
    Use(Use),
    /// Show a context, or the one in force
    #[command(after_help = "\
Examples:
  raftq context show
  raftq context show demo -o json")]
    Show(Show),
    /// Remove a context; the files that it names stay
    #[command(after_help = "\
Examples:
  raftq context remove demo")]
    Remove(Remove),
}

#[derive(Args)]
pub(crate) struct Add {
    /// Its name: letters, digits, `.`, `_` and `-`
    name: String,
    /// Take it into use
    #[arg(long = "use")]
    is_used: bool,
    /// Replace the context of this name, if there is one
    #[arg(long)]
    replace: bool,
}

#[derive(Args)]
pub(crate) struct Use {
    /// The context
    #[arg(required_unless_present = "none", conflicts_with = "none")]
    name: Option<String>,
    /// Take none into use
    #[arg(long)]
    none: bool,
}

#[derive(Args)]
pub(crate) struct Show {
    /// The context [default: what --context says, or the one in use]
    name: Option<String>,
}

#[derive(Args)]
pub(crate) struct Remove {
    /// The context
    name: String,
}

/// What was said beside the command.
pub(crate) struct Said<'a> {
    /// On the command line itself.
    pub(crate) typed: Named,
    /// By --context or its variable.
    pub(crate) context: Option<&'a str>,
    /// By --kube.
    pub(crate) kube: Option<&'a str>,
}

impl ContextCommand {
    /// Runs it: no cluster is asked.
    pub(crate) fn run(self, said: Said<'_>, output: &Output) -> Result<(), Failure> {
        let file = ContextFile::find()?;
        match self {
            ContextCommand::Add(command) => command.run(said, &file, output),
            ContextCommand::List => list(&file, output),
            ContextCommand::Use(command) => command.run(&file, output),
            ContextCommand::Show(command) => command.run(said.context, &file, output),
            ContextCommand::Remove(command) => command.run(&file, output),
        }
    }
}

impl Add {
    fn run(self, said: Said<'_>, file: &ContextFile, output: &Output) -> Result<(), Failure> {
        let Named { endpoints, ca_file, cert_file, key_file, token_file } = said.typed;
        if said.kube.is_some() {
            return Err(Failure::Usage("a context has --endpoints; --kube is said with each command".into()));
        }
        let endpoints = crate::endpoints::read(&endpoints)?;
        if endpoints.is_empty() {
            return Err(Failure::Usage(
                "where is it? Say --endpoints HOST[:PORT], which is kept with the context".into(),
            ));
        }
        // They are found from everywhere.
        let at = |file: Option<PathBuf>| file.map(std::path::absolute).transpose();
        let context = Context {
            name: self.name.clone(),
            endpoints,
            ca_file: at(ca_file)?,
            cert_file: at(cert_file)?,
            key_file: at(key_file)?,
            token_file: at(token_file)?,
        };
        // What is wrong with the files is told now, and not with the first command that needs them.
        Client::connect_with(context.endpoints.clone(), context.credentials(file.path()))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let is_in_use = file.change(|contexts| {
            let was_in_use = contexts.current().is_some_and(|current| current.name == context.name);
            if self.replace {
                contexts.remove(&context.name);
            }
            contexts.add(context.clone()).map_err(|error| match contexts.get(&context.name) {
                Some(_) => Failure::Failed(format!("{error}; --replace replaces it")),
                None => Failure::Usage(error.to_string()),
            })?;
            if self.is_used || was_in_use {
                let chosen = contexts.choose(Some(&context.name));
                chosen.map_err(|error| Failure::Failed(error.to_string()))?;
            }
            Ok(self.is_used || was_in_use)
        })?;
        let name = &self.name;
        let sentence = match is_in_use {
            true => format!("context {name} is added, and in use"),
            false => format!("context {name} is added; `raftq context use {name}` takes it into use"),
        };
        output.say(&sentence, &told(&context, is_in_use, file.path()))
    }
}

/// A context as JSON; files by their whole paths.
fn told(context: &Context, is_in_use: bool, file: &Path) -> Value {
    let [ca_file, cert_file, key_file, token_file] = files(context, file);
    json!({
        "name": context.name, "in_use": is_in_use, "endpoints": context.endpoints, "ca_file": ca_file,
        "cert_file": cert_file, "key_file": key_file, "token_file": token_file
    })
}

/// Its files, by their whole paths: authorities, certificate, key, token.
fn files(context: &Context, file: &Path) -> [Option<String>; 4] {
    let folder = file.parent().unwrap_or(Path::new(""));
    let whole = |path: &Option<PathBuf>| path.as_ref().map(|path| folder.join(path).display().to_string());
    [whole(&context.ca_file), whole(&context.cert_file), whole(&context.key_file), whole(&context.token_file)]
}

fn is_in_use(contexts: &Contexts, context: &Context) -> bool {
    contexts.current().is_some_and(|current| current.name == context.name)
}

fn list(file: &ContextFile, output: &Output) -> Result<(), Failure> {
    let contexts = file.read()?;
    let mut table = Table::new(&["NAME", "IN USE", "ENDPOINTS", "CA", "CERTIFICATE", "TOKEN"]);
    for context in contexts.iter() {
        let is_in_use = is_in_use(&contexts, context);
        let [ca_file, cert_file, _, token_file] = files(context, file.path()).map(Option::unwrap_or_default);
        let in_use = if is_in_use { "yes" } else { "" };
        let cells = vec![
            context.name.clone(),
            in_use.into(),
            context.endpoints.join(","),
            ca_file,
            cert_file,
            token_file,
        ];
        table.add(cells, told(context, is_in_use, file.path()));
    }
    output.print(&table)?;
    if contexts.iter().next().is_none() && output.format == Format::Table {
        eprintln!(
            "{} has no contexts; `raftq context add NAME --endpoints HOST` makes one",
            file.path().display()
        );
    }
    Ok(())
}

impl Use {
    fn run(self, file: &ContextFile, output: &Output) -> Result<(), Failure> {
        file.change(|contexts| {
            let chosen = contexts.choose(self.name.as_deref());
            chosen.map_err(|_| file.missing(contexts, self.name.as_deref().unwrap_or_default()))
        })?;
        let sentence = match &self.name {
            Some(name) => format!("context {name} is in use"),
            None => "no context is in use".to_owned(),
        };
        output.say(&sentence, &json!({"in_use": self.name}))
    }
}

impl Show {
    fn run(self, context: Option<&str>, file: &ContextFile, output: &Output) -> Result<(), Failure> {
        let contexts = file.read()?;
        let context = match self.name.as_deref().or(context) {
            Some(name) => file.get(&contexts, name)?,
            None => contexts.current().ok_or_else(|| {
                Failure::Failed("no context is in use; `raftq context list` shows which there are".into())
            })?,
        };
        let is_in_use = is_in_use(&contexts, context);
        if output.format == Format::Json {
            return output.say("", &told(context, is_in_use, file.path()));
        }
        let [ca_file, cert_file, key_file, token_file] =
            files(context, file.path()).map(Option::unwrap_or_default);
        let in_use = if is_in_use { "yes" } else { "no" };
        let mut table = Table::new(&["FIELD", "VALUE"]);
        for (field, value) in [
            ("name", context.name.as_str()),
            ("in use", in_use),
            ("endpoints", &context.endpoints.join(",")),
            ("ca file", &ca_file),
            ("cert file", &cert_file),
            ("key file", &key_file),
            ("token file", &token_file),
            ("kept in", &file.path().display().to_string()),
        ] {
            table.add(vec![field.to_owned(), value.to_owned()], Value::Null);
        }
        output.print(&table)
    }
}

impl Remove {
    fn run(self, file: &ContextFile, output: &Output) -> Result<(), Failure> {
        let was_in_use = file.change(|contexts| {
            let was_in_use = contexts.current().is_some_and(|current| current.name == self.name);
            match contexts.remove(&self.name) {
                true => Ok(was_in_use),
                false => Err(file.missing(contexts, &self.name)),
            }
        })?;
        let name = &self.name;
        let sentence = match was_in_use {
            true => format!("context {name} is removed; none is in use any more"),
            false => format!("context {name} is removed"),
        };
        output.say(&sentence, &json!({"removed": name, "was_in_use": was_in_use}))
    }
}
