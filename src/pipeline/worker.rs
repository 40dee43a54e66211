//! One worker: a thread that encodes, and the requests it has on the wire.
//!
//! The thread waits for nothing but its inbox, its timers and the answers of its own tasks, which
//! run on the shared runtime. A task that panics ends the worker, and with it the process: what it
//! held stays uncommitted.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::mpsc, task::JoinSet};

use crate::{
    batch::LaneSlot,
    dead_letter::{DeadLetters, Reason},
    delivery::{
        action::{Action, BatchId, ChainKey, LetterId, LoadId, Stage, Write as WriteAction},
        core::{Core, CoreSettings, Pressure},
        encoder::NeedId,
    },
    fault::Fault,
    pipeline::{
        commit::Commits,
        dispatch::{FlowBoard, Message, Released},
        encoder::{Prepared, TopicEncoder, staging::KnownTopic},
        lag::Ages,
        loads::Loads,
        news,
        paths::Paths,
        prepare::Preparer,
        report::{Read, Report, letters::LetterLog},
    },
    source::{AssignedLane, Messages, OwnedLane},
    table::TableRef,
    telemetry::Telemetry,
    write::{
        Write, WriteOutcome, WriteRequest,
        load::{
            chain::{ChainId, Slot},
            job::LoadJob,
            run::JobEnd,
        },
        storage::{
            news::SchemaNews,
            pending::{Append, Series},
        },
    },
};

mod spent;

use spent::Spent;

/// What every worker shares.
#[derive(Clone)]
pub struct Shared {
    /// The write path.
    pub writer: Arc<dyn Write>,
    /// The dead-letter topic; `None` where no topic has one.
    pub letters: Option<Arc<dyn DeadLetters>>,
    /// Load jobs and their objects, and PENDING streams; `None` where no topic needs either.
    pub loads: Option<Arc<Loads>>,
    /// The write paths of the tables that choose theirs.
    pub paths: Arc<Paths>,
    /// Tables whose columns the write path has learned anew.
    pub news: Arc<SchemaNews>,
    /// Prepares plans.
    pub preparer: Arc<Preparer>,
    /// The commit loop.
    pub commits: Arc<Commits>,
    /// Pauses and resumes.
    pub flow: Arc<FlowBoard>,
    /// Counters and states.
    pub telemetry: Arc<Telemetry>,
    /// How old what waits is.
    pub ages: Arc<Ages>,
    /// What the log says of dead letters.
    pub letter_log: Arc<LetterLog>,
    /// Where the requests run.
    pub runtime: Handle,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// One of its tasks panicked: a defect of this service.
    #[error("a task failed; nothing it held is committed")]
    Task(#[from] tokio::task::JoinError),
}

/// The answer of a task.
enum Done {
    Written(BatchId, WriteOutcome),
    Lettered(LetterId, Result<(), Fault>),
    Prepared(NeedId, Result<Prepared, Box<Reason>>),
    Staged(BatchId, Result<String, Fault>),
    Appended(BatchId, Result<String, WriteOutcome>),
    Located(ChainKey, Result<Slot, Fault>),
    Loaded(ChainKey, LoadId, Result<JobEnd, Fault>),
    Discarded,
}

/// Lanes that are being drained, and who waits for it.
struct Drain {
    slots: Vec<LaneSlot>,
    done: std::sync::mpsc::SyncSender<()>,
}

/// One worker.
pub struct Worker<M> {
    index: usize,
    core: Core<TopicEncoder>,
    inbox: mpsc::Receiver<Message<M>>,
    tasks: JoinSet<Done>,
    lanes: HashMap<LaneSlot, OwnedLane>,
    drains: Vec<Drain>,
    spent: Vec<Spent>,
    report: Report,
    news_seen: u64,
    /// As the poll thread knows it.
    pressure: Pressure,
    shared: Shared,
    headers: Vec<u8>,
}

impl<M> std::fmt::Debug for Worker<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

/// A worker turns at least this often, so that its heartbeat and its report stay fresh.
const TURN: Duration = Duration::from_millis(500);

impl<M: Messages> Worker<M> {
    /// A worker without lanes.
    pub fn new(
        index: usize,
        encoder: TopicEncoder,
        settings: CoreSettings,
        inbox: mpsc::Receiver<Message<M>>,
        shared: Shared,
    ) -> Self {
        Self {
            index,
            core: Core::new(encoder, settings),
            inbox,
            tasks: JoinSet::new(),
            lanes: HashMap::new(),
            drains: Vec::new(),
            spent: Vec::new(),
            report: Report::new(
                index,
                Arc::clone(&shared.ages),
                Arc::clone(&shared.paths),
                Arc::clone(&shared.telemetry),
            )
            .with_letter_log(Arc::clone(&shared.letter_log)),
            news_seen: 0,
            pressure: Pressure::Free,
            shared,
            headers: Vec::new(),
        }
    }

    /// Works until the inbox is closed and nothing is under way any more.
    ///
    /// # Errors
    /// A task panicked.
    pub async fn run(mut self) -> Result<(), WorkerError> {
        loop {
            self.follow_paths();
            news::follow(&mut self.core, &self.shared.news, &mut self.news_seen);
            self.carry_out();
            let now = Instant::now();
            self.shared.telemetry.liveness.worker_turned(self.index, now);
            self.report.turn(&mut self.core, &self.lanes, now);
            let next = self.core.next_deadline().map_or(now + TURN, |due| due.min(now + TURN));
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next() => self.answer(done?),
                message = self.inbox.recv() => match message {
                    Some(message) => self.handle(message),
                    // All lanes were given up before the inbox was closed.
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(next.into()) => self.core.tick(Instant::now()),
            }
            self.finish_turn();
        }
    }

    fn follow_paths(&mut self) {
        for (table, is_staged) in self.core.encoder_mut().follow_paths() {
            self.core.switched(table, is_staged, Instant::now());
        }
    }

    fn finish_turn(&mut self) {
        let progress = self.core.progress();
        self.shared.commits.note(progress);
        self.pass_on_pressure();
        self.delete_spent();
        if self.core.encoder().wants_to_reclaim() {
            let in_use = self.core.slots_in_use().collect();
            self.core.encoder_mut().reclaim(&in_use);
        }
        let core = &self.core;
        self.drains.retain(|drain| {
            let done = drain.slots.iter().all(|slot| core.is_drained(*slot));
            if done {
                // Whoever waited may have given up at its deadline.
                drain.done.send(()).ok();
            }
            !done
        });
    }

    /// Tells the poll thread when this worker begins or ceases to hold it back.
    fn pass_on_pressure(&mut self) {
        let before = std::mem::replace(&mut self.pressure, self.core.pressure());
        if before == self.pressure {
            return;
        }
        let metrics = &self.shared.telemetry.metrics;
        match self.pressure {
            Pressure::Free => {}
            Pressure::Hold => metrics.holds.inc(),
            Pressure::Stop => metrics.stops.inc(),
        }
        let (held, holds) = (before == Pressure::Hold, self.pressure == Pressure::Hold);
        if held != holds {
            self.shared.flow.hold(holds);
        }
    }

    fn handle(&mut self, message: Message<M>) {
        match message {
            Message::Assign(slot, assigned) => self.assign(slot, &assigned),
            Message::Records(poll) => {
                poll.iter().for_each(|(slot, messages)| self.records(*slot, messages));
                self.core.intake_done(Instant::now());
            }
            Message::Resumed(slot) => self.core.resumed(slot),
            Message::Drain(slots, done) => {
                self.core.drain(&slots);
                self.drains.push(Drain { slots, done });
            }
            Message::Drop(slots, done) => {
                self.shared.commits.note(self.core.progress());
                self.core.drop_lanes(&slots);
                for slot in &slots {
                    if let Some(gone) = self.lanes.remove(slot) {
                        self.spent.retain(|spent| spent.lane != gone);
                    }
                }
                // The poll thread may have stopped waiting.
                done.send(()).ok();
            }
            Message::Release(lane, answer) => {
                let slot = self.lanes.iter().find(|(_, owned)| owned.lane == lane);
                let released = match slot.map(|(slot, _)| *slot) {
                    None => Released::NotOwned,
                    Some(slot) if self.core.release(slot, Instant::now()) => Released::Done,
                    Some(_) => Released::NotHalted,
                };
                answer.send(released).ok();
            }
        }
    }

    fn assign(&mut self, slot: LaneSlot, assigned: &AssignedLane) {
        let OwnedLane { lane, epoch } = assigned.lane.clone();
        self.lanes.insert(slot, assigned.lane.clone());
        // An id that the brokers do not tell this time is still the one that was committed.
        let before = assigned.metadata.as_ref().and_then(|before| before.topic_id.clone());
        let known = KnownTopic {
            id: assigned.topic_id.clone().or(before),
            partitions: assigned.topic_partitions.unwrap_or(1),
        };
        self.core.encoder_mut().learn_topic(&lane.topic, known);
        self.core.assign(slot, lane, epoch, assigned.start);
        if let Some(metadata) = &assigned.metadata {
            self.core.recall(slot, metadata.nodes.clone());
        }
        if assigned.genesis {
            self.shared.commits.note(self.core.progress_of(slot).into_iter().collect());
        }
    }

    fn records(&mut self, slot: LaneSlot, messages: &M) {
        let now = Instant::now();
        let mut read = Read::default();
        let wants_headers = self.core.wants_headers(slot);
        for index in 0..messages.len() {
            let headers = wants_headers.then_some(&mut self.headers);
            let Some(record) = messages.record(index, headers) else { break };
            read.note(self.core.record(slot, &record, now), record.bytes());
        }
        if let Some(owned) = self.lanes.get(&slot) {
            self.report.read(owned, read);
        }
    }

    fn answer(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Written(id, outcome) => {
                self.report.written(id, &outcome, now);
                self.core.written(id, outcome, now);
            }
            Done::Lettered(id, result) => {
                self.report.lettered(id, result.is_ok(), now);
                self.core.lettered(id, result, now);
            }
            Done::Prepared(need, Ok(prepared)) => {
                self.core.encoder_mut().install(need, prepared);
                self.core.prepared(need, Ok(()), now);
            }
            Done::Prepared(need, Err(reason)) => {
                self.core.encoder_mut().dismiss(need);
                self.core.prepared(need, Err(reason), now);
            }
            Done::Discarded => {}
            Done::Staged(id, result) => {
                self.report.staged(id, result.is_ok(), now);
                self.core.staged(id, result, now);
            }
            Done::Appended(id, result) => {
                self.report.appended(id, &result, now);
                self.core.appended(id, result, now);
            }
            Done::Located(key, result) => self.core.located(key, result, now),
            Done::Loaded(key, id, result) => {
                self.report.loaded(id, &result, now);
                self.core.loaded((key, id), result, now);
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.core.next_action() {
            match action {
                Action::Write(write) => self.write(write),
                Action::DeadLetter { id, letter } => self.letter(id, letter),
                Action::Prepare(need) => self.prepare(need),
                Action::Stage(stage) => self.stage(stage),
                Action::Append { id, append, series } => self.append(id, append, series),
                Action::Locate { key, chain, table, from } => self.locate(key, chain, table, from),
                Action::Load { id, key, job } => self.load(id, key, job),
                Action::Discard(slot, uris, committed) => self.discard(slot, uris, committed),
                Action::Restart(slot) => {
                    if let Some(owned) = self.lanes.get(&slot) {
                        self.shared.flow.restart(owned.clone());
                    }
                }
                Action::Pause(slot) => {
                    if let Some(owned) = self.lanes.get(&slot) {
                        self.shared.flow.pause(owned.clone());
                    }
                }
                Action::Resume(slot, offset) => {
                    if let Some(owned) = self.lanes.get(&slot) {
                        self.shared.flow.resume(owned.clone(), offset);
                    }
                }
            }
        }
    }

    fn write(&mut self, write: WriteAction) {
        self.report.writing(&write, Instant::now());
        let writer = Arc::clone(&self.shared.writer);
        let WriteAction { id, table, body, rows, form, .. } = write;
        let task = async move {
            crate::failpoint!("write_before_send");
            let outcome = writer.write(WriteRequest { table, body, rows, form }).await;
            crate::failpoint!("write_after_answer");
            Done::Written(id, outcome)
        };
        self.tasks.spawn_on(task, &self.shared.runtime);
    }

    fn letter(&mut self, id: LetterId, letter: crate::dead_letter::DeadLetter) {
        self.report.lettering(id, &letter);
        let letters = self.shared.letters.clone();
        let task = async move {
            crate::failpoint!("letter_before_send");
            let result = match letters {
                Some(letters) => letters.send(letter).await,
                None => Err(no_producer()),
            };
            crate::failpoint!("letter_after_ack");
            Done::Lettered(id, result)
        };
        self.tasks.spawn_on(task, &self.shared.runtime);
    }

    fn stage(&mut self, stage: Stage) {
        self.report.staging(&stage, Instant::now());
        let (loads, worker, id) = (self.shared.loads.clone(), self.index, stage.id);
        let task = async move {
            crate::failpoint!("stage_before_put");
            let result = match loads {
                Some(loads) => loads.stage(worker, stage).await,
                None => Err(no_loads()),
            };
            crate::failpoint!("stage_after_put");
            Done::Staged(id, result)
        };
        self.tasks.spawn_on(task, &self.shared.runtime);
    }

    fn append(&mut self, id: BatchId, append: Append, series: Arc<Series>) {
        self.report.appending(id, &append, Instant::now());
        let loads = self.shared.loads.clone();
        let task = async move {
            crate::failpoint!("append_before_send");
            let result = match loads {
                Some(loads) => loads.append(append, &series).await,
                None => Err(WriteOutcome::Refused(no_loads())),
            };
            crate::failpoint!("append_after_answer");
            Done::Appended(id, result)
        };
        self.tasks.spawn_on(task, &self.shared.runtime);
    }

    fn locate(&mut self, key: ChainKey, chain: ChainId, table: TableRef, from: Slot) {
        let loads = self.shared.loads.clone();
        let task = async move {
            let result = match loads {
                Some(loads) => loads.locate(&chain, &table, from).await,
                None => Err(no_loads()),
            };
            Done::Located(key, result)
        };
        self.tasks.spawn_on(task, &self.shared.runtime);
    }

    fn load(&mut self, id: LoadId, key: ChainKey, job: LoadJob) {
        self.report.loading(id, &job, Instant::now());
        let loads = self.shared.loads.clone();
        let task = async move {
            crate::failpoint!("load_before_insert");
            let result = match loads {
                Some(loads) => loads.run(&job).await,
                None => Err(no_loads()),
            };
            crate::failpoint!("load_after_done");
            Done::Loaded(key, id, result)
        };
        self.tasks.spawn_on(task, &self.shared.runtime);
    }

    fn prepare(&mut self, need: NeedId) {
        let Some(request) = self.core.encoder_mut().request(need) else { return };
        let preparer = Arc::clone(&self.shared.preparer);
        let task = async move { Done::Prepared(need, preparer.prepare(request).await) };
        self.tasks.spawn_on(task, &self.shared.runtime);
    }
}

/// Only a configuration without any dead-letter topic has no producer, and its core sends none.
fn no_producer() -> Fault {
    let kind = crate::fault::FaultKind::Transient;
    Fault::refused(kind, "noProducer", "there is no dead-letter producer")
}

/// Only a configuration without any topic that is loaded has none, and its core asks for none.
fn no_loads() -> Fault {
    let kind = crate::fault::FaultKind::Transient;
    Fault::refused(kind, "noBucket", "there is no bucket for load jobs")
}
