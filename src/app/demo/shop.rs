//! The records of the demo's shop: orders in Avro, payments in JSON, each in two versions.

use serde_json::{Value, json};

/// The topic with Avro values.
pub const ORDERS: &str = "shop.orders";
/// The topic with JSON values.
pub const PAYMENTS: &str = "shop.payments";
/// Partitions of each topic.
pub const PARTITIONS: i32 = 4;

/// When the first order was placed: 2026-11-01T08:00:00Z, in milliseconds since the epoch.
const OPENING_MS: i64 = 1_793_520_000_000;
const CITIES: [(&str, &str); 5] = [
    ("Bern", "3011"),
    ("Basel", "4051"),
    ("Genève", "1201"),
    ("Lugano", "6900"),
    ("Zürich", "8001"),
];
const SKUS: [&str; 4] = ["kettle", "lamp", "notebook", "teapot"];
const METHODS: [&str; 3] = ["card", "invoice", "twint"];

/// The state of the shop's software: what a record looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// As it was at first.
    One,
    /// Addresses have a postcode, payments a risk assessment.
    Two,
}

/// The Avro schema of an order.
pub fn order_schema(version: Version) -> Value {
    let mut address = vec![
        json!({"name": "street", "type": "string"}),
        json!({"name": "city", "type": "string"}),
    ];
    if version == Version::Two {
        address.push(json!({"name": "postcode", "type": ["null", "string"], "default": null}));
    }
    let address = json!({"type": "record", "name": "Address", "fields": address});
    let line = json!({"type": "record", "name": "Line", "fields": [
        {"name": "sku", "type": "string"},
        {"name": "quantity", "type": "int"},
    ]});
    json!({"type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "order_id", "type": "long", "doc": "Number of the order"},
        {"name": "placed_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "total", "doc": "In francs",
         "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "address", "type": address},
        {"name": "lines", "type": {"type": "array", "items": line}},
    ]})
}

/// An order in Confluent's wire format, under the schema with this id.
pub fn order(number: u64, schema_id: u32, version: Version) -> Vec<u8> {
    let mut out = Avro(Vec::with_capacity(96));
    out.0.push(0);
    out.0.extend_from_slice(&schema_id.to_be_bytes());
    let (city, postcode) = pick(&CITIES, number);
    out.long(signed(number));
    out.long(placed_ms(number));
    out.bytes(&cents(number).to_be_bytes());
    out.bytes(format!("Hauptstrasse {}", number % 200 + 1).as_bytes());
    out.bytes(city.as_bytes());
    if version == Version::Two {
        out.long(1);
        out.bytes(postcode.as_bytes());
    }
    let lines = number % 3 + 1;
    out.long(signed(lines));
    for line in 0..lines {
        out.bytes(pick(&SKUS, number + line).as_bytes());
        out.long(signed(line + 1));
    }
    out.long(0);
    out.0
}

/// A payment as a JSON object.
pub fn payment(number: u64, version: Version) -> Vec<u8> {
    let cents = cents(number);
    let mut payment = json!({
        "payment_id": format!("p-{number:07}"),
        "order_id": number,
        "amount": f64::from(cents) / 100.0,
        "method": pick(&METHODS, number),
        "payer": {"city": pick(&CITIES, number).0, "returning": number.is_multiple_of(2)},
    });
    if let (Version::Two, Some(fields)) = (version, payment.as_object_mut()) {
        fields.insert("risk".to_owned(), json!({"score": 0.25, "model": "r7"}));
    }
    payment.to_string().into_bytes()
}

/// A payment that its producer cut off: no JSON.
pub fn poison(number: u64) -> Vec<u8> {
    let mut bytes = payment(number, Version::Two);
    bytes.truncate(bytes.len() / 2);
    bytes
}

fn pick<T: Copy + Default, const N: usize>(among: &[T; N], number: u64) -> T {
    let index = usize::try_from(number).unwrap_or_default();
    among.iter().cycle().nth(index % N.max(1)).copied().unwrap_or_default()
}

fn placed_ms(number: u64) -> i64 {
    OPENING_MS + signed(number % 2_000_000) * 1_250
}

/// The order's total.
fn cents(number: u64) -> i32 {
    i32::try_from(number.wrapping_mul(7_919) % 48_000 + 495).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Avro's binary encoding, as far as an order needs it.
#[derive(Debug)]
struct Avro(Vec<u8>);

impl Avro {
    /// An int or a long: zigzag, then seven bits a byte.
    fn long(&mut self, value: i64) {
        let mut zigzag = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
        while zigzag > 0x7f {
            self.0.push((zigzag & 0x7f) as u8 | 0x80);
            zigzag >>= 7;
        }
        self.0.push(zigzag as u8);
    }

    /// Bytes or a string.
    fn bytes(&mut self, bytes: &[u8]) {
        self.long(bytes.len().try_into().unwrap_or(i64::MAX));
        self.0.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::reader::datum::GenericDatumReader;

    use super::*;

    #[test]
    fn orders_are_avro_of_their_schema() {
        for version in [Version::One, Version::Two] {
            let schema = apache_avro::Schema::parse(&order_schema(version)).unwrap();
            let bytes = order(70_001, 9, version);
            assert_eq!(&bytes[..5], [0, 0, 0, 0, 9]);
            let mut rest = &bytes[5..];
            let reader = GenericDatumReader::builder(&schema).build().unwrap();
            let read = reader.read_value(&mut rest).unwrap();
            assert!(rest.is_empty());
            let read = format!("{read:?}");
            assert!(read.contains("Long(70001)"), "{read}");
            assert_eq!(read.contains("postcode"), version == Version::Two, "{read}");
        }
    }

    #[test]
    fn the_poison_is_no_json_and_the_payments_are() {
        assert!(serde_json::from_slice::<Value>(&payment(3, Version::Two)).is_ok());
        assert!(serde_json::from_slice::<Value>(&poison(3)).is_err());
    }
}
