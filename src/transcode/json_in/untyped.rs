//! JSON without a schema, guided by the table's columns.
//!
//! A key without a column, and a fraction, NaN or an infinity in an `INT64` column, are
//! [`RowErrorKind::UnknownColumns`](crate::transcode::RowErrorKind): the table must grow first.
//! Only what carries nothing is passed over: null, empty objects and arrays, and what is made of these.
//!
//! BigQuery has no array of arrays: an inner array is taken for a record with the repeated field
//! `element`.
//!
//! Beside the JSON type that a column asks for, these spellings are taken: whole numbers in any
//! spelling and integer text for `INT64`; number text and `"NaN"`, `"Infinity"`, `"-Infinity"` for
//! `FLOAT64`; number text for decimals; numbers and booleans, by their text, for `STRING`; anything
//! for `JSON`. Dates and times are text.

use std::sync::Arc;

use crate::{
    schema::{columns::ARRAY_ELEMENT, infer::is_float_name, names::json_column_name},
    table::{Column, ColumnKind, Mode},
    transcode::{
        convert::{
            self, FromText,
            decimal::{Decimal, Range},
        },
        error::{RowError, Step},
        json_in::{
            names::{NameIndex, Seen},
            tokens::{Next, Tokens},
            typed::{base64, finite, special_float, whole},
        },
        plan::{compile::number, null_refused, too_large},
        writer::{Label, RowWriter},
    },
};

/// The columns of one level.
#[derive(Debug)]
pub struct JsonColumns {
    /// By a key that is its own column name.
    exact: NameIndex,
    /// By the lower-case column name.
    folded: NameIndex,
    columns: Box<[JsonColumn]>,
    /// The column for an inner array in place of an object.
    wrapped: Option<usize>,
}

/// One column.
#[derive(Debug)]
pub struct JsonColumn {
    name: Arc<str>,
    label: Label,
    mode: Mode,
    target: Target,
}

/// What a column takes.
#[derive(Debug)]
enum Target {
    Bool,
    Int64,
    Float64,
    Decimal(Range),
    String,
    Bytes,
    Text(FromText),
    Json,
    Record(JsonColumns),
    /// A type that the service does not write.
    Refuse,
    /// Another source of the row fills the column.
    Taken(&'static str),
}

/// Compiles one level; `owners` names the other sources of columns at the same positions.
pub fn compile<W: RowWriter>(columns: &[Column], owners: &[Option<&'static str>]) -> JsonColumns {
    let compiled: Box<[JsonColumn]> = columns
        .iter()
        .enumerate()
        .map(|(position, column)| {
            let mut compiled = compile_column::<W>(column, number(position));
            if let Some(Some(owner)) = owners.get(position) {
                compiled.target = Target::Taken(owner);
                compiled.mode = Mode::Nullable;
            }
            compiled
        })
        .collect();
    // A name that some other key would be cleaned to is not found by a key of that name.
    let own = |column: &JsonColumn| {
        (json_column_name(&column.name) == *column.name).then(|| Arc::clone(&column.name))
    };
    let lower = |column: &JsonColumn| Some(Arc::from(column.name.to_ascii_lowercase()));
    JsonColumns {
        exact: NameIndex::new(compiled.iter().map(own)),
        folded: NameIndex::new(compiled.iter().map(lower)),
        wrapped: wrapped(columns),
        columns: compiled,
    }
}

/// Where an inner array goes, if nothing else must be there.
fn wrapped(columns: &[Column]) -> Option<usize> {
    let is_element = |column: &Column| {
        column.mode == Mode::Repeated && column.name.eq_ignore_ascii_case(ARRAY_ELEMENT)
    };
    let others = columns.iter().any(|column| column.mode == Mode::Required);
    columns.iter().position(is_element).filter(|_| !others)
}

/// Compiles one column.
pub fn compile_column<W: RowWriter>(column: &Column, number: u32) -> JsonColumn {
    let target = match &column.kind {
        ColumnKind::Bool => Target::Bool,
        ColumnKind::Int64 => Target::Int64,
        ColumnKind::Float64 => Target::Float64,
        ColumnKind::Numeric => Target::Decimal(Range::Numeric),
        ColumnKind::BigNumeric => Target::Decimal(Range::BigNumeric),
        ColumnKind::String => Target::String,
        ColumnKind::Bytes => Target::Bytes,
        ColumnKind::Date => Target::Text(FromText::Date),
        ColumnKind::Time => Target::Text(FromText::Time),
        ColumnKind::DateTime => Target::Text(FromText::DateTime),
        ColumnKind::Timestamp => Target::Text(FromText::Timestamp),
        ColumnKind::Geography => Target::Text(FromText::Text),
        ColumnKind::Json => Target::Json,
        ColumnKind::Record(fields) => Target::Record(compile::<W>(fields, &[])),
        ColumnKind::Other(_) => Target::Refuse,
    };
    JsonColumn {
        name: Arc::from(column.name.as_str()),
        label: W::label(&column.name, number, &column.kind),
        mode: column.mode,
        target,
    }
}

/// An object's members, each a cell.
///
/// # Errors
/// When a key has no column, comes twice, or its value does not fit.
pub fn object<W: RowWriter>(
    columns: &JsonColumns,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
    tokens.open_object()?;
    let (mut first, mut hint, mut seen) = (true, 0, Seen::default());
    while let Some(key) = tokens.key(&mut first)? {
        let key = key.value();
        let Some(position) = columns.find(&key, hint) else {
            if carries_nothing(tokens.raw_value()?) {
                continue;
            }
            return Err(RowError::unknown("the table has no column for this field").within(&key));
        };
        hint = position + 1;
        if !seen.insert(position) {
            return Err(RowError::decode("two keys of the object name this column").within(&key));
        }
        if let Some(column) = columns.columns.get(position) {
            cell::<W>(column, tokens, out, end).map_err(|error| error.within(&key))?;
        }
    }
    for (position, column) in columns.columns.iter().enumerate() {
        if column.mode == Mode::Required && !seen.contains(position) {
            return Err(null_refused().within(&column.name));
        }
    }
    Ok(())
}

impl JsonColumns {
    #[inline]
    fn find(&self, key: &str, hint: usize) -> Option<usize> {
        let exact = self.exact.find(key, hint);
        exact.or_else(|| self.folded.find(&json_column_name(key).to_ascii_lowercase(), hint))
    }
}

/// Whether a value (already checked) is null, or an object of nothing else, or an array of such objects and of
/// such arrays. An array that holds null carries something: no column takes it.
fn carries_nothing(raw: &str) -> bool {
    nothing(&mut Tokens::of(raw)).unwrap_or(false)
}

fn nothing(tokens: &mut Tokens<'_>) -> Step<bool> {
    let mut first = true;
    match tokens.upcoming()? {
        Next::Null => tokens.null().map(|()| true),
        Next::Array => {
            tokens.open_array()?;
            while tokens.element(&mut first)? {
                if tokens.upcoming()? == Next::Null || !nothing(tokens)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Next::Object => {
            tokens.open_object()?;
            while tokens.key(&mut first)?.is_some() {
                if !nothing(tokens)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// One cell: nothing if the value is null.
///
/// # Errors
/// When the value is malformed or does not fit.
#[inline]
pub fn cell<W: RowWriter>(
    column: &JsonColumn,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
    if tokens.take_null()? {
        return if column.mode == Mode::Required { Err(null_refused()) } else { Ok(()) };
    }
    if column.mode != Mode::Repeated {
        W::cell(out, &column.label);
        return value::<W>(&column.target, tokens, out, end);
    }
    if tokens.upcoming()? != Next::Array {
        return Err(RowError::transcode("the column is REPEATED but the value is no array"));
    }
    tokens.open_array()?;
    W::array_start(out, &column.label);
    let mut first = true;
    while tokens.element(&mut first)? {
        if out.len() > end {
            return Err(too_large());
        }
        if tokens.take_null()? {
            return Err(null_refused().within("[]"));
        }
        W::element(out, &column.label);
        element::<W>(&column.target, tokens, out, end).map_err(|error| error.within("[]"))?;
    }
    W::array_end(out);
    Ok(())
}

/// A value in an array: another array is wrapped.
fn element<W: RowWriter>(
    target: &Target,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
    let inner = match target {
        Target::Record(record) => record.wrapped.and_then(|inner| record.columns.get(inner)),
        _ => None,
    };
    let Some(inner) = inner.filter(|_| matches!(tokens.upcoming(), Ok(Next::Array))) else {
        return value::<W>(target, tokens, out, end);
    };
    let mark = W::record_start(out);
    cell::<W>(inner, tokens, out, end)?;
    W::record_end(out, mark);
    Ok(())
}

fn value<W: RowWriter>(
    target: &Target,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
    match (target, tokens.upcoming()?) {
        (Target::Json, _) => W::json(out, tokens.json_value()?),
        (Target::Record(columns), Next::Object) => {
            let mark = W::record_start(out);
            object::<W>(columns, tokens, out, end)?;
            W::record_end(out, mark);
        }
        (Target::String, Next::String) => W::string(out, &tokens.string()?.value()),
        (Target::Int64, Next::Number) => W::int64(out, integer(tokens.number()?)?),
        (Target::Float64, Next::Number) => W::float64(out, finite(tokens.number()?)?),
        (Target::Bool, Next::Bool) => W::bool(out, tokens.bool()?),
        (target, Next::String) => return from_string::<W>(target, tokens, out),
        (Target::Decimal(range), Next::Number) => {
            W::decimal(out, &Decimal::parse(tokens.number()?)?.fit(*range)?);
        }
        (Target::String, Next::Number) => W::plain_string(out, tokens.number()?.as_bytes()),
        (Target::String, Next::Bool) => {
            W::plain_string(out, if tokens.bool()? { b"true" } else { b"false" });
        }
        (Target::Taken(owner), _) => return Err(taken(owner)),
        (Target::Refuse, _) => return Err(refused()),
        (_, next) => {
            // What comes after may be malformed; that matters more.
            tokens.raw_value()?;
            return Err(mismatch(next));
        }
    }
    Ok(())
}

fn integer(text: &str) -> Step<i64> {
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    if !Decimal::parse(text).is_ok_and(|value| value.is_whole()) {
        return Err(RowError::unknown("a fraction in an INT64 column: it must become FLOAT64"));
    }
    whole(text)
}

fn from_string<W: RowWriter>(target: &Target, tokens: &mut Tokens<'_>, out: &mut Vec<u8>) -> Step {
    let text = tokens.string()?.value();
    match target {
        Target::Int64 if is_float_name(&text) => {
            return Err(RowError::unknown(
                "NaN or an infinity in an INT64 column: it must become FLOAT64",
            ));
        }
        Target::Int64 => W::int64(out, whole(&text)?),
        Target::Float64 => W::float64(
            out,
            match special_float(&text) {
                Some(special) => special,
                None => {
                    let number = Tokens::of(&text).only_number();
                    finite(number.map_err(|_| mismatch(Next::String))?)?
                }
            },
        ),
        Target::Decimal(range) => W::decimal(out, &Decimal::parse(&text)?.fit(*range)?),
        Target::Bytes => W::bytes(out, &base64(&text)?),
        Target::Text(conversion) => return convert::text::<W>(out, (&*text).into(), *conversion),
        Target::Taken(owner) => return Err(taken(owner)),
        Target::Refuse => return Err(refused()),
        _ => return Err(mismatch(Next::String)),
    }
    Ok(())
}

#[cold]
fn mismatch(next: Next) -> Box<RowError> {
    RowError::transcode(match next {
        Next::Object => "an object does not fit the column's type",
        Next::Array => "an array does not fit the column's type",
        Next::String => "text does not fit the column's type",
        Next::Number => "a number does not fit the column's type",
        Next::Bool | Next::Null => "a boolean does not fit the column's type",
    })
}

#[cold]
fn refused() -> Box<RowError> {
    RowError::transcode("the column is of a type that this service does not write")
}

#[cold]
fn taken(owner: &'static str) -> Box<RowError> {
    RowError::transcode(match owner {
        "the metadata" => "the field has the name of a metadata column; rename that one",
        "the headers" => "the field has the name of the headers column; rename that one",
        _ => "the value and the key both have this field; put the key into one column",
    })
}
