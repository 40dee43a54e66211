//! What producers write, and what must become of it: both from the record's coordinates alone.
//!
//! Topics `a` and `b` carry Avro in Confluent's wire format, each under writer schemas of its own, into
//! one table; `c` carries JSON without a schema into two tables, chosen by a header. What the pipeline
//! makes of the bytes is compared with [`Content`], which is derived again for the comparison and never
//! read from them.

use super::{
    avro,
    plan::{Loading, Mix},
    rng::Rng,
};
use crate::{
    path::Stream,
    pipeline::settings::WriteMode,
    record::{TopicPartition, push_header},
};

/// How a record is broken on the way to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Not Confluent's first byte; not JSON.
    Magic,
    /// Bytes behind the value.
    Trailing,
    /// Bytes are missing.
    Short,
    /// A schema that cannot become columns; two keys for one column.
    Columns,
    /// A moment beyond BigQuery's years; a null inside an array.
    Unfit,
    /// A moment outside the partitions that streaming reaches, which is no fault where rows are loaded; a
    /// header that the table's name needs is missing.
    Outside,
}

/// What kind of record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A row.
    Good,
    /// A null value.
    Null,
    /// A dead letter.
    Broken(Broken),
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Content {
    /// The kind.
    pub(crate) kind: Kind,
    /// Different for nearly every record.
    pub(crate) id: i64,
    /// Text, of any length; `None` only under a schema that allows it.
    pub(crate) text: Option<String>,
    /// A number, in halves.
    pub(crate) halves: i64,
    /// Milliseconds since the epoch.
    pub(crate) at_ms: i64,
    /// A list.
    pub(crate) tags: Vec<String>,
    /// Which of the columns that not every writer knows.
    pub(crate) extra: Option<u8>,
    /// Which writer schema.
    pub(crate) version: avro::Version,
    /// Which of the topic's tables it is for.
    pub(crate) table: u8,
    /// When it was produced.
    pub(crate) timestamp_ms: i64,
}

/// What must become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A row of this table.
    Row(&'static str),
    /// A dead letter.
    Letter,
    /// Nothing.
    Skip,
}

/// One record of a log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogRecord {
    /// Its key.
    pub(crate) key: Option<Vec<u8>>,
    /// Its value.
    pub(crate) value: Option<Vec<u8>>,
    /// Its headers, encoded.
    pub(crate) headers: Vec<u8>,
    /// When it was produced.
    pub(crate) timestamp_ms: i64,
}

/// Everything that a history's records follow from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents {
    seed: u64,
    mix: Mix,
    loading: Loading,
}

/// The extra column that hardly a record has.
pub(crate) const RARE_COLUMN: u8 = 3;

/// November 2023: the wall clock at the start of every history.
pub(crate) const EPOCH_MS: u64 = 1_700_000_000_000;

impl Contents {
    /// The records of one history.
    pub(crate) fn new(seed: u64, mix: Mix, loading: Loading) -> Self {
        Self { seed, mix, loading }
    }

    /// Whether the lane's rows come by load jobs.
    pub(crate) fn is_loaded(&self, lane: &TopicPartition) -> bool {
        self.loading.mode(&lane.topic) == WriteMode::Load
    }

    /// Whether a row may come by a load job.
    fn can_be_loaded(&self, lane: &TopicPartition) -> bool {
        self.is_loaded(lane) || self.is_switched(lane)
    }

    /// Whether they are in PENDING streams until a commit: nothing that is lost on the way repeats one.
    pub(crate) fn is_pending(&self, lane: &TopicPartition) -> bool {
        self.loading.mode(&lane.topic) == WriteMode::Pending
    }

    /// Whether they come now this way and now that.
    pub(crate) fn is_switched(&self, lane: &TopicPartition) -> bool {
        self.loading.has_bucket && self.loading.mode(&lane.topic) == WriteMode::Auto
    }

    /// Whether they are appended to `_default`: nothing recognises those that are sent again.
    pub(crate) fn is_appended(&self, lane: &TopicPartition) -> bool {
        !self.is_pending(lane)
            && self.loading.mode(&lane.topic).stream(self.loading.has_storage) == Stream::Appends
    }

    /// What the record at these coordinates says.
    pub(crate) fn at(&self, lane: &TopicPartition, offset: i64) -> Content {
        let place = u64::from(lane.topic.as_bytes()[0]) << 40 | (lane.partition as u64) << 32;
        let mut rng = Rng::new(self.seed ^ Rng::new(place | offset as u64).bits());
        let mix = &self.mix;
        let kind = if rng.chance(mix.null) {
            Kind::Null
        } else if rng.chance(mix.bad) {
            use Broken::{Columns, Magic, Outside, Short, Trailing, Unfit};
            let broken = [Magic, Trailing, Short, Columns, Unfit, Outside];
            Kind::Broken(broken[rng.index(broken.len())])
        } else {
            Kind::Good
        };
        let rare = rng.chance(10);
        let column = if rare { RARE_COLUMN } else { rng.between(0, 3) as u8 };
        let extra = rng.chance(mix.column).then_some(column);
        let double = rng.chance(mix.double);
        let version = avro::Version { extra, double, nullable: rng.chance(mix.column) };
        let text = format!("{:x}{}", rng.bits(), "p".repeat(rng.between(0, mix.pad + 1) as usize));
        let at_ms = EPOCH_MS as i64 - rng.between(0, 300 * 86_400_000) as i64;
        Content {
            kind,
            id: (rng.bits() >> 16) as i64 - (1 << 40),
            text: (!version.nullable || rng.chance(700)).then_some(text),
            halves: 2 * rng.between(0, 1_000) as i64 + i64::from(double),
            at_ms: match kind {
                Kind::Broken(Broken::Unfit) => 300_000_000_000_000,
                Kind::Broken(Broken::Outside) => 86_400_000,
                _ => at_ms,
            },
            tags: (0..rng.between(1, 4)).map(|tag| format!("t{tag}\u{e9}\"")).collect(),
            extra,
            version,
            table: rng.between(0, 2) as u8,
            timestamp_ms: EPOCH_MS as i64 + rng.between(0, 60_000) as i64,
        }
    }

    /// What must become of the record at these coordinates.
    pub(crate) fn fate(&self, lane: &TopicPartition, offset: i64) -> Fate {
        let content = self.at(lane, offset);
        match content.kind {
            Kind::Null => Fate::Skip,
            // A load job reaches every partition.
            Kind::Broken(Broken::Outside) if self.can_be_loaded(lane) && &*lane.topic != "c" => {
                Fate::Row("ab")
            }
            Kind::Broken(_) => Fate::Letter,
            Kind::Good => Fate::Row(match (&*lane.topic, content.table) {
                ("a" | "b", _) => "ab",
                (_, 0) => "c0",
                _ => "c1",
            }),
        }
    }

    /// The record at these coordinates, as its producer writes it.
    pub(crate) fn produce(&self, lane: &TopicPartition, offset: i64) -> LogRecord {
        let content = self.at(lane, offset);
        let mut headers = Vec::new();
        if &*lane.topic == "c" && content.kind != Kind::Broken(Broken::Outside) {
            push_header(&mut headers, "t", Some(content.table.to_string().as_bytes()));
        }
        LogRecord {
            key: (&*lane.topic == "a").then(|| key(&content).into_bytes()),
            value: match content.kind {
                Kind::Null => None,
                _ if &*lane.topic == "c" => Some(json(&content)),
                _ => Some(avro::value(&lane.topic, &content)),
            },
            headers,
            timestamp_ms: content.timestamp_ms,
        }
    }
}

/// The key of a record of topic `a`.
pub(crate) fn key(content: &Content) -> String {
    format!("k{}", content.id)
}

/// The text of the extra column.
pub(crate) fn extra(content: &Content) -> String {
    format!("x{}", content.id)
}

fn json(content: &Content) -> Vec<u8> {
    let mut value = serde_json::json!({
        "id": content.id,
        "v": content.text,
        "tags": content.tags,
    });
    value["n"] = match content.halves % 2 {
        0 => (content.halves / 2).into(),
        _ => (content.halves as f64 / 2.0).into(),
    };
    if let Some(column) = content.extra {
        value[format!("x{column}")] = extra(content).into();
    }
    match content.kind {
        Kind::Broken(Broken::Columns) => value["ID"] = 1.into(),
        Kind::Broken(Broken::Unfit) => value["tags"] = serde_json::json!(["t", null]),
        _ => {}
    }
    let mut bytes = value.to_string().into_bytes();
    match content.kind {
        Kind::Broken(Broken::Magic) => bytes[0] = b'?',
        Kind::Broken(Broken::Trailing) => bytes.extend_from_slice(b"{}"),
        Kind::Broken(Broken::Short) => bytes.truncate(bytes.len() - 1),
        _ => {}
    }
    bytes
}
