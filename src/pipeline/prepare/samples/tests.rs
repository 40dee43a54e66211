use std::collections::VecDeque;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    record::{Headers, Record},
    schema::{infer::infer_beside, policy::Permission},
    table::{ColumnKind, Mode},
    transcode::{
        LaneLabel, Limits, RowErrorKind, RowPlan, RowSpec, ValueSource, writer::json::JsonRow,
    },
};

/// A table that grows as the encoder and the preparer let it.
#[derive(Default)]
struct Table {
    columns: Vec<Column>,
    /// Records that met no row, by the field to blame.
    letters: Vec<String>,
}

impl Table {
    fn with(columns: Vec<Column>) -> Self {
        Self { columns, letters: Vec::new() }
    }

    /// What the records, waiting for the table in groups of these sizes, make of it.
    fn after(self, records: &[Value], mut sizes: impl Iterator<Item = usize>) -> Self {
        let mut table = self;
        let mut waiting: VecDeque<Value> = records.iter().cloned().collect();
        while !waiting.is_empty() {
            let size = sizes.next().unwrap_or(1).clamp(1, waiting.len());
            table.take(waiting.drain(..size).collect());
        }
        table.columns.sort_by(|one, other| one.name.cmp(&other.name));
        table
    }

    fn take(&mut self, records: Vec<Value>) {
        let mut samples: Vec<Type> = Vec::new();
        let mut waiting = Vec::new();
        for record in records {
            if self.encode(&record).is_err_and(|kind| kind == RowErrorKind::UnknownColumns) {
                let ty = infer_beside(record.to_string().as_bytes(), &self.columns).unwrap();
                samples.push(ty);
                waiting.push(record);
            }
        }
        let columns = std::mem::take(&mut self.columns);
        let rules = ColumnRules::default();
        let wanted = Wanted::for_samples(columns, &samples, &rules, &Policy::default());
        self.columns = wanted.columns;
        assert_eq!(wanted.refused, []);
        assert_eq!(wanted.satisfied, samples);
        for record in waiting {
            let again = self.encode(&record);
            assert_ne!(again, Err(RowErrorKind::UnknownColumns), "{record} waits for ever");
        }
    }

    fn encode(&mut self, record: &Value) -> Result<(), RowErrorKind> {
        let mut spec = RowSpec::new(ValueSource::Json);
        spec.metadata.enabled = false;
        let schema = TableSchema { columns: self.columns.clone() };
        let plan: RowPlan<JsonRow> = RowPlan::compile(&spec, &schema, Limits::default()).unwrap();
        let text = record.to_string();
        let (key, value, headers) = (None, Some(text.as_bytes()), Headers::default());
        let record = Record { offset: 0, timestamp_ms: None, key, value, headers };
        plan.encode(&record, &LaneLabel::new("t", 0), &mut Vec::new()).map_err(|error| {
            if error.kind != RowErrorKind::UnknownColumns {
                self.letters.push(error.path.clone());
            }
            error.kind
        })
    }

    fn kind(&self, name: &str) -> &ColumnKind {
        &self.columns.iter().find(|column| column.name == name).unwrap().kind
    }
}

fn one_by_one() -> impl Iterator<Item = usize> {
    std::iter::repeat(1)
}

#[test]
fn floats_are_one_column_whether_a_number_or_a_name_comes_first() {
    for name in ["NaN", "Infinity", "-Infinity"] {
        for number in [json!(1.5), json!(3)] {
            let by_name = json!({"f": name, "l": [name], "o": {"x": name}});
            let by_number = json!({"f": number, "l": [number, name], "o": {"x": number}});
            for records in [[by_name.clone(), by_number.clone()], [by_number, by_name]] {
                let table = Table::default().after(&records, one_by_one());
                let x = vec![Column::new("x", ColumnKind::Float64)];
                let expected = [
                    Column::new("f", ColumnKind::Float64),
                    Column::new("l", ColumnKind::Float64).with_mode(Mode::Repeated),
                    Column::new("o", ColumnKind::Record(x)),
                ];
                assert_eq!(table.columns, expected);
                assert_eq!(table.letters, [""; 0]);
            }
        }
    }
}

#[test]
fn a_name_that_waits_beside_text_is_text_whichever_came_first() {
    let (name, text) = (json!({"t": "Infinity", "a": 1}), json!({"t": "War", "l": ["NaN", "x"]}));
    for records in [[name.clone(), text.clone()], [text, name]] {
        let table = Table::default().after(&records, [2].into_iter());
        assert_eq!(table.kind("t"), &ColumnKind::String);
        assert_eq!(table.kind("l"), &ColumnKind::String);
        assert_eq!(table.letters, [""; 0]);
    }
}

#[test]
fn text_that_comes_after_a_name_alone_is_refused_by_its_field_and_the_table_stays() {
    let records = [json!({"t": "Infinity"}), json!({"t": "War"}), json!({"t": 7})];
    let table = Table::default().after(&records, one_by_one());
    assert_eq!(table.kind("t"), &ColumnKind::Float64);
    assert_eq!(table.letters, ["t"]);
}

#[test]
fn what_the_table_has_decides_and_other_columns_are_added_beside_it() {
    for kind in [
        ColumnKind::String,
        ColumnKind::Float64,
        ColumnKind::Bytes,
        ColumnKind::Json,
        ColumnKind::Geography,
    ] {
        let table = Table::with(vec![Column::new("c", kind.clone())]);
        let table = table.after(&[json!({"c": "Infinity", "new": 1})], one_by_one());
        assert_eq!((table.kind("c"), table.kind("new")), (&kind, &ColumnKind::Int64));
        assert_eq!(table.letters, [""; 0], "{kind:?}");
    }
    for kind in [ColumnKind::Timestamp, ColumnKind::Date, ColumnKind::Numeric] {
        let table = Table::with(vec![Column::new("c", kind)]);
        let table = table.after(&[json!({"c": "NaN", "new": 1})], one_by_one());
        assert_eq!(table.letters, ["c"]);
    }
}

/// A float by its number or its name.
fn float() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i16>().prop_map(Value::from),
        Just(json!(0.5)),
        prop_oneof![Just("NaN"), Just("Infinity"), Just("-Infinity")].prop_map(Value::from),
    ]
}

fn record_of_floats() -> impl Strategy<Value = Value> {
    let null = Just(Value::Null);
    let list = proptest::collection::vec(float(), 0..3);
    let objects = proptest::collection::vec(float().prop_map(|x| json!({"x": x})), 0..3);
    let maybe = || prop_oneof![4 => float(), 1 => null.clone()];
    (maybe(), maybe(), list, objects, "[a-z]{0,2}")
        .prop_map(|(f, x, l, os, t)| json!({"f": f, "o": {"x": x}, "l": l, "os": os, "t": t}))
}

proptest! {
    #[test]
    fn any_order_and_any_grouping_make_one_table_of_floats(
        (records, shuffled) in proptest::collection::vec(record_of_floats(), 1..8)
            .prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle())),
        sizes in proptest::collection::vec(1..5_usize, 8),
    ) {
        let one = Table::default().after(&records, one_by_one());
        let other = Table::default().after(&shuffled, sizes.into_iter());
        let inside = |table: &Table| {
            let mut columns = table.columns.clone();
            for column in &mut columns {
                if let ColumnKind::Record(fields) = &mut column.kind {
                    fields.sort_by(|one, other| one.name.cmp(&other.name));
                }
            }
            columns
        };
        prop_assert_eq!(inside(&one), inside(&other));
        prop_assert!(one.letters.is_empty() && other.letters.is_empty());
    }
}

/// What any producer can do to a table: thirty thousand keys, of which BigQuery takes ten thousand.
#[test]
fn records_whose_keys_no_longer_fit_the_table_are_refused_and_the_first_ones_are_not() {
    let keys = |record: i32| (0..500).map(move |key| (format!("k{record}_{key}"), json!(1)));
    let record = |n| Value::Object(keys(n).collect());
    let samples: Vec<Type> =
        (0..60).map(|n| infer_beside(record(n).to_string().as_bytes(), &[]).unwrap()).collect();
    let rules = ColumnRules::default();
    let wanted = Wanted::for_samples(Vec::new(), &samples, &rules, &Policy::default());
    assert_eq!((wanted.satisfied.len(), wanted.refused.len()), (20, 40));
    assert_eq!(wanted.columns.len(), 10_000);
    let reason = &wanted.refused[0].1.message;
    assert!(reason.contains("10500 columns, and BigQuery takes 10000"), "{reason}");
}

#[test]
fn a_refusal_does_not_show_keys_that_may_be_data() {
    let record =
        json!({"price": 1, "alice@example.com": {"+49 151": 1}, "l": [{"Ann Example": 1}]});
    let ty = infer_beside(record.to_string().as_bytes(), &[]).unwrap();
    let policy = Policy { add_columns: Permission::Refuse, ..Policy::default() };
    let wanted = Wanted::for_samples(Vec::new(), &[ty], &ColumnRules::default(), &policy);
    let [(_, reason)] = &wanted.refused[..] else { panic!("{wanted:?}") };
    let message = &reason.message;
    assert!(message.contains("price") && message.contains("(key)"), "{message}");
    for data in ["alice", "151", "Ann"] {
        assert!(!message.contains(data), "{message}");
    }
}
