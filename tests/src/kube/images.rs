//! Container images without Docker: a few static programs in a tar, in the form that `docker save` writes and every runtime
//! reads.

use super::environment;
use super::error::Error;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user that the images run as; also the owner of the volumes that are made for them.
pub const USER: u32 = 65_532;

/// The version of the images, which is that of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The architecture in Rust's words and in those of images.
const ARCHITECTURE: (&str, &str) =
    if cfg!(target_arch = "aarch64") { ("aarch64", "arm64") } else { ("x86_64", "amd64") };

/// An image `FROM scratch`.
#[derive(Clone, Debug)]
pub struct Image {
    reference: String,
    entrypoint: Vec<String>,
    files: Vec<(String, PathBuf)>,
}

impl Image {
    /// An image without files. `reference` is its full name, registry and tag included.
    #[must_use]
    pub fn new(reference: &str, entrypoint: &[&str]) -> Self {
        let entrypoint = entrypoint.iter().map(|&word| word.to_owned()).collect();
        Self { reference: reference.to_owned(), entrypoint, files: Vec::new() }
    }

    /// Adds an executable file to the root folder.
    #[must_use]
    pub fn with_file(mut self, name: &str, source: &Path) -> Self {
        self.files.push((name.to_owned(), source.to_owned()));
        self
    }

    /// Its full name.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Writes the archive. The same files give the same bytes.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file that cannot be read or written.
    pub fn write_archive(&self, path: &Path) -> Result<(), Error> {
        let mut layer = tar::Builder::new(Vec::new());
        for (name, source) in &self.files {
            let content = std::fs::read(source).map_err(Error::io(format!("read {}", source.display())))?;
            append(&mut layer, name, 0o755, &content)?;
        }
        let layer = layer.into_inner().map_err(Error::io("end a layer"))?;
        let layer_digest = hex(&layer);
        let config = json!({
            "architecture": ARCHITECTURE.1,
            "os": "linux",
            "config": {
                "User": format!("{USER}:{USER}"),
                "Entrypoint": self.entrypoint,
                // Everything lies in the root folder, so that `kubectl exec POD -- raftq` finds it.
                "Env": ["PATH=/"],
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
        })
        .to_string();
        let config_name = format!("{}.json", hex(config.as_bytes()));
        let layer_name = format!("{layer_digest}/layer.tar");
        let manifest = json!([{"Config": config_name, "RepoTags": [self.reference], "Layers": [layer_name]}]);

        let file = File::create(path).map_err(Error::io(format!("write {}", path.display())))?;
        let mut archive = tar::Builder::new(file);
        append(&mut archive, &config_name, 0o644, config.as_bytes())?;
        append(&mut archive, &layer_name, 0o644, &layer)?;
        append(&mut archive, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
        archive.finish().map_err(Error::io(format!("write {}", path.display())))
    }
}

fn append<W: std::io::Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    mode: u32,
    content: &[u8],
) -> Result<(), Error> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content).map_err(Error::io(format!("pack {name}")))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The images of the product, by what they are called on the command line.
pub const PRODUCT: [&str; 2] = ["node", "operator"];

/// What the static programs are built for.
fn target() -> String {
    format!("{}-unknown-linux-gnu", ARCHITECTURE.0)
}

/// Where the static release programs are, once they are built.
#[must_use]
pub fn program_folder() -> PathBuf {
    environment::target_folder().join(target()).join("release")
}

/// Builds the static release programs of the product and makes its images.
///
/// # Errors
/// [`Error::Failed`] if cargo fails (its own messages went to the terminal), [`Error::Setting`] for an unknown name.
pub fn build_product(names: &[&str]) -> Result<Vec<Image>, Error> {
    let target = target();
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--quiet", "--release", "--target", &target])
        .current_dir(crate::process::repository())
        // Only for the target: scripts and macros of the build itself cannot be static.
        .env(format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_")), STATIC);
    for name in names {
        match *name {
            "node" => command.args(["-p", "raftqueue-node", "-p", "raftq"]),
            "operator" => command.args(["-p", "raftqueue-operator"]),
            other => {
                return Err(Error::Setting {
                    variable: "image",
                    value: other.to_owned(),
                    expected: "node or operator",
                });
            }
        };
    }
    let status = command.arg("--bins").status().map_err(Error::io("start cargo"))?;
    if !status.success() {
        let command = super::command::words(&command);
        return Err(Error::Failed { command, status, output: "see above".to_owned() });
    }
    let folder = program_folder();
    Ok(names.iter().map(|name| product(name, &folder)).collect())
}

/// Static, so that an image needs nothing but the program.
const STATIC: &str = "-C target-feature=+crt-static";

fn product(name: &str, folder: &Path) -> Image {
    let reference = format!("docker.io/library/raftqueue-{name}:{VERSION}");
    let program = format!("raftqueue-{name}");
    let image = Image::new(&reference, &[&format!("/{program}")]).with_file(&program, &folder.join(&program));
    if name == "node" { image.with_file("raftq", &folder.join("raftq")) } else { image }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_names_what_it_holds_by_its_digest_and_is_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, "not much of a program").unwrap();
        let image = Image::new("localhost/one:1", &["/one"]).with_file("one", &program);
        let archives = ["a.tar", "b.tar"].map(|name| folder.path().join(name));
        for archive in &archives {
            image.write_archive(archive).unwrap();
        }
        let bytes = std::fs::read(&archives[0]).unwrap();
        assert_eq!(bytes, std::fs::read(&archives[1]).unwrap());

        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        let read = |name: &str| serde_json::from_slice::<serde_json::Value>(&files[name]).unwrap();
        let manifest = &read("manifest.json")[0];
        assert_eq!(manifest["RepoTags"][0], "localhost/one:1");
        let config_name = manifest["Config"].as_str().unwrap();
        assert_eq!(config_name, format!("{}.json", hex(&files[config_name])));
        let layer = &files[manifest["Layers"][0].as_str().unwrap()];
        let config = read(config_name);
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex(layer)));
        assert_eq!(config["config"]["User"], "65532:65532");
        let mut layer = tar::Archive::new(layer.as_slice());
        let entry = layer.entries().unwrap().next().unwrap().unwrap();
        assert_eq!((entry.path().unwrap().to_str(), entry.header().mode().unwrap()), (Some("one"), 0o755));
    }
}
