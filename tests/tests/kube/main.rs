//! Tests on a real Kubernetes. `RAFTQUEUE_KUBE` decides: unset, every case is shown as ignored; `auto`, they run where the
//! programs are there and the machine allows it; `require`, what is missing is built, and a case that cannot run fails.
//! `RAFTQUEUE_TEST_KUBECONFIG` names another cluster to run on; cases that need the inside of ours are ignored there.
//!
//! A new case is a function and a line in the list `CASES` of its module. One Kubernetes serves the whole run, each case
//! in a namespace of its own.

mod case;
mod harness;
mod product;
mod seen;
mod tier;
mod traces;

use case::Case;
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;
use std::sync::Arc;
use tier::Tier;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let tier = Arc::new(Tier::read());
    let modules: [(&str, &[Case]); 20] = [
        ("harness", &harness::CASES),
        ("seen", seen::CASES),
        ("readme", product::readme::CASES),
        ("faults", product::faults::CASES),
        ("operator", product::operator::CASES),
        ("kills", product::kills::CASES),
        ("hands", product::hands::CASES),
        ("storms", product::storms::CASES),
        ("words", product::words::CASES),
        ("chart", product::chart::CASES),
        ("disks", product::disks::CASES),
        ("lives", product::lives::CASES),
        ("locks", product::locks::CASES),
        ("mending", product::mending::CASES),
        ("neighbours", product::neighbours::CASES),
        ("scaling", product::scaling::CASES),
        ("refusals", product::refusals::CASES),
        ("rights", product::rights::CASES),
        ("tls", product::tls::CASES),
        ("watched", product::watched::CASES),
    ];
    let trials: Vec<Trial> = modules
        .into_iter()
        .flat_map(|(module, cases)| cases.iter().map(move |case| (format!("{module}::{}", case.name), *case)))
        .map(|(name, case)| {
            let tier = Arc::clone(&tier);
            Trial::ignorable_test(name.clone(), move || tier.run(&name, &case))
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let is_whole =
        arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.ignored && !arguments.list;
    match tier.finish(is_whole && !conclusion.has_failed()) {
        Ok(()) => conclusion.exit_code(),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
