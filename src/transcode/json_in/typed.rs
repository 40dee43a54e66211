//! JSON guided by a writer type: the payload of a Connect envelope.
//!
//! As Kafka Connect's JsonConverter writes it: bytes and decimals as base64 (decimals also as
//! numbers, `decimal.format=NUMERIC`), dates and times as numbers, a map with text keys as an
//! object, any other map as an array of two-element arrays.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::transcode::{
    avro::interpret::duration,
    convert::{self, DecimalTarget, FromBytes, FromFloat, FromInteger, FromText, decimal::Decimal},
    error::{RowError, Step},
    json_in::{
        names::{NameIndex, Seen},
        numbers::{decimal, finite, whole},
        tokens::{Next, Tokens},
    },
    plan::{Action, Elements, Entries, Op, RecordOps, Scalar, null_refused, too_large},
    writer::{Label, RowWriter},
};

/// A struct's fields. A field that is not there is null.
///
/// # Errors
/// When a field is unknown, comes twice, or does not fit.
pub fn fields<W: RowWriter>(
    record: &RecordOps,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
    if record.map_entry && tokens.upcoming()? == Next::Array {
        return pair::<W>(record, tokens, out, end);
    }
    tokens.open_object()?;
    let (mut first, mut hint, mut seen) = (true, 0, Seen::default());
    while tokens.member(&mut first)? {
        let position = match record.index.take(tokens, hint) {
            Some(position) => position,
            None => look_up(&record.index, tokens, hint)?,
        };
        hint = position + 1;
        let Some(op) = record.ops.get(position) else { return Err(unknown()) };
        if !seen.insert(position) {
            return Err(RowError::decode("the object has this key twice").within(&op.name));
        }
        cell::<W>(op, tokens, out, end).map_err(|error| error.within(&op.name))?;
    }
    for (position, op) in record.ops.iter().enumerate() {
        if op.required && !seen.contains(position) {
            return Err(null_refused().within(&op.name));
        }
    }
    Ok(())
}

/// The position of the key that comes next.
#[inline(never)]
fn look_up(index: &NameIndex, tokens: &mut Tokens<'_>, hint: usize) -> Step<usize> {
    let key = tokens.key_text()?.value()?;
    index.find(&key, hint).ok_or_else(|| unknown().at_key(&key))
}

/// An entry of a map whose keys are not text: `[key, value]`.
fn pair<W: RowWriter>(
    record: &RecordOps,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
    tokens.open_array()?;
    let mut first = true;
    for op in &record.ops {
        if !tokens.element(&mut first)? {
            return Err(RowError::decode("a map's entry of fewer than two values"));
        }
        cell::<W>(op, tokens, out, end).map_err(|error| error.within(&op.name))?;
    }
    if tokens.element(&mut first)? {
        return Err(RowError::decode("a map's entry of more than two values"));
    }
    Ok(())
}

/// One field: nothing if it is null.
///
/// # Errors
/// When the value is malformed or does not fit.
pub fn cell<W: RowWriter>(op: &Op, tokens: &mut Tokens<'_>, out: &mut Vec<u8>, end: usize) -> Step {
    if tokens.take_null()? {
        return if op.required { Err(null_refused()) } else { Ok(()) };
    }
    match &op.action {
        Action::Array(elements) => {
            W::array_start(out, &op.label);
            array::<W>(elements, tokens, out, end)?;
            W::array_end(out);
            Ok(())
        }
        Action::Map(entries) => {
            W::array_start(out, &op.label);
            map::<W>(entries, &op.label, tokens, out, end)?;
            W::array_end(out);
            Ok(())
        }
        Action::Skip(_) => skip_empty(tokens.raw_value()?),
        action => {
            W::cell(out, &op.label);
            value::<W>(action, tokens, out, end)
        }
    }
}

/// A value after its label.
fn value<W: RowWriter>(
    action: &Action,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
    match action {
        Action::Scalar(conversion) => scalar::<W>(conversion, tokens, out),
        Action::Record(record) => {
            let mark = W::record_start(out);
            fields::<W>(record, tokens, out, end)?;
            W::record_end(out, mark);
            Ok(())
        }
        Action::Wrapped(inner) => {
            let mark = W::record_start(out);
            cell::<W>(inner, tokens, out, end)?;
            W::record_end(out, mark);
            Ok(())
        }
        Action::VariableDecimal(target) => variable_decimal::<W>(*target, tokens, out),
        Action::Duration(labels) => duration_bytes::<W>(labels, tokens, out),
        Action::Refuse => {
            Err(RowError::transcode("the column is of a type that this service does not write"))
        }
        Action::Skip(_) => skip_empty(tokens.raw_value()?),
        Action::Branches(_) => Err(RowError::decode("Connect has no unions of several types")),
        Action::Array(_) | Action::Map(_) => Err(RowError::transcode("an array inside an array")),
    }
}

fn array<W: RowWriter>(
    elements: &Elements,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
    let op = &elements.element;
    tokens.open_array()?;
    let mut first = true;
    while tokens.element(&mut first)? {
        check_room(out, end)?;
        if tokens.take_null()? {
            return Err(null_refused().within(&op.name));
        }
        W::element(out, &op.label);
        value::<W>(&op.action, tokens, out, end).map_err(|error| error.within(&op.name))?;
    }
    Ok(())
}

fn map<W: RowWriter>(
    entries: &Entries,
    label: &Label,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
    end: usize,
) -> Step {
    tokens.open_object()?;
    let mut first = true;
    while let Some(key) = tokens.key(&mut first)? {
        check_room(out, end)?;
        W::element(out, label);
        let mark = W::record_start(out);
        W::cell(out, &entries.key);
        W::string(out, &key.value()?);
        cell::<W>(&entries.value, tokens, out, end)
            .map_err(|error| error.within(&entries.value.name))?;
        W::record_end(out, mark);
    }
    Ok(())
}

fn scalar<W: RowWriter>(scalar: &Scalar, tokens: &mut Tokens<'_>, out: &mut Vec<u8>) -> Step {
    match scalar {
        Scalar::Bool => W::bool(out, tokens.bool()?),
        Scalar::BoolText => W::plain_string(out, if tokens.bool()? { b"true" } else { b"false" }),
        Scalar::Int(conversion) => return integer::<W>(*conversion, i32::MAX, tokens, out),
        Scalar::Long(conversion) => return integer::<W>(*conversion, i64::MAX, tokens, out),
        Scalar::Float(conversion) | Scalar::Double(conversion) => {
            return float::<W>(*conversion, tokens, out);
        }
        Scalar::Text(conversion) => {
            return text::<W>(*conversion, tokens, out);
        }
        Scalar::Bytes(conversion) => return bytes::<W>(None, *conversion, tokens, out),
        Scalar::Fixed(len, conversion) => {
            return bytes::<W>(Some(*len), *conversion, tokens, out);
        }
        Scalar::Enum(symbols) => {
            let symbol = tokens.string()?.value()?;
            if !symbols.iter().any(|known| known.text().bytes() == symbol.as_bytes()) {
                return Err(RowError::decode("no such enum symbol"));
            }
            W::string(out, &symbol);
        }
    }
    Ok(())
}

fn text<W: RowWriter>(conversion: FromText, tokens: &mut Tokens<'_>, out: &mut Vec<u8>) -> Step {
    let text = tokens.string()?;
    if let (FromText::Text, Some(plain)) = (conversion, text.plain()) {
        W::clean(out, plain);
        return Ok(());
    }
    text.with(|text| convert::text::<W>(out, text, conversion))
}

fn integer<W: RowWriter>(
    conversion: FromInteger,
    max: impl Into<i64>,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
) -> Step {
    let value = whole(tokens.number()?)?;
    let max = max.into();
    if value > max || value < -max - 1 {
        return Err(RowError::decode("the integer is out of its type's range"));
    }
    convert::integer::<W>(out, value, conversion)
}

fn float<W: RowWriter>(conversion: FromFloat, tokens: &mut Tokens<'_>, out: &mut Vec<u8>) -> Step {
    let value = if tokens.upcoming()? == Next::String {
        special_float(&tokens.string()?.value()?)
            .ok_or_else(|| RowError::decode("text where a number belongs"))?
    } else {
        finite(tokens.number()?)?
    };
    convert::float::<W>(out, value, conversion)
}

/// NaN or an infinity by its name.
pub fn special_float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" | "+Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn bytes<W: RowWriter>(
    len: Option<usize>,
    conversion: FromBytes,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
) -> Step {
    if let FromBytes::Decimal { target, .. } = conversion
        && tokens.upcoming()? == Next::Number
    {
        return convert::decimal::<W>(out, decimal(tokens.number()?)?, target);
    }
    let value = base64(&tokens.string()?.value()?)?;
    if len.is_some_and(|len| len != value.len()) {
        return Err(RowError::decode("a fixed value of another length"));
    }
    convert::bytes::<W>(out, &value, conversion)
}

/// Standard base64.
///
/// # Errors
/// When the text is none.
pub fn base64(text: &str) -> Step<Vec<u8>> {
    STANDARD.decode(text).map_err(|_| RowError::decode("the text is not standard base64"))
}

/// `{"scale": 2, "value": "base64"}`, in any order.
fn variable_decimal<W: RowWriter>(
    target: DecimalTarget,
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
) -> Step {
    tokens.open_object()?;
    let (mut first, mut scale, mut unscaled) = (true, None, None);
    while let Some(key) = tokens.key(&mut first)? {
        let twice = match &*key.value()? {
            "scale" => scale.replace(whole(tokens.number()?)?).is_some(),
            "value" => unscaled.replace(base64(&tokens.string()?.value()?)?).is_some(),
            _ => return Err(unknown()),
        };
        if twice {
            return Err(RowError::decode("the object has a key twice"));
        }
    }
    let scale = scale.and_then(|scale| i32::try_from(scale).ok());
    let (Some(scale), Some(unscaled)) = (scale, unscaled) else {
        return Err(RowError::decode("a variable-scale decimal without scale and value"));
    };
    convert::decimal::<W>(out, Decimal::from_be_bytes(&unscaled, scale)?, target)
}

fn duration_bytes<W: RowWriter>(
    labels: &[Label; 3],
    tokens: &mut Tokens<'_>,
    out: &mut Vec<u8>,
) -> Step {
    let bytes = base64(&tokens.string()?.value()?)?;
    let parts = crate::transcode::avro::reader::Reader::new(&bytes, 0).duration()?;
    duration::<W>(labels, parts, out);
    Ok(())
}

/// Checks that a value without a column holds nothing.
fn skip_empty(raw: &[u8]) -> Step {
    let holds_something =
        |byte: &u8| !matches!(byte, b'{' | b'}' | b'[' | b']' | b' ' | b'\n' | b'\r' | b'\t');
    if raw == b"null" || !raw.iter().any(holds_something) {
        return Ok(());
    }
    Err(unknown())
}

fn check_room(out: &[u8], end: usize) -> Step {
    if out.len() > end { Err(too_large()) } else { Ok(()) }
}

fn unknown() -> Box<RowError> {
    RowError::decode("the payload has a field that its schema does not have")
}
