//! The pure core: a request and a time in, an answer out.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::sim::{
    bigquery::{
        BigQuery, Route,
        error::ApiError,
        jobs::advance::JobWorld,
        load::reading::{Read, Reading},
        storage::{self, StorageRoute},
    },
    control,
    counters::Counters,
    faults::{FaultAction, FaultScript, Faults, held_until},
    gcs::{Gcs, GcsRoute, error::GcsError},
    message::{Request, Response, Step},
    registry::{Registry, RegistryError, RegistryRoute},
    settings::SimSettings,
};

/// Answers of held requests that nobody collected; older ones are dropped.
const UNCOLLECTED_MAX: usize = 1_024;
/// Lost answers whose times are kept.
const LOST_MAX: usize = 100_000;

/// BigQuery, Cloud Storage, the registry, the fault script and the counters.
///
/// Nothing in here reads a clock, waits or does I/O. `now` is the time since the Unix epoch and must
/// not go backwards.
#[derive(Debug)]
pub struct Core {
    settings: Arc<SimSettings>,
    pub(crate) bigquery: BigQuery,
    pub(crate) gcs: Gcs,
    pub(crate) registry: Registry,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
    held: VecDeque<Held>,
    uncollected: VecDeque<(u64, Response)>,
    lost: VecDeque<u64>,
    tickets: u64,
}

/// A request that waits inside the core.
#[derive(Debug)]
struct Held {
    ticket: u64,
    until: Option<Duration>,
    request: Request,
}

/// Which service a request is for, and what it asks.
enum Target {
    BigQuery(Route),
    Gcs(GcsRoute),
    Registry(RegistryRoute),
    Storage(Box<StorageRoute>),
}

impl Target {
    fn of(request: &Request, bigquery: &BigQuery) -> Option<Self> {
        if let Some(route) = StorageRoute::of(request, &bigquery.storage) {
            return Some(Self::Storage(Box::new(route)));
        }
        let bigquery = Route::of(request).map(Self::BigQuery);
        let google = bigquery.or_else(|| GcsRoute::of(request).map(Self::Gcs));
        google.or_else(|| RegistryRoute::of(request).map(Self::Registry))
    }

    fn operation(&self) -> &'static str {
        match self {
            Self::BigQuery(route) => route.operation,
            Self::Gcs(route) => route.operation,
            Self::Registry(route) => route.operation,
            Self::Storage(route) => route.operation,
        }
    }

    /// The table, the object or the subject.
    fn name(&self) -> &str {
        match self {
            Self::BigQuery(route) => &route.table,
            Self::Gcs(route) => &route.object,
            Self::Registry(route) => &route.subject,
            Self::Storage(route) => &route.table,
        }
    }

    fn error(&self, status: u16, reason: &str, message: &str) -> Response {
        let message = if message.is_empty() { "injected by the fault script" } else { message };
        match self {
            Self::BigQuery(_) => ApiError::new(status, reason, message).into(),
            Self::Gcs(_) => GcsError::new(status, reason, message).into(),
            Self::Registry(_) => {
                let code = u32::from(status) * 100 + 1;
                RegistryError::new(status, code, format!("{reason}: {message}")).into()
            }
            Self::Storage(route) => route.refusal(status, reason, message),
        }
    }
}

impl Core {
    /// An empty simulator.
    pub fn new(settings: SimSettings) -> Self {
        let settings = Arc::new(settings);
        Self {
            bigquery: BigQuery::new(Arc::clone(&settings)),
            gcs: Gcs::new(Arc::clone(&settings)),
            registry: Registry::new(settings.registry_basic_auth.clone()),
            settings,
            faults: Faults::default(),
            counters: Counters::default(),
            held: VecDeque::new(),
            uncollected: VecDeque::new(),
            lost: VecDeque::new(),
            tickets: 0,
        }
    }

    /// Installs a fault script, from its beginning.
    pub fn set_faults(&mut self, script: FaultScript) {
        self.faults = Faults::new(script);
    }

    /// When answers were lost, in milliseconds since the epoch: the latest only.
    pub fn lost(&self) -> impl Iterator<Item = u64> {
        self.lost.iter().copied()
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The simulated BigQuery, to look into.
    pub fn bigquery(&self) -> &BigQuery {
        &self.bigquery
    }

    /// The simulated Cloud Storage, to look into.
    pub fn gcs(&self) -> &Gcs {
        &self.gcs
    }

    /// The settings.
    pub fn settings(&self) -> &SimSettings {
        &self.settings
    }

    /// Forgets tables, jobs, objects, schemas, faults, held requests and counters.
    pub fn reset(&mut self) {
        let is_read_elsewhere = self.bigquery.jobs.is_read_elsewhere;
        *self = Self { tickets: self.tickets, ..Self::new(SimSettings::clone(&self.settings)) };
        self.bigquery.jobs.is_read_elsewhere = is_read_elsewhere;
    }

    /// Applies one request at `now`, after everything that is due.
    pub fn step(&mut self, request: Request, now: Duration) -> Step {
        self.advance(now);
        if request.path.starts_with(control::PREFIX) {
            return answer(control::handle(self, &request, now));
        }
        let Some(target) = Target::of(&request, &self.bigquery) else {
            let what = format!("{} {}", request.method, request.path);
            return answer(ApiError::not_found(&what).into());
        };
        self.counters.arrived(target.operation());
        match self.faults.decide(target.operation(), target.name()) {
            Some(fault) => self.fault(fault, &target, request, now),
            None => answer(self.apply(&target, &request, now)),
        }
    }

    /// Applies what is due at `now`: held requests, and load jobs that move on.
    pub fn advance(&mut self, now: Duration) {
        self.apply_due(now, false);
        self.run_jobs(now);
    }

    /// Applies everything held, due or not; load jobs that a fault holds back go on.
    pub fn release(&mut self, now: Duration) {
        self.apply_due(now, true);
        self.bigquery.jobs.release(now);
        self.run_jobs(now);
    }

    fn run_jobs(&mut self, now: Duration) {
        let Self { bigquery, gcs, faults, counters, .. } = self;
        bigquery.run_jobs(now, &mut JobWorld { gcs, faults, counters });
    }

    /// From now on the files of load jobs are read outside of the core, as
    /// [`next_reading`](Self::next_reading) hands them out: a job of a million rows takes a while, in
    /// which BigQuery answers other requests.
    pub fn read_elsewhere(&mut self) {
        self.bigquery.jobs.is_read_elsewhere = true;
    }

    /// The next files to be read, and the number of their job.
    pub fn next_reading(&mut self, now: Duration) -> Option<(u64, Reading)> {
        self.advance(now);
        self.bigquery.next_unread(now, &mut self.counters)
    }

    /// Ends a job whose files were read.
    pub fn end_reading(&mut self, number: u64, read: Read, now: Duration) {
        self.bigquery.finish_read(number, read, now, &mut self.counters);
    }

    /// The answer of a held request; `None` while it is still held.
    pub fn collect(&mut self, ticket: u64, now: Duration) -> Option<Response> {
        self.advance(now);
        let at = self.uncollected.iter().position(|(known, _)| *known == ticket)?;
        self.uncollected.remove(at).map(|(_, response)| response)
    }

    fn apply(&mut self, target: &Target, request: &Request, now: Duration) -> Response {
        let response = match target {
            Target::BigQuery(route) => {
                self.bigquery.handle(route, request, now, &mut self.counters)
            }
            Target::Gcs(route) => self.gcs.handle(route, request, now),
            Target::Registry(route) => self.registry.handle(route, request),
            Target::Storage(route) => {
                self.bigquery.storage_call(route, request, now, &mut self.counters)
            }
        };
        self.counters.answered(target.operation(), &response);
        response
    }

    fn fault(
        &mut self,
        fault: FaultAction,
        target: &Target,
        mut request: Request,
        now: Duration,
    ) -> Step {
        *self.counters.faults.entry(fault.name()).or_default() += 1;
        match fault {
            FaultAction::Short { .. } => answer(self.apply(target, &request, now)),
            FaultAction::Cut { bytes } => {
                request.body.truncate(bytes);
                self.apply(target, &request, now);
                self.lose(now)
            }
            FaultAction::Refuse { status, reason, message } => {
                answer(target.error(status, &reason, &message))
            }
            FaultAction::FailAfter { status, reason, message } => {
                self.apply(target, &request, now);
                answer(target.error(status, &reason, &message))
            }
            FaultAction::Slow { ms } => Step::Answer {
                response: self.apply(target, &request, now),
                after: Duration::from_millis(ms),
            },
            FaultAction::Lose => {
                self.apply(target, &request, now);
                self.lose(now)
            }
            FaultAction::Hold { ms } => {
                self.tickets += 1;
                let (ticket, until) = (self.tickets, held_until(ms, now));
                self.held.push_back(Held { ticket, until, request });
                Step::Hold { ticket, until }
            }
        }
    }

    fn lose(&mut self, now: Duration) -> Step {
        if self.lost.len() >= LOST_MAX {
            self.lost.pop_front();
        }
        self.lost.push_back(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        Step::Lose
    }

    fn apply_due(&mut self, now: Duration, all: bool) {
        let due = |held: &Held| all || held.until.is_some_and(|until| until <= now);
        if !self.held.iter().any(due) {
            return;
        }
        let (due, kept): (Vec<_>, Vec<_>) = self.held.drain(..).partition(due);
        self.held = kept.into();
        for Held { ticket, request, until } in due {
            let Some(target) = Target::of(&request, &self.bigquery) else { continue };
            let at = until.unwrap_or(now).min(now);
            self.run_jobs(at);
            let response = self.apply(&target, &request, at);
            if self.uncollected.len() >= UNCOLLECTED_MAX {
                self.uncollected.pop_front();
            }
            self.uncollected.push_back((ticket, response));
            self.end_connection_of(&request);
        }
    }

    /// Opens a connection of `AppendRows`; its number goes with each of its requests.
    pub fn connect(&mut self, now: Duration) -> u64 {
        self.bigquery.storage.connect(now)
    }

    /// The client has left. What is held of the connection is applied all the same.
    pub fn disconnect(&mut self, number: u64) {
        let is_of = |held: &Held| storage::connection_of(&held.request) == Some(number);
        let is_held = self.held.iter().any(is_of);
        self.bigquery.storage.disconnect(number, is_held);
    }

    fn end_connection_of(&mut self, request: &Request) {
        if let Some(number) = storage::connection_of(request)
            && self.bigquery.storage.is_left(number)
        {
            self.disconnect(number);
        }
    }
}

fn answer(response: Response) -> Step {
    Step::Answer { response, after: Duration::ZERO }
}
