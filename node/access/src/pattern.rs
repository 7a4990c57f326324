//! Patterns of names: `*` stands for any characters, also for none, and is the only sign of its kind.

use std::fmt;

/// A name, or a pattern of names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// A pattern of this text. Any text is one; how long it may be is up to who reads it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for one name only.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether it stands for every name.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte == b'*')
    }

    /// Whether it stands for this name.
    ///
    /// Each piece between two stars is looked for from where the one before it ended: the first place is as good as any, as the
    /// star behind takes up the rest. So nothing is tried twice, and a pattern takes at most the product of both lengths.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return *self.0 == *name };
        let Some(mut name) = name.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        for piece in middle.split('*') {
            match name.find(piece) {
                Some(at) => name = &name[at + piece.len()..],
                None => return false,
            }
        }
        name.ends_with(last)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same, tried in every way.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match pattern {
            [] => name.is_empty(),
            [b'*', rest @ ..] => (0..=name.len()).any(|taken| naive(rest, &name[taken..])),
            [letter, rest @ ..] => name.first() == Some(letter) && naive(rest, &name[1..]),
        }
    }

    #[test]
    fn a_star_stands_for_any_characters_and_nothing_else_is_special() {
        for (pattern, name, is_match) in [
            ("orders", "orders", true),
            ("orders", "orders.eu", false),
            ("orders", "Orders", false),
            ("orders.*", "orders.", true),
            ("orders.*", "orders", false),
            ("orders.*", "orders.eu.1", true),
            ("*", "", true),
            ("*.shop.example", "a.shop.example", true),
            ("*.shop.example", "shop.example", false),
            ("*.shop.example", "a.shop.example.evil", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*ab*", "xxabyy", true),
            ("a**b", "ab", true),
            ("", "", true),
            ("", "x", false),
            ("order?", "orders", false),
            ("[a-z]", "b", false),
            ("ö*ß", "ö→ß", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), is_match, "{pattern} {name}");
        }
        assert!(Pattern::new("**").is_everything() && !Pattern::new("").is_everything());
    }

    #[test]
    fn a_hostile_pattern_takes_no_long_time() {
        let pattern = Pattern::new(&("a*".repeat(5_000) + "b"));
        assert!(!pattern.matches(&"a".repeat(10_000)), "and it ends");
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_if_every_way_was_tried(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(Pattern::new(&pattern).matches(&name), naive(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
