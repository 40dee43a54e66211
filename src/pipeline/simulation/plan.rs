//! The parameters of one history, all drawn from its seed.

use std::time::Duration;

use super::rng::Rng;
use crate::{
    delivery::{backoff::Backoff, budget::BudgetSettings, core::CoreSettings},
    pipeline::settings::{BatchSettings, WriteMode},
};

/// How often what is produced, per 1,000 records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    /// Tombstones.
    pub(crate) null: u64,
    /// Bad records of all kinds together.
    pub(crate) bad: u64,
    /// With an extra column, and with a column that may be null.
    pub(crate) column: u64,
    /// With a number that is no integer.
    pub(crate) double: u64,
    /// How large records are, in bytes beside the rest.
    pub(crate) pad: u64,
}

/// Chances per 1,000 requests while faults are on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chances {
    /// insertAll: refused before anything happened (503, 403 rate limit, quota).
    pub(crate) refuse: u64,
    /// insertAll: stored, and answered with an error.
    pub(crate) fail_after: u64,
    /// insertAll: stored, and never answered.
    pub(crate) lose_answer: u64,
    /// insertAll: never arrives.
    pub(crate) lose_request: u64,
    /// insertAll: arrives after the client has given up.
    pub(crate) hold: u64,
    /// insertAll: every row is marked `stopped` or with a passing fault.
    pub(crate) stop_rows: u64,
    /// Table calls that fail.
    pub(crate) table: u64,
    /// Registry calls that fail.
    pub(crate) registry: u64,
    /// Dead letters that fail.
    pub(crate) letter: u64,
    /// Load jobs that end with an error.
    pub(crate) job: u64,
    /// Commits without an answer.
    pub(crate) commit_lost: u64,
    /// Commits that arrive after the client has given up.
    pub(crate) commit_late: u64,
    /// Commits that are refused by a coordinator that loads.
    pub(crate) commit_refused: u64,
}

/// Load jobs and what they read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loading {
    /// How rows of topics `a`, `b`, `c` reach BigQuery.
    pub(crate) topics: [WriteMode; 3],
    /// Whether rows are staged in a bucket.
    pub(crate) has_bucket: bool,
    /// Whether topics that choose append the rows that they stream.
    pub(crate) has_storage: bool,
    /// How often a process switches the path of some table that may be, per 1,000 turns of a worker.
    pub(crate) switch: u64,
    /// How long a job waits.
    pub(crate) pending_ms: u64,
    /// How long it runs.
    pub(crate) running_ms: u64,
    /// Bytes of rows in one object.
    pub(crate) object_bytes: usize,
    /// How old a row may get.
    pub(crate) freshness_ms: u64,
    /// The quota that the service counts with.
    pub(crate) jobs_per_table_day: u32,
}

impl Loading {
    /// How the topic's rows reach BigQuery.
    pub(crate) fn mode(&self, topic: &str) -> WriteMode {
        let index = ["a", "b", "c"].iter().position(|name| *name == topic);
        index.map_or(WriteMode::Streaming, |index| self.topics[index])
    }

    fn draw(rng: &mut Rng, fat: bool) -> Self {
        let some = rng.chance(600);
        Self {
            topics: [(); 3].map(|()| match (some, rng.between(0, 9)) {
                (false, 0..=4) | (true, 6) => WriteMode::Streaming,
                (false, 5..=7) | (true, 7) => WriteMode::Storage,
                (true, 0..=2) => WriteMode::Load,
                (true, 3..=5) => WriteMode::Auto,
                _ => WriteMode::Pending,
            }),
            has_bucket: rng.chance(750),
            has_storage: rng.chance(500),
            switch: if rng.chance(500) { 2 } else { 10 },
            pending_ms: if rng.chance(100) {
                rng.between(0, 20_000)
            } else {
                rng.between(0, 2_000)
            },
            running_ms: rng.between(0, 3_000),
            object_bytes: if fat { 12_000 } else { rng.between(1_024, 4_500) as usize },
            freshness_ms: rng.between(500, 8_000),
            // The day's quota is not what these minutes are about.
            jobs_per_table_day: 1_000_000,
        }
    }
}

/// The parameters.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// How many replicas.
    pub(crate) replicas: usize,
    /// Partitions of topics `a`, `b`, `c`.
    pub(crate) partitions: [i32; 3],
    /// Nothing happens but what happens every day, and nothing is insisted on.
    pub(crate) calm: bool,
    /// How many times longer than usual processes wait between their turns.
    pub(crate) slowness: u64,
    /// When faults and producers stop.
    pub(crate) heal_ms: u64,
    /// Within which time everything must have settled then.
    pub(crate) settled_ms: u64,
    /// Records per lane, about.
    pub(crate) records: u64,
    /// What the producers write.
    pub(crate) mix: Mix,
    /// How often requests fail.
    pub(crate) chances: Chances,
    /// Visibility of created and altered tables.
    pub(crate) create_delay_ms: u64,
    /// The same for alterations.
    pub(crate) alter_delay_ms: u64,
    /// How long BigQuery remembers insertIds.
    pub(crate) dedupe_ms: u64,
    /// The cores' settings.
    pub(crate) core: CoreSettings,
    /// How long the registry does not know a schema that its producer has registered.
    pub(crate) registry_delay_ms: u64,
    /// The batches' limits.
    pub(crate) batch: BatchSettings,
    /// Load jobs.
    pub(crate) loading: Loading,
    /// The dead-letter budget.
    pub(crate) budget: BudgetSettings,
    /// Topics `b` and `c` have no dead-letter topic until faults stop: bad records halt their lanes.
    pub(crate) letterless: bool,
    /// The clients' patience with insertAll.
    pub(crate) write_timeout_ms: u64,
    /// How often they send a request before they report its fault.
    pub(crate) write_attempts: u32,
    /// The clients' patience with a commit.
    pub(crate) commit_timeout_ms: u64,
    /// How long a revoke may take.
    pub(crate) drain_ms: u64,
    /// The group's session timeout.
    pub(crate) session_ms: u64,
    /// How long the coordinator waits for members to join again.
    pub(crate) rebalance_ms: u64,
    /// By how much the wall clock of a process may be wrong, to either side; each life has its own.
    pub(crate) skew_ms: u64,
}

/// Virtual time within which a world without faults must have settled. What may be in the way: a change of
/// a table that hangs (60 s) and is then not visible yet (20 s), a quota's pause (30 s), the back-off of a
/// preparation (30 s), a session that must expire, an operator who must release a lane; or a call for a job
/// that is not answered (60 s), and then some jobs of half a minute one after the other.
const SETTLED_MS: u64 = 300_000;

impl Plan {
    /// Draws a plan.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let fat = rng.chance(250);
        let tight = rng.chance(150);
        let heavy = if rng.chance(300) { 4 } else { 1 };
        let ms = Duration::from_millis;
        Self {
            replicas: rng.between(3, 5) as usize,
            partitions: [1, 1, 1].map(|least| rng.between(least, 4) as i32),
            calm: false,
            slowness: 1,
            heal_ms: rng.between(25_000, 45_000),
            settled_ms: SETTLED_MS,
            records: rng.between(5, 15),
            mix: Mix {
                null: 30,
                bad: if tight { 150 } else { rng.between(5, 60) },
                column: rng.between(20, 200),
                double: if rng.chance(400) { rng.between(1, 200) } else { 0 },
                pad: if fat { 4_000 } else { 40 },
            },
            chances: chances(rng, heavy),
            create_delay_ms: rng.between(0, 8_000),
            alter_delay_ms: rng.between(0, 20_000),
            dedupe_ms: 60_000,
            core: CoreSettings {
                body_bytes_max: if fat { 20_000 } else { 6_000 },
                memory_bytes_max: if fat { 16 * 1024 } else { 1 << 20 },
                retry: Backoff { first: ms(100), max: ms(8_000) },
                retry_slowly: Backoff { first: ms(2_000), max: ms(30_000) },
                halt_retry: ms(10_000),
            },
            registry_delay_ms: rng.between(0, 3_000),
            batch: BatchSettings {
                bytes_max: if fat { 12_000 } else { 4_500 },
                rows_max: rng.between(2, 24) as usize,
                linger_ms: rng.between(100, 2_000),
            },
            loading: Loading::draw(rng, fat),
            budget: if tight {
                BudgetSettings { ratio: 0.04, window: 50, run: 2 }
            } else {
                BudgetSettings { ratio: 1.0, window: 1_000, run: 100 }
            },
            letterless: rng.chance(150),
            write_timeout_ms: rng.between(3_000, 10_000),
            write_attempts: rng.between(1, 4) as u32,
            commit_timeout_ms: rng.between(2_000, 5_000),
            drain_ms: rng.between(1_000, 8_000),
            session_ms: rng.between(6_000, 10_000),
            rebalance_ms: 20_000,
            skew_ms: if rng.chance(500) { 3_600_000 } else { 0 },
        }
    }
}

fn chances(rng: &mut Rng, heavy: u64) -> Chances {
    let mut draw = |most: u64| rng.between(0, most * heavy);
    Chances {
        refuse: draw(60),
        fail_after: draw(30),
        lose_answer: draw(30),
        lose_request: draw(30),
        hold: draw(30),
        stop_rows: draw(30),
        table: draw(80),
        registry: draw(100),
        letter: draw(200),
        job: draw(80),
        commit_lost: draw(60),
        commit_late: draw(30),
        commit_refused: draw(60),
    }
}
