//! Quantities as Kubernetes writes them: `10Gi`, `1.5G`, `500m`, `1e3`.
//!
//! Rules in the schema compare quantities inside the API server; the operator compares them itself where the other one is not
//! part of the object, such as the size of a claim that exists.

/// A quantity in thousandths, rounded up as Kubernetes does; absent where the text is none, or too great to count.
#[must_use]
pub fn thousandths(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty())
        || fraction.contains('.')
        || fraction.len() > FRACTION_DIGITS_MAX
    {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let (times, per) = scale(suffix)?;
    let divisor = divisor.checked_mul(per)?;
    Some(digits.checked_mul(times)?.div_ceil(divisor))
}

/// Digits behind the point that are read.
const FRACTION_DIGITS_MAX: usize = 9;
/// Greatest power of ten written with an `e`.
const EXPONENT_MAX: u32 = 18;

/// What a suffix makes of a number, in thousandths: times the first, divided by the second.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if let Some(power) = BINARY.iter().position(|known| *known == suffix) {
        return Some((1000 << (10 * (power + 1)), 1));
    }
    if let Some(power) = DECIMAL.iter().position(|known| *known == suffix) {
        return Some((1000 * 1000_u128.pow(u32::try_from(power).ok()? + 1), 1));
    }
    match suffix {
        "" => Some((1000, 1)),
        "m" => Some((1, 1)),
        "u" => Some((1, 1000)),
        "n" => Some((1, 1_000_000)),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_u128.pow(Some(exponent.unsigned_abs()).filter(|power| *power <= EXPONENT_MAX)?);
            Some(if exponent < 0 { (1000, power) } else { (1000 * power, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::thousandths;

    #[test]
    fn spellings_of_one_quantity_are_equal() {
        for (one, other) in [
            ("1Gi", "1024Mi"),
            ("1Gi", "1073741824"),
            ("1.5Gi", "1536Mi"),
            ("1k", "1000"),
            ("1e3", "1k"),
            ("0.5", "500m"),
            ("1E", "1e18"),
            ("1000u", "1m"),
            ("1u", "1m"),
            ("2.", "2"),
            (".5", "500m"),
            ("1e-1", "100m"),
        ] {
            assert!(thousandths(one).is_some(), "{one}");
            assert_eq!(thousandths(one), thousandths(other), "{one} {other}");
        }
    }

    #[test]
    fn greater_quantities_compare_greater() {
        let sizes = [
            "0", "1m", "1", "1k", "1Ki", "1M", "1Mi", "1G", "1Gi", "10Gi", "1T", "1Ti", "1P", "1Pi", "1E",
            "1Ei",
        ];
        let counted: Vec<u128> = sizes.iter().map(|size| thousandths(size).unwrap()).collect();
        assert!(counted.is_sorted_by(|one, other| one < other), "{counted:?}");
    }

    #[test]
    fn other_texts_are_no_quantities() {
        for text in [
            "",
            "Gi",
            "1gi",
            "-1",
            "1 Gi",
            "1.2.3",
            ".",
            "1e99",
            "e3",
            "1Gi ",
            "99999999999999999999999999999999Ei",
        ] {
            assert_eq!(thousandths(text), None, "{text}");
        }
    }
}
