//! The compiled plan: what is done with each value, in the order of the encoding.

use std::{marker::PhantomData, sync::Arc};

use crate::{
    record::Record,
    table::TableSchema,
    transcode::{
        avro::accept::Acceptor,
        convert::{DecimalTarget, FromBytes, FromFloat, FromInteger, FromText},
        error::{PlanError, RowError, RowErrorKind, Step},
        json_in::names::NameIndex,
        limits::Limits,
        plan::payload::Payload,
        raw_text::PaddedText,
        row::{LaneLabel, RowSpec},
        writer::{Label, RowWriter, check::CheckedRow, json::JsonRow, ndjson::NdjsonRow},
    },
};

pub mod compile;
pub mod datum;
pub mod envelope;
pub mod payload;
pub mod scalar;

/// What is done with one field, branch or element.
#[derive(Debug)]
pub struct Op {
    /// The name in the writer schema, for error paths.
    pub name: Arc<str>,
    /// What precedes the value in the row.
    pub label: Label,
    /// How the writer says whether there is a value.
    pub presence: Presence,
    /// Whether null is an error: a `REQUIRED` column, or an array's element.
    pub required: bool,
    /// What is done with a value.
    pub action: Action,
}

/// How Avro says whether there is a value, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There is always one.
    Always,
    /// A union of null, at this index (0 or 1), and one other branch.
    Optional(u8),
    /// A union of this many branches, null perhaps among them, at this index.
    Union {
        /// How many branches there are.
        branches: u32,
        /// Which of them is null.
        null: Option<u32>,
    },
}

/// What is done with a value.
#[derive(Debug)]
pub enum Action {
    /// Read and write one value.
    Scalar(Scalar),
    /// A record into a `RECORD`.
    Record(RecordOps),
    /// An array into a `REPEATED` column.
    Array(Box<Elements>),
    /// A map into a `REPEATED RECORD` of key and value.
    Map(Box<Entries>),
    /// An array within an array: into a record with one repeated field.
    Wrapped(Box<Op>),
    /// A union of several types into a record with a field per branch; `Skip` where the branch is
    /// null or empty.
    Branches(Box<[Op]>),
    /// Avro's duration into a record of months, days, milliseconds.
    Duration(Box<[Label; 3]>),
    /// Debezium's `VariableScaleDecimal`.
    VariableDecimal(DecimalTarget),
    /// Read, check, write nothing: a type without values.
    Skip(Skip),
    /// The column's type is one that the service does not write; null passes.
    Refuse,
}

/// A record's operations in encoded order, and its fields by name for JSON.
#[derive(Debug)]
pub struct RecordOps {
    /// One per field.
    pub ops: Box<[Op]>,
    /// From a field's name to its position.
    pub index: NameIndex,
    /// Whether JSON may hold `[key, value]` in place of an object: the entry of a Connect map whose
    /// keys are not text.
    pub map_entry: bool,
}

/// An array's elements.
#[derive(Debug)]
pub struct Elements {
    /// What is done with each.
    pub element: Op,
    /// The fewest bytes that one takes.
    pub bytes_min: usize,
}

/// A map's entries.
#[derive(Debug)]
pub struct Entries {
    /// Precedes the key.
    pub key: Label,
    /// What is done with each value.
    pub value: Op,
    /// The fewest bytes that an entry takes.
    pub bytes_min: usize,
}

/// One value of one column: how it is read, and what becomes of it.
#[derive(Debug)]
pub enum Scalar {
    /// A boolean into `BOOL`.
    Bool,
    /// A boolean into `STRING`.
    BoolText,
    /// A 32-bit integer.
    Int(FromInteger),
    /// A 64-bit integer.
    Long(FromInteger),
    /// A 32-bit float.
    Float(FromFloat),
    /// A 64-bit float.
    Double(FromFloat),
    /// Text.
    Text(FromText),
    /// Bytes.
    Bytes(FromBytes),
    /// So many bytes.
    Fixed(usize, FromBytes),
    /// One of these symbols.
    Enum(Box<[PaddedText]>),
}

/// How a value without a column is passed over.
#[derive(Debug)]
pub enum Skip {
    /// Null: no bytes.
    Null,
    /// A record of such values; for JSON, an empty object or null.
    Record(Box<[Skip]>),
    /// An array of such values.
    Array(Box<Skip>),
    /// A union of such types.
    Union(Box<[Skip]>),
}

/// A row specification compiled against a table's columns, for one row form.
///
/// Immutable and shareable. It stays valid until the writer schema or the table changes.
#[derive(Debug)]
pub struct RowPlan<W> {
    value: Payload,
    key: Option<Payload>,
    envelope: envelope::Envelope,
    datum: Option<datum::DatumForm>,
    acceptor: Option<Acceptor>,
    limits: Limits,
    form: PhantomData<fn() -> W>,
}

impl<W: RowWriter> RowPlan<W> {
    /// Sets `spec` against the columns of `table`.
    ///
    /// # Errors
    /// When the table lacks or contradicts a column, has a `REQUIRED` column without source, or two
    /// sources name one column.
    pub fn compile(spec: &RowSpec, table: &TableSchema, limits: Limits) -> Result<Self, PlanError> {
        let (value, key, envelope) = payload::compile::<W>(spec, &table.columns)?;
        let datum = datum::DatumForm::compile(spec, table);
        let acceptor = datum.as_ref().and_then(|_| value.acceptor());
        Ok(Self { value, key, envelope, datum, acceptor, limits, form: PhantomData })
    }

    /// Appends the row of one record to `out`.
    ///
    /// `record.value` and `record.key` hold what the reader reads: an Avro datum without its
    /// five-byte header ([`wire::split`](crate::transcode::wire::split)), the `payload` member of a
    /// Connect envelope ([`connect::split`](crate::transcode::connect::split)), otherwise the bytes
    /// as they came. A null value yields a row of key, metadata and headers only.
    ///
    /// # Errors
    /// When the bytes are malformed or a value does not fit its column. `out` is then as before.
    pub fn encode(
        &self,
        record: &Record<'_>,
        lane: &LaneLabel,
        out: &mut Vec<u8>,
    ) -> Result<(), RowError> {
        self.encode_in::<W>(record, lane, out)
    }

    /// [`encode`](Self::encode) in the form `F`, whose labels are those of `W`.
    #[inline]
    fn encode_in<F: RowWriter>(
        &self,
        record: &Record<'_>,
        lane: &LaneLabel,
        out: &mut Vec<u8>,
    ) -> Result<(), RowError> {
        self.whole(out, |out, end| {
            out.reserve(2 * record.bytes() + 256);
            self.append::<F>(record, lane, out, end)
        })
    }

    /// Cuts `out` back if `append` fails or the row is too large.
    #[inline]
    fn whole(
        &self,
        out: &mut Vec<u8>,
        append: impl FnOnce(&mut Vec<u8>, usize) -> Step,
    ) -> Result<(), RowError> {
        let start = out.len();
        let end = start.saturating_add(self.limits.row_bytes_max);
        match append(out, end) {
            Ok(()) if out.len() <= end => Ok(()),
            Ok(()) => {
                out.truncate(start);
                Err(*too_large())
            }
            Err(error) => {
                out.truncate(start);
                Err(*error)
            }
        }
    }

    fn append<F: RowWriter>(
        &self,
        record: &Record<'_>,
        lane: &LaneLabel,
        out: &mut Vec<u8>,
        end: usize,
    ) -> Step {
        F::row_start(out);
        match record.value {
            Some(value) => self.value.encode::<F>(value, out, end)?,
            None => self.value.encode_null()?,
        }
        self.append_rest::<F>(record, lane, out, end)?;
        F::row_end(out);
        Ok(())
    }

    /// The cells beside the value's.
    #[inline]
    fn append_rest<F: RowWriter>(
        &self,
        record: &Record<'_>,
        lane: &LaneLabel,
        out: &mut Vec<u8>,
        end: usize,
    ) -> Step {
        match (&self.key, record.key) {
            (None, _) => {}
            (Some(key), Some(bytes)) => {
                key.encode::<F>(bytes, out, end).map_err(|error| error.within("(key)"))?;
            }
            (Some(key), None) => key.encode_null().map_err(|error| error.within("(key)"))?,
        }
        self.envelope.encode::<F>(record, lane, out)
    }
}

impl RowPlan<JsonRow> {
    /// Appends the row as a line of a load job's NDJSON, line break included. Otherwise as
    /// [`encode`](Self::encode).
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn encode_line(
        &self,
        record: &Record<'_>,
        lane: &LaneLabel,
        out: &mut Vec<u8>,
    ) -> Result<(), RowError> {
        self.encode_in::<NdjsonRow>(record, lane, out)?;
        out.push(b'\n');
        Ok(())
    }

    /// The schema of the Avro containers in which such rows can stand, by [`encode_datum`]; `None` if
    /// they cannot.
    ///
    /// [`encode_datum`]: Self::encode_datum
    pub fn datum_schema(&self) -> Option<&Arc<str>> {
        self.datum.as_ref().map(datum::DatumForm::schema)
    }

    /// Appends the row as a datum of [`datum_schema`](Self::datum_schema). What is refused is what
    /// [`encode`](Self::encode) refuses, and a record without a value.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn encode_datum(
        &self,
        record: &Record<'_>,
        lane: &LaneLabel,
        out: &mut Vec<u8>,
    ) -> Result<(), RowError> {
        self.whole(out, |out, end| {
            let (Some(form), Some(value)) = (&self.datum, record.value) else {
                return Err(RowError::transcode("the record has no datum"));
            };
            if !self.acceptor.as_ref().is_some_and(|acceptor| acceptor.accepts(value)) {
                self.value.encode::<CheckedRow>(value, out, end)?;
            }
            self.append_rest::<CheckedRow>(record, lane, out, end)?;
            form.append(record, value, lane, out);
            Ok(())
        })
    }
}

/// The row is larger than the plan allows.
#[cold]
pub fn too_large() -> Box<RowError> {
    Box::new(RowError {
        path: String::new(),
        message: "the encoded row is larger than row_bytes_max".into(),
        kind: RowErrorKind::Transcode,
    })
}

/// Null where the column or the array takes none.
#[cold]
pub fn null_refused() -> Box<RowError> {
    RowError::transcode("null, but the column is REQUIRED or the place is an array's element")
}
