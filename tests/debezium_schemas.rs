//! The captured Debezium schemas parse and want the right columns.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test; clippy's own exception does not reach its functions outside #[test]"
)]

use std::fmt::Write as _;

use kcbq::{
    schema::{
        avro,
        columns::{ColumnRules, derive},
        connect,
        diff::{Change, diff, type_name},
        infer,
        model::Type,
    },
    table::{Column, ColumnKind, Mode, TableSchema},
};
use serde_json::Value;

const AVRO: &str = include_str!("data/debezium/pga.public.orders.schemas.json");
const POSTGRES: &str = include_str!("data/debezium/pgj.public.orders.jsonl");
const CUSTOMERS: &str = include_str!("data/debezium/pgj.public.customers.jsonl");
const TRANSACTIONS: &str = include_str!("data/debezium/pgj.transaction.jsonl");
const MARIADB: &str = include_str!("data/debezium/mdb.shop.orders.jsonl");
const MARIADB_CHANGES: &str = include_str!("data/debezium/mdb.jsonl");
const SCHEMALESS: &str = include_str!("data/debezium/pgs.public.orders.jsonl");

fn columns(ty: &Type) -> Vec<Column> {
    derive(ty, &ColumnRules::default()).unwrap()
}

fn avro_columns(id: &str) -> Vec<Column> {
    let schemas: Value = serde_json::from_str(AVRO).unwrap();
    let text = schemas[id]["schema"].as_str().unwrap();
    columns(&avro::parse(text, &[""; 0]).unwrap())
}

/// The columns of each envelope's schema, one per record that is no tombstone.
fn envelopes(lines: &str) -> Vec<Vec<Column>> {
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let values = records.filter(|record| !record["value"].is_null());
    values.map(|record| columns(&connect::parse(&record["value"]["schema"]).unwrap())).collect()
}

/// One line per column, indented as it is nested.
fn shown(columns: &[Column], indent: usize) -> String {
    columns.iter().fold(String::new(), |mut text, column| {
        let kind = type_name(&column.kind, column.mode);
        writeln!(text, "{:indent$}{} {kind}", "", column.name).unwrap();
        text + &shown(column.fields(), indent + 2)
    })
}

#[test]
fn avro_schemas_want_their_columns() {
    insta::assert_snapshot!("avro_key_7", shown(&avro_columns("7"), 0));
    insta::assert_snapshot!("avro_value_8", shown(&avro_columns("8"), 0));
}

#[test]
fn envelopes_want_their_columns() {
    insta::assert_snapshot!("connect_postgres", shown(&envelopes(POSTGRES)[0], 0));
    insta::assert_snapshot!("connect_mariadb", shown(&envelopes(MARIADB)[0], 0));
    insta::assert_snapshot!("connect_transaction", shown(&envelopes(TRANSACTIONS)[0], 0));
}

#[test]
fn avro_and_envelope_of_the_same_table_agree() {
    assert_eq!(shown(&avro_columns("8"), 0), shown(&envelopes(POSTGRES)[0], 0));
}

#[test]
fn each_later_schema_changes_the_table_without_conflict() {
    let mut table = TableSchema { columns: avro_columns("8") };
    let added = diff(&table, &avro_columns("11"));
    let names: Vec<String> = added.changes.iter().map(Change::to_string).collect();
    assert_eq!(names, ["add column before.channel STRING", "add column after.channel STRING"]);
    table = kcbq::schema::diff::apply(&table, &added.changes);
    assert!(diff(&table, &avro_columns("13")).is_empty(), "a dropped column stays");

    for lines in [POSTGRES, CUSTOMERS, TRANSACTIONS, MARIADB, MARIADB_CHANGES] {
        let mut table = TableSchema::default();
        for wanted in envelopes(lines) {
            let difference = diff(&table, &wanted);
            assert_eq!(difference.conflicts, []);
            table = kcbq::schema::diff::apply(&table, &difference.changes);
            assert!(diff(&table, &wanted).is_empty());
        }
    }
}

/// The table that schemaless records make in this order.
fn grown<'a>(records: impl Iterator<Item = &'a Value>) -> TableSchema {
    let mut table = TableSchema::default();
    for record in records.filter(|record| !record["value"].is_null()) {
        let json = record["value"].to_string();
        let ty = infer::infer_beside(json.as_bytes(), &table.columns).unwrap();
        let difference = diff(&table, &columns(&infer::settle(&ty, &table.columns)));
        assert_eq!(difference.conflicts, [], "{}", record["offset"]);
        table = kcbq::schema::diff::apply(&table, &difference.changes);
    }
    table
}

#[test]
fn schemaless_records_grow_one_table_also_backwards() {
    let records: Vec<Value> =
        SCHEMALESS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let table = grown(records.iter());
    assert!(table.columns.iter().all(|column| column.mode != Mode::Required));
    insta::assert_snapshot!("inferred", shown(&table.columns, 0));
    // Backwards "NaN" and "Infinity" come before any number of their columns.
    let backwards = grown(records.iter().rev());
    assert_eq!(sorted(backwards.columns), sorted(table.columns));
}

/// Columns by their names, at every level.
fn sorted(mut columns: Vec<Column>) -> Vec<Column> {
    columns.sort_by(|one, other| one.name.cmp(&other.name));
    for column in &mut columns {
        if let ColumnKind::Record(fields) = &mut column.kind {
            *fields = sorted(std::mem::take(fields));
        }
    }
    columns
}
