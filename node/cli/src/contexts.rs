//! Which context is in force, and the file that contexts stand in.

use crate::failure::Failure;
use raftqueue_client::{Context, Contexts, Credentials};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The file of contexts, in a folder of its own below that of all settings of a user.
const FILE: &str = "raftq/config.yaml";

/// What a command goes by to find a cluster.
pub(crate) struct Way {
    /// Where nodes are; empty where nobody says it.
    pub(crate) endpoints: Vec<String>,
    pub(crate) credentials: Credentials,
}

/// Takes from a context what options and variables leave open.
///
/// `named` is what --context or its variable says. The context in use counts only where nobody says where nodes are: what it shows is
/// meant for its own cluster, and no other one gets it by mistake.
///
/// # Errors
/// There is no such context, or the file is not right.
pub(crate) fn complete(given: Way, is_elsewhere: bool, named: Option<&str>) -> Result<Way, Failure> {
    let is_told = is_elsewhere || !given.endpoints.is_empty();
    let file = match (named, is_told) {
        (None, true) => return Ok(given),
        (None, false) => match ContextFile::find() {
            Ok(file) => file,
            // Nobody has asked for contexts.
            Err(_) => return Ok(given),
        },
        (Some(_), _) => ContextFile::find()?,
    };
    let contexts = file.read()?;
    let context = match named {
        Some(name) => Some(file.get(&contexts, name)?),
        None => contexts.current(),
    };
    let Some(context) = context else { return Ok(given) };
    let endpoints = match is_told {
        true => given.endpoints,
        false => file.endpoints(context)?,
    };
    let (own, of_context) = (given.credentials, context.credentials(&file.path));
    // A certificate and its key are one thing.
    let (cert_file, key_file) = match (&own.cert_file, &own.key_file) {
        (None, None) => (of_context.cert_file, of_context.key_file),
        _ => (own.cert_file, own.key_file),
    };
    let credentials = Credentials {
        ca_file: own.ca_file.or(of_context.ca_file),
        cert_file,
        key_file,
        token: own.token.or(of_context.token),
    };
    Ok(Way { endpoints, credentials })
}

/// The file of contexts, which may not exist yet.
pub(crate) struct ContextFile {
    path: PathBuf,
}

impl ContextFile {
    /// Where RAFTQ_CONFIG says, or in the folder of settings of whoever runs this.
    ///
    /// # Errors
    /// Nothing says where that is.
    pub(crate) fn find() -> Result<Self, Failure> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let of_xdg = || variable("XDG_CONFIG_HOME").filter(|folder| folder.is_absolute());
        let of_home = || variable("HOME").map(|home| home.join(".config"));
        let path =
            variable("RAFTQ_CONFIG").or_else(|| of_xdg().or_else(of_home).map(|folder| folder.join(FILE)));
        let path = path.ok_or_else(|| {
            Failure::Failed("nothing says where contexts are: set RAFTQ_CONFIG to a file, or HOME".into())
        })?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn read(&self) -> Result<Contexts, Failure> {
        Contexts::read(&self.path).map_err(|error| Failure::Failed(error.to_string()))
    }

    /// The context of this name.
    ///
    /// # Errors
    /// There is none; the text says which there are.
    pub(crate) fn get<'a>(&self, contexts: &'a Contexts, name: &str) -> Result<&'a Context, Failure> {
        contexts.get(name).ok_or_else(|| self.missing(contexts, name))
    }

    /// That there is no context of this name.
    pub(crate) fn missing(&self, contexts: &Contexts, name: &str) -> Failure {
        let names: Vec<&str> = contexts.iter().map(|context| context.name.as_str()).collect();
        let file = self.path.display();
        Failure::Failed(match names.is_empty() {
            true => format!(
                "there is no context `{name}`: {file} has none; `raftq context add {name} --endpoints HOST` makes it"
            ),
            false => format!("there is no context `{name}` in {file}; there are {}", names.join(", ")),
        })
    }

    /// The endpoints of a context, with their ports.
    ///
    /// # Errors
    /// One of them is none.
    pub(crate) fn endpoints(&self, context: &Context) -> Result<Vec<String>, Failure> {
        let read = crate::endpoints::read(&context.endpoints);
        read.map_err(|failure| {
            failure.within(format!("context {}", context.name)).within(self.path.display())
        })
    }

    /// Reads the file, changes what it says, and writes it anew: at once, and so that only its owner can read it. Two that do so at the
    /// same time do it one after the other.
    ///
    /// # Errors
    /// Those of `change`, or the file cannot be read or written: it is as it was.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Contexts) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        // A link to a file elsewhere stays one.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let within = |error: std::io::Error| Failure::from(error).within(folder.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(within)?;
        let locked = File::open(folder).map_err(within)?;
        locked.lock().map_err(within)?;
        let mut contexts = self.read()?;
        let done = change(&mut contexts)?;
        let text = contexts.to_yaml().map_err(|error| Failure::Failed(error.to_string()))?;
        // Its mode is 0600.
        let mut aside = tempfile::NamedTempFile::new_in(folder).map_err(within)?;
        aside.write_all(text.as_bytes()).map_err(within)?;
        aside.as_file().sync_all().map_err(within)?;
        aside.persist(&path).map_err(|error| Failure::from(error.error).within(path.display()))?;
        locked.sync_all().map_err(within)?;
        Ok(done)
    }
}
