//! Where jobs run: in the location of their dataset.
//!
//! BigQuery looks for a job in the US and EU multi-regions only, unless it is told where: one that it created
//! elsewhere by itself is not found without (<https://docs.cloud.google.com/bigquery/docs/locations#specify_locations>).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::Method;
use serde::Deserialize;

use crate::{
    fault::{Fault, FaultKind},
    gcp::{classify::succeed, tables::names},
    rest::{Rest, RestRequest},
    table::TableRef,
};

/// Where jobs are made and looked for.
#[derive(Debug)]
pub(super) enum Locations {
    /// Exactly there; without a name, where BigQuery looks by itself.
    Fixed(Option<Arc<str>>),
    /// In the location of each dataset.
    Learned(Learned),
}

/// The locations of the datasets that were asked for; as many as there are datasets that are written to.
#[derive(Debug)]
pub(super) struct Learned {
    /// Where a dataset is of which BigQuery does not tell.
    configured: Option<Arc<str>>,
    known: Mutex<Known>,
}

/// Locations by project and dataset.
type Known = HashMap<(Arc<str>, Arc<str>), Arc<str>>;

#[derive(Deserialize)]
struct Dataset {
    location: String,
}

impl Locations {
    /// The location for a job of this table.
    ///
    /// # Errors
    /// BigQuery's answer is not known.
    pub(super) async fn of(
        &self,
        rest: &dyn Rest,
        table: &TableRef,
    ) -> Result<Option<Arc<str>>, Fault> {
        match self {
            Self::Fixed(location) => Ok(location.clone()),
            Self::Learned(learned) => learned.of(rest, table).await,
        }
    }

    /// The dataset is not where it was.
    pub(super) fn forget(&self, table: &TableRef) {
        if let Self::Learned(learned) = self {
            learned.lock().remove(&key(table));
        }
    }
}

impl Learned {
    /// None is known yet.
    pub(super) fn new(configured: Option<String>) -> Self {
        Self { configured: configured.map(Arc::from), known: Mutex::default() }
    }

    /// The location of a table's dataset. What is configured where the dataset is not there, or where the service
    /// may not look at it.
    async fn of(&self, rest: &dyn Rest, table: &TableRef) -> Result<Option<Arc<str>>, Fault> {
        if let Some(known) = self.lock().get(&key(table)) {
            return Ok(Some(Arc::clone(known)));
        }
        let path = names::dataset_path(table);
        let answer = match succeed(rest, RestRequest::json(Method::GET, path, None)).await {
            Ok(answer) => answer,
            Err(fault) => {
                let is_told =
                    !matches!(fault.kind, FaultKind::TableNotFound | FaultKind::PermissionDenied);
                return if is_told { Err(fault) } else { Ok(self.configured.clone()) };
            }
        };
        let Ok(Dataset { location }) = serde_json::from_slice(&answer.body) else {
            return Ok(self.configured.clone());
        };
        let location: Arc<str> = location.into();
        self.lock().insert(key(table), Arc::clone(&location));
        Ok(Some(location))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Only whole entries are ever inserted.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(table: &TableRef) -> (Arc<str>, Arc<str>) {
    (Arc::clone(&table.project), Arc::clone(&table.dataset))
}
