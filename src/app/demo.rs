//! `kcbq demo`: the service at work on an embedded Kafka and the simulator.

use std::{
    collections::BTreeSet,
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{
        demo::{feed::Feed, shop::PARTITIONS},
        service::Service,
    },
    config,
    ops::progress,
    sim::{self, SimOptions, Simulator},
    telemetry::Totals,
};

pub mod account;
pub mod feed;
pub mod shop;
pub mod show;

const GROUP: &str = "kcbq-demo";
const DEAD: &str = "kcbq.dead";
/// Records of one topic that are sent at a time.
const CHUNK: u64 = 2_000;
/// Records that may be ahead of the service: the embedded Kafka forgets what lies more than 5 MB
/// behind the end of a partition.
const AHEAD_MAX: u64 = 60_000;
/// Without progress for so long, the demo has failed.
const STALL: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(1);

/// What the demo does.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// Stay up at the end.
    pub keep: bool,
    /// Records in the backlog of each topic.
    pub records: u64,
}

/// Shows the service at work on an embedded Kafka and the simulator.
///
/// # Errors
///
/// A part does not start, or the result is not what was promised.
pub async fn demo(
    options: DemoOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    tokio::pin!(shutdown);
    let mut stage = Stage::set(options).await?;
    let mut service = stage.open().await?;
    let played = tokio::select! {
        played = stage.play(&mut service) => played,
        () = &mut shutdown => Err(anyhow::anyhow!("interrupted before the end")),
    };
    if let Err(error) = played {
        if let Err(also) = service.stop().await {
            tracing::warn!(error = format!("{also:#}"), "the service did not stop cleanly");
        }
        return Err(error);
    }
    if !options.keep {
        service.stop().await.context("the service did not stop cleanly")?;
        return stage.reckon();
    }
    stage.settled(&service).await;
    stage.reckon()?;
    show::section("Still running")?;
    show::line(&format!("  http://{}/status   /metrics   /readyz", service.admin_addr))?;
    show::line(&format!("  BigQuery simulator: http://{}", stage.simulator.rest_addr))?;
    show::line("  Ctrl-C ends it")?;
    shutdown.await;
    service.stop().await
}

/// Everything around the service.
struct Stage {
    options: DemoOptions,
    /// Dropping it ends the embedded Kafka.
    _kafka: MockCluster<'static, DefaultProducerContext>,
    brokers: String,
    simulator: sim::Running,
    feed: Feed,
    columns_before: BTreeSet<String>,
    elapsed: Duration,
    written: u64,
}

impl Stage {
    /// Starts Kafka and the simulator, and fills the topics with the first half.
    async fn set(options: DemoOptions) -> anyhow::Result<Self> {
        show::line("kcbq demo: Kafka (embedded) → kcbq → BigQuery (simulated), in one process")?;
        let kafka = MockCluster::new(1).context("the embedded Kafka does not start")?;
        for (topic, partitions) in
            [(shop::ORDERS, PARTITIONS), (shop::PAYMENTS, PARTITIONS), (DEAD, 1)]
        {
            kafka.create_topic(topic, partitions, 1)?;
        }
        let brokers = kafka.bootstrap_servers();
        let simulator = sim::serve(SimOptions::default(), CancellationToken::new()).await?;
        let registry = format!("http://{}", simulator.registry_addr);
        let poison = options.records * 3 / 4;
        let mut feed = Feed::new(&brokers, registry, poison).await?;
        let backlog = (options.records / 2).min(AHEAD_MAX / 2);
        block_in_place(|| feed.send(backlog))?;
        Ok(Self {
            options,
            _kafka: kafka,
            brokers,
            simulator,
            feed,
            columns_before: BTreeSet::new(),
            elapsed: Duration::ZERO,
            written: 0,
        })
    }

    /// Starts the service, from a configuration such as a user writes.
    async fn open(&self) -> anyhow::Result<Service> {
        let text = configuration(
            &self.brokers,
            &self.simulator.registry_addr.to_string(),
            &self.simulator.rest_addr.to_string(),
            &self.simulator.grpc_addr.to_string(),
        );
        show::section("Configuration")?;
        let indented: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
        show::line(&indented.join("\n"))?;
        let settings = config::parse(&text, &config::Process)?;
        Service::start(settings).await
    }

    /// Runs until every record is settled, with a schema change on the way.
    async fn play(&mut self, service: &mut Service) -> anyhow::Result<()> {
        show::section("Progress")?;
        let backlog = progress::grouped(self.feed.produced());
        show::line(&format!("  backlog: {backlog} orders (Avro) and {backlog} payments (JSON)"))?;
        let mut watch = Watch::new();
        while !self.both_tables_have_rows() {
            watch.look(service).await?;
        }
        self.columns_before = show::column_paths(&self.simulator.simulator);
        self.feed.upgrade().await?;
        show::line("  schema change: orders get address.postcode, payments get risk.*")?;
        while self.feed.produced() < self.options.records {
            let settled = watch.look(service).await?;
            if 2 * self.feed.produced() < settled + AHEAD_MAX {
                let count = CHUNK.min(self.options.records - self.feed.produced());
                block_in_place(|| self.feed.send(count))?;
            }
        }
        show::line("  all records are produced, one payment among them is broken")?;
        while watch.look(service).await? < 2 * self.options.records {}
        (self.elapsed, self.written) = watch.finish(service)?;
        Ok(())
    }

    fn both_tables_have_rows(&self) -> bool {
        let filled = |simulator: &Simulator| {
            simulator.with_core(|core, _| {
                core.bigquery().tables().filter(|(_, table)| table.store.count() > 0).count()
            })
        };
        filled(&self.simulator.simulator) >= 2
    }

    /// Waits, for a while at most, until everything is committed.
    async fn settled(&self, service: &Service) {
        for _ in 0..50 {
            if service.telemetry.totals().lag_records == Some(0) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(LINE_EVERY).await;
    }

    /// Shows the result and judges it.
    fn reckon(&self) -> anyhow::Result<()> {
        let simulator = &self.simulator.simulator;
        show::section("Tables")?;
        show::line(show::tables(simulator, &self.columns_before).trim_end())?;
        let (letters, accounts) = block_in_place(|| {
            let probe = account::probe(&self.brokers, GROUP)?;
            let letters = account::letters(&probe, DEAD)?;
            let accounts = account::accounts(&probe, simulator, &letters)?;
            anyhow::Ok((letters, accounts))
        })?;
        show::section("Dead letter")?;
        show::line(show::letters(&letters).trim_end())?;
        show::section("Offsets against rows")?;
        show::line(show::accounts(accounts.iter()).trim_end())?;
        let rate = (self.written as f64 / self.elapsed.as_secs_f64().max(0.001)) as u64;
        show::section("Result")?;
        let missing: u64 = accounts.values().map(|account| account.missing).sum();
        let twice: u64 = accounts.values().map(|account| account.twice).sum();
        show::line(&format!(
            "  {} rows in {:.1} s: {} rows per second{}",
            progress::grouped(self.written),
            self.elapsed.as_secs_f64(),
            progress::grouped(rate),
            if cfg!(debug_assertions) { " (not optimised: use --release)" } else { "" },
        ))?;
        ensure!(missing == 0, "{missing} records are missing");
        ensure!(twice == 0, "{twice} rows are there twice");
        ensure!(letters.len() == 1, "{} dead letters in place of one", letters.len());
        show::line("  nothing missing, nothing twice, one dead letter")
    }
}

/// Looks at the service, shows how far it is, and notices when it stands still.
struct Watch {
    since: Instant,
    /// The first rows were written before this.
    first: Option<(Instant, u64)>,
    moved: (Instant, u64),
    shown: (Instant, Totals),
}

impl Watch {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, first: None, moved: (now, 0), shown: (now, Totals::default()) }
    }

    /// Waits a moment; how many records are settled.
    async fn look(&mut self, service: &mut Service) -> anyhow::Result<u64> {
        tokio::select! {
            failed = service.failed() => failed?,
            () = tokio::time::sleep(LOOK) => {}
        }
        let (now, totals) = (Instant::now(), service.telemetry.totals());
        let settled = totals.rows_written + totals.dead_letters;
        if self.first.is_none() && totals.records_read > 0 {
            self.first = Some((now, totals.rows_written));
        }
        if settled != self.moved.1 {
            self.moved = (now, settled);
        }
        let stalled = now - self.moved.0 >= STALL;
        ensure!(!stalled, "the service stands still\n{}", troubles(service));
        if now - self.shown.0 >= LINE_EVERY {
            self.show(now, totals)?;
        }
        Ok(settled)
    }

    fn show(&mut self, now: Instant, totals: Totals) -> anyhow::Result<()> {
        let line = progress::line(&self.shown.1, &totals, now - self.shown.0);
        show::line(&format!("  {:>5.1} s  {line}", (now - self.since).as_secs_f64()))?;
        self.shown = (now, totals);
        Ok(())
    }

    /// The last line; the time since the first record was read, and the rows written in it.
    fn finish(mut self, service: &Service) -> anyhow::Result<(Duration, u64)> {
        let (now, totals) = (Instant::now(), service.telemetry.totals());
        let (from, before) = self.first.unwrap_or((self.since, 0));
        let written = totals.rows_written - before;
        self.show(now, totals)?;
        Ok((now - from, written))
    }
}

/// What `/status` says about lanes and tables that do not move.
fn troubles(service: &Service) -> String {
    let snapshot = service.telemetry.status.snapshot();
    let error = |error: &Option<crate::telemetry::LastError>| {
        error
            .as_ref()
            .map_or_else(String::new, |error| format!("{}: {}", error.stage, error.message))
    };
    let lanes = snapshot.lanes.iter().map(|lane| {
        let reason = lane.reason.as_deref().unwrap_or_default();
        let (state, error) = (lane.state.name(), error(&lane.last_error));
        format!("  {} [{}] {state} {reason} {error}", lane.topic, lane.partition)
    });
    let tables = snapshot.tables.iter().map(|table| {
        format!("  {} {} {}", table.name, table.state.name(), error(&table.last_error))
    });
    lanes.chain(tables).collect::<Vec<_>>().join("\n")
}

/// The short session is for the embedded Kafka, which lets a member wait for all of it.
fn configuration(brokers: &str, registry: &str, bigquery: &str, storage: &str) -> String {
    format!(
        r#"kafka:
  bootstrap_servers: "{brokers}"
  group_id: {GROUP}
  properties: {{session.timeout.ms: "6000", heartbeat.interval.ms: "500"}}
schema_registry: {{url: "http://{registry}"}}
bigquery:
  project: acme
  dataset: raw
  location: EU
  endpoint: "http://{bigquery}"
  storage_endpoint: "http://{storage}"
admin: {{listen: "127.0.0.1:0"}}
topics:
  - match: shop.orders
    value_format: avro
    key_format: string
    table: "{{topic}}"
    dead_letter: {DEAD}
  - match: shop.payments
    value_format: json
    table: "{{topic}}"
    dead_letter: {DEAD}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_valid() {
        let text = configuration("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4");
        let settings = config::parse(&text, &config::Process).unwrap();
        assert_eq!(settings.topics.len(), 2);
    }
}
