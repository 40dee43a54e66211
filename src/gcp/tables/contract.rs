//! What a user has put on a table survives a change by this service, shown on the simulator.

use std::time::Duration;

use http::HeaderMap;

use super::*;
use crate::{
    sim::{memory::SimRest, settings::SimSettings, simulator::Simulator},
    table::Column,
};

fn post(path: &str, body: &Value) -> RestRequest {
    RestRequest {
        method: Method::POST,
        path: path.into(),
        headers: HeaderMap::new(),
        body: body.to_string().into(),
    }
}

fn rich_table() -> Value {
    json!({
        "tableReference": {"projectId": "p", "datasetId": "d", "tableId": "t"},
        "description": "hands off",
        "labels": {"team": "x"},
        "tableConstraints": {"primaryKey": {"columns": ["id"]}},
        "clustering": {"fields": ["id"]},
        "schema": {"fields": [
            {"name": "id", "type": "STRING", "mode": "REQUIRED", "maxLength": "20",
             "policyTags": {"names": ["projects/p/locations/eu/taxonomies/1/policyTags/2"]}},
            {"name": "price", "type": "NUMERIC", "mode": "NULLABLE", "precision": "10",
             "scale": "2", "defaultValueExpression": "0", "description": "in euros"},
            {"name": "valid", "type": "RANGE", "mode": "NULLABLE",
             "rangeElementType": {"type": "DATE"}},
            {"name": "who", "type": "RECORD", "mode": "REPEATED", "fields": [
                {"name": "amount", "type": "BIGNUMERIC", "mode": "NULLABLE", "precision": "50",
                 "scale": "20"}]},
        ]},
    })
}

#[tokio::test(start_paused = true)]
async fn a_users_table_survives_added_columns_unchanged_but_for_them() {
    let clock = std::sync::Arc::new(|| Duration::from_secs(1_700_000_000));
    let rest = Arc::new(SimRest(Simulator::new(SimSettings::default(), clock)));
    let dataset = json!({"datasetReference": {"projectId": "p", "datasetId": "d"}});
    let path = "/bigquery/v2/projects/p/datasets";
    assert_eq!(rest.call(post(path, &dataset)).await.unwrap().status, 200);
    let made = rest.call(post(&format!("{path}/d/tables"), &rich_table())).await.unwrap();
    assert_eq!(made.status, 200, "{:?}", made.body);

    let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() };
    let tables = Tables::new(rest);
    let base = tables.describe(&table).await.unwrap().unwrap();
    let add = |parent: &[&str], name: &str| Change::AddColumn {
        parent: parent.iter().map(|name| (*name).to_owned()).collect(),
        column: Column::new(name, ColumnKind::Json),
    };
    let changes = [add(&[], "new"), add(&["who"], "deep")];
    tables.alter(&table, &base, &changes).await.unwrap();
    let after = tables.describe(&table).await.unwrap().unwrap();

    let mut expected = (*base.document).clone();
    let added = |name: &str| json!({"name": name, "type": "JSON", "mode": "NULLABLE"});
    let fields = expected["schema"]["fields"].as_array_mut().unwrap();
    fields[3]["fields"].as_array_mut().unwrap().push(added("deep"));
    fields.push(added("new"));
    let mut found = (*after.document).clone();
    for changes_always in ["etag", "lastModifiedTime"] {
        expected.as_object_mut().unwrap().remove(changes_always);
        found.as_object_mut().unwrap().remove(changes_always);
    }
    assert_eq!(found, expected);
    assert_ne!(after.etag, base.etag);
    // What the user wrote is in there: the simulator has not dropped it on the way in.
    for member in rich_table()["schema"]["fields"][0].as_object().unwrap().keys() {
        assert!(found["schema"]["fields"][0].get(member).is_some(), "{member}");
    }
    assert_eq!(found["tableConstraints"], rich_table()["tableConstraints"]);

    let stale = tables.alter(&table, &base, &[add(&[], "late")]).await.unwrap_err();
    assert_eq!(stale.kind, FaultKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn columns_are_widened_also_inside_a_record() {
    let clock = std::sync::Arc::new(|| Duration::from_secs(1_700_000_000));
    let rest = Arc::new(SimRest(Simulator::new(SimSettings::default(), clock)));
    let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() };
    let tables = Tables::new(rest);
    tables.create_dataset(&table, None).await.unwrap();
    let inner = vec![Column::new("n", ColumnKind::Int64), Column::new("s", ColumnKind::String)];
    let columns = vec![
        Column::new("top", ColumnKind::Int64),
        Column::new("r", ColumnKind::Record(inner)).with_mode(crate::table::Mode::Repeated),
    ];
    let schema = TableSchema { columns };
    let base = tables.create_table(&table, &schema, &TableLayout::default()).await.unwrap();
    let widen = |path: &[&str], to| Change::Widen {
        path: path.iter().map(|name| (*name).to_owned()).collect(),
        to,
    };
    let changes = [widen(&["top"], ColumnKind::Numeric), widen(&["r", "n"], ColumnKind::Float64)];
    let after = tables.alter(&table, &base, &changes).await.unwrap();
    assert_eq!(after.schema.columns[0].kind, ColumnKind::Numeric);
    assert_eq!(after.schema.columns[1].fields()[0].kind, ColumnKind::Float64);
    assert_eq!(after.schema.columns[1].fields()[1].kind, ColumnKind::String);
}
