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
        self.table_ix(origin, self.table_named(origin, name))
    }

    fn table_named(&self, origin: &Origin, name: &str) -> TableRef {
        let project = Arc::clone(&self.project);
        let dataset = Arc::clone(&origin.settings.dataset);
        TableRef { project, dataset, table: name.into() }
    }

    fn is_known(&self, origin: &Origin, name: &str) -> bool {
        self.table_numbers.contains_key(&self.table_named(origin, name))
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
        match template.uses_headers() {
            true => self.chosen_table(origin, &name).map(Some),
            false => self.named_table(origin, &name).map(Some),
        }
    }

    /// The table that a record has chosen by a header, if it may.
    fn chosen_table(&mut self, origin: &Origin, name: &str) -> Result<TableIx, Box<Reason>> {
        let allowed = &origin.settings.header_tables;
        if !allowed.allow(name) {
            return Err(destination(
                "the table that the record's headers choose is not among `header_tables.names`"
                    .to_owned(),
            ));
        }
        let known = self.tables.len();
        if self.chosen.get(&origin.settings_ix).is_some_and(|chosen| *chosen >= allowed.max)
            && !self.is_known(origin, name)
        {
            return Err(destination(format!(
                "the headers of these records have chosen {} tables already; raise `header_tables.max` \
                 if they are meant",
                allowed.max
            )));
        }
        let table = self.named_table(origin, name)?;
        *self.chosen.entry(origin.settings_ix).or_default() += self.tables.len() - known;
        Ok(table)
    }
}

fn destination(message: String) -> Box<Reason> {
    Box::new(Reason { stage: Stage::Destination, message, field: None, schema_id: None })
}
