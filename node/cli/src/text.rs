//! Values as people type and read them.

use std::time::Duration;

/// A duration as typed: whole numbers, each with a unit, as `500ms`, `30s`, `12h`, `1h30m`. A number alone counts seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const RIGHT: &str =
        "must be a whole number of seconds, or have a unit: ms, s, m, h or d, as in 30s or 1h30m";
    let mut rest = text;
    let mut all_ms: u64 = 0;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let unit = &after[..after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len()];
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" if digits == text.len() && digits > 0 => 1_000,
            _ => return Err(RIGHT.into()),
        };
        if digits == 0 {
            return Err(RIGHT.into());
        }
        let number = number.parse::<u64>().map_err(|_| "is too long")?;
        all_ms = number.checked_mul(unit_ms).and_then(|ms| all_ms.checked_add(ms)).ok_or("is too long")?;
        rest = &after[unit.len()..];
    }
    Ok(Duration::from_millis(all_ms))
}

/// The same, for a duration that must not be zero.
pub(crate) fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("must be more than zero, as in 500ms or 30s".into()),
        duration => Ok(duration),
    }
}

/// A duration as typed, in milliseconds.
pub(crate) fn parse_ms(text: &str) -> Result<u64, String> {
    u64::try_from(parse_duration(text)?.as_millis()).map_err(|error| error.to_string())
}

/// What ends a message, as typed: one character of ASCII, or `\n`, `\t`, `\r`, `\0`, `\\` or `\x` with two digits.
pub(crate) fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() => Ok(*byte),
        [b'\\', escape] => match escape {
            b'n' => Ok(b'\n'),
            b't' => Ok(b'\t'),
            b'r' => Ok(b'\r'),
            b'0' => Ok(0),
            b'\\' => Ok(b'\\'),
            _ => Err(r"is no escape: \n, \t, \r, \0, \\ and \xHH are".into()),
        },
        [b'\\', b'x', high, low] => {
            let digit = |digit: &u8| char::from(*digit).to_digit(16);
            let byte = digit(high).zip(digit(low)).and_then(|(high, low)| u8::try_from(16 * high + low).ok());
            byte.ok_or_else(|| r"has no two hexadecimal digits behind \x".into())
        }
        _ => Err(r"must be one byte, as in ',' or '\t' or '\x1e'".into()),
    }
}

/// A header as typed: NAME=VALUE.
pub(crate) fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    if name.is_empty() {
        return Err("has no name".into());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A number of things: `1 message`, `2 messages`.
pub(crate) fn counted(count: u64, thing: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{ending}")
}

/// A number with its thousands apart: `12,345`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size as people read it: `812 B`, `12.3 KiB`, `4.0 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut unit = 0;
    // What would be rounded to 1024.0 is 1.0 of the next unit.
    while value >= 1_023.95 {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// How long something took or is ago, roughly: `12 s`, `3 min`, `5 h`, `2 d`.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A duration as an option takes it: in the largest unit in which it is whole.
pub(crate) fn exact(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = UNITS.into_iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

/// Text that is harmless to a terminal and stays on its line: control characters are written as escapes.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// A moment in milliseconds since the Unix epoch, as `2026-01-31T12:00:00Z`.
pub(crate) fn utc(ms: u64) -> String {
    let (days, seconds) = (ms / 86_400_000, ms / 1_000 % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day counted from 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_as_it_is_read() {
        for (ms, text) in [
            (0, "0ms"),
            (1_500, "1500ms"),
            (90_000, "90s"),
            (3_600_000, "1h"),
            (7 * 86_400_000, "7d"),
            (61_000, "61s"),
        ] {
            assert_eq!(exact(ms), text);
            assert_eq!(parse_ms(text), Ok(ms));
        }
    }

    #[test]
    fn durations_have_units_and_numbers_alone_are_seconds() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_ms("2h"), Ok(7_200_000));
        assert_eq!(parse_ms("0s"), Ok(0));
        assert_eq!(parse_ms("0"), Ok(0));
        assert_eq!(parse_ms("90"), Ok(90_000));
        assert_eq!(parse_ms("1h30m"), Ok(5_400_000));
        for text in [
            "",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "1w",
            "1h30",
            "30 ",
            "1hm",
            "99999999999999999999s",
            "18446744073709551615d",
            "18446744073709551615ms1ms",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_and_sizes_are_read_at_a_glance() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(number), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (210 << 20, "210.0 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (ms, text) in [
            (999, "0 s"),
            (119_999, "119 s"),
            (120_000, "2 min"),
            (86_400_000, "24 h"),
            (u64::MAX, "213503982334 d"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn one_byte_ends_a_message() {
        for (text, byte) in [
            (",", b','),
            (r"\n", b'\n'),
            (r"\0", 0),
            (r"\\", b'\\'),
            ("\\", b'\\'),
            (r"\x1e", 0x1e),
            ("0", b'0'),
        ] {
            assert_eq!(parse_delimiter(text), Ok(byte), "{text}");
        }
        for text in ["", ",,", "ä", r"\q", r"\x1", r"\xzz", r"\x123"] {
            assert!(parse_delimiter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn headers_are_split_at_the_first_sign() {
        assert_eq!(parse_header("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(parse_header("a="), Ok(("a".into(), String::new())));
        assert!(parse_header("a").is_err() && parse_header("=b").is_err());
    }

    #[test]
    fn nothing_that_is_printed_moves_the_cursor() {
        assert_eq!(escaped("a\tb\x1b[2J\nö"), "a\\tb\\u{1b}[2J\\nö");
    }

    #[test]
    fn moments_are_dates_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_700_000_000_999), "2023-11-14T22:13:20Z");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01T00:00:00Z");
    }
}
