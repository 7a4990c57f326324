//! The README's commands for Kubernetes, typed.

use super::{BoxError, Queue, install};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::playground;
use raftqueue_tests::process::repository;
use std::process::{Command, Stdio};
use std::time::Instant;

pub(crate) const CASES: &[Case] = &[Case {
    name: "its_commands_do_what_it_says",
    needs: Needs::Cluster,
    run: its_commands_do_what_it_says,
}];

/// The shell blocks of the section on Kubernetes.
fn blocks(readme: &str) -> Vec<&str> {
    let section = readme.split("\n## ").find(|section| section.starts_with("On Kubernetes"));
    let section = section.expect("the README has `On Kubernetes`");
    section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

/// Types a script in a shell of its own, in the repository's folder, and returns what it prints.
fn typed(room: &Room<'_>, script: &str) -> Result<String, BoxError> {
    let settings = match room.kube().own("its commands") {
        Ok(own) => {
            playground::write_commands(own)?;
            let programs = raftqueue_tests::kube::images::program_folder();
            format!(
                "{}export PATH=\"{}:$PATH\"\n",
                playground::shell_settings(own.state())?,
                programs.display()
            )
        }
        Err(_) => room
            .cluster()
            .command(&[])
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .find_map(|word| {
                word.strip_prefix("--kubeconfig=").map(|path| format!("export KUBECONFIG='{path}'\n"))
            })
            .ok_or("kubectl is told which cluster")?,
    };
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &format!("{settings}{script}")])
        .current_dir(repository())
        .stdin(Stdio::null())
        .output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(format!("{script}\n--- {out}\n--- {err}").into());
    }
    Ok(out.into_owned())
}

/// Columns of a table by their heads.
fn cell<'a>(table: &'a str, head: &str) -> Option<&'a str> {
    let mut lines = table.lines();
    let heads = lines.next()?;
    let from = heads.find(head)?;
    lines.next()?.get(from..)?.split_whitespace().next()
}

/// A link in the PATH makes the program a plugin of kubectl's.
fn as_a_plugin(room: &Room<'_>, queue: &Queue<'_>) -> Outcome {
    let link = "folder=$(mktemp -d); trap 'rm -r \"$folder\"' EXIT; ln -s \"$(command -v raftq)\" \"$folder/kubectl-raftq\"; \
                export PATH=\"$PATH:$folder\"\n";
    let typed = |words: &str| typed(room, &format!("{link}{words}"));
    assert!(typed("kubectl plugin list")?.contains("/kubectl-raftq\n"));
    let status = typed("kubectl raftq -n default demo status")?;
    let names: Vec<&str> = status.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    assert_eq!(names, queue.pods(3), "{status}");
    let refused = typed("kubectl raftq demi status").expect_err("there is no such object").to_string();
    assert!(refused.contains("raftqueues.raftqueue.io \"demi\" not found"), "{refused}");
    Ok(())
}

fn its_commands_do_what_it_says(room: &Room<'_>) -> Outcome {
    // Images only: the first command installs.
    room.kube().load_product()?;
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let blocks = blocks(&readme);
    assert_eq!(blocks.len(), 4, "the playground, kind, the first message, programs inside and outside");
    assert!(blocks[0].contains("--bin kube -- up") && blocks[1].contains("kind create cluster"));

    // The commands say no namespace, so this case has one that others leave alone.
    let room = &Room { kube: room.kube, namespace: "default".to_owned() };
    let begun = Instant::now();
    let said = typed(room, blocks[2])?;
    eprintln!("README: installed, applied, a message received after {:.1?}", begun.elapsed());
    install(room)?;
    assert!(said.contains("raftqueue.raftqueue.io/demo condition met"), "{said}");
    assert!(said.ends_with("hello\n"), "{said}");

    let queue = Queue { room, name: "demo".to_owned() };
    assert_eq!(queue.restarts()?, 0);
    let table = room.kubectl(&["get", "rq", "demo"])?;
    assert_eq!((cell(&table, "DESIRED"), cell(&table, "READY")), (Some("3"), Some("3")), "{table}");
    assert_eq!(cell(&table, "STATUS"), Some("Ready"), "{table}");
    let leader = cell(&table, "LEADER").ok_or("a leader")?;
    // Every node names the same one.
    for pod in queue.pods(3) {
        let status = queue.raftq(&pod, &["--endpoints", "localhost:7420", "status", "--leader"])?;
        assert_eq!(status.trim(), leader, "{table}");
    }
    // In a pod all members are looked at, and nothing where a laptop would have its nodes.
    let status = queue.raftq("demo-0", &["status"])?;
    let names: Vec<&str> = status.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    assert_eq!(names, queue.pods(3), "{status}");
    assert!(!status.contains("7430"), "{status}");

    let script = match room.kube().own("its commands") {
        Ok(_) => blocks[3].replace("\nraftq ", "\ninside raftq ").replace("\ncurl ", "\ninside curl "),
        Err(_) => blocks[3].to_owned(),
    };
    let script = format!("trap 'kill $(jobs -p)' EXIT\n{script}");
    let said = typed(room, &script)?;
    assert!(said.contains("from a pod\n") && said.ends_with("from a laptop\n"), "{said}");
    as_a_plugin(room, &queue)?;

    room.kubectl(&["delete", "raftqueue", "demo"])?;
    room.kubectl(&["delete", "pvc", "-l", &queue.selector()])?;
    Ok(())
}
