//! Jobs over time: `PENDING`, `RUNNING` with the objects read, `DONE` with the rows in the table.

use std::{mem, sync::Arc, time::Duration};

use crate::sim::{
    bigquery::{
        BigQuery,
        jobs::{
            Jobs,
            job::{Fate, Job, JobError, Outcome, State},
        },
        load::{
            Input,
            reading::{Read, Reading},
            source,
        },
    },
    counters::Counters,
    faults::{FaultAction, Faults},
    gcs::Gcs,
};

/// What a job reaches beside its table.
#[derive(Debug)]
pub struct JobWorld<'a> {
    /// Its objects.
    pub gcs: &'a Gcs,
    /// The fault script.
    pub faults: &'a mut Faults,
    /// What is counted.
    pub counters: &'a mut Counters,
}

impl BigQuery {
    /// Moves on whatever is due at `now`, each at its own time.
    pub(crate) fn run_jobs(&mut self, now: Duration, world: &mut JobWorld<'_>) {
        while let Some((at, number)) = self.jobs.next_due(now) {
            match self.jobs.known.get_mut(&number).map(|job| &mut job.state) {
                Some(State::Pending) => self.start(number, at, world),
                Some(State::Running(_)) if self.jobs.is_read_elsewhere => {
                    self.jobs.unread.push_back(number);
                }
                Some(State::Running(_)) => self.finish(number, at, world.counters),
                Some(State::Done(_)) | None => {}
            }
        }
    }

    fn start(&mut self, number: u64, at: Duration, world: &mut JobWorld<'_>) {
        let running = Duration::from_millis(self.settings.load.running_ms);
        let Jobs { known, due, held, .. } = &mut self.jobs;
        let Some(job) = known.get_mut(&number) else { return };
        if !mem::replace(&mut job.fate.decided, true) {
            let fault = world.faults.decide("jobs.run", job.load.table.path().table);
            if let Some(fault) = fault {
                *world.counters.faults.entry(fault.name()).or_default() += 1;
                if let FaultAction::Hold { ms } = fault {
                    match ms {
                        Some(ms) => _ = due.insert((at + Duration::from_millis(ms), number)),
                        None => _ = held.insert(number),
                    }
                    return;
                }
                job.fate.add(fault);
            }
        }
        job.started = Some(at);
        match job.begin(world.gcs) {
            Ok(inputs) => {
                job.state = State::Running(inputs.into());
                if job.fate.hangs {
                    held.insert(number);
                } else {
                    due.insert((at + running + job.fate.slow, number));
                }
            }
            Err(error) => self.jobs.end(number, Outcome::failed(error), at, world.counters),
        }
    }

    fn finish(&mut self, number: u64, at: Duration, counters: &mut Counters) {
        if let Some(reading) = self.reading_of(number, at, counters) {
            let read = reading.read();
            self.finish_read(number, read, at, counters);
        }
    }

    /// The next job whose files somebody else is to read.
    pub(crate) fn next_unread(
        &mut self,
        now: Duration,
        counters: &mut Counters,
    ) -> Option<(u64, Reading)> {
        while let Some(number) = self.jobs.unread.pop_front() {
            if let Some(reading) = self.reading_of(number, now, counters) {
                return Some((number, reading));
            }
        }
        None
    }

    /// What there is to read for a job that is running; a job that has nothing to read ends.
    fn reading_of(
        &mut self,
        number: u64,
        at: Duration,
        counters: &mut Counters,
    ) -> Option<Reading> {
        let job = self.jobs.known.get(&number)?;
        let State::Running(inputs) = &job.state else { return None };
        match self.reading(&job.load, Arc::clone(inputs), job.fate.short) {
            Ok(reading) => Some(reading),
            Err(failure) => {
                self.jobs.end(number, Outcome::from(failure), at, counters);
                None
            }
        }
    }

    /// A job's files are read. Nothing happens if the job was cancelled, or forgotten, meanwhile.
    pub(crate) fn finish_read(
        &mut self,
        number: u64,
        read: Read,
        at: Duration,
        counters: &mut Counters,
    ) {
        let Some(job) = self.jobs.known.get(&number) else { return };
        let is_this = Arc::ptr_eq(&job.load, &read.reading.load);
        if !is_this || !matches!(job.state, State::Running(_)) {
            return;
        }
        let warning = job.fate.warning.clone();
        let outcome = match self.complete(read, at) {
            Ok(Some((loaded, errors))) => {
                let errors = errors.into_iter().chain(warning).collect();
                Outcome { error: None, errors, loaded: Some(loaded) }
            }
            Ok(None) => return self.jobs.unread.push_back(number),
            Err(failure) => failure.into(),
        };
        self.jobs.end(number, outcome, at, counters);
    }
}

impl Jobs {
    fn next_due(&mut self, now: Duration) -> Option<(Duration, u64)> {
        let due = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.due.remove(&due);
        Some(due)
    }

    /// Takes a job out of whatever would move it on.
    pub(crate) fn forget(&mut self, number: u64) {
        self.held.remove(&number);
        self.unread.retain(|other| *other != number);
        self.due.retain(|(_, other)| *other != number);
    }

    /// Puts a job's end in place, and forgets its data.
    pub(crate) fn end(
        &mut self,
        number: u64,
        outcome: Outcome,
        now: Duration,
        counters: &mut Counters,
    ) {
        let Some(job) = self.known.get_mut(&number) else { return };
        match outcome.loaded {
            Some(loaded) => {
                counters.jobs_succeeded += 1;
                counters.rows += loaded.output_rows;
                counters.loaded_rows += loaded.output_rows;
            }
            None => counters.jobs_failed += 1,
        }
        job.media = None;
        job.ended = Some(now);
        job.state = State::Done(outcome);
    }
}

impl Job {
    fn begin(&mut self, gcs: &Gcs) -> Result<Vec<Input>, JobError> {
        if let Some(failure) = self.fate.failure.take() {
            return Err(failure);
        }
        match self.media.take() {
            Some(media) => Ok(vec![Input { uri: None, bytes: media }]),
            None => source::read(gcs, &self.load.uris),
        }
    }
}

impl Fate {
    /// What a fault does to a job that begins to run.
    fn add(&mut self, fault: FaultAction) {
        match fault {
            FaultAction::Refuse { reason, message, .. } => {
                let failure = JobError::new(&reason, None, message_or(message));
                self.failure.get_or_insert(failure);
            }
            FaultAction::FailAfter { reason, message, .. } => {
                self.warning = Some(JobError::new(&reason, None, message_or(message)));
            }
            FaultAction::Slow { ms } => self.slow = Duration::from_millis(ms),
            FaultAction::Lose => self.hangs = true,
            FaultAction::Short { rows } => self.short = rows,
            FaultAction::Hold { .. } | FaultAction::Cut { .. } => {}
        }
    }
}

fn message_or(message: String) -> String {
    if message.is_empty() { "injected by the fault script".to_owned() } else { message }
}
