//! Calendar arithmetic and its text, proleptic Gregorian, years 0001 to 9999.

use crate::transcode::digits;

/// Microseconds in a day.
pub const DAY_MICROS: i64 = 86_400_000_000;
/// 0001-01-01 as days since 1970-01-01.
pub const DAYS_MIN: i64 = -719_162;
/// 9999-12-31 as days since 1970-01-01.
pub const DAYS_MAX: i64 = 2_932_896;
/// The first moment of the first of these days, microseconds since 1970-01-01T00:00:00.
pub const MOMENT_MIN: i64 = DAYS_MIN * DAY_MICROS;
/// The last moment of the last.
pub const MOMENT_MAX: i64 = (DAYS_MAX + 1) * DAY_MICROS - 1;

/// A calendar day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// 1 to 9999.
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
}

/// The day that lies `days` after 1970-01-01, or `None` outside the years 0001 to 9999.
///
/// By C. Neri and L. Schneider, "Euclidean affine functions and their application to calendar
/// algorithms" (2022): divisions become products whose halves are quotient and remainder.
pub fn day(days: i64) -> Option<Day> {
    if !(DAYS_MIN..=DAYS_MAX).contains(&days) {
        return None;
    }
    // Years start in March here, so that the leap day comes last.
    let quarters = 4 * u32::try_from(days + 719_468).ok()? + 3;
    let (century, day_of_century) = (quarters / 146_097, quarters % 146_097 / 4);
    // A year has 1461 quarters of a day, and 2939745 is 2^32 / 1461.
    let years = u64::from(4 * day_of_century + 3) * 2_939_745;
    let day_of_year = (years & u64::from(u32::MAX)) as u32 / 2_939_745 / 4;
    // A month has 2^16 / 2141 days on average.
    let months = 2_141 * day_of_year + 197_913;
    let (march_month, day) = (months >> 16, (months & 0xffff) / 2_141 + 1);
    let is_next_year = day_of_year >= 306;
    let year = 100 * century + (years >> 32) as u32 + u32::from(is_next_year);
    let month = if is_next_year { march_month - 12 } else { march_month };
    Some(Day { year, month, day })
}

/// Days from 1970-01-01 to this day, or `None` if there is no such day.
pub fn days(year: u32, month: u32, day: u32) -> Option<i64> {
    if !(1..=9999).contains(&year) || day == 0 || day > month_days(year, month)? {
        return None;
    }
    let march_year = i64::from(year) - i64::from(month <= 2);
    let era = march_year.div_euclid(400);
    let year_of_era = march_year.rem_euclid(400);
    let march_month = i64::from((month + 9) % 12);
    let day_of_year = (153 * march_month + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn month_days(year: u32, month: u32) -> Option<u32> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(28 + u32::from(leap)),
        _ => None,
    }
}

/// A wall-clock moment: day, hour, minute, second, microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The day.
    pub day: Day,
    /// The time of day.
    pub time: Clock,
}

/// A time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
    /// 0 to 999,999.
    pub micros: u32,
}

/// The moment that lies `micros` after 1970-01-01T00:00:00, or `None` outside 0001 to 9999.
pub fn moment(micros: i64) -> Option<Moment> {
    let days = micros.div_euclid(DAY_MICROS);
    Some(Moment { day: day(days)?, time: clock_unchecked(micros - days * DAY_MICROS) })
}

/// The time of day `micros` after midnight, or `None` outside one day.
pub fn clock(micros: i64) -> Option<Clock> {
    (0..DAY_MICROS).contains(&micros).then(|| clock_unchecked(micros))
}

fn clock_unchecked(micros: i64) -> Clock {
    let micros = micros.unsigned_abs();
    // Both fit: a day has 86,400 seconds.
    let seconds = (micros / 1_000_000) as u32;
    let fraction = (micros % 1_000_000) as u32;
    Clock {
        hour: seconds / 3_600,
        minute: seconds / 60 % 60,
        second: seconds % 60,
        micros: fraction,
    }
}

/// `YYYY-MM-DD`.
pub fn date_text(day: Day) -> [u8; 10] {
    let [text @ .., _, _, _, _, _, _] = date_bytes(day).to_le_bytes();
    text
}

/// `HH:MM:SS.ffffff`.
pub fn clock_text(time: Clock) -> [u8; 15] {
    let [text @ .., _] = clock_bytes(time).to_le_bytes();
    text
}

/// `YYYY-MM-DDTHH:MM:SS.ffffff`.
pub fn moment_text(moment: Moment) -> [u8; 26] {
    let (head, tail) = moment_bytes(moment);
    let mut text = [0; 26];
    if let Some((first, rest)) = text.split_first_chunk_mut::<16>() {
        *first = head.to_le_bytes();
        rest.copy_from_slice(tail.to_le_bytes().get(..10).unwrap_or_default());
    }
    text
}

/// The first 16 and the last 10 bytes of the moment's text, the first byte the lowest.
#[inline(always)]
pub fn moment_bytes(moment: Moment) -> (u128, u128) {
    let clock = clock_bytes(moment.time);
    (date_bytes(moment.day) | u128::from(b'T') << 80 | clock << 88, clock >> 40)
}

/// The date's text, its first byte the lowest.
#[inline(always)]
fn date_bytes(day: Day) -> u128 {
    let digits = u128::from(digits::eight(day.year * 10_000 + day.month * 100 + day.day));
    let (year, month, day) = (digits & 0xffff_ffff, digits >> 32 & 0xffff, digits >> 48);
    year | u128::from(b'-') << 32 | month << 40 | u128::from(b'-') << 56 | day << 64
}

/// The time's text, its first byte the lowest.
#[inline(always)]
fn clock_bytes(time: Clock) -> u128 {
    // Two zeros, then hours, minutes and seconds; two zeros, then microseconds.
    let whole = digits::eight(time.hour * 10_000 + time.minute * 100 + time.second);
    let (hour, minute, second) = (whole >> 16 & 0xffff, whole >> 32 & 0xffff, whole >> 48);
    let whole = hour | u64::from(b':') << 16 | minute << 24 | u64::from(b':') << 40 | second << 48;
    let fraction = u128::from(digits::eight(time.micros) >> 16);
    u128::from(whole) | u128::from(b'.') << 64 | fraction << 72
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_ten_thousand_years_follows_the_one_before() {
        let mut expected = Day { year: 1, month: 1, day: 1 };
        for number in DAYS_MIN..=DAYS_MAX {
            let actual = day(number).unwrap();
            assert_eq!(actual, expected);
            assert_eq!(days(actual.year, actual.month, actual.day), Some(number));
            expected.day += 1;
            if expected.day > month_days(expected.year, expected.month).unwrap() {
                expected = Day { day: 1, month: expected.month + 1, ..expected };
            }
            if expected.month > 12 {
                expected = Day { month: 1, year: expected.year + 1, ..expected };
            }
        }
        assert_eq!(expected.year, 10_000);
        assert_eq!((day(DAYS_MIN - 1), day(DAYS_MAX + 1)), (None, None));
    }

    #[test]
    fn moments_before_1970_count_down() {
        let text =
            |micros| String::from_utf8(moment_text(moment(micros).unwrap()).to_vec()).unwrap();
        assert_eq!(text(-1), "1969-12-31T23:59:59.999999");
        assert_eq!(text(0), "1970-01-01T00:00:00.000000");
        assert_eq!(text(DAYS_MIN * DAY_MICROS), "0001-01-01T00:00:00.000000");
        assert_eq!(text((DAYS_MAX + 1) * DAY_MICROS - 1), "9999-12-31T23:59:59.999999");
        assert_eq!(moment(DAYS_MIN * DAY_MICROS - 1), None);
        assert_eq!(moment((DAYS_MAX + 1) * DAY_MICROS), None);
        assert_eq!(moment(i64::MIN), None);
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for (year, month, day) in [
            (2023, 2, 29),
            (1900, 2, 29),
            (2024, 13, 1),
            (2024, 0, 1),
            (2024, 4, 31),
            (0, 1, 1),
            (2024, 1, 0),
        ] {
            assert_eq!(days(year, month, day), None);
        }
    }
}
