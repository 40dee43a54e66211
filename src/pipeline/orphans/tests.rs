//! Sweeps over the simulator's Cloud Storage, in paused time.

use tokio::time::Instant;

use super::*;
use crate::{
    fault::FaultKind,
    gcp::objects::Bucket,
    record::TopicPartition,
    sim::{
        faults::{FaultAction, FaultRule, FaultScript},
        memory::SimRest,
        settings::SimSettings,
        simulator::Simulator,
    },
    table::TableRef,
    write::load::chain::{ChainId, ChainOf},
};

const DAY: Duration = Duration::from_hours(24);
const OWN: &str = "00000000000000aa";
const OTHER: &str = "00000000000000bb";

/// A bucket whose clock is tokio's, begun in November 2023.
struct Scene {
    sim: Simulator,
    bucket: Arc<Bucket>,
    telemetry: Arc<Telemetry>,
    start: Instant,
}

impl Scene {
    fn new() -> Self {
        let start = Instant::now();
        let clock = Arc::new(move || at(start));
        let sim = Simulator::new(SimSettings::default(), clock);
        let bucket = Arc::new(Bucket::new(Arc::new(SimRest(sim.clone())), "staging"));
        let telemetry = Telemetry::new(1, start.into_std(), 0).unwrap();
        Self { sim, bucket, telemetry: Arc::new(telemetry), start }
    }

    fn orphans(&self) -> Orphans {
        let objects = Arc::clone(&self.bucket) as Arc<dyn Objects>;
        let telemetry = Arc::clone(&self.telemetry);
        Orphans::new(objects, "kcbq/".to_owned(), OWN.to_owned(), 7 * DAY, telemetry)
    }

    fn now_ms(&self) -> i64 {
        at(self.start).as_millis() as i64
    }

    async fn put(&self, name: &str) {
        self.bucket.put(name, vec!["row".into()]).await.unwrap();
    }

    fn names(&self) -> Vec<String> {
        let names = |core: &mut crate::sim::core::Core| {
            core.gcs.objects("staging").map(|(name, _)| name.to_owned()).collect()
        };
        self.sim.with_core(|core, _| names(core))
    }

    fn deleted(&self) -> u64 {
        self.telemetry.metrics.orphans_deleted.get()
    }

    fn refuse(&self, operation: &str, table: Option<String>) {
        let fault = FaultAction::Refuse {
            status: 403,
            reason: "forbidden".to_owned(),
            message: "no".to_owned(),
        };
        let rule = FaultRule {
            operation: operation.to_owned(),
            table,
            nth: None,
            every: None,
            probability: None,
            times: None,
            fault,
        };
        let script = FaultScript { seed: 0, rules: vec![rule] };
        self.sim.with_core(|core, _| core.set_faults(script));
    }
}

fn at(start: Instant) -> Duration {
    Duration::from_secs(1_700_000_000) + start.elapsed()
}

/// The name of an object that the process called `nonce` has staged.
fn staged(nonce: &str, number: u64) -> String {
    let lane = TopicPartition::new("orders", 0);
    let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() };
    let of = ChainOf { group: "g", lane: &lane, topic_id: None, table: &table, load_epoch: 0 };
    ChainId::new(&of).object("kcbq/", 0, (&format!("{nonce}-1"), number), ".avro")
}

#[tokio::test(start_paused = true)]
async fn what_other_processes_left_is_deleted_once_it_is_old_and_nothing_else() {
    let scene = Scene::new();
    let kept = [
        staged(OWN, 1),
        "kcbq/readme.txt".to_owned(),
        staged(OTHER, 2).replace("kcbq/kcbq", "else/kcbq"),
    ];
    scene.put(&staged(OTHER, 1)).await;
    for name in &kept {
        scene.put(name).await;
    }
    let mut orphans = scene.orphans();
    tokio::time::advance(3 * DAY).await;
    scene.put(&staged(OTHER, 3)).await;
    tokio::time::advance(4 * DAY).await;
    orphans.sweep(scene.now_ms()).await;
    assert_eq!(scene.names().len(), 5, "just a week old");
    tokio::time::advance(Duration::from_secs(1)).await;
    let swept = orphans.sweep(scene.now_ms()).await;
    assert!(swept.fault.is_none() && swept.deleted == 1, "{swept:?}");
    let mut left = [&kept[..], &[staged(OTHER, 3)]].concat();
    left.sort();
    assert_eq!((scene.names(), scene.deleted()), (left, 1));
    let behind = scene.now_ms() - 30 * DAY.as_millis() as i64;
    assert_eq!(orphans.sweep(behind).await.deleted, 0, "a clock that is behind");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_is_bounded_and_the_next_one_goes_on_behind_it() {
    let scene = Scene::new();
    for number in 0..2_100 {
        scene.put(&staged(OTHER, number)).await;
    }
    tokio::time::advance(8 * DAY).await;
    let mut orphans = scene.orphans();
    let mut deleted = Vec::new();
    while !scene.names().is_empty() && deleted.len() < 9 {
        deleted.push(orphans.sweep(scene.now_ms()).await.deleted);
    }
    assert_eq!(deleted, [1_000, 1_000, 100]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_deleted_stands_in_the_way_of_nothing() {
    let scene = Scene::new();
    scene.put(&staged(OTHER, 1)).await;
    scene.put(&staged(OTHER, 2)).await;
    tokio::time::advance(8 * DAY).await;
    scene.refuse("storage.objects.delete", Some(staged(OTHER, 1)));
    let mut orphans = scene.orphans();
    let swept = orphans.sweep(scene.now_ms()).await;
    assert_eq!(swept.fault.unwrap().kind, FaultKind::PermissionDenied);
    assert_eq!((scene.names(), scene.deleted()), (vec![staged(OTHER, 1)], 1));
    scene.refuse("storage.objects.list", None);
    assert!(orphans.sweep(scene.now_ms()).await.fault.is_some());
}

#[tokio::test(start_paused = true)]
async fn it_sweeps_now_and_then_until_it_is_told_to_stop() {
    let scene = Scene::new();
    scene.put(&staged(OTHER, 1)).await;
    let (stop, start) = (CancellationToken::new(), scene.start);
    let now_ms = move || at(start).as_millis() as i64;
    let swept = run(scene.orphans(), Jitter::seeded(1), now_ms, stop.clone());
    let watched = async {
        tokio::time::sleep(7 * DAY).await;
        assert_eq!(scene.deleted(), 0);
        tokio::time::sleep(2 * EVERY).await;
        assert_eq!(scene.deleted(), 1);
        stop.cancel();
    };
    tokio::join!(swept, watched);
}
