//! JSON texts where the reader goes another way than a plain one would: another order of keys, other spellings,
//! strings and numbers that end at the border of a chunk.

use proptest::prelude::*;
use serde_json::{json, value::RawValue};

use super::{random::Dice, *};
use crate::{
    table::{Column, ColumnKind, Mode},
    transcode::writer::proto::ProtoRow,
};

/// Keys of one chunk, of just two and of more, and a record.
const MEMBERS: [(&str, &str); 10] = [
    ("id", "12345678901"),
    ("price", "-1234.50"),
    ("a_name_of_13_", "\"text of more than one chunk, and more\""),
    ("a_name_of_14__", "\"a \\\"quoted\\\" \\u00e9\""),
    ("a_name_of_29_characters______", "true"),
    ("a_name_of_30_characters_______", "1.0"),
    ("at", "\"2024-02-29T23:59:59.25Z\""),
    ("é", "\"é\""),
    ("inner", "{\"x\": 1, \"y\":\"two\" }"),
    ("last", "[\"a\",\"\"]"),
];

fn table() -> TableSchema {
    let inner = vec![Column::new("x", ColumnKind::Int64), Column::new("y", ColumnKind::String)];
    let kinds = [
        ColumnKind::Int64,
        ColumnKind::Float64,
        ColumnKind::String,
        ColumnKind::String,
        ColumnKind::Bool,
        ColumnKind::Numeric,
        ColumnKind::Timestamp,
        ColumnKind::String,
        ColumnKind::Record(inner),
        ColumnKind::String,
    ];
    let columns = MEMBERS.iter().zip(kinds).map(|((name, _), kind)| {
        let name = crate::schema::names::json_column_name(name);
        Column::new(&*name, kind)
    });
    let mut columns: Vec<Column> = columns.collect();
    if let Some(last) = columns.last_mut() {
        last.mode = Mode::Repeated;
    }
    TableSchema { columns }
}

/// An object of these members, with white space and escaped keys as the dice say.
fn object(members: &[(&str, &str)], dice: &mut Dice, odd: bool) -> String {
    let mut space = {
        let mut dice = Dice(dice.roll());
        move || match dice.below(8) {
            0 if odd => " \n\t\r ",
            1 if odd => " ",
            _ => "",
        }
    };
    let mut key = |name: &str| -> String {
        let escaped = |character: char| format!("\\u{:04x}", u32::from(character));
        match dice.below(6) {
            0 if odd => name.chars().map(escaped).collect(),
            _ => name.to_owned(),
        }
    };
    let members = members.iter().map(|(name, value)| {
        let (a, b, c, d) = (space(), space(), space(), space());
        format!("{a}\"{}\"{b}:{c}{value}{d}", key(name))
    });
    let members: Vec<String> = members.collect();
    format!("{{{}}}", members.join(","))
}

fn row(plan: &RowPlan<JsonRow>, text: &str) -> Json {
    json_row(plan, &record(Some(text.as_bytes()))).unwrap_or_else(|error| panic!("{error}: {text}"))
}

proptest! {
    #[test]
    fn neither_order_nor_spelling_of_the_keys_matters(
        orders in prop::collection::vec(
            (Just(MEMBERS.to_vec()).prop_shuffle(), 0..=MEMBERS.len(), any::<bool>()), 1..6
        ),
        seed: u64,
    ) {
        // One plan over all, which may learn an order from each.
        let used = plan::<JsonRow>(&bare(ValueSource::Json), &table());
        for (mut members, count, odd) in orders {
            members.truncate(count);
            let actual = row(&used, &object(&members, &mut Dice(seed), odd));
            members.sort_by_key(|(name, _)| MEMBERS.iter().position(|(other, _)| other == name));
            let fresh = plan::<JsonRow>(&bare(ValueSource::Json), &table());
            prop_assert_eq!(actual, row(&fresh, &object(&members, &mut Dice(seed), false)));
        }
    }

    #[test]
    fn a_number_is_read_to_its_last_digit(
        text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", padding in 0..20_usize
    ) {
        let value = |kind, name: &str| {
            let table = TableSchema { columns: vec![Column::new("v", kind)] };
            let text = format!("{{\"v\":{text}{}}}", " ".repeat(padding));
            let row = json_row(&plan(&bare(ValueSource::Json), &table), &record(Some(text.as_bytes())));
            row.ok().map(|mut row| row[name].take())
        };
        prop_assert_eq!(value(ColumnKind::Float64, "v"), Some(json!(text.parse::<f64>().unwrap())));
        prop_assert_eq!(value(ColumnKind::String, "v"), Some(json!(text)));
        if let Ok(whole) = text.parse::<i128>() {
            let expected = i64::try_from(whole).ok().map(|whole| match whole.unsigned_abs() {
                0..=0x1f_ffff_ffff_ffff => json!(whole),
                _ => json!(whole.to_string()),
            });
            prop_assert_eq!(value(ColumnKind::Int64, "v"), expected);
        }
        if !text.contains(['e', 'E']) {
            // The same number, spelled so that no short way is taken.
            let spelled = format!("{text}e0");
            let decimal = crate::transcode::convert::decimal::Decimal::parse;
            prop_assert_eq!(decimal(&text), decimal(&spelled));
        }
    }
}

#[test]
fn a_string_ends_where_it_does_whatever_its_length() {
    let table = TableSchema {
        columns: vec![Column::new("a", ColumnKind::String), Column::new("b", ColumnKind::Int64)],
    };
    let plan = plan::<JsonRow>(&bare(ValueSource::Json), &table);
    for len in 0..70 {
        for (at, odd) in
            (0..len).flat_map(|at| ["\\\"", "\\n", "é", "€", "\\u00e9"].map(|odd| (at, odd)))
        {
            let text = format!("{}{odd}{}", "x".repeat(at), "y".repeat(len - at));
            for end in [",\"b\":1}", "}", ", \"b\" : 1 }          "] {
                let whole = format!("{{\"a\":\"{text}\"{end}");
                let expected: Json = serde_json::from_str(&whole).unwrap();
                assert_eq!(row(&plan, &whole), expected);
            }
        }
    }
}

#[test]
fn a_text_cut_anywhere_is_refused_and_so_is_a_byte_too_many() {
    let whole = object(&MEMBERS, &mut Dice(3), true);
    let (json, proto) = (
        plan::<JsonRow>(&bare(ValueSource::Json), &table()),
        plan::<ProtoRow>(&bare(ValueSource::Json), &table()),
    );
    row(&json, &whole);
    for cut in 0..whole.len() {
        let record = record(whole.as_bytes().get(..cut));
        assert!(json_row(&json, &record).is_err() && encode(&proto, &record).is_err(), "{cut}");
    }
    for at in 0..=whole.len() {
        for byte in [b'"', b'\\', b'{', b']', b',', 0, 0xc3, 0xff] {
            let mut text = whole.as_bytes().to_vec();
            text.insert(at, byte);
            // A byte in a string may be fine; what is taken is JSON to another reader too.
            let is_json = serde_json::from_slice::<&RawValue>(&text).is_ok();
            assert!(is_json || json_row(&json, &record(Some(&text))).is_err(), "{at} {byte}");
        }
    }
}
