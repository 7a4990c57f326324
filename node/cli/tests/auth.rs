//! `raftq auth`, which needs no cluster.

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const POLICY: &str = r#"
anonymous: true
kubernetes: {audience: raftqueue}
roles:
- name: shop
  rules:
  - {topics: [orders, "orders.*"], may: [publish, receive]}
  - {topics: [news], may: [browse]}
- name: operations
  rules:
  - {topics: ["*"], may: [browse, manage]}
  - {may: [administer]}
- name: spare
  rules: [{topics: [x], may: [browse]}]
grants:
- {role: shop, to: ["token:shop", "group:payments"]}
- {role: operations, to: ["token:anna", "token:gone*"]}
"#;

/// Files of a test.
struct Files(tempfile::TempDir);

/// What a command left behind.
struct Ran {
    code: i32,
    out: String,
    error: String,
}

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().expect("a folder"));
        files.write("auth.yaml", POLICY);
        files
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path
    }

    /// Runs a command line in the folder, its words separated by spaces.
    fn run(&self, line: &str) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_raftq"))
            .current_dir(&self.0)
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
}

fn lines_of_json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn a_token_is_made_with_the_line_that_knows_it() {
    let files = Files::new();
    let plain = files.run("auth token shop");
    assert_eq!((plain.code, plain.error.as_str()), (0, ""));
    let (token, line) = plain.out.trim_end().split_once('\t').expect("token and line");
    assert!(
        token.starts_with("rq_") && line.starts_with("shop sha256:") && line.len() == 76,
        "{}",
        plain.out
    );
    let json = &lines_of_json(&files.run("auth token shop -o json").out)[0];
    assert_eq!(json["name"], "shop");
    assert_ne!(json["token"], token, "each is another");
    let table = files.run("auth token shop -o table");
    assert!(
        table.out.starts_with("token  rq_") && table.out.contains("\nline   shop sha256:"),
        "{}",
        table.out
    );
    assert!(table.error.contains("it is not shown again"), "{}", table.error);

    let file = files.0.path().join("shop.token");
    let line = files.run("auth token shop --out shop.token");
    assert_eq!((line.code, line.error.as_str()), (0, ""));
    assert!(line.out.starts_with("shop sha256:") && !line.out.contains("rq_"), "{}", line.out);
    assert_eq!(mode(&file), 0o600);
    let token = std::fs::read_to_string(&file).expect("it is there");
    assert!(token.starts_with("rq_") && token.len() == 47 && token.ends_with('\n'));
    let again = files.run("auth token shop --out shop.token");
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    assert_eq!(again.error, "error: shop.token: File exists (os error 17)\n");
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), token, "it is left as it was");

    let wrong = files.run("auth token sh*p");
    assert_eq!(wrong.code, 2);
    assert!(wrong.error.contains("`sh*p` is no name: it must have 1 to 253 letters"), "{}", wrong.error);
}

#[test]
fn a_file_is_shown_as_what_it_says() {
    let files = Files::new();
    let tokens = format!(
        "shop sha256:{}\nshop sha256:{}\nben sha256:{}\n",
        "1".repeat(64),
        "2".repeat(64),
        "3".repeat(64)
    );
    files.write("tokens", &tokens);
    let table = files.run("auth check auth.yaml --tokens tokens -o table");
    assert_eq!(table.code, 0);
    let wanted = "\
ROLE        MAY               TOPICS            GRANTED TO
shop        publish, receive  orders, orders.*  token:shop, group:payments
shop        browse            news              token:shop, group:payments
operations  browse, manage    *                 token:anna, token:gone*
operations  administer                          token:anna, token:gone*
spare       browse            x

CALLER      TOKENS  ROLES
token:ben   1
token:shop  2       shop
";
    assert_eq!(table.out, wanted);
    let warned: Vec<&str> = table.error.lines().collect();
    assert_eq!(
        warned,
        [
            "warning: the role spare is granted to nobody",
            "warning: token:anna has a role, and no token is of that name",
            "warning: token:gone* has a role, and no token is of that name",
            "warning: token:ben has a token and no role, so it may do nothing",
        ]
    );
    let json = lines_of_json(&files.run("auth check auth.yaml --tokens tokens -o json").out);
    assert_eq!(
        json[3],
        json!({"role": "operations", "may": ["administer"], "topics": [], "to": ["token:anna", "token:gone*"]})
    );
    assert_eq!(json[6], json!({"caller": "token:shop", "tokens": 2, "roles": ["shop"]}));
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_line() {
    let files = Files::new();
    files.write("wrong.yaml", &POLICY.replace("may: [administer]", "may: [administrate]"));
    files.write("tokens", "shop\n");
    for (line, code, said) in [
        ("auth check wrong.yaml", 1, "wrong.yaml: line 12: there is no permission `administrate`"),
        ("auth check nosuch.yaml", 1, "nosuch.yaml: No such file"),
        ("auth check auth.yaml --tokens tokens", 1, "tokens: line 1: a line must be NAME sha256:HASH"),
        ("auth can-i publish orders --file wrong.yaml --as token:shop", 1, "wrong.yaml: line 12: "),
        (
            "auth can-i write orders --file auth.yaml --as token:shop",
            2,
            "[possible values: publish, receive, browse, manage, administer]",
        ),
        ("auth can-i publish orders --file auth.yaml --as shop", 2, "`shop` does not say means and name"),
        ("auth can-i administer orders --file auth.yaml --as token:shop", 2, "leave the topic out"),
        ("auth can-i publish orders --as token:shop", 2, "--file <FILE>"),
        ("auth can-i publish orders --file auth.yaml", 2, "--as <CALLER>"),
        ("auth can-i publish orders --endpoints 127.0.0.1:1", 1, "no cluster at 127.0.0.1:1"),
        ("auth", 2, "can-i"),
    ] {
        let ran = files.run(line);
        assert_eq!(ran.code, code, "{line}: {}", ran.error);
        assert!(ran.error.contains(said), "{line}: {}", ran.error);
        assert_eq!(ran.out, "", "{line}");
    }
}

#[test]
fn who_may_is_told_by_which_role_and_who_may_not_which_rule_is_missing() {
    let files = Files::new();
    for (line, code, said) in [
        ("publish orders --as token:shop", 0, "yes, by the role shop\n"),
        (
            "publish orders.eu --as serviceaccount:a/b --group x --group payments",
            0,
            "yes, by the role shop\n",
        ),
        ("browse --as token:shop", 0, "yes on some topics, by the role shop\n"),
        ("browse --as token:anna", 0, "yes on every topic, by the role operations\n"),
        ("administer --as token:anna", 0, "yes, by the role operations\n"),
        ("administer --as node", 0, "yes, by the role node\n"),
        (
            "publish bills --as token:shop",
            1,
            "error: token:shop may not publish to `bills`: none of its roles (shop) allows it; a rule {topics: [bills], may: \
             [publish]} in one of them would\n",
        ),
        (
            "browse --as anonymous",
            1,
            "error: anonymous may not browse any topic: no grant gives it a role; a grant {role: ROLE, to: [anonymous]} of a \
             role with the rule {topics: [TOPIC], may: [browse]} would allow it, or show credentials\n",
        ),
    ] {
        let ran = files.run(&format!("auth can-i --file auth.yaml {line}"));
        assert_eq!((ran.code, format!("{}{}", ran.out, ran.error).as_str()), (code, said), "{line}");
    }
    let no = files.run("auth can-i publish bills --as token:shop --file auth.yaml -o json");
    let json = &lines_of_json(&no.out)[0];
    assert_eq!((no.code, &json["allowed"], &json["caller"]), (1, &false.into(), &"token:shop".into()));
    let yes = files.run("auth can-i publish orders --as token:shop --file auth.yaml -o json");
    assert_eq!(lines_of_json(&yes.out), [json!({"allowed": true, "caller": "token:shop", "role": "shop"})]);

    files.write("auth.yaml", &POLICY.replace("anonymous: true\n", ""));
    let closed = files.run("auth can-i browse news --as anonymous --file auth.yaml");
    assert_eq!(
        closed.error,
        "error: calls without credentials are refused: auth.yaml does not say `anonymous: true`\n"
    );
}
