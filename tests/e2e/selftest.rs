//! The rig against itself: real broker, generator, decoder, hash, emulator; no product.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rdkafka::Message;
use serde_json::{Value, json};

use crate::{
    real,
    rig::{
        avro::Schemas,
        bigquery::{Dataset, LocalBigQuery},
        broker::Broker,
        cell,
        clients::{self, Observer, Sender},
        http::Http,
        place::Place,
        simulator::{Entry, Simulator, SimulatorPlan},
        workload,
    },
};

/// Runs all of it.
pub(crate) fn run(binary: &Path) -> Result<()> {
    let place = Place::new("selftest")?;
    cells();
    println!("debezium: {} events read by the independent reader", real::debezium::read_all()?);
    hashes_agree_with_the_ledger(&place, binary)?;
    records_survive_a_broker_that_is_killed(&place)?;
    rows_read_back_from_the_emulator(&place)
}

/// Published and hand-computed values.
fn cells() {
    assert_eq!(cell::decimal_text(&[0xff], 0), "-1");
    assert_eq!(cell::decimal_text(&[0x80], 2), "-1.28");
    assert_eq!(cell::decimal_text(&[0x00, 0xff, 0xff], 4), "6.5535");
    assert_eq!(cell::numeric("-000.500"), "-0.5");
    assert_eq!(cell::numeric("-0.00"), "0");
    assert_eq!(cell::date(-1), "1969-12-31");
    assert_eq!(cell::date(19_782), "2024-02-29");
    assert_eq!(cell::parse_date("2024-02-29Z").ok(), Some(19_782));
    assert_eq!(cell::datetime(-1), "1969-12-31T23:59:59.999999");
    let zoned = cell::parse_timestamp("2024-02-29T12:34:56.789012+02:00").ok();
    assert_eq!(zoned, Some(1_709_202_896_789_012));
    assert_eq!(cell::parse_time("12:34").ok(), Some(45_240_000_000));
    let row = json!({"b": "3", "_kafka_offset": "7", "a": "1"});
    let sorted = json!({"a": "1", "b": "3"});
    assert_eq!(cell::row_hash(&row), cell::row_hash(&sorted));
    println!("cells: ok");
}

/// The same rows, hashed here and by the simulator's ledger.
fn hashes_agree_with_the_ledger(place: &Place, binary: &Path) -> Result<()> {
    const ROWS: u64 = 500;
    let http = Http::new(Duration::from_secs(30))?;
    let plan = SimulatorPlan { dedupe_ms: Some(0), ..SimulatorPlan::new(binary, "ledger") };
    let simulator = Simulator::start(place, &http, plan)?;
    let id = simulator.register(&http, "t-value", &workload::schema(1))?;
    let mut schemas = Schemas::default();
    schemas.add(id, &workload::schema(1))?;
    let base = format!("{}/bigquery/v2/projects/p/datasets", simulator.endpoint());
    let reference = json!({"projectId": "p", "datasetId": "d", "tableId": "t"});
    http.post(&base, &json!({"datasetReference": reference}))?.json()?;
    let table = json!({"tableReference": reference, "schema": {"fields": workload_columns()}});
    http.post(&format!("{base}/d/tables"), &table)?.json()?;
    let (mut value, mut rows, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..ROWS {
        workload::encode(&mut value, id, 1, 3, index);
        let mut row = schemas.read(&value)?;
        let lane = ("t".to_owned(), (index % 3) as i32);
        expected.push((lane, index as i64, cell::row_hash(&row)));
        // Digits alone would be taken for seconds.
        for name in ["created", "updated"] {
            let micros: i64 = row[name].as_str().unwrap_or_default().parse()?;
            let text = cell::datetime(micros);
            row[name] = json!(format!("{}Z", text.as_str().unwrap_or_default()));
        }
        row["_kafka_topic"] = json!("t");
        row["_kafka_partition"] = json!(index % 3);
        row["_kafka_offset"] = json!(index);
        rows.push(json!({"json": row}));
    }
    let body = json!({"rows": rows});
    for _ in 0..2 {
        let answer = http.post(&format!("{base}/d/tables/t/insertAll"), &body)?.json()?;
        ensure!(answer.get("insertErrors").is_none(), "{answer}");
    }
    let told = |Entry { lane, offset, hash, .. }| (lane, offset, hash);
    let mut stored: Vec<_> = simulator.ledger(&http)?.into_iter().map(told).collect();
    expected.extend(expected.clone());
    expected.sort();
    stored.sort();
    ensure!(stored == expected, "the ledger differs: {:?}, {:?}", stored.first(), expected.first());
    println!("ledger: {} rows, every hash as computed here", stored.len());
    Ok(())
}

fn workload_columns() -> Value {
    let column = |name: &str, ty: &str| json!({"name": name, "type": ty});
    let mut columns: Vec<Value> =
        ["id", "customer", "quantity", "retries"].map(|name| column(name, "INTEGER")).to_vec();
    columns.extend(["price", "weight"].map(|name| column(name, "FLOAT")));
    let texts = ["name", "sku", "city", "session", "note", "coupon", "email", "status", "extra_1"];
    columns.extend(texts.map(|name| column(name, "STRING")));
    columns.extend(["created", "updated"].map(|name| column(name, "TIMESTAMP")));
    let address = [column("street", "STRING"), column("zip", "STRING"), column("floor", "INTEGER")];
    columns.push(json!({"name": "address", "type": "RECORD", "fields": address}));
    columns.push(json!({"name": "tags", "type": "STRING", "mode": "REPEATED"}));
    columns.push(column("amount", "NUMERIC"));
    columns.push(column("active", "BOOLEAN"));
    columns.push(column("_kafka_topic", "STRING"));
    columns.extend(["_kafka_partition", "_kafka_offset"].map(|name| column(name, "INTEGER")));
    Value::Array(columns)
}

fn records_survive_a_broker_that_is_killed(place: &Place) -> Result<()> {
    const RECORDS: u64 = 60_000;
    let began = Instant::now();
    let mut broker = Broker::start(place)?;
    println!("broker: up after {:?}", began.elapsed());
    clients::create_topics(&broker.address(), &[("selftest", 4)])?;
    let sender = Sender::new(&broker.address())?;
    let (began, mut bytes, mut value) = (Instant::now(), 0, Vec::new());
    for index in 0..RECORDS {
        workload::encode(&mut value, 7, 2, 1, index);
        bytes += value.len();
        sender.send(("selftest", (index % 4) as i32), None, Some(&value))?;
        if index == RECORDS / 2 {
            println!("producer: half at {:?}", began.elapsed());
        }
    }
    sender.flush()?;
    let rate = RECORDS as f64 / began.elapsed().as_secs_f64();
    println!("producer: {rate:.0} records/s of {} bytes", bytes / RECORDS as usize);
    println!("broker: back {:?} after SIGKILL", broker.restart()?);
    let mut schemas = Schemas::default();
    schemas.add(7, &workload::schema(2))?;
    let observer = Observer::new(&broker.address(), "selftest")?;
    let lanes = observer.lanes(&["selftest".to_owned()])?;
    ensure!(observer.lag(&lanes)? == RECORDS as i64, "the lag of an unused group");
    let (began, mut sum) = (Instant::now(), 0_u64);
    let count = observer.read(&lanes, |message| {
        let index = message.offset() * 4 + i64::from(message.partition());
        let row = schemas.read(message.payload().unwrap_or_default())?;
        let id = row["id"].as_str().and_then(|id| id.parse().ok());
        ensure!(id == Some(index), "record {index} reads as {row}");
        sum ^= cell::row_hash(&row);
        Ok(())
    })?;
    ensure!(count == RECORDS, "{count} records came back");
    println!("observer: {count} records decoded and hashed ({sum:016x}) in {:?}", began.elapsed());
    Ok(())
}

fn rows_read_back_from_the_emulator(place: &Place) -> Result<()> {
    let http = Http::new(Duration::from_secs(60))?;
    let emulator = LocalBigQuery::start(place, &http)?;
    let project = LocalBigQuery::PROJECT;
    let base = format!("{}/bigquery/v2/projects/{project}/datasets", emulator.endpoint());
    let dataset = json!({"datasetReference": {"projectId": project, "datasetId": "raw"}});
    http.post(&base, &dataset)?.json()?;
    let fields = json!([
        {"name": "t", "type": "TIMESTAMP"}, {"name": "n", "type": "NUMERIC"},
        {"name": "f", "type": "FLOAT"}, {"name": "a", "type": "STRING", "mode": "REPEATED"},
        {"name": "d", "type": "DATETIME"}, {"name": "c", "type": "TIME"},
        {"name": "r", "type": "RECORD", "fields": [
            {"name": "b", "type": "BOOLEAN"}, {"name": "x", "type": "BYTES"},
            {"name": "j", "type": "JSON"}]},
        {"name": "y", "type": "DATE"}, {"name": "x", "type": "BYTES"}, {"name": "j", "type": "JSON"},
    ]);
    let reference = json!({"projectId": project, "datasetId": "raw", "tableId": "t"});
    let table = json!({"tableReference": reference, "schema": {"fields": fields}});
    http.post(&format!("{base}/raw/tables"), &table)?.json()?;
    let row = json!({"t": "2024-01-02T03:04:05.678901Z", "n": "-1.50", "f": 0.1, "a": ["x", "y"],
        "d": "1969-12-31T23:59:59.5", "c": "01:02:03", "y": "0001-01-01",
        "r": {"b": true, "x": "3q2+7w==", "j": "{\"b\": 1}"},
        "x": "3q2+7w==", "j": "{\"b\": 1, \"a\": [null]}"});
    let body = json!({"rows": [{"json": row}, {"json": {}}]});
    let answer = http.post(&format!("{base}/raw/tables/t/insertAll"), &body)?.json()?;
    ensure!(answer.get("insertErrors").is_none(), "{answer}");
    let reader = Dataset {
        http: &http,
        endpoint: emulator.endpoint(),
        project,
        dataset: "raw",
        keeps_text_in_records: true,
    };
    let expected = json!({"t": "1704164645678901", "n": "-1.5", "f": "0.1", "a": ["x", "y"],
        "d": "1969-12-31T23:59:59.500000", "c": "01:02:03", "y": "0001-01-01",
        "r": {"b": "true", "x": "3q2+7w==", "j": "{\"b\":1}"},
        "x": "3q2+7w==", "j": "{\"a\":[null],\"b\":1}"});
    let rows = reader.rows("t")?;
    ensure!(rows.contains(&expected) && rows.contains(&json!({})), "read back: {rows:?}");
    println!("emulator: ok");
    Ok(())
}
