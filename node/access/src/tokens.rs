//! Static tokens: a file that knows only their hashes.
//!
//! ```text
//! # NAME sha256:HASH [# comment]
//! shop sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 # until June
//! shop sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752 # from May on
//! ```
//!
//! Two lines with one name are one caller with two tokens, so that a token can be changed without a moment in which none counts.

use crate::words::shown;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Size of the file, in bytes: as much as a Secret holds.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;
/// Tokens of the file.
const TOKENS_MAX: usize = 8_192;
/// Length of a name, in bytes.
const NAME_BYTES_MAX: usize = 253;
/// Length of a token, in bytes, beyond which it is not looked at. Ours have 46.
const TOKEN_BYTES_MAX: usize = 1_024;
/// What our tokens begin with, so that whoever finds one knows what it is, and scanners of repositories do, too.
const PREFIX: &str = "rq_";

/// SHA-256 of a token.
pub(crate) type Hash = [u8; 32];

/// The tokens of a file, by their hashes.
#[derive(Debug, Default)]
pub struct Tokens {
    names: HashMap<Hash, Arc<str>>,
}

/// A token that was just made. Nothing but its `line` is to be kept.
pub struct Minted {
    /// What the caller shows: `rq_` and 43 characters with 256 random bits. Printed once, never stored here.
    pub token: String,
    /// The line for the file.
    pub line: String,
}

/// Why a file is no file of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokensError {
    line: Option<usize>,
    text: String,
}

/// Why a presented token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is none that is known.
    #[error(
        "the token is none that is known here: it was mistyped, cut off, or taken out of the tokens file"
    )]
    Unknown,
    /// There is no file of tokens.
    #[error("no static tokens count here, as there is no tokens file, and the token is no JWT")]
    NoFile,
    /// It cannot be one.
    #[error("the token has {0} bytes, and may have {TOKEN_BYTES_MAX}")]
    TooLong(usize),
}

impl Tokens {
    /// Reads a file of tokens.
    ///
    /// # Errors
    /// The line that does not fit, and what would be right; who wrote the file must mend it. No hash is repeated in the text.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        if text.len() > FILE_BYTES_MAX {
            let size = text.len();
            return Err(TokensError {
                line: None,
                text: format!("the file has {size} bytes, and may have {FILE_BYTES_MAX}"),
            });
        }
        let mut names: HashMap<Hash, Arc<str>> = HashMap::new();
        for (position, line) in text.lines().enumerate() {
            let wrong = |text: String| TokensError { line: Some(position + 1), text };
            let content = line.split_once('#').map_or(line, |(content, _)| content).trim();
            if content.is_empty() {
                continue;
            }
            let (name, hash) = entry(content).map_err(wrong)?;
            if let Some(other) = names.get(&hash) {
                return Err(wrong(format!("this token stands here twice, before as that of `{other}`")));
            }
            if names.len() == TOKENS_MAX {
                return Err(wrong(format!("there may be {TOKENS_MAX} tokens, and this is one more")));
            }
            names.insert(hash, name.into());
        }
        Ok(Self { names })
    }

    /// The name of whoever shows this token, if it is known.
    ///
    /// Only hashes are compared, and the table is keyed by a secret of this process. How long the look-up takes may tell
    /// something of SHA-256 of what was shown, which whoever shows it knows, and at the very most something of a stored hash. From
    /// a hash nobody gets to a token with 256 random bits. So nothing is gained by comparing in constant time, and nothing is lost
    /// by the table.
    ///
    /// # Errors
    /// [`TokenError`] if it is none; the caller must show another.
    pub fn verify(&self, presented: &str) -> Result<&Arc<str>, TokenError> {
        if presented.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong(presented.len()));
        }
        self.names.get(&hash_of(presented)).ok_or(TokenError::Unknown)
    }

    /// Each name with how many tokens it has, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<(&str, usize)> {
        let mut counts = std::collections::BTreeMap::new();
        for name in self.names.values() {
            *counts.entry(&**name).or_insert(0) += 1;
        }
        counts.into_iter().collect()
    }

    /// Makes a token.
    ///
    /// # Errors
    /// If the name is none, with what would be right, or if the system gives no random bytes.
    pub fn mint(name: &str) -> Result<Minted, String> {
        check_name(name)?;
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| format!("the system gives no random bytes: {error}"))?;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let line = Self::line(name, &token)?;
        Ok(Minted { token, line })
    }

    /// The line for the file of a token that was made elsewhere.
    ///
    /// # Errors
    /// If the name is none, with what would be right.
    pub fn line(name: &str, token: &str) -> Result<String, String> {
        check_name(name)?;
        let mut line = format!("{name} sha256:");
        for byte in hash_of(token) {
            // Writing to a text does not fail.
            let _ = write!(line, "{byte:02x}");
        }
        Ok(line)
    }
}

fn entry(content: &str) -> Result<(&str, Hash), String> {
    let mut words = content.split_whitespace();
    let (Some(name), Some(hash), None) = (words.next(), words.next(), words.next()) else {
        return Err("a line must be NAME sha256:HASH, and may end with # and a comment".into());
    };
    check_name(name)?;
    let right = "64 hexadecimal digits behind `sha256:`, as `raftq auth token NAME` prints them";
    let Some(digits) = hash.strip_prefix("sha256:") else {
        let hint = if hash.starts_with(PREFIX) {
            "; this is a token itself, which must not be kept here: take it back and make another"
        } else {
            ""
        };
        return Err(format!("the hash of `{name}` must be {right}{hint}"));
    };
    match unhex(digits) {
        Some(hash) => Ok((name, hash)),
        None => Err(format!("the hash of `{name}` must be {right}")),
    }
}

fn unhex(digits: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = 16 * digit(pair[0])? + digit(pair[1])?;
    }
    Some(hash)
}

fn check_name(name: &str) -> Result<(), String> {
    let is_right = |c: char| c.is_ascii_alphanumeric() || "._-/@".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_right) {
        return Err(format!(
            "`{}` is no name: it must have 1 to {NAME_BYTES_MAX} letters, digits or signs of ._-/@",
            shown(name)
        ));
    }
    Ok(())
}

/// SHA-256 of a text.
pub(crate) fn hash_of(text: &str) -> Hash {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The token is not shown.
impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").field("line", &self.line).finish_non_exhaustive()
    }
}

impl TokensError {
    /// The line of the file, counted from 1, if it is about one.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for TokensError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl std::error::Error for TokensError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `test`.
    const TEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn tokens_are_known_by_their_hashes_and_a_name_may_have_two() {
        let text = format!("# tokens\n\nshop sha256:{TEST} # until June\nshop sha256:{}\r\n", "A".repeat(64));
        let tokens = Tokens::parse(&text).expect("it is right");
        assert_eq!(tokens.verify("test").map(|name| &**name), Ok("shop"));
        assert_eq!(tokens.names(), [("shop", 2)]);
        for other in ["", "tes", "test ", "Test", TEST, &format!("sha256:{TEST}")] {
            assert_eq!(tokens.verify(other), Err(TokenError::Unknown), "{other}");
        }
        assert_eq!(tokens.verify(&"x".repeat(1_025)), Err(TokenError::TooLong(1_025)));
    }

    #[test]
    fn a_minted_token_is_known_by_its_line_and_by_no_other() {
        let (one, two) =
            (Tokens::mint("shop").expect("it is a name"), Tokens::mint("shop").expect("it is a name"));
        assert_ne!(one.token, two.token);
        assert!(one.token.starts_with("rq_") && one.token.len() == 46, "{}", one.token.len());
        assert!(!one.line.contains(&one.token) && !format!("{one:?}").contains(&one.token));
        let tokens = Tokens::parse(&one.line).expect("its line is right");
        assert_eq!(tokens.verify(&one.token).map(|name| &**name), Ok("shop"));
        assert!(tokens.verify(&two.token).is_err());
        assert!(Tokens::mint("a b").expect_err("it is none").contains("`a b` is no name"));
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named_by_its_line() {
        let many: String =
            (0..=TOKENS_MAX).fold(String::new(), |text, n| format!("{text}a sha256:{n:064x}\n"));
        for (text, said) in [
            ("shop".to_owned(), "line 1: a line must be NAME sha256:HASH"),
            (
                format!("\nshop {TEST}"),
                "line 2: the hash of `shop` must be 64 hexadecimal digits behind `sha256:`",
            ),
            ("shop sha256:12".to_owned(), "line 1: the hash of `shop` must be 64 hexadecimal digits"),
            (format!("shop sha256:{}", "é".repeat(32)), "line 1: the hash of `shop` must be 64"),
            (format!("shop sha256:+{}", &TEST[1..]), "line 1: the hash of `shop` must be 64"),
            (format!("sh*p sha256:{TEST}"), "line 1: `sh*p` is no name: it must have 1 to 253 letters"),
            (
                format!("a sha256:{TEST}\nb sha256:{TEST}"),
                "line 2: this token stands here twice, before as that of `a`",
            ),
            ("shop rq_abc".to_owned(), "this is a token itself, which must not be kept here"),
            (format!("shop sha256:{TEST} until June"), "line 1: a line must be NAME sha256:HASH"),
            ("#".repeat(FILE_BYTES_MAX + 1), "the file has 1048577 bytes, and may have 1048576"),
            (many, "line 8193: there may be 8192 tokens"),
        ] {
            let error = Tokens::parse(&text).expect_err(said).to_string();
            assert!(error.starts_with(said) || error.contains(said), "{error}");
        }
    }
}
