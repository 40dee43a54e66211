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
    telemetry::{Lag, LaneState, LaneStatus, Telemetry},
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
    let mut standing = Standing::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {
                let now = Instant::now();
                let backlogs = measure(&telemetry, &ends, &ages, &mut standing, now);
                paths.decide(&telemetry, &backlogs, now);
                telemetry.tell_troubles(now_ms());
            }
        }
    }
}

/// Lanes with records that are not committed, each with its committed offset and since when that has stood. The age
/// of records that nobody can read is unknown; since when they cannot be read is less, and no guess.
#[derive(Debug, Default)]
struct Standing(HashMap<TopicPartition, (i64, Instant)>);

impl Standing {
    /// How long the lane has stood at `done`.
    fn seconds(&mut self, lane: TopicPartition, done: i64, now: Instant) -> f64 {
        let stand = self.0.entry(lane).or_insert((done, now));
        if stand.0 != done {
            *stand = (done, now);
        }
        now.duration_since(stand.1).as_secs_f64()
    }
}

/// What a lane has left to do.
struct Left {
    high: i64,
    /// Not committed.
    lag: i64,
    /// Not read.
    unread: i64,
    /// The offset below which everything is committed.
    done: i64,
}

impl Left {
    /// `None` where the end is unknown, or where it began.
    fn of(lane: &LaneStatus, seen: Option<i64>) -> Option<Self> {
        // The end that was told at the assignment says nothing of later records, and where reading is refused
        // no later end is told.
        let at_assignment = lane.high_watermark.filter(|_| !cannot_be_read(lane));
        let high = seen.max(at_assignment)?;
        let done = lane.committed_offset.or(lane.start_offset)?;
        let unread = (high - lane.next_offset.unwrap_or(done)).max(0);
        Some(Self { high, lag: (high - done).max(0), unread, done })
    }
}

/// Whether the source says that nothing can be read of it.
fn cannot_be_read(lane: &LaneStatus) -> bool {
    lane.held_by_source && lane.state != LaneState::Halted
}

/// Shows what is not committed, and gives what is not read.
fn measure(
    telemetry: &Telemetry,
    ends: &impl Ends,
    ages: &Ages,
    standing: &mut Standing,
    now: Instant,
) -> Backlogs {
    let board = telemetry.status.snapshot();
    let is_cut_off = !board.process.unreachable_brokers.is_empty();
    let mut lags: HashMap<Arc<str>, Lag> = HashMap::new();
    let mut unread: HashMap<Arc<str>, u64> = HashMap::new();
    let mut behind = Standing::default();
    for lane in board.lanes {
        let topic_partition = TopicPartition::new(Arc::clone(&lane.topic), lane.partition);
        let lag = lags.entry(Arc::clone(&lane.topic)).or_insert(NOTHING_LEFT);
        let left = Left::of(&lane, ends.high(&topic_partition));
        telemetry.status.update_lane(&lane.topic, lane.partition, |status| {
            status.high_watermark = left.as_ref().map(|left| left.high).or(status.high_watermark);
            status.lag = left.as_ref().map(|left| left.lag);
        });
        let Some(left) = left else {
            lag.records = None;
            continue;
        };
        *unread.entry(Arc::clone(&lane.topic)).or_default() += left.unread.unsigned_abs();
        lag.records = lag.records.map(|records| records + left.lag);
        if left.lag > 0 {
            let seconds = standing.seconds(topic_partition.clone(), left.done, now);
            if is_cut_off || cannot_be_read(&lane) {
                lag.seconds = lag.seconds.map(|most| most.max(seconds));
            }
            if let Some(stand) = standing.0.remove(&topic_partition) {
                behind.0.insert(topic_partition, stand);
            }
        }
    }
    *standing = behind;
    show(telemetry, lags, &ages.all());
    let backlog = |(topic, records): (Arc<str>, u64)| {
        let backlog = Backlog::new(telemetry, &topic, records);
        (topic, backlog)
    };
    unread.into_iter().map(backlog).collect()
}

/// Until a lane has said otherwise.
const NOTHING_LEFT: Lag = Lag { records: Some(0), seconds: Some(0.0) };

/// Shows the lags, with the ages of what was read.
fn show(telemetry: &Telemetry, mut lags: HashMap<Arc<str>, Lag>, ages: &TopicAges) {
    for (topic, lag) in &mut lags {
        let age = ages.get(topic).copied().unwrap_or_default();
        telemetry.topic(topic).oldest_unacknowledged_seconds.set(age.waiting_seconds);
        let seconds = lag.seconds.map_or(age.record_seconds, |most| most.max(age.record_seconds));
        // Records that are not read yet have an age, and it is not 0.
        lag.seconds = (seconds > 0.0 || lag.records == Some(0)).then_some(seconds);
    }
    telemetry.lags(&lags);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::BrokerStatus;

    struct At(Option<i64>);

    impl Ends for At {
        fn high(&self, _: &TopicPartition) -> Option<i64> {
            self.0
        }
    }

    struct Rig {
        telemetry: Telemetry,
        ages: Ages,
        standing: Standing,
        now: Instant,
    }

    impl Rig {
        /// A topic with these lanes, which began at 50 and were read up to 90.
        fn new(committed: &[Option<i64>]) -> Self {
            let now = Instant::now();
            let telemetry = Telemetry::new(1, now, 0).unwrap();
            for (partition, committed) in (0..).zip(committed) {
                let mut lane = LaneStatus::new("orders".into(), partition, 1, 0);
                lane.enter(LaneState::Running, None, 0);
                lane.start_offset = Some(50);
                lane.committed_offset = *committed;
                lane.next_offset = Some(90);
                telemetry.status.put_lane(lane);
            }
            Self { telemetry, ages: Ages::default(), standing: Standing::default(), now }
        }

        fn measure(&mut self, high: Option<i64>, seconds: u64) -> Backlogs {
            self.now += Duration::from_secs(seconds);
            measure(&self.telemetry, &At(high), &self.ages, &mut self.standing, self.now)
        }

        fn metric(&self, name: &str) -> Option<f64> {
            let text = self.telemetry.encode(Instant::now()).unwrap();
            let name = format!("{name}{{topic=\"orders\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
        }

        fn lags(&self) -> (Option<f64>, Option<f64>) {
            (self.metric("kcbq_lag_records"), self.metric("kcbq_lag_seconds"))
        }

        fn change(&self, change: impl FnOnce(&mut LaneStatus)) {
            self.telemetry.status.update_lane(&"orders".into(), 0, change);
        }
    }

    #[test]
    fn lag_is_the_end_less_what_is_committed_summed_over_partitions() {
        let mut rig = Rig::new(&[Some(40), None]);
        let age = |record_seconds| Age { record_seconds, waiting_seconds: 1.0 };
        rig.ages.put(0, [("orders".into(), age(3.0))].into());
        rig.ages.put(1, [("orders".into(), age(7.0))].into());
        let backlogs = rig.measure(Some(100), 1);
        // Nothing was read yet: a record counts for a kilobyte.
        assert_eq!(backlogs["orders"].unread.bytes, 2 * 10 * 1_000);
        // What nobody has committed counts from where reading began, not from where it has come to.
        assert_eq!(rig.lags(), (Some(60.0 + 50.0), Some(7.0)));
        assert_eq!(rig.telemetry.status.snapshot().lanes[0].lag, Some(60));
    }

    #[test]
    fn lag_is_unknown_until_every_partition_tells_and_never_0_before() {
        let mut rig = Rig::new(&[Some(90), None]);
        assert_eq!(rig.lags(), (None, None), "before the first look");
        assert_eq!(rig.telemetry.totals().lag_records, None);
        rig.change(|lane| lane.high_watermark = Some(90));
        rig.measure(None, 1);
        assert_eq!(rig.lags(), (None, None), "one of two");
        assert_eq!(rig.telemetry.totals().lag_records, None);
        rig.measure(Some(90), 1);
        assert_eq!(rig.metric("kcbq_lag_records"), Some(40.0));
        assert_eq!(rig.metric("kcbq_lag_seconds"), None, "nothing says how old they are");
        assert_eq!(rig.telemetry.totals().lag_records, Some(40));
        rig.telemetry.status.update_lane(&"orders".into(), 1, |lane| {
            lane.committed_offset = Some(90);
        });
        rig.measure(Some(90), 1);
        assert_eq!(rig.lags(), (Some(0.0), Some(0.0)));
        for partition in 0..2 {
            rig.telemetry.status.remove_lane(&"orders".into(), partition);
        }
        rig.measure(Some(90), 1);
        assert_eq!(rig.lags(), (None, None), "another process has them");
    }

    #[test]
    fn a_partition_that_cannot_be_read_is_behind_for_as_long_as_that_lasts() {
        let mut rig = Rig::new(&[Some(90)]);
        let hold = |lane: &mut LaneStatus| {
            lane.enter(LaneState::Waiting, Some("cannot be read".into()), 0);
            lane.held_by_source = true;
        };
        rig.change(hold);
        rig.measure(Some(100), 1);
        rig.measure(Some(100), 30);
        assert_eq!(rig.lags(), (Some(10.0), Some(30.0)));
        // What was read of it before and not committed is older still.
        let age = Age { record_seconds: 99.0, waiting_seconds: 1.0 };
        rig.ages.put(0, [("orders".into(), age)].into());
        rig.measure(Some(100), 1);
        assert_eq!(rig.metric("kcbq_lag_seconds"), Some(99.0));
        // A broker that refuses to be read tells no end either: an old one is no lag of 0.
        rig.ages.put(0, TopicAges::new());
        rig.change(|lane| lane.high_watermark = Some(90));
        rig.measure(None, 1);
        assert_eq!(rig.lags(), (None, None));
    }

    #[test]
    fn records_behind_a_broker_that_does_not_answer_grow_older() {
        let mut rig = Rig::new(&[Some(90)]);
        let (broker, reason) = ("k:9092".to_owned(), "away".to_owned());
        rig.telemetry.status.unreachable(vec![BrokerStatus { broker, since_ms: 0, reason }]);
        rig.measure(Some(100), 1);
        rig.measure(Some(100), 20);
        assert_eq!(rig.lags(), (Some(10.0), Some(20.0)));
        rig.change(|lane| lane.committed_offset = Some(95));
        rig.measure(Some(100), 1);
        assert_eq!(rig.metric("kcbq_lag_seconds"), None, "it moves");
    }
}
