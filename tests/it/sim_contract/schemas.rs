//! What may become of a table's columns.

use http::Method;
use serde_json::{Value, json};

use super::{Subject, message, reason};

pub(super) async fn added_columns_take_rows(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    s.insert("t", &[json!({"a": "1"})]).await;
    let fields = json!([{"name": "a", "type": "STRING"}, {"name": "b", "type": "INTEGER"}]);
    let (status, body) = s.patch("t", json!({"schema": {"fields": fields}})).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["schema"]["fields"][1]["name"], "b");
    let answer = s.insert("t", &[json!({"a": "2", "b": 7})]).await;
    assert!(answer.get("insertErrors").is_none(), "{answer}");
    let mut rows: Vec<String> = s.rows("t").await.iter().map(|row| row["f"].to_string()).collect();
    rows.sort();
    assert_eq!(rows, [r#"[{"v":"1"},{"v":null}]"#, r#"[{"v":"2"},{"v":"7"}]"#]);
}

fn base_fields() -> Value {
    json!([
        {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
        {"name": "n", "type": "INTEGER"},
        {"name": "s", "type": "STRING", "maxLength": "10"},
        {"name": "d", "type": "NUMERIC", "precision": "10", "scale": "2"},
        {"name": "r", "type": "RECORD", "fields": [{"name": "x", "type": "STRING"}]},
        {"name": "l", "type": "STRING", "mode": "REPEATED"},
    ])
}

/// `base_fields` with one field (by its index path) changed by `change`.
fn changed(change: impl FnOnce(&mut Vec<Value>)) -> Value {
    let mut fields = base_fields();
    change(fields.as_array_mut().unwrap());
    fields
}

pub(super) async fn illegal_changes_are_refused(s: &Subject<'_>) {
    s.create("t", base_fields()).await;
    let set =
        |at: usize, key: &'static str, value: Value| changed(move |fields| fields[at][key] = value);
    let cases = [
        (changed(|fields| drop(fields.remove(1))), "Field n is missing in new schema"),
        (set(1, "name", json!("renamed")), "Field n is missing in new schema"),
        (set(1, "name", json!("N")), "Field n has changed its name to N"),
        (set(1, "type", json!("STRING")), "Field n has changed type from INTEGER to STRING"),
        (set(1, "type", json!("FLOAT")), "Field n has changed type from INTEGER to FLOAT"),
        (set(1, "mode", json!("REQUIRED")), "Field n has changed mode from NULLABLE to REQUIRED"),
        (set(1, "mode", json!("REPEATED")), "Field n has changed mode from NULLABLE to REPEATED"),
        (set(5, "mode", json!("NULLABLE")), "Field l has changed mode from REPEATED to NULLABLE"),
        (set(2, "maxLength", json!("5")), "Field s has incompatible type parameters"),
        (set(3, "precision", json!("5")), "Field d has incompatible type parameters"),
        (set(3, "scale", json!("5")), "Field d has incompatible type parameters"),
        (
            set(4, "fields", json!([{"name": "y", "type": "STRING"}])),
            "Field r.x is missing in new schema",
        ),
        (
            set(4, "fields", json!([{"name": "x", "type": "INTEGER"}])),
            "Field r.x has changed type from STRING to INTEGER",
        ),
        (
            changed(|fields| {
                fields.push(json!({"name": "new", "type": "STRING", "mode": "REQUIRED"}));
            }),
            "Cannot add required fields to an existing schema. (field: new)",
        ),
        (
            changed(|fields| {
                let inner = fields[4]["fields"].as_array_mut().unwrap();
                inner.push(json!({"name": "new", "type": "STRING", "mode": "REQUIRED"}));
            }),
            "Cannot add required fields to an existing schema. (field: r.new)",
        ),
    ];
    let before = s.get("t").await;
    for (fields, expected) in cases {
        let (status, body) = s.patch("t", json!({"schema": {"fields": fields}})).await;
        assert_eq!((status, reason(&body)), (400, "invalid"), "{expected}: {body}");
        let whole = format!(
            "Provided Schema does not match Table {}:{}.t. {expected}",
            s.project, s.dataset
        );
        assert_eq!(message(&body), whole);
    }
    let (status, body) =
        s.send(Method::PUT, &s.table_path("t"), Some(json!({"description": "x"}))).await;
    assert_eq!(status, 400, "an update without the schema drops every column: {body}");
    assert_eq!(s.get("t").await, before, "a refused change changes nothing");
}

pub(super) async fn legal_changes_are_taken(s: &Subject<'_>) {
    s.create("t", base_fields()).await;
    let all_at_once = changed(|fields| {
        fields[0]["mode"] = json!("NULLABLE");
        fields[2].as_object_mut().unwrap().remove("maxLength");
        fields[3]["precision"] = json!("12");
        fields[4]["description"] = json!("a record");
        let inner = fields[4]["fields"].as_array_mut().unwrap();
        inner.push(json!({"name": "y", "type": "INTEGER"}));
        let required = json!([{"name": "z", "type": "DATE", "mode": "REQUIRED"}]);
        fields.push(json!({"name": "new", "type": "STRUCT", "fields": required}));
        fields.push(json!({"name": "many", "type": "INT64", "mode": "REPEATED"}));
    });
    let (status, body) = s.patch("t", json!({"schema": {"fields": all_at_once}})).await;
    assert_eq!(status, 200, "{body}");
    let fields = &s.get("t").await["schema"]["fields"];
    assert_eq!((&fields[6]["type"], &fields[7]["type"]), (&json!("RECORD"), &json!("INTEGER")));
    let answer = s.insert("t", &[json!({"r": {"y": 1}, "new": {"z": "2024-01-01"}})]).await;
    assert!(answer.get("insertErrors").is_none(), "{answer}");
    let (status, body) = s.patch("t", json!({"labels": {"a": "b"}})).await;
    assert_eq!((status, &body["labels"]["a"]), (200, &json!("b")));
    let (_, body) = s.patch("t", json!({"labels": {"a": null, "c": "d"}})).await;
    assert_eq!(body["labels"], json!({"c": "d"}), "null removes a label");
}

pub(super) async fn bad_schemas_are_refused(s: &Subject<'_>) {
    let field = |name: &str| json!({"name": name, "type": "STRING"});
    let nested = |levels: usize| {
        (0..levels).fold(field("leaf"), |inner, level| {
            json!({"name": format!("r{level}"), "type": "RECORD", "fields": [inner]})
        })
    };
    let many: Vec<Value> = (0..10_001).map(|n| field(&format!("c{n}"))).collect();
    let bad = [
        json!([field("1a")]),
        json!([field("a-b")]),
        json!([field("a b")]),
        json!([field("")]),
        json!([field(&"x".repeat(301))]),
        json!([field("_table_x")]),
        json!([field("_FILE_x")]),
        json!([field("_PARTITIONTIME")]),
        json!([field("_change_type")]),
        json!([field("__ROOT__x")]),
        json!([field("a"), field("A")]),
        json!([{"name": "a", "type": "WORD"}]),
        json!([{"name": "a"}]),
        json!([{"name": "a", "type": "STRING", "mode": "SOMETIMES"}]),
        json!([{"name": "a", "type": "RECORD"}]),
        json!([{"name": "a", "type": "RECORD", "fields": []}]),
        json!([{"name": "a", "type": "RECORD", "fields": [field("x"), field("X")]}]),
        json!([nested(16)]),
        json!(many),
    ];
    for (at, fields) in bad.iter().enumerate() {
        let (status, body) = s.try_create("bad", json!({"schema": {"fields": fields}})).await;
        assert_eq!((status, reason(&body)), (400, "invalid"), "case {at}: {body}");
    }
    let (status, body) = s.try_create("a/b", json!({})).await;
    assert_eq!(status, 400, "{body}");
    s.create("deepest", json!([nested(15)])).await;
    s.create("widest", json!(many[..10_000])).await;
    s.create("longest", json!([field(&"x".repeat(300)), field("_kafka_topic")])).await;
}

pub(super) async fn types_widen_by_ddl_only(s: &Subject<'_>) {
    for (n, (from, to, allowed)) in [
        ("INT64", "NUMERIC", true),
        ("INT64", "BIGNUMERIC", true),
        ("INT64", "FLOAT64", true),
        ("NUMERIC", "BIGNUMERIC", true),
        ("NUMERIC", "FLOAT64", true),
        ("BIGNUMERIC", "FLOAT64", false),
        ("FLOAT64", "NUMERIC", false),
        ("INT64", "STRING", false),
        ("DATE", "TIMESTAMP", false),
        ("NUMERIC", "INT64", false),
        ("INT64", "NUMERIC(10, 2)", false),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("t{n}");
        s.create(&table, json!([{"name": "c", "type": from, "description": "kept"}])).await;
        let sql = format!(
            "ALTER TABLE `{}.{}.{table}` ALTER COLUMN c SET DATA TYPE {to}",
            s.project, s.dataset
        );
        let (status, body) = s.query(&sql).await;
        assert_eq!(status == 200, allowed, "{from} to {to}: {body}");
        let field = s.get(&table).await["schema"]["fields"][0].clone();
        assert_eq!(field["description"], "kept");
        if allowed {
            assert_eq!(body["jobComplete"], true);
            assert_ne!(field["type"], from);
        } else {
            assert_eq!(status, 400);
        }
    }
    let inner = json!([{"name": "x", "type": "INTEGER", "description": "deep"}]);
    s.create(
        "nested",
        json!([{"name": "r", "type": "RECORD", "mode": "REPEATED", "fields": inner}]),
    )
    .await;
    let sql = format!(
        "ALTER TABLE {}.nested ALTER COLUMN r SET DATA TYPE ARRAY<STRUCT<x NUMERIC>>",
        s.dataset
    );
    assert_eq!(s.query(&sql).await.0, 200);
    let field = s.get("nested").await["schema"]["fields"][0]["fields"][0].clone();
    assert_eq!((&field["type"], &field["description"]), (&json!("NUMERIC"), &json!("deep")));
}

pub(super) async fn other_queries_are_refused(s: &Subject<'_>) {
    let (status, body) = s.query("SELECT 1").await;
    assert_eq!((status, reason(&body)), (400, "invalidQuery"), "{body}");
    let sql = format!("ALTER TABLE {}.none ALTER COLUMN c SET DATA TYPE FLOAT64", s.dataset);
    let (status, body) = s.query(&sql).await;
    assert_eq!((status, reason(&body)), (404, "notFound"), "{body}");
    let (status, _) = s.send(Method::POST, "/queries", Some(json!({"query": sql}))).await;
    assert_eq!(status, 400, "legacy SQL is the default");
}
