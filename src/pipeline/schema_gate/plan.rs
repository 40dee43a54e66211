//! From what a table has and what its callers want to the changes that are to be made: pure.

use crate::{
    schema::{
        diff::{self, Change},
        policy::{self, Policy, Verdict},
    },
    table::{Column, TableSchema},
};

/// Plans for one caller.
pub fn plan(current: &TableSchema, wanted: &[Column], policy: &Policy) -> Verdict {
    policy::judge(policy, current, diff::diff(current, wanted))
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
        let Verdict::Apply(changes) = plan(&schema, wanted, policy) else { continue };
        schema = diff::apply(&schema, &changes);
        for change in changes {
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
            let inside = TableSchema { columns: vec![column.clone()] };
            let inside = diff::apply(&inside, &[change.below(parent.len())]);
            if let Some(changed) = inside.columns.into_iter().next() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::ColumnKind;

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
