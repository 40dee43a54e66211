//! Dates and times from text: ISO 8601 as Java and Debezium write it, and BigQuery's literals.
//!
//! Fractions finer than a microsecond are cut.

use super::civil::{self, DAY_MICROS};
use crate::transcode::{digits, raw_text::split_chunk, scan};

/// Days since 1970-01-01 of `YYYY-[M]M-[D]D`, with a trailing `Z` as Debezium's `IsoDate` has it.
pub fn date(text: &[u8]) -> Option<i64> {
    let mut scan = Scan(text);
    let days = scan.date()?;
    scan.skip(b'Z');
    scan.end(days)
}

/// Microseconds since midnight of `[H]H:[M]M[:[S]S[.F]]`, in UTC where an offset follows.
pub fn time(text: &[u8]) -> Option<i64> {
    let mut scan = Scan(text);
    let micros = scan.clock()?;
    let offset = scan.offset()?;
    scan.end((micros - offset).rem_euclid(DAY_MICROS))
}

/// Wall-clock microseconds since 1970-01-01T00:00:00 of a date, `T` or a space, and a time. A
/// trailing `Z` is read as no zone, as Debezium's `IsoTimestamp` means it.
pub fn datetime(text: &[u8]) -> Option<i64> {
    let mut scan = Scan(text);
    let micros = scan.moment()?;
    scan.skip(b'Z');
    scan.end(micros).filter(|micros| civil::moment(*micros).is_some())
}

/// Microseconds since the epoch of a date, `T` or a space, a time, and an offset; UTC without one.
pub fn timestamp(text: &[u8]) -> Option<i64> {
    let mut scan = Scan(text);
    let micros = scan.moment()?;
    let offset = scan.offset()?;
    scan.end(micros - offset).filter(|micros| civil::moment(*micros).is_some())
}

struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn end<T>(&self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }

    fn skip(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if first.eq_ignore_ascii_case(&byte) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// A number of `min` to `max` digits, at most nine.
    #[inline]
    fn number(&mut self, min: u32, max: u32) -> Option<u32> {
        let (chunk, _) = split_chunk(self.0);
        let count = scan::digits(self.0).trailing_ones().min(max);
        if count < min {
            return None;
        }
        self.0 = self.0.get(count as usize..)?;
        u32::try_from(digits::value(chunk, count)).ok()
    }

    fn date(&mut self) -> Option<i64> {
        let year = self.number(4, 4)?;
        let month = self.skip(b'-').then(|| self.number(1, 2))??;
        let day = self.skip(b'-').then(|| self.number(1, 2))??;
        civil::days(year, month, day)
    }

    fn clock(&mut self) -> Option<i64> {
        let hour = self.number(1, 2)?;
        let minute = self.skip(b':').then(|| self.number(1, 2))??;
        let mut second = 0;
        let mut micros = 0;
        if self.skip(b':') {
            second = self.number(1, 2)?;
            if self.skip(b'.') {
                micros = self.fraction()?;
            }
        }
        Some(seconds(hour, minute, second)? * 1_000_000 + i64::from(micros))
    }

    /// One to nine digits after a point, as microseconds.
    fn fraction(&mut self) -> Option<u32> {
        let before = self.0.len();
        let value = self.number(1, 9)?;
        let digits = u32::try_from(before - self.0.len()).ok()?;
        Some(match digits {
            ..=6 => value * 10_u32.pow(6 - digits),
            _ => value / 10_u32.pow(digits - 6),
        })
    }

    fn moment(&mut self) -> Option<i64> {
        if let Some(micros) = self.usual_moment() {
            return Some(micros);
        }
        let days = self.date()?;
        if !self.skip(b'T') && !self.skip(b' ') {
            // A date alone is its midnight.
            return Some(days * DAY_MICROS);
        }
        Some(days * DAY_MICROS + self.clock()?)
    }

    /// The same where each part has all its digits: `YYYY-MM-DDTHH:MM:SS[.F]`. Otherwise nothing is consumed.
    #[inline]
    fn usual_moment(&mut self) -> Option<i64> {
        let (head, after) = self.0.split_first_chunk()?;
        let ([b':', tens, ones], mut rest) = after.split_first_chunk()? else { return None };
        let digits =
            u128::from_le_bytes(scan::above(head, b"0000-00-00T00:00", b"9999-99-99T99:99")?);
        // No byte is above nine, so that none of these is carried over.
        let pairs = digits * 10 + (digits >> 8);
        let pair = |at: u32| (pairs >> (8 * at)) as u8;
        let (year, month, day) = (u32::from(pair(0)) * 100 + u32::from(pair(2)), pair(5), pair(8));
        let days = civil::days(year, month.into(), day.into())?;
        let (hour, minute, second) = (pair(11).into(), pair(14).into(), self::pair(*tens, *ones)?);
        let mut micros = 0;
        if let Some((b'.', after)) = rest.split_first() {
            let mut fraction = Self(after);
            micros = fraction.fraction()?;
            rest = fraction.0;
        }
        let seconds = seconds(hour, minute, second)?;
        self.0 = rest;
        Some(days * DAY_MICROS + seconds * 1_000_000 + i64::from(micros))
    }

    /// Microseconds east of UTC; zero where nothing follows.
    fn offset(&mut self) -> Option<i64> {
        self.skip(b' ');
        if self.0.is_empty() || self.skip(b'Z') {
            return Some(0);
        }
        if self.0.eq_ignore_ascii_case(b"UTC") {
            self.0 = &[];
            return Some(0);
        }
        let sign = if self.skip(b'+') {
            1
        } else if self.skip(b'-') {
            -1
        } else {
            return None;
        };
        let hours = self.number(1, 2)?;
        let minutes = if self.skip(b':') || !self.0.is_empty() { self.number(2, 2)? } else { 0 };
        let seconds = if self.skip(b':') { self.number(2, 2)? } else { 0 };
        if hours > 18 || minutes > 59 || seconds > 59 {
            return None;
        }
        Some(sign * i64::from(hours * 3_600 + minutes * 60 + seconds) * 1_000_000)
    }
}

/// Seconds since midnight.
fn seconds(hour: u32, minute: u32, second: u32) -> Option<i64> {
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(i64::from(hour * 3_600 + minute * 60 + second))
}

/// The number of two digits.
#[inline(always)]
fn pair(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| u32::from(tens) * 10 + u32::from(ones))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Option<i64> {
        super::date(text.as_bytes())
    }

    fn time(text: &str) -> Option<i64> {
        super::time(text.as_bytes())
    }

    fn datetime(text: &str) -> Option<i64> {
        super::datetime(text.as_bytes())
    }

    fn timestamp(text: &str) -> Option<i64> {
        super::timestamp(text.as_bytes())
    }

    #[test]
    fn iso_texts_are_read() {
        assert_eq!(date("1970-01-02"), Some(1));
        assert_eq!(date("1970-01-02Z"), Some(1));
        assert_eq!(time("00:00:00.000001999"), Some(1));
        assert_eq!(time("10:15"), Some(36_900_000_000));
        assert_eq!(time("01:00:00+02:00"), Some(DAY_MICROS - 3_600_000_000));
        assert_eq!(datetime("1970-01-01T00:00:01.5"), Some(1_500_000));
        assert_eq!(timestamp("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(timestamp("1970-01-01 02:00:00.25+02:00"), Some(250_000));
        assert_eq!(timestamp("1969-12-31T23:00:00-01"), Some(0));
        assert_eq!(timestamp("1969-12-31T23:30:00-0030"), Some(0));
        assert_eq!(timestamp("1970-01-01 00:00:00 UTC"), Some(0));
        assert_eq!(timestamp("1970-01-01"), Some(0));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "1970", "1970-13-01", "2023-02-29", "70-01-01", "1970-01-01x", "+01970-01-01"]
        {
            assert_eq!((date(text), datetime(text), timestamp(text)), (None, None, None), "{text}");
        }
        for text in ["24:00:00", "1:2:3:4", "12:60", "00:00:00.", "00:00:00.1234567890", "é:00"] {
            assert_eq!(time(text), None, "{text}");
        }
        assert_eq!(timestamp("0001-01-01T00:00:00+01:00"), None);
        assert_eq!(timestamp("9999-12-31T23:59:59-01:00"), None);
        assert_eq!(timestamp("2024-01-01T00:00:00 Europe/Berlin"), None);
    }
}
