//! What schemaless records that wait want of their table.

use crate::{
    dead_letter::{Reason, Stage},
    pipeline::encoder::with_columns,
    printable,
    schema::{
        columns::{ColumnRules, derive},
        diff::{apply, diff},
        infer,
        model::{Kind, Type},
        names::json_column_name,
        policy::{Policy, Verdict, judge},
    },
    table::{Column, TableSchema},
};

/// What rows want of a table.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The table's columns, present and future.
    pub(super) columns: Vec<Column>,
    /// Types of schemaless records for which there is no place, and why.
    pub(super) refused: Vec<(Type, Reason)>,
    /// Types of schemaless records for which there is.
    pub(super) satisfied: Vec<Type>,
}

impl Wanted {
    /// These columns, whatever the records.
    pub(super) fn only(columns: Vec<Column>) -> Self {
        Self { columns, refused: Vec::new(), satisfied: Vec::new() }
    }

    /// `columns`, which the table has, with place for records of these types.
    pub(super) fn for_samples(
        columns: Vec<Column>,
        samples: &[Type],
        rules: &ColumnRules,
        policy: &Policy,
    ) -> Self {
        // The name of a float beside other text is text, whichever came first.
        let mut known = Self::only(columns.clone());
        for ty in samples {
            known.add(ty, &infer::without_float_names(ty), rules, policy);
        }
        let mut wanted = Self::only(columns);
        for ty in samples {
            wanted.add(ty, &infer::settle(ty, &known.columns), rules, policy);
        }
        wanted
    }

    /// Makes place for one type, settled so, or notes why there is none.
    fn add(&mut self, ty: &Type, settled: &Type, rules: &ColumnRules, policy: &Policy) {
        let columns = match derive(settled, rules) {
            Ok(columns) => columns,
            Err(error) => return self.refuse(ty, error.to_string()),
        };
        let schema = TableSchema { columns: std::mem::take(&mut self.columns) };
        let columns = with_columns(&TableSchema { columns }, &schema.columns);
        let mut difference = diff(&schema, &columns);
        infer::spare_filled(&mut difference, settled);
        match judge(policy, &schema, difference) {
            Verdict::UpToDate => {
                self.columns = schema.columns;
                self.satisfied.push(ty.clone());
            }
            Verdict::Apply(changes) => {
                self.columns = apply(&schema, &changes).columns;
                self.satisfied.push(ty.clone());
            }
            Verdict::Refuse(message) => {
                self.columns = schema.columns;
                self.refuse(ty, without_keys(message, settled));
            }
        }
    }

    fn refuse(&mut self, ty: &Type, message: String) {
        let reason = Reason { stage: Stage::Schema, message, field: None, schema_id: None };
        self.refused.push((ty.clone(), reason));
    }
}

/// The message without the columns of keys that are not shown, see [`printable::key`].
fn without_keys(message: String, ty: &Type) -> String {
    match &ty.kind {
        Kind::Record(record) => record.fields.iter().fold(message, |message, field| {
            let message = without_keys(message, &field.ty);
            match printable::key(&field.name) {
                shown if shown == *field.name => message,
                shown => message.replace(&*json_column_name(&field.name), &shown),
            }
        }),
        Kind::Array(items) => without_keys(message, items),
        _ => message,
    }
}

#[cfg(test)]
mod tests;
