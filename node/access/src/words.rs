//! Words for people: what was meant, and text from outside made harmless.

/// Longest text from outside that a message repeats, in characters; what is longer is cut and marked.
const SHOWN_CHARS_MAX: usize = 255;

/// Text from outside as a message or a line of a log may repeat it: on one line, harmless to a terminal, and not too long.
pub(crate) fn shown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len().min(SHOWN_CHARS_MAX));
    for (position, c) in text.chars().enumerate() {
        if position == SHOWN_CHARS_MAX {
            safe.push('…');
            break;
        }
        if c.is_control() { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// `; did you mean X?` if one of the names is much like what was typed, else nothing.
pub(crate) fn did_you_mean<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    // Nobody mistypes a long text into one of our words; comparing takes the product of both lengths.
    if typed.chars().count() > 64 {
        return String::new();
    }
    let lower = typed.to_lowercase();
    let far = names.into_iter().map(|name| (strsim::osa_distance(&lower, &name.to_lowercase()), name));
    match far.min_by_key(|(far, _)| *far) {
        Some((far, name)) if far <= (typed.chars().count() / 3).max(1) && 2 * far < typed.chars().count() => {
            format!("; did you mean `{name}`?")
        }
        _ => String::new(),
    }
}

/// `a`, `b` and `c`, each in backquotes.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}

/// How long something is ago or ahead, roughly: `1 second`, `12 seconds`, `3 minutes`, `5 hours`, `2 days`.
pub(crate) fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_stays_on_its_line_and_is_not_too_long() {
        assert_eq!(shown("a\nb\x1b[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(shown(&"é".repeat(255)), "é".repeat(255));
        assert_eq!(shown(&"é".repeat(256)), "é".repeat(255) + "…");
    }

    #[test]
    fn who_mistypes_a_word_is_asked_whether_he_meant_it() {
        let words = ["publish", "receive", "browse"];
        for (typed, said) in [
            ("pubilsh", "; did you mean `publish`?"),
            ("Recieve", "; did you mean `receive`?"),
            ("browser", "; did you mean `browse`?"),
            ("write", ""),
            ("", ""),
            ("p", ""),
        ] {
            assert_eq!(did_you_mean(typed, words), said, "{typed}");
        }
        assert_eq!(did_you_mean(&"publish".repeat(1_000_000), words), "", "long text is not compared at all");
        assert_eq!(did_you_mean("publish", []), "");
    }

    #[test]
    fn lists_and_spans_are_read_as_sentences() {
        assert_eq!([listed([]), listed(["a"]), listed(["a", "b", "c"])], ["", "`a`", "`a`, `b` and `c`"]);
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (180, "3 minutes"),
            (7_200, "2 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
