//! Streams that an application creates: how they end, what they count, how long they live.

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    storage_error::StorageErrorCode, write_stream::Type as Kind,
};
use serde_json::json;

use crate::app::probe::{
    Outcome,
    appends::{Appended, Request},
    lab::Lab,
    rpc::{ALREADY_EXISTS, Answer, INVALID_ARGUMENT},
    transcript::{Comparison, Question, Verdict},
};

/// What would rest on these answers.
const EXACTLY_ONCE: &str = "nothing yet; exactly-once streaming, which is not built, would end a stream to learn what is in it";

/// Streams of a question whose answer is a matter of timing.
const ROUNDS: i64 = 5;
/// Requests at most that one stream's end is to meet, and rows in each.
const RACE_REQUESTS: i64 = 5_000;
const RACE_ROWS: i64 = 10;

pub(crate) static FINALIZED_TWICE: Question = Question {
    name: "finalize-twice",
    asks: "Does FinalizeWriteStream say the same row_count again, and does the stream then refuse rows?",
    assumes: "the same row_count every time; later rows are refused with STREAM_FINALIZED",
    rests: "`write::storage::pending`: an append without an answer ends its stream, which says what it has",
};

pub(crate) async fn finalized_twice(lab: &Lab) -> Outcome {
    let table = lab.table("finalize", json!({})).await?;
    let stream = lab.create_stream(&table, Kind::Committed).await?;
    let mut appends = lab.open(&stream, &[]).await?;
    appends.append(Request::at(0, 3)).await??;
    appends.append(Request::at(3, 2)).await??;
    let first = lab.finalize(&stream).await??;
    let again = lab.finalize(&stream).await?;
    let late = appends.append(Request::at(5, 1)).await?;
    let mut seen = Comparison::default();
    seen.check(first == 5, || format!("5 rows were acknowledged, row_count is {first}"));
    seen.check(again == Ok(first), || match &again {
        Ok(again) => format!("row_count is {first} at first and then {again}"),
        Err(refusal) => format!("the second call is refused: {refusal}"),
    });
    seen.check(is_refused(&late, StorageErrorCode::StreamFinalized), || {
        format!("a row behind the end: {}", said(&late))
    });
    Ok(seen.verdict())
}

pub(crate) static FINALIZE_RACE: Question = Question {
    name: "finalize-race",
    asks: "Is an append that meets FinalizeWriteStream either counted or refused, whichever comes first?",
    assumes: "row_count has every row that was acknowledged and none that was refused; a query agrees",
    rests: EXACTLY_ONCE,
};

pub(crate) async fn finalize_race(lab: &Lab) -> Outcome {
    let table = lab.table("race", json!({})).await?;
    let (mut seen, mut refusals, mut total) = (Comparison::default(), 0, 0);
    for round in 1..=ROUNDS {
        let stream = lab.create_stream(&table, Kind::Committed).await?;
        let appends = lab.open(&stream, &[]).await?;
        let requests = (0..RACE_REQUESTS).map(|number| Request::at(number * RACE_ROWS, RACE_ROWS));
        let (answers, ended) = appends.race(requests, lab.finalize(&stream)).await?;
        ended??;
        let count = lab.finalize(&stream).await??;
        total += count;
        let (taken, refused) = bounds(&answers);
        refusals += i32::from(refused.is_some());
        seen.check(taken <= count, || {
            format!("round {round}: {taken} rows were acknowledged, row_count is {count}")
        });
        seen.check(refused.is_none_or(|refused| count <= refused), || {
            format!("round {round}: row_count is {count}, with rows that were refused")
        });
    }
    let found = lab.count(&table).await?;
    seen.check(found == total, || format!("row_counts make {total} rows, a query finds {found}"));
    match (seen.verdict(), refusals) {
        (Verdict::AsAssumed, 0) => {
            Ok(Verdict::NotSeen("no append was refused: none met the end of its stream".to_owned()))
        }
        (verdict, _) => Ok(verdict),
    }
}

/// The end of the rows that were acknowledged, and the offset of the first that were refused.
fn bounds(answers: &[Answer<Appended>]) -> (i64, Option<i64>) {
    let offsets = (0..).map(|number: i64| number * RACE_ROWS);
    let (mut taken, mut refused) = (0, None);
    for (offset, answer) in offsets.zip(answers) {
        match answer {
            Ok(_) => taken = offset + RACE_ROWS,
            Err(_) => refused = refused.or(Some(offset)),
        }
    }
    (taken, refused)
}

pub(crate) static EXACT_COUNT: Question = Question {
    name: "row-count-at-once",
    asks: "Is row_count of a COMMITTED stream exact as soon as the last append is acknowledged?",
    assumes: "yes, and a query finds the rows at once",
    rests: EXACTLY_ONCE,
};

pub(crate) async fn exact_count(lab: &Lab) -> Outcome {
    let table = lab.table("count", json!({})).await?;
    let mut seen = Comparison::default();
    for round in 1..=ROUNDS {
        let stream = lab.create_stream(&table, Kind::Committed).await?;
        lab.open(&stream, &[]).await?.append(Request::at(0, round)).await??;
        let count = lab.finalize(&stream).await??;
        seen.check(count == round, || format!("{round} rows were appended, row_count is {count}"));
        let (found, sum) = (lab.count(&table).await?, round * (round + 1) / 2);
        seen.check(found == sum, || format!("{sum} rows were acknowledged, a query finds {found}"));
    }
    Ok(seen.verdict())
}

pub(crate) static COMMITTED_TWICE: Question = Question {
    name: "commit-twice",
    asks: "What do BatchCommitWriteStreams and FinalizeWriteStream say of a stream that is committed already?",
    assumes: "no commit_time, STREAM_ALREADY_COMMITTED, and no row twice; the same row_count",
    rests: "`write::storage::pending`: a commit whose answer was lost is made again",
};

pub(crate) async fn committed_twice(lab: &Lab) -> Outcome {
    let table = lab.table("commit", json!({})).await?;
    let stream = lab.create_stream(&table, Kind::Pending).await?;
    lab.open(&stream, &[]).await?.append(Request::at(0, 3)).await??;
    lab.finalize(&stream).await??;
    let first = lab.commit(&table, &stream).await??;
    let again = lab.commit(&table, &stream).await?;
    let ended = lab.finalize(&stream).await?;
    let shown = lab.look(&stream).await?;
    let found = lab.count(&table).await?;
    let mut seen = Comparison::default();
    seen.check(first.commit_time.is_some(), || "the first commit has no commit_time".to_owned());
    match again {
        Err(refusal) => seen.check(false, || format!("the second call is refused: {refusal}")),
        Ok(again) => {
            let is_known = again.stream_errors.iter().any(|error| {
                error.code() == StorageErrorCode::StreamAlreadyCommitted && error.entity == stream
            });
            seen.check(is_known && again.commit_time.is_none(), || {
                "the second commit is not refused with STREAM_ALREADY_COMMITTED".to_owned()
            });
        }
    }
    seen.check(ended == Ok(3), || match &ended {
        Ok(count) => format!("row_count is 3 at first and {count} behind the commit"),
        Err(refusal) => format!("a stream that is committed cannot be finalized: {refusal}"),
    });
    seen.check(shown.is_ok_and(|stream| stream.commit_time.is_some()), || {
        "GetWriteStream does not show the commit".to_owned()
    });
    seen.check(found == 3, || format!("3 rows were committed, a query finds {found}"));
    Ok(seen.verdict())
}

pub(crate) static FLUSHED_TWICE: Question = Question {
    name: "flush-again",
    asks: "What does FlushRows say to an offset that is flushed already?",
    assumes: "ALREADY_EXISTS, at the cursor and below it, and no row twice",
    rests: EXACTLY_ONCE,
};

pub(crate) async fn flushed_twice(lab: &Lab) -> Outcome {
    let table = lab.table("flush", json!({})).await?;
    let stream = lab.create_stream(&table, Kind::Buffered).await?;
    lab.open(&stream, &[]).await?.append(Request::at(0, 4)).await??;
    lab.flush(&stream, 2).await??;
    let mut seen = Comparison::default();
    for (place, offset) in [("at", 2), ("below", 1)] {
        let again = lab.flush(&stream, offset).await?;
        seen.check(again.as_ref().is_err_and(|refusal| refusal.code == ALREADY_EXISTS), || {
            format!("{place} the cursor: {}", said(&again))
        });
    }
    let found = lab.count(&table).await?;
    seen.check(found == 3, || format!("3 rows were flushed, a query finds {found}"));
    Ok(seen.verdict())
}

pub(crate) static FLUSHED_LATE: Question = Question {
    name: "flush-after-finalize",
    asks: "Can rows of a BUFFERED stream still be flushed after FinalizeWriteStream?",
    assumes: "no: INVALID_ARGUMENT, and what was not flushed is lost; so a flush always comes first",
    rests: EXACTLY_ONCE,
};

pub(crate) async fn flushed_late(lab: &Lab) -> Outcome {
    let table = lab.table("late", json!({})).await?;
    let stream = lab.create_stream(&table, Kind::Buffered).await?;
    lab.open(&stream, &[]).await?.append(Request::at(0, 4)).await??;
    lab.flush(&stream, 1).await??;
    let count = lab.finalize(&stream).await??;
    let late = lab.flush(&stream, 3).await?;
    let found = lab.count(&table).await?;
    let mut seen = Comparison::default();
    seen.check(count == 4, || format!("4 rows were acknowledged, row_count is {count}"));
    seen.check(late.as_ref().is_err_and(|refusal| refusal.code == INVALID_ARGUMENT), || {
        format!("the flush behind the end: {}", said(&late))
    });
    seen.check(found == 2, || format!("2 rows were flushed before, a query finds {found}"));
    Ok(seen.verdict())
}

pub(crate) static STREAM_LIFE: Question = Question {
    name: "time-to-live",
    asks: "How long do streams live that nobody uses, and how long are the ids of jobs remembered?",
    assumes: "COMMITTED streams four days, BUFFERED ones seven, job ids about 180 days: longer than Kafka keeps records",
    rests: "of the ids `write::load::chain`: an id that is forgotten would load its slot again",
};

pub(crate) async fn stream_life(lab: &Lab) -> Outcome {
    let table = lab.table("life", json!({})).await?;
    for kind in [Kind::Committed, Kind::Buffered] {
        let stream = lab.create_stream(&table, kind).await?;
        lab.look(&stream).await??;
    }
    Ok(Verdict::NotSeen(
        "days cannot be waited for, and no answer names an end: see create_time below".to_owned(),
    ))
}

fn is_refused<T>(answer: &Answer<T>, code: StorageErrorCode) -> bool {
    answer.as_ref().is_err_and(|refusal| refusal.detail == code)
}

fn said<T>(answer: &Answer<T>) -> String {
    match answer {
        Ok(_) => "it is accepted".to_owned(),
        Err(refusal) => refusal.to_string(),
    }
}
