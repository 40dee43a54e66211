//! Which changes to a table a topic allows.

use crate::{
    printable,
    schema::{
        columns::COLUMNS_MAX,
        diff::{Change, Difference},
    },
    table::TableSchema,
};

/// Whether the service may do something.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// It may, without asking.
    Allow,
    /// It must not: records that need it go to the dead letter, with the difference as the reason.
    Refuse,
}

/// What the service may do to a topic's table so that the topic's records fit.
///
/// Everything is allowed by default: each change keeps every column and every row, and what is
/// refused costs records. Nothing is ever dropped, renamed or made stricter, whatever is set here.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Create the table (and its dataset) where it does not exist.
    pub create: Permission,
    /// Add columns, also inside records, that the records' schema has and the table has not.
    pub add_columns: Permission,
    /// Turn REQUIRED columns that a record may leave out into NULLABLE ones.
    pub relax: Permission,
    /// Turn a column into a wider type that the records' schema asks for: INT64 into FLOAT64,
    /// NUMERIC or BIGNUMERIC, and NUMERIC into BIGNUMERIC. INT64 into FLOAT64 rounds stored integers
    /// beyond 2^53; refuse it where that matters.
    pub widen: Permission,
}

impl Default for Policy {
    fn default() -> Self {
        let allow = Permission::Allow;
        Self { create: allow, add_columns: allow, relax: allow, widen: allow }
    }
}

impl Policy {
    /// Whether a missing table may be created; the refusal says what to do.
    ///
    /// # Errors
    ///
    /// One sentence for a person.
    pub fn may_create(&self) -> Result<(), String> {
        match self.create {
            Permission::Allow => Ok(()),
            Permission::Refuse => Err("the table does not exist and the schema policy refuses to \
                                       create it: create it by hand or set `create: allow`"
                .to_owned()),
        }
    }

    /// The setting that a change is subject to, and its name.
    fn rule(&self, change: &Change) -> (Permission, &'static str) {
        match change {
            Change::AddColumn { .. } => (self.add_columns, "add_columns"),
            Change::Relax { .. } => (self.relax, "relax"),
            Change::Widen { .. } => (self.widen, "widen"),
        }
    }
}

/// What follows from a difference under a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The table takes the rows as it is.
    UpToDate,
    /// These changes make it take them.
    Apply(Vec<Change>),
    /// The rows cannot go into this table; one sentence for a person, which names the difference and
    /// the setting or the remedy.
    Refuse(String),
}

/// Most differences that a message lists.
const LISTED_MAX: usize = 5;

/// Decides on a difference from `current`: all of its changes, or none.
///
/// More columns than BigQuery takes are refused here, where the record that wants them is known: BigQuery would
/// refuse the change for all who wait beside it.
///
/// A conflict is refused under any policy. Some allowed changes beside a refused one are not
/// applied: the rows would not go in, and the table would have changed for nothing.
pub fn judge(policy: &Policy, current: &TableSchema, difference: Difference) -> Verdict {
    if !difference.conflicts.is_empty() {
        let listed = list(&difference.conflicts);
        return Verdict::Refuse(format!(
            "no schema change makes the table fit: {listed}; change the column's type by hand, \
             route the topic to another table, or correct the producer"
        ));
    }
    let refused: Vec<(&Change, &str)> = difference
        .changes
        .iter()
        .map(|change| (change, policy.rule(change)))
        .filter(|(_, (permission, _))| *permission == Permission::Refuse)
        .map(|(change, (_, key))| (change, key))
        .collect();
    if !refused.is_empty() {
        return Verdict::Refuse(refusal(&refused));
    }
    if difference.changes.is_empty() {
        return Verdict::UpToDate;
    }
    let added: usize = difference.changes.iter().map(columns_added).sum();
    let after = current.count() + added;
    if added > 0 && after > COLUMNS_MAX {
        return Verdict::Refuse(format!(
            "the table would have {after} columns, and BigQuery takes {COLUMNS_MAX}: keep what has \
             such keys in one column (a JSON column made by hand takes objects as they are), or \
             route the topic to another table"
        ));
    }
    Verdict::Apply(difference.changes)
}

fn columns_added(change: &Change) -> usize {
    match change {
        Change::AddColumn { column, .. } => column.count(),
        Change::Relax { .. } | Change::Widen { .. } => 0,
    }
}

fn refusal(refused: &[(&Change, &str)]) -> String {
    let changes: Vec<&Change> = refused.iter().map(|(change, _)| *change).collect();
    let mut keys: Vec<String> = Vec::new();
    for (_, key) in refused {
        let key = format!("`{key}: allow`");
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    format!(
        "the schema policy refuses what the table needs: {}; make the change by hand or set {}",
        list(&changes),
        keys.join(" and ")
    )
}

/// The first few of `items`, and how many there are beside.
fn list(items: &[impl ToString]) -> String {
    let shown = |item: &_| printable::text(&ToString::to_string(item)).into_owned();
    let mut listed: Vec<String> = items.iter().take(LISTED_MAX).map(shown).collect();
    if items.len() > LISTED_MAX {
        listed.push(format!("and {} more", items.len() - LISTED_MAX));
    }
    listed.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        schema::diff::diff,
        table::{Column, ColumnKind, Mode, TableSchema},
    };

    fn current() -> TableSchema {
        TableSchema {
            columns: vec![
                Column::new("n", ColumnKind::Int64).with_mode(Mode::Required),
                Column::new("o", ColumnKind::Record(vec![Column::new("x", ColumnKind::Bool)])),
            ],
        }
    }

    fn difference() -> Difference {
        let current = current();
        let inner = vec![Column::new("y", ColumnKind::Date)];
        let wanted =
            [Column::new("n", ColumnKind::Float64), Column::new("o", ColumnKind::Record(inner))];
        diff(&current, &wanted)
    }

    #[test]
    fn the_default_applies_everything() {
        let Verdict::Apply(changes) = judge(&Policy::default(), &current(), difference()) else {
            panic!()
        };
        assert_eq!(changes.len(), 3);
        assert_eq!(judge(&Policy::default(), &current(), Difference::default()), Verdict::UpToDate);
    }

    #[test]
    fn a_refusal_names_the_change_and_the_setting() {
        let refuse = Permission::Refuse;
        let policy = Policy { widen: refuse, add_columns: refuse, ..Policy::default() };
        let Verdict::Refuse(message) = judge(&policy, &current(), difference()) else { panic!() };
        assert_eq!(
            message,
            "the schema policy refuses what the table needs: widen column n to FLOAT64, add column \
             o.y DATE; make the change by hand or set `widen: allow` and `add_columns: allow`"
        );
        let policy = Policy { relax: refuse, ..Policy::default() };
        let Verdict::Refuse(message) = judge(&policy, &current(), difference()) else { panic!() };
        assert!(message.contains("relax column n to NULLABLE"), "{message}");
        // What is refused is not asked of an up-to-date table.
        assert_eq!(judge(&policy, &current(), Difference::default()), Verdict::UpToDate);
        assert!(Policy { create: refuse, ..Policy::default() }.may_create().is_err());
    }

    #[test]
    fn more_columns_than_bigquery_takes_are_refused_nested_ones_counted() {
        let full = |count: usize| TableSchema {
            columns: (0..count).map(|n| Column::new(format!("c{n}"), ColumnKind::Int64)).collect(),
        };
        let record = Column::new("r", ColumnKind::Record(vec![Column::new("x", ColumnKind::Bool)]));
        let verdict = |count| {
            let current = full(count);
            let mut wanted = current.columns.clone();
            wanted.push(record.clone());
            judge(&Policy::default(), &current, diff(&current, &wanted))
        };
        assert!(matches!(verdict(COLUMNS_MAX - 2), Verdict::Apply(_)));
        let Verdict::Refuse(message) = verdict(COLUMNS_MAX - 1) else { panic!() };
        assert!(message.starts_with("the table would have 10001 columns"), "{message}");
    }

    #[test]
    fn a_conflict_is_refused_under_any_policy() {
        let columns = |kind: ColumnKind| -> Vec<Column> {
            (0..9).map(|index| Column::new(format!("c{index}"), kind.clone())).collect()
        };
        let current = TableSchema { columns: columns(ColumnKind::Bytes) };
        let difference = diff(&current, &columns(ColumnKind::Bool));
        let Verdict::Refuse(message) = judge(&Policy::default(), &current, difference) else {
            panic!()
        };
        assert!(message.contains("column c0 is BYTES, the schema wants BOOL"), "{message}");
        assert!(message.contains("and 4 more"), "{message}");
    }

    #[test]
    fn the_settings_are_read_by_name() {
        let policy: Policy = serde_json::from_str(r#"{"widen": "refuse"}"#).unwrap();
        assert_eq!(policy, Policy { widen: Permission::Refuse, ..Policy::default() });
        assert!(serde_json::from_str::<Policy>(r#"{"wide": "refuse"}"#).is_err());
    }
}
