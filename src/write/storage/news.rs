//! Tables whose columns have changed, as BigQuery's write path tells of itself.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::table::TableRef;

/// What answers to appends said by `updated_schema`: that the path they came by knows other columns of the table than
/// when the connection was opened. A change reaches it minutes after `tables.get` shows it
/// (<https://github.com/googleapis/googleapis/blob/master/google/cloud/bigquery/storage/v1/storage.proto>).
#[derive(Debug, Default)]
pub struct SchemaNews {
    told: AtomicU64,
    /// When each table was told of last, counted by `told`.
    tables: Mutex<HashMap<TableRef, u64>>,
}

impl SchemaNews {
    /// An answer has told of the table.
    pub fn note(&self, table: &TableRef) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let told = self.told.load(Ordering::Relaxed) + 1;
        tables.insert(table.clone(), told);
        self.told.store(told, Ordering::Release);
    }

    /// The tables that were told of since `seen`, which is moved on.
    pub fn since(&self, seen: &mut u64) -> Vec<TableRef> {
        let told = self.told.load(Ordering::Acquire);
        let before = std::mem::replace(seen, told);
        if before == told {
            return Vec::new();
        }
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let new = tables.iter().filter(|(_, at)| **at > before && **at <= told);
        new.map(|(table, _)| table.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reader_hears_of_a_table_once_and_again_when_it_is_told_again() {
        let table =
            |name: &str| TableRef { project: "p".into(), dataset: "d".into(), table: name.into() };
        let news = SchemaNews::default();
        let (mut one, mut other) = (0, 0);
        assert!(news.since(&mut one).is_empty());
        news.note(&table("a"));
        assert_eq!(news.since(&mut one), [table("a")]);
        assert!(news.since(&mut one).is_empty());
        news.note(&table("b"));
        news.note(&table("a"));
        for seen in [&mut one, &mut other] {
            let mut heard = news.since(seen);
            heard.sort_unstable();
            assert_eq!(heard, [table("a"), table("b")]);
        }
    }
}
