//! insertAll: which rows are stored, what is said of the others, and reading them back.

use http::Method;
use serde_json::{Value, json};

use super::{Subject, message, reason};

pub(super) async fn insert_ids_deduplicate(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    let row = |id: &str, a: &str| json!({"insertId": id, "json": {"a": a}});
    for _ in 0..2 {
        let (status, body) =
            s.insert_body("t", json!({"rows": [row("1", "x"), row("2", "y")]})).await;
        assert_eq!(status, 200);
        assert!(body.get("insertErrors").is_none(), "{body}");
    }
    assert_eq!(s.rows("t").await.len(), 2);
}

pub(super) async fn rows_without_an_insert_id_are_all_stored(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    s.insert("t", &[json!({"a": "z"}), json!({"a": "z"})]).await;
    assert_eq!(s.rows("t").await.len(), 2);
}

pub(super) async fn one_bad_row_stops_all(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "INTEGER"}])).await;
    let body = s.insert("t", &[json!({"a": 1}), json!({"a": "x"}), json!({"a": 2})]).await;
    let mut reasons: Vec<(u64, &str)> = body["insertErrors"]
        .as_array()
        .unwrap_or_else(|| panic!("no insertErrors in {body}"))
        .iter()
        .map(|e| (e["index"].as_u64().unwrap(), e["errors"][0]["reason"].as_str().unwrap()))
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, [(0, "stopped"), (1, "invalid"), (2, "stopped")]);
    assert!(s.rows("t").await.is_empty());
}

pub(super) async fn only_listed_rows_fail_when_skipping(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "INTEGER"}])).await;
    let rows = json!([{"json": {"a": 1}}, {"json": {"a": "x"}}, {"json": {"a": 2}}]);
    let (status, body) = s.insert_body("t", json!({"skipInvalidRows": true, "rows": rows})).await;
    assert_eq!(status, 200, "{body}");
    let errors = body["insertErrors"].as_array().unwrap();
    assert_eq!((errors.len(), &errors[0]["index"]), (1, &json!(1)), "{body}");
    assert_eq!(s.rows("t").await.len(), 2);
}

pub(super) async fn required_columns_are_required(s: &Subject<'_>) {
    s.create("t", required_fields()).await;
    s.refusal("t", json!({"b": "x"})).await;
    s.refusal("t", json!({"a": null})).await;
    assert!(s.rows("t").await.is_empty());
}

fn required_fields() -> Value {
    json!([{"name": "a", "type": "STRING", "mode": "REQUIRED"}, {"name": "b", "type": "STRING"}])
}

pub(super) async fn missing_values_are_named(s: &Subject<'_>) {
    s.create("t", required_fields()).await;
    let missing = s.refusal("t", json!({"b": "x"})).await;
    assert_eq!(missing.1, "Missing required field: a.");
    let null = s.refusal("t", json!({"a": null})).await;
    assert_eq!(null.1, "Only optional fields can be set to NULL. Field: a; Value: NULL");
}

pub(super) async fn unknown_columns_are_refused_at_every_depth(s: &Subject<'_>) {
    let inner = json!([{"name": "x", "type": "STRING"}]);
    s.create(
        "t",
        json!([
            {"name": "a", "type": "STRING"},
            {"name": "r", "type": "RECORD", "fields": inner},
            {"name": "l", "type": "RECORD", "mode": "REPEATED", "fields": inner}
        ]),
    )
    .await;
    for (row, location, field) in [
        (json!({"r": {"y": 1}}), "r.y", "y"),
        (json!({"l": [{"x": "1"}, {"y": 1}]}), "l[1].y", "y"),
    ] {
        let expected = (location.to_owned(), format!("no such field: {field}."));
        assert_eq!(s.refusal("t", row).await, expected);
    }
    assert_eq!(s.refusal("t", json!({"a": "1", "A": "2"})).await.1, "Duplicate field: A.");
    assert!(s.rows("t").await.is_empty());
}

pub(super) async fn unknown_columns_are_refused(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    for value in [json!(1), json!(null)] {
        let refusal = s.refusal("t", json!({"b": value})).await;
        assert_eq!(refusal, ("b".to_owned(), "no such field: b.".to_owned()));
    }
    assert!(s.rows("t").await.is_empty());
}

pub(super) async fn unknown_columns_may_be_ignored(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    let body = json!({"ignoreUnknownValues": true, "rows": [{"json": {"a": "1", "b": 2}}]});
    let (status, body) = s.insert_body("t", body).await;
    assert!(status == 200 && body.get("insertErrors").is_none(), "{body}");
    assert_eq!(s.rows("t").await, [json!({"f": [{"v": "1"}]})]);
}

pub(super) async fn requests_have_limits(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    let large = json!({"rows": [{"json": {"a": "x".repeat(10 << 20)}}]});
    let (status, body) = s.insert_body("t", large).await;
    assert_eq!((status, reason(&body)), (413, "requestTooLarge"));
    assert_eq!(message(&body), "Request payload size exceeds the limit: 10485760 bytes.");
    let rows = |count: usize| json!({"rows": vec![json!({"json": {}}); count]});
    let (status, body) = s.insert_body("t", rows(50_001)).await;
    assert_eq!((status, reason(&body)), (400, "invalid"));
    assert!(message(&body).starts_with("too many rows present in the request, limit: 50000"));
    let (status, body) = s.insert_body("t", rows(0)).await;
    assert_eq!((status, reason(&body)), (400, "invalid"), "{body}");
    let long = json!({"rows": [{"insertId": "i".repeat(129), "json": {}}]});
    assert_eq!(s.insert_body("t", long).await.0, 400);
    assert_eq!(s.insert_body("t", json!("rows")).await.0, 400);
    assert!(s.rows("t").await.is_empty());
    assert_eq!(s.insert_body("t", rows(50_000)).await.0, 200);
}

pub(super) async fn rows_come_in_pages(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "INTEGER"}])).await;
    let rows: Vec<Value> = (0..5).map(|n| json!({"a": n})).collect();
    s.insert("t", &rows).await;
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("{}/data?maxResults=2{token}", s.table_path("t"));
        let (_, body) = s.send(Method::GET, &path, None).await;
        assert_eq!(body["totalRows"], "5");
        found.extend(body["rows"].as_array().unwrap().iter().map(|r| r["f"][0]["v"].clone()));
        match body["pageToken"].as_str() {
            Some(next) => token = format!("&pageToken={next}"),
            None => break,
        }
    }
    assert_eq!(found, [json!("0"), json!("1"), json!("2"), json!("3"), json!("4")]);
}

pub(super) async fn unknown_tables_take_no_rows(s: &Subject<'_>) {
    let (status, body) = s.insert_body("none", json!({"rows": [{"json": {}}]})).await;
    assert_eq!((status, reason(&body)), (404, "notFound"), "{body}");
    assert_eq!(message(&body), format!("Not found: Table {}:{}.none", s.project, s.dataset));
}

pub(super) async fn unknown_datasets_and_tables_without_columns_take_no_rows(s: &Subject<'_>) {
    let path = "/datasets/none/tables/none/insertAll";
    let (_, body) = s.send(Method::POST, path, Some(json!({"rows": [{"json": {}}]}))).await;
    assert_eq!(message(&body), format!("Not found: Dataset {}:none", s.project));
    let (status, _) = s.try_create("no_schema", json!({})).await;
    assert_eq!(status, 200);
    let (status, body) = s.insert_body("no_schema", json!({"rows": [{"json": {}}]})).await;
    assert_eq!((status, message(&body)), (400, "The destination table has no schema."));
}
