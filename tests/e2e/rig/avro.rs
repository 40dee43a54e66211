//! Avro schemas and binary values read into cells: the independent side of every comparison.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    cell::{self, Cell},
    connect::{Kind, Meaning, Node, Raw},
};

/// Schemas by registry id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schemas(HashMap<u32, Node>);

impl Schemas {
    /// Adds a schema's text under its id.
    pub(crate) fn add(&mut self, id: u32, text: &str) -> Result<()> {
        let schema: Value = serde_json::from_str(text).context("an Avro schema is not JSON")?;
        self.0.insert(id, Parser::default().node(&schema, "")?);
        Ok(())
    }

    /// The row of a value in Confluent's wire format.
    pub(crate) fn read(&self, value: &[u8]) -> Result<Value> {
        let (prefix, body) = value.split_first_chunk::<5>().context("no wire-format prefix")?;
        ensure!(prefix[0] == 0, "the first byte is {}, not 0", prefix[0]);
        let id = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        let node = self.0.get(&id).with_context(|| format!("no schema with id {id}"))?;
        let mut reader = Reader(body);
        let row = reader.cell(node)?.context("the value is null")?;
        ensure!(reader.0.is_empty(), "{} bytes are left over", reader.0.len());
        Ok(row)
    }
}

#[derive(Debug, Default)]
struct Parser {
    named: HashMap<String, Node>,
}

impl Parser {
    fn node(&mut self, schema: &Value, namespace: &str) -> Result<Node> {
        match schema {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => {
                let branches: Result<Vec<_>> =
                    branches.iter().map(|branch| self.node(branch, namespace)).collect();
                Ok(Node { kind: Kind::Union(branches?), meaning: Meaning::Plain })
            }
            Value::Object(_) => self.object(schema, namespace),
            other => bail!("{other} is no Avro schema"),
        }
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<Node> {
        let kind = match name {
            "null" => Kind::Null,
            "boolean" => Kind::Boolean,
            "int" | "long" => Kind::Integer,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "string" => Kind::Text,
            _ => {
                let named = self.named.get(&full_name(name, namespace));
                let named = named.or_else(|| self.named.get(name));
                return named.cloned().with_context(|| format!("unknown Avro type {name}"));
            }
        };
        Ok(Node { kind, meaning: Meaning::Plain })
    }

    fn object(&mut self, schema: &Value, namespace: &str) -> Result<Node> {
        let ty = schema.get("type").context("an Avro schema without a type")?;
        let name = schema.get("name").and_then(Value::as_str);
        let namespace = schema.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let inner = |parser: &mut Self, key: &str| {
            parser.node(schema.get(key).context("no element type")?, namespace).map(Box::new)
        };
        let kind = match ty.as_str() {
            Some("record") => Kind::Record(self.fields(schema, namespace)?),
            Some("enum") => Kind::Enum(symbols(schema)?),
            Some("fixed") => {
                let size = schema.get("size").and_then(Value::as_u64).context("no size")?;
                Kind::Fixed(usize::try_from(size)?)
            }
            Some("array") => Kind::Array(inner(self, "items")?),
            Some("map") => Kind::Map(inner(self, "values")?),
            _ => self.node(ty, namespace)?.kind,
        };
        let node = Node { kind, meaning: meaning(schema) };
        if let Some(name) = name {
            self.named.insert(full_name(name, namespace), node.clone());
        }
        Ok(node)
    }

    fn fields(&mut self, schema: &Value, namespace: &str) -> Result<Vec<(String, Node)>> {
        let fields = schema.get("fields").and_then(Value::as_array).context("no fields")?;
        fields
            .iter()
            .map(|field| {
                let name = field.get("name").and_then(Value::as_str).context("no field name")?;
                let ty = field.get("type").context("no field type")?;
                Ok((name.to_owned(), self.node(ty, namespace)?))
            })
            .collect()
    }
}

fn symbols(schema: &Value) -> Result<Vec<String>> {
    let symbols = schema.get("symbols").and_then(Value::as_array).context("no symbols")?;
    Ok(symbols.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn full_name(name: &str, namespace: &str) -> String {
    match name.contains('.') || namespace.is_empty() {
        true => name.to_owned(),
        false => format!("{namespace}.{name}"),
    }
}

/// `connect.name` wins over `logicalType`: Debezium's wall-clock types have none of Avro's.
fn meaning(schema: &Value) -> Meaning {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    let number = |key: &str| schema.get(key).and_then(Value::as_i64);
    let parameter =
        |key: &str| Some(schema.get("connect.parameters")?.get(key)?.as_str()?.to_owned());
    match text("connect.name").map(|name| Meaning::of_connect(name, parameter)) {
        Some(meaning) if meaning != Meaning::Plain => return meaning,
        _ => {}
    }
    match text("logicalType").unwrap_or_default() {
        "decimal" => Meaning::Decimal {
            precision: number("precision").and_then(|precision| precision.try_into().ok()),
            scale: number("scale").and_then(|scale| scale.try_into().ok()).unwrap_or(0),
        },
        "date" => Meaning::Date,
        "time-millis" => Meaning::Time(1_000),
        "time-micros" => Meaning::Time(1_000_000),
        "timestamp-millis" => Meaning::Timestamp(1_000),
        "timestamp-micros" => Meaning::Timestamp(1_000_000),
        "timestamp-nanos" => Meaning::Timestamp(1_000_000_000),
        "local-timestamp-millis" => Meaning::WallClock(1_000),
        "local-timestamp-micros" => Meaning::WallClock(1_000_000),
        _ => Meaning::Plain,
    }
}

/// The bytes of a value that are not read yet.
#[derive(Debug)]
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn cell(&mut self, node: &Node) -> Result<Cell> {
        let raw = match &node.kind {
            Kind::Null => return Ok(None),
            Kind::Union(branches) => {
                let index = usize::try_from(self.long()?)?;
                return self.cell(branches.get(index).context("no such union branch")?);
            }
            Kind::Record(_) if node.meaning == Meaning::VariableScale => {
                let scale = i32::try_from(self.long()?)?;
                return Ok(Some(cell::text(cell::decimal_text(&self.bytes()?, scale))));
            }
            Kind::Record(fields) => return Ok(Some(self.record(fields)?)),
            Kind::Array(element) => return self.array(element),
            Kind::Map(value) => return self.map(value),
            Kind::Boolean => Raw::Boolean(self.take(1)? == [1]),
            Kind::Integer => Raw::Integer(self.long()?),
            Kind::Float => Raw::Float(f64::from(f32::from_le_bytes(self.take(4)?.try_into()?))),
            Kind::Double => Raw::Float(f64::from_le_bytes(self.take(8)?.try_into()?)),
            Kind::Bytes => Raw::Bytes(self.bytes()?),
            Kind::Text => Raw::Text(String::from_utf8(self.bytes()?)?),
            Kind::Fixed(size) => Raw::Bytes(self.take(*size)?.to_vec()),
            Kind::Enum(symbols) => {
                let index = usize::try_from(self.long()?)?;
                Raw::Text(symbols.get(index).context("no such symbol")?.clone())
            }
        };
        Ok(Some(node.meaning.render(raw)?))
    }

    fn record(&mut self, fields: &[(String, Node)]) -> Result<Value> {
        let mut cells = Vec::with_capacity(fields.len());
        for (name, node) in fields {
            cells.push((name.clone(), self.cell(node)?));
        }
        Ok(cell::record(cells))
    }

    fn array(&mut self, element: &Node) -> Result<Cell> {
        let mut cells = Vec::new();
        self.blocks(|reader| {
            cells.push(reader.cell(element)?.unwrap_or_default());
            Ok(())
        })?;
        Ok(cell::array(cells))
    }

    fn map(&mut self, value: &Node) -> Result<Cell> {
        let mut cells = Vec::new();
        self.blocks(|reader| {
            let key = cell::text(String::from_utf8(reader.bytes()?)?);
            let entry = [("key".to_owned(), Some(key)), ("value".to_owned(), reader.cell(value)?)];
            cells.push(cell::record(entry));
            Ok(())
        })?;
        Ok(cell::array(cells))
    }

    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        loop {
            let count = self.long()?;
            if count < 0 {
                self.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                item(self)?;
            }
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn take(&mut self, len: usize) -> Result<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(len).context("the value is cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        let len = usize::try_from(self.long()?)?;
        Ok(self.take(len)?.to_vec())
    }

    fn long(&mut self) -> Result<i64> {
        let mut zigzag = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            zigzag |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
            }
        }
        bail!("a varint of more than 64 bits")
    }
}
