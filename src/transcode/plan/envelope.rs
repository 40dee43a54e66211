//! The cells that do not come from a payload: metadata and headers.

use crate::{
    record::{Headers, Record},
    table::{Column, ColumnKind, Mode},
    transcode::{
        convert::{self, Form, FromInteger, Unit},
        error::{PlanError, Step},
        plan::compile::{Compiler, number},
        row::{LaneLabel, RowSpec},
        settings::Metadata,
        writer::{Label, RowWriter},
    },
};

/// The labels of the cells beside the payload's.
#[derive(Debug)]
pub struct Envelope {
    metadata: Option<MetadataLabels>,
    headers: Option<HeaderLabels>,
}

#[derive(Debug)]
struct MetadataLabels {
    record: Option<Label>,
    topic: Label,
    partition: Label,
    offset: Label,
    timestamp: Label,
}

#[derive(Debug)]
struct HeaderLabels {
    headers: Label,
    key: Label,
    value: Label,
}

impl Envelope {
    /// Finds the columns; notes in `claim` which top-level ones are taken.
    ///
    /// # Errors
    /// When a column is missing or of another type.
    pub fn compile<W: RowWriter>(
        spec: &RowSpec,
        columns: &[Column],
        mut claim: impl FnMut(usize, &'static str) -> Result<(), PlanError>,
    ) -> Result<Self, PlanError> {
        let mut headers = None;
        if let Some(name) = &spec.headers {
            let (position, labels) = HeaderLabels::compile::<W>(name, columns)?;
            claim(position, "the headers")?;
            headers = Some(labels);
        }
        let metadata = spec
            .metadata
            .enabled
            .then(|| MetadataLabels::compile::<W>(&spec.metadata, columns, &mut claim))
            .transpose()?;
        Ok(Self { metadata, headers })
    }

    /// Writes the cells.
    ///
    /// # Errors
    /// When the record's timestamp is outside the years 0001 to 9999.
    #[inline]
    pub fn encode<W: RowWriter>(
        &self,
        record: &Record<'_>,
        lane: &LaneLabel,
        out: &mut Vec<u8>,
    ) -> Step {
        if let Some(labels) = &self.headers {
            labels.encode::<W>(record.headers, out);
        }
        let Some(labels) = &self.metadata else { return Ok(()) };
        let Some(outer) = &labels.record else { return labels.encode::<W>(record, lane, out) };
        W::cell(out, outer);
        let mark = W::record_start(out);
        labels.encode::<W>(record, lane, out)?;
        W::record_end(out, mark);
        Ok(())
    }
}

impl MetadataLabels {
    fn compile<W: RowWriter>(
        metadata: &Metadata,
        columns: &[Column],
        claim: &mut impl FnMut(usize, &'static str) -> Result<(), PlanError>,
    ) -> Result<Self, PlanError> {
        let mut compiler = Compiler::default();
        let Some(name) = &metadata.record else {
            return Self::fields::<W>(metadata, columns, &mut compiler, |position| {
                claim(position, "the metadata")
            });
        };
        compiler.enter(name, |compiler| {
            let (position, column) = compiler.find(columns, name)?;
            claim(position, "the metadata")?;
            let ColumnKind::Record(fields) = &column.kind else {
                return Err(mismatch(name, "a RECORD", column));
            };
            let mut labels = Self::fields::<W>(metadata, fields, compiler, |_| Ok(()))?;
            labels.record = Some(W::label(&column.name, number(position), &column.kind));
            Ok(labels)
        })
    }

    fn fields<W: RowWriter>(
        metadata: &Metadata,
        columns: &[Column],
        compiler: &mut Compiler,
        mut claim: impl FnMut(usize) -> Result<(), PlanError>,
    ) -> Result<Self, PlanError> {
        let mut label = |name: &str, kind: ColumnKind| {
            compiler.enter(name, |compiler| {
                let (position, column) = compiler.find(columns, name)?;
                claim(position)?;
                if column.kind != kind || column.mode == Mode::Repeated {
                    return Err(mismatch(name, kind.name(), column));
                }
                Ok(W::label(&column.name, number(position), &column.kind))
            })
        };
        Ok(Self {
            record: None,
            topic: label(&metadata.topic, ColumnKind::String)?,
            partition: label(&metadata.partition, ColumnKind::Int64)?,
            offset: label(&metadata.offset, ColumnKind::Int64)?,
            timestamp: label(&metadata.timestamp, ColumnKind::Timestamp)?,
        })
    }

    #[inline]
    fn encode<W: RowWriter>(
        &self,
        record: &Record<'_>,
        lane: &LaneLabel,
        out: &mut Vec<u8>,
    ) -> Step {
        W::cell(out, &self.topic);
        W::topic(out, lane);
        W::cell(out, &self.partition);
        W::int64(out, i64::from(lane.partition()));
        W::cell(out, &self.offset);
        W::int64(out, record.offset);
        let Some(timestamp) = record.timestamp_ms else { return Ok(()) };
        W::cell(out, &self.timestamp);
        let conversion = FromInteger::Timestamp(Unit::Millis, Form::Native);
        convert::integer::<W>(out, timestamp, conversion)
            .map_err(|error| error.within("(timestamp)"))
    }
}

impl HeaderLabels {
    fn compile<W: RowWriter>(name: &str, columns: &[Column]) -> Result<(usize, Self), PlanError> {
        let mut compiler = Compiler::default();
        compiler.enter(name, |compiler| {
            let (position, column) = compiler.find(columns, name)?;
            let (ColumnKind::Record(fields), Mode::Repeated) = (&column.kind, column.mode) else {
                return Err(mismatch(name, "a REPEATED RECORD", column));
            };
            let mut label = |name: &str, kind: ColumnKind| {
                compiler.enter(name, |compiler| {
                    let (position, column) = compiler.find(fields, name)?;
                    if column.kind != kind || column.mode == Mode::Repeated {
                        return Err(mismatch(name, kind.name(), column));
                    }
                    Ok(W::label(&column.name, number(position), &column.kind))
                })
            };
            let (key, value) =
                (label("key", ColumnKind::String)?, label("value", ColumnKind::Bytes)?);
            let headers = W::label(&column.name, number(position), &column.kind);
            Ok((position, Self { headers, key, value }))
        })
    }

    fn encode<W: RowWriter>(&self, headers: Headers<'_>, out: &mut Vec<u8>) {
        if headers.is_empty() {
            return;
        }
        W::array_start(out, &self.headers);
        for (name, value) in headers.iter() {
            W::element(out, &self.headers);
            let mark = W::record_start(out);
            W::cell(out, &self.key);
            W::string(out, name);
            if let Some(value) = value {
                W::cell(out, &self.value);
                W::bytes(out, value);
            }
            W::record_end(out, mark);
        }
        W::array_end(out);
    }
}

fn mismatch(path: &str, wanted: &str, column: &Column) -> PlanError {
    let mode = if column.mode == Mode::Repeated { "REPEATED " } else { "" };
    PlanError::Mismatch {
        path: path.to_owned(),
        wanted: wanted.to_owned(),
        actual: format!("{mode}{}", column.kind.name()),
    }
}
