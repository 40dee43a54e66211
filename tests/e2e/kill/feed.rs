//! The producer: all lanes in turn, at a rate that makes the records last through all rounds.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::{Options, Stage, TOPICS};
use crate::rig::{avro::Schemas, clients::Sender, http::Http, simulator::Simulator, workload};

/// One record in so many is not Avro at all.
const POISON_EVERY: u64 = 1_000;
/// The shortest and longest time that the rate is worked off in one go.
const TICK: Duration = Duration::from_millis(20);

/// The producer's thread and what it is told.
pub(crate) struct Feed {
    orders: Arc<Orders>,
    schemas: Mutex<Schemas>,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
}

struct Orders {
    records: u64,
    /// Of each topic.
    partitions: u64,
    seed: u64,
    rate: AtomicU64,
    produced: AtomicU64,
    stopped: AtomicBool,
    writer: Mutex<Writer>,
}

/// The schema in use: its version, and its id for each topic.
#[derive(Clone, Copy, Debug)]
struct Writer {
    version: u32,
    ids: [u32; TOPICS.len()],
}

impl Feed {
    /// Starts producing slowly.
    pub(crate) fn start(stage: &Stage, address: &str, options: &Options) -> Result<Self> {
        let mut schemas = Schemas::default();
        let writer = register(&stage.simulator, &stage.http, 0, &mut schemas)?;
        let rounds = options.rounds + options.zombies + options.faults;
        let orders = Arc::new(Orders {
            records: options.records,
            partitions: u64::try_from(options.partitions)?,
            seed: options.seed,
            rate: AtomicU64::new((options.records / u64::from(rounds.max(1)) / 40).max(200)),
            produced: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            writer: Mutex::new(writer),
        });
        let sender = Sender::new(address)?;
        let theirs = Arc::clone(&orders);
        let thread = thread::spawn(move || produce(&theirs, &sender));
        Ok(Self { orders, schemas: Mutex::new(schemas), thread: Mutex::new(Some(thread)) })
    }

    /// Records per second from now on.
    pub(crate) fn set_rate(&self, rate: u64) {
        self.orders.rate.store(rate.max(50), Ordering::Relaxed);
    }

    /// Records that are not produced yet.
    pub(crate) fn left(&self) -> u64 {
        self.orders.records - self.orders.produced.load(Ordering::Relaxed)
    }

    /// From now on each record has one more field.
    pub(crate) fn evolve(&self, stage: &Stage) -> Result<u32> {
        let version = lock(&self.orders.writer).version + 1;
        let writer = register(&stage.simulator, &stage.http, version, &mut lock(&self.schemas))?;
        *lock(&self.orders.writer) = writer;
        Ok(version)
    }

    /// Produces the rest without a brake and waits for the end; how many there are.
    pub(crate) fn finish(&self) -> Result<u64> {
        self.set_rate(u64::MAX / 2);
        let Some(thread) = lock(&self.thread).take() else { return Ok(self.orders.records) };
        thread.join().map_err(|_| anyhow!("the producer panicked"))??;
        Ok(self.orders.records)
    }

    /// The schemas that were written with.
    pub(crate) fn schemas(&self) -> Schemas {
        lock(&self.schemas).clone()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.orders.stopped.store(true, Ordering::Relaxed);
    }
}

/// Whether a value was made to be refused.
pub(crate) fn is_poison(value: &[u8]) -> bool {
    value.first() != Some(&0)
}

fn register(
    simulator: &Simulator,
    http: &Http,
    version: u32,
    schemas: &mut Schemas,
) -> Result<Writer> {
    let text = workload::schema(version);
    let mut ids = [0; TOPICS.len()];
    for (id, topic) in ids.iter_mut().zip(TOPICS) {
        *id = simulator.register(http, &format!("{topic}-value"), &text)?;
        schemas.add(*id, &text)?;
    }
    Ok(Writer { version, ids })
}

fn produce(orders: &Orders, sender: &Sender) -> Result<()> {
    let mut value = Vec::new();
    let mut index = 0;
    while index < orders.records && !orders.stopped.load(Ordering::Relaxed) {
        let began = Instant::now();
        let rate = orders.rate.load(Ordering::Relaxed);
        let share = (rate / 50).clamp(1, 2_000).min(orders.records - index);
        let writer = *lock(&orders.writer);
        for index in index..index + share {
            let (topic, partition) = lane_of(index, orders.partitions);
            make(&mut value, (writer, topic), orders.seed, index);
            sender.send((TOPICS[topic], partition), Some(&index.to_be_bytes()), Some(&value))?;
        }
        index += share;
        orders.produced.store(index, Ordering::Relaxed);
        sender.poll();
        if rate < 100_000 {
            thread::sleep(TICK.saturating_sub(began.elapsed()));
        }
    }
    sender.flush()
}

fn make(value: &mut Vec<u8>, (writer, topic): (Writer, usize), seed: u64, index: u64) {
    if index % POISON_EVERY == POISON_EVERY - 1 {
        value.clear();
        value.extend_from_slice(b"\x07this is no Avro");
        return;
    }
    workload::encode(value, writer.ids[topic], writer.version, seed, index);
}

/// Neighbours go to different topics; a stride apart from both counts spreads the poison.
fn lane_of(index: u64, partitions: u64) -> (usize, i32) {
    let lanes = TOPICS.len() as u64 * partitions;
    let lane = (index + index / lanes) % lanes;
    ((lane % TOPICS.len() as u64) as usize, (lane / TOPICS.len() as u64) as i32)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
