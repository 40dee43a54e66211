//! Which values a column takes, and what it makes of them.

use serde_json::{Value, json};

use super::Subject;

pub(super) async fn scalars_survive(s: &Subject<'_>) {
    let cells = [
        ("BOOLEAN", json!(true), "true"),
        ("INTEGER", json!("-9223372036854775808"), "-9223372036854775808"),
        ("FLOAT", json!(0.1), "0.1"),
        (
            "NUMERIC",
            json!("12345678901234567890123456789.123456789"),
            "12345678901234567890123456789.123456789",
        ),
        ("STRING", json!("ü\u{1F600}\"\\"), "ü\u{1F600}\"\\"),
        ("BYTES", json!("AP8="), "AP8="),
        ("DATE", json!("0001-01-01"), "0001-01-01"),
        ("TIME", json!("23:59:59.999999"), "23:59:59.999999"),
        ("DATETIME", json!("2024-02-29T01:02:03.000004"), "2024-02-29T01:02:03.000004"),
        ("TIMESTAMP", json!("1969-12-31T23:59:59.999999Z"), "-1"),
    ];
    let fields: Vec<Value> =
        cells.iter().map(|(ty, ..)| json!({"name": format!("c_{ty}"), "type": ty})).collect();
    s.create("t", json!(fields)).await;
    let row: serde_json::Map<String, Value> =
        cells.iter().map(|(ty, value, _)| (format!("c_{ty}"), value.clone())).collect();
    let answer = s.insert("t", &[Value::Object(row)]).await;
    assert!(answer.get("insertErrors").is_none(), "{answer}");
    let rows = s.rows("t").await;
    for ((ty, _, expected), cell) in cells.iter().zip(rows[0]["f"].as_array().unwrap()) {
        assert_eq!(cell["v"], *expected, "{ty}");
    }
}

fn typed_fields() -> Value {
    let field = |name: &str, ty: &str| json!({"name": name, "type": ty});
    json!([
        field("i", "INT64"), field("f", "FLOAT64"), field("b", "BOOL"), field("s", "STRING"),
        field("y", "BYTES"), field("d", "DATE"), field("t", "TIME"), field("dt", "DATETIME"),
        field("ts", "TIMESTAMP"), field("n", "NUMERIC"), field("bn", "BIGNUMERIC"),
        field("j", "JSON"),
        {"name": "np", "type": "NUMERIC", "precision": "5", "scale": "2"},
        {"name": "s3", "type": "STRING", "maxLength": "3"},
        {"name": "r", "type": "RECORD", "fields": [field("x", "STRING")]},
        {"name": "l", "type": "INT64", "mode": "REPEATED"},
    ])
}

/// Values that are refused in other words than BigQuery's.
pub(super) async fn plainly_wrong_values_are_refused(s: &Subject<'_>) {
    s.create("t", typed_fields()).await;
    for (column, value) in [
        ("i", json!("x")),
        ("i", json!("9223372036854775808")),
        ("f", json!("x")),
        ("b", json!("x")),
        ("d", json!("2023-02-29")),
        ("t", json!("24:00:01")),
        ("t", json!("x")),
        ("dt", json!("2024-13-01T00:00:00")),
        ("ts", json!("x")),
        ("ts", json!("2024-01-01T25:00:00Z")),
        ("n", json!("x")),
        ("bn", json!("9".repeat(40))),
    ] {
        s.refusal("t", json!({column: value})).await;
    }
    assert!(s.rows("t").await.is_empty());
}

async fn refuse_each(s: &Subject<'_>, cases: &[(&str, Vec<Value>, &str)]) {
    s.create("t", typed_fields()).await;
    for (column, values, words) in cases {
        for value in values {
            let (location, message) = s.refusal("t", json!({*column: value})).await;
            assert!(location.starts_with(column), "{column}: {location}");
            assert!(message.contains(words), "{column} = {value}: {message}");
        }
    }
    assert!(s.rows("t").await.is_empty());
}

pub(super) async fn wrong_values_are_refused(s: &Subject<'_>) {
    let cases = [
        (
            "i",
            vec![
                json!("x"),
                json!(1.5),
                json!(true),
                json!("1.0"),
                json!(1e19),
                json!("9223372036854775808"),
            ],
            "Could not convert value to integer",
        ),
        (
            "f",
            vec![json!("x"), json!(true), json!(""), json!("1e999")],
            "Could not convert value to float",
        ),
        ("b", vec![json!("x"), json!(1)], "Could not convert value to boolean"),
        ("s", vec![json!({"x": 1})], "This field: s is not a record."),
        ("s", vec![json!(["x"])], "Array specified for non-repeated field: s."),
        ("s3", vec![json!("abcd")], "STRING value is too long"),
        ("y", vec![json!("*"), json!(1), json!("A")], "Could not decode base64 string"),
        (
            "d",
            vec![
                json!("2023-02-29"),
                json!("0000-01-01"),
                json!("10000-01-01"),
                json!("20230101"),
                json!(5),
            ],
            "Invalid date",
        ),
        (
            "t",
            vec![json!("24:00:00"), json!("1:60:00"), json!("x"), json!("00:00:00.1234567")],
            "Invalid time",
        ),
        (
            "dt",
            vec![json!("2024-01-01T00:00:00Z"), json!("x"), json!("2024-13-01T00:00:00")],
            "Invalid datetime",
        ),
    ];
    refuse_each(s, &cases).await;
}

pub(super) async fn values_out_of_bounds_are_refused(s: &Subject<'_>) {
    let nines = "9".repeat(30);
    let cases = [
        ("ts", vec![json!("x"), json!("2024-01-01T25:00:00Z"), json!(true)], "Invalid timestamp"),
        (
            "ts",
            vec![json!(1_700_000_000_000_u64), json!("1700000000000000")],
            "Timestamp field value is out of range",
        ),
        ("n", vec![json!(nines), json!("0.1234567891"), json!("x"), json!("NaN")], "NUMERIC value"),
        (
            "bn",
            vec![json!(format!("0.{}", "1".repeat(39))), json!("9".repeat(40))],
            "BIGNUMERIC value",
        ),
        ("np", vec![json!("1234"), json!("1.234")], "NUMERIC value"),
        ("j", vec![json!("{"), json!("abc")], "Invalid JSON value"),
        ("j", vec![json!({"a": 1})], "This field: j is not a record."),
        ("r", vec![json!("x"), json!(1)], "This field: r is a record."),
        (
            "l",
            vec![json!(1), json!("1"), json!({"v": 1})],
            "Repeated field must be imported as a JSON array",
        ),
        ("l", vec![json!([1, null])], "Only optional fields can be set to NULL"),
        ("l", vec![json!(null)], "Only optional fields can be set to NULL"),
        ("l", vec![json!([[1]])], "Array specified for non-repeated field"),
    ];
    refuse_each(s, &cases).await;
}

pub(super) async fn right_values_are_taken(s: &Subject<'_>) {
    let cases = [
        ("i", json!(7), "7"),
        ("i", json!("-7"), "-7"),
        ("i", json!(7.0), "7"),
        ("f", json!(1), "1.0"),
        ("f", json!("-1.5e3"), "-1500.0"),
        ("f", json!("NaN"), "NaN"),
        ("f", json!("-Infinity"), "-Infinity"),
        ("b", json!("TRUE"), "true"),
        ("s", json!(1.5), "1.5"),
        ("s3", json!("äöü"), "äöü"),
        ("y", json!(""), ""),
        ("d", json!("2024-2-9"), "2024-02-09"),
        ("t", json!("1:2:3.5"), "01:02:03.500000"),
        ("dt", json!("2024-01-01 00:00:00"), "2024-01-01T00:00:00"),
        ("ts", json!("2024-01-01 00:00:00.5+01:00"), "1704063600500000"),
        ("ts", json!("9999-12-31T23:59:59.999999Z"), "253402300799999999"),
        ("n", json!("-0.000000001"), "-0.000000001"),
        ("n", json!(1.5), "1.5"),
        ("np", json!("999.99"), "999.99"),
    ];
    store_each(s, &cases).await;
}

pub(super) async fn wide_decimals_numeric_timestamps_and_json_are_taken(s: &Subject<'_>) {
    let wide = format!("{}.{}", "5".repeat(38), "1".repeat(38));
    let cases = [
        ("bn", json!(wide), wide.as_str()),
        ("ts", json!(1.5), "1500000"),
        ("j", json!("{\"b\": 1, \"a\": [null]}"), "{\"a\":[null],\"b\":1}"),
    ];
    store_each(s, &cases).await;
}

async fn store_each(s: &Subject<'_>, cases: &[(&str, Value, &str)]) {
    s.create("t", typed_fields()).await;
    for (at, (column, value, expected)) in cases.iter().enumerate() {
        let row = json!({"insertId": at.to_string(), "json": {*column: value}});
        let (_, body) = s.insert_body("t", json!({"rows": [row]})).await;
        assert!(body.get("insertErrors").is_none(), "{column} = {value}: {body}");
        let names = s.get("t").await["schema"]["fields"].clone();
        let names = names.as_array().unwrap();
        let index = names.iter().position(|field| field["name"] == *column).unwrap();
        let rows = s.rows("t").await;
        assert_eq!(rows[at]["f"][index]["v"], *expected, "{column} = {value}");
    }
}

pub(super) async fn nested_and_repeated_cells_survive(s: &Subject<'_>) {
    s.create(
        "t",
        json!([
            {"name": "r", "type": "RECORD", "fields": [
                {"name": "x", "type": "STRING"},
                {"name": "l", "type": "INTEGER", "mode": "REPEATED"}
            ]},
            {"name": "m", "type": "RECORD", "mode": "REPEATED", "fields": [
                {"name": "key", "type": "STRING", "mode": "REQUIRED"},
                {"name": "value", "type": "FLOAT"}
            ]}
        ]),
    )
    .await;
    let row = json!({"r": {"l": [1, 2]}, "m": [{"value": 1.5, "key": "k"}, {"key": "n"}]});
    let answer = s.insert("t", &[row, json!({"m": []}), json!({})]).await;
    assert!(answer.get("insertErrors").is_none(), "{answer}");
    let v = |value: Value| json!({"v": value});
    let f = |cells: Vec<Value>| json!({"f": cells});
    let expected = f(vec![
        v(f(vec![v(Value::Null), v(json!([v(json!("1")), v(json!("2"))]))])),
        v(json!([
            v(f(vec![v(json!("k")), v(json!("1.5"))])),
            v(f(vec![v(json!("n")), v(Value::Null)])),
        ])),
    ]);
    let empty = f(vec![v(Value::Null), v(json!([]))]);
    assert_eq!(s.rows("t").await, [expected, empty.clone(), empty]);
}

pub(super) async fn required_columns_are_required_inside_records(s: &Subject<'_>) {
    let inner = json!([{"name": "key", "type": "STRING", "mode": "REQUIRED"},
        {"name": "value", "type": "FLOAT"}]);
    s.create("t", json!([{"name": "m", "type": "RECORD", "mode": "REPEATED", "fields": inner}]))
        .await;
    let (location, _) = s.refusal("t", json!({"m": [{"value": 1}]})).await;
    assert_eq!(location, "m[0].key");
}
