//! Which connection a request takes.
//!
//! Connections are shared by the tables of a dataset, which lie in one place, and one more is opened where all
//! that there are have enough to do. A table whose request has made BigQuery end a connection has one of its
//! own until a request of it was taken, so that it does not end the others' again and again.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    rpc::Rpc,
    table::TableRef,
    write::{
        WriteOutcome, WriteRequest,
        storage::{
            classify,
            connection::{self, Answer, Job, Load},
            news::SchemaNews,
        },
    },
};

/// Requests that wait for one connection.
const WAITING_MAX: usize = 16;

/// A connection with so many bytes under way has enough to do: BigQuery takes about 10 MB a second on one
/// (<https://docs.cloud.google.com/bigquery/docs/write-api-best-practices#limit_the_number_of_concurrent_connections>).
const ENOUGH_BYTES: usize = 2 << 20;

/// Those who share connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Dataset(Arc<str>, Arc<str>),
    Apart(TableRef),
}

#[derive(Clone)]
struct Handle {
    jobs: mpsc::Sender<Job>,
    load: Arc<Load>,
}

#[derive(Default)]
struct Connections {
    open: HashMap<Place, Vec<Handle>>,
    apart: HashSet<TableRef>,
    tasks: JoinSet<()>,
}

/// The connections of a process.
pub struct Pool {
    rpc: Arc<dyn Rpc>,
    news: Arc<SchemaNews>,
    connections_max: usize,
    connections: Mutex<Connections>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// No connection yet. Beyond `connections_max` there is one for each dataset, and for each table apart.
    /// What they hear of tables' columns goes to `news`.
    pub fn new(rpc: Arc<dyn Rpc>, connections_max: usize, news: Arc<SchemaNews>) -> Self {
        Self { rpc, news, connections_max, connections: Mutex::default() }
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        let mut connections = self.lock();
        connections.forget_closed();
        connections.open.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connections> {
        // Only whole entries are ever inserted.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request of protobuf rows and waits for what becomes of it.
    pub async fn send(&self, request: WriteRequest, schema: bytes::Bytes) -> WriteOutcome {
        let WriteRequest { table, body, rows, .. } = request;
        let (sender, answer) = oneshot::channel();
        let handle = self.choose(&table, body.len());
        let job = Job { table: table.clone(), schema, body, rows, answer: sender };
        if let Err(mpsc::error::SendError(job)) = handle.jobs.send(job).await {
            // It was closed in this very moment, for want of use: nothing was sent.
            handle.load.remove(job.body.len());
            return WriteOutcome::Refused(classify::closed());
        }
        let Ok(Answer { outcome, is_end }) = answer.await else {
            return WriteOutcome::Unknown(classify::lost(None));
        };
        self.learn(&table, &outcome, is_end);
        outcome
    }

    fn learn(&self, table: &TableRef, outcome: &WriteOutcome, is_end: bool) {
        let mut connections = self.lock();
        // That of a token is no table's.
        if is_end && !classify::is_token_refused(outcome) {
            connections.apart.insert(table.clone());
        } else if matches!(outcome, WriteOutcome::Acked) && !connections.apart.is_empty() {
            connections.apart.remove(table);
        }
    }

    /// The connection with the least to do, or a new one; `bytes` more are on their way to it.
    fn choose(&self, table: &TableRef, bytes: usize) -> Handle {
        let mut connections = self.lock();
        connections.forget_closed();
        let place = match connections.apart.contains(table) {
            true => Place::Apart(table.clone()),
            false => Place::Dataset(Arc::clone(&table.project), Arc::clone(&table.dataset)),
        };
        let all: usize = connections.open.values().map(Vec::len).sum();
        let known = connections.open.entry(place.clone()).or_default();
        let least = known.iter().min_by_key(|handle| (handle.load.is_late(), handle.load.bytes()));
        let is_enough = |handle: &&Handle| {
            let load = &handle.load;
            let is_idle = load.bytes() < ENOUGH_BYTES && !load.is_late();
            is_idle || all >= self.connections_max || matches!(place, Place::Apart(_))
        };
        if let Some(handle) = least.filter(is_enough) {
            handle.load.add(bytes);
            return handle.clone();
        }
        let (jobs, receiver) = mpsc::channel(WAITING_MAX);
        let handle = Handle { jobs, load: Arc::default() };
        handle.load.add(bytes);
        known.push(handle.clone());
        let (rpc, load) = (Arc::clone(&self.rpc), Arc::clone(&handle.load));
        let news = Arc::clone(&self.news);
        connections.tasks.spawn(connection::serve(rpc, receiver, load, news));
        handle
    }
}

impl Connections {
    fn forget_closed(&mut self) {
        self.open.retain(|_, handles| {
            handles.retain(|handle| !handle.jobs.is_closed());
            !handles.is_empty()
        });
        while self.tasks.try_join_next().is_some() {}
    }
}
