//! From what a table has and what its callers want to the changes that are to be made: pure.

use crate::{
    schema::diff::Change,
    table::{Column, ColumnKind, Mode, TableSchema, find},
};

/// STUB until the schema branch is merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Create the table.
    pub create: bool,
    /// Add columns.
    pub add_columns: bool,
}

impl Policy {
    /// Nothing is allowed.
    pub fn refuse_all() -> Self {
        Self::default()
    }
}

/// What is to be done so that a table has a place for some columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    Ready,
    /// These changes.
    Change(Vec<Change>),
    /// They are not allowed, or there are none: the difference.
    Refused(String),
}

/// Plans for one caller.
pub fn plan(current: &TableSchema, wanted: &[Column], policy: &Policy) -> Plan {
    let missing: Vec<_> =
        wanted.iter().filter(|c| find(&current.columns, &c.name).is_none()).collect();
    if missing.is_empty() {
        return Plan::Ready;
    }
    if !policy.add_columns {
        return Plan::Refused("columns are missing and policy does not add them".into());
    }
    let add = |column: &Column| Change::AddColumn { parent: Vec::new(), column: column.clone() };
    Plan::Change(missing.into_iter().map(add).collect())
}

/// The changes for all callers together: each caller's plan is made for the table as the plans before
/// leave it. A caller whose plan is refused adds nothing; it learns so at its own turn.
pub fn plan_all<'a>(
    current: &TableSchema,
    wishes: impl Iterator<Item = (&'a [Column], &'a Policy)>,
) -> Vec<Change> {
    let mut schema = current.clone();
    let mut all = Vec::new();
    for (wanted, policy) in wishes {
        let Plan::Change(changes) = plan(&schema, wanted, policy) else { continue };
        for change in changes {
            apply(&mut schema.columns, &change);
            merge(&mut all, change);
        }
    }
    all
}

/// Adds a change to a list: one that goes into a column which the same list adds becomes part of that
/// column, since BigQuery takes no field for a record that is not there yet.
fn merge(all: &mut Vec<Change>, change: Change) {
    let path = match &change {
        Change::AddColumn { parent, .. } => parent,
        Change::Relax { path } | Change::Widen { path, .. } => path,
    };
    for earlier in all.iter_mut() {
        let Change::AddColumn { parent, column } = earlier else { continue };
        let mut added = parent.clone();
        added.push(column.name.clone());
        if path.len() >= added.len()
            && same_path(path.get(..added.len()).unwrap_or_default(), &added)
        {
            let mut columns = vec![column.clone()];
            apply(&mut columns, &change.below(parent.len()));
            if let Some(changed) = columns.pop() {
                *column = changed;
            }
            return;
        }
    }
    all.push(change);
}

fn same_path(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// A change seen from inside a record.
trait Below {
    /// The same change with the first `depth` names of its path dropped.
    fn below(&self, depth: usize) -> Self;
}

impl Below for Change {
    fn below(&self, depth: usize) -> Self {
        let cut = |path: &[String]| path.iter().skip(depth).cloned().collect();
        match self {
            Self::AddColumn { parent, column } => {
                Self::AddColumn { parent: cut(parent), column: column.clone() }
            }
            Self::Relax { path } => Self::Relax { path: cut(path) },
            Self::Widen { path, to } => Self::Widen { path: cut(path), to: to.clone() },
        }
    }
}

/// Makes a change to columns; one that does not fit is left out.
pub fn apply(columns: &mut Vec<Column>, change: &Change) {
    match change {
        Change::AddColumn { parent, column } => {
            if let Some(siblings) = siblings(columns, parent)
                && find(siblings, &column.name).is_none()
            {
                siblings.push(column.clone());
            }
        }
        Change::Relax { path } => {
            if let Some(column) = column_mut(columns, path) {
                column.mode = Mode::Nullable;
            }
        }
        Change::Widen { path, to } => {
            if let Some(column) = column_mut(columns, path) {
                column.kind = to.clone();
            }
        }
    }
}

fn siblings<'a>(columns: &'a mut Vec<Column>, parent: &[String]) -> Option<&'a mut Vec<Column>> {
    if parent.is_empty() {
        return Some(columns);
    }
    match &mut column_mut(columns, parent)?.kind {
        ColumnKind::Record(fields) => Some(fields),
        _ => None,
    }
}

fn column_mut<'a>(columns: &'a mut Vec<Column>, path: &[String]) -> Option<&'a mut Column> {
    let (name, parent) = path.split_last()?;
    let siblings = siblings(columns, parent)?;
    siblings.iter_mut().find(|column| column.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(parent: &[&str], column: Column) -> Change {
        Change::AddColumn { parent: parent.iter().map(|n| (*n).to_owned()).collect(), column }
    }

    #[test]
    fn a_change_inside_an_added_record_becomes_part_of_it() {
        let record = |fields| Column::new("R", ColumnKind::Record(fields));
        let mut all = Vec::new();
        merge(&mut all, add(&["top"], record(vec![])));
        merge(&mut all, add(&["TOP", "r"], Column::new("x", ColumnKind::Int64)));
        merge(
            &mut all,
            Change::Widen {
                path: vec!["top".into(), "r".into(), "x".into()],
                to: ColumnKind::Float64,
            },
        );
        merge(&mut all, Change::Relax { path: vec!["other".into()] });
        assert_eq!(
            all,
            [
                add(&["top"], record(vec![Column::new("x", ColumnKind::Float64)])),
                Change::Relax { path: vec!["other".into()] },
            ]
        );
    }
}
