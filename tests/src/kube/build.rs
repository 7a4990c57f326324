//! Builds a real Kubernetes from its public Go modules, and a Prometheus that knows it: no container registry, no downloaded
//! programs. A build happens in a folder of its own and becomes the cache by one rename, so a half-finished one never passes
//! for whole; what Go has compiled until then is kept by Go, so the next attempt is quicker.

use super::command::{make_folder, tail, words, write};
use super::error::Error;
use super::versions::{
    CNI_PLUGINS, CONTAINERD, COREDNS, ETCD, KUBERNETES, KUBERNETES_STAGING, PROMETHEUS, PROMETHEUS_MODULE,
    RECIPE, STAGING,
};
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often people are told that a step is still at it.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// The first Go that fetches another by itself.
const GO_MINOR_MIN: u32 = 21;

const CONTAINERD_MODULE: &str = "github.com/containerd/containerd/v2";
const CNI_MODULE: &str = "github.com/containernetworking/plugins";
const PROBE: &str = include_str!("probe.go");

/// One `go build`.
struct Step {
    /// What people are told.
    title: &'static str,
    /// The folder of the module, below `src`.
    module: &'static str,
    /// The packages to build.
    packages: Vec<String>,
    /// Below `bin`: a file, or a folder with a slash behind it.
    output: &'static str,
    /// Further flags.
    flags: Vec<String>,
}

/// Builds Kubernetes into `cache`/`key`. A second caller waits for the first.
///
/// # Errors
/// [`Error::NoGo`], [`Error::Failed`] with the end of Go's output; nothing is left in place then.
pub(super) fn build(cache: &Path, key: &str) -> Result<(), Error> {
    let what = format!("Kubernetes {KUBERNETES}");
    build_once(cache, key, &what, "about 10 minutes on 2 cores", &steps(), prepare_modules)
}

/// Builds Prometheus and promtool into `cache`/`key`. A second caller waits for the first.
///
/// # Errors
/// As [`build`].
pub(super) fn build_prometheus(cache: &Path, key: &str) -> Result<(), Error> {
    let prepare = |room: &Path| {
        let folder = module_folder(room, "prometheus")?;
        write(&folder.join("go.mod"), "module raftqueue.local/prometheus\n\ngo 1.26.0\n")?;
        let programs = prometheus_packages();
        let programs = programs.iter().map(|package| format!("{package}@v{PROMETHEUS_MODULE}"));
        go(room, &folder, ["get", "-tool"].map(str::to_owned).into_iter().chain(programs))
    };
    let what = format!("Prometheus {PROMETHEUS}");
    build_once(cache, key, &what, "about 3 minutes on 2 cores", &[prometheus_step()], prepare)
}

fn build_once(
    cache: &Path,
    key: &str,
    what: &str,
    lasting: &str,
    steps: &[Step],
    prepare: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    check_go()?;
    make_folder(cache)?;
    let _lock = lock(&cache.join(format!("{key}.lock")))?;
    let whole = cache.join(key);
    if whole.is_dir() {
        return Ok(());
    }
    let begun = Instant::now();
    eprintln!("building {what} once into {} ({lasting})", whole.display());
    let room = cache.join(format!("{key}.unfinished"));
    if room.exists() {
        std::fs::remove_dir_all(&room).map_err(Error::io(format!("remove {}", room.display())))?;
    }
    make_folder(&room.join("bin"))?;
    tell("fetching the modules", || prepare(&room))?;
    for (number, step) in steps.iter().enumerate() {
        tell(&format!("[{}/{}] {}", number + 1, steps.len(), step.title), || run_step(&room, step))?;
    }
    // The modules are Go's to keep; only the programs are ours.
    std::fs::remove_dir_all(room.join("src")).map_err(Error::io("remove the sources of wrapper modules"))?;
    std::fs::rename(&room, &whole).map_err(Error::io(format!("rename {}", room.display())))?;
    eprintln!("built in {:.0?}", begun.elapsed());
    Ok(())
}

/// Go since 1.21 fetches the version that a module asks for. An older one says only that it does not understand.
fn check_go() -> Result<(), Error> {
    let Ok(output) = Command::new("go").arg("version").output() else {
        return Err(Error::NoGo { found: None });
    };
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if minor_of(&said).is_some_and(|minor| minor >= GO_MINOR_MIN) {
        return Ok(());
    }
    Err(Error::NoGo { found: Some(said) })
}

/// The 26 of `go version go1.26.8 linux/amd64`.
fn minor_of(said: &str) -> Option<u32> {
    said.split_whitespace().nth(2)?.strip_prefix("go1.")?.split('.').next()?.parse().ok()
}

fn lock(path: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(Error::io(format!("write {}", path.display())))?;
    if file.try_lock().is_err() {
        eprintln!("another process builds the same programs; waiting for it ({})", path.display());
        file.lock().map_err(Error::io(format!("lock {}", path.display())))?;
    }
    Ok(file)
}

/// Runs one step and says how long it takes, from time to time while it does.
fn tell<T>(title: &str, step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let begun = Instant::now();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    eprintln!("  {title}");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while is_done.recv_timeout(TELL_EVERY) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("    still at it after {:.0?}", begun.elapsed());
            }
        });
        let result = step();
        drop(done);
        if result.is_ok() {
            eprintln!("    {:.1?}", begun.elapsed());
        }
        result
    })
}

/// Wrapper modules: the commands' own modules carry `replace` lines, which `go install` refuses.
fn prepare_modules(room: &Path) -> Result<(), Error> {
    let mut kubernetes = format!(
        "module raftqueue.local/kube\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v{KUBERNETES}\n\nreplace (\n"
    );
    for module in STAGING {
        writeln!(kubernetes, "\tk8s.io/{module} => k8s.io/{module} v{KUBERNETES_STAGING}")
            .expect("a string takes any text");
    }
    kubernetes.push_str(")\n");
    let folder = module_folder(room, "kube")?;
    write(&folder.join("go.mod"), kubernetes)?;
    let commands =
        KUBERNETES_COMMANDS.iter().map(|(command, _)| format!("{}@v{KUBERNETES}", package(command)));
    go(room, &folder, ["get", "-tool"].map(str::to_owned).into_iter().chain(commands))?;
    for step in steps() {
        let version = match step.module {
            "etcd" => ETCD,
            "containerd" => CONTAINERD,
            "cni" => CNI_PLUGINS,
            "coredns" => COREDNS,
            _ => continue,
        };
        let folder = module_folder(room, step.module)?;
        if !folder.join("go.mod").exists() {
            let name = format!("raftqueue.local/{}", step.module);
            go(room, &folder, ["mod", "init", &name].map(str::to_owned))?;
        }
        for package in &step.packages {
            go(room, &folder, ["get", "-tool", &format!("{package}@v{version}")].map(str::to_owned))?;
        }
    }
    let folder = module_folder(room, "probe")?;
    write(&folder.join("go.mod"), "module raftqueue.local/probe\n\ngo 1.26.0\n")?;
    write(&folder.join("probe.go"), PROBE)
}

/// The commands of the Kubernetes repository, and what people are told while each is built.
const KUBERNETES_COMMANDS: [(&str, &str); 6] = [
    ("kube-apiserver", "kube-apiserver and all that Kubernetes shares (the longest step, about 4 minutes)"),
    ("kube-controller-manager", "kube-controller-manager"),
    ("kube-scheduler", "kube-scheduler"),
    ("kubelet", "kubelet"),
    ("kube-proxy", "kube-proxy"),
    ("kubectl", "kubectl"),
];

fn package(command: &str) -> String {
    format!("k8s.io/kubernetes/cmd/{command}")
}

fn steps() -> Vec<Step> {
    let stripped = || vec!["-ldflags".to_owned(), "-s -w".to_owned()];
    let mut minor = KUBERNETES.split('.').skip(1);
    let versions = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion=v{KUBERNETES} -X k8s.io/component-base/version.gitMajor=1 \
         -X k8s.io/component-base/version.gitMinor={} -X k8s.io/client-go/pkg/version.gitVersion=v{KUBERNETES}",
        minor.next().expect("a version has a minor number")
    );
    let kubernetes = KUBERNETES_COMMANDS.map(|(command, title)| Step {
        title,
        module: "kube",
        packages: vec![package(command)],
        output: "",
        flags: ["-trimpath", "-ldflags", &versions].map(str::to_owned).to_vec(),
    });
    let without = ["-tags", "no_btrfs no_zfs no_devmapper"].map(str::to_owned);
    let others = [
        Step {
            title: "etcd",
            module: "etcd",
            packages: vec!["go.etcd.io/etcd/server/v3".to_owned()],
            output: "etcd",
            flags: stripped(),
        },
        Step {
            title: "containerd, its shim and ctr",
            module: "containerd",
            packages: ["containerd", "ctr", "containerd-shim-runc-v2"]
                .map(|command| format!("{CONTAINERD_MODULE}/cmd/{command}"))
                .to_vec(),
            output: "",
            flags: stripped().into_iter().chain(without).collect(),
        },
        Step {
            title: "CNI plugins",
            module: "cni",
            packages: ["main/bridge", "main/loopback", "ipam/host-local"]
                .map(|plugin| format!("{CNI_MODULE}/plugins/{plugin}"))
                .to_vec(),
            output: "cni/",
            flags: stripped(),
        },
        Step {
            title: "CoreDNS",
            module: "coredns",
            packages: vec!["github.com/coredns/coredns".to_owned()],
            output: "coredns",
            flags: stripped(),
        },
        Step {
            title: "the probe of the tests",
            module: "probe",
            packages: vec!["raftqueue.local/probe".to_owned()],
            output: "probe",
            flags: stripped(),
        },
    ];
    kubernetes.into_iter().chain(others).collect()
}

fn prometheus_packages() -> [String; 2] {
    ["prometheus", "promtool"].map(|program| format!("github.com/prometheus/prometheus/cmd/{program}"))
}

/// Of the ways to find what is to be watched only that of Kubernetes is built in; the others are most of the work. Its pages are
/// not built in either.
fn prometheus_step() -> Step {
    let version = format!("-s -w -X github.com/prometheus/common/version.Version={PROMETHEUS}");
    Step {
        title: "prometheus and promtool",
        module: "prometheus",
        packages: prometheus_packages().to_vec(),
        output: "",
        flags: ["-trimpath", "-tags", "remove_all_sd,enable_kubernetes_sd", "-ldflags", &version]
            .map(str::to_owned)
            .to_vec(),
    }
}

fn run_step(room: &Path, step: &Step) -> Result<(), Error> {
    let output = room.join("bin").join(step.output);
    // Go takes the output for a folder only if it ends in a slash.
    let output = format!("{}{}", output.display(), if step.output.is_empty() { "/" } else { "" });
    let arguments = ["build".to_owned(), "-o".to_owned(), output.replace("//", "/")];
    let all = arguments.into_iter().chain(step.flags.iter().cloned()).chain(step.packages.iter().cloned());
    go(room, &module_folder(room, step.module)?, all)
}

fn module_folder(room: &Path, module: &str) -> Result<PathBuf, Error> {
    let folder = room.join("src").join(module);
    make_folder(&folder)?;
    Ok(folder)
}

/// Runs Go in a module's folder. Its output goes to a log; the end of that is in the error.
fn go(room: &Path, folder: &Path, arguments: impl IntoIterator<Item = String>) -> Result<(), Error> {
    let log = room.join("build.log");
    let file = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(Error::io(format!("write {}", log.display())))?;
    let mut command = Command::new("go");
    command
        .args(arguments)
        .current_dir(folder)
        .envs([("CGO_ENABLED", "0"), ("GOFLAGS", "-mod=mod"), ("GOWORK", "off")])
        .stdin(Stdio::null())
        .stdout(file.try_clone().map_err(Error::io("share a log"))?)
        .stderr(file);
    let status = command.status().map_err(Error::io("start go"))?;
    if status.success() {
        return Ok(());
    }
    let output = format!("recipe {RECIPE}, log {}\n{}", log.display(), tail(&log, 20));
    Err(Error::Failed { command: words(&command), status, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_go_is_read() {
        assert_eq!(minor_of("go version go1.26.8 linux/amd64"), Some(26));
        assert_eq!(minor_of("go version go1.19 linux/amd64"), Some(19));
        assert_eq!(minor_of("go version devel go1.27-abc"), None);
    }

    #[test]
    fn every_program_that_is_looked_for_is_built() {
        let mut built = std::collections::BTreeSet::new();
        for step in steps() {
            let is_folder = step.output.is_empty() || step.output.ends_with('/');
            for package in &step.packages {
                let last = package.rsplit('/').next().unwrap();
                built.insert(if is_folder {
                    format!("{}{last}", step.output)
                } else {
                    step.output.to_owned()
                });
            }
        }
        for program in super::super::cache::CONTROL_PLANE.into_iter().chain(super::super::cache::NODE) {
            assert!(built.contains(program), "{program} is not among {built:?}");
        }
    }
}
