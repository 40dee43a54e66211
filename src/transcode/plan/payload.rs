//! One payload, value or key, in its format.

use std::sync::Arc;

use crate::{
    schema::{
        columns::top_record,
        model::{Kind, Type},
    },
    table::{Column, Mode},
    transcode::{
        avro::{accept::Acceptor, interpret, reader::Reader},
        convert::{self, FromBytes},
        error::{PlanError, RowError, Step},
        json_in::{
            tokens::Tokens,
            typed,
            untyped::{self, JsonColumn, JsonColumns},
        },
        plan::{
            Action, Op, Presence, RecordOps, Scalar,
            compile::{Compiler, number, presence},
            envelope::Envelope,
        },
        row::{RowSpec, ValueSource, is_record},
        settings::KeyPlacement,
        writer::RowWriter,
    },
};

/// How one payload becomes cells.
#[derive(Debug)]
pub struct Payload {
    shape: Shape,
    /// Whether the row lacks something when there is no payload at all.
    required: bool,
}

#[derive(Debug)]
enum Shape {
    /// A record's fields, each a cell. Above it there may be a union with null.
    Fields(Encoding, RecordOps, Presence),
    /// One cell.
    Cell(Encoding, Op),
    /// A JSON object by the table's columns.
    JsonObject(JsonColumns),
    /// Any JSON value in one cell.
    JsonCell(JsonColumn),
    /// Text in one cell.
    Text(Op),
    /// Bytes in one cell.
    Bytes(Op),
}

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Avro,
    ConnectJson,
}

/// Compiles value, key and envelope, and checks that together they fill the table.
///
/// # Errors
/// See [`PlanError`].
pub fn compile<W: RowWriter>(
    spec: &RowSpec,
    columns: &[Column],
) -> Result<(Payload, Option<Payload>, Envelope), PlanError> {
    let mut claims = Claims { owners: vec![None; columns.len()], columns };
    let envelope =
        Envelope::compile::<W>(spec, columns, |position, owner| claims.claim(position, owner))?;
    let key = spec.key.as_ref();
    // What is read by the table's columns comes last: it may use those that no other source has.
    let late_key = key.is_some_and(|key| by_columns(&key.source, &key.placement));
    let late_value = spec.value == ValueSource::Json;
    if late_key && late_value {
        let path = "*".to_owned();
        return Err(PlanError::Clash { path, first: "the value", second: "the key" });
    }
    let compile_key = |claims: &mut Claims<'_>| {
        key.map(|key| {
            let column = match &key.placement {
                KeyPlacement::Column(name) => Some(name.as_str()),
                KeyPlacement::Fields => None,
            };
            claims.payload::<W>(&key.source, column, "key", "the key")
        })
        .transpose()
    };
    let compile_value = |claims: &mut Claims<'_>| {
        claims.payload::<W>(&spec.value, None, &spec.value_column, "the value")
    };
    let (value, key) = if late_value {
        let key = compile_key(&mut claims)?;
        (compile_value(&mut claims)?, key)
    } else {
        let value = compile_value(&mut claims)?;
        (value, compile_key(&mut claims)?)
    };
    claims.check_required()?;
    Ok((value, key, envelope))
}

fn by_columns(source: &ValueSource, placement: &KeyPlacement) -> bool {
    *source == ValueSource::Json && *placement == KeyPlacement::Fields
}

/// Who fills which of the table's columns.
struct Claims<'c> {
    columns: &'c [Column],
    owners: Vec<Option<&'static str>>,
}

impl Claims<'_> {
    fn claim(&mut self, position: usize, owner: &'static str) -> Result<(), PlanError> {
        let path =
            || self.columns.get(position).map_or(String::new(), |column| column.name.clone());
        match self.owners.get_mut(position) {
            Some(Some(first)) => Err(PlanError::Clash { path: path(), first, second: owner }),
            Some(free) => {
                *free = Some(owner);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Compiles one payload. With `column` it goes there whatever its type; otherwise a record's
    /// fields become cells, and anything else goes to the column `fallback`.
    fn payload<W: RowWriter>(
        &mut self,
        source: &ValueSource,
        column: Option<&str>,
        fallback: &str,
        owner: &'static str,
    ) -> Result<Payload, PlanError> {
        let name = column.unwrap_or(fallback);
        let shape = match source {
            ValueSource::Avro(ty) if column.is_none() && is_record(ty) => {
                self.fields::<W>(Encoding::Avro, ty, owner)?
            }
            ValueSource::ConnectJson(ty) if column.is_none() && is_record(ty) => {
                self.fields::<W>(Encoding::ConnectJson, ty, owner)?
            }
            ValueSource::Avro(ty) => Shape::Cell(Encoding::Avro, self.cell::<W>(name, ty, owner)?),
            ValueSource::ConnectJson(ty) => {
                Shape::Cell(Encoding::ConnectJson, self.cell::<W>(name, ty, owner)?)
            }
            ValueSource::String => {
                Shape::Text(self.cell::<W>(name, &Type::plain(Kind::String), owner)?)
            }
            ValueSource::Bytes => {
                Shape::Bytes(self.cell::<W>(name, &Type::plain(Kind::Bytes), owner)?)
            }
            ValueSource::Json => match column {
                Some(name) => Shape::JsonCell(self.json_cell::<W>(name, owner)?),
                None => self.json_object::<W>(owner)?,
            },
        };
        let mine = |(column, by): (&Column, &Option<&'static str>)| {
            column.mode == Mode::Required && *by == Some(owner)
        };
        let required = self.columns.iter().zip(&self.owners).any(mine);
        Ok(Payload { shape, required })
    }

    fn fields<W: RowWriter>(
        &mut self,
        encoding: Encoding,
        ty: &Type,
        owner: &'static str,
    ) -> Result<Shape, PlanError> {
        let record = top_record(ty)?;
        let (ops, filled) = Compiler::default().fields::<W>(record, self.columns)?;
        for position in filled {
            self.claim(position, owner)?;
        }
        Ok(Shape::Fields(encoding, ops, presence(ty).0))
    }

    fn cell<W: RowWriter>(
        &mut self,
        name: &str,
        ty: &Type,
        owner: &'static str,
    ) -> Result<Op, PlanError> {
        let columns = self.columns;
        let (position, op) = Compiler::default().enter(name, |compiler| {
            let (position, column) = compiler.find(columns, name)?;
            let op = compiler.op::<W>(&Arc::from(name), ty, column, number(position))?;
            Ok((position, op))
        })?;
        self.claim(position, owner)?;
        Ok(op)
    }

    fn json_cell<W: RowWriter>(
        &mut self,
        name: &str,
        owner: &'static str,
    ) -> Result<JsonColumn, PlanError> {
        let columns = self.columns;
        let (position, column) =
            Compiler::default().enter(name, |compiler| compiler.find(columns, name))?;
        self.claim(position, owner)?;
        Ok(untyped::compile_column::<W>(column, number(position)))
    }

    fn json_object<W: RowWriter>(&mut self, owner: &'static str) -> Result<Shape, PlanError> {
        let columns = untyped::compile::<W>(self.columns, &self.owners);
        for owner_slot in self.owners.iter_mut().filter(|slot| slot.is_none()) {
            *owner_slot = Some(owner);
        }
        Ok(Shape::JsonObject(columns))
    }

    fn check_required(&self) -> Result<(), PlanError> {
        let owned = self.owners.iter().enumerate();
        let filled: Vec<usize> =
            owned.filter(|(_, owner)| owner.is_some()).map(|(position, _)| position).collect();
        Compiler::default().check_required(self.columns, &filled)
    }
}

impl Payload {
    /// A quick yes to the payload's bytes, where there can be one.
    pub fn acceptor(&self) -> Option<Acceptor> {
        match &self.shape {
            Shape::Fields(Encoding::Avro, record, Presence::Always) => {
                Acceptor::compile(&record.ops)
            }
            _ => None,
        }
    }

    /// Appends the payload's cells.
    ///
    /// # Errors
    /// When the bytes are malformed or a value does not fit.
    #[inline]
    pub fn encode<W: RowWriter>(&self, bytes: &[u8], out: &mut Vec<u8>, end: usize) -> Step {
        match &self.shape {
            Shape::Fields(Encoding::Avro, record, top) => {
                let mut reader = Reader::new(bytes, end);
                if interpret::top(*top, &mut reader)? {
                    interpret::fields::<W>(&record.ops, &mut reader, out)?;
                } else {
                    self.encode_null()?;
                }
                reader.end()
            }
            Shape::Cell(Encoding::Avro, op) => {
                let mut reader = Reader::new(bytes, end);
                interpret::cell::<W>(op, &mut reader, out)?;
                reader.end()
            }
            Shape::Fields(Encoding::ConnectJson, record, _) => {
                let mut tokens = Tokens::new(bytes)?;
                if tokens.take_null()? {
                    self.encode_null()?;
                } else {
                    typed::fields::<W>(record, &mut tokens, out, end)?;
                }
                tokens.end()
            }
            Shape::Cell(Encoding::ConnectJson, op) => {
                let mut tokens = Tokens::new(bytes)?;
                typed::cell::<W>(op, &mut tokens, out, end)?;
                tokens.end()
            }
            Shape::JsonObject(columns) => {
                let mut tokens = Tokens::new(bytes)?;
                untyped::object::<W>(columns, &mut tokens, out, end)?;
                tokens.end()
            }
            Shape::JsonCell(column) => {
                let mut tokens = Tokens::new(bytes)?;
                untyped::cell::<W>(column, &mut tokens, out, end)?;
                tokens.end()
            }
            Shape::Text(op) => text_cell::<W>(op, bytes, out),
            Shape::Bytes(op) => bytes_cell::<W>(op, bytes, out),
        }
    }

    /// A null payload: no cells.
    ///
    /// # Errors
    /// When a `REQUIRED` column depends on the payload.
    pub fn encode_null(&self) -> Step {
        if self.required {
            return Err(RowError::transcode("null, but REQUIRED columns depend on it"));
        }
        Ok(())
    }
}

fn text_cell<W: RowWriter>(op: &Op, bytes: &[u8], out: &mut Vec<u8>) -> Step {
    let Action::Scalar(Scalar::Text(conversion)) = &op.action else { return Err(refused()) };
    let text = std::str::from_utf8(bytes)
        .map_err(|_| RowError::decode("not valid UTF-8; use the format bytes"))?;
    W::cell(out, &op.label);
    convert::text::<W>(out, text.into(), *conversion)
}

fn bytes_cell<W: RowWriter>(op: &Op, bytes: &[u8], out: &mut Vec<u8>) -> Step {
    let Action::Scalar(Scalar::Bytes(FromBytes::Bytes)) = &op.action else {
        return Err(refused());
    };
    W::cell(out, &op.label);
    W::bytes(out, bytes);
    Ok(())
}

fn refused() -> Box<RowError> {
    RowError::transcode("the column is of a type that this service does not write")
}
