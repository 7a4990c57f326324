//! Clients that generators make of the OpenAPI file, each against a real node: the file is there for them.
//!
//! `RAFTQUEUE_GENERATORS=FOLDER` runs them. It needs npm, python3, go, java and mvn, which fetch the generators in fixed
//! versions into FOLDER (`tests/generators/run`), and takes some minutes the first time. What the generators taught is
//! tested always, on the file alone: `node/src/edges/http/v1/openapi.rs`.

use libtest_mimic::{Arguments, Completion, Trial};
use raftqueue_tests::process::{Cluster, repository};
use std::process::{Command, ExitCode};

const CLIENTS: [&str; 7] =
    ["typescript", "python_client", "python_generator", "go_generator", "go_oapi_codegen", "go_ogen", "java"];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share the folder with the generators.
    arguments.test_threads = Some(1);
    let folder = std::env::var_os("RAFTQUEUE_GENERATORS");
    let trials = CLIENTS.map(|name| {
        let folder = folder.clone();
        Trial::ignorable_test(name, move || {
            let Some(folder) = folder else {
                return Ok(Completion::ignored_with(
                    "set RAFTQUEUE_GENERATORS to a folder for the generators",
                ));
            };
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
                true => Ok(Completion::Completed),
                false => Err(String::from_utf8_lossy(&output.stdout).into_owned().into()),
            }
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}
