//! Which table a record goes to.

use std::sync::Arc;

use super::{TopicEncoder, origin::Origin, payload::SchemaKey};
use crate::{
    dead_letter::{Reason, Stage},
    delivery::encoder::TableIx,
    record::Record,
    table::TableRef,
};

/// Tables that one worker writes at most: a header chosen by producers must not create any number.
const TABLES_MAX: usize = 10_000;

impl TopicEncoder {
    fn table_ix(&mut self, origin: &Origin, table: TableRef) -> Result<TableIx, Box<Reason>> {
        if let Some(known) = self.table_numbers.get(&table) {
            return Ok(*known);
        }
        if self.tables.len() >= TABLES_MAX {
            return Err(destination(format!(
                "this process already writes {TABLES_MAX} tables; narrow the `table` template"
            )));
        }
        let ix = TableIx(u32::try_from(self.tables.len()).unwrap_or(u32::MAX));
        self.tables.push(table.clone());
        self.table_numbers.insert(table, ix);
        self.follow(origin, ix);
        Ok(ix)
    }

    pub(super) fn named_table(
        &mut self,
        origin: &Origin,
        name: &str,
    ) -> Result<TableIx, Box<Reason>> {
        let project = Arc::clone(&self.project);
        let dataset = Arc::clone(&origin.settings.dataset);
        self.table_ix(origin, TableRef { project, dataset, table: name.into() })
    }

    /// The table of a record; `None` until the record's schema is known.
    pub(super) fn destination(
        &mut self,
        origin: &Origin,
        record: &Record<'_>,
        value: SchemaKey,
    ) -> Result<Option<TableIx>, Box<Reason>> {
        if let Some(table) = origin.table {
            return Ok(Some(table));
        }
        let template = &origin.settings.table;
        let name = self.record_names.get(&value).cloned();
        if template.uses_record_name() && name.is_none() && value.has_record_name() {
            return Ok(None);
        }
        let header = |wanted: &str| {
            let found = record.headers.iter().find(|(name, _)| *name == wanted)?;
            std::str::from_utf8(found.1?).ok()
        };
        let resolved = template.resolve(&origin.lane.topic, header, name.as_deref());
        let name = resolved.map_err(|missing| destination(missing.to_string()))?;
        self.named_table(origin, &name).map(Some)
    }
}

fn destination(message: String) -> Box<Reason> {
    Box::new(Reason { stage: Stage::Destination, message, field: None, schema_id: None })
}
