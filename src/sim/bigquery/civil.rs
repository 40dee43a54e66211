//! Dates and times as text: what BigQuery takes, in one canonical spelling.
//!
//! Years run from 1 to 9999 and fractions have at most six digits.

/// Microseconds of one day.
const DAY_MICROS: i64 = 86_400_000_000;
/// 0001-01-01 00:00:00 UTC.
const TIMESTAMP_MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-31 23:59:59.999999 UTC.
const TIMESTAMP_MAX: i64 = 253_402_300_799_999_999;

/// `YYYY-MM-DD`.
pub fn date(text: &str) -> Result<String, String> {
    let (year, month, day) = parse_date(text).ok_or_else(|| format!("Invalid date: '{text}'"))?;
    Ok(format!("{year:04}-{month:02}-{day:02}"))
}

/// `HH:MM:SS[.ffffff]`.
pub fn time(text: &str) -> Result<String, String> {
    let micros = parse_time(text).ok_or_else(|| format!("Invalid time string \"{text}\""))?;
    Ok(spell_time(micros))
}

/// `YYYY-MM-DDTHH:MM:SS[.ffffff]`.
pub fn datetime(text: &str) -> Result<String, String> {
    let invalid = || format!("Invalid datetime string \"{text}\"");
    let (day, clock) = text.split_once(['T', 't', ' ']).unwrap_or((text, "0:0:0"));
    let day = date(day).map_err(|_| invalid())?;
    let micros = parse_time(clock).ok_or_else(invalid)?;
    Ok(format!("{day}T{}", spell_time(micros)))
}

/// Microseconds since the epoch.
///
/// `YYYY-MM-DD[( |T)HH:MM:SS[.ffffff]][( )zone]` with a zone of `Z`, `UTC` or `±HH[:MM]`, none
/// meaning UTC; or seconds since the epoch in digits. Named zones are refused: the service does
/// not send them.
pub fn timestamp(text: &str) -> Result<i64, String> {
    let text = text.trim();
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+');
    if !text.is_empty() && text.strip_prefix('-').unwrap_or(text).chars().all(numeric) {
        return seconds_to_micros(text);
    }
    let invalid = || format!("Invalid timestamp: '{text}'");
    let micros = parse_timestamp(text).ok_or_else(invalid)?;
    in_range(micros).ok_or_else(|| format!("Timestamp field value is out of range: {micros}"))
}

/// A number of seconds since the epoch, fraction and exponent allowed, in microseconds.
pub fn seconds_to_micros(text: &str) -> Result<i64, String> {
    let refused = || format!("Timestamp field value is out of range: {text}");
    let exact = text.parse::<i64>().ok().map(|seconds| seconds.checked_mul(1_000_000));
    let micros = match exact {
        Some(micros) => micros,
        None => {
            let seconds: f64 = text.parse().map_err(|_| format!("Invalid timestamp: '{text}'"))?;
            format!("{:.0}", seconds * 1e6).parse().ok()
        }
    };
    micros.and_then(in_range).ok_or_else(refused)
}

/// Days from 1970-01-01 of a canonical or parsable date, for partitions.
pub fn days(text: &str) -> Option<i64> {
    let (year, month, day) = parse_date(text.get(..10)?)?;
    Some(days_from_civil(year, month, day))
}

/// The canonical date of a number of days since 1970-01-01.
pub fn date_of_days(days: i64) -> Result<String, String> {
    let outside = || format!("Invalid date: day {days} of the epoch");
    days.checked_mul(DAY_MICROS).and_then(in_range).ok_or_else(outside)?;
    let (year, month, day) = civil_from_days(days);
    Ok(format!("{year:04}-{month:02}-{day:02}"))
}

/// The canonical time of a number of microseconds since midnight.
pub fn time_of_micros(micros: i64) -> Result<String, String> {
    if !(0..DAY_MICROS).contains(&micros) {
        return Err(format!("Invalid time: microsecond {micros} of the day"));
    }
    Ok(spell_time(micros))
}

/// The canonical datetime of a number of microseconds since 1970-01-01 00:00:00.
pub fn datetime_of_micros(micros: i64) -> Result<String, String> {
    let day = date_of_days(micros.div_euclid(DAY_MICROS))?;
    Ok(format!("{day}T{}", spell_time(micros.rem_euclid(DAY_MICROS))))
}

/// The canonical timestamp of a number of microseconds since the epoch.
pub fn timestamp_of_micros(micros: i64) -> Result<String, String> {
    let outside = || format!("Timestamp field value is out of range: {micros}");
    in_range(micros).map(|micros| micros.to_string()).ok_or_else(outside)
}

/// Microseconds of a canonical time `HH:MM:SS[.ffffff]`.
fn spell_time(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 {
        return format!("{hour:02}:{minute:02}:{second:02}");
    }
    format!("{hour:02}:{minute:02}:{second:02}.{fraction:06}")
}

fn in_range(micros: i64) -> Option<i64> {
    (TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(&micros).then_some(micros)
}

fn parse_timestamp(text: &str) -> Option<i64> {
    let (day, rest) = match text.find(['T', 't', ' ']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, ""),
    };
    let (year, month, day) = parse_date(day)?;
    let zone_at = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.')));
    let (clock, zone) = rest.split_at_checked(zone_at.unwrap_or(rest.len()))?;
    let micros = if clock.is_empty() { 0 } else { parse_time(clock)? };
    Some(days_from_civil(year, month, day) * DAY_MICROS + micros - zone_micros(zone.trim())?)
}

fn zone_micros(zone: &str) -> Option<i64> {
    if zone.is_empty() || zone.eq_ignore_ascii_case("z") || zone.eq_ignore_ascii_case("utc") {
        return Some(0);
    }
    let (sign, offset) = match zone.strip_prefix('-') {
        Some(offset) => (-1, offset),
        None => (1, zone.strip_prefix('+')?),
    };
    let (hours, minutes) = offset.split_once(':').unwrap_or((offset, "0"));
    let (hours, minutes) = (number(hours, 1, 2)?, number(minutes, 1, 2)?);
    (hours <= 14 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000_000)
}

fn parse_date(text: &str) -> Option<(i64, i64, i64)> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (year, month, day) = (number(year, 4, 4)?, number(month, 1, 2)?, number(day, 1, 2)?);
    let fits =
        year >= 1 && (1..=12).contains(&month) && (1..=month_days(year, month)).contains(&day);
    fits.then_some((year, month, day))
}

fn parse_time(text: &str) -> Option<i64> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (text, None),
    };
    let mut parts = clock.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (hour, minute, second) =
        (number(hour, 1, 2)?, number(minute, 1, 2)?, number(second, 1, 2)?);
    let fits = hour < 24 && minute < 60 && second < 60;
    let micros = match fraction {
        Some(digits) => {
            number(digits, 1, 6)?;
            format!("{digits:0<6}").parse().ok()?
        }
        None => 0,
    };
    fits.then_some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

fn number(text: &str, least: usize, most: usize) -> Option<i64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = (least..=most).contains(&text.len()) && digits;
    fits.then(|| text.parse().ok()).flatten()
}

fn month_days(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant's algorithm).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`] (Howard Hinnant's algorithm).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_since_the_epoch_become_the_text_that_parses_back() {
        for day in (-719_162..=2_932_896).step_by(97) {
            assert_eq!(days(&date_of_days(day).unwrap()), Some(day));
        }
        assert_eq!(date_of_days(-719_162).unwrap(), "0001-01-01");
        assert_eq!(date_of_days(2_932_896).unwrap(), "9999-12-31");
        assert!(date_of_days(-719_163).is_err() && date_of_days(2_932_897).is_err());
        assert_eq!(time_of_micros(DAY_MICROS - 1).unwrap(), "23:59:59.999999");
        assert!(time_of_micros(DAY_MICROS).is_err() && time_of_micros(-1).is_err());
        assert_eq!(datetime_of_micros(-1).unwrap(), "1969-12-31T23:59:59.999999");
        assert!(timestamp_of_micros(TIMESTAMP_MAX + 1).is_err());
    }

    #[test]
    fn timestamps_in_microseconds() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01 00:00:00.000001 UTC", 1),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("2024-02-29T12:00:00+02:00", 1_709_200_800_000_000),
            ("2024-02-29", 1_709_164_800_000_000),
            ("0001-01-01T00:00:00Z", TIMESTAMP_MIN),
            ("9999-12-31T23:59:59.999999Z", TIMESTAMP_MAX),
            ("1700000000", 1_700_000_000_000_000),
            ("1.5", 1_500_000),
        ] {
            assert_eq!(timestamp(text), Ok(micros), "{text}");
        }
    }

    #[test]
    fn what_is_no_timestamp() {
        for text in [
            "",
            "now",
            "10000-01-01T00:00:00Z",
            "0000-12-31T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00.1234567Z",
            "2024-01-01T00:00:00+15:00",
            "9999-12-31T23:59:59-01:00",
            "1700000000000",
        ] {
            assert!(timestamp(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dates_and_times_in_one_spelling() {
        assert_eq!(date("2024-2-9").unwrap(), "2024-02-09");
        assert!(date("24-02-09").is_err() && date("2024-13-01").is_err());
        assert_eq!(time("1:2:3.5").unwrap(), "01:02:03.500000");
        assert!(time("23:59:60").is_err() && time("12:30").is_err());
        assert_eq!(datetime("2024-02-09 1:2:3").unwrap(), "2024-02-09T01:02:03");
        assert!(datetime("2024-02-09T01:02:03Z").is_err());
    }
}
