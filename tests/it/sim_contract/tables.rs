//! Datasets, tables, and the changes that others must not lose.

use http::{HeaderValue, Method, header};
use kcbq::rest::RestResponse;
use serde_json::{Value, json};

use super::{Subject, json_request, message, parsed, reason};

pub(super) async fn datasets_come_and_go(s: &Subject<'_>) {
    let body = json!({"datasetReference": {"datasetId": "come_and_go"}, "location": "EU"});
    let (status, created) = s.send(Method::POST, "/datasets", Some(body.clone())).await;
    assert_eq!(status, 200, "{created}");
    assert_eq!(s.send(Method::GET, "/datasets/come_and_go", None).await.0, 200);
    let (status, body) = s.send(Method::POST, "/datasets", Some(body)).await;
    assert_eq!((status, reason(&body)), (409, "duplicate"), "{body}");
    let (_, listed) = s.send(Method::GET, "/datasets", None).await;
    let mut ids = listed["datasets"].as_array().unwrap().iter();
    assert!(ids.any(|d| d["datasetReference"]["datasetId"] == "come_and_go"));
    let (status, _) = s.send(Method::DELETE, "/datasets/come_and_go", None).await;
    assert!((200..300).contains(&status), "{status}");
    let (status, body) = s.send(Method::GET, "/datasets/come_and_go", None).await;
    assert_eq!((status, reason(&body)), (404, "notFound"), "{body}");
}

pub(super) async fn tables_come_and_go(s: &Subject<'_>) {
    let (status, body) = s.send(Method::GET, &s.table_path("t"), None).await;
    assert_eq!((status, reason(&body)), (404, "notFound"), "{body}");
    let created = s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    assert_eq!(created["tableReference"]["tableId"], "t");
    assert!(created["creationTime"].as_str().unwrap().parse::<u64>().is_ok());
    assert_eq!(s.get("t").await["schema"]["fields"][0]["name"], "a");
    let (status, body) = s.try_create("t", json!({})).await;
    assert_eq!((status, reason(&body)), (409, "duplicate"), "{body}");
    let path = format!("/datasets/{}/tables", s.dataset);
    let (_, listed) = s.send(Method::GET, &path, None).await;
    assert_eq!(listed["tables"][0]["tableReference"]["tableId"], "t");
    let (status, _) = s.send(Method::DELETE, &s.table_path("t"), None).await;
    assert!((200..300).contains(&status), "{status}");
    assert_eq!(s.send(Method::GET, &s.table_path("t"), None).await.0, 404);
}

/// Changes the description under `If-Match`.
async fn describe(s: &Subject<'_>, etag: &str, description: &str) -> RestResponse {
    let path = format!("/bigquery/v2/projects/{}{}", s.project, s.table_path("t"));
    let body = json!({"description": description});
    let mut request = json_request(Method::PATCH, path, Some(&body));
    request.headers.insert(header::IF_MATCH, HeaderValue::from_str(etag).unwrap());
    s.rest.call(request).await.unwrap()
}

pub(super) async fn etags_guard_changes(s: &Subject<'_>) {
    let created = s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    let etag = s.get("t").await["etag"].as_str().unwrap().to_owned();
    assert_eq!(created["etag"], etag.as_str(), "reading does not change the entity tag");
    assert_eq!(describe(s, &etag, "one").await.status, 200);
    assert_eq!(describe(s, &etag, "two").await.status, 412);
    let current = s.get("t").await;
    assert_eq!(current["description"], "one");
    assert_ne!(current["etag"], etag.as_str());
}

pub(super) async fn lost_updates_have_a_reason(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    let lost = describe(s, "an older one", "x").await;
    assert_eq!((lost.status, reason(&parsed(&lost))), (412, "conditionNotMet"));
}

pub(super) async fn unknown_attributes_survive_an_added_column(s: &Subject<'_>) {
    let document = json!({
        "description": "kept",
        "labels": {"team": "a"},
        "schema": {"fields": [
            {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
            {"name": "amount", "type": "NUMERIC", "precision": "10", "scale": "2"},
            {"name": "state", "type": "STRING", "maxLength": "20", "defaultValueExpression": "'new'"},
            {"name": "secret", "type": "STRING", "policyTags": {"names": ["projects/p/locations/eu/taxonomies/1/policyTags/2"]}},
            {"name": "valid", "type": "RANGE", "rangeElementType": {"type": "DATE"}},
        ]},
        "tableConstraints": {"primaryKey": {"columns": ["id"]}},
        "maxStaleness": "0-0 0 0:15:0",
        "clustering": {"fields": ["id"]},
        "timePartitioning": {"type": "DAY", "expirationMs": "86400000"},
        "someFutureAttribute": {"deep": [1, 2, {"x": null}]},
    });
    let (status, created) = s.try_create("t", document.clone()).await;
    assert_eq!(status, 200, "{created}");
    let before = s.get("t").await;
    for (key, value) in document.as_object().unwrap() {
        assert_eq!(&before[key], value, "{key} as created");
    }
    let mut fields = before["schema"]["fields"].clone();
    fields.as_array_mut().unwrap().push(json!({"name": "added", "type": "STRING"}));
    let (status, body) = s.patch("t", json!({"schema": {"fields": fields}})).await;
    assert_eq!(status, 200, "{body}");
    let mut after = s.get("t").await;
    after["schema"]["fields"].as_array_mut().unwrap().pop();
    for key in ["etag", "lastModifiedTime"] {
        after[key] = before[key].clone();
    }
    assert_eq!(after, before, "nothing but the addition changed");
}

pub(super) async fn table_updates_have_a_quota(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    for n in 0..5 {
        let (status, body) = s.patch("t", json!({"description": n.to_string()})).await;
        assert_eq!(status, 200, "{body}");
    }
    let (status, body) = s.patch("t", json!({"description": "6"})).await;
    assert_eq!((status, reason(&body)), (403, "rateLimitExceeded"), "{body}");
    let words = "Exceeded rate limits: too many table update operations for this table";
    assert!(message(&body).starts_with(words), "{body}");
    assert_eq!(s.get("t").await["description"], "4");
    s.create("other", json!([{"name": "a", "type": "STRING"}])).await;
    assert_eq!(s.patch("other", json!({"description": "1"})).await.0, 200, "per table");
}

pub(super) async fn bad_layouts_are_refused(s: &Subject<'_>) {
    let fields = json!([
        {"name": "d", "type": "DATE"}, {"name": "s", "type": "STRING"},
        {"name": "j", "type": "JSON"}
    ]);
    let with = |layout: Value| {
        let mut document = json!({"schema": {"fields": fields}});
        for (key, value) in layout.as_object().unwrap() {
            document[key] = value.clone();
        }
        document
    };
    for layout in [
        json!({"timePartitioning": {"type": "WEEK"}}),
        json!({"timePartitioning": {"type": "DAY", "field": "missing"}}),
        json!({"timePartitioning": {"type": "DAY", "field": "s"}}),
        json!({"timePartitioning": {"type": "HOUR", "field": "d"}}),
        json!({"clustering": {"fields": ["missing"]}}),
        json!({"clustering": {"fields": ["j"]}}),
    ] {
        let (status, body) = s.try_create("bad", with(layout.clone())).await;
        assert_eq!((status, reason(&body)), (400, "invalid"), "{layout}: {body}");
    }
    let layout = json!({
        "timePartitioning": {"type": "DAY", "field": "d"}, "clustering": {"fields": ["s"]}
    });
    let (status, body) = s.try_create("t", with(layout)).await;
    assert_eq!(status, 200, "{body}");
    let (status, _) = s.patch("t", json!({"timePartitioning": {"type": "HOUR"}})).await;
    assert_eq!(status, 400, "another partitioning");
    let (status, _) = s.patch("t", json!({"timePartitioning": {"expirationMs": "1"}})).await;
    assert_eq!(status, 200, "another expiration");
}
