//! Bytes as text, where text is all that can be carried: JSON, and command lines.
//!
//! Ids, leases and sessions are hexadecimal: no digit of it means anything to a shell, and a double click marks all of
//! it. Bodies that are no UTF-8 are base64, which is shorter.

use std::fmt::Write;

/// Lower-case hexadecimal digits, two for each byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string never fails");
        text
    })
}

/// The bytes that hexadecimal digits of either case stand for; `None` where it is anything else.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<Vec<_>>>()?;
    let pair = |pair: &[u32]| match pair {
        [high, low] => u8::try_from(high << 4 | low).ok(),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

/// Base64 with padding (RFC 4648, section 4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let [a, b, c] = three;
        let sextets = [a >> 2, (a & 3) << 4 | b >> 4, (b & 15) << 2 | c >> 6, c & 63];
        for (position, sextet) in sextets.into_iter().enumerate() {
            let is_padding = position > chunk.len();
            text.push(if is_padding { '=' } else { char::from(ALPHABET[usize::from(sextet)]) });
        }
    }
    text
}

/// The bytes that base64 with padding (RFC 4648, section 4) stands for; `None` where it is anything else, so that equal
/// bytes have one spelling.
#[must_use]
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    let sextet = |digit: u8| match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits = text.as_bytes();
    let padding = digits.iter().rev().take_while(|digit| **digit == b'=').count();
    if !digits.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for chunk in digits[..digits.len() - padding].chunks(4) {
        let sextets = chunk.iter().map(|digit| sextet(*digit)).collect::<Option<Vec<u8>>>()?;
        let number = sextets.iter().fold(0_u32, |number, sextet| number << 6 | u32::from(*sextet));
        let number = number << (6 * (4 - sextets.len()));
        let [_, three @ ..] = number.to_be_bytes();
        let (kept, cut) = three.split_at(sextets.len() - 1);
        if cut.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hexadecimal_comes_back_in_either_case(bytes: Vec<u8>) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(unhex(&hex(&bytes).to_uppercase()), Some(bytes));
        }
    }

    proptest! {
        #[test]
        fn base64_comes_back(bytes: Vec<u8>) {
            prop_assert_eq!(unbase64(&base64(&bytes)), Some(bytes));
        }

        #[test]
        fn base64_has_one_spelling(text in "[A-Da-d+/=\\n]{0,9}") {
            if let Some(bytes) = unbase64(&text) {
                prop_assert_eq!(base64(&bytes), text);
            }
        }
    }

    #[test]
    fn what_is_not_hexadecimal_is_refused() {
        assert_eq!(unhex(""), Some(vec![]));
        for text in ["0", "0g", "+1", " 01", "01 ", "0x01", "0102f", "äö"] {
            assert_eq!(unhex(text), None, "{text:?}");
        }
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        let examples = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (bytes, text) in examples {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }
}
