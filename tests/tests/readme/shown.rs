//! What the README shows, compared with what is printed: word by word, but for what differs from run to run.

/// Whether a line is about the nodes: how far each is differs from run to run, and another one may lead.
fn is_of_nodes(line: &str) -> bool {
    ["node-", "127.0.0.1:", "cluster "].iter().any(|start| line.starts_with(start))
}

/// Whether this line is printed as it is shown. A node that has just begun may say more than is shown.
fn is_same(shown: &str, printed: &str) -> bool {
    let (shown_words, printed_words) = (words(shown), words(printed));
    if is_of_nodes(shown) { printed_words.starts_with(&shown_words) } else { printed_words == shown_words }
}

/// The words of a line, with what differs from run to run by its kind.
fn words(line: &str) -> Vec<String> {
    let is_of_nodes = is_of_nodes(line);
    line.split_whitespace().map(|word| kind(word, is_of_nodes)).collect()
}

fn kind(word: &str, is_of_nodes: bool) -> String {
    // Where a folder is, is the machine's own.
    let word = word.find("raftqueue-data/").map_or(word, |at| &word[at..]);
    let bare = word.trim_end_matches(':');
    let is_hex = bare.len() >= 10 && bare.chars().all(|sign| sign.is_ascii_hexdigit());
    let is_time = word.len() == 20 && word.ends_with('Z') && word[10..].starts_with('T');
    match word {
        _ if is_time => "TIME".into(),
        // Leases and the ids of clusters.
        _ if is_hex => "ID".into(),
        "leader" | "follower" | "candidate" | "waiting" if is_of_nodes => "ROLE".into(),
        "yes" | "no" if is_of_nodes => "READY".into(),
        _ if is_of_nodes => {
            word.trim_matches(|sign: char| sign.is_ascii_digit()).chars().map(number).collect()
        }
        _ => word.into(),
    }
}

/// Numbers are told by one sign.
fn number(sign: char) -> char {
    if sign.is_ascii_digit() { '0' } else { sign }
}

/// Checks that these lines are printed, and no others.
///
/// # Panics
/// Where they are not, with both.
pub(crate) fn assert_same(shown: &[String], printed: &[String]) {
    let both = || format!("the README shows:\n{}\n--- printed:\n{}", shown.join("\n"), printed.join("\n"));
    assert!(!shown.is_empty(), "the README shows what a block prints: {printed:#?}");
    assert_eq!(shown.len(), printed.len(), "{}", both());
    for (shown, printed) in shown.iter().zip(printed) {
        assert!(is_same(shown, printed), "`{shown}` and `{printed}`\n{}", both());
    }
}

/// Checks that these lines are among what is printed, in their order.
///
/// # Panics
/// Where they are not, with both.
pub(crate) fn assert_among(shown: &[String], printed: &[String]) {
    assert!(!shown.is_empty(), "the README shows what a block prints: {printed:#?}");
    let mut rest = printed.iter();
    for line in shown {
        let found = rest.any(|printed| is_same(line, printed));
        assert!(found, "the README shows `{line}`, which is not printed, or not there: {printed:#?}");
    }
}

pub(crate) fn only_what_differs_is_left_out() {
    let same = is_same;
    assert!(same(
        "node-0  4711  leader    127.0.0.1:7420  a/node-0",
        "node-0  99  follower  127.0.0.1:7420  a/node-0"
    ));
    assert!(same("0  1  2026-11-30T19:12:03Z  to: ann", "0  1  2027-01-01T00:00:00Z  to: ann"));
    assert!(same("02001d000b  DONE", "0200aa000b01  DONE"));
    assert!(!same("02001d000b  DONE", "02001d000b  STALE"));
    assert!(!same("published to orders: 10000 messages", "published to orders: 9999 messages"));
    assert!(!same("0  1  2026-11-30T19:12:03Z  to: ann", "0  1  2026-11-30T19:12:03Z  to: bob"));
    assert!(!same("node-0  4711  leader  a/node-0", "node-0  4711  dead  a/node-0"));
}
