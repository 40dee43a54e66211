//! The Schema Registry: Confluent's API as far as producers and the service use it.

use http::{HeaderValue, Method, header};
use kcbq::{
    rest::Rest,
    sim::{SimRest, SimSettings, Simulator},
};
use serde_json::{Value, json};

use crate::sim_contract::{json_request, parsed};

fn registry(settings: SimSettings) -> SimRest {
    SimRest(Simulator::with_system_clock(settings))
}

async fn send(rest: &SimRest, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let response = rest.call(json_request(method, path, body.as_ref())).await.unwrap();
    (response.status, parsed(&response))
}

async fn register(rest: &SimRest, subject: &str, schema: &Value) -> (u16, Value) {
    let body = json!({"schema": schema.to_string()});
    send(rest, Method::POST, &format!("/subjects/{subject}/versions"), Some(body)).await
}

fn record(fields: Value) -> Value {
    json!({"type": "record", "name": "R", "fields": fields})
}

#[tokio::test]
async fn one_schema_has_one_id() {
    let rest = registry(SimSettings::default());
    let one = record(json!([{"name": "a", "type": "string"}]));
    assert_eq!(register(&rest, "s-value", &one).await, (200, json!({"id": 1})));
    assert_eq!(register(&rest, "s-value", &one).await, (200, json!({"id": 1})));
    assert_eq!(register(&rest, "other", &one).await, (200, json!({"id": 1})));
    let two = record(
        json!([{"name": "a", "type": "string"}, {"name": "b", "type": "int", "default": 0}]),
    );
    assert_eq!(register(&rest, "s-value", &two).await, (200, json!({"id": 2})));
    let (_, listed) = send(&rest, Method::GET, "/subjects", None).await;
    assert_eq!(listed, json!(["other", "s-value"]));
    let (_, versions) = send(&rest, Method::GET, "/subjects/s-value/versions", None).await;
    assert_eq!(versions, json!([1, 2]));
    let (_, latest) = send(&rest, Method::GET, "/subjects/s-value/versions/latest", None).await;
    assert_eq!(
        latest,
        json!({"subject": "s-value", "version": 2, "id": 2, "schema": two.to_string()})
    );
    let (_, by_id) = send(&rest, Method::GET, "/schemas/ids/1", None).await;
    assert_eq!(by_id, json!({"schema": one.to_string()}));
    let lookup = json!({"schema": one.to_string()});
    let (_, found) = send(&rest, Method::POST, "/subjects/s-value", Some(lookup)).await;
    assert_eq!((&found["version"], &found["id"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn errors_carry_confluents_codes() {
    let rest = registry(SimSettings::default());
    let one = record(json!([{"name": "a", "type": "string"}]));
    register(&rest, "s", &one).await;
    for (path, status, code) in [
        ("/schemas/ids/9", 404, 40403),
        ("/subjects/none/versions", 404, 40401),
        ("/subjects/none/versions/1", 404, 40401),
        ("/subjects/s/versions/2", 404, 40402),
        ("/subjects/s/versions/x", 422, 42202),
        ("/config/s", 404, 40408),
    ] {
        let (got, body) = send(&rest, Method::GET, path, None).await;
        assert_eq!((got, &body["error_code"]), (status, &json!(code)), "{path}");
    }
    for bad in [
        json!("words"),
        json!({"type": "record", "name": "R"}),
        json!({"type": "array"}),
        record(json!([{"name": "a", "type": "Unknown"}])),
        record(json!([{"type": "string"}])),
        record(json!([{"name": "a", "type": "string"}, {"name": "a", "type": "int"}])),
    ] {
        let (status, body) = register(&rest, "s", &bad).await;
        assert_eq!((status, &body["error_code"]), (422, &json!(42201)), "{bad}: {body}");
    }
}

#[tokio::test]
async fn references_are_kept_and_resolved() {
    let rest = registry(SimSettings::default());
    let inner = json!({"type": "record", "name": "Inner", "namespace": "x", "fields": [{"name": "a", "type": "string"}]});
    register(&rest, "inner", &inner).await;
    let outer = record(json!([{"name": "i", "type": "x.Inner"}]));
    let (status, _) = register(&rest, "outer", &outer).await;
    assert_eq!(status, 422, "an unknown name without a reference");
    let references = json!([{"name": "x.Inner", "subject": "inner", "version": 1}]);
    let body = json!({"schema": outer.to_string(), "references": references});
    let (status, answer) = send(&rest, Method::POST, "/subjects/outer/versions", Some(body)).await;
    assert_eq!((status, answer), (200, json!({"id": 2})));
    let (_, by_id) = send(&rest, Method::GET, "/schemas/ids/2", None).await;
    assert_eq!(by_id["references"], references);
    let missing = json!([{"name": "x.Inner", "subject": "inner", "version": 7}]);
    let body = json!({"schema": outer.to_string(), "references": missing});
    let (status, _) = send(&rest, Method::POST, "/subjects/outer/versions", Some(body)).await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn backward_compatibility_is_checked() {
    let rest = registry(SimSettings::default());
    let base =
        record(json!([{"name": "a", "type": "int"}, {"name": "u", "type": ["null", "string"]}]));
    register(&rest, "s", &base).await;
    let field = |name: &str, ty: Value| json!({"name": name, "type": ty});
    let with = |fields: Vec<Value>| record(json!(fields));
    let u = field("u", json!(["null", "string"]));
    for (schema, compatible) in [
        (with(vec![field("a", json!("long")), u.clone()]), true),
        (with(vec![field("a", json!("string")), u.clone()]), false),
        (with(vec![u.clone()]), true),
        (with(vec![field("a", json!("int")), u.clone(), field("b", json!("int"))]), false),
        (with(vec![field("a", json!("int")), field("u", json!("string"))]), false),
        (with(vec![field("a", json!(["null", "int"])), u.clone()]), true),
        (with(vec![json!({"name": "z", "aliases": ["a"], "type": "int"}), u.clone()]), true),
        (with(vec![field("a", json!({"type": "array", "items": "int"})), u]), false),
    ] {
        let path = "/compatibility/subjects/s/versions/latest";
        let body = json!({"schema": schema.to_string()});
        let (_, answer) = send(&rest, Method::POST, path, Some(body)).await;
        assert_eq!(answer["is_compatible"], compatible, "{schema}: {answer}");
    }
    let breaking = with(vec![field("a", json!("string"))]);
    let (status, body) = register(&rest, "s", &breaking).await;
    assert_eq!((status, &body["error_code"]), (409, &json!(409)));
    let none = json!({"compatibility": "NONE"});
    assert_eq!(send(&rest, Method::PUT, "/config/s", Some(none)).await.0, 200);
    assert_eq!(register(&rest, "s", &breaking).await.0, 200);
    let (_, level) = send(&rest, Method::GET, "/config/s", None).await;
    assert_eq!(level, json!({"compatibilityLevel": "NONE"}));
    let (_, level) = send(&rest, Method::GET, "/config", None).await;
    assert_eq!(level, json!({"compatibilityLevel": "BACKWARD"}));
    let bad = json!({"compatibility": "SOMETIMES"});
    assert_eq!(send(&rest, Method::PUT, "/config", Some(bad)).await.0, 422);
}

#[tokio::test]
async fn schemas_can_be_preloaded_under_their_ids() {
    let rest = registry(SimSettings::default());
    let schema = record(json!([{"name": "a", "type": "string"}])).to_string();
    let body = json!([{"id": 8, "subject": "pga.public.orders-value", "schema": schema}, {"id": 7, "schema": "\"string\""}]);
    assert_eq!(send(&rest, Method::POST, "/sim/v1/schemas", Some(body)).await.0, 200);
    let (_, by_id) = send(&rest, Method::GET, "/schemas/ids/8", None).await;
    assert_eq!(by_id["schema"], schema);
    let (_, latest) =
        send(&rest, Method::GET, "/subjects/pga.public.orders-value/versions/latest", None).await;
    assert_eq!((&latest["id"], &latest["version"]), (&json!(8), &json!(1)));
    let (_, next) = register(&rest, "new", &json!("bytes")).await;
    assert_eq!(next, json!({"id": 9}));
}

#[tokio::test]
async fn basic_auth_and_faults() {
    let settings =
        SimSettings { registry_basic_auth: Some("user:pass".into()), ..SimSettings::default() };
    let rest = registry(settings);
    assert_eq!(send(&rest, Method::GET, "/subjects", None).await.0, 401);
    let mut request = json_request(Method::GET, "/subjects", None);
    request.headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic dXNlcjpwYXNz"));
    assert_eq!(rest.call(request.clone()).await.unwrap().status, 200);
    let rule =
        json!({"operation": "registry.*", "times": 1, "fault": {"kind": "refuse", "status": 500}});
    send(&rest, Method::POST, "/sim/v1/faults", Some(json!({"rules": [rule]}))).await;
    let refused = rest.call(request.clone()).await.unwrap();
    assert_eq!((refused.status, &parsed(&refused)["error_code"]), (500, &json!(50001)));
    assert_eq!(rest.call(request).await.unwrap().status, 200);
}
