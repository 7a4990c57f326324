//! The settings file: a JSON object whose keys are the flags of `raftqueue-node` without their dashes.
//!
//! `{"election-timeout-ms": 500, "members": ["a", "b", "c"]}` says what `--election-timeout-ms 500 --members a,b,c`
//! says. A flag wins over its environment variable, the variable over the file, and the file over the default. The file
//! is made into flags. So a value is read, checked and refused in the same way wherever it comes from.

use crate::config::NodeArgs;
use clap::parser::ValueSource;
use clap::{Arg, Args, Command, CommandFactory, Error, FromArgMatches, error::ErrorKind};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The flag that names the file.
#[derive(Args, Clone, Debug)]
pub struct SettingsArgs {
    /// File of settings: a JSON object with flags of this command, without their dashes, as its keys.
    /// A flag or an environment variable wins over the file.
    #[arg(long, value_name = "FILE", env = "RAFTQUEUE_SETTINGS")]
    pub settings: Option<PathBuf>,
}

/// Parses a command line whose parser `P` has [`SettingsArgs`] and [`NodeArgs`] in it, the file included.
///
/// # Errors
/// The error of clap for the command line, or one for the file in the same form. It ends a process with exit code 2.
pub fn parse<P: CommandFactory + FromArgMatches>(mut line: Vec<OsString>) -> Result<P, Error> {
    let mut command = P::command();
    let matches = command.try_get_matches_from_mut(&line)?;
    if let Some(file) = matches.get_one::<PathBuf>("settings") {
        for (key, value) in read(file).map_err(|why| refuse(&mut command, file, &why))? {
            let id = id_of(&key).map_err(|why| refuse(&mut command, file, &why))?;
            let flag = flag(&key, &value).map_err(|why| refuse(&mut command, file, &why))?;
            if matches!(matches.value_source(&id), None | Some(ValueSource::DefaultValue)) {
                line.push(flag.into());
            }
        }
    }
    let mut matches = command.try_get_matches_from_mut(&line)?;
    P::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn refuse(command: &mut Command, file: &Path, why: &str) -> Error {
    command.error(ErrorKind::InvalidValue, format!("--settings {}: {why}", file.display()))
}

fn read(file: &Path) -> Result<Map<String, Value>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    serde_json::from_str(&text).map_err(|error| {
        format!("{error}; it must be a JSON object such as {{\"election-timeout-ms\": 500}}")
    })
}

/// The argument that a key of the file stands for.
fn id_of(key: &str) -> Result<String, String> {
    let command = NodeArgs::augment_args(Command::new("node"));
    let known = |arg: &&Arg| arg.get_long().is_some();
    match command.get_arguments().filter(known).find(|arg| arg.get_long() == Some(key)) {
        Some(arg) => Ok(arg.get_id().to_string()),
        None => {
            let names: Vec<&str> = command.get_arguments().filter_map(Arg::get_long).collect();
            Err(format!("there is no setting `{key}`; there are {}", names.join(", ")))
        }
    }
}

fn flag(key: &str, value: &Value) -> Result<String, String> {
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let text = match value {
        Value::Array(values) => {
            values.iter().map(scalar).collect::<Option<Vec<_>>>().map(|texts| texts.join(","))
        }
        other => scalar(other),
    };
    let text = text.ok_or_else(|| format!("`{key}` must be a text, a number or a list of texts"))?;
    Ok(format!("--{key}={text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        node: NodeArgs,
    }

    fn parse_with(file: &str, flags: &[&str]) -> Result<NodeArgs, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.json");
        std::fs::write(&path, file).unwrap();
        let line = [&["node", "--settings", path.to_str().unwrap()], flags].concat();
        parse::<Cli>(line.iter().map(OsString::from).collect())
            .map(|cli| cli.node)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = r#"{"election-timeout-ms": 500, "lease-ms": "2000", "members": ["a", "b"], "name": "a"}"#;
        let node = parse_with(file, &["--lease-ms", "3000"]).unwrap();
        assert_eq!((node.election_timeout_ms, node.lease_ms, node.drain_ms), (500, 3000, 0));
        assert_eq!((node.members, node.name.as_deref()), (vec!["a".to_owned(), "b".to_owned()], Some("a")));
    }

    #[test]
    fn without_a_file_there_are_only_flags() {
        let line = ["node", "--lease-ms", "3000"].map(OsString::from);
        assert_eq!(parse::<Cli>(line.into()).unwrap().node.lease_ms, 3000);
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named_with_what_would_be_right() {
        for (file, part) in [
            ("{", "must be a JSON object"),
            ("[]", "must be a JSON object"),
            (r#"{"colour": 1}"#, "there is no setting `colour`; there are config, index"),
            (r#"{"settings": "x"}"#, "there is no setting `settings`"),
            (r#"{"lease-ms": {}}"#, "`lease-ms` must be a text, a number"),
            (r#"{"lease-ms": null}"#, "`lease-ms` must be a text, a number"),
            (r#"{"lease-ms": 1}"#, "1000..=43200000"),
            (r#"{"lease-ms": -1.5}"#, "invalid"),
        ] {
            let error = parse_with(file, &[]).unwrap_err();
            assert!(error.contains(part), "{file}: {error}");
            assert!(!error.is_empty());
        }
        let line = ["node", "--settings", "/nowhere"].map(OsString::from);
        assert!(parse::<Cli>(line.into()).unwrap_err().to_string().contains("cannot be read"));
    }
}
