//! Types from JSON objects that have no schema.
//!
//! | JSON | Type |
//! |---|---|
//! | null | null: no column until a value is seen |
//! | boolean, string | boolean, string |
//! | the string `NaN`, `Infinity` or `-Infinity` | the name of a float: see below |
//! | a number without fraction or exponent, within 64 bits | long |
//! | any other number | double; an exact column (`NUMERIC`, `STRING`) must be made beforehand |
//! | array | array of what all its elements merge to; no column while that is null. An array in an array goes into a record's field `element` |
//! | object | a record without name: nothing is required, and a key's column depends on the key alone |
//!
//! Text is never taken for a date or a number: what looks like one today may not tomorrow. The names
//! of the floats that JSON has no number for are the exception, because writers of JSON (Jackson, and
//! so Connect; Protocol Buffers) have no other spelling for them. Beside numbers such a name is a
//! number, beside other text it is text, and alone it makes a `FLOAT64` column, so that a column of
//! floats is the same whether a number or a name comes first. What a table has already decides:
//! [`settle`].

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::{
    printable,
    schema::{
        columns::ARRAY_ELEMENT,
        diff::{Change, Difference},
        error::{Problem, SchemaError},
        model::{Field, Kind, Logical, RecordType, Type},
        names::json_column_name,
    },
    table::{Column, ColumnKind, Lookup, Mode, find},
};

/// Most bytes of one JSON text.
pub const BYTES_MAX: usize = 16 << 20;
/// Most levels of arrays and objects.
pub const DEPTH_MAX: usize = 64;
/// Most fields of the type, nested ones included.
pub const FIELDS_MAX: usize = 10_000;

/// The path segment of an array's elements.
const ELEMENTS: &str = "[]";

/// The type of one JSON text.
///
/// # Errors
///
/// Text that is not JSON, two keys of one object for one column, array elements that no one type
/// covers, or a limit. The path names keys, such as `order.lines[].price`.
pub fn infer(json: &[u8]) -> Result<Type, SchemaError> {
    infer_beside(json, &[])
}

/// The type of one JSON text whose table has the columns `known`: like [`infer`], except that what
/// goes into a `JSON` column is JSON, whatever it is, and not looked into.
///
/// # Errors
///
/// See [`infer`].
pub fn infer_beside(json: &[u8], known: &[Column]) -> Result<Type, SchemaError> {
    if json.len() > BYTES_MAX {
        return Err(SchemaError::new("", Problem::Limit { what: "bytes", limit: BYTES_MAX }));
    }
    let mut walk = Walk { path: Vec::new(), fields: 0, error: None };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let ty = Seed { walk: &mut walk, known, in_array: false }
        .deserialize(&mut deserializer)
        .and_then(|ty| deserializer.end().map(|()| ty));
    ty.map_err(|error| {
        walk.error.take().unwrap_or_else(|| {
            let problem = Problem::ValueNotJson { line: error.line(), column: error.column() };
            SchemaError::new("", problem)
        })
    })
}

/// Whether `text` is how writers of JSON spell a float that JSON has no number for.
pub fn is_float_name(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity")
}

/// `ty` with every name of a float settled: a float where there is no column yet or one of numbers (an
/// `INT64` one must be widened), else text, to be taken as the column takes other text.
pub fn settle(ty: &Type, known: &[Column]) -> Type {
    use ColumnKind::{BigNumeric, Float64, Int64, Numeric};
    replace_float_names(ty, None, known, &|column| match column.map(|column| &column.kind) {
        None | Some(Int64 | Float64 | Numeric | BigNumeric) => Kind::Double,
        Some(_) => Kind::String,
    })
}

/// `ty` with null for every name of a float: what is known whatever they are.
pub fn without_float_names(ty: &Type) -> Type {
    replace_float_names(ty, None, &[], &|_| Kind::Null)
}

/// `known` are the columns for the keys of an object at this place, which has `column` itself.
fn replace_float_names(
    ty: &Type,
    column: Option<&Column>,
    known: &[Column],
    kind_for: &impl Fn(Option<&Column>) -> Kind,
) -> Type {
    let kind = match &ty.kind {
        _ if ty.logical == Some(Logical::FloatName) => return Type::plain(kind_for(column)),
        Kind::Record(record) => {
            let mut record = RecordType::clone(record);
            let mut known = Lookup::new(known);
            for field in &mut record.fields {
                let column = known.find(&json_column_name(&field.name));
                let inner = column.map(Column::fields).unwrap_or_default();
                field.ty = replace_float_names(&field.ty, column, inner, kind_for);
            }
            Kind::Record(Arc::new(record))
        }
        Kind::Array(items) => {
            // An array in an array has a column of its own.
            let nested = matches!(items.kind, Kind::Array(_));
            let column = if nested { find(known, ARRAY_ELEMENT) } else { column };
            let inner = if nested { column.map_or(&[][..], Column::fields) } else { known };
            Kind::Array(Arc::new(replace_float_names(items, column, inner, kind_for)))
        }
        kind => kind.clone(),
    };
    Type { kind, ..ty.clone() }
}

/// The type that covers both: null gives way to anything, long to double, the name of a float to
/// numbers and to text; records have the fields of both, arrays merge their elements. `path` are the
/// keys that lead here, for the error.
fn merge_at(one: Type, other: Type, path: &mut Vec<String>) -> Result<Type, SchemaError> {
    if one == other || other.kind == Kind::Null {
        return Ok(one);
    }
    if let Some(ty) = beside_float_name(&one, &other).or_else(|| beside_float_name(&other, &one)) {
        return Ok(ty);
    }
    let kind = match (one.kind, other.kind) {
        (Kind::Null, kind) => return Ok(Type { kind, ..other }),
        (Kind::Long, Kind::Double) | (Kind::Double, Kind::Long) => Kind::Double,
        (Kind::Record(one), Kind::Record(other)) => {
            Kind::Record(Arc::new(merge_records(Arc::unwrap_or_clone(one), &other, path)?))
        }
        (Kind::Array(one), Kind::Array(other)) => {
            path.push(ELEMENTS.to_owned());
            let items = merge_at(Arc::unwrap_or_clone(one), Arc::unwrap_or_clone(other), path)?;
            path.pop();
            Kind::Array(Arc::new(items))
        }
        (one, other) => {
            let problem = Problem::Mixed { one: json_name(&one), other: json_name(&other) };
            return Err(SchemaError::new(shown(path), problem));
        }
    };
    Ok(Type::plain(kind))
}

/// What covers both, if `one` is the name of a float and `other` a number or text.
fn beside_float_name(one: &Type, other: &Type) -> Option<Type> {
    match (one.logical, &other.kind, other.logical) {
        (Some(Logical::FloatName), Kind::Long | Kind::Double, None) => {
            Some(Type::plain(Kind::Double))
        }
        (Some(Logical::FloatName), Kind::String, None) => Some(Type::plain(Kind::String)),
        _ => None,
    }
}

/// The fields of `one` in their order, then those that only `other` has. Keys for one column are
/// one field, called by the first spelling.
fn merge_records(
    mut one: RecordType,
    other: &RecordType,
    path: &mut Vec<String>,
) -> Result<RecordType, SchemaError> {
    let positions: HashMap<String, usize> =
        one.fields.iter().map(|field| column_of(&field.name)).zip(0..).collect();
    for field in &other.fields {
        let position = positions.get(&column_of(&field.name));
        match position.and_then(|position| one.fields.get_mut(*position)) {
            Some(known) => {
                path.push(field.name.to_string());
                let ty = std::mem::replace(&mut known.ty, Type::plain(Kind::Null));
                known.ty = merge_at(ty, field.ty.clone(), path)?;
                path.pop();
            }
            None => one.fields.push(field.clone()),
        }
    }
    Ok(one)
}

/// Takes back the relaxing of columns for which a text of type `ty` has a value.
///
/// An inferred type promises nothing, so [`diff`](crate::schema::diff::diff) would relax every
/// `REQUIRED` column of a table that somebody made with more knowledge. Only what this text leaves
/// out, or has null, needs it. Inside arrays elements may differ, and relaxing stays.
pub fn spare_filled(difference: &mut Difference, ty: &Type) {
    let is_needed = |change: &Change| match change {
        Change::Relax { path } => !is_filled(ty, path),
        _ => true,
    };
    difference.changes.retain(is_needed);
}

fn is_filled(ty: &Type, path: &[String]) -> bool {
    match (&ty.kind, path.split_first()) {
        (Kind::Null, _) => false,
        (_, None) => true,
        (Kind::Record(record), Some((name, rest))) => {
            let is_called = |field: &&Field| column_of(&field.name) == name.to_ascii_lowercase();
            record.fields.iter().find(is_called).is_some_and(|field| is_filled(&field.ty, rest))
        }
        _ => false,
    }
}

/// What two keys for one column have in common.
fn column_of(key: &str) -> String {
    json_column_name(key).to_ascii_lowercase()
}

/// What JSON calls such a value.
fn json_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Long => "an integer",
        Kind::Double => "a number",
        Kind::Boolean => "a boolean",
        Kind::String => "a string",
        Kind::Record(_) => "an object",
        Kind::Array(_) => "an array",
        kind => kind.name(),
    }
}

fn shown(path: &[String]) -> String {
    let mut shown = String::new();
    for segment in path {
        if !shown.is_empty() && segment != ELEMENTS {
            shown.push('.');
        }
        match segment == ELEMENTS {
            true => shown.push_str(segment),
            false => shown.push_str(&printable::key(segment)),
        }
    }
    shown
}

/// The fields in a type, nested ones included.
fn count_fields(ty: &Type) -> usize {
    match &ty.kind {
        Kind::Record(record) => record.fields.iter().map(|field| 1 + count_fields(&field.ty)).sum(),
        Kind::Array(items) => count_fields(items),
        _ => 0,
    }
}

/// The state of reading one text.
struct Walk {
    /// The keys that lead to the current place.
    path: Vec<String>,
    /// Fields of the type so far.
    fields: usize,
    /// The error behind the deserializer's, which can carry text only.
    error: Option<SchemaError>,
}

impl Walk {
    fn fail<E: serde::de::Error>(&mut self, problem: Problem) -> E {
        self.error = Some(SchemaError::new(shown(&self.path), problem));
        E::custom("refused")
    }

    fn enter<E: serde::de::Error>(&mut self, segment: &str) -> Result<(), E> {
        if self.path.len() >= DEPTH_MAX {
            return Err(self.fail(Problem::Limit { what: "levels", limit: DEPTH_MAX }));
        }
        self.path.push(segment.to_owned());
        Ok(())
    }

    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(self.fail(Problem::Limit { what: "fields", limit: FIELDS_MAX }));
        }
        Ok(())
    }
}

/// Reads one value for its type.
struct Seed<'a> {
    walk: &'a mut Walk,
    /// The columns for the keys of an object here.
    known: &'a [Column],
    /// Whether it is an array's element.
    in_array: bool,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Type;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Type, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Type;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Type, E> {
        Ok(Type::plain(Kind::Null))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Type, E> {
        Ok(Type::plain(Kind::Boolean))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Type, E> {
        Ok(Type::plain(Kind::Long))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Type, E> {
        Ok(Type::plain(if i64::try_from(value).is_ok() { Kind::Long } else { Kind::Double }))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Type, E> {
        Ok(Type::plain(Kind::Double))
    }

    fn visit_str<E>(self, text: &str) -> Result<Type, E> {
        Ok(match is_float_name(text) {
            true => Type::logical(Kind::String, Logical::FloatName),
            false => Type::plain(Kind::String),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Type, A::Error> {
        let Self { walk, known, in_array } = self;
        walk.enter(ELEMENTS)?;
        let wrapper = find(known, ARRAY_ELEMENT).filter(|_| in_array);
        if wrapper.is_some_and(|column| column.kind == ColumnKind::Json) {
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            walk.path.pop();
            return Ok(json_type(Some(IgnoredAny), Mode::Repeated));
        }
        // An array in an array has a column of its own.
        let known = if in_array { wrapper.map_or(&[][..], Column::fields) } else { known };
        let mut items = Type::plain(Kind::Null);
        let mut fields = walk.fields;
        let before = walk.fields;
        loop {
            let seed = Seed { walk: &mut *walk, known, in_array: true };
            let Some(element) = elements.next_element_seed(seed)? else { break };
            if element != items {
                items = merge_at(items, element, &mut walk.path).map_err(|error| {
                    walk.error = Some(error);
                    A::Error::custom("refused")
                })?;
                fields = before + count_fields(&items);
            }
            // What merged into known fields does not count again.
            walk.fields = fields;
        }
        walk.path.pop();
        Ok(Type::plain(Kind::Array(Arc::new(items))))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Type, A::Error> {
        let Self { walk, known, .. } = self;
        let mut columns = HashSet::new();
        let mut fields = Vec::new();
        let mut known = Lookup::new(known);
        while let Some(name) = entries.next_key::<String>()? {
            walk.enter(&name)?;
            walk.count()?;
            if !columns.insert(column_of(&name)) {
                return Err(
                    walk.fail(Problem::DuplicateField { name: printable::key(&name).into_owned() })
                );
            }
            let column = known.find(&json_column_name(&name));
            let ty = match column.filter(|column| column.kind == ColumnKind::Json) {
                Some(column) => json_type(entries.next_value()?, column.mode),
                None => {
                    let known = column.map(Column::fields).unwrap_or_default();
                    entries.next_value_seed(Seed { walk: &mut *walk, known, in_array: false })?
                }
            };
            walk.path.pop();
            fields.push(Field { name: Arc::from(name), ty, doc: None });
        }
        Ok(Type::plain(Kind::Record(Arc::new(RecordType { name: Arc::from(""), fields }))))
    }
}

/// The type of what goes into a `JSON` column.
fn json_type(value: Option<IgnoredAny>, mode: Mode) -> Type {
    let json = Type::logical(Kind::String, Logical::Json);
    match (value, mode) {
        (None, _) => Type::plain(Kind::Null),
        (Some(_), Mode::Repeated) => Type::plain(Kind::Array(Arc::new(json))),
        (Some(_), _) => json,
    }
}

#[cfg(test)]
mod tests;
