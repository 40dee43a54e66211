use apache_avro::{Schema, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
use proptest::prelude::*;

use super::{
    oracle,
    random::{Dice, physical, value},
    *,
};
use crate::{
    schema::{arbitrary, columns::top_record},
    table::{Column, ColumnKind, Mode},
    transcode::{PlanError, RowErrorKind, writer::proto::ProtoRow},
};

/// A type, its plan's table, and a datum by apache-avro with the value it reads back.
pub(super) fn datum(ty: &Type, seed: u64) -> (Vec<u8>, apache_avro::types::Value) {
    let schema = Schema::parse_str(&arbitrary::avro_text(&physical(ty))).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let bytes = writer.write_value_to_vec(value(ty, &mut Dice(seed))).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let read = reader.read_value(&mut bytes.as_slice()).unwrap();
    (bytes, read)
}

/// Equal but for the last bit of a double, which serde_json's own parser may miss.
fn same(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Object(left), Json::Object(right)) => {
            let other =
                |(key, value): (&String, &Json)| right.get(key).is_some_and(|r| same(value, r));
            left.len() == right.len() && left.iter().all(other)
        }
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same(l, r))
        }
        (Json::Number(left), Json::Number(right)) if left.is_f64() || right.is_f64() => {
            let (left, right) = (left.as_f64().unwrap(), right.as_f64().unwrap());
            left == right || (left - right).abs() <= left.abs() * f64::EPSILON
        }
        _ => left == right,
    }
}

/// Walks a protobuf row by the columns it must have.
fn check_message(mut bytes: &[u8], columns: &[Column]) -> Option<()> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if *first < 0x80 {
                return Some(value);
            }
        }
        None
    }
    let mut seen = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let column = columns.get(usize::try_from(tag >> 3).ok()?.checked_sub(1)?)?;
        if seen.contains(&tag) && column.mode != Mode::Repeated {
            return None;
        }
        seen.push(tag);
        match (tag & 7, &column.kind) {
            (
                0,
                ColumnKind::Bool
                | ColumnKind::Int64
                | ColumnKind::Date
                | ColumnKind::Time
                | ColumnKind::DateTime
                | ColumnKind::Timestamp,
            ) => {
                varint(&mut bytes)?;
            }
            (1, ColumnKind::Float64) => bytes = bytes.get(8..)?,
            (2, kind) => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                let (body, rest) = bytes.split_at_checked(len)?;
                bytes = rest;
                match kind {
                    ColumnKind::Record(fields) => check_message(body, fields)?,
                    ColumnKind::String | ColumnKind::Json => {
                        std::str::from_utf8(body).ok()?;
                    }
                    _ => {}
                }
            }
            _ => return None,
        }
    }
    let required = columns.iter().zip(1_u64..).filter(|(column, _)| column.mode == Mode::Required);
    required.into_iter().all(|(_, number)| seen.iter().any(|tag| tag >> 3 == number)).then_some(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn rows_hold_what_apache_avro_reads(ty in arbitrary::record_type(), seed: u64) {
        let ty = Arc::new(ty);
        let spec = bare(ValueSource::Avro(Arc::clone(&ty)));
        let Ok(columns) = spec.columns(&ColumnRules::default()) else { return Ok(()) };
        let table = TableSchema { columns };
        let (bytes, read) = datum(&ty, seed);
        let row = json_row(&plan(&spec, &table), &record(Some(&bytes)));
        let proto = encode(&plan::<ProtoRow>(&spec, &table), &record(Some(&bytes)));
        match oracle::row(top_record(&ty).unwrap(), &read) {
            Ok(expected) => {
                let row = row.unwrap();
                prop_assert!(same(&row, &expected), "{row}\n{expected}");
                let proto = proto.unwrap();
                prop_assert!(check_message(&proto, &table.columns).is_some(), "{proto:?}");
            }
            Err(oracle::NullInArray) => {
                let error = row.unwrap_err();
                prop_assert_eq!(error.kind, RowErrorKind::Transcode);
                prop_assert!(error.path.contains("[]"), "{error}");
                prop_assert!(proto.is_err());
            }
        }
    }

    #[test]
    fn broken_data_neither_panic_nor_leave_bytes(ty in arbitrary::record_type(), seed: u64) {
        let ty = Arc::new(ty);
        let spec = bare(ValueSource::Avro(Arc::clone(&ty)));
        let Ok(columns) = spec.columns(&ColumnRules::default()) else { return Ok(()) };
        let table = TableSchema { columns };
        let (json, proto) = (plan::<JsonRow>(&spec, &table), plan::<ProtoRow>(&spec, &table));
        let (bytes, _) = datum(&ty, seed);
        let mut dice = Dice(!seed);
        for _ in 0..20 {
            let mut bytes = bytes.clone();
            for _ in 0..=dice.below(3) {
                let at = dice.below(bytes.len() as u64 + 1) as usize;
                match dice.below(4) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, dice.roll() as u8),
                    2 => bytes.insert(at, 0xff),
                    _ if at < bytes.len() => bytes[at] = dice.roll() as u8,
                    _ => {}
                }
            }
            let row = json_row(&json, &record(Some(&bytes)));
            let message = encode(&proto, &record(Some(&bytes)));
            prop_assert_eq!(row.is_ok(), message.is_ok());
            if let Ok(message) = message {
                prop_assert!(check_message(&message, &table.columns).is_some());
            }
        }
    }
}

const LINES: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"id","type":"long"},
    {"name":"lines","type":{"type":"array","items":{"type":"record","name":"L","fields":[
        {"name":"price","type":["null","double"]},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}}}]}"#;

#[test]
fn an_error_names_the_field_and_no_value() {
    let spec = bare(ValueSource::Avro(avro(LINES)));
    let plan = plan::<JsonRow>(&spec, &wanted(&spec));
    // id 1; one line: no price, a time after 9999; end.
    let mut bytes = vec![2, 2, 0];
    bytes.extend_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0]);
    let error = json_row(&plan, &record(Some(&bytes))).unwrap_err();
    assert_eq!((error.path.as_str(), error.kind), ("lines.[].at", RowErrorKind::Transcode));
    assert!(!error.to_string().contains("9223372036854775807"));
    let error = json_row(&plan, &record(Some(&[2, 0, 9]))).unwrap_err();
    assert_eq!(error.kind, RowErrorKind::Decode);
    assert!(error.message.contains("bytes left"));
}

#[test]
fn null_against_a_required_column_is_refused_with_its_path() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"a","type":["null","long"]}]}"#;
    let spec = bare(ValueSource::Avro(avro(schema)));
    let mut table = wanted(&spec);
    table.columns[0].mode = Mode::Required;
    let plan = plan::<JsonRow>(&spec, &table);
    assert_eq!(json_row(&plan, &record(Some(&[2, 14]))).unwrap(), serde_json::json!({"a": 7}));
    assert_eq!(json_row(&plan, &record(Some(&[0]))).unwrap_err().path, "a");
    assert!(json_row(&plan, &record(None)).is_err());
}

#[test]
fn a_table_that_lacks_or_contradicts_a_column_is_found_at_compile_time() {
    let spec = bare(ValueSource::Avro(avro(LINES)));
    let compile = |change: &dyn Fn(&mut Vec<Column>)| {
        let mut table = wanted(&spec);
        change(&mut table.columns);
        RowPlan::<JsonRow>::compile(&spec, &table, Limits::default()).unwrap_err()
    };
    let error = compile(&|columns| columns.truncate(1));
    assert_eq!(error, PlanError::Missing { path: "lines".into() });
    let error = compile(&|columns| columns[0].kind = ColumnKind::Bool);
    assert!(matches!(&error, PlanError::Mismatch { path, .. } if path == "id"), "{error}");
    let error = compile(&|columns| columns[1].mode = Mode::Nullable);
    assert!(matches!(&error, PlanError::Mismatch { path, .. } if path == "lines"), "{error}");
    let error = compile(&|columns| {
        columns.push(Column::new("extra", ColumnKind::Bool).with_mode(Mode::Required));
    });
    assert_eq!(error, PlanError::RequiredWithoutSource { path: "extra".into() });
    let error = compile(&|columns| {
        let ColumnKind::Record(fields) = &mut columns[1].kind else { panic!() };
        fields.remove(1);
    });
    assert_eq!(error, PlanError::Missing { path: "lines.at".into() });
}

#[test]
fn a_column_of_an_unknown_type_takes_null_only() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"a","type":["null","long"]}]}"#;
    let spec = bare(ValueSource::Avro(avro(schema)));
    let mut table = wanted(&spec);
    table.columns[0].kind = ColumnKind::Other("RANGE".into());
    let plan = plan::<JsonRow>(&spec, &table);
    assert_eq!(json_row(&plan, &record(Some(&[0]))).unwrap(), serde_json::json!({}));
    assert_eq!(json_row(&plan, &record(Some(&[2, 14]))).unwrap_err().path, "a");
}

#[test]
fn few_bytes_never_become_many_rows_or_elements() {
    let schema = r#"{"type":"record","name":"R","fields":[
        {"name":"nulls","type":{"type":"array","items":"null"}},
        {"name":"e","type":{"type":"array","items":{"type":"enum","name":"E","symbols":["S_SYMBOL_OF_THIRTY_CHARACTERS"]}}}]}"#;
    let spec = bare(ValueSource::Avro(avro(schema)));
    let limits = Limits { row_bytes_max: 10_000 };
    let plan = RowPlan::<JsonRow>::compile(&spec, &wanted(&spec), limits).unwrap();
    let million_nulls = [0x80, 0x89, 0x7a, 0, 0];
    assert!(
        json_row(&plan, &record(Some(&million_nulls))).unwrap_err().message.contains("no bytes")
    );
    let mut many = vec![0, 0x80, 0x89, 0x7a];
    many.resize(1_000_004, 0);
    many.push(0);
    assert!(json_row(&plan, &record(Some(&many))).unwrap_err().message.contains("row_bytes_max"));
}
