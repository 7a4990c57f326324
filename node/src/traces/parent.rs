//! The header `traceparent` (W3C Trace Context, level 1, section 3.2): `00-TRACE-SPAN-FLAGS` in hexadecimal digits.

use std::fmt;

/// A span of the caller, of which the call is a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    /// Not 0.
    pub(crate) trace_id: u128,
    /// Not 0.
    pub(crate) span_id: u64,
    /// The caller exports its own span.
    pub(crate) is_sampled: bool,
}

impl Parent {
    /// Reads the header; `None` if it is not one, which is to be taken as none at all (section 3.2.2.3).
    pub(crate) fn read(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_known = match (hex(version, 2)?, parts.next()) {
            (0xff, _) => false,
            (0, more) => more.is_none(),
            // A later version may say more behind this.
            (_, _) => true,
        };
        let (trace_id, span_id) = (hex(trace, 32)?, u64::try_from(hex(span, 16)?).ok()?);
        let is_sampled = hex(flags, 2)? & 1 == 1;
        (is_known && trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, is_sampled })
    }
}

/// So many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(is_digit)).then(|| u128::from_str_radix(text, 16).ok())?
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_standard_gives_as_an_example_is_read_and_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = Parent::read(text.as_bytes()).expect("a header");
        assert_eq!(
            (read.trace_id, read.span_id),
            (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7)
        );
        assert!(read.is_sampled);
        assert_eq!(read.to_string(), text);
    }

    #[test]
    fn what_is_no_such_header_counts_as_none() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for text in [
            String::new(),
            "00".into(),
            format!("00-{trace}-00f067aa0ba902b7"),
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-+{}-00f067aa0ba902b7-01", &trace[1..]),
        ] {
            assert_eq!(Parent::read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Parent::read(b"\xff\xfe"), None);
        let later = format!("01-{trace}-00f067aa0ba902b7-00-more");
        assert!(!Parent::read(later.as_bytes()).expect("a later version").is_sampled);
    }
}
