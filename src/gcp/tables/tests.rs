use std::{collections::VecDeque, sync::Mutex};

use bytes::Bytes;
use http::HeaderMap;

use super::*;
use crate::{rest::RestError, table::Column};

/// Answers from a list and keeps what it was asked.
#[derive(Default)]
struct Canned {
    answers: Mutex<VecDeque<(u16, Value)>>,
    asked: Mutex<Vec<RestRequest>>,
}

impl Rest for Canned {
    fn call(&self, request: RestRequest) -> BoxFuture<'_, Result<RestResponse, RestError>> {
        self.asked.lock().unwrap().push(request);
        let (status, body) = self.answers.lock().unwrap().pop_front().expect("an unexpected call");
        let body = Bytes::from(body.to_string());
        Box::pin(async move { Ok(RestResponse { status, headers: HeaderMap::new(), body }) })
    }
}

impl Canned {
    fn asked(&self) -> Vec<(String, Value)> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .map(|r| {
                let body = serde_json::from_slice(&r.body.clone().into_bytes()).unwrap_or_default();
                (format!("{} {}", r.method, r.path), body)
            })
            .collect()
    }
}

fn table() -> TableRef {
    TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() }
}

fn over(answers: Vec<(u16, Value)>) -> (Arc<Canned>, Tables) {
    let rest = Arc::new(Canned { answers: Mutex::new(answers.into()), ..Canned::default() });
    (Arc::clone(&rest), Tables::new(rest))
}

fn error(status: u16, reason: &str) -> (u16, Value) {
    (status, json!({"error": {"code": status, "errors": [{"reason": reason, "message": "m"}]}}))
}

fn resource(etag: &str, kind: &str) -> Value {
    json!({"etag": etag, "creationTime": "5", "location": "EU", "schema": {"fields": [
        {"name": "a", "type": kind, "policyTags": {"names": ["x"]}}]}})
}

const TABLE_PATH: &str = "/bigquery/v2/projects/p/datasets/d/tables/t";

#[tokio::test]
async fn a_missing_table_is_none_and_a_refusal_is_not() {
    let (_, tables) = over(vec![error(404, "notFound"), error(403, "accessDenied")]);
    assert!(tables.describe(&table()).await.unwrap().is_none());
    assert_eq!(tables.describe(&table()).await.unwrap_err().kind, FaultKind::PermissionDenied);
}

#[tokio::test]
async fn a_change_sends_only_the_fields_and_names_its_version() {
    let (rest, tables) =
        over(vec![(200, resource("e1", "INTEGER")), (200, resource("e2", "INTEGER"))]);
    let base = tables.describe(&table()).await.unwrap().unwrap();
    let change = Change::AddColumn { parent: vec![], column: Column::new("b", ColumnKind::Bool) };
    let after = tables.alter(&table(), &base, &[change]).await.unwrap();
    assert_eq!(after.etag.as_ref(), "e2");
    let (call, body) = rest.asked().remove(1);
    assert_eq!(call, format!("PATCH {TABLE_PATH}"));
    assert_eq!(rest.asked.lock().unwrap()[1].headers[IF_MATCH], "e1");
    let expected = json!({"schema": {"fields": [
        {"name": "a", "type": "INTEGER", "policyTags": {"names": ["x"]}},
        {"name": "b", "type": "BOOLEAN", "mode": "NULLABLE"}]}});
    assert_eq!(body, expected);
}

#[tokio::test]
async fn policy_tags_that_may_not_be_named_are_left_out() {
    let (rest, tables) = over(vec![
        (200, resource("e1", "INTEGER")),
        error(403, "accessDenied"),
        (200, resource("e2", "INTEGER")),
    ]);
    let base = tables.describe(&table()).await.unwrap().unwrap();
    let change = Change::Relax { path: vec!["a".into()] };
    tables.alter(&table(), &base, &[change]).await.unwrap();
    let (_, body) = rest.asked().remove(2);
    assert_eq!(
        body["schema"]["fields"],
        json!([{"name": "a", "type": "INTEGER", "mode": "NULLABLE"}])
    );
}

#[tokio::test]
async fn widening_is_a_statement_in_the_tables_location() {
    let (rest, tables) = over(vec![
        (200, resource("e1", "INTEGER")),
        (200, resource("e1", "INTEGER")),
        (200, json!({"jobComplete": true})),
        (200, resource("e2", "NUMERIC")),
    ]);
    let base = tables.describe(&table()).await.unwrap().unwrap();
    let change = Change::Widen { path: vec!["a".into()], to: ColumnKind::Numeric };
    let after = tables.alter(&table(), &base, &[change]).await.unwrap();
    assert_eq!(after.schema.column("a").unwrap().kind, ColumnKind::Numeric);
    let (call, body) = rest.asked().remove(2);
    assert_eq!(call, "POST /bigquery/v2/projects/p/queries");
    assert_eq!(body["query"], "ALTER TABLE `p.d.t` ALTER COLUMN `a` SET DATA TYPE NUMERIC");
    assert_eq!((&body["location"], &body["useLegacySql"]), (&json!("EU"), &json!(false)));
}

#[tokio::test]
async fn widening_a_table_that_has_changed_is_a_conflict() {
    let (_, tables) =
        over(vec![(200, resource("e1", "INTEGER")), (200, resource("e9", "INTEGER"))]);
    let base = tables.describe(&table()).await.unwrap().unwrap();
    let change = Change::Widen { path: vec!["a".into()], to: ColumnKind::Numeric };
    assert_eq!(
        tables.alter(&table(), &base, &[change]).await.unwrap_err().kind,
        FaultKind::Conflict
    );
}

#[tokio::test]
async fn datasets_are_created_where_they_are_wanted() {
    let (rest, tables) = over(vec![(200, json!({})), error(409, "duplicate")]);
    tables.create_dataset(&table(), Some("EU")).await.unwrap();
    let again = tables.create_dataset(&table(), None).await.unwrap_err();
    assert_eq!(again.kind, FaultKind::AlreadyExists);
    let (call, body) = rest.asked().remove(0);
    assert_eq!(call, "POST /bigquery/v2/projects/p/datasets");
    assert_eq!(body["location"], "EU");
}
