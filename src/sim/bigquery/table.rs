//! One table: its document, its schema over time, its update budget and its rows.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use crate::sim::{
    bigquery::{columns::Column, error::ApiError, storage::changes::Changes, store::Store},
    settings::SimSettings,
};

/// One simulated table.
#[derive(Debug)]
pub struct Table {
    /// The document as sent by clients, every attribute kept, plus the server's own.
    pub document: Value,
    /// The schema that `tables.get` shows.
    pub columns: Arc<Vec<Column>>,
    /// Schemas by the time from which insertAll goes by them.
    visible: VecDeque<(Duration, Arc<Vec<Column>>)>,
    /// The times of accepted metadata updates inside the quota's window.
    updates: VecDeque<Duration>,
    /// Remembered insertIds.
    pub recent: InsertIds,
    /// The accepted rows.
    pub store: Store,
    /// What is known of the changes by primary key.
    pub changes: Changes,
}

impl Table {
    /// A table created at `now`.
    pub fn new(
        document: Value,
        columns: Vec<Column>,
        now: Duration,
        settings: &SimSettings,
    ) -> Self {
        let columns = Arc::new(columns);
        let from = now + Duration::from_millis(settings.create_delay_ms);
        Self {
            document,
            visible: VecDeque::from([(from, Arc::clone(&columns))]),
            columns,
            updates: VecDeque::new(),
            recent: InsertIds::default(),
            store: Store::new(settings.store),
            changes: Changes::default(),
        }
    }

    /// The current entity tag.
    pub fn etag(&self) -> &str {
        self.document.get("etag").and_then(Value::as_str).unwrap_or_default()
    }

    /// The schema that insertAll goes by; `None` while the new table is not visible to it.
    pub fn streaming_columns(&mut self, now: Duration) -> Option<Arc<Vec<Column>>> {
        while self.visible.get(1).is_some_and(|(from, _)| *from <= now) {
            self.visible.pop_front();
        }
        let (from, columns) = self.visible.front()?;
        (*from <= now).then(|| Arc::clone(columns))
    }

    /// Takes one update out of the table's quota, or refuses.
    pub fn spend_update(
        &mut self,
        name: &str,
        now: Duration,
        settings: &SimSettings,
    ) -> Result<(), ApiError> {
        let window = Duration::from_millis(settings.update_window_ms);
        while self.updates.front().is_some_and(|at| *at + window <= now) {
            self.updates.pop_front();
        }
        if self.updates.len() >= settings.updates_max {
            return Err(ApiError::new(
                403,
                "rateLimitExceeded",
                format!(
                    "Exceeded rate limits: too many table update operations for this table. For \
                     more information, see \
                     https://cloud.google.com/bigquery/docs/troubleshoot-quotas. Table: {name}"
                ),
            ));
        }
        self.updates.push_back(now);
        Ok(())
    }

    /// Puts a changed document and schema in place.
    pub fn replace(
        &mut self,
        document: Value,
        columns: Vec<Column>,
        now: Duration,
        settings: &SimSettings,
    ) {
        self.document = document;
        if *self.columns == columns {
            return;
        }
        self.columns = Arc::new(columns);
        let created = self.visible.front().map_or(now, |(from, _)| *from);
        let from = created.max(now + Duration::from_millis(settings.alter_delay_ms));
        self.visible.push_back((from, Arc::clone(&self.columns)));
    }
}

/// The insertIds of the last while, for best-effort deduplication.
#[derive(Debug, Default)]
pub struct InsertIds {
    order: VecDeque<(Duration, Arc<str>)>,
    known: HashSet<Arc<str>>,
}

impl InsertIds {
    /// Forgets what is older than `keep`.
    pub fn expire(&mut self, now: Duration, keep: Duration) {
        while self.order.front().is_some_and(|(at, _)| *at + keep <= now) {
            if let Some((_, id)) = self.order.pop_front() {
                self.known.remove(&id);
            }
        }
    }

    /// Remembers `id`; false if it is known already.
    pub fn insert(&mut self, id: &str, now: Duration) -> bool {
        if self.known.contains(id) {
            return false;
        }
        let id: Arc<str> = id.into();
        self.known.insert(Arc::clone(&id));
        self.order.push_back((now, id));
        true
    }
}
