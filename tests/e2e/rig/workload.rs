//! The test record: 20 fields, about 270 bytes of Avro, different in every record, made from a seed
//! and its index alone.

use serde_json::{Value, json};

use super::random::Random;

const CITIES: [&str; 8] =
    ["Reykjavík", "Basel", "Porto", "Ålesund", "Zürich", "São Paulo", "Osaka", "Tromsø"];
const STATUSES: [&str; 4] = ["NEW", "PAID", "SENT", "RETURNED"];
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_ \"\\/";

/// The schema's text. Version `n` has `n` more optional text fields `extra_1` … `extra_n`.
pub(crate) fn schema(version: u32) -> String {
    let optional = |name: &str| json!({"name": name, "type": ["null", "string"], "default": null});
    let time = json!({"type": "long", "logicalType": "timestamp-millis"});
    let amount = json!({"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2});
    let address = json!({"type": "record", "name": "Address", "fields": [
        {"name": "street", "type": "string"},
        {"name": "zip", "type": "string"},
        {"name": "floor", "type": ["null", "int"], "default": null},
    ]});
    let mut fields = vec![
        json!({"name": "id", "type": "long"}),
        json!({"name": "customer", "type": "long"}),
        json!({"name": "quantity", "type": "int"}),
        json!({"name": "retries", "type": "int"}),
        json!({"name": "price", "type": "double"}),
        json!({"name": "weight", "type": "double"}),
        json!({"name": "name", "type": "string"}),
        json!({"name": "sku", "type": "string"}),
        json!({"name": "city", "type": "string"}),
        json!({"name": "session", "type": "string"}),
        json!({"name": "created", "type": time}),
        json!({"name": "updated", "type": time}),
        optional("note"),
        optional("coupon"),
        optional("email"),
        json!({"name": "status", "type":
            {"type": "enum", "name": "Status", "symbols": STATUSES}}),
        json!({"name": "address", "type": address}),
        json!({"name": "tags", "type": {"type": "array", "items": "string"}}),
        json!({"name": "amount", "type": amount}),
        json!({"name": "active", "type": "boolean"}),
    ];
    fields.extend((1..=version).map(|number| optional(&format!("extra_{number}"))));
    let record: Value =
        json!({"type": "record", "name": "Order", "namespace": "kcbq.e2e", "fields": fields});
    record.to_string()
}

/// Writes record `index` of `seed` in Confluent's wire format over what `out` holds.
pub(crate) fn encode(out: &mut Vec<u8>, schema_id: u32, version: u32, seed: u64, index: u64) {
    let mut random = Random::at(seed, index);
    out.clear();
    out.push(0);
    out.extend_from_slice(&schema_id.to_be_bytes());
    let mut avro = Encoder { out, random: &mut random };
    avro.long(index as i64);
    avro.any_long(40);
    avro.any_long(10);
    avro.any_long(3);
    avro.any_double();
    avro.any_double();
    avro.any_text(20, 44);
    avro.any_text(8, 12);
    avro.city();
    avro.any_text(36, 48);
    avro.any_time();
    avro.any_time();
    avro.optional_text(30, 90);
    avro.optional_text(6, 10);
    avro.optional_text(12, 24);
    avro.any_long_below(STATUSES.len() as u64);
    avro.any_text(20, 40);
    avro.any_text(4, 8);
    avro.optional_int();
    avro.tags();
    avro.amount();
    let active = avro.random.one_in(2);
    avro.out.push(u8::from(active));
    (0..version).for_each(|_| avro.optional_text(4, 12));
}

/// Appends a `long` of Avro.
pub(crate) fn push_long(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    random: &'a mut Random,
}

impl Encoder<'_> {
    fn long(&mut self, value: i64) {
        push_long(self.out, value);
    }

    /// A number of up to `bits` bits, negative once in eight.
    fn any_long(&mut self, bits: u32) {
        let value = self.random.below(1 << bits) as i64;
        let negative = self.random.one_in(8);
        self.long(if negative { -value } else { value });
    }

    fn any_long_below(&mut self, bound: u64) {
        let value = self.random.below(bound) as i64;
        self.long(value);
    }

    /// Money-like, measured, and once in a while very large or small.
    fn any_double(&mut self) {
        let cents = self.random.below(10_000_000) as f64;
        let value = match self.random.below(16) {
            0 => cents * 1e12,
            1 => -cents / 1e9,
            2..8 => cents / 100.0,
            _ => cents / 7.0,
        };
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Between 1930 and 2100, so that days and signs vary.
    fn any_time(&mut self) {
        let value = self.random.below(5_364_662_400_000) as i64 - 1_262_304_000_000;
        self.long(value);
    }

    fn any_text(&mut self, least: u64, most: u64) {
        let len = least + self.random.below(most - least + 1);
        self.long(len as i64);
        let mut word = 0;
        for position in 0..len {
            if position % 8 == 0 {
                word = self.random.next();
            }
            self.out.push(LETTERS[(word & 0xff) as usize % LETTERS.len()]);
            word >>= 8;
        }
    }

    fn city(&mut self) {
        let city = CITIES[self.random.index(CITIES.len())];
        self.long(city.len() as i64);
        self.out.extend_from_slice(city.as_bytes());
    }

    fn optional_text(&mut self, least: u64, most: u64) {
        let present = self.random.one_in(2);
        self.out.push(if present { 2 } else { 0 });
        if present {
            self.any_text(least, most);
        }
    }

    fn optional_int(&mut self) {
        let present = self.random.one_in(2);
        self.out.push(if present { 2 } else { 0 });
        if present {
            self.any_long(6);
        }
    }

    fn tags(&mut self) {
        let count = self.random.below(5);
        if count > 0 {
            self.long(count as i64);
            (0..count).for_each(|_| self.any_text(3, 9));
        }
        self.out.push(0);
    }

    fn amount(&mut self) {
        let cents = self.random.below(10_000_000_000) as i64 - 1_000_000_000;
        let bytes = cents.to_be_bytes();
        self.long(5);
        self.out.extend_from_slice(&bytes[3..]);
    }
}
