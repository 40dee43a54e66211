use proptest::prelude::*;

use super::*;
use crate::schema::{
    arbitrary,
    columns::{ColumnRules, derive},
};

fn column(name: &str, kind: ColumnKind, mode: Mode) -> Column {
    Column::new(name, kind).with_mode(mode)
}

fn record(name: &str, mode: Mode, fields: &[Column]) -> Column {
    column(name, ColumnKind::Record(fields.to_vec()), mode)
}

fn path(path: &[&str]) -> Vec<String> {
    path.iter().map(|name| (*name).to_owned()).collect()
}

fn schema(columns: &[Column]) -> TableSchema {
    TableSchema { columns: columns.to_vec() }
}

use ColumnKind::{BigNumeric, Bool, Bytes, Date, Float64, Int64, Json, Numeric, String as Text};
use Mode::{Nullable, Repeated, Required};

#[test]
fn columns_are_added_where_they_are_missing() {
    let inner = [column("x", Int64, Required), column("y", Text, Required)];
    let current = schema(&[record("O", Nullable, &inner[..1]), column("old", Text, Nullable)]);
    let wanted = [
        column("id", Int64, Required),
        record("o", Nullable, &inner),
        record("new", Required, &inner),
        column("tags", Text, Repeated),
    ];
    let difference = diff(&current, &wanted);
    let add = |parent: &[&str], column: Column| Change::AddColumn { parent: path(parent), column };
    assert_eq!(
        difference.changes,
        [
            add(&[], column("id", Int64, Nullable)),
            add(&["O"], column("y", Text, Nullable)),
            // The fields of a new record may be REQUIRED.
            add(&[], record("new", Nullable, &inner)),
            add(&[], column("tags", Text, Repeated)),
        ]
    );
    let names: Vec<String> =
        apply(&current, &difference.changes).columns.into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["O", "old", "id", "new", "tags"]);
}

#[test]
fn required_columns_are_relaxed_when_unfilled_or_nullable() {
    let current = schema(&[
        column("a", Int64, Required),
        column("gone", Int64, Required),
        column("kept", Int64, Required),
        record("r", Repeated, &[column("x", Int64, Required), column("y", Int64, Required)]),
        record("other", Nullable, &[column("z", Int64, Required)]),
    ]);
    let wanted = [
        column("A", Int64, Nullable),
        column("kept", Int64, Required),
        record("r", Repeated, &[column("x", Int64, Required)]),
    ];
    let relax = |names: &[&str]| Change::Relax { path: path(names) };
    let changes = diff(&current, &wanted).changes;
    assert_eq!(changes, [relax(&["a"]), relax(&["r", "y"]), relax(&["gone"])]);
}

#[test]
fn types_are_kept_widened_or_refused() {
    let cases = [
        (Int64, Int64, Fit::AsIs),
        (Int64, Float64, Fit::Widen),
        (Int64, Numeric, Fit::Widen),
        (Int64, BigNumeric, Fit::Widen),
        (Numeric, BigNumeric, Fit::Widen),
        (Numeric, Float64, Fit::AsIs),
        (BigNumeric, Numeric, Fit::AsIs),
        (Float64, Int64, Fit::AsIs),
        (Float64, Numeric, Fit::AsIs),
        (Text, Date, Fit::AsIs),
        (Text, Bool, Fit::AsIs),
        (Date, Text, Fit::AsIs),
        (Json, Text, Fit::AsIs),
        (Int64, Date, Fit::AsIs),
        (ColumnKind::Timestamp, ColumnKind::DateTime, Fit::AsIs),
        (Int64, Text, Fit::AsIs),
        (Bytes, Text, Fit::AsIs),
        (Json, ColumnKind::Record(vec![]), Fit::AsIs),
        (Int64, Bool, Fit::Conflict),
        (Bool, Text, Fit::Conflict),
        (Bytes, Int64, Fit::Conflict),
        (Text, Bytes, Fit::Conflict),
        (Date, ColumnKind::Timestamp, Fit::Conflict),
        (Text, ColumnKind::Record(vec![]), Fit::Conflict),
        (ColumnKind::Record(vec![]), Text, Fit::Conflict),
    ];
    for (actual, wanted, expected) in cases {
        assert_eq!(fit(&actual, &wanted), expected, "table {actual:?}, wanted {wanted:?}");
    }
}

#[test]
fn conflicts_name_both_types() {
    let current = schema(&[
        record("o", Nullable, &[column("a", Bool, Repeated)]),
        column("b", Text, Nullable),
        column("range", ColumnKind::Other("RANGE".to_owned()), Nullable),
    ]);
    let wanted = [
        record("o", Nullable, &[column("a", Text, Repeated)]),
        column("b", Text, Repeated),
        column("range", Text, Nullable),
    ];
    let shown: Vec<String> =
        diff(&current, &wanted).conflicts.iter().map(Conflict::to_string).collect();
    assert_eq!(
        shown,
        [
            "column o.a is REPEATED BOOL, the schema wants REPEATED STRING",
            "column b is STRING, the schema wants REPEATED STRING",
        ]
    );
}

/// Columns with names out of a few, so that two lists meet.
fn columns() -> impl Strategy<Value = Vec<Column>> {
    let leaf = proptest::sample::select(vec![
        Bool, Int64, Float64, Numeric, BigNumeric, Text, Bytes, Date, Json,
    ]);
    let mode = || proptest::sample::select(vec![Nullable, Required, Repeated]);
    let distinct = |columns: Vec<Column>| {
        let mut kept: Vec<Column> = Vec::new();
        for column in columns {
            if find(&kept, &column.name).is_none() {
                kept.push(column);
            }
        }
        kept
    };
    let list = move |kinds: BoxedStrategy<ColumnKind>| {
        let column = ("[a-dA-D]", kinds, mode())
            .prop_map(|(name, kind, mode)| Column::new(name, kind).with_mode(mode));
        proptest::collection::vec(column, 1..5).prop_map(distinct)
    };
    let kinds = leaf
        .prop_recursive(3, 20, 4, move |inner| list(inner.boxed()).prop_map(ColumnKind::Record));
    list(kinds.boxed())
}

/// Whether `after` has every column of `before`, none stricter.
fn keeps(before: &[Column], after: &[Column]) -> bool {
    before.iter().all(|old| {
        find(after, &old.name).is_some_and(|new| {
            let mode_kept = new.mode == old.mode || (old.mode, new.mode) == (Required, Nullable);
            mode_kept && keeps(old.fields(), new.fields())
        })
    })
}

proptest! {
    #[test]
    fn after_the_changes_only_the_conflicts_are_left(current in columns(), wanted in columns()) {
        let current = schema(&current);
        let difference = diff(&current, &wanted);
        let after = apply(&current, &difference.changes);
        let left = diff(&after, &wanted);
        prop_assert_eq!(&left.changes, &[]);
        prop_assert_eq!(left.conflicts, difference.conflicts);
        prop_assert!(keeps(&current.columns, &after.columns));
        prop_assert_eq!(apply(&after, &difference.changes), after, "applying twice changes nothing");
    }

    #[test]
    fn replicas_with_different_columns_agree(
        current in columns(), one in columns(), other in columns(),
    ) {
        // Whoever comes second looks again; afterwards the table takes both's rows.
        let current = schema(&current);
        let after_one = apply(&current, &diff(&current, &one).changes);
        let second = diff(&after_one, &other);
        let after_both = apply(&after_one, &second.changes);
        prop_assert_eq!(&diff(&after_both, &other).changes, &[]);
        // The second's columns may want a relaxation for the first's absent ones, and no more.
        let again = diff(&after_both, &one).changes;
        prop_assert!(!again.iter().any(|change| matches!(change, Change::AddColumn { .. })), "{:?}", again);
    }

    #[test]
    fn a_table_made_for_a_type_takes_it(ty in arbitrary::record_type()) {
        let columns = derive(&ty, &ColumnRules::default()).unwrap();
        prop_assert!(diff(&schema(&columns), &columns).is_empty());
        let grown = apply(&TableSchema::default(), &diff(&TableSchema::default(), &columns).changes);
        prop_assert!(diff(&grown, &columns).is_empty());
    }
}
