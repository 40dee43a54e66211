//! Semantic types: what Kafka Connect and Debezium mean by a schema's name.
//!
//! Connect's JSON envelope spells the name as `name`, its Avro converters as `connect.name`. Names
//! not listed here say nothing that the encoding does not (`io.debezium.data.Enum` and `Xml` are
//! text, `Bits` is bytes, `io.debezium.time.Year` is a number, …).

use crate::schema::model::{Kind, Logical};

/// The name of Connect's decimal, whose scale and precision are among the parameters.
pub const CONNECT_DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
/// The parameter that holds a decimal's scale.
pub const SCALE: &str = "scale";
/// The parameter that holds a decimal's precision, where the source knows it.
pub const PRECISION: &str = "connect.decimal.precision";

/// The meaning of a schema called `name`, with `parameter` to look up its parameters; `None` if the
/// name is not known or does not fit the encoding.
///
/// Sources: Connect's `org.apache.kafka.connect.data`, Debezium's `io.debezium.time` and
/// `io.debezium.data` packages.
pub fn by_name<'a>(
    name: &str,
    kind: &Kind,
    parameter: impl Fn(&str) -> Option<&'a str>,
) -> Option<Logical> {
    if name == CONNECT_DECIMAL {
        let is_bytes = matches!(kind, Kind::Bytes | Kind::Fixed(_));
        let scale = parameter(SCALE)?.parse().ok()?;
        let precision = parameter(PRECISION).and_then(|precision| precision.parse().ok());
        return is_bytes.then_some(Logical::Decimal { precision, scale });
    }
    if name == "io.debezium.data.VariableScaleDecimal" {
        return is_variable_scale_decimal(kind).then_some(Logical::VariableScaleDecimal);
    }
    let logical = match (name.strip_prefix("org.apache.kafka.connect.data."), kind) {
        (Some("Date"), Kind::Int) => Logical::Date,
        (Some("Time"), Kind::Int) => Logical::TimeMillis,
        (Some("Timestamp"), Kind::Long) => Logical::TimestampMillis,
        (Some(_), _) => return None,
        (None, _) => return debezium(name, kind),
    };
    Some(logical)
}

/// Debezium's names. Its `Timestamp`, `MicroTimestamp` and `NanoTimestamp` hold a column without
/// zone, counted as if the wall clock were UTC.
fn debezium(name: &str, kind: &Kind) -> Option<Logical> {
    Some(match (name.strip_prefix("io.debezium.")?, kind) {
        ("time.Date", Kind::Int) => Logical::Date,
        ("time.Time", Kind::Int) => Logical::TimeMillis,
        ("time.MicroTime", Kind::Long) => Logical::TimeMicros,
        ("time.NanoTime", Kind::Long) => Logical::TimeNanos,
        ("time.Timestamp", Kind::Long) => Logical::LocalTimestampMillis,
        ("time.MicroTimestamp", Kind::Long) => Logical::LocalTimestampMicros,
        ("time.NanoTimestamp", Kind::Long) => Logical::LocalTimestampNanos,
        ("time.ZonedTimestamp", Kind::String) => Logical::ZonedTimestamp,
        ("time.ZonedTime", Kind::String) => Logical::ZonedTime,
        ("time.IsoDate", Kind::String) => Logical::IsoDate,
        ("time.IsoTime", Kind::String) => Logical::IsoTime,
        ("time.IsoTimestamp", Kind::String) => Logical::IsoTimestamp,
        ("data.Json", Kind::String) => Logical::Json,
        ("data.Uuid", Kind::String) => Logical::Uuid,
        _ => return None,
    })
}

/// Whether the record is `{scale INT32, value BYTES}`, in this order.
fn is_variable_scale_decimal(kind: &Kind) -> bool {
    let Kind::Record(record) = kind else { return false };
    match record.fields.as_slice() {
        [scale, value] => {
            (scale.name.as_ref(), &scale.ty.kind) == ("scale", &Kind::Int)
                && (value.name.as_ref(), &value.ty.kind) == ("value", &Kind::Bytes)
        }
        _ => false,
    }
}
