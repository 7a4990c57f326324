//! Rights and tokens for nodes of a test.

use super::programs;
use std::path::PathBuf;
use std::process::Command;

/// Who may do what in tests: `shop` its orders, `watcher` look at all, `root` everything.
pub const RIGHTS: &str = r#"
roles:
- name: shop
  rules:
  - topics: ["orders", "orders.*"]
    may: [publish, receive]
- name: watcher
  rules:
  - topics: ["*"]
    may: [browse]
- name: root
  rules:
  - topics: ["*"]
    may: [publish, receive, browse, manage]
  - may: [administer]
grants:
- {role: shop, to: ["token:shop", "cert:shop.example"]}
- {role: watcher, to: ["token:watcher"]}
- {role: root, to: ["token:root"]}
"#;

/// A folder with rights and tokens; what is shown for each name.
#[derive(Debug)]
pub struct Rights {
    folder: tempfile::TempDir,
}

impl Rights {
    /// Rights with a token for each of these names, in a file of the same name.
    ///
    /// # Panics
    /// They cannot be written.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        let rights = Self { folder: tempfile::tempdir().expect("room") };
        std::fs::write(rights.path("auth.yaml"), RIGHTS).expect("room");
        let mut lines = String::new();
        for name in names {
            let file = rights.path(name).display().to_string();
            let made =
                Command::new(programs().join("raftq")).args(["auth", "token", name, "--out", &file]).output();
            let made = made.expect("it can be started");
            assert!(made.status.success(), "{made:?}");
            lines += &String::from_utf8_lossy(&made.stdout);
        }
        std::fs::write(rights.path("tokens"), lines).expect("room");
        rights
    }

    /// A file among them: `auth.yaml`, `tokens`, or a name with its token.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The token of this name.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn token(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("there").trim().to_owned()
    }

    /// What a node is told of them.
    #[must_use]
    pub fn arguments(&self) -> [String; 4] {
        let path = |file| self.path(file).display().to_string();
        ["--auth-file".into(), path("auth.yaml"), "--auth-tokens-file".into(), path("tokens")]
    }
}
