//! Calls under way to BigQuery and the registry, and what goes wrong with them.

use http::{Method, StatusCode};

use super::{
    avro,
    bigquery::{self, Applied, Service},
    coverage::Mark,
    env::{Env, Event, Who},
    line::{Ask, Call, RestAnswer, SchemaAnswer},
};
use crate::{
    fault::{Fault, FaultKind},
    gcp::http::ANSWER_TIMEOUT,
    record::TopicPartition,
    registry::{RegisteredSchema, RegistryError},
    rest::{RestRequest, RestResponse},
    sim::bigquery::storage,
};

/// How long a connection may be dead before it is noticed; the write path waits for less.
const CONNECTION_DEAD_MS: u64 = ANSWER_TIMEOUT.as_millis() as u64;
/// How long the registry's client waits.
const REGISTRY_TIMEOUT_MS: u64 = 10_000;

/// An answer on its way to a process.
#[derive(Debug)]
pub(crate) enum Reply {
    /// BigQuery's, and the records that the request appended.
    Rest(tokio::sync::oneshot::Sender<RestAnswer>, RestResponse, Vec<(TopicPartition, i64)>),
    /// The registry's.
    Schema(tokio::sync::oneshot::Sender<SchemaAnswer>, SchemaAnswer),
    /// None: the connection breaks.
    Broken(Ask),
}

impl Reply {
    /// Hands the answer over, if anybody waits for it still; the records that were appended unheard.
    pub(crate) fn deliver(self) -> Vec<(TopicPartition, i64)> {
        match self {
            Self::Rest(sender, answer, appended) => match sender.send(Ok(answer)) {
                Ok(()) => Vec::new(),
                Err(_) => appended,
            },
            Self::Schema(sender, answer) => {
                drop(sender.send(answer));
                Vec::new()
            }
            Self::Broken(ask) => {
                drop(ask);
                Vec::new()
            }
        }
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Normal,
    /// Nothing is applied; the answer is this error.
    Refuse(StatusCode, &'static str),
    /// Applied, and answered with an error all the same.
    FailAfter,
    /// Applied, and not answered.
    LoseAnswer,
    /// Never arrives.
    LoseRequest,
    /// Arrives after the client has given up.
    Hold,
    /// Every row is marked with this.
    StopRows(&'static str),
}

impl Fate {
    /// Whether the client does not learn what became of the request.
    fn is_doubtful(self) -> bool {
        matches!(self, Self::FailAfter | Self::LoseAnswer | Self::LoseRequest | Self::Hold)
    }
}

/// A process makes a call.
pub(crate) fn send(env: &mut Env, call: Call) {
    let Call { who, ask } = call;
    let (fate, what) = match &ask {
        Ask::Leave(number) => return env.bigquery.leave(*number),
        Ask::Schema(id, _) => (schema_fate(env), format!("schema {id}")),
        Ask::Rest(request, _) => {
            let fate = match Service::of(request) {
                Service::InsertAll => insert_fate(env),
                Service::Append
                | Service::Streams
                | Service::Upload
                | Service::JobInsert
                | Service::JobMedia => load_fate(env),
                Service::Other => table_fate(env),
            };
            if fate.is_doubtful() && Service::of(request) == Service::InsertAll {
                for (lane, offset) in bigquery::coordinates(request) {
                    env.checkers.ambiguous(&lane, offset);
                }
            }
            (fate, format!("{} {} bytes {}", request.method, request.path, request.body.len()))
        }
    };
    env.log(format_args!("call {who:?} {what} {fate:?}"));
    let delay = match fate {
        Fate::Hold => env.plan.write_timeout_ms + env.rng.between(10, 15_000),
        _ => env.delay(),
    };
    if fate == Fate::LoseRequest {
        return hang(env, who, ask);
    }
    let sent = env.now;
    env.after(delay, Event::CallArrives(Call { who, ask }, fate, sent));
}

/// The connection is dead: the client learns it by its own patience, or at once.
fn hang(env: &mut Env, who: Who, ask: Ask) {
    let silence = match ask {
        Ask::Schema(..) => REGISTRY_TIMEOUT_MS,
        Ask::Rest(..) | Ask::Leave(_) => CONNECTION_DEAD_MS,
    };
    let patience = if env.rng.chance(500) { env.delay() } else { silence };
    env.after(patience, Event::Replied(who, Reply::Broken(ask)));
}

/// The marks of refused writes, as [`refusal`] has them.
const REFUSALS: [Mark; 5] =
    [Mark::Refused, Mark::Throttled, Mark::QuotaExceeded, Mark::Throttled, Mark::TokenRefused];

fn refusal(env: &mut Env, marks: [Mark; 5]) -> Fate {
    let refusals = [
        (StatusCode::SERVICE_UNAVAILABLE, "backendError"),
        (StatusCode::FORBIDDEN, "rateLimitExceeded"),
        (StatusCode::FORBIDDEN, "quotaExceeded"),
        (StatusCode::TOO_MANY_REQUESTS, "rateLimitExceeded"),
        // The token was renewed once already (`gcp::http`), and the new one is no better.
        (StatusCode::UNAUTHORIZED, "authError"),
    ];
    let which = env.rng.index(refusals.len());
    env.mark(marks[which]);
    let (status, reason) = refusals[which];
    Fate::Refuse(status, reason)
}

fn insert_fate(env: &mut Env) -> Fate {
    if std::mem::take(&mut env.ambiguous_next) {
        return Fate::LoseAnswer;
    }
    let chances = env.chances();
    if env.rng.chance(chances.refuse) {
        return refusal(env, REFUSALS);
    }
    if env.rng.chance(chances.stop_rows) {
        env.mark(Mark::RowsStopped);
        return Fate::StopRows(["stopped", "backendError"][env.rng.index(2)]);
    }
    doubtful_fate(env)
}

fn load_fate(env: &mut Env) -> Fate {
    if std::mem::take(&mut env.ambiguous_next) {
        return Fate::LoseAnswer;
    }
    let chances = env.chances();
    if env.rng.chance(chances.refuse) {
        return refusal(env, REFUSALS);
    }
    doubtful_fate(env)
}

fn doubtful_fate(env: &mut Env) -> Fate {
    let chances = env.chances();
    let rest = [
        (chances.fail_after, Fate::FailAfter),
        (chances.lose_answer, Fate::LoseAnswer),
        (chances.lose_request, Fate::LoseRequest),
        (chances.hold, Fate::Hold),
    ];
    rest.into_iter().find(|(chance, _)| env.rng.chance(*chance)).map_or(Fate::Normal, |it| it.1)
}

fn table_fate(env: &mut Env) -> Fate {
    if !env.rng.chance(env.chances().table) {
        return Fate::Normal;
    }
    env.mark(Mark::TableFault);
    match env.rng.chance(500) {
        true => refusal(env, [Mark::TableFault; 5]),
        false => doubtful_fate(env),
    }
}

fn schema_fate(env: &mut Env) -> Fate {
    if !env.rng.chance(env.chances().registry) {
        return Fate::Normal;
    }
    env.mark(Mark::RegistryFault);
    match env.rng.index(3) {
        0 => Fate::Refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        1 => Fate::Refuse(StatusCode::TOO_MANY_REQUESTS, "throttled"),
        _ => Fate::LoseRequest,
    }
}

/// A call that was made at `sent` reaches its service.
pub(crate) fn arrives(env: &mut Env, Call { who, ask }: Call, fate: Fate, sent: u64) {
    match ask {
        Ask::Leave(_) => {}
        Ask::Schema(id, sender) => {
            let answer = schema(env, id, fate);
            let delay = env.delay();
            env.after(delay, Event::Replied(who, Reply::Schema(sender, answer)));
        }
        Ask::Rest(request, sender) => {
            let again = request.clone();
            let error = match Service::of(&request) {
                Service::Append => bigquery::append_error,
                Service::Streams => bigquery::call_error,
                _ => bigquery::error,
            };
            let mut appended = Vec::new();
            let answer = match fate {
                Fate::Refuse(status, reason) => error(status, reason),
                Fate::StopRows(reason) => {
                    bigquery::rows_stopped(bigquery::coordinates(&request).len(), reason)
                }
                _ => apply(env, (who, sent), request, &mut appended),
            };
            if fate.is_doubtful() {
                env.mark(Mark::AmbiguousAnswer);
                for (lane, offset) in appended.drain(..) {
                    env.checkers.ambiguous(&lane, offset);
                }
            }
            match fate {
                Fate::LoseAnswer | Fate::Hold => {
                    let hold = fate == Fate::Hold;
                    env.mark(if hold { Mark::LateArrival } else { Mark::StoredWithoutAnswer });
                    hang(env, who, Ask::Rest(again, sender));
                }
                _ => {
                    let answer = match fate {
                        Fate::FailAfter => error(StatusCode::SERVICE_UNAVAILABLE, "backendError"),
                        _ => answer,
                    };
                    let delay = env.delay();
                    env.after(delay, Event::Replied(who, Reply::Rest(sender, answer, appended)));
                }
            }
        }
    }
}

/// The registry, which learns of a schema some time after its producer did.
fn schema(env: &mut Env, id: u32, fate: Fate) -> SchemaAnswer {
    if let Fate::Refuse(_, reason) = fate {
        let fault = Fault::refused(FaultKind::Transient, reason, "injected");
        return Err(RegistryError::Fault(fault));
    }
    let (now, delay) = (env.now, env.plan.registry_delay_ms);
    if env.now < *env.registered.entry(id).or_insert(now + delay) {
        env.mark(Mark::UnknownSchemaId);
        return Err(RegistryError::UnknownId { id });
    }
    let (format, text) = ("AVRO".to_owned(), avro::schema(id).into());
    Ok(RegisteredSchema { id, format, text, references: Vec::new() })
}

/// Has BigQuery carry out a request; the records that were appended go to `appended`.
fn apply(
    env: &mut Env,
    sender: (Who, u64),
    request: RestRequest,
    appended: &mut Vec<(TopicPartition, i64)>,
) -> RestResponse {
    let method = request.method.clone();
    let service = Service::of(&request);
    let is_query = request.path.ends_with("/queries");
    let is_question = request.method == Method::PUT && request.body.is_empty();
    let name = request.path.rsplit('/').next().unwrap_or_default().to_owned();
    let Applied { rows, duplicates, deleted, answer } = env.bigquery.apply(env.now, request);
    for _ in 0..duplicates {
        env.mark(Mark::Deduplicated);
    }
    for row in &rows {
        env.log(format_args!("stored {}@{} in {}", row.lane, row.offset, row.table));
        env.checkers.stored(row, &mut env.history, env.now);
        if env.checkers.is_appended(&row.lane) {
            appended.push((row.lane.clone(), row.offset));
            let patience_ms = env.plan.write_timeout_ms;
            if env.appends.is_again_in_doubt(row, sender, patience_ms, &env.doubts) {
                env.checkers.ambiguous(&row.lane, row.offset);
            }
        }
    }
    if !deleted.is_empty() {
        env.mark(Mark::ObjectDeleted);
        env.checkers.deleted(&deleted, &mut env.history, env.now);
    }
    if service == Service::JobInsert {
        env.mark(if answer.status == 409 { Mark::JobExists } else { Mark::JobCreated });
    } else if service == Service::JobMedia {
        mark_media(env, &method, is_question, answer.status);
    } else if matches!(service, Service::InsertAll | Service::Append) {
        mark_rows(env, &answer);
        if service == Service::Append {
            let is_refused = answer.status != 200 || storage::is_refusal(&answer.body);
            env.mark(if is_refused { Mark::AppendRefused } else { Mark::Appended });
        }
    } else if answer.status == 412 {
        let is_object = service == Service::Upload;
        env.mark(if is_object { Mark::ObjectExists } else { Mark::SchemaRace });
    } else if answer.status == 409 {
        env.mark(Mark::CreateRace);
    } else if answer.status == 200 && is_query {
        env.mark(Mark::Widened);
    } else if answer.status == 200 && method == Method::PATCH {
        env.mark(Mark::SchemaChange);
    } else if answer.status == 200 && method == Method::POST && name == "tables" {
        env.mark(Mark::TableCreated);
    }
    env.log(format_args!("answer {} {name} {duplicates} known", answer.status));
    answer
}

/// An upload of a job's rows: begun, completed, or asked about.
fn mark_media(env: &mut Env, method: &Method, is_question: bool, status: u16) {
    match status {
        409 => env.mark(Mark::JobExists),
        200 if is_question => env.mark(Mark::UploadAsked),
        200 if method == Method::PUT => env.mark(Mark::MediaJob),
        _ => {}
    }
}

/// What BigQuery found wrong with rows.
fn mark_rows(env: &mut Env, answer: &RestResponse) {
    let said = String::from_utf8_lossy(&answer.body);
    let marks = [
        ("no such field", Mark::StaleSchema),
        ("more fields than BigQuery schema", Mark::StaleSchema),
        ("Missing required field", Mark::StaleSchema),
        ("Could not convert value", Mark::StaleType),
        ("outside the allowed bounds", Mark::RowsRejected),
        ("Not found", Mark::TableNotVisible),
    ];
    for (text, mark) in marks {
        if said.contains(text) {
            env.mark(mark);
        }
    }
}
