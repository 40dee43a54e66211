//! A connection of `AppendRows`, with rows of a probe's table.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    AppendRowsRequest, AppendRowsResponse, ProtoRows, ProtoSchema,
    append_rows_request::{ProtoData, Rows},
    append_rows_response::Response,
};
use prost::Message as _;
use tokio::time::Instant;

use crate::{
    app::{
        check::probes::chain,
        probe::{
            lab::Lab,
            rpc::{Answer, NOT_FOUND, Refusal, decoded, short},
            transcript::{Log, Trouble},
        },
    },
    rest::Body,
    rpc::{RpcError, RpcStream},
    table::{Column, ColumnKind, Mode, TableSchema},
    write::storage::{descriptor::writer_schema, names::SERVICE},
};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How long a table that was just made may be unknown to its `_default` stream.
const TABLE_WAIT: Duration = Duration::from_secs(30);
const TABLE_PAUSE: Duration = Duration::from_secs(3);

/// What was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    /// The offset of the first row, where the stream has offsets.
    pub(crate) offset: Option<i64>,
    /// Whether the answer tells of another schema of the table.
    pub(crate) has_news: bool,
}

/// Rows and where they go.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// What they are, for the record.
    about: String,
    /// The offset of the first; none for the stream's end.
    offset: Option<i64>,
    /// The rows' messages.
    rows: Vec<Bytes>,
}

impl Request {
    /// This many rows at an offset.
    pub(crate) fn at(offset: i64, rows: i64) -> Self {
        let about = format!("{rows} rows at offset {offset}");
        let rows = (offset..offset + rows).map(|n| row(n, &[])).collect();
        Self { about, offset: Some(offset), rows }
    }

    /// A row at the stream's end, with these texts in the columns behind `n` and `t`.
    pub(crate) fn of(n: i64, more: &[&str]) -> Self {
        let values = more.iter().map(|text| format!(", {text}"));
        let about = format!("({n}{})", values.collect::<String>());
        Self { about, offset: None, rows: vec![row(n, more)] }
    }
}

/// An open connection.
pub(crate) struct Appends {
    pub(super) wire: RpcStream,
    pub(super) stream: String,
    /// Until it was sent.
    pub(super) schema: Option<ProtoSchema>,
    pub(super) log: Log,
}

impl Lab {
    /// Opens a connection to a stream, for rows of these columns behind `n` and `t`.
    pub(crate) async fn open(&self, stream: &str, more: &[&str]) -> Result<Appends, Trouble> {
        let rpc = self.remotes.rpc.as_ref().map_err(Clone::clone)?;
        let routing = format!("write_stream={stream}");
        let asked = Instant::now();
        let wire = match rpc.open(&format!("{SERVICE}AppendRows"), &routing).await {
            Ok(wire) => wire,
            Err(error) => {
                let line = format!("AppendRows {}", short(stream));
                self.log.note(&line, &chain(&error), asked.elapsed());
                return Err(Refusal::of_error(&error)?.into());
            }
        };
        let schema = Some(decoded(writer_schema(&columns(more)))?);
        Ok(Appends { wire, stream: stream.to_owned(), schema, log: self.log.clone() })
    }

    /// The same with a first request, which is repeated while the table is not known yet.
    pub(crate) async fn open_with(
        &self,
        stream: &str,
        more: &[&str],
        request: Request,
    ) -> Result<(Appends, Answer<Appended>), Trouble> {
        let end = Instant::now() + TABLE_WAIT;
        loop {
            let mut appends = self.open(stream, more).await?;
            match appends.append(request.clone()).await? {
                Err(refusal) if refusal.code == NOT_FOUND && Instant::now() < end => {
                    tokio::time::sleep(TABLE_PAUSE).await;
                }
                answer => return Ok((appends, answer)),
            }
        }
    }
}

impl Appends {
    /// Sends one request and waits for its answer.
    pub(crate) async fn append(&mut self, request: Request) -> Result<Answer<Appended>, Trouble> {
        let line = self.line(&request);
        let asked = Instant::now();
        let message = message(&self.stream, self.schema.take(), request);
        // Where the wire takes no more, the answers say why.
        drop(self.wire.requests.send(message).await);
        let answer = next(&mut self.wire.answers).await;
        self.note(&line, &answer, asked.elapsed());
        answer
    }

    /// A request in one line.
    pub(super) fn line(&self, request: &Request) -> String {
        let described = if self.schema.is_some() { ", with descriptor" } else { "" };
        format!("AppendRows {} {}{described}", short(&self.stream), request.about)
    }

    fn note(&self, line: &str, answer: &Result<Answer<Appended>, Trouble>, took: Duration) {
        let told = match answer {
            Ok(Ok(Appended { offset, has_news })) => {
                let offset = offset.map(|offset| format!(", offset {offset}")).unwrap_or_default();
                format!("OK{offset}{}", if *has_news { ", updated_schema" } else { "" })
            }
            Ok(Err(refusal)) => refusal.to_string(),
            Err(trouble) => trouble.why.clone(),
        };
        self.log.note(line, &told, took);
    }
}

/// The message of a request; with `schema` where it is the connection's first.
pub(super) fn message(stream: &str, schema: Option<ProtoSchema>, request: Request) -> Body {
    let rows = Some(ProtoRows { serialized_rows: request.rows });
    let request = AppendRowsRequest {
        write_stream: stream.to_owned(),
        offset: request.offset,
        rows: Some(Rows::ProtoRows(ProtoData { writer_schema: schema, rows })),
        ..AppendRowsRequest::default()
    };
    request.encode_to_vec().into()
}

/// The next answer of a connection.
pub(super) async fn next(
    answers: &mut BoxStream<'static, Result<Bytes, RpcError>>,
) -> Result<Answer<Appended>, Trouble> {
    let answer = tokio::time::timeout(ANSWER_MAX, answers.next()).await;
    let away = |why: String| Trouble::new(why, "check `bigquery.storage_endpoint` and the network");
    let answer =
        answer.map_err(|_| away(format!("no answer within {} s", ANSWER_MAX.as_secs())))?;
    match answer.ok_or_else(|| away("the connection ended without a word".to_owned()))? {
        Ok(bytes) => read(decoded(bytes)?),
        Err(error) => Refusal::of_error(&error).map(Err),
    }
}

fn read(answer: AppendRowsResponse) -> Result<Answer<Appended>, Trouble> {
    let has_news = answer.updated_schema.is_some();
    match answer.response {
        Some(Response::AppendResult(result)) => {
            Ok(Ok(Appended { offset: result.offset, has_news }))
        }
        Some(Response::Error(status)) => Refusal::of(status).map(|mut refusal| {
            let rows =
                answer.row_errors.iter().map(|row| format!(" Row {}: {}", row.index, row.message));
            refusal.message.extend(rows);
            Err(refusal)
        }),
        None => Err(Trouble::new("an answer says neither success nor failure", "run it again")),
    }
}

fn columns(more: &[&str]) -> TableSchema {
    let known = [
        Column::new("n", ColumnKind::Int64).with_mode(Mode::Required),
        Column::new("t", ColumnKind::String),
    ];
    let more = more.iter().map(|name| Column::new(*name, ColumnKind::String));
    TableSchema { columns: known.into_iter().chain(more).collect() }
}

fn row(n: i64, more: &[&str]) -> Bytes {
    let mut row = Vec::new();
    prost::encoding::int64::encode(1, &n, &mut row);
    for (number, text) in (3..).zip(more) {
        prost::encoding::string::encode(number, &(*text).to_owned(), &mut row);
    }
    row.into()
}
