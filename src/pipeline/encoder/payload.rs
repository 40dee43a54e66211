//! From a record's bytes to its writer schemas and the payloads that a plan reads.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hasher, RandomState},
    ops::Range,
    sync::Arc,
};

use crate::{
    dead_letter::{Reason, Stage},
    pipeline::settings::{PayloadSettings, TopicSettings},
    record::Record,
    schema::{connect as connect_schema, model::Type},
    transcode::{connect, settings::Format, wire},
};

/// Memory for Connect schemas and their texts: a producer whose schema never repeats must not fill it.
/// What is dropped comes again with the next record.
const CONNECT_BYTES_MAX: usize = 16 << 20;

/// A Connect schema takes about so many bytes for each byte of its text, the text included.
const BYTES_PER_TEXT: usize = 9;

/// A Connect schema by what its text says: the same text has the same id for as long as the process
/// lives, also after it was dropped. Nobody outside can find two texts with one id, because the keys
/// of the hash are random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectId([u32; 3]);

/// Which writer schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchemaKey {
    /// Nothing is read: a null value, or a key that has no format.
    None,
    /// The schema with this id in the registry.
    Registry(u32),
    /// The topic's local schema.
    Local,
    /// A Connect schema.
    Connect(ConnectId),
    /// JSON without a schema.
    Json,
    /// Text.
    String,
    /// Bytes.
    Bytes,
}

impl SchemaKey {
    /// Whether the schema's record has a name.
    pub fn has_record_name(self) -> bool {
        matches!(self, Self::Registry(_) | Self::Local | Self::Connect(_))
    }

    /// The id in the registry.
    pub fn registry_id(self) -> Option<u32> {
        match self {
            Self::Registry(id) => Some(id),
            _ => None,
        }
    }
}

/// Where a writer schema is to be had.
#[derive(Clone, Debug)]
pub enum Source {
    /// Nothing is read.
    None,
    /// From the registry.
    Registry(u32),
    /// From the topic's local file.
    Local,
    /// It came with the record.
    Connect(Arc<Type>),
    /// It came with a record, and was dropped since: those that wait for it are read once more.
    Gone,
    /// There is none.
    Json,
    /// Text.
    String,
    /// Bytes.
    Bytes,
}

/// The payloads of one record: where value and key lie inside the record's bytes.
#[derive(Clone, Debug, Default)]
pub struct Cut {
    value: Option<Range<usize>>,
    key: Option<Range<usize>>,
}

impl Cut {
    /// The record as a plan reads it: without wire header or envelope.
    pub fn payload<'a>(&self, record: &Record<'a>) -> Record<'a> {
        let part = |bytes: Option<&'a [u8]>, range: &Option<Range<usize>>| match (bytes, range) {
            (Some(bytes), Some(range)) => bytes.get(range.clone()),
            _ => None,
        };
        let value = part(record.value, &self.value);
        Record { value, key: part(record.key, &self.key), ..*record }
    }
}

/// A Connect schema that was seen.
#[derive(Debug)]
struct Known {
    text: Box<[u8]>,
    ty: Arc<Type>,
    id: ConnectId,
}

/// The Connect schemas that were seen last.
#[derive(Debug, Default)]
pub struct Payloads {
    /// By a quick hash of the text.
    connect: HashMap<u64, Known>,
    by_id: HashMap<ConnectId, u64>,
    order: VecDeque<u64>,
    bytes: usize,
    keys: [RandomState; 2],
}

impl Payloads {
    /// Finds the writer schemas of a record and cuts its payloads out.
    pub fn cut(
        &mut self,
        settings: &TopicSettings,
        record: &Record<'_>,
        cut: &mut Cut,
    ) -> Result<(SchemaKey, SchemaKey), Box<Reason>> {
        let (value, value_range) = self.part(Some(&settings.value), record.value)?;
        let (key, key_range) =
            self.part(settings.key.as_ref(), record.key).map_err(|mut reason| {
                reason.field = Some("(key)".to_owned());
                reason
            })?;
        *cut = Cut { value: value_range, key: key_range };
        Ok((value, key))
    }

    fn part(
        &mut self,
        settings: Option<&PayloadSettings>,
        bytes: Option<&[u8]>,
    ) -> Result<(SchemaKey, Option<Range<usize>>), Box<Reason>> {
        let (Some(settings), Some(bytes)) = (settings, bytes) else {
            return Ok((SchemaKey::None, None));
        };
        let whole = Some(0..bytes.len());
        match settings.format {
            Format::Avro if settings.schema.is_some() => Ok((SchemaKey::Local, whole)),
            Format::Avro => {
                let (id, body) = wire::split(bytes).map_err(|error| decode(error.to_string()))?;
                Ok((SchemaKey::Registry(id), Some(bytes.len() - body.len()..bytes.len())))
            }
            Format::Json => Ok((SchemaKey::Json, whole)),
            Format::ConnectJson => self.connect(bytes),
            Format::String => Ok((SchemaKey::String, whole)),
            Format::Bytes => Ok((SchemaKey::Bytes, whole)),
        }
    }

    fn connect(&mut self, bytes: &[u8]) -> Result<(SchemaKey, Option<Range<usize>>), Box<Reason>> {
        let (schema, payload) = connect::split(bytes).map_err(|error| decode(error.to_string()))?;
        // The payload lies inside `bytes`: both addresses belong to one slice.
        let start = payload.as_ptr().addr() - bytes.as_ptr().addr();
        let payload_range = (payload != b"null").then_some(start..start + payload.len());
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        hasher.write(schema);
        let hash = hasher.finish();
        if let Some(known) = self.connect.get(&hash).filter(|known| *known.text == *schema) {
            return Ok((SchemaKey::Connect(known.id), payload_range));
        }
        let text = std::str::from_utf8(schema).map_err(|error| decode(error.to_string()))?;
        let ty = connect_schema::parse_text(text).map_err(|error| decode(error.to_string()))?;
        let id = self.id(schema);
        self.keep(hash, Known { text: schema.into(), ty: Arc::new(ty), id });
        Ok((SchemaKey::Connect(id), payload_range))
    }

    fn id(&self, text: &[u8]) -> ConnectId {
        let [first, second] = self.keys.each_ref().map(|keys| {
            let mut hasher = keys.build_hasher();
            hasher.write(text);
            hasher.finish()
        });
        let [low, high] = [first, first >> 32].map(|part| part as u32);
        ConnectId([low, high, second as u32])
    }

    /// Keeps a schema in place of as many old ones as need be, or of the one with the same hash.
    fn keep(&mut self, hash: u64, known: Known) {
        self.bytes += known.bytes();
        let id = known.id;
        match self.connect.insert(hash, known) {
            Some(old) => {
                self.bytes -= old.bytes();
                self.by_id.remove(&old.id);
            }
            None => self.order.push_back(hash),
        }
        self.by_id.insert(id, hash);
        // The last one stays, however large: it is about to be asked for.
        while self.bytes > CONNECT_BYTES_MAX && self.order.len() > 1 {
            if let Some(oldest) = self.order.pop_front() {
                self.drop_schema(oldest);
            }
        }
    }

    fn drop_schema(&mut self, hash: u64) {
        if let Some(known) = self.connect.remove(&hash) {
            self.bytes -= known.bytes();
            self.by_id.remove(&known.id);
        }
    }

    #[cfg(test)]
    pub(super) fn bytes_kept(&self) -> usize {
        self.bytes
    }

    /// Where the schema behind `key` is to be had.
    pub fn source(&self, key: SchemaKey) -> Source {
        match key {
            SchemaKey::None => Source::None,
            SchemaKey::Registry(id) => Source::Registry(id),
            SchemaKey::Local => Source::Local,
            SchemaKey::Connect(id) => {
                let known = self.by_id.get(&id).and_then(|hash| self.connect.get(hash));
                known.map_or(Source::Gone, |known| Source::Connect(Arc::clone(&known.ty)))
            }
            SchemaKey::Json => Source::Json,
            SchemaKey::String => Source::String,
            SchemaKey::Bytes => Source::Bytes,
        }
    }
}

impl Known {
    fn bytes(&self) -> usize {
        self.text.len() * BYTES_PER_TEXT + size_of::<Self>()
    }
}

fn decode(message: String) -> Box<Reason> {
    Box::new(Reason { stage: Stage::Decode, message, field: None, schema_id: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(version: usize) -> Vec<u8> {
        let padding = "x".repeat(100_000);
        format!(
            r#"{{"schema":{{"type":"int64","version":{version},"doc":"{padding}"}},"payload":1}}"#
        )
        .into_bytes()
    }

    #[test]
    fn a_schema_that_was_dropped_is_the_same_one_when_it_comes_again() {
        let mut payloads = Payloads::default();
        let (first, range) = payloads.connect(&envelope(0)).unwrap();
        assert!(matches!(payloads.source(first), Source::Connect(_)));
        for version in 1..40 {
            payloads.connect(&envelope(version)).unwrap();
            assert!(payloads.bytes <= CONNECT_BYTES_MAX);
        }
        assert!(matches!(payloads.source(first), Source::Gone));
        assert_eq!(payloads.connect(&envelope(0)).unwrap(), (first, range));
        assert!(matches!(payloads.source(first), Source::Connect(_)));
        let all = payloads.connect.len();
        assert_eq!((payloads.by_id.len(), payloads.order.len()), (all, all));
    }
}
