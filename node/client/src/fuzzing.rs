//! What is asked of the file of contexts when it is fuzzed, by a target of `tests/fuzz`.

use crate::Contexts;
use std::path::Path;

/// A file of contexts: what is read is the same when it is written and read again, and what is refused is refused in words.
///
/// # Panics
/// Where that is not so.
pub fn contexts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Contexts::parse(text) {
        Ok(contexts) => {
            let written = contexts.to_yaml().expect("YAML can be written");
            assert_eq!(Contexts::parse(&written).as_ref(), Ok(&contexts), "{written}");
            for context in contexts.iter() {
                let credentials = context.credentials(Path::new("/etc/raftq/config.yaml"));
                assert_eq!(credentials.ca_file.is_some(), context.ca_file.is_some());
            }
            assert!(contexts.current().is_none_or(|current| contexts.get(&current.name) == Some(current)));
        }
        Err(error) => {
            let error = error.to_string();
            assert!(!error.is_empty() && !error.contains(char::is_control), "{error:?}");
        }
    }
}

/// What fuzzing begins with: target, name, bytes.
#[must_use]
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let whole = "\
# written by hand
current: demo
contexts:
- name: demo
  endpoints: [queue.example:7420, \"https://[::1]:7430\"]
  caFile: ca.crt
  certFile: /etc/queue/anna.crt
  keyFile: keys/anna.key
  tokenFile: ../demo.token
- {name: here, endpoints: [\"127.0.0.1:7420\"]}
";
    vec![
        ("contexts", "whole", whole.into()),
        ("contexts", "token", "contexts: [{name: a, endpoints: [h], token: rq_}]\n".into()),
        ("contexts", "empty", "# nothing yet\n".into()),
    ]
}
