use super::*;
use crate::transcode::writer::json::JsonRow;

fn json(write: impl FnOnce(&mut Vec<u8>) -> Step) -> Result<String, String> {
    let mut out = Vec::new();
    write(&mut out).map_err(|error| error.message.into_owned())?;
    assert_eq!(out.pop(), Some(b','));
    Ok(String::from_utf8(out).unwrap())
}

fn from_integer(value: i64, conversion: FromInteger) -> Result<String, String> {
    json(|out| integer::<JsonRow>(out, value, conversion))
}

#[test]
fn timestamps_of_all_units_floor_to_microseconds() {
    let cases = [
        (Unit::Millis, -1, "\"1969-12-31T23:59:59.999000Z\""),
        (Unit::Micros, -1, "\"1969-12-31T23:59:59.999999Z\""),
        (Unit::Nanos, -1, "\"1969-12-31T23:59:59.999999Z\""),
        (Unit::Nanos, 1_999, "\"1970-01-01T00:00:00.000001Z\""),
    ];
    for (unit, value, expected) in cases {
        for form in [Form::Native, Form::Text] {
            assert_eq!(from_integer(value, FromInteger::Timestamp(unit, form)).unwrap(), expected);
        }
    }
}

#[test]
fn timestamps_outside_bigquerys_years_are_refused() {
    for (unit, value) in
        [(Unit::Millis, i64::MAX), (Unit::Millis, 253_402_300_800_000), (Unit::Micros, i64::MIN)]
    {
        for conversion in
            [FromInteger::Timestamp(unit, Form::Native), FromInteger::DateTime(unit, Form::Native)]
        {
            assert!(from_integer(value, conversion).unwrap_err().contains("out of range"));
        }
    }
    assert!(
        from_integer(253_402_300_799_999, FromInteger::Timestamp(Unit::Millis, Form::Native))
            .is_ok()
    );
}

#[test]
fn integers_convert_exactly_or_not_at_all() {
    assert_eq!(from_integer(7, FromInteger::Float64).unwrap(), "7.0");
    assert!(from_integer((1 << 53) + 1, FromInteger::Float64).is_err());
    assert_eq!(from_integer(-7, FromInteger::Decimal(Range::Numeric)).unwrap(), "\"-7\"");
    assert_eq!(from_integer(-7, FromInteger::Text).unwrap(), "\"-7\"");
    assert_eq!(from_integer(0, FromInteger::Date(Form::Text)).unwrap(), "\"1970-01-01\"");
    assert!(from_integer(i64::MAX, FromInteger::Date(Form::Native)).is_err());
    let midnight = FromInteger::Time(Unit::Millis, Form::Native);
    assert_eq!(from_integer(0, midnight).unwrap(), "\"00:00:00.000000\"");
    assert!(from_integer(86_400_000, midnight).is_err());
    assert!(from_integer(-1, midnight).is_err());
}

#[test]
fn nan_has_no_place_in_a_decimal_column() {
    let decimal =
        |value| json(|out| float::<JsonRow>(out, value, FromFloat::Decimal(Range::Numeric)));
    assert!(decimal(f64::NAN).unwrap_err().contains("NaN"));
    assert!(decimal(f64::INFINITY).is_err());
    assert_eq!(decimal(1.25).unwrap(), "\"1.25\"");
}

#[test]
fn uuids_of_bytes_become_text() {
    let bytes: Vec<u8> = (0..16).map(|n| n * 17).collect();
    assert_eq!(
        json(|out| super::bytes::<JsonRow>(out, &bytes, FromBytes::Uuid)).unwrap(),
        "\"00112233-4455-6677-8899-aabbccddeeff\""
    );
    assert!(json(|out| super::bytes::<JsonRow>(out, &bytes[1..], FromBytes::Uuid)).is_err());
}

#[test]
fn json_text_is_checked() {
    let text =
        |value| json(|out| super::text::<JsonRow>(out, RawText::from(value), FromText::Json));
    assert_eq!(text(r#"{"a": [1]}"#).unwrap(), r#""{\"a\": [1]}""#);
    assert!(text(r#"{"a": [1}"#).is_err());
}
