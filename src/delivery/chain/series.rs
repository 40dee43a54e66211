//! The series of PENDING streams that a chain's rows are appended to.

use std::{collections::BTreeMap, sync::Arc};

use crate::write::{
    load::job::{LoadFormat, SeriesIx},
    storage::pending::Series,
};

/// The series that rows are appended to now, and closed ones that still wait for an append.
///
/// What a commit takes is closed first: rows that come meanwhile go to the next series, so that the commit makes
/// no row visible that it does not name.
#[derive(Debug, Default)]
pub struct OpenSeries {
    current: SeriesIx,
    open: BTreeMap<SeriesIx, Arc<Series>>,
}

impl OpenSeries {
    /// The series of the next row.
    pub fn current(&self) -> SeriesIx {
        self.current
    }

    /// How its rows stand: those of closed series are less.
    pub fn format(&self) -> LoadFormat {
        LoadFormat::Pending(self.current)
    }

    /// The streams of a series.
    pub fn streams(&mut self, series: SeriesIx) -> Arc<Series> {
        Arc::clone(self.open.entry(series).or_default())
    }

    /// Rows go to another series from now on.
    pub fn close(&mut self) {
        self.current.0 += 1;
    }

    /// Nothing is appended to closed series any more.
    pub fn forget_closed(&mut self) {
        self.open = self.open.split_off(&self.current);
    }
}
