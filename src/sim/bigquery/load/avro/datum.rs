//! One datum: bytes in, canonical cells out.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::sim::bigquery::{
    columns::{Column, Mode, Type, find},
    load::avro::{
        scalar,
        schema::{Kind, Schema},
    },
    value,
};

/// Where a schema's parts go. It has the shape of the schema.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The column's own name.
    name: String,
    /// The column's type; `None` for what no column takes.
    ty: Option<Type>,
    /// A record's fields, an array's items, a map's values, a union's branches.
    inner: Vec<Binding>,
}

impl Binding {
    /// The binding of a whole row.
    pub fn of_row(schema: &Schema, columns: &[Column]) -> Self {
        Self::of(schema, "", Some(&Type::Record(columns.to_vec())))
    }

    fn of(schema: &Schema, name: &str, ty: Option<&Type>) -> Self {
        let fields = ty.map(Type::fields).unwrap_or_default();
        let inner = match &schema.kind {
            Kind::Record(members) => {
                let bound = members.iter().map(|member| {
                    let column = find(fields, &member.name);
                    let name = column.map_or("", |column| &column.name);
                    Self::of(&member.schema, name, column.map(|column| &column.ty))
                });
                bound.collect()
            }
            Kind::Array(items) => vec![Self::of(items, "", ty)],
            Kind::Map(values) => {
                vec![Self::of(values, "", find(fields, "value").map(|value| &value.ty))]
            }
            Kind::Union(branches) => {
                branches.iter().map(|branch| Self::of(branch, "", ty)).collect()
            }
            _ => Vec::new(),
        };
        Self { name: name.to_owned(), ty: ty.cloned(), inner }
    }

    /// A REQUIRED column that the rows cannot have.
    pub fn missing<'a>(&self, columns: &'a [Column]) -> Option<&'a str> {
        let required = |column: &&Column| column.mode == Mode::Required && !column.has_default;
        let bound = |column: &Column| self.inner.iter().any(|inner| inner.name == column.name);
        columns
            .iter()
            .filter(required)
            .find(|column| !bound(column))
            .map(|column| column.name.as_str())
    }

    /// Reads one value; `None` for null, for an empty array and for what no column takes.
    pub fn read(&self, cursor: &mut Cursor<'_>, schema: &Schema) -> Result<Option<Value>, String> {
        match &schema.kind {
            Kind::Union(branches) => {
                let index = usize::try_from(cursor.long()?).map_err(|_| "a negative branch")?;
                let branch = branches.get(index).zip(self.inner.get(index));
                let (branch, binding) = branch.ok_or("a union has no such branch")?;
                binding.read(cursor, branch)
            }
            Kind::Record(_) => self.record(cursor, schema),
            Kind::Array(items) => self.array(cursor, items),
            Kind::Map(values) => self.map(cursor, values),
            _ => self.scalar(cursor, schema),
        }
    }

    fn record(&self, cursor: &mut Cursor<'_>, schema: &Schema) -> Result<Option<Value>, String> {
        let Kind::Record(fields) = &schema.kind else { return Ok(None) };
        let mut cells = BTreeMap::new();
        for (field, binding) in fields.iter().zip(&self.inner) {
            let cell = binding
                .read(cursor, &field.schema)
                .map_err(|detail| format!("{detail} Field: {}", field.name))?;
            if let Some(cell) = cell {
                cells.insert(binding.name.clone(), cell);
            }
        }
        Ok(self.ty.as_ref().map(|_| Value::Object(cells.into_iter().collect())))
    }

    fn array(&self, cursor: &mut Cursor<'_>, items: &Schema) -> Result<Option<Value>, String> {
        let mut cells = Vec::new();
        let binding = self.inner.first().ok_or("an array has no items")?;
        while let Some(count) = cursor.block()? {
            for _ in 0..count {
                match binding.read(cursor, items)? {
                    Some(cell) => cells.push(cell),
                    None if binding.ty.is_some() => {
                        return Err("Only optional fields can be set to NULL.".to_owned());
                    }
                    None => {}
                }
            }
        }
        Ok((!cells.is_empty()).then_some(Value::Array(cells)))
    }

    /// A map is repeated records of key and value.
    fn map(&self, cursor: &mut Cursor<'_>, values: &Schema) -> Result<Option<Value>, String> {
        let mut cells = Vec::new();
        let binding = self.inner.first().ok_or("a map has no values")?;
        while let Some(count) = cursor.block()? {
            for _ in 0..count {
                let key = cursor.string()?.to_owned();
                let value = binding.read(cursor, values)?.map(|value| ("value".to_owned(), value));
                let key = ("key".to_owned(), Value::String(key));
                cells.push(Value::Object([key].into_iter().chain(value).collect()));
            }
        }
        Ok((self.ty.is_some() && !cells.is_empty()).then_some(Value::Array(cells)))
    }

    fn scalar(&self, cursor: &mut Cursor<'_>, schema: &Schema) -> Result<Option<Value>, String> {
        // What no column takes is read, and forgotten.
        let ty = self.ty.as_ref().unwrap_or(&Type::Opaque("nothing"));
        let text = match &schema.kind {
            Kind::Boolean => match cursor.take(1)? {
                [0] => "false".to_owned(),
                [1] => "true".to_owned(),
                _ => return Err("a boolean is neither 0 nor 1".to_owned()),
            },
            Kind::Int => {
                let number = i32::try_from(cursor.long()?).map_err(|_| "an int is too large")?;
                scalar::integer(number.into(), schema, ty)?
            }
            Kind::Long => scalar::integer(cursor.long()?, schema, ty)?,
            Kind::Float => value::float_text(f32::from_le_bytes(cursor.array()?).into()),
            Kind::Double => value::float_text(f64::from_le_bytes(cursor.array()?)),
            Kind::Bytes => scalar::bytes(cursor.bytes()?, schema, ty)?,
            Kind::Fixed(size) => scalar::bytes(cursor.take(*size)?, schema, ty)?,
            Kind::String => scalar::text(cursor.string()?, ty)?,
            Kind::Enum(symbols) => {
                let symbol = usize::try_from(cursor.long()?).ok().and_then(|at| symbols.get(at));
                scalar::text(symbol.ok_or("an enum has no such symbol")?, ty)?
            }
            _ => return Ok(None),
        };
        Ok(self.ty.as_ref().map(|_| Value::String(text)))
    }
}

/// A place in encoded bytes.
#[derive(Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// At the beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// How many bytes are left.
    pub fn rest(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes that are left.
    pub fn remaining(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or("EOF reached")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "EOF reached".to_owned())
    }

    /// A variable-length zig-zag integer.
    pub fn long(&mut self) -> Result<i64, String> {
        let mut encoded = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            encoded |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((encoded >> 1).cast_signed() ^ -(encoded & 1).cast_signed());
            }
        }
        Err("Invalid Avro varint".to_owned())
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self) -> Result<&'a [u8], String> {
        let length = usize::try_from(self.long()?).map_err(|_| "a negative length")?;
        self.take(length)
    }

    /// Text behind its length.
    pub fn string(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a string is not UTF-8".to_owned())
    }

    /// Refuses more items than bytes are left: no type that BigQuery takes is encoded in none.
    pub fn check_count(&self, count: u64) -> Result<(), String> {
        match count > self.rest() as u64 {
            true => Err(format!("{count} items in {} bytes", self.rest())),
            false => Ok(()),
        }
    }

    /// The count of an array's or a map's next block; `None` at its end. A negative count comes with
    /// the block's size in bytes.
    pub fn block(&mut self) -> Result<Option<u64>, String> {
        let count = self.long()?;
        if count < 0 {
            self.long()?;
        }
        self.check_count(count.unsigned_abs())?;
        Ok(Some(count.unsigned_abs()).filter(|count| *count > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_the_specification() {
        for (bytes, expected) in [
            (&[0x00][..], 0),
            (&[0x01][..], -1),
            (&[0x02][..], 1),
            (&[0x7f][..], -64),
            (&[0x80, 0x01][..], 64),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..], i64::MAX),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..], i64::MIN),
        ] {
            assert_eq!(Cursor::new(bytes).long(), Ok(expected));
        }
        for bytes in [
            &[][..],
            &[0x80][..],
            &[0xff; 11][..],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03][..],
        ] {
            assert!(Cursor::new(bytes).long().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn blocks_with_and_without_their_size() {
        let mut cursor = Cursor::new(&[0x02, 0x01, 0x10, 0x00]);
        assert_eq!(cursor.block(), Ok(Some(1)));
        assert_eq!(cursor.block(), Ok(Some(1)), "a size follows a negative count");
        assert_eq!(cursor.block(), Ok(None));
        assert!(Cursor::new(&[0x06, 0x00, 0x00]).block().is_err(), "three items in two bytes");
    }
}
