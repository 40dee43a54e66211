//! The interpreter: operations over a datum, compiled once per row form.

use std::slice;

use crate::transcode::{
    avro::reader::Reader,
    convert::{self, DecimalTarget, decimal::Decimal},
    error::{RowError, Step},
    limits::EMPTY_ELEMENTS_MAX,
    plan::{Action, Elements, Entries, Op, Presence, Scalar, Skip, null_refused},
    writer::{Label, RowWriter},
};

/// A record's fields in their order.
pub fn fields<W: RowWriter>(ops: &[Op], reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Step {
    for op in ops {
        cell::<W>(op, reader, out).map_err(|error| error.within(&op.name))?;
    }
    Ok(())
}

/// One field: nothing if it is null. Inlined into the one hot loop; elsewhere a slice of one does.
#[inline(always)]
pub fn cell<W: RowWriter>(op: &Op, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Step {
    let Some(branch) = present(op, reader)? else { return Ok(()) };
    match &op.action {
        Action::Scalar(conversion) => {
            W::cell(out, &op.label);
            scalar::<W>(conversion, reader, out)
        }
        Action::Array(elements) => {
            W::array_start(out, &op.label);
            array::<W>(elements, reader, out)?;
            W::array_end(out);
            Ok(())
        }
        Action::Map(entries) => {
            W::array_start(out, &op.label);
            map::<W>(entries, &op.label, reader, out)?;
            W::array_end(out);
            Ok(())
        }
        Action::Skip(passed) => skip(passed, reader),
        action => {
            W::cell(out, &op.label);
            composite::<W>(action, branch, reader, out)
        }
    }
}

/// Whether there is a record at the top of the datum.
///
/// # Errors
/// When the union's branch is out of range.
#[inline]
pub fn top(presence: Presence, reader: &mut Reader<'_>) -> Step<bool> {
    branch(presence, reader).map(|branch| branch.is_some())
}

/// Which branch holds the value, or `None` for null. 0 outside unions.
#[inline(always)]
fn present(op: &Op, reader: &mut Reader<'_>) -> Step<Option<u32>> {
    if op.presence == Presence::Always {
        return Ok(Some(0));
    }
    let branch = branch(op.presence, reader)?;
    if branch.is_none() && op.required {
        return Err(null_refused());
    }
    Ok(branch)
}

#[inline(always)]
fn branch(presence: Presence, reader: &mut Reader<'_>) -> Step<Option<u32>> {
    Ok(match presence {
        Presence::Always => Some(0),
        Presence::Optional(null) => {
            let branch = reader.index()?;
            if branch > 1 {
                return Err(RowError::decode("a union's branch is out of range"));
            }
            (branch != u32::from(null)).then_some(branch)
        }
        Presence::Union { branches, null } => {
            let branch = reader.index()?;
            if branch >= branches {
                return Err(RowError::decode("a union's branch is out of range"));
            }
            (Some(branch) != null).then_some(branch)
        }
    })
}

#[inline(always)]
fn scalar<W: RowWriter>(scalar: &Scalar, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Step {
    match scalar {
        Scalar::Int(conversion) => {
            convert::integer::<W>(out, i64::from(reader.int()?), *conversion)
        }
        Scalar::Long(conversion) => convert::integer::<W>(out, reader.long()?, *conversion),
        Scalar::Text(conversion) => convert::text::<W>(out, reader.text()?, *conversion),
        Scalar::Double(conversion) => convert::float::<W>(out, reader.double()?, *conversion),
        Scalar::Float(conversion) => {
            convert::float::<W>(out, f64::from(reader.float()?), *conversion)
        }
        Scalar::Bool => {
            W::bool(out, reader.boolean()?);
            Ok(())
        }
        Scalar::BoolText => {
            W::plain_string(out, if reader.boolean()? { b"true" } else { b"false" });
            Ok(())
        }
        Scalar::Bytes(conversion) => convert::bytes::<W>(out, reader.bytes()?, *conversion),
        Scalar::Fixed(len, conversion) => convert::bytes::<W>(out, reader.take(*len)?, *conversion),
        Scalar::Enum(symbols) => {
            let index = reader.index()? as usize;
            let symbol =
                symbols.get(index).ok_or_else(|| RowError::decode("no such enum symbol"))?;
            W::text(out, symbol.text())
        }
    }
}

/// A value of more than one part, after its label.
fn composite<W: RowWriter>(
    action: &Action,
    branch: u32,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Step {
    match action {
        Action::Scalar(conversion) => scalar::<W>(conversion, reader, out),
        Action::Record(record) => {
            let mark = W::record_start(out);
            fields::<W>(&record.ops, reader, out)?;
            W::record_end(out, mark);
            Ok(())
        }
        Action::Wrapped(inner) => {
            let mark = W::record_start(out);
            fields::<W>(slice::from_ref(inner), reader, out)?;
            W::record_end(out, mark);
            Ok(())
        }
        Action::Branches(branches) => {
            let op = branches.get(branch as usize);
            let op = op.ok_or_else(|| RowError::decode("a union's branch is out of range"))?;
            let mark = W::record_start(out);
            fields::<W>(slice::from_ref(op), reader, out)?;
            W::record_end(out, mark);
            Ok(())
        }
        Action::Duration(labels) => {
            duration::<W>(labels, reader.duration()?, out);
            Ok(())
        }
        Action::VariableDecimal(target) => variable_decimal::<W>(*target, reader, out),
        Action::Skip(passed) => skip(passed, reader),
        Action::Refuse => {
            Err(RowError::transcode("the column is of a type that this service does not write"))
        }
        Action::Array(_) | Action::Map(_) => {
            // The compiler wraps these where they are not a cell of their own.
            Err(RowError::transcode("an array inside an array"))
        }
    }
}

fn array<W: RowWriter>(elements: &Elements, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Step {
    let op = &elements.element;
    let mut empty = 0;
    loop {
        let count = reader.block(elements.bytes_min)?;
        if count == 0 {
            return Ok(());
        }
        if elements.bytes_min == 0 {
            check_empty(&mut empty, count)?;
        }
        for _ in 0..count {
            reader.check_room(out)?;
            let branch = present(op, reader).map_err(|error| error.within(&op.name))?;
            W::element(out, &op.label);
            composite::<W>(&op.action, branch.unwrap_or(0), reader, out)
                .map_err(|error| error.within(&op.name))?;
        }
    }
}

fn map<W: RowWriter>(
    entries: &Entries,
    label: &Label,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Step {
    loop {
        let count = reader.block(entries.bytes_min)?;
        if count == 0 {
            return Ok(());
        }
        for _ in 0..count {
            reader.check_room(out)?;
            W::element(out, label);
            let mark = W::record_start(out);
            W::cell(out, &entries.key);
            W::text(out, reader.text()?)?;
            fields::<W>(slice::from_ref(&entries.value), reader, out)?;
            W::record_end(out, mark);
        }
    }
}

/// A duration's three numbers.
pub fn duration<W: RowWriter>(labels: &[Label; 3], parts: [u32; 3], out: &mut Vec<u8>) {
    let mark = W::record_start(out);
    for (label, part) in labels.iter().zip(parts) {
        W::cell(out, label);
        W::int64(out, i64::from(part));
    }
    W::record_end(out, mark);
}

fn variable_decimal<W: RowWriter>(
    target: DecimalTarget,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Step {
    let scale = reader.int()?;
    let value = Decimal::from_be_bytes(reader.bytes()?, scale)?;
    convert::decimal::<W>(out, value, target)
}

fn skip(passed: &Skip, reader: &mut Reader<'_>) -> Step {
    match passed {
        Skip::Null => Ok(()),
        Skip::Record(fields) => fields.iter().try_for_each(|field| skip(field, reader)),
        Skip::Union(branches) => {
            let branch = branches.get(reader.index()? as usize);
            skip(
                branch.ok_or_else(|| RowError::decode("a union's branch is out of range"))?,
                reader,
            )
        }
        Skip::Array(element) => {
            let mut empty = 0;
            loop {
                let count = reader.block(0)?;
                if count == 0 {
                    return Ok(());
                }
                check_empty(&mut empty, count)?;
                for _ in 0..count {
                    skip(element, reader)?;
                }
            }
        }
    }
}

/// Counts elements that take no bytes: the datum's length does not bound them.
fn check_empty(empty: &mut u64, count: u64) -> Step {
    *empty = empty.saturating_add(count);
    if *empty > EMPTY_ELEMENTS_MAX {
        return Err(RowError::decode("too many array elements of no bytes"));
    }
    Ok(())
}
