//! One virtual day of many partitions that load jobs bring into one table, within its daily quota.

use super::{
    plan::{Chances, Loading, Mix, Plan},
    rng::Rng,
    world::run_plan,
};
use crate::pipeline::settings::WriteMode;

const DAY_MS: u64 = 86_400_000;
const PARTITIONS: i32 = 64;
/// What BigQuery allows a table in a day (<https://docs.cloud.google.com/bigquery/quotas#load_jobs>).
const JOBS_MAX: usize = 1_500;

fn plan(rng: &mut Rng) -> Plan {
    let usual = Plan::draw(rng);
    Plan {
        replicas: 3,
        partitions: [PARTITIONS, 0, 0],
        calm: true,
        slowness: 10,
        heal_ms: DAY_MS,
        // Two jobs of a partition, as far apart as the quota asks for.
        settled_ms: 9_000_000,
        records: 300,
        mix: Mix { null: 0, bad: 0, column: 0, double: 0, pad: 40 },
        chances: Chances::default(),
        loading: Loading {
            has_bucket: true,
            has_storage: true,
            topics: [WriteMode::Load; 3],
            switch: 0,
            pending_ms: 2_000,
            running_ms: 5_000,
            object_bytes: 100_000,
            freshness_ms: 900_000,
            jobs_per_table_day: JOBS_MAX as u32,
        },
        letterless: false,
        session_ms: 45_000,
        rebalance_ms: 60_000,
        skew_ms: 0,
        ..usual
    }
}

#[test]
fn sixty_four_partitions_stay_within_a_days_quota_of_jobs() {
    let report = run_plan(1, plan, None, false);
    let failed: Vec<_> = report.jobs.iter().filter_map(|(_, reason)| reason.as_deref()).collect();
    let first_day = report.jobs.iter().filter(|(at, _)| *at < DAY_MS).count();
    println!("{first_day} load jobs in a day, {} failed", failed.len());
    assert_eq!(report.violations.first(), None);
    assert_eq!(failed.first(), None, "{} failed", failed.len());
    assert!((1_000..=JOBS_MAX).contains(&first_day), "{first_day}");
}
