//! insertAll and dead letters under way, and what goes wrong with them.

use bytes::Bytes;

use super::{
    bigquery,
    coverage::Mark,
    env::{Env, Event, Who},
};
use crate::{
    delivery::action::{BatchId, LetterId, Write},
    fault::{Fault, FaultKind},
    record::TopicPartition,
    rest::RestResponse,
    write::{WriteOutcome, insert_all::classify},
};

/// What comes back; `None` is nothing.
pub(crate) type WriteAnswer = Option<RestResponse>;

/// What becomes of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LetterAnswer {
    /// Stored.
    Stored,
    /// Not stored.
    Refused,
    /// Stored, and the client does not learn it.
    StoredUnknown,
}

/// An insertAll on its way to BigQuery.
#[derive(Debug)]
pub(crate) struct WriteOnWire {
    who: Who,
    worker: usize,
    id: BatchId,
    serial: u64,
    table: String,
    body: Bytes,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Normal,
    Refuse(u16, &'static str),
    FailAfter,
    LoseAnswer,
    LoseRequest,
    Hold,
    StopRows(u32, &'static str),
}

/// Sends an insertAll.
pub(crate) fn send_write(env: &mut Env, who: Who, worker: usize, serial: u64, write: Write) {
    let fate = fate(env, write.rows);
    let Write { id, table, body, rows, .. } = write;
    let table = table.table.to_string();
    env.log(format_args!(
        "write {who:?}.{worker} #{serial} {table} rows {rows} bytes {} {id:?} {fate:?}",
        body.len()
    ));
    let patience = env.plan.write_timeout_ms;
    let delay = match fate {
        Fate::Hold => patience + env.rng.between(10, 15_000),
        _ => env.delay(),
    };
    env.after(patience, Event::WriteAnswered(who, worker, id, serial, None));
    if fate != Fate::LoseRequest {
        let wire = WriteOnWire { who, worker, id, serial, table, body, fate };
        env.after(delay, Event::WriteArrives(wire));
    }
}

fn fate(env: &mut Env, rows: u32) -> Fate {
    let chances = env.chances();
    // Every history has an answer that got lost.
    if env.now > 2_000 && env.history.coverage.count(Mark::AmbiguousAnswer) == 0 {
        return Fate::LoseAnswer;
    }
    let refusals = [
        (503, "backendError", Mark::Refused),
        (403, "rateLimitExceeded", Mark::Throttled),
        (403, "quotaExceeded", Mark::QuotaExceeded),
    ];
    if env.rng.chance(chances.refuse) {
        let (status, reason, mark) = refusals[env.rng.index(refusals.len())];
        env.mark(mark);
        return Fate::Refuse(status, reason);
    }
    if env.rng.chance(chances.stop_rows) {
        env.mark(Mark::RowsStopped);
        return Fate::StopRows(rows, ["stopped", "backendError"][env.rng.index(2)]);
    }
    let rest = [
        (chances.fail_after, Fate::FailAfter),
        (chances.lose_answer, Fate::LoseAnswer),
        (chances.lose_request, Fate::LoseRequest),
        (chances.hold, Fate::Hold),
    ];
    for (chance, fate) in rest {
        if env.rng.chance(chance) {
            return fate;
        }
    }
    Fate::Normal
}

/// An insertAll at BigQuery.
pub(crate) fn write_arrives(env: &mut Env, wire: WriteOnWire) {
    let WriteOnWire { who, worker, id, serial, table, body, fate } = wire;
    let answer = match fate {
        Fate::Refuse(status, reason) => bigquery::error(status, reason),
        Fate::StopRows(rows, reason) => bigquery::rows_stopped(rows, reason),
        _ => apply(env, &table, body, serial),
    };
    let answer = match fate {
        Fate::LoseAnswer | Fate::Hold => {
            let hold = fate == Fate::Hold;
            env.mark(if hold { Mark::LateArrival } else { Mark::StoredWithoutAnswer });
            return;
        }
        Fate::FailAfter => bigquery::error(503, "backendError"),
        _ => answer,
    };
    let delay = env.delay();
    env.after(delay, Event::WriteAnswered(who, worker, id, serial, Some(answer)));
}

fn apply(env: &mut Env, table: &str, body: Bytes, serial: u64) -> RestResponse {
    let (rows, duplicates, answer) = env.bigquery.insert_all(env.now, table, body);
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    let stale = [
        ("no such field", Mark::StaleSchema),
        ("\"invalid\"", Mark::RowsRejected),
        ("Not found", Mark::TableNotVisible),
    ];
    for (text, mark) in stale {
        if said.contains(text) {
            env.mark(mark);
        }
    }
    for _ in 0..duplicates {
        env.mark(Mark::Deduplicated);
    }
    for row in &rows {
        env.log(format_args!("stored #{serial} {}@{} in {table}", row.lane, row.offset));
        env.checkers.stored(row, &mut env.history, env.now);
    }
    env.log(format_args!("answer #{serial} {} {duplicates} known", answer.status));
    answer
}

/// What a client makes of an answer, through the production classifier.
pub(crate) fn outcome(env: &mut Env, answer: WriteAnswer, rows: u32, body: &Bytes) -> WriteOutcome {
    let outcome = classify::outcome(answer.ok_or_else(bigquery::no_answer), rows);
    if let WriteOutcome::Unknown(_) = outcome {
        env.mark(Mark::AmbiguousAnswer);
        for (lane, offset) in coordinates(body) {
            env.checkers.ambiguous(&lane, offset);
        }
    }
    outcome
}

/// The records in a request.
fn coordinates(body: &Bytes) -> Vec<(TopicPartition, i64)> {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    let rows = body["rows"].as_array().unwrap().iter().map(|row| {
        let cell = |name: &str| row["json"][name].clone();
        let topic = cell("_kafka_topic").as_str().unwrap().to_owned();
        let partition = cell("_kafka_partition").as_i64().unwrap() as i32;
        (TopicPartition::new(topic, partition), cell("_kafka_offset").as_i64().unwrap())
    });
    rows.collect()
}

/// Sends a dead letter.
pub(crate) fn send_letter(
    env: &mut Env,
    who: Who,
    worker: usize,
    id: LetterId,
    lane: TopicPartition,
    offset: i64,
) {
    let answer = if !env.rng.chance(env.chances().letter) {
        LetterAnswer::Stored
    } else if env.rng.chance(500) {
        env.mark(Mark::DeadLetterFault);
        LetterAnswer::Refused
    } else {
        env.mark(Mark::DeadLetterUnknown);
        LetterAnswer::StoredUnknown
    };
    env.log(format_args!("letter {who:?}.{worker} {lane}@{offset} {answer:?}"));
    let delay = env.delay();
    env.after(delay, Event::LetterArrives(who, worker, id, lane, offset, answer));
}

/// A dead letter at its topic.
pub(crate) fn letter_arrives(
    env: &mut Env,
    (who, worker, id): (Who, usize, LetterId),
    lane: &TopicPartition,
    offset: i64,
    answer: LetterAnswer,
) {
    if answer != LetterAnswer::Refused {
        env.checkers.lettered(lane, offset);
        env.mark(Mark::DeadLetter);
    }
    let delay = env.delay();
    env.after(delay, Event::LetterAnswered(who, worker, id, answer));
}

/// What a client makes of a dead letter's answer.
pub(crate) fn letter_result(answer: LetterAnswer) -> Result<(), Fault> {
    match answer {
        LetterAnswer::Stored => Ok(()),
        LetterAnswer::Refused => Err(Fault::refused(FaultKind::Transient, "injected", "refused")),
        LetterAnswer::StoredUnknown => {
            Err(Fault::unknown(FaultKind::Transient, "injected", "no answer"))
        }
    }
}
