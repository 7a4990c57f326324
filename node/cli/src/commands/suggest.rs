//! What a mistyped name may have meant.

use crate::failure::Failure;
use raftqueue_client::{Client, v1};
use std::time::Duration;

/// Topics among which the one that was meant is looked for: one page of the listing.
const TOPICS_MAX: u32 = 1_000;
/// How long looking for it may take: nobody waits long for a hint.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The same failure. If there is no such topic, and another has a name much like it, it says so.
pub(super) async fn of_topic(client: &Client, topic: &str, failure: Failure) -> Failure {
    let Failure::NoTopic(text) = failure else { return failure };
    let looking = client.clone().with_timeout(client.timeout().min(LOOK_MAX));
    let listed = looking.list_topics(v1::ListTopicsRequest { after: None, topics_max: TOPICS_MAX }).await;
    let names = listed.map(|page| page.topics).unwrap_or_default();
    let meant = nearest(topic, names.iter().map(|topic| topic.name.as_str()));
    Failure::NoTopic(match meant {
        Some(meant) => format!("{text}; did you mean {meant}?"),
        None => text,
    })
}

/// The name that is most like what was typed, if one is like it at all: a third of it may be mistyped.
fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed: Vec<char> = typed.to_lowercase().chars().collect();
    let mistyped_max = (typed.len() / 3).max(1);
    let is_of_a_length = |name: &&str| name.chars().count().abs_diff(typed.len()) <= mistyped_max;
    let far = names.filter(is_of_a_length).map(|name| {
        let letters: Vec<char> = name.to_lowercase().chars().collect();
        (distance(&typed, &letters), name)
    });
    let is_like = |(far, _): &(usize, &str)| *far <= mistyped_max && 2 * *far < typed.len();
    far.min_by_key(|(far, _)| *far).filter(is_like).map(|(_, name)| name)
}

/// How many letters must be put in, left out, changed, or changed with their neighbour to get from one to the other.
fn distance(one: &[char], other: &[char]) -> usize {
    let first: Vec<usize> = (0..=other.len()).collect();
    let mut rows = (first.clone(), first);
    for (i, letter) in one.iter().enumerate() {
        let (before, last) = &rows;
        let mut row = vec![i + 1];
        for (j, wanted) in other.iter().enumerate() {
            let mut least = (last[j] + usize::from(letter != wanted)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == other[j - 1] && one[i - 1] == *wanted {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        rows = (std::mem::take(&mut rows.1), row);
    }
    rows.1[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_mistypes_a_name_is_asked_whether_he_meant_it() {
        let names = ["orders", "Invoices", "o", "b1", "payments-eu", "payments-us"];
        for (typed, meant) in [
            ("ordres", Some("orders")),
            ("order", Some("orders")),
            ("ORDERS", Some("orders")),
            ("invioces", Some("Invoices")),
            ("payment-us", Some("payments-us")),
            ("p", None),
            ("p1", None),
            ("logs", None),
            ("", None),
            ("xxxxxx", None),
        ] {
            assert_eq!(nearest(typed, names.into_iter()), meant, "{typed}");
        }
        assert_eq!(nearest("orders", std::iter::empty()), None);
    }

    #[test]
    fn neighbours_that_changed_places_are_one_mistake() {
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        for (one, other, far) in
            [("ab", "ba", 1), ("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0)]
        {
            assert_eq!(distance(&letters(one), &letters(other)), far, "{one} {other}");
        }
    }
}
