//! One model for every kind of writer schema: Avro, Connect's JSON envelope, inferred JSON.
//!
//! A [`Type`] says both how a value is read ([`Kind`], the physical encoding) and what it means
//! ([`Logical`]). The project parses Avro schemas itself because apache-avro drops attributes on
//! primitive types (`connect.name`, Debezium's semantic types).

use std::sync::Arc;

/// A type: how it is encoded, and what it means.
#[derive(Clone, Debug, PartialEq)]
pub struct Type {
    /// The physical encoding.
    pub kind: Kind,
    /// What the value means beyond its encoding.
    pub logical: Option<Logical>,
    /// The full name that the schema gives an enum or a fixed; a record has its own in
    /// [`RecordType`].
    pub name: Option<Arc<str>>,
    /// Documentation from the schema.
    pub doc: Option<Arc<str>>,
}

impl Type {
    /// A type without a logical meaning.
    pub fn plain(kind: Kind) -> Self {
        Self { kind, logical: None, name: None, doc: None }
    }

    /// A type with a logical meaning.
    pub fn logical(kind: Kind, logical: Logical) -> Self {
        Self { logical: Some(logical), ..Self::plain(kind) }
    }

    /// How many types it is made of, itself included; named types count wherever they are used.
    pub fn size(&self) -> usize {
        let inside = match &self.kind {
            Kind::Record(record) => record.fields.iter().map(|field| field.ty.size()).sum(),
            Kind::Array(inner) | Kind::Map(inner) => inner.size(),
            Kind::Union(branches) => branches.iter().map(Self::size).sum(),
            _ => 0,
        };
        1 + inside
    }

    /// The same type, or null.
    pub fn nullable(self) -> Self {
        Self::plain(Kind::Union(Arc::from([Self::plain(Kind::Null), self])))
    }
}

/// The physical encodings; Avro's, because they include every other format's.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Always null; takes no bytes.
    Null,
    /// A boolean.
    Boolean,
    /// A 32-bit integer (Connect: INT8, INT16, INT32).
    Int,
    /// A 64-bit integer.
    Long,
    /// A 32-bit float.
    Float,
    /// A 64-bit float.
    Double,
    /// Bytes (JSON: base64 text).
    Bytes,
    /// UTF-8 text.
    String,
    /// A fixed number of bytes.
    Fixed(usize),
    /// One of these symbols.
    Enum(Arc<[Arc<str>]>),
    /// Named fields, in order.
    Record(Arc<RecordType>),
    /// A sequence of one type.
    Array(Arc<Type>),
    /// Text keys to one type.
    Map(Arc<Type>),
    /// One of these branches. Null may be among them.
    Union(Arc<[Type]>),
    /// A reference to the record called by this full name, which encloses this place. Only a
    /// recursive schema has one; columns cannot be derived from it.
    Recursive(Arc<str>),
}

impl Kind {
    /// The Avro name of this kind of type.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes => "bytes",
            Self::String => "string",
            Self::Fixed(_) => "fixed",
            Self::Enum(_) => "enum",
            Self::Record(_) | Self::Recursive(_) => "record",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Union(_) => "union",
        }
    }
}

/// A record: its name and its fields.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordType {
    /// The full name, namespace included; empty for an inferred record only. A record without a
    /// name promises nothing: each of its fields may be missing from the next value, so none of its
    /// columns is `REQUIRED`, and each column's name depends on its key alone (see
    /// [`names`](crate::schema::names)).
    pub name: Arc<str>,
    /// The fields in their encoded order.
    pub fields: Vec<Field>,
}

/// One field of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The name as the writer spells it.
    pub name: Arc<str>,
    /// The type; optional fields are a union with null.
    pub ty: Type,
    /// Documentation from the schema.
    pub doc: Option<Arc<str>>,
}

/// What a value means beyond its encoding: Avro's logical types, Connect's and Debezium's semantic
/// types by their `connect.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Logical {
    /// Two's-complement big-endian unscaled integer (Avro `decimal`, Connect `Decimal`). Precision
    /// is `None` where the schema gives none (Connect without `connect.decimal.precision`).
    Decimal {
        /// Digits in all.
        precision: Option<u32>,
        /// Digits after the point; Connect allows a negative one.
        scale: i32,
    },
    /// Record {scale INT, value BYTES} of `io.debezium.data.VariableScaleDecimal`.
    VariableScaleDecimal,
    /// Days since 1970-01-01 (Avro `date`, Connect `Date`, Debezium `Date`).
    Date,
    /// Milliseconds since midnight.
    TimeMillis,
    /// Microseconds since midnight.
    TimeMicros,
    /// Nanoseconds since midnight (Debezium `NanoTime`); cut to microseconds.
    TimeNanos,
    /// Milliseconds since the epoch, UTC.
    TimestampMillis,
    /// Microseconds since the epoch, UTC.
    TimestampMicros,
    /// Nanoseconds since the epoch, UTC; cut to microseconds, toward the past.
    TimestampNanos,
    /// Milliseconds on a wall clock without zone (Avro `local-timestamp-millis`, Debezium
    /// `Timestamp`).
    LocalTimestampMillis,
    /// Microseconds on a wall clock without zone (Debezium `MicroTimestamp`).
    LocalTimestampMicros,
    /// Nanoseconds on a wall clock without zone (Debezium `NanoTimestamp`).
    LocalTimestampNanos,
    /// ISO-8601 text with an offset (`io.debezium.time.ZonedTimestamp`).
    ZonedTimestamp,
    /// ISO-8601 time text with an offset (`io.debezium.time.ZonedTime`).
    ZonedTime,
    /// ISO-8601 date text (`io.debezium.time.IsoDate`).
    IsoDate,
    /// ISO-8601 time text (`io.debezium.time.IsoTime`).
    IsoTime,
    /// ISO-8601 local timestamp text (`io.debezium.time.IsoTimestamp`).
    IsoTimestamp,
    /// A UUID, as text or as 16 bytes.
    Uuid,
    /// Avro's `duration`: three little-endian `u32` months, days, milliseconds in 12 bytes.
    Duration,
    /// JSON text (`io.debezium.data.Json`).
    Json,
    /// Text that is the name of a float (`NaN`, `Infinity`, `-Infinity`) and of which no schema says
    /// whether it is meant so. Only [`infer`](crate::schema::infer) makes it.
    FloatName,
}
