use std::{collections::BTreeSet, time::Instant as StdInstant};

use futures_util::{
    future::{BoxFuture, join_all},
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::time::timeout;

use super::*;
use crate::{
    fault::Fault,
    record::{Coordinates, TopicPartition},
};

/// A registry that takes a second for each answer.
#[derive(Default)]
struct Slow {
    asked: Mutex<Vec<u32>>,
    known: Mutex<BTreeSet<u32>>,
    is_away: Mutex<bool>,
}

impl Slow {
    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Registry for Slow {
    fn schema(&self, id: u32) -> BoxFuture<'_, Result<RegisteredSchema, RegistryError>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(id);
            sleep(Duration::from_secs(1)).await;
            if *self.is_away.lock().unwrap() {
                return Err(Fault::refused(FaultKind::Transient, "connect", "away").into());
            }
            if !self.known.lock().unwrap().contains(&id) {
                return Err(RegistryError::UnknownId { id });
            }
            let text = r#"{"type":"record","name":"r","fields":[{"name":"a","type":"long"}]}"#;
            Ok(RegisteredSchema {
                id,
                format: "AVRO".into(),
                text: text.into(),
                references: vec![],
            })
        })
    }

    fn address(&self) -> &str {
        "http://registry.example"
    }
}

const WAIT: Duration = Duration::from_secs(300);

fn schemas(registry: &Arc<Slow>) -> (WriterSchemas, Arc<Telemetry>) {
    let telemetry = Arc::new(Telemetry::new(1, StdInstant::now(), 0).unwrap());
    let registry = Arc::clone(registry) as Arc<dyn Registry>;
    (WriterSchemas::new(Some(registry), WAIT, Arc::clone(&telemetry)), telemetry)
}

/// A record that was written so long ago.
fn written(ago: Duration) -> First {
    let at = Coordinates { lane: TopicPartition::new("orders", 2), offset: 17 };
    let ago = i64::try_from(ago.as_millis()).unwrap();
    First { at, timestamp_ms: Some(now_ms() - ago) }
}

#[tokio::test(start_paused = true)]
async fn an_id_is_looked_up_once_for_all_who_wait_and_then_never_again() {
    let registry = Arc::<Slow>::default();
    registry.known.lock().unwrap().insert(7);
    let (schemas, _) = schemas(&registry);
    let way = Way::default();
    let all = join_all((0..100).map(|_| schemas.avro(7, None, &way))).await;
    assert!(all.iter().all(Result::is_ok));
    schemas.avro(7, None, &way).await.unwrap();
    assert_eq!(registry.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_is_waited_for_as_long_as_the_record_is_young_and_then_refused_at_once() {
    let registry = Arc::<Slow>::default();
    let (schemas, telemetry) = schemas(&registry);
    let (way, first) = (Way::default(), written(Duration::from_secs(60)));
    let began = Instant::now();
    let refused = schemas.avro(9, Some(&first), &way).await.unwrap_err();
    let waited = began.elapsed().as_secs();
    assert!((239..=245).contains(&waited), "{waited} s");
    assert_eq!((refused.stage, refused.schema_id), (Stage::Decode, Some(9)));
    assert!(refused.message.contains("http://registry.example"), "{}", refused.message);
    let asked = registry.asked();
    assert!(asked < 30, "{asked} look-ups");
    // The next record of it is refused without a look-up, and later by one look-up, without a wait.
    schemas.avro(9, Some(&written(Duration::ZERO)), &way).await.unwrap_err();
    assert_eq!(registry.asked(), asked);
    sleep(Duration::from_secs(11)).await;
    let began = Instant::now();
    schemas.avro(9, Some(&written(Duration::ZERO)), &way).await.unwrap_err();
    assert_eq!((registry.asked(), began.elapsed().as_secs()), (asked + 1, 1));
    // Registered at last.
    registry.known.lock().unwrap().insert(9);
    sleep(Duration::from_secs(11)).await;
    schemas.avro(9, None, &way).await.unwrap();
    let waiting = telemetry.metrics.waiting_schema_ids.with_label_values(&["schema"]);
    assert_eq!((waiting.get(), way.obstacle()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn an_old_record_is_not_waited_for_anew_by_each_process_that_reads_it() {
    let registry = Arc::<Slow>::default();
    let (schemas, _) = schemas(&registry);
    let (way, first) = (Way::default(), written(Duration::from_hours(1)));
    let began = Instant::now();
    schemas.avro(9, Some(&first), &way).await.unwrap_err();
    let waited = began.elapsed();
    assert!(waited >= WAIT_MIN && waited < WAIT_MIN + Duration::from_secs(3), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_waited_for_is_told_by_its_cause_to_everyone_who_waits() {
    let registry = Arc::<Slow>::default();
    *registry.is_away.lock().unwrap() = true;
    let (schemas, telemetry) = schemas(&registry);
    let (first, ways) = (written(Duration::ZERO), [Way::default(), Way::default()]);
    let cause = || ways.clone().map(|way| way.obstacle().map(|obstacle| obstacle.cause));
    let gauge = |cause| telemetry.metrics.waiting_schema_ids.with_label_values(&[cause]).get();
    let mut all: FuturesUnordered<_> =
        ways.iter().map(|way| schemas.avro(9, Some(&first), way)).collect();
    timeout(Duration::from_secs(2), all.next()).await.unwrap_err();
    assert_eq!(cause(), [Some(Cause::Registry); 2]);
    assert_eq!(gauge("registry"), 1);
    *registry.is_away.lock().unwrap() = false;
    timeout(Duration::from_secs(5), all.next()).await.unwrap_err();
    assert_eq!(cause(), [Some(Cause::Schema); 2]);
    assert_eq!((gauge("registry"), gauge("schema")), (0, 1));
    let told = ways[0].obstacle().unwrap();
    assert!(
        told.message.contains("schema id 9")
            && told.remedy.as_ref().unwrap().contains("unknown_id_wait")
    );
    registry.known.lock().unwrap().insert(9);
    while let Some(found) = all.next().await {
        found.unwrap();
    }
    assert_eq!((cause(), gauge("schema")), ([None; 2], 0));
}

#[tokio::test(start_paused = true)]
async fn one_who_follows_takes_over_when_the_leader_is_gone() {
    let registry = Arc::<Slow>::default();
    registry.known.lock().unwrap().insert(7);
    let (schemas, _) = schemas(&registry);
    let way = Way::default();
    let mut leader = Box::pin(schemas.avro(7, None, &way));
    timeout(Duration::from_millis(100), &mut leader).await.unwrap_err();
    let mut follower = Box::pin(schemas.avro(7, None, &way));
    timeout(Duration::from_millis(100), &mut follower).await.unwrap_err();
    assert_eq!(registry.asked(), 1);
    drop(leader);
    follower.await.unwrap();
    assert_eq!(registry.asked(), 2);
}

#[test]
fn what_is_kept_is_bounded_by_bytes_and_the_last_stays() {
    let mut kept = Kept::new(10_000);
    for id in 0..100 {
        kept.keep(id, id, 1_000);
    }
    let left: Vec<u32> = (0..100).filter(|id| kept.get(*id).is_some()).collect();
    assert_eq!(left, (93..100).collect::<Vec<_>>());
    kept.keep(7, 7, 1 << 30);
    assert_eq!(kept.get(7), Some(&7));
    kept.keep(8, 8, 1);
    assert_eq!((kept.get(7), kept.get(8)), (None, Some(&8)));
}

#[test]
fn refused_ids_are_forgotten_in_the_end() {
    let mut refusals = Refusals::default();
    for id in 0..20_000 {
        refusals.keep(id, refusal(Stage::Decode, "unknown".into(), id));
    }
    let left = (0..20_000).filter(|id| refusals.get(*id).is_some()).count();
    assert_eq!((left, refusals.get(19_999).is_some()), (4_096, true));
}

#[test]
fn the_bound_of_the_walk_is_that_of_the_parser() {
    assert_eq!(crate::registry::TEXT_BYTES_MAX, avro::TEXT_BYTES_MAX);
}
