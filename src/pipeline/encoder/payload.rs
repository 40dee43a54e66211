//! From a record's bytes to its writer schemas and the payloads that a plan reads.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher},
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

/// Connect schemas kept by their text: a producer whose schema never repeats must not fill the
/// memory.
const CONNECT_SCHEMAS_MAX: usize = 10_000;

/// Which writer schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchemaKey {
    /// Nothing is read: a null value, or a key that has no format.
    None,
    /// The schema with this id in the registry.
    Registry(u32),
    /// The topic's local schema.
    Local,
    /// A Connect schema, by its number in [`Payloads`].
    Connect(u32),
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

/// The Connect schemas that were seen, by text.
#[derive(Debug, Default)]
pub struct Payloads {
    connect: Vec<(Box<[u8]>, Arc<Type>)>,
    by_hash: HashMap<u64, Vec<u32>>,
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
        let same =
            |ix: &&u32| self.connect.get(**ix as usize).is_some_and(|(text, _)| **text == *schema);
        if let Some(ix) = self.by_hash.get(&hash).and_then(|known| known.iter().find(same)) {
            return Ok((SchemaKey::Connect(*ix), payload_range));
        }
        if self.connect.len() >= CONNECT_SCHEMAS_MAX {
            return Err(decode(format!(
                "more than {CONNECT_SCHEMAS_MAX} different Connect schemas were seen"
            )));
        }
        let text = std::str::from_utf8(schema).map_err(|error| decode(error.to_string()))?;
        let ty = connect_schema::parse_text(text).map_err(|error| decode(error.to_string()))?;
        let ix = u32::try_from(self.connect.len()).unwrap_or(u32::MAX);
        self.connect.push((schema.into(), Arc::new(ty)));
        self.by_hash.entry(hash).or_default().push(ix);
        Ok((SchemaKey::Connect(ix), payload_range))
    }

    /// Where the schema behind `key` is to be had.
    pub fn source(&self, key: SchemaKey) -> Source {
        match key {
            SchemaKey::None => Source::None,
            SchemaKey::Registry(id) => Source::Registry(id),
            SchemaKey::Local => Source::Local,
            SchemaKey::Connect(ix) => match self.connect.get(ix as usize) {
                Some((_, ty)) => Source::Connect(Arc::clone(ty)),
                None => Source::None,
            },
            SchemaKey::Json => Source::Json,
            SchemaKey::String => Source::String,
            SchemaKey::Bytes => Source::Bytes,
        }
    }
}

fn decode(message: String) -> Box<Reason> {
    Box::new(Reason { stage: Stage::Decode, message, field: None, schema_id: None })
}
