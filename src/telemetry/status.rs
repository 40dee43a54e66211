//! The status board: what each lane and table does at this moment, and why.
//!
//! Plain structures behind locks that are held for a copy, never across an await. The board holds
//! as many entries as the process owns partitions and writes tables.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde::Serialize;

use super::trouble::{Subject, Teller, Trouble, Troubles};

/// What a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneState {
    /// Its start position is being found.
    Recovering,
    /// It is read.
    Running,
    /// It is not read because too much is in flight.
    Paused,
    /// Rows wait for a remote: a schema change, a quota, a permission.
    Waiting,
    /// It is read, and its rows are staged for a load job that is not due yet, or not done.
    Loading,
    /// It is not read until its cause passes or an operator releases it.
    Halted,
    /// It is being given back: nothing new is read, what is in flight is settled.
    Draining,
}

impl LaneState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Recovering,
        Self::Running,
        Self::Paused,
        Self::Waiting,
        Self::Loading,
        Self::Halted,
        Self::Draining,
    ];

    /// The name used in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recovering => "recovering",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::Loading => "loading",
            Self::Halted => "halted",
            Self::Draining => "draining",
        }
    }
}

/// What a table does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    /// Rows are written.
    Ready,
    /// It is being created.
    Creating,
    /// A schema change is on its way.
    Altering,
    /// A schema change was accepted and is not visible to writes yet.
    WaitingSchema,
    /// BigQuery asked to slow down, or a quota is used up.
    Throttled,
    /// A permission, the project's billing or the credentials are missing.
    Denied,
    /// Nothing is written: it does not exist, and policy refuses to create it.
    Halted,
}

impl TableState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Ready,
        Self::Creating,
        Self::Altering,
        Self::WaitingSchema,
        Self::Throttled,
        Self::Denied,
        Self::Halted,
    ];

    /// The name used in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Creating => "creating",
            Self::Altering => "altering",
            Self::WaitingSchema => "waiting_schema",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::Halted => "halted",
        }
    }
}

/// The last thing that went wrong with a lane or a table. Holds no value of any record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// Where in the service: `decode`, `transcode`, `schema`, `write`, `commit`, ….
    pub stage: String,
    /// The field's path, where the error has one.
    pub field: Option<String>,
    /// One sentence.
    pub message: String,
    /// What a person can do about it.
    pub remedy: Option<String>,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
}

/// One lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    /// The topic.
    #[serde(serialize_with = "text")]
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// What it does.
    pub state: LaneState,
    /// The assignment's epoch: grows with every time this process gets the partition.
    pub epoch: u64,
    /// The offset that is read next.
    pub next_offset: Option<i64>,
    /// Where this assignment began to read: until the first commit it stands for it.
    #[serde(skip)]
    pub start_offset: Option<i64>,
    /// The offset that Kafka has accepted.
    pub committed_offset: Option<i64>,
    /// The end of the partition as last seen.
    pub high_watermark: Option<i64>,
    /// Records between the committed offset and the end; none while that is unknown.
    pub lag: Option<i64>,
    /// Records read and not acknowledged.
    pub in_flight_records: u64,
    /// Bytes read and not acknowledged.
    pub in_flight_bytes: u64,
    /// The fingerprint of the topic's configuration.
    pub config: Option<String>,
    /// The fingerprint in the commit that the assignment began with, where it was another one.
    pub config_before: Option<String>,
    /// Since when it has been in this state, in milliseconds since the epoch.
    pub since_ms: i64,
    /// When it tries again by itself, in milliseconds since the epoch: where it is halted for a
    /// cause that can pass.
    pub next_try_ms: Option<i64>,
    /// Whether the source holds it back: then nothing that is still in flight changes its state.
    #[serde(skip)]
    pub held_by_source: bool,
    /// Why it is in this state, where that is not plain.
    pub reason: Option<String>,
    /// What keeps it from moving at this moment.
    pub troubles: Troubles,
    /// The last error.
    pub last_error: Option<LastError>,
}

impl LaneStatus {
    /// A lane that has just been assigned.
    pub fn new(topic: Arc<str>, partition: i32, epoch: u64, now_ms: i64) -> Self {
        Self {
            topic,
            partition,
            state: LaneState::Recovering,
            epoch,
            next_offset: None,
            start_offset: None,
            committed_offset: None,
            high_watermark: None,
            lag: None,
            in_flight_records: 0,
            in_flight_bytes: 0,
            config: None,
            config_before: None,
            since_ms: now_ms,
            next_try_ms: None,
            held_by_source: false,
            reason: None,
            troubles: Troubles::default(),
            last_error: None,
        }
    }

    /// Moves to `state` for `reason`; the clock restarts only where the state changes.
    pub fn enter(&mut self, state: LaneState, reason: Option<String>, now_ms: i64) {
        if self.held_by_source {
            return;
        }
        if self.state != state {
            self.state = state;
            self.since_ms = now_ms;
        }
        self.reason = reason;
    }
}

/// The write path that a table has chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathStatus {
    /// `streaming`, `storage` or `load`.
    pub path: &'static str,
    /// Why, with the figures.
    pub reason: String,
    /// Since when it has been this one, in milliseconds since the epoch.
    pub since_ms: i64,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableStatus {
    /// `project.dataset.table`.
    #[serde(serialize_with = "text")]
    pub name: Arc<str>,
    /// What it does.
    pub state: TableState,
    /// Counts the versions of its schema that this process has seen.
    pub schema_version: u64,
    /// The last change to its schema, in words.
    pub last_change: Option<String>,
    /// When that was, in milliseconds since the epoch.
    pub last_change_ms: Option<i64>,
    /// Rows that wait for a column, the table or a permission.
    pub waiting_rows: u64,
    /// The write path of its rows, where the table chooses it (`write: auto`).
    pub path: Option<PathStatus>,
    /// Since when it has been in this state, in milliseconds since the epoch.
    pub since_ms: i64,
    /// What keeps rows from it at this moment.
    pub troubles: Troubles,
    /// The last error.
    pub last_error: Option<LastError>,
}

impl TableStatus {
    /// A table that has not been looked at yet.
    pub fn new(name: Arc<str>, now_ms: i64) -> Self {
        Self {
            name,
            state: TableState::Creating,
            schema_version: 0,
            last_change: None,
            last_change_ms: None,
            waiting_rows: 0,
            path: None,
            since_ms: now_ms,
            troubles: Troubles::default(),
            last_error: None,
        }
    }

    /// Moves to `state`; the clock restarts only where the state changes.
    pub fn enter(&mut self, state: TableState, now_ms: i64) {
        if self.state != state {
            self.state = state;
            self.since_ms = now_ms;
        }
    }
}

/// A broker that does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BrokerStatus {
    /// `host:port`.
    pub broker: String,
    /// Since when, in milliseconds since the epoch.
    pub since_ms: i64,
    /// Why, in the client's words.
    pub reason: String,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessStatus {
    /// The version.
    pub version: &'static str,
    /// When it started, in milliseconds since the epoch.
    pub started_ms: i64,
    /// Whether it is a member of the group and not shutting down.
    pub ready: bool,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// The brokers that do not answer its consumer.
    pub unreachable_brokers: Vec<BrokerStatus>,
    /// What the process misses, by what it concerns: an entry of the configuration, say.
    pub troubles: BTreeMap<String, Trouble>,
}

/// A copy of the board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// The process.
    pub process: ProcessStatus,
    /// Every lane, by topic and partition.
    pub lanes: Vec<LaneStatus>,
    /// Every table, by name.
    pub tables: Vec<TableStatus>,
}

/// The board itself.
#[derive(Debug)]
pub struct Status {
    process: RwLock<ProcessStatus>,
    lanes: RwLock<BTreeMap<(Arc<str>, i32), LaneStatus>>,
    tables: RwLock<BTreeMap<Arc<str>, TableStatus>>,
}

impl Status {
    /// An empty board of a process that is starting.
    pub fn new(version: &'static str, now_ms: i64) -> Self {
        let reason = Some("starting".to_owned());
        Self {
            process: RwLock::new(ProcessStatus {
                version,
                started_ms: now_ms,
                ready: false,
                reason,
                unreachable_brokers: Vec::new(),
                troubles: BTreeMap::new(),
            }),
            lanes: RwLock::default(),
            tables: RwLock::default(),
        }
    }

    /// The process takes part in the group: `/readyz` answers 200.
    pub fn ready(&self) {
        let mut process = write(&self.process);
        process.ready = true;
        process.reason = None;
    }

    /// The process does not, or no longer, take part: `/readyz` answers 503 with the reason.
    pub fn not_ready(&self, reason: impl Into<String>) {
        let mut process = write(&self.process);
        process.ready = false;
        process.reason = Some(reason.into());
    }

    /// These brokers do not answer, all others do.
    pub fn unreachable(&self, brokers: Vec<BrokerStatus>) {
        write(&self.process).unreachable_brokers = brokers;
    }

    /// Puts up, or takes down, what the process misses. `what` names one of few things, never a record's.
    pub fn process_trouble(&self, what: &str, trouble: Option<Trouble>) {
        let mut process = write(&self.process);
        let Some(trouble) = trouble else {
            process.troubles.remove(what);
            return;
        };
        let known = process.troubles.get(what).filter(|known| known.cause == trouble.cause);
        let since_ms = known.map_or(trouble.since_ms, |known| known.since_ms);
        process.troubles.insert(what.to_owned(), Trouble { since_ms, ..trouble });
    }

    /// Puts up, or takes down, `teller`'s trouble of a lane.
    pub fn lane_trouble(
        &self,
        topic: &Arc<str>,
        partition: i32,
        teller: Teller,
        trouble: Option<Trouble>,
    ) {
        self.update_lane(topic, partition, |lane| lane.troubles.tell(teller, trouble));
    }

    /// `teller`'s trouble of a table.
    pub fn table_trouble(&self, table: &str, teller: Teller) -> Option<Trouble> {
        read(&self.tables).get(table)?.troubles.of(teller).cloned()
    }

    /// Everything that does not move at this moment, and why.
    pub fn troubles(&self) -> Vec<(Subject, Trouble)> {
        let mut all = Vec::new();
        for (what, trouble) in &read(&self.process).troubles {
            all.push((Subject::Process(what.clone()), trouble.clone()));
        }
        for lane in read(&self.lanes).values() {
            let (topic, partition) = (&lane.topic, lane.partition);
            let subject = || Subject::Partition { topic: topic.to_string(), partition };
            all.extend(lane.troubles.iter().map(|trouble| (subject(), trouble.clone())));
        }
        for table in read(&self.tables).values() {
            let subject = || Subject::Table(table.name.to_string());
            all.extend(table.troubles.iter().map(|trouble| (subject(), trouble.clone())));
        }
        all
    }

    /// Whether the board has it.
    pub fn has(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Partition { topic, partition } => {
                read(&self.lanes).contains_key(&(topic.as_str().into(), *partition))
            }
            Subject::Table(table) => read(&self.tables).contains_key(table.as_str()),
            Subject::Process(_) => true,
        }
    }

    /// Puts up or replaces a lane.
    pub fn put_lane(&self, lane: LaneStatus) {
        write(&self.lanes).insert((Arc::clone(&lane.topic), lane.partition), lane);
    }

    /// Changes a lane in place; nothing happens if it is not on the board.
    pub fn update_lane(
        &self,
        topic: &Arc<str>,
        partition: i32,
        change: impl FnOnce(&mut LaneStatus),
    ) {
        if let Some(lane) = write(&self.lanes).get_mut(&(Arc::clone(topic), partition)) {
            change(lane);
        }
    }

    /// A copy of a lane, if it is on the board.
    pub fn lane(&self, topic: &Arc<str>, partition: i32) -> Option<LaneStatus> {
        read(&self.lanes).get(&(Arc::clone(topic), partition)).cloned()
    }

    /// Takes a lane off the board.
    pub fn remove_lane(&self, topic: &Arc<str>, partition: i32) {
        write(&self.lanes).remove(&(Arc::clone(topic), partition));
    }

    /// Changes a table, put up on first use.
    pub fn update_table(
        &self,
        name: &Arc<str>,
        now_ms: i64,
        change: impl FnOnce(&mut TableStatus),
    ) {
        let mut tables = write(&self.tables);
        let table = tables
            .entry(Arc::clone(name))
            .or_insert_with(|| TableStatus::new(Arc::clone(name), now_ms));
        change(table);
    }

    /// How many lanes are in each state, zeros included.
    pub fn lane_counts(&self) -> [(LaneState, i64); LaneState::ALL.len()] {
        let lanes = read(&self.lanes);
        LaneState::ALL.map(|state| {
            let count = lanes.values().filter(|lane| lane.state == state).count();
            (state, i64::try_from(count).unwrap_or(i64::MAX))
        })
    }

    /// Whether a lane that is neither halted nor waiting, nor loading, has records in flight: work that
    /// must move by itself. A load job is not due for an hour, and may wait for hours.
    pub fn has_work(&self) -> bool {
        let stands =
            |state| matches!(state, LaneState::Halted | LaneState::Waiting | LaneState::Loading);
        read(&self.lanes).values().any(|lane| lane.in_flight_records > 0 && !stands(lane.state))
    }

    /// The process alone, cheaply.
    pub fn process(&self) -> ProcessStatus {
        read(&self.process).clone()
    }

    /// A copy of everything.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            process: self.process(),
            lanes: read(&self.lanes).values().cloned().collect(),
            tables: read(&self.tables).values().cloned().collect(),
        }
    }
}

fn text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// A panic while the lock was held leaves at worst one field unchanged.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halted_lane_is_not_work_that_must_move() {
        let status = Status::new("0", 0);
        let topic: Arc<str> = "orders".into();
        status.put_lane(LaneStatus::new(Arc::clone(&topic), 0, 1, 5));
        assert!(!status.has_work());
        status.update_lane(&topic, 0, |lane| {
            lane.in_flight_records = 1;
            lane.enter(LaneState::Running, None, 6);
        });
        assert!(status.has_work());
        status.update_lane(&topic, 0, |lane| {
            lane.enter(LaneState::Halted, Some("budget".into()), 7);
        });
        assert!(!status.has_work());
        let lane = status.snapshot().lanes.remove(0);
        assert_eq!((lane.since_ms, lane.reason.as_deref()), (7, Some("budget")));
    }

    #[test]
    fn staying_in_a_state_keeps_its_clock() {
        let mut lane = LaneStatus::new("orders".into(), 0, 1, 5);
        lane.enter(LaneState::Recovering, Some("again".into()), 9);
        assert_eq!(lane.since_ms, 5);
    }

    #[test]
    fn names_agree_with_the_serialised_form() {
        for state in LaneState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        for state in TableState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}
