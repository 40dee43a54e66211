//! NUMERIC and BIGNUMERIC text: digits, limits, one canonical spelling.

/// 2^255 without its last digits' place: BIGNUMERIC's greatest magnitude × 10^38.
const BIG_MAX: &str =
    "57896044618658097711785492504343953926634992332820282019728792003956564819967";

/// The canonical spelling of a decimal number, or BigQuery's words for what is wrong with it.
///
/// NUMERIC holds 29 digits before and 9 after the point, BIGNUMERIC 38 after it and a magnitude
/// below 2^255 × 10^-38. More fractional digits than the type (or its declared scale) holds are
/// refused, unless they are zeros. An exponent is allowed.
pub fn canonical(
    text: &str,
    big: bool,
    precision: Option<u32>,
    scale: Option<u32>,
) -> Result<String, String> {
    let name = if big { "BIGNUMERIC" } else { "NUMERIC" };
    let invalid = || format!("Invalid {name} value.");
    let (negative, integer, fraction) = split(text.trim()).ok_or_else(invalid)?;
    let type_scale = if big { 38 } else { 9 };
    let scale_max = match (precision, scale) {
        (_, Some(scale)) => (scale as usize).min(type_scale),
        (Some(_), None) => 0,
        (None, None) => type_scale,
    };
    if fraction.len() > scale_max {
        return Err(invalid());
    }
    let integer_max = match precision {
        Some(precision) => (precision as usize).saturating_sub(scale_max),
        None if big => 39,
        None => 29,
    };
    if integer.len() > integer_max || (big && exceeds_big(&integer, &fraction)) {
        return Err(format!("{name} value is out of range."));
    }
    Ok(spell(negative, &integer, &fraction))
}

/// The sign, the digits before the point without leading zeros, those after it without trailing
/// zeros. `None` if it is no decimal number, or an absurd exponent.
fn split(text: &str) -> Option<(bool, String, String)> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent: i32 = exponent.parse().ok().filter(|exponent: &i32| exponent.abs() <= 200)?;
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{integer}{fraction}");
    if digits.is_empty() || digits.len() > 1_000 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let point = i32::try_from(integer.len()).ok()? + exponent;
    let (integer, fraction) = shift(&digits, point)?;
    let integer = integer.trim_start_matches('0').to_owned();
    Some((negative, integer, fraction.trim_end_matches('0').to_owned()))
}

/// `digits` with the point behind the first `point` of them.
fn shift(digits: &str, point: i32) -> Option<(String, String)> {
    let Ok(point) = usize::try_from(point) else {
        let zeros = "0".repeat(usize::try_from(-point).ok()?);
        return Some((String::new(), format!("{zeros}{digits}")));
    };
    let padded = format!("{digits}{}", "0".repeat(point.saturating_sub(digits.len())));
    let (integer, fraction) = padded.split_at_checked(point)?;
    Some((integer.to_owned(), fraction.to_owned()))
}

fn exceeds_big(integer: &str, fraction: &str) -> bool {
    let scaled = format!("{integer}{fraction:0<38}");
    let scaled = scaled.trim_start_matches('0');
    scaled.len() > BIG_MAX.len() || (scaled.len() == BIG_MAX.len() && scaled > BIG_MAX)
}

fn spell(negative: bool, integer: &str, fraction: &str) -> String {
    let integer = if integer.is_empty() { "0" } else { integer };
    let zero = integer == "0" && fraction.is_empty();
    let sign = if negative && !zero { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{integer}{point}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_per_number() {
        for (text, expected) in [
            ("1", "1"),
            ("-0.00", "0"),
            ("+007.50", "7.5"),
            (".5", "0.5"),
            ("1e3", "1000"),
            ("12.5E-3", "0.0125"),
            ("-1.0e-2", "-0.01"),
        ] {
            assert_eq!(canonical(text, false, None, None).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn limits_of_the_types_and_of_their_parameters() {
        let nines = "9".repeat(29);
        assert!(canonical(&nines, false, None, None).is_ok());
        assert!(canonical(&format!("{nines}9"), false, None, None).is_err());
        assert!(canonical("0.1234567891", false, None, None).is_err());
        assert!(canonical("0.1234567890", false, None, None).is_ok());
        let (integer, fraction) = BIG_MAX.split_at(39);
        assert!(canonical(&format!("{integer}.{fraction}"), true, None, None).is_ok());
        assert!(
            canonical(&format!("{integer}.{fraction}").replace("967", "968"), true, None, None)
                .is_err()
        );
        assert!(canonical("123.45", false, Some(5), Some(2)).is_ok());
        assert!(canonical("1234.5", false, Some(5), Some(2)).is_err());
        assert!(canonical("1.5", false, Some(5), None).is_err());
        for bad in ["", ".", "1,5", "NaN", "1e999", "0x1", "--1"] {
            assert!(canonical(bad, true, None, None).is_err(), "{bad}");
        }
    }
}
