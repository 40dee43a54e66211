//! What the Storage Write API must do, as far as the service relies on it, on both fronts of the simulator.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture};
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::{
    cloud::bigquery::storage::v1::{
        AppendRowsRequest, AppendRowsResponse, BatchCommitWriteStreamsRequest,
        BatchCommitWriteStreamsResponse, CreateWriteStreamRequest, FinalizeWriteStreamRequest,
        FinalizeWriteStreamResponse, FlushRowsRequest, FlushRowsResponse, GetWriteStreamRequest,
        ProtoRows, ProtoSchema, StorageError, WriteStream,
        append_rows_request::{ProtoData, Rows},
        append_rows_response::Response as Outcome,
        storage_error::StorageErrorCode,
        write_stream::Type as Kind,
    },
    rpc,
};
use http::Method;
use kcbq::{
    gcp::{
        auth::{Anonymous, AuthError, Token, TokenProvider},
        grpc::GrpcRpc,
    },
    rest::Rest,
    rpc::{Rpc, RpcError, RpcRequest, RpcStatus, RpcStream},
    sim::{
        FaultScript, SimOptions, SimRest, SimSettings, Simulator, StoreMode, memory::SimRpc, serve,
        settings::StorageSettings,
    },
};
use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::sim_contract::{HttpRest, json_request, parsed};

const SERVICE: &str = "/google.cloud.bigquery.storage.v1.BigQueryWrite/";

/// A simulator, by one of its fronts.
struct Subject {
    rest: Box<dyn Rest>,
    rpc: Box<dyn Rpc>,
    simulator: Simulator,
}

impl Subject {
    fn in_memory(settings: SimSettings) -> Self {
        Self::of(Simulator::with_system_clock(settings))
    }

    fn of(simulator: Simulator) -> Self {
        Self {
            rest: Box::new(SimRest(simulator.clone())),
            rpc: Box::new(SimRpc(simulator.clone())),
            simulator,
        }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let path = format!("/projects/p{path}");
        let answer = self.rest.call(json_request(method, path, body.as_ref())).await.unwrap();
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        parsed(&answer)
    }

    /// A table of these columns in a dataset of its own; its name.
    async fn table(&self, id: &str, fields: Value) -> String {
        let reference = json!({"datasetReference": {"datasetId": format!("d_{id}")}});
        self.send(Method::POST, "/datasets", Some(reference)).await;
        let table = json!({"tableReference": {"tableId": id}, "schema": {"fields": fields}});
        self.send(Method::POST, &format!("/datasets/d_{id}/tables"), Some(table)).await;
        format!("projects/p/datasets/d_{id}/tables/{id}")
    }

    /// A table with a required column `n` and a nullable one `t`.
    async fn numbers(&self, id: &str) -> String {
        let n = json!({"name": "n", "type": "INT64", "mode": "REQUIRED"});
        self.table(id, json!([n, {"name": "t", "type": "STRING"}])).await
    }

    /// The cells of column `n`, or of another, in the order in which the rows became visible.
    fn cells(&self, table: &str, column: &str) -> Vec<Option<Value>> {
        let id = table.rsplit('/').next().unwrap();
        self.simulator.with_core(|core, _| {
            let mut tables = core.bigquery().tables();
            let (_, table) = tables.find(|(path, _)| path.table == id).unwrap();
            table.store.rows().iter().map(|row| row.get(column).cloned()).collect()
        })
    }

    fn stored(&self, table: &str) -> Vec<i64> {
        let number = |cell: Option<Value>| cell.unwrap().as_str().unwrap().parse().unwrap();
        self.cells(table, "n").into_iter().map(number).collect()
    }

    async fn open(&self, stream: &str) -> Writer {
        let routing = format!("write_stream={stream}");
        let stream = self.rpc.open(&format!("{SERVICE}AppendRows"), &routing).await.unwrap();
        Writer(stream)
    }

    async fn call<M: Message + Default>(
        &self,
        method: &str,
        request: impl Message,
    ) -> Result<M, RpcStatus> {
        let request = RpcRequest {
            path: format!("{SERVICE}{method}"),
            routing: String::new(),
            message: request.encode_to_vec().into(),
        };
        match self.rpc.call(request).await {
            Ok(answer) => Ok(M::decode(answer).unwrap()),
            Err(RpcError::Ended(status)) => Err(status),
            Err(other) => panic!("{other}"),
        }
    }

    async fn create(&self, table: &str, kind: Kind) -> String {
        let write_stream = WriteStream { r#type: kind.into(), ..WriteStream::default() };
        let parent = table.to_owned();
        let request = CreateWriteStreamRequest { parent, write_stream: Some(write_stream) };
        let stream: WriteStream = self.call("CreateWriteStream", request).await.unwrap();
        assert!(stream.name.starts_with(&format!("{table}/streams/")), "{stream:?}");
        stream.name
    }

    async fn finalize(&self, stream: &str) -> Result<i64, RpcStatus> {
        let request = FinalizeWriteStreamRequest { name: stream.to_owned() };
        let answer: FinalizeWriteStreamResponse = self.call("FinalizeWriteStream", request).await?;
        Ok(answer.row_count)
    }

    async fn commit(&self, table: &str, streams: &[&String]) -> BatchCommitWriteStreamsResponse {
        let request = BatchCommitWriteStreamsRequest {
            parent: table.to_owned(),
            write_streams: streams.iter().map(|name| (*name).clone()).collect(),
        };
        self.call("BatchCommitWriteStreams", request).await.unwrap()
    }
}

/// A connection.
struct Writer(RpcStream);

impl Writer {
    async fn send(&mut self, request: AppendRowsRequest) {
        self.0.requests.send(request.encode_to_vec().into()).await.unwrap();
    }

    async fn answer(&mut self) -> Result<AppendRowsResponse, RpcError> {
        let answer = self.0.answers.next().await.expect("an answer");
        answer.map(|answer| AppendRowsResponse::decode(answer).unwrap())
    }

    async fn ask(&mut self, request: AppendRowsRequest) -> AppendRowsResponse {
        self.send(request).await;
        self.answer().await.unwrap()
    }

    /// Asks, and is refused without the connection's end.
    async fn refused(&mut self, request: AppendRowsRequest) -> rpc::Status {
        match self.ask(request).await.response {
            Some(Outcome::Error(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Asks, and the connection ends.
    async fn ended(&mut self, request: AppendRowsRequest) -> RpcStatus {
        self.send(request).await;
        match self.answer().await {
            Err(RpcError::Ended(status)) => status,
            other => panic!("{other:?}"),
        }
    }
}

fn field(name: &str, number: i32, r#type: Type, label: Label) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        r#type: Some(r#type.into()),
        label: Some(label.into()),
        ..FieldDescriptorProto::default()
    }
}

/// The writer schema of `numbers`: `n` and `t`, and whatever else.
fn schema(more: Vec<FieldDescriptorProto>) -> DescriptorProto {
    let mut fields = vec![
        field("n", 1, Type::Int64, Label::Required),
        field("t", 2, Type::String, Label::Optional),
    ];
    fields.extend(more);
    DescriptorProto { name: Some("Row".into()), field: fields, ..DescriptorProto::default() }
}

fn row(n: i64) -> Bytes {
    let mut row = Vec::new();
    prost::encoding::int64::encode(1, &n, &mut row);
    row.into()
}

/// A request with rows alone.
fn only(rows: &[Bytes]) -> AppendRowsRequest {
    let rows = ProtoRows { serialized_rows: rows.to_vec() };
    let data = ProtoData { writer_schema: None, rows: Some(rows) };
    AppendRowsRequest { rows: Some(Rows::ProtoRows(data)), ..AppendRowsRequest::default() }
}

fn rows(numbers: &[i64]) -> AppendRowsRequest {
    only(&numbers.iter().map(|n| row(*n)).collect::<Vec<_>>())
}

/// The same request as the first of its stream.
fn first(stream: &str, schema: DescriptorProto, request: AppendRowsRequest) -> AppendRowsRequest {
    let Some(Rows::ProtoRows(data)) = request.rows else { panic!() };
    let schema = Some(ProtoSchema { proto_descriptor: Some(schema) });
    let data = ProtoData { writer_schema: schema, ..data };
    AppendRowsRequest {
        write_stream: stream.to_owned(),
        rows: Some(Rows::ProtoRows(data)),
        ..request
    }
}

fn at(offset: i64, request: AppendRowsRequest) -> AppendRowsRequest {
    AppendRowsRequest { offset: Some(offset), ..request }
}

fn appended(answer: &AppendRowsResponse) -> Option<i64> {
    match &answer.response {
        Some(Outcome::AppendResult(result)) => result.offset,
        other => panic!("{other:?}"),
    }
}

/// BigQuery's own code in the details.
fn storage_code(status: &rpc::Status) -> StorageErrorCode {
    let [detail] = &status.details[..] else { panic!("{status:?}") };
    StorageError::decode(&detail.value[..]).unwrap().code()
}

fn storage_code_of(status: &RpcStatus) -> StorageErrorCode {
    storage_code(&rpc::Status::decode(status.details.clone()).unwrap())
}

const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const ALREADY_EXISTS: i32 = 6;
const RESOURCE_EXHAUSTED: i32 = 8;
const ABORTED: i32 = 10;
const OUT_OF_RANGE: i32 = 11;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

async fn a_connection_says_stream_and_schema_once(s: &Subject) {
    let table = s.numbers("once").await;
    let stream = format!("{table}/streams/_default");
    let mut writer = s.open(&stream).await;
    let status =
        writer.refused(AppendRowsRequest { write_stream: stream.clone(), ..rows(&[1]) }).await;
    assert_eq!(status.code, INVALID_ARGUMENT, "no schema yet");
    let answer = writer.ask(first(&stream, schema(vec![]), rows(&[1, 2]))).await;
    assert_eq!((appended(&answer), answer.write_stream), (None, stream.clone()));
    appended(&writer.ask(rows(&[3])).await);
    let status = writer.refused(at(0, rows(&[4]))).await;
    assert_eq!(status.code, INVALID_ARGUMENT, "no offsets in the default stream");
    assert_eq!(s.stored(&table), [1, 2, 3]);
    let mut unnamed = s.open(&stream).await;
    assert_eq!(unnamed.refused(first("", schema(vec![]), rows(&[4]))).await.code, INVALID_ARGUMENT);
}

async fn default_streams_share_a_connection(s: &Subject) {
    let tables = [s.numbers("shared_a").await, s.numbers("shared_b").await];
    let [a, b] = [0, 1].map(|index: usize| format!("{}/streams/_default", tables[index]));
    let mut writer = s.open(&a).await;
    appended(&writer.ask(first(&a, schema(vec![]), rows(&[1]))).await);
    let status = writer.refused(AppendRowsRequest { write_stream: b.clone(), ..rows(&[2]) }).await;
    assert_eq!(status.code, INVALID_ARGUMENT, "a new table, a new schema");
    appended(&writer.ask(first(&b, schema(vec![]), rows(&[2]))).await);
    let status = writer.refused(rows(&[3])).await;
    assert_eq!(status.code, INVALID_ARGUMENT, "from now on every request names its stream");
    appended(&writer.ask(AppendRowsRequest { write_stream: b.clone(), ..rows(&[3]) }).await);
    appended(&writer.ask(first(&a, schema(vec![]), rows(&[4]))).await);
    assert_eq!((s.stored(&tables[0]), s.stored(&tables[1])), (vec![1, 4], vec![2, 3]));
    let created = s.create(&tables[0], Kind::Committed).await;
    let status = writer.refused(first(&created, schema(vec![]), rows(&[5]))).await;
    assert_eq!(status.code, INVALID_ARGUMENT, "only default streams");
}

async fn offsets_are_checked(s: &Subject) {
    let table = s.numbers("offsets").await;
    let stream = s.create(&table, Kind::Committed).await;
    let mut writer = s.open(&stream).await;
    let answer = writer.ask(at(0, first(&stream, schema(vec![]), rows(&[1, 2])))).await;
    assert_eq!(appended(&answer), Some(0));
    assert_eq!(appended(&writer.ask(at(2, rows(&[3]))).await), Some(2));
    assert_eq!(appended(&writer.ask(rows(&[4])).await), Some(3), "at the end");
    let status = writer.refused(at(2, rows(&[3]))).await;
    assert_eq!(status.code, ALREADY_EXISTS);
    assert_eq!(storage_code(&status), StorageErrorCode::OffsetAlreadyExists);
    let status = writer.refused(at(5, rows(&[9]))).await;
    assert_eq!(status.code, OUT_OF_RANGE);
    assert_eq!(storage_code(&status), StorageErrorCode::OffsetOutOfRange);
    assert_eq!(s.stored(&table), [1, 2, 3, 4]);
    assert_eq!(s.finalize(&stream).await.unwrap(), 4);
    assert_eq!(s.finalize(&stream).await.unwrap(), 4, "again");
    let status = writer.refused(at(4, rows(&[5]))).await;
    assert_eq!(storage_code(&status), StorageErrorCode::StreamFinalized);
    let other = s.finalize(&format!("{table}/streams/_default")).await.unwrap_err();
    assert_eq!(other.code, INVALID_ARGUMENT);
}

async fn a_created_stream_has_one_connection(s: &Subject) {
    let table = s.numbers("one").await;
    let stream = s.create(&table, Kind::Committed).await;
    let mut writer = s.open(&stream).await;
    appended(&writer.ask(first(&stream, schema(vec![]), rows(&[1]))).await);
    let mut second = s.open(&stream).await;
    assert_eq!(second.refused(first(&stream, schema(vec![]), rows(&[2]))).await.code, ABORTED);
    drop(writer);
    for _ in 0..100 {
        let answer = second.ask(first(&stream, schema(vec![]), rows(&[2]))).await;
        if matches!(answer.response, Some(Outcome::AppendResult(_))) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(s.stored(&table), [1, 2]);
}

async fn pending_rows_appear_when_all_their_streams_are_committed(s: &Subject) {
    let table = s.numbers("pending").await;
    let streams = [s.create(&table, Kind::Pending).await, s.create(&table, Kind::Pending).await];
    for (number, stream) in (1..).zip(&streams) {
        let mut writer = s.open(stream).await;
        let answer = writer.ask(at(0, first(stream, schema(vec![]), rows(&[number])))).await;
        assert_eq!(appended(&answer), Some(0));
    }
    let [one, two] = &streams;
    s.finalize(one).await.unwrap();
    let early = s.commit(&table, &[one, two]).await;
    assert_eq!((early.commit_time, early.stream_errors.len()), (None, 1));
    assert_eq!(early.stream_errors[0].code(), StorageErrorCode::InvalidStreamState);
    assert_eq!(s.stored(&table), [0; 0], "all or none");
    s.finalize(two).await.unwrap();
    let committed = s.commit(&table, &[one, two]).await;
    assert!(committed.commit_time.is_some() && committed.stream_errors.is_empty());
    assert_eq!(s.stored(&table), [1, 2]);
    let again = s.commit(&table, &[one]).await;
    assert_eq!(again.commit_time, None);
    assert_eq!(again.stream_errors[0].code(), StorageErrorCode::StreamAlreadyCommitted);
    let request = GetWriteStreamRequest { name: one.clone(), ..GetWriteStreamRequest::default() };
    let shown: WriteStream = s.call("GetWriteStream", request).await.unwrap();
    assert!(shown.commit_time.is_some() && shown.r#type() == Kind::Pending);
    let committed = s.create(&table, Kind::Committed).await;
    let wrong = s.commit(&table, &[&committed]).await;
    assert_eq!(wrong.stream_errors[0].code(), StorageErrorCode::InvalidStreamType);
}

async fn buffered_rows_appear_as_they_are_flushed(s: &Subject) {
    let table = s.numbers("buffered").await;
    let stream = s.create(&table, Kind::Buffered).await;
    let mut writer = s.open(&stream).await;
    appended(&writer.ask(first(&stream, schema(vec![]), rows(&[1, 2, 3]))).await);
    assert_eq!(s.stored(&table), [0; 0]);
    let flush = async |offset| -> Result<FlushRowsResponse, RpcStatus> {
        let request = FlushRowsRequest { write_stream: stream.clone(), offset: Some(offset) };
        s.call("FlushRows", request).await
    };
    assert_eq!(flush(1).await.unwrap().offset, 1);
    assert_eq!(s.stored(&table), [1, 2]);
    assert_eq!(flush(1).await.unwrap_err().code, ALREADY_EXISTS);
    assert_eq!(flush(3).await.unwrap_err().code, OUT_OF_RANGE);
    assert_eq!(flush(2).await.unwrap().offset, 2);
    assert_eq!(s.stored(&table), [1, 2, 3]);
    appended(&writer.ask(rows(&[4])).await);
    assert_eq!(s.finalize(&stream).await.unwrap(), 4);
    let late = flush(3).await.unwrap_err();
    assert_eq!(
        (late.code, storage_code_of(&late)),
        (INVALID_ARGUMENT, StorageErrorCode::StreamFinalized)
    );
    assert_eq!(s.stored(&table), [1, 2, 3]);
}

/// A change of row `n`, with a text.
fn change(n: i64, text: &str, kind: &str, sequence: &str) -> Bytes {
    let mut row = row(n).to_vec();
    for (number, text) in [(2, text), (3, kind), (4, sequence)] {
        prost::encoding::string::encode(number, &text.to_owned(), &mut row);
    }
    row.into()
}

fn changes() -> DescriptorProto {
    schema(vec![
        field("_CHANGE_TYPE", 3, Type::String, Label::Optional),
        field("_CHANGE_SEQUENCE_NUMBER", 4, Type::String, Label::Optional),
    ])
}

async fn changes_go_by_the_primary_key(s: &Subject) {
    let table = s.numbers("change").await;
    let stream = format!("{table}/streams/_default");
    let mut writer = s.open(&stream).await;
    let no_key = first(&stream, changes(), only(&[change(1, "a", "UPSERT", "1")]));
    assert_eq!(writer.refused(no_key).await.code, INVALID_ARGUMENT, "no primary key");
    let key = json!({"tableConstraints": {"primaryKey": {"columns": ["n"]}}});
    s.send(Method::PATCH, "/datasets/d_change/tables/change", Some(key)).await;
    let mut stored = async |changes: &[Bytes]| {
        appended(&writer.ask(first(&stream, self::changes(), only(changes))).await);
        let texts = s.cells(&table, "t").into_iter().map(|text| text.unwrap());
        texts.map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let [two, three] = ["0/2", "0/3"];
    let upserts = [change(1, "a", "UPSERT", two), change(2, "b", "UPSERT", two)];
    assert_eq!(stored(&upserts).await, ["a", "b"]);
    assert_eq!(stored(&[change(1, "c", "UPSERT", "0/1")]).await, ["a", "b"], "older");
    assert_eq!(stored(&[change(1, "d", "UPSERT", "0/10")]).await, ["b", "d"], "newer, 16 in hex");
    assert_eq!(stored(&[change(2, "", "DELETE", three)]).await, ["d"]);
    assert_eq!(stored(&[change(2, "e", "UPSERT", two)]).await, ["d"], "a deletion is remembered");
    assert_eq!(stored(&[change(2, "f", "UPSERT", "1/0")]).await, ["d", "f"]);
    let wrong = writer.refused(only(&[change(1, "g", "INSERT", "9")])).await;
    assert!(wrong.message.contains("CHANGE_TYPE"), "{wrong:?}");
    assert!(s.cells(&table, "_CHANGE_TYPE").iter().all(Option::is_none), "no columns of the table");
}

async fn one_bad_row_keeps_all_out(s: &Subject) {
    let table = s.numbers("rows").await;
    let stream = format!("{table}/streams/_default");
    let mut writer = s.open(&stream).await;
    let (mut no_number, mut not_text) = (Vec::new(), row(4).to_vec());
    prost::encoding::string::encode(2, &"x".to_owned(), &mut no_number);
    prost::encoding::bytes::encode(2, &vec![0xff], &mut not_text);
    let bad = only(&[row(1), no_number.into(), row(3), not_text.into()]);
    let answer = writer.ask(first(&stream, schema(vec![]), bad)).await;
    let indexes: Vec<i64> = answer.row_errors.iter().map(|error| error.index).collect();
    assert_eq!(indexes, [1, 3]);
    assert!(
        matches!(answer.response, Some(Outcome::Error(status)) if status.code == INVALID_ARGUMENT)
    );
    assert_eq!(s.stored(&table), [0; 0]);
    appended(&writer.ask(rows(&[1, 3])).await);
    assert_eq!(s.stored(&table), [1, 3], "the connection goes on");
}

async fn a_schema_is_fitted_to_the_table(s: &Subject) {
    let table = s.numbers("schema").await;
    let stream = format!("{table}/streams/_default");
    let new = || field("later", 3, Type::Int64, Label::Optional);
    let mut writer = s.open(&stream).await;
    appended(&writer.ask(first(&stream, schema(vec![]), rows(&[1]))).await);
    let status = writer.refused(first(&stream, schema(vec![new()]), rows(&[2]))).await;
    assert_eq!(storage_code(&status), StorageErrorCode::SchemaMismatchExtraFields);
    let path = "/datasets/d_schema/tables/schema";
    let mut fields = s.send(Method::GET, path, None).await["schema"]["fields"].take();
    fields.as_array_mut().unwrap().push(json!({"name": "later", "type": "INT64"}));
    s.send(Method::PATCH, path, Some(json!({"schema": {"fields": fields}}))).await;
    let answer = writer.ask(rows(&[2])).await;
    let news = answer.updated_schema.expect("news");
    assert_eq!(news.fields.last().unwrap().name, "later");
    assert!(writer.ask(rows(&[3])).await.updated_schema.is_none(), "told once");
    let mut with_later = row(4).to_vec();
    prost::encoding::int64::encode(3, &7, &mut with_later);
    let later = first(&stream, schema(vec![new()]), only(&[with_later.into()]));
    appended(&writer.ask(later).await);
    assert_eq!(s.cells(&table, "later").last().unwrap(), &Some(json!("7")));
    for (counted, rows) in [("*", "4"), ("later", "1")] {
        let query = format!("SELECT COUNT({counted}) FROM `p.d_schema.schema`");
        let query = json!({"query": query, "useLegacySql": false});
        let answer = s.send(Method::POST, "/queries", Some(query)).await;
        assert_eq!(answer["rows"], json!([{"f": [{"v": rows}]}]), "{counted}");
    }
    let wrong = vec![field("later", 3, Type::String, Label::Optional)];
    assert_eq!(
        writer.refused(first(&stream, schema(wrong), rows(&[5]))).await.code,
        INVALID_ARGUMENT
    );
    let narrow = DescriptorProto {
        field: vec![field("t", 2, Type::String, Label::Optional)],
        ..DescriptorProto::default()
    };
    let status = writer.refused(first(&stream, narrow, rows(&[5]))).await;
    assert!(status.message.contains("required field n"), "{status:?}");
    assert_eq!(s.stored(&table), [1, 2, 3, 4]);
}

async fn what_is_not_there_ends_the_connection(s: &Subject) {
    let table = s.numbers("gone").await;
    for (stream, code) in [
        (table.replace("/gone", "/never") + "/streams/_default", StorageErrorCode::TableNotFound),
        (format!("{table}/streams/never"), StorageErrorCode::StreamNotFound),
    ] {
        let status = s.open(&stream).await.ended(first(&stream, schema(vec![]), rows(&[1]))).await;
        assert_eq!((status.code, storage_code_of(&status)), (NOT_FOUND, code));
    }
}

async fn large_requests_end_the_connection(s: &Subject) {
    let table = s.numbers("large").await;
    let stream = format!("{table}/streams/_default");
    let mut large = row(1).to_vec();
    prost::encoding::string::encode(2, &"x".repeat(10 << 20), &mut large);
    let request = first(&stream, schema(vec![]), only(&[large.into()]));
    let status = s.open(&stream).await.ended(request).await;
    assert_eq!(status.code, INVALID_ARGUMENT);
    assert!(status.message.starts_with("AppendRows request too large: "), "{status:?}");
}

async fn answers_come_in_the_order_of_requests(s: &Subject) {
    let table = s.numbers("order").await;
    let stream = s.create(&table, Kind::Committed).await;
    let RpcStream { requests, answers } = s.open(&stream).await.0;
    let send = async {
        for number in 0..50 {
            let request = match number {
                0 => first(&stream, schema(vec![]), rows(&[0])),
                _ => at(number, rows(&[number])),
            };
            requests.send(request.encode_to_vec().into()).await.unwrap();
        }
    };
    let answers = answers
        .take(50)
        .map(|answer| appended(&AppendRowsResponse::decode(answer.unwrap()).unwrap()).unwrap());
    let ((), offsets) = tokio::join!(send, answers.collect::<Vec<_>>());
    assert_eq!(offsets, (0..50).collect::<Vec<_>>());
}

async fn check_all(s: &Subject) {
    a_connection_says_stream_and_schema_once(s).await;
    default_streams_share_a_connection(s).await;
    offsets_are_checked(s).await;
    a_created_stream_has_one_connection(s).await;
    pending_rows_appear_when_all_their_streams_are_committed(s).await;
    buffered_rows_appear_as_they_are_flushed(s).await;
    changes_go_by_the_primary_key(s).await;
    one_bad_row_keeps_all_out(s).await;
    a_schema_is_fitted_to_the_table(s).await;
    what_is_not_there_ends_the_connection(s).await;
    large_requests_end_the_connection(s).await;
    answers_come_in_the_order_of_requests(s).await;
}

#[tokio::test]
async fn streams_in_memory() {
    check_all(&Subject::in_memory(SimSettings::default())).await;
}

#[tokio::test]
async fn streams_over_grpc() {
    let stop = CancellationToken::new();
    let running = serve(SimOptions::default(), stop.clone()).await.unwrap();
    let endpoint = format!("http://{}", running.grpc_addr);
    let subject = Subject {
        rest: Box::new(HttpRest::new(format!("http://{}", running.rest_addr))),
        rpc: Box::new(GrpcRpc::new(Some(&endpoint), None, Arc::new(Anonymous)).unwrap()),
        simulator: running.simulator.clone(),
    };
    check_all(&subject).await;
    answers_are_lost(&subject).await;
    drop(subject);
    stop.cancel();
    running.stopped().await;
}

/// Tokens that say which renewal they came from.
#[derive(Debug, Default)]
struct Renewed(AtomicU64);

impl TokenProvider for Renewed {
    fn token(&self) -> BoxFuture<'_, Result<Option<Token>, AuthError>> {
        let generation = self.0.load(Ordering::Relaxed);
        Box::pin(async move { Token::bearer("token", generation).map(Some) })
    }

    fn refresh(&self, generation: u64) -> BoxFuture<'_, ()> {
        self.0.fetch_max(generation + 1, Ordering::Relaxed);
        Box::pin(async {})
    }
}

#[tokio::test]
async fn a_refused_token_is_renewed() {
    let stop = CancellationToken::new();
    let running = serve(SimOptions::default(), stop.clone()).await.unwrap();
    let endpoint = format!("http://{}", running.grpc_addr);
    let tokens = Arc::new(Renewed::default());
    let provider = Arc::<Renewed>::clone(&tokens);
    let subject = Subject {
        rest: Box::new(HttpRest::new(format!("http://{}", running.rest_addr))),
        rpc: Box::new(GrpcRpc::new(Some(&endpoint), None, provider).unwrap()),
        simulator: running.simulator.clone(),
    };
    let table = subject.numbers("token").await;
    let refuse = |operation| {
        let script = json!({"rules": [
            {"operation": operation, "nth": 1, "fault": {"kind": "refuse", "status": 401}},
        ]});
        let script: FaultScript = serde_json::from_value(script).unwrap();
        subject.simulator.with_core(|core, _| core.set_faults(script));
    };
    refuse("CreateWriteStream");
    let stream = subject.create(&table, Kind::Committed).await;
    assert_eq!(tokens.0.load(Ordering::Relaxed), 1, "renewed, and asked once more");
    refuse("AppendRows");
    let request = || first(&stream, schema(vec![]), rows(&[1]));
    let status = subject.open(&stream).await.ended(request()).await;
    assert_eq!(status.code, UNAUTHENTICATED);
    assert_eq!(tokens.0.load(Ordering::Relaxed), 2, "renewed for the next connection");
    appended(&subject.open(&stream).await.ask(request()).await);
    drop(subject);
    stop.cancel();
    running.stopped().await;
}

/// The connection breaks, and the rows are stored, or will be.
async fn answers_are_lost(s: &Subject) {
    let table = s.numbers("lost").await;
    let stream = format!("{table}/streams/_default");
    for (number, fault) in [(1, r#"{"kind":"lose"}"#), (2, r#"{"kind":"refuse","status":503}"#)] {
        let script =
            format!(r#"{{"rules":[{{"operation":"AppendRows","nth":2,"fault":{fault}}}]}}"#);
        let script: FaultScript = serde_json::from_str(&script).unwrap();
        s.simulator.with_core(|core, _| core.set_faults(script));
        let mut writer = s.open(&stream).await;
        appended(&writer.ask(first(&stream, schema(vec![]), rows(&[10 * number]))).await);
        writer.send(rows(&[number])).await;
        match writer.answer().await.unwrap_err() {
            RpcError::Broken { .. } if number == 1 => {}
            RpcError::Ended(status) if number == 2 && status.code == UNAVAILABLE => {}
            other => panic!("{number}: {other:?}"),
        }
    }
    s.simulator.with_core(|core, _| core.set_faults(FaultScript::default()));
    assert_eq!(s.stored(&table), [10, 1, 20]);
}

#[tokio::test]
async fn answers_are_lost_in_memory() {
    answers_are_lost(&Subject::in_memory(SimSettings::default())).await;
}

/// A simulator whose time a test moves.
fn timed(settings: SimSettings) -> (Subject, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(1_000_000));
    let clock = Arc::clone(&seconds);
    let clock = Arc::new(move || Duration::from_secs(clock.load(Ordering::Relaxed)));
    (Subject::of(Simulator::new(settings, clock)), seconds)
}

#[tokio::test]
async fn idle_and_old_connections_end() {
    let storage =
        StorageSettings { connection_age_ms: Some(3_600_000), ..StorageSettings::default() };
    let (s, seconds) = timed(SimSettings { storage, ..SimSettings::default() });
    let table = s.numbers("idle").await;
    let stream = format!("{table}/streams/_default");
    let request = |number| first(&stream, schema(vec![]), rows(&[number]));
    let mut idle = s.open(&stream).await;
    appended(&idle.ask(request(1)).await);
    seconds.fetch_add(599, Ordering::Relaxed);
    appended(&idle.ask(request(2)).await);
    seconds.fetch_add(600, Ordering::Relaxed);
    assert_eq!(idle.ended(request(3)).await.code, ABORTED);
    let mut old = s.open(&stream).await;
    for number in 10..18 {
        appended(&old.ask(request(number)).await);
        seconds.fetch_add(450, Ordering::Relaxed);
    }
    assert_eq!(old.ended(request(18)).await.code, UNAVAILABLE);
    assert_eq!(s.stored(&table), [1, 2, 10, 11, 12, 13, 14, 15, 16, 17]);
}

#[tokio::test]
async fn a_held_request_arrives_after_its_connection_is_gone() {
    let (s, seconds) = timed(SimSettings::default());
    let table = s.numbers("late").await;
    let stream = s.create(&table, Kind::Committed).await;
    let script =
        r#"{"rules":[{"operation":"AppendRows","nth":2,"fault":{"kind":"hold","ms":5000}}]}"#;
    let script: FaultScript = serde_json::from_str(script).unwrap();
    s.simulator.with_core(|core, _| core.set_faults(script));
    let mut writer = s.open(&stream).await;
    appended(&writer.ask(first(&stream, schema(vec![]), rows(&[1]))).await);
    writer.send(at(1, rows(&[2]))).await;
    let held = tokio::time::timeout(Duration::from_millis(50), writer.answer()).await;
    assert!(held.is_err());
    drop(writer);
    seconds.fetch_add(5, Ordering::Relaxed);
    assert_eq!(s.finalize(&stream).await.unwrap(), 2, "counted before the end");
    assert_eq!(s.stored(&table), [1, 2]);
}

#[tokio::test]
async fn a_deletion_is_forgotten_after_two_days() {
    let (s, seconds) = timed(SimSettings::default());
    let table = s.numbers("forgotten").await;
    let key = json!({"tableConstraints": {"primaryKey": {"columns": ["n"]}}});
    s.send(Method::PATCH, "/datasets/d_forgotten/tables/forgotten", Some(key)).await;
    let stream = format!("{table}/streams/_default");
    let send = async |kind, sequence| {
        let request = first(&stream, changes(), only(&[change(1, "a", kind, sequence)]));
        appended(&s.open(&stream).await.ask(request).await);
        s.stored(&table).len()
    };
    assert_eq!(send("DELETE", "2").await, 0);
    seconds.fetch_add(2 * 86_400 - 1, Ordering::Relaxed);
    assert_eq!(send("UPSERT", "1").await, 0);
    seconds.fetch_add(1, Ordering::Relaxed);
    assert_eq!(send("UPSERT", "1").await, 1);
}

#[tokio::test]
async fn created_streams_have_a_quota() {
    let storage = StorageSettings { creates_max: 2, ..StorageSettings::default() };
    let (s, seconds) = timed(SimSettings { storage, ..SimSettings::default() });
    let table = s.numbers("quota").await;
    let create = async || {
        let write_stream = WriteStream { r#type: Kind::Pending.into(), ..WriteStream::default() };
        let (parent, write_stream) = (table.clone(), Some(write_stream));
        let request = CreateWriteStreamRequest { parent, write_stream };
        s.call::<WriteStream>("CreateWriteStream", request).await
    };
    assert!(create().await.is_ok() && create().await.is_ok());
    assert_eq!(create().await.unwrap_err().code, RESOURCE_EXHAUSTED);
    seconds.fetch_add(3_600, Ordering::Relaxed);
    assert!(create().await.is_ok());
}

#[tokio::test]
async fn rows_that_are_only_counted_are_not_read() {
    let settings = SimSettings { store: StoreMode::Count, ..SimSettings::default() };
    let s = Subject::in_memory(settings);
    let table = s.numbers("counted").await;
    let stream = format!("{table}/streams/_default");
    let mut writer = s.open(&stream).await;
    appended(&writer.ask(first(&stream, schema(vec![]), only(&[row(1), "no row".into()]))).await);
    let counters = s.simulator.with_core(|core, _| core.counters().clone());
    assert_eq!((counters.rows, counters.appended_rows, counters.row_errors), (2, 2, 0));
}
