//! The OpenAPI file and the `.proto` files, as tools of others take them: what checks them, and clients that generators make of the
//! OpenAPI file, each against a real node.
//!
//! `RAFTQUEUE_CLIENTS` decides for those that fetch little (`tests/src/clients.rs`). `RAFTQUEUE_GENERATORS=FOLDER` runs them all,
//! which needs npm, python3, go, java and mvn. They are fetched in fixed versions into FOLDER (`tests/generators/run`), which takes
//! some minutes the first time. What the generators taught is tested always, on the file alone:
//! `node/src/edges/http/v1/openapi.rs`.

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use raftqueue_tests::clients;
use raftqueue_tests::process::{Cluster, repository};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What checks the files, and generators that fetch little, with the tools that each takes.
const USUAL: [(&str, &[&str]); 5] = [
    ("openapi_validator", &["python3"]),
    ("openapi_linter", &["npm"]),
    ("proto_linter", &["npm"]),
    ("typescript", &["npm"]),
    ("python_client", &["python3"]),
];
const OTHERS: [&str; 5] = ["python_generator", "go_generator", "go_oapi_codegen", "go_ogen", "java"];

/// Where a case fetches its tools to; `Err` says why it is left out.
fn folder(tools: Option<&[&str]>) -> Result<Result<PathBuf, String>, Failed> {
    if let Some(folder) = std::env::var_os("RAFTQUEUE_GENERATORS") {
        return Ok(Ok(folder.into()));
    }
    let Some(tools) = tools else {
        return Ok(Err("set RAFTQUEUE_GENERATORS to a folder for the generators".to_owned()));
    };
    match clients::left_out(tools)? {
        Some(why) => Ok(Err(why)),
        None => Ok(Ok(clients::cache()?.join("generators"))),
    }
}

fn run(name: &str, folder: &Path) -> Result<(), Failed> {
    let mut cluster = Cluster::started(1);
    let node = cluster.leader();
    let output = Command::new(repository().join("tests/generators/run"))
        .arg(repository().join("proto/raftqueue/v1/openapi.json"))
        .arg(format!("http://127.0.0.1:{}", cluster.ports(node).0))
        .arg(folder)
        .arg(name)
        .output()
        .map_err(|error| format!("bash cannot be started: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stdout).into_owned().into()),
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share the folder with the generators.
    arguments.test_threads = Some(1);
    let usual = USUAL.map(|(name, tools)| (name, Some(tools)));
    let trials = usual.into_iter().chain(OTHERS.map(|name| (name, None))).map(|(name, tools)| {
        Trial::ignorable_test(name, move || match folder(tools)? {
            Err(why) => Ok(Completion::ignored_with(why)),
            Ok(folder) => run(name, &folder).map(|()| Completion::Completed),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
