//! `raftq context`, and what counts when a command looks for its cluster. No cluster is there: where one was looked for, and what
//! would have been shown, is told by the refusal.

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

/// Ports on which nobody listens: those below 1024 are not given to programs of tests.
const ONE: &str = "127.0.0.1:11";
const OTHER: &str = "127.0.0.1:12";
const THIRD: &str = "127.0.0.1:13";

/// Whoever has this home.
struct Home(tempfile::TempDir);

/// What a command left behind.
struct Ran {
    code: i32,
    out: String,
    error: String,
}

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path(".config/raftq/config.yaml")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("room");
        std::fs::write(path, text).expect("room");
    }

    /// Runs a command line in the home, its words separated by spaces, with these variables and no others of ours.
    fn run_with(&self, variables: &[(&str, &str)], line: &str) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_raftq"))
            .current_dir(&self.0)
            .env_clear()
            .env("HOME", self.0.path())
            .envs(variables.iter().copied())
            .args(line.split(' '))
            .output()
            .expect("the program runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Ran {
            code: output.status.code().expect("it was not killed"),
            out: text(output.stdout),
            error: text(output.stderr),
        }
    }

    fn run(&self, line: &str) -> Ran {
        self.run_with(&[], line)
    }

    /// The same, of a command that must be done.
    fn done(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!((ran.code, ran.error.as_str()), (0, ""), "{line}: {}", ran.out);
        ran.out
    }
}

#[test]
fn contexts_are_kept_listed_shown_used_and_removed() {
    let home = Home::new();
    home.write("shop.token", "rq_secret\n");
    assert_eq!(home.done("context list"), "");
    let table = home.run("context list -o table");
    assert!(
        table.error.contains("has no contexts; `raftq context add NAME --endpoints HOST`"),
        "{}",
        table.error
    );

    let said = home.done("context add shop --endpoints queue.example,127.0.0.1:7430 --token-file shop.token");
    assert_eq!(said, "context shop is added; `raftq context use shop` takes it into use\n");
    let said = home.done("context add here --endpoints 127.0.0.1 --use");
    assert_eq!(said, "context here is added, and in use\n");
    let written = std::fs::read_to_string(home.config()).expect("there");
    assert!(!written.contains("secret"), "{written}");
    let token = home.0.path().canonicalize().expect("there").join("shop.token").display().to_string();
    let shop = json!({
        "name": "shop", "in_use": false, "endpoints": ["queue.example:7420", "127.0.0.1:7430"], "ca_file": null,
        "cert_file": null, "key_file": null, "token_file": token
    });
    let listed = home.done("context list -o json");
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&listed[0], &listed[1]["in_use"]), (&shop, &true.into()));
    let plain = home.done("context list");
    assert!(plain.contains("here\tyes\t127.0.0.1:7420\t\t\t\n"), "{plain}");

    // Only its owner reads it, nothing is left beside it, and what was there is never half of it.
    let mode = |path: PathBuf| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(home.config()), mode(home.path(".config/raftq"))), (0o600, 0o700));
    let files = std::fs::read_dir(home.path(".config/raftq")).expect("there").count();
    assert_eq!(files, 1);

    assert_eq!(home.done("context use shop"), "context shop is in use\n");
    let shown: Value = serde_json::from_str(&home.done("context show -o json")).expect("JSON");
    assert_eq!((&shown["name"], &shown["in_use"]), (&"shop".into(), &true.into()));
    let shown = home.done("--context here context show -o table");
    assert!(shown.starts_with("FIELD") && shown.contains("\nendpoints   127.0.0.1:7420\n"), "{shown}");

    let again = home.run("context add shop --endpoints h");
    assert_eq!(
        (again.code, again.error.as_str()),
        (1, "error: there is a context `shop` already; --replace replaces it\n")
    );
    assert_eq!(home.done("context add shop --endpoints h --replace"), "context shop is added, and in use\n");
    assert_eq!(home.done("context remove shop"), "context shop is removed; none is in use any more\n");
    let none = home.run("context show");
    assert_eq!((none.code, none.error.contains("no context is in use")), (1, true), "{}", none.error);
    assert_eq!(home.done("context use here"), "context here is in use\n");
    assert_eq!(home.done("context use --none"), "no context is in use\n");
    assert!(home.path("shop.token").exists(), "what a context names stays");
}

#[test]
fn what_is_no_context_is_refused_in_words_and_nothing_is_written() {
    let home = Home::new();
    home.write("half.crt", "no certificate");
    for (line, code, words) in [
        ("context add a", 2, "Say --endpoints HOST[:PORT]"),
        ("context add a --endpoints h:x", 2, "`x` is no port"),
        ("context add a/b --endpoints h", 2, "`a/b` is no name"),
        ("context add a --endpoints h --token-file nosuch", 2, "nosuch: No such file"),
        ("context add a --endpoints h --cert-file half.crt", 2, "go together"),
        ("context add a --endpoints h --kube b", 2, "--kube is said with each command"),
        ("context use a", 1, "config.yaml has none; `raftq context add a --endpoints HOST` makes it"),
        ("context remove a", 1, "there is no context `a`"),
        ("context use", 2, "<NAME>"),
        ("--context a topic list", 1, "there is no context `a`"),
    ] {
        let ran = home.run(line);
        assert!(ran.code == code && ran.error.contains(words), "{line}: {}: {}", ran.code, ran.error);
        assert!(!home.config().exists(), "{line}");
    }
    // Variables are not kept, and no token.
    let ran = home.run_with(&[("RAFTQ_ENDPOINTS", "h"), ("RAFTQ_TOKEN", "rq_secret")], "context add a");
    assert_eq!(ran.code, 2, "{}", ran.error);
    let ran = home.run_with(&[("RAFTQ_TOKEN", "rq_secret")], "context add a --endpoints h");
    assert_eq!(ran.code, 0, "{}", ran.error);
    assert!(!std::fs::read_to_string(home.config()).expect("there").contains("secret"));
    let ran = home.run("--context b topic list");
    assert!(
        ran.error.contains("there is no context `b` in") && ran.error.ends_with("there are a\n"),
        "{}",
        ran.error
    );
}

#[test]
fn a_file_that_is_not_right_is_told_to_who_needs_it_and_to_nobody_else() {
    let home = Home::new();
    let wrong = "contexts:\n- name: a\n  endpoints: [h:1]\n  token: rq_secret\n";
    home.write(".config/raftq/config.yaml", wrong);
    for line in ["topic list", "context list", "context use a", "--context a topic list"] {
        let ran = home.run(line);
        let words = "config.yaml: line 4: a token is not kept in this file";
        assert!(ran.code == 1 && ran.error.contains(words), "{line}: {}", ran.error);
    }
    assert_eq!(std::fs::read_to_string(home.config()).expect("there"), wrong, "nobody has written it");
    home.done("auth token a");
    home.done("completions bash");
    let elsewhere = home.run(&format!("--endpoints {ONE} topic list"));
    assert!(elsewhere.error.contains(&format!("no cluster at {ONE}")), "{}", elsewhere.error);
}

#[test]
fn options_count_before_variables_and_those_before_contexts() {
    let home = Home::new();
    home.write("q/ca.crt", "");
    home.write(
        "q/config.yaml",
        &format!(
            "current: one\ncontexts:\n- {{name: one, endpoints: [\"{ONE}\"], tokenFile: one.token}}\n- {{name: other, endpoints: \
             [\"{OTHER}\"], tokenFile: other.token}}\n- {{name: open, endpoints: [\"{OTHER}\"]}}\n"
        ),
    );
    let file = home.path("q/config.yaml").display().to_string();
    let at = |place: &str| format!("no cluster at {place}");
    let shows = |token: &str| format!("{token}: No such file");
    let options = format!("--endpoints {THIRD} topic list");
    let of_other = format!("--context other {options}");
    let (told, chosen, token) =
        (("RAFTQ_ENDPOINTS", THIRD), ("RAFTQ_CONTEXT", "open"), ("RAFTQ_TOKEN", "rq_a"));
    for (variables, line, words) in [
        // The context in use, with its files beside the file of contexts.
        (&[][..], "topic list", shows("q/one.token")),
        (&[token], "topic list", at(ONE)),
        (&[("RAFTQ_TOKEN_FILE", "mine")], "topic list", shows("mine")),
        (&[("RAFTQ_TOKEN_FILE", "mine")], "--token-file yours topic list", shows("yours")),
        // Another one.
        (&[], "--context other topic list", shows("q/other.token")),
        (&[chosen], "topic list", at(OTHER)),
        (&[chosen], "--context other topic list", shows("q/other.token")),
        (&[("RAFTQ_CONTEXT", "")], "topic list", shows("q/one.token")),
        // Who says where nodes are gets nothing of the context in use, and what is left open of one that is named.
        (&[], &options, at(THIRD)),
        (&[told], "topic list", at(THIRD)),
        (&[], &of_other, shows("q/other.token")),
        (&[token], &of_other, at(THIRD)),
        (&[told, token], "--context other topic list", "RAFTQ_ENDPOINTS counts before the endpoints".into()),
        (&[told, token], "--context other topic list", at(THIRD)),
    ] {
        let variables = [&[("RAFTQ_CONFIG", file.as_str())], variables].concat();
        let ran = home.run_with(&variables, line);
        // A file that is missing is wrong usage.
        let code = if words.contains("No such file") { 2 } else { 1 };
        assert!(
            ran.code == code && ran.error.contains(&words),
            "{variables:?} {line}: {words}: {}",
            ran.error
        );
    }
    // The folder of settings may be elsewhere.
    home.write(
        "xdg/raftq/config.yaml",
        &format!("current: a\ncontexts: [{{name: a, endpoints: [\"{OTHER}\"]}}]\n"),
    );
    let xdg = home.path("xdg").display().to_string();
    let ran = home.run_with(&[("XDG_CONFIG_HOME", &xdg)], "topic list");
    assert!(ran.error.contains(&at(OTHER)), "{}", ran.error);
    let ran = home.run("topic list");
    assert!(!ran.error.contains(OTHER), "there is none in the home: {}", ran.error);
}
