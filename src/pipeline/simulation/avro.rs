//! Avro as a producer writes it, apart from the product's reader: writer schemas and values by hand.

use super::records::{Broken, Content, Kind, extra};

/// What tells a topic's writer schemas apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// The extra column that the writer knows.
    pub(crate) extra: Option<u8>,
    /// Whether the number is a double, not a long.
    pub(crate) double: bool,
    /// Whether the text may be null.
    pub(crate) nullable: bool,
}

/// A schema that refers to itself: no columns can be made of it.
const RECURSIVE: u32 = 99;

impl Version {
    fn number(self) -> u32 {
        let extra = self.extra.map_or(0, |extra| u32::from(extra) + 1);
        extra * 4 + u32::from(self.double) * 2 + u32::from(self.nullable)
    }

    fn of(number: u32) -> Self {
        Self {
            extra: (number / 4).checked_sub(1).map(|extra| extra as u8),
            double: number & 2 != 0,
            nullable: number & 1 != 0,
        }
    }
}

/// The id under which the registry has a topic's writer schema.
fn id(topic: &str, number: u32) -> u32 {
    u32::from(topic.as_bytes()[0]) * 1_000 + number
}

/// The writer schema behind an id.
pub(crate) fn schema(id: u32) -> String {
    let number = id % 1_000;
    if number == RECURSIVE {
        return r#"{"type":"record","name":"Tree","fields":[
            {"name":"id","type":"long"},{"name":"next","type":["null","Tree"]}]}"#
            .to_owned();
    }
    let Version { extra, double, nullable } = Version::of(number);
    let text = if nullable { r#"["null","string"]"# } else { r#""string""# };
    let n = if double { "double" } else { "long" };
    let extra = extra.map_or_else(String::new, |extra| {
        format!(r#",{{"name":"x{extra}","type":["null","string"]}}"#)
    });
    format!(
        r#"{{"type":"record","name":"Order","fields":[
            {{"name":"id","type":"long"}},{{"name":"v","type":{text}}},{{"name":"n","type":"{n}"}},
            {{"name":"at","type":{{"type":"long","logicalType":"timestamp-millis"}}}},
            {{"name":"tags","type":{{"type":"array","items":"string"}}}}{extra}]}}"#
    )
}

/// A record's value in Confluent's wire format.
pub(crate) fn value(topic: &str, content: &Content) -> Vec<u8> {
    let columns = content.kind == Kind::Broken(Broken::Columns);
    let number = if columns { RECURSIVE } else { content.version.number() };
    let mut out = vec![0];
    out.extend_from_slice(&id(topic, number).to_be_bytes());
    long(&mut out, content.id);
    if columns {
        long(&mut out, 0);
        return out;
    }
    match &content.text {
        Some(text) => {
            if content.version.nullable {
                long(&mut out, 1);
            }
            string(&mut out, text);
        }
        None => long(&mut out, 0),
    }
    match content.version.double {
        true => out.extend_from_slice(&(content.halves as f64 / 2.0).to_le_bytes()),
        false => long(&mut out, content.halves / 2),
    }
    long(&mut out, content.at_ms);
    long(&mut out, content.tags.len() as i64);
    content.tags.iter().for_each(|tag| string(&mut out, tag));
    long(&mut out, 0);
    if content.version.extra.is_some() {
        long(&mut out, 1);
        string(&mut out, &extra(content));
    }
    match content.kind {
        Kind::Broken(Broken::Magic) => out[0] = 1,
        Kind::Broken(Broken::Trailing) => out.push(0),
        Kind::Broken(Broken::Short) => out.truncate(out.len() - 1),
        _ => {}
    }
    out
}

fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn string(out: &mut Vec<u8>, text: &str) {
    long(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}
