//! How far behind the process is: offsets against the partitions' ends, ages of what waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    pipeline::{
        now_ms,
        paths::{Backlog, Backlogs, Paths},
    },
    record::TopicPartition,
    source::Ends,
    telemetry::Telemetry,
};

/// How often the ends are looked at: the client knows them from its fetches.
const INTERVAL: Duration = Duration::from_secs(1);

/// How old the oldest unacknowledged record is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Age {
    /// By its own timestamp.
    pub record_seconds: f64,
    /// Since it became the oldest.
    pub waiting_seconds: f64,
}

impl Age {
    /// The greater of both, part by part.
    pub fn max(self, other: Self) -> Self {
        Self {
            record_seconds: self.record_seconds.max(other.record_seconds),
            waiting_seconds: self.waiting_seconds.max(other.waiting_seconds),
        }
    }
}

/// The greatest age per topic.
pub type TopicAges = HashMap<Arc<str>, Age>;

/// The ages that the workers report.
#[derive(Debug, Default)]
pub struct Ages(Mutex<HashMap<usize, TopicAges>>);

impl Ages {
    /// Replaces what `worker` reported before.
    pub fn put(&self, worker: usize, ages: TopicAges) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(worker, ages);
    }

    fn all(&self) -> TopicAges {
        let mut all = TopicAges::new();
        for ages in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            for (topic, age) in ages {
                let known = all.entry(Arc::clone(topic)).or_default();
                *known = known.max(*age);
            }
        }
        all
    }
}

/// Keeps lag, ages and write paths up to date until `stop`.
pub async fn run(
    telemetry: Arc<Telemetry>,
    ends: impl Ends,
    ages: Arc<Ages>,
    paths: Arc<Paths>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {
                let backlogs = measure(&telemetry, &ends, &ages);
                paths.decide(&telemetry, &backlogs, Instant::now());
                telemetry.tell_troubles(now_ms());
            }
        }
    }
}

/// Shows what is not committed, and gives what is not read.
fn measure(telemetry: &Telemetry, ends: &impl Ends, ages: &Ages) -> Backlogs {
    let mut lags: HashMap<Arc<str>, i64> = HashMap::new();
    let mut unread: HashMap<Arc<str>, u64> = HashMap::new();
    for lane in telemetry.status.snapshot().lanes {
        let topic_partition = TopicPartition::new(Arc::clone(&lane.topic), lane.partition);
        let total = lags.entry(Arc::clone(&lane.topic)).or_default();
        let Some(high) = ends.high(&topic_partition).max(lane.high_watermark) else { continue };
        // Until the first commit of this assignment the start position stands for it.
        let Some(done) = lane.committed_offset.or(lane.next_offset) else { continue };
        let left = (high - lane.next_offset.unwrap_or(done)).max(0);
        *unread.entry(Arc::clone(&lane.topic)).or_default() += left.unsigned_abs();
        let lag = (high - done).max(0);
        *total += lag;
        telemetry.status.update_lane(&lane.topic, lane.partition, |status| {
            status.high_watermark = Some(high);
            status.lag = Some(lag);
        });
    }
    let ages = ages.all();
    for (topic, lag) in &lags {
        let age = ages.get(topic).copied().unwrap_or_default();
        let topic = telemetry.topic(topic);
        topic.lag_records.set(*lag);
        topic.lag_seconds.set(age.record_seconds);
        topic.oldest_unacknowledged_seconds.set(age.waiting_seconds);
    }
    let backlog = |(topic, records): (Arc<str>, u64)| {
        let backlog = Backlog::new(telemetry, &topic, records);
        (topic, backlog)
    };
    unread.into_iter().map(backlog).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::LaneStatus;

    struct At(i64);

    impl Ends for At {
        fn high(&self, _: &TopicPartition) -> Option<i64> {
            Some(self.0)
        }
    }

    #[test]
    fn lag_is_the_end_less_what_is_committed_summed_over_partitions() {
        let telemetry = Telemetry::new(1, Instant::now(), 0).unwrap();
        let topic: Arc<str> = "orders".into();
        for (partition, committed) in [(0, Some(40)), (1, None)] {
            let mut lane = LaneStatus::new(Arc::clone(&topic), partition, 1, 0);
            lane.committed_offset = committed;
            lane.next_offset = Some(90);
            telemetry.status.put_lane(lane);
        }
        let ages = Ages::default();
        let age = |record_seconds| Age { record_seconds, waiting_seconds: 1.0 };
        ages.put(0, [(Arc::clone(&topic), age(3.0))].into());
        ages.put(1, [(Arc::clone(&topic), age(7.0))].into());
        let backlogs = measure(&telemetry, &At(100), &ages);
        // Nothing was read yet: a record counts for a kilobyte.
        assert_eq!(backlogs[&topic].unread.bytes, 2 * 10 * 1_000);
        let topic = telemetry.topic("orders");
        assert_eq!(topic.lag_records.get(), 60 + 10);
        assert_eq!(topic.lag_seconds.get(), 7.0);
        assert_eq!(telemetry.status.snapshot().lanes[0].lag, Some(60));
    }
}
