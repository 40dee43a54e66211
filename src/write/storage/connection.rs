//! One connection: requests go out as they come, and their answers are awaited in that order.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use crate::{
    rest::Body,
    rpc::{Rpc, RpcError, RpcStream},
    table::TableRef,
    write::{
        WriteOutcome,
        storage::{
            classify::{self, Answered},
            framing,
            names::{SERVICE, default_stream},
            news::SchemaNews,
        },
    },
};

/// Requests that may be without an answer on one connection.
const PIPELINE_MAX: usize = 100;

/// BigQuery ends a connection that nobody uses for ten minutes; sending into a closing one leaves the answer
/// in doubt.
const IDLE: Duration = Duration::from_secs(60);

/// An answer that takes longer is not waited for any more; nor is what lies behind it.
const ANSWER_MAX: Duration = Duration::from_secs(90);

/// A connection whose oldest answer is so late takes no more requests while there are others.
const LATE: Duration = Duration::from_secs(2);

/// One request on its way to a connection.
#[derive(Debug)]
pub struct Job {
    /// The table, whose default stream is meant.
    pub table: TableRef,
    /// The rows' encoded schema.
    pub schema: Bytes,
    /// The rows.
    pub body: Bytes,
    /// How many.
    pub rows: u32,
    /// Where the outcome goes.
    pub answer: oneshot::Sender<Answer>,
}

/// What became of a request.
#[derive(Debug)]
pub struct Answer {
    /// Its outcome.
    pub outcome: WriteOutcome,
    /// The connection ended because of this request.
    pub is_end: bool,
}

/// How busy a connection is, as those see it who choose one.
#[derive(Debug, Default)]
pub struct Load {
    bytes: AtomicUsize,
    oldest: Mutex<Option<Instant>>,
}

impl Load {
    /// Bytes of requests that are on their way to it or without an answer.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes a request that is handed to it.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes a request that is done with.
    pub fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether it has let an answer wait for too long.
    pub fn is_late(&self) -> bool {
        let oldest = *self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        oldest.is_some_and(|oldest| oldest.elapsed() > LATE)
    }

    fn note_oldest(&self, oldest: Option<Instant>) {
        *self.oldest.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }
}

/// What a connection need not be told again: the table, and the rows' schema.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RowsOf {
    table: TableRef,
    schema: Bytes,
}

/// A request without an answer.
struct Pending {
    rows_of: RowsOf,
    bytes: usize,
    rows: u32,
    sent: Instant,
    answer: oneshot::Sender<Answer>,
}

/// Serves requests until there have been none for a while, or nobody can send any.
pub async fn serve(
    rpc: Arc<dyn Rpc>,
    mut jobs: mpsc::Receiver<Job>,
    load: Arc<Load>,
    news: Arc<SchemaNews>,
) {
    let pending = VecDeque::new();
    let mut connection = Connection { rpc, load, news, open: None, next: None, pending };
    let (mut used, mut is_closing) = (Instant::now(), false);
    while !is_closing || connection.is_busy() {
        connection.reopen().await;
        match connection.event(&mut jobs, used, is_closing).await {
            Event::Job(Some(job)) => {
                used = Instant::now();
                connection.next = Some(job);
            }
            Event::Job(None) => is_closing = true,
            Event::Room(permit) => connection.send(permit),
            Event::Answer(answer) => connection.answered(answer),
            Event::Late if connection.is_busy() => connection.fail(None),
            // Nobody has used it for a while. What came in this very moment is served still.
            Event::Late => {
                jobs.close();
                connection.next = jobs.try_recv().ok();
                is_closing = true;
            }
        }
    }
}

/// What there is to do.
enum Event {
    /// A request, or none ever.
    Job(Option<Job>),
    /// The wire takes a message; `None` where it does not any more.
    Room(Option<mpsc::OwnedPermit<Body>>),
    /// An answer, or the connection's end.
    Answer(Result<Bytes, Option<RpcError>>),
    /// An answer did not come in time, or no request for a while.
    Late,
}

struct Connection {
    rpc: Arc<dyn Rpc>,
    load: Arc<Load>,
    news: Arc<SchemaNews>,
    open: Option<Open>,
    /// The request that goes out next.
    next: Option<Job>,
    pending: VecDeque<Pending>,
}

/// A call under way.
struct Open {
    stream: RpcStream,
    /// What its last request was for.
    last: Option<RowsOf>,
    /// What BigQuery is known to have taken in: of a request that is refused it may remember nothing.
    taken: Option<RowsOf>,
    /// The wire takes no more; the answers will say why.
    is_ending: bool,
}

impl Connection {
    /// Whether anybody waits for an outcome.
    fn is_busy(&self) -> bool {
        self.next.is_some() || !self.pending.is_empty()
    }

    /// Opens the connection if there is something to send and it is not open.
    async fn reopen(&mut self) {
        if self.open.is_some() {
            return;
        }
        let Some(job) = self.next.take() else { return };
        let routing = format!("write_stream={}", default_stream(&job.table));
        match self.rpc.open(&format!("{SERVICE}AppendRows"), &routing).await {
            Ok(stream) => {
                self.open = Some(Open { stream, last: None, taken: None, is_ending: false });
                self.next = Some(job);
            }
            Err(error) => {
                self.load.remove(job.body.len());
                let outcome = classify::ended(error);
                // The caller may have stopped waiting.
                job.answer.send(Answer { outcome, is_end: false }).ok();
            }
        }
    }

    async fn event(
        &mut self,
        jobs: &mut mpsc::Receiver<Job>,
        used: Instant,
        is_closing: bool,
    ) -> Event {
        let may_take = !is_closing && self.next.is_none() && self.pending.len() < PIPELINE_MAX;
        let deadline = self.pending.front().map_or(used + IDLE, |oldest| oldest.sent + ANSWER_MAX);
        let (room, answer) = match &mut self.open {
            Some(Open { stream: RpcStream { requests, answers }, is_ending, .. }) => {
                let requests = (self.next.is_some() && !*is_ending).then(|| requests.clone());
                (requests, Some(answers))
            }
            None => (None, None),
        };
        let room = async { room?.reserve_owned().await.ok().map(Some) };
        let wants_room = self.next.is_some();
        tokio::select! {
            // Answers first: they make room.
            biased;
            answer = next_answer(answer) => Event::Answer(answer),
            permit = room, if wants_room => Event::Room(permit.flatten()),
            job = jobs.recv(), if may_take => Event::Job(job),
            () = is_given_up(self.pending.front_mut()) => Event::Late,
            () = sleep_until(deadline) => Event::Late,
        }
    }

    /// Sends the next request.
    fn send(&mut self, permit: Option<mpsc::OwnedPermit<Body>>) {
        let Some(open) = &mut self.open else { return };
        let Some(permit) = permit else {
            open.is_ending = true;
            return;
        };
        let Some(Job { table, schema, body, rows, answer }) = self.next.take() else { return };
        if answer.is_closed() {
            // It waited for so long that it was given up: it is sent again, and need not be sent now.
            return self.load.remove(body.len());
        }
        let rows_of = RowsOf { table, schema };
        let is_known = [&open.last, &open.taken].iter().all(|it| it.as_ref() == Some(&rows_of));
        let schema = (!is_known).then_some(&*rows_of.schema);
        let head = framing::head(&default_stream(&rows_of.table), schema, body.len());
        open.last = Some(rows_of.clone());
        let bytes = body.len();
        permit.send(Body::of(vec![head, body]));
        self.pending.push_back(Pending { rows_of, bytes, rows, sent: Instant::now(), answer });
        self.note_oldest();
    }

    fn answered(&mut self, answer: Result<Bytes, Option<RpcError>>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return self.fail(error),
        };
        let Some(pending) = self.pending.pop_front() else {
            tracing::warn!("BigQuery answered a request that nobody made");
            return self.fail(None);
        };
        let Answered { outcome, has_schema_news } = classify::answered(answer, pending.rows);
        if has_schema_news {
            self.news.note(&pending.rows_of.table);
        }
        if let Some(open) = &mut self.open {
            let is_taken = matches!(outcome, WriteOutcome::Acked);
            open.taken = is_taken.then(|| pending.rows_of.clone());
        }
        self.settle(pending, outcome, false);
        self.note_oldest();
    }

    /// The connection has ended: the request that waited longest has what the service said, all others are
    /// in doubt, unless it was never made. What is not sent yet goes by the next connection.
    fn fail(&mut self, error: Option<RpcError>) {
        self.open = None;
        if let Some(error) = &error {
            tracing::debug!(%error, waiting = self.pending.len(), "a connection to BigQuery ended");
        }
        let is_made = !matches!(error, Some(RpcError::NotSent { .. }));
        let is_said = matches!(error, Some(RpcError::Ended(_)));
        let first = self.pending.pop_front().zip(error);
        if let Some((pending, error)) = first {
            let outcome = classify::ended(error);
            let is_end = is_said && matches!(outcome, WriteOutcome::Refused(_));
            self.settle(pending, outcome, is_end);
        }
        while let Some(pending) = self.pending.pop_front() {
            let outcome = match is_made {
                true => WriteOutcome::Unknown(classify::lost(None)),
                false => WriteOutcome::Refused(classify::unreached()),
            };
            self.settle(pending, outcome, false);
        }
        self.note_oldest();
    }

    fn settle(&self, pending: Pending, outcome: WriteOutcome, is_end: bool) {
        self.load.remove(pending.bytes);
        // The caller may have stopped waiting.
        pending.answer.send(Answer { outcome, is_end }).ok();
    }

    fn note_oldest(&self) {
        self.load.note_oldest(self.pending.front().map(|pending| pending.sent));
    }
}

/// Whoever waits for the oldest answer has given it up, and will send the request again: what stands behind it
/// would be given up next, and be sent again through the same stuck connection, time after time.
async fn is_given_up(oldest: Option<&mut Pending>) {
    match oldest {
        None => std::future::pending().await,
        Some(oldest) => oldest.answer.closed().await,
    }
}

/// The next answer; an error where the connection has ended. Pends where there is none.
async fn next_answer(
    answers: Option<&mut BoxStream<'static, Result<Bytes, RpcError>>>,
) -> Result<Bytes, Option<RpcError>> {
    match answers {
        None => std::future::pending().await,
        Some(answers) => answers.next().await.map_or(Err(None), |answer| answer.map_err(Some)),
    }
}
