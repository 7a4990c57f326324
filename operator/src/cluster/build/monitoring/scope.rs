//! A question to Prometheus about all RaftQueues, as one about one of them.
//!
//! The rules and dashboards of `deploy/monitoring` are about whatever Prometheus watches. What is made for an object must be about that
//! one alone: else ten objects would have ten alerts fire for each thing that happens.

/// Beginnings of the names of series of ours. What is recorded has colons.
const BEGINNINGS: [&str; 3] = ["raftqueue_", "raftqueue:", "process_"];
/// Series of Prometheus that are asked for beside them.
const OTHERS: [&str; 2] = ["up", "ALERTS"];
/// How the series begin that the operator tells of objects: there the name of the object is the label `name`.
const OF_OPERATOR: &str = "raftqueue_status_";

/// The query with a matcher for the namespace and one for the object in each of its selectors.
///
/// Neither needs to be quoted: names in Kubernetes are letters, digits, dots and dashes.
pub(super) fn scoped(query: &str, namespace: &str, name: &str) -> String {
    let mut scoped = String::with_capacity(query.len() * 2);
    let mut rest = query;
    let mut quote = None;
    while let Some(letter) = rest.chars().next() {
        let length = match quote {
            None => word(rest).max(letter.len_utf8()),
            Some(_) => letter.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        scoped.push_str(token);
        rest = behind;
        if matches!(letter, '"' | '\'') {
            quote = match quote {
                None => Some(letter),
                Some(begun) if begun == letter => None,
                other => other,
            };
        } else if quote.is_none() && is_series(token) {
            let label = if token.starts_with(OF_OPERATOR) { "name" } else { "raftqueue" };
            let matchers = format!("namespace=\"{namespace}\", {label}=\"{name}\"");
            match rest.strip_prefix('{') {
                Some(inside) => {
                    let separator = if inside.trim_start().starts_with('}') { "" } else { ", " };
                    scoped.push_str(&format!("{{{matchers}{separator}"));
                    rest = inside;
                }
                None => scoped.push_str(&format!("{{{matchers}}}")),
            }
        }
    }
    scoped
}

/// How long the word is that the text begins with; 0 if it begins with none.
fn word(text: &str) -> usize {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':' | '$');
    text.find(|letter| !is_part(letter)).unwrap_or(text.len())
}

/// Whether a word is the name of a series.
fn is_series(word: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| word.starts_with(beginning)) || OTHERS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_selector_is_about_the_one_object() {
        for (query, expected) in [
            ("up", r#"up{namespace="shop", raftqueue="demo"}"#),
            ("raftqueue_ready{}", r#"raftqueue_ready{namespace="shop", raftqueue="demo"}"#),
            (
                r#"sum by (job, raftqueue) (rate(raftqueue_ready{state="up{"}[5m])) / raftqueue:voters:count > 0.5"#,
                r#"sum by (job, raftqueue) (rate(raftqueue_ready{namespace="shop", raftqueue="demo", state="up{"}[5m])) / raftqueue:voters:count{namespace="shop", raftqueue="demo"} > 0.5"#,
            ),
            (
                r#"raftqueue_status_condition{type="Ready"} == 0"#,
                r#"raftqueue_status_condition{namespace="shop", name="demo", type="Ready"} == 0"#,
            ),
            (
                "label_values(raftqueue_info, job)",
                r#"label_values(raftqueue_info{namespace="shop", raftqueue="demo"}, job)"#,
            ),
            ("time() - vector(1)", "time() - vector(1)"),
            ("sum(updated) + group_left (process) x", "sum(updated) + group_left (process) x"),
            ("'ü' == \"", "'ü' == \""),
        ] {
            assert_eq!(scoped(query, "shop", "demo"), expected, "{query}");
        }
    }
}
