//! One record from Avro, and from JSON, to row bytes, beside the `Value` trees of apache-avro and serde_json.
//!
//! `cargo bench --bench transcode`. First the ratio: all ways take turns over the same 4,096
//! distinct records, and each way's median round counts, so that a noisy machine hits all alike.
//! Then criterion's own statistics.
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails should stop")]

use std::{hint::black_box, sync::Arc, time::Instant};

use apache_avro::{
    Schema, reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kcbq::{
    record::{Headers, Record},
    schema::{avro, columns::ColumnRules},
    table::TableSchema,
    transcode::{
        LaneLabel, Limits, RowPlan, RowSpec, ValueSource,
        writer::{RowWriter, json::JsonRow, proto::ProtoRow},
    },
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: usize = 4_096;
const ROUNDS: usize = 41;

const SCHEMA: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
  {"name":"order_id","type":"long"},
  {"name":"customer_id","type":"long"},
  {"name":"line_count","type":"int"},
  {"name":"quantity","type":"int"},
  {"name":"net","type":"double"},
  {"name":"gross","type":"double"},
  {"name":"discount","type":"double"},
  {"name":"currency","type":"string"},
  {"name":"country","type":"string"},
  {"name":"email","type":"string"},
  {"name":"session","type":"string"},
  {"name":"created_at","type":{"type":"long","logicalType":"timestamp-millis"}},
  {"name":"updated_at","type":{"type":"long","logicalType":"timestamp-millis"}},
  {"name":"coupon","type":["null","string"]},
  {"name":"note","type":["null","string"]},
  {"name":"paid","type":"boolean"},
  {"name":"status","type":{"type":"enum","name":"Status","symbols":["NEW","PAID","SHIPPED","DONE"]}},
  {"name":"address","type":{"type":"record","name":"Address","fields":[
    {"name":"street","type":"string"},{"name":"city","type":"string"},{"name":"zip","type":"int"}]}},
  {"name":"tags","type":{"type":"array","items":"string"}},
  {"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":4}}
]}"#;

/// A deterministic stream of numbers.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.roll() >> 8) % bound
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices.get(self.below(choices.len() as u64) as usize).unwrap()
    }

    fn hex(&mut self, digits: usize) -> String {
        format!("{:016x}{:016x}", self.roll(), self.roll()).chars().take(digits).collect()
    }
}

fn order(dice: &mut Dice) -> Value {
    let string = |text: &str| Value::String(text.to_owned());
    let created = 1_400_000_000_000 + dice.below(400_000_000_000) as i64;
    let coupon = match dice.below(2) {
        0 => Value::Union(0, Box::new(Value::Null)),
        _ => Value::Union(1, Box::new(Value::String(format!("SAVE-{}", dice.hex(6))))),
    };
    let note = match dice.below(4) {
        0 => Value::Union(1, Box::new(string("leave at the \"blue\" door\nplease"))),
        1 => Value::Union(1, Box::new(string("zweite Tür, Größe prüfen"))),
        _ => Value::Union(0, Box::new(Value::Null)),
    };
    let address = Value::Record(vec![
        ("street".into(), Value::String(format!("{} Long Market Street", dice.below(999)))),
        ("city".into(), string(dice.pick(&["Bergen", "München", "San Francisco", "Ulm"]))),
        ("zip".into(), Value::Int(dice.below(99_999) as i32)),
    ]);
    let tags: Vec<_> =
        (0..dice.below(5)).map(|_| string(dice.pick(&["new", "gift", "express", "b2b"]))).collect();
    let cents = |dice: &mut Dice| dice.below(10_000_000) as f64 / 100.0;
    Value::Record(vec![
        ("order_id".into(), Value::Long(dice.below(1 << 52) as i64)),
        ("customer_id".into(), Value::Long(dice.below(1 << 30) as i64)),
        ("line_count".into(), Value::Int(dice.below(40) as i32)),
        ("quantity".into(), Value::Int(dice.below(5_000) as i32)),
        ("net".into(), Value::Double(cents(dice))),
        ("gross".into(), Value::Double(cents(dice) * 1.19)),
        ("discount".into(), Value::Double(dice.below(100) as f64 / 100.0)),
        ("currency".into(), string(dice.pick(&["EUR", "USD", "SEK"]))),
        ("country".into(), string(dice.pick(&["DE", "US", "SE", "NO"]))),
        ("email".into(), Value::String(format!("{}@example.com", dice.hex(10)))),
        ("session".into(), Value::String(dice.hex(32))),
        ("created_at".into(), Value::TimestampMillis(created)),
        ("updated_at".into(), Value::TimestampMillis(created + dice.below(1 << 30) as i64)),
        ("coupon".into(), coupon),
        ("note".into(), note),
        ("paid".into(), Value::Boolean(dice.below(2) == 0)),
        ("status".into(), {
            let index = dice.below(4) as u32;
            let symbol = ["NEW", "PAID", "SHIPPED", "DONE"].into_iter().nth(index as usize);
            Value::Enum(index, symbol.unwrap().to_owned())
        }),
        ("address".into(), address),
        ("tags".into(), Value::Array(tags)),
        ("total".into(), Value::Decimal(dice.below(1 << 40).to_be_bytes().to_vec().into())),
    ])
}

fn data() -> Vec<Vec<u8>> {
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let mut dice = Dice(1);
    (0..RECORDS).map(|_| writer.write_value_to_vec(order(&mut dice)).unwrap()).collect()
}

/// The easy way, as `from_avro_datum` does it: the schema's names resolved for each datum.
#[expect(deprecated, reason = "the base of the ratio is the call that users find first")]
fn easy(schema: &Schema, mut datum: &[u8], out: &mut Vec<u8>) {
    let value = apache_avro::from_avro_datum(schema, &mut datum, None).unwrap();
    serde_json::to_writer(out, &serde_json::Value::try_from(value).unwrap()).unwrap();
}

/// The same with a reader that is built once.
fn easy_reused(reader: &GenericDatumReader<'_>, mut datum: &[u8], out: &mut Vec<u8>) {
    let value = reader.read_value(&mut datum).unwrap();
    serde_json::to_writer(out, &serde_json::Value::try_from(value).unwrap()).unwrap();
}

/// What a JSON producer's text costs that is parsed into a tree.
fn tree(text: &[u8], out: &mut Vec<u8>) {
    let value: serde_json::Value = serde_json::from_slice(text).unwrap();
    serde_json::to_writer(out, &value).unwrap();
}

fn spec(metadata: bool) -> RowSpec {
    let ty = avro::parse(SCHEMA, &[] as &[&str]).unwrap();
    let mut spec = RowSpec::new(ValueSource::Avro(Arc::new(ty)));
    spec.metadata.enabled = metadata;
    spec
}

fn table(spec: &RowSpec) -> TableSchema {
    TableSchema { columns: spec.columns(&ColumnRules::default()).unwrap() }
}

fn plan<W: RowWriter>(metadata: bool) -> RowPlan<W> {
    let spec = spec(metadata);
    RowPlan::compile(&spec, &table(&spec), Limits::default()).unwrap()
}

/// The same table from JSON texts.
fn json_plan<W: RowWriter>() -> RowPlan<W> {
    let mut spec = RowSpec::new(ValueSource::Json);
    spec.metadata.enabled = false;
    RowPlan::compile(&spec, &table(&self::spec(false)), Limits::default()).unwrap()
}

fn record(datum: &[u8]) -> Record<'_> {
    Record {
        offset: 123_456_789,
        timestamp_ms: Some(1_700_000_000_123),
        key: None,
        value: Some(datum),
        headers: Headers::default(),
    }
}

fn planned<W: RowWriter>(plan: &RowPlan<W>, lane: &LaneLabel, datum: &[u8], out: &mut Vec<u8>) {
    plan.encode(&record(datum), lane, out).unwrap();
}

/// As it stands in an Avro container: checked, and passed through.
fn passed(plan: &RowPlan<JsonRow>, lane: &LaneLabel, datum: &[u8], out: &mut Vec<u8>) {
    plan.encode_datum(&record(datum), lane, out).unwrap();
}

/// A way to turn one datum into text or a row.
type Way<'a> = (&'static str, Box<dyn Fn(&[u8], &mut Vec<u8>) + 'a>);

/// Nanoseconds per record of one pass over all records, and the bytes written.
fn round(way: &Way<'_>, data: &[Vec<u8>], out: &mut Vec<u8>) -> (f64, usize) {
    out.clear();
    let start = Instant::now();
    for datum in data {
        way.1(black_box(datum), out);
        black_box(&mut *out);
    }
    (start.elapsed().as_nanos() as f64 / data.len() as f64, out.len())
}

fn bench(criterion: &mut Criterion) {
    from_avro(criterion);
    from_json(criterion);
}

fn from_avro(criterion: &mut Criterion) {
    let data = data();
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let lane = LaneLabel::new("shop.orders", 3);
    let (json, full, proto) =
        (plan::<JsonRow>(false), plan::<JsonRow>(true), plan::<ProtoRow>(false));
    let ways: Vec<Way<'_>> = vec![
        ("from_avro_datum + serde_json", Box::new(|datum, out| easy(&schema, datum, out))),
        ("reused reader + serde_json", Box::new(|datum, out| easy_reused(&reader, datum, out))),
        ("plan, JSON row", Box::new(|datum, out| planned(&json, &lane, datum, out))),
        ("plan, JSON row with metadata", Box::new(|datum, out| planned(&full, &lane, datum, out))),
        (
            "plan, pass-through with metadata",
            Box::new(|datum, out| passed(&full, &lane, datum, out)),
        ),
        ("plan, protobuf row", Box::new(|datum, out| planned(&proto, &lane, datum, out))),
    ];
    compare(criterion, "Avro", &ways, &data);
}

fn from_json(criterion: &mut Criterion) {
    let lane = LaneLabel::new("shop.orders", 3);
    let text = plan::<JsonRow>(false);
    let data: Vec<Vec<u8>> = data()
        .iter()
        .map(|datum| {
            let mut out = Vec::new();
            planned(&text, &lane, datum, &mut out);
            out
        })
        .collect();
    let (json, proto) = (json_plan::<JsonRow>(), json_plan::<ProtoRow>());
    let ways: Vec<Way<'_>> = vec![
        ("serde_json's Value and back", Box::new(tree)),
        ("plan, JSON row from JSON", Box::new(|datum, out| planned(&json, &lane, datum, out))),
        ("plan, protobuf row from JSON", Box::new(|datum, out| planned(&proto, &lane, datum, out))),
    ];
    compare(criterion, "JSON", &ways, &data);
}

fn compare(criterion: &mut Criterion, format: &str, ways: &[Way<'_>], data: &[Vec<u8>]) {
    let payload: usize = data.iter().map(Vec::len).sum();
    report(format, ways, data, payload);
    let mut group = criterion.benchmark_group(format);
    group.throughput(Throughput::Elements(data.len() as u64));
    for way in ways {
        group.bench_function(way.0, |bencher| {
            let buffer = || Vec::with_capacity(8 * payload);
            bencher.iter_batched_ref(buffer, |out| round(way, data, out), BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn report(format: &str, ways: &[Way<'_>], data: &[Vec<u8>], payload: usize) {
    let mut out = Vec::with_capacity(8 * payload);
    let mut rounds: Vec<Vec<f64>> = ways.iter().map(|_| Vec::new()).collect();
    let mut bytes = vec![0; ways.len()];
    for _ in 0..ROUNDS {
        for ((way, rounds), bytes) in ways.iter().zip(&mut rounds).zip(&mut bytes) {
            let (nanos, written) = round(way, data, &mut out);
            rounds.push(nanos);
            *bytes = written / data.len();
        }
    }
    println!(
        "\n{} distinct {format} records, {} B each, allocator mimalloc",
        data.len(),
        payload / data.len()
    );
    let median = |rounds: &[f64]| {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap()
    };
    let base = rounds.first().map(|rounds| median(rounds)).unwrap();
    for ((way, rounds), bytes) in ways.iter().zip(&rounds).zip(bytes) {
        let (first, median) = (rounds.first().unwrap(), median(rounds));
        let (name, ratio) = (way.0, base / median);
        println!("{name:34} {median:7.0} ns (first {first:7.0})  {bytes:4} B  {ratio:5.1} x");
    }
    println!();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = bench
}
criterion_main!(benches);
