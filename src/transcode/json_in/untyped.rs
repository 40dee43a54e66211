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
            numbers::{Number, decimal, finite, whole_text},
            strings::Text,
            tokens::{Next, Tokens},
            typed::{base64, special_float},
        },
        number::PlainNumber,
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
    /// Which columns must have a value.
    required: Seen,
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
    Record(Box<JsonColumns>),
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
    let mut required = Seen::default();
    for (position, column) in compiled.iter().enumerate() {
        if column.mode == Mode::Required {
            required.insert(position);
        }
    }
    JsonColumns {
        exact: NameIndex::new(compiled.iter().map(own)),
        folded: NameIndex::new(compiled.iter().map(lower)),
        required,
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
        ColumnKind::Record(fields) => Target::Record(Box::new(compile::<W>(fields, &[]))),
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
    while tokens.member(&mut first)? {
        let key = tokens.position();
        let position = match columns.exact.take(tokens, hint) {
            Some(position) => position,
            None => match columns.look_up(tokens, hint)? {
                Some(position) => position,
                None => continue,
            },
        };
        let Some(column) = columns.columns.get(position) else { continue };
        hint = position + 1;
        if !seen.insert(position) {
            return Err(within(twice(), *tokens, key));
        }
        member::<W>(column, tokens, out, end).map_err(|error| within(error, *tokens, key))?;
    }
    if !seen.contains_all(&columns.required) {
        return Err(columns.missing(&seen));
    }
    Ok(())
}

#[cold]
fn twice() -> Box<RowError> {
    RowError::decode("two keys of the object name this column")
}

/// The error of the member whose key stands at `key`.
#[cold]
fn within(error: Box<RowError>, tokens: Tokens<'_>, key: usize) -> Box<RowError> {
    match tokens.key_at(key).and_then(|key| key.value()) {
        Ok(key) => error.within(&key),
        Err(_) => error,
    }
}

impl JsonColumns {
    /// Consumes a key and its colon, and finds its column; if it has none, passes over a value that carries
    /// nothing.
    #[inline(never)]
    fn look_up(&self, tokens: &mut Tokens<'_>, hint: usize) -> Step<Option<usize>> {
        let key = tokens.key_text()?.value()?;
        if let Some(position) = self.find(&key, hint) {
            return Ok(Some(position));
        }
        if carries_nothing(tokens.raw_value()?) {
            return Ok(None);
        }
        Err(RowError::unknown("the table has no column for this field").at_key(&key))
    }

    fn find(&self, key: &str, hint: usize) -> Option<usize> {
        let exact = self.exact.find(key, hint);
        exact.or_else(|| self.folded.find(&json_column_name(key).to_ascii_lowercase(), hint))
    }

    /// The error for the first required column that was not seen.
    #[cold]
    fn missing(&self, seen: &Seen) -> Box<RowError> {
        let mut required =
            self.columns.iter().enumerate().filter(|(_, column)| column.mode == Mode::Required);
        let missing = required.find(|(position, _)| !seen.contains(*position));
        null_refused().within(missing.map_or("", |(_, column)| &column.name))
    }
}

/// Whether a value (already checked) is null, or an object of nothing else, or an array of such objects and of
/// such arrays. An array that holds null carries something: no column takes it.
fn carries_nothing(raw: &[u8]) -> bool {
    Tokens::new(raw).and_then(|mut tokens| nothing(&mut tokens)).unwrap_or(false)
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
#[inline(never)]
pub fn cell<W: RowWriter>(
    column: &JsonColumn,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
    member::<W>(column, tokens, out, end)
}

/// The same as part of the loop over an object's members.
#[inline(always)]
fn member<W: RowWriter>(
    column: &JsonColumn,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
    let next = tokens.peek().unwrap_or_default();
    if next == b'n' {
        tokens.null()?;
        return if column.mode == Mode::Required { Err(null_refused()) } else { Ok(()) };
    }
    if column.mode == Mode::Repeated {
        return repeated::<W>(column, tokens, out, end);
    }
    W::cell(out, &column.label);
    value::<W>(&column.target, next, tokens, out, end)
}

/// An array's elements.
#[inline(never)]
fn repeated<W: RowWriter>(
    column: &JsonColumn,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
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
#[inline]
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
        let next = tokens.peek().unwrap_or_default();
        return value::<W>(target, next, tokens, out, end);
    };
    let mark = W::record_start(out);
    cell::<W>(inner, tokens, out, end)?;
    W::record_end(out, mark);
    Ok(())
}

/// One value, which begins with the byte `next`, or zero at the text's end. Those that are as the column asks for are read here.
#[inline(always)]
fn value<W: RowWriter>(
    target: &Target,
    next: u8,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
    match target {
        Target::String if next == b'"' => string::<W>(tokens.string_here()?, out)?,
        Target::Int64 if is_number(next) => W::int64(out, integer(tokens.number_here()?)?),
        Target::Float64 if is_number(next) => W::float64(out, finite(tokens.number_here()?)?),
        Target::Decimal(range) if is_number(next) => {
            W::decimal(out, &decimal(tokens.number_here()?)?.fit(*range)?);
        }
        Target::Bool if matches!(next, b't' | b'f') => W::bool(out, tokens.bool()?),
        Target::Record(columns) if next == b'{' => {
            let mark = W::record_start(out);
            object::<W>(columns, tokens, out, end)?;
            W::record_end(out, mark);
        }
        _ if next == b'"' && !matches!(target, Target::Json) => {
            return from_string::<W>(target, tokens, out);
        }
        target => return other_value::<W>(target, tokens, out),
    }
    Ok(())
}

fn is_number(next: u8) -> bool {
    next == b'-' || next.is_ascii_digit()
}

/// A value for a `STRING`.
#[inline(always)]
fn string<W: RowWriter>(text: Text<'_>, out: &mut Vec<u8>) -> Step {
    match text.plain() {
        Some(plain) => {
            W::clean(out, plain);
            Ok(())
        }
        None => text.with(|text| W::text(out, text)),
    }
}

/// A value for a `JSON` column, and one of another kind than its column asks for.
#[inline(never)]
fn other_value<W: RowWriter>(target: &Target, tokens: &mut Tokens<'_>, out: &mut Vec<u8>) -> Step {
    match (target, tokens.upcoming()?) {
        (Target::Json, _) => W::json(out, tokens.json_value()?),
        (Target::String, Next::Number) => W::plain_string(out, tokens.number()?.text()?.as_bytes()),
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

#[inline(always)]
fn integer(number: Number<'_>) -> Step<i64> {
    match number.plain().and_then(PlainNumber::as_i64) {
        Some(value) => Ok(value),
        None => rare_integer(number.text()?),
    }
}

#[inline(never)]
fn rare_integer(text: &str) -> Step<i64> {
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    if !Decimal::parse(text).is_ok_and(|value| value.is_whole()) {
        return Err(RowError::unknown("a fraction in an INT64 column: it must become FLOAT64"));
    }
    whole_text(text)
}

#[inline(never)]
fn from_string<W: RowWriter>(target: &Target, tokens: &mut Tokens<'_>, out: &mut Vec<u8>) -> Step {
    let text = tokens.string_here()?;
    match target {
        Target::Text(conversion) => {
            return text.with(|text| convert::text::<W>(out, text, *conversion));
        }
        Target::Decimal(range) => {
            W::decimal(out, &text.with(Decimal::parse_raw)?.fit(*range)?);
            return Ok(());
        }
        _ => {}
    }
    let text = text.value()?;
    match target {
        Target::Int64 if is_float_name(&text) => {
            return Err(RowError::unknown(
                "NaN or an infinity in an INT64 column: it must become FLOAT64",
            ));
        }
        Target::Int64 => W::int64(out, whole_text(&text)?),
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
        Target::Bytes => W::bytes(out, &base64(&text)?),
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
