//! The pure core: a request and a time in, an answer out.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::sim::{
    bigquery::{BigQuery, Route, error::ApiError},
    control,
    counters::Counters,
    faults::{FaultAction, FaultScript, Faults, held_until},
    message::{Request, Response, Step},
    registry::{Registry, RegistryError, RegistryRoute},
    settings::SimSettings,
};

/// Answers of held requests that nobody collected; older ones are dropped.
const UNCOLLECTED_MAX: usize = 1_024;

/// BigQuery, the registry, the fault script and the counters.
///
/// Nothing in here reads a clock, waits or does I/O. `now` is the time since the Unix epoch and must
/// not go backwards.
#[derive(Debug)]
pub struct Core {
    settings: Arc<SimSettings>,
    pub(crate) bigquery: BigQuery,
    pub(crate) registry: Registry,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
    held: VecDeque<Held>,
    uncollected: VecDeque<(u64, Response)>,
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
    Registry(RegistryRoute),
}

impl Target {
    fn of(request: &Request) -> Option<Self> {
        let bigquery = Route::of(request).map(Self::BigQuery);
        bigquery.or_else(|| RegistryRoute::of(request).map(Self::Registry))
    }

    fn operation(&self) -> &'static str {
        match self {
            Self::BigQuery(route) => route.operation,
            Self::Registry(route) => route.operation,
        }
    }

    /// The table or the subject.
    fn name(&self) -> &str {
        match self {
            Self::BigQuery(route) => &route.table,
            Self::Registry(route) => &route.subject,
        }
    }

    fn error(&self, status: u16, reason: &str, message: &str) -> Response {
        let message = if message.is_empty() { "injected by the fault script" } else { message };
        match self {
            Self::BigQuery(_) => ApiError::new(status, reason, message).into(),
            Self::Registry(_) => {
                let code = u32::from(status) * 100 + 1;
                RegistryError::new(status, code, format!("{reason}: {message}")).into()
            }
        }
    }
}

impl Core {
    /// An empty simulator.
    pub fn new(settings: SimSettings) -> Self {
        let settings = Arc::new(settings);
        Self {
            bigquery: BigQuery::new(Arc::clone(&settings)),
            registry: Registry::new(settings.registry_basic_auth.clone()),
            settings,
            faults: Faults::default(),
            counters: Counters::default(),
            held: VecDeque::new(),
            uncollected: VecDeque::new(),
            tickets: 0,
        }
    }

    /// Installs a fault script, from its beginning.
    pub fn set_faults(&mut self, script: FaultScript) {
        self.faults = Faults::new(script);
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The simulated BigQuery, to look into.
    pub fn bigquery(&self) -> &BigQuery {
        &self.bigquery
    }

    /// The settings.
    pub fn settings(&self) -> &SimSettings {
        &self.settings
    }

    /// Forgets tables, schemas, faults, held requests and counters.
    pub fn reset(&mut self) {
        *self = Self { tickets: self.tickets, ..Self::new(SimSettings::clone(&self.settings)) };
    }

    /// Applies one request at `now`, after all held ones that are due.
    pub fn step(&mut self, request: Request, now: Duration) -> Step {
        self.apply_due(now, false);
        if request.path.starts_with(control::PREFIX) {
            return answer(control::handle(self, &request, now));
        }
        let Some(target) = Target::of(&request) else {
            let what = format!("{} {}", request.method, request.path);
            return answer(ApiError::not_found(&what).into());
        };
        self.counters.arrived(target.operation());
        match self.faults.decide(target.operation(), target.name()) {
            Some(fault) => self.fault(fault, &target, request, now),
            None => answer(self.apply(&target, &request, now)),
        }
    }

    /// Applies everything held, due or not.
    pub fn release(&mut self, now: Duration) {
        self.apply_due(now, true);
    }

    /// The answer of a held request; `None` while it is still held.
    pub fn collect(&mut self, ticket: u64, now: Duration) -> Option<Response> {
        self.apply_due(now, false);
        let at = self.uncollected.iter().position(|(known, _)| *known == ticket)?;
        self.uncollected.remove(at).map(|(_, response)| response)
    }

    fn apply(&mut self, target: &Target, request: &Request, now: Duration) -> Response {
        let response = match target {
            Target::BigQuery(route) => {
                self.bigquery.handle(route, request, now, &mut self.counters)
            }
            Target::Registry(route) => self.registry.handle(route, request),
        };
        self.counters.answered(target.operation(), &response);
        response
    }

    fn fault(
        &mut self,
        fault: FaultAction,
        target: &Target,
        request: Request,
        now: Duration,
    ) -> Step {
        *self.counters.faults.entry(fault.name()).or_default() += 1;
        match fault {
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
                Step::Lose
            }
            FaultAction::Hold { ms } => {
                self.tickets += 1;
                let (ticket, until) = (self.tickets, held_until(ms, now));
                self.held.push_back(Held { ticket, until, request });
                Step::Hold { ticket, until }
            }
        }
    }

    fn apply_due(&mut self, now: Duration, all: bool) {
        let due = |held: &Held| all || held.until.is_some_and(|until| until <= now);
        if !self.held.iter().any(due) {
            return;
        }
        let (due, kept): (Vec<_>, Vec<_>) = self.held.drain(..).partition(due);
        self.held = kept.into();
        for Held { ticket, request, until } in due {
            let Some(target) = Target::of(&request) else { continue };
            let response = self.apply(&target, &request, until.unwrap_or(now).min(now));
            if self.uncollected.len() >= UNCOLLECTED_MAX {
                self.uncollected.pop_front();
            }
            self.uncollected.push_back((ticket, response));
        }
    }
}

fn answer(response: Response) -> Step {
    Step::Answer { response, after: Duration::ZERO }
}
