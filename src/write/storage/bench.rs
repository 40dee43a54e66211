//! The simulator in memory and in paused time, with tables of one column.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    sim::{FaultScript, SimSettings, Simulator, message::Request},
    table::{Column, ColumnKind, Mode, TableRef, TableSchema},
    write::storage::framing,
};

pub(super) struct Simulated {
    pub(super) simulator: Simulator,
}

pub(super) fn table(name: &str) -> TableRef {
    TableRef { project: "p".into(), dataset: "d".into(), table: name.into() }
}

pub(super) fn columns() -> TableSchema {
    TableSchema { columns: vec![Column::new("n", ColumnKind::Int64).with_mode(Mode::Required)] }
}

/// Framed rows of these numbers.
pub(super) fn rows(numbers: &[i64]) -> Bytes {
    let mut body = Vec::new();
    for number in numbers {
        let start = framing::begin_row(&mut body);
        // −1 stands for a row without its required value.
        if *number != -1 {
            prost::encoding::int64::encode(1, number, &mut body);
        }
        framing::end_row(&mut body, start);
    }
    body.into()
}

impl Simulated {
    pub(super) fn new(settings: SimSettings) -> Self {
        let start = Instant::now();
        let clock = move || Duration::from_secs(1_767_225_600) + start.elapsed();
        Self { simulator: Simulator::new(settings, Arc::new(clock)) }
    }

    async fn send(&self, method: Method, path: &str, body: Value) {
        let path = format!("/projects/p{path}");
        let request = Request::new(method, &path, HeaderMap::new(), body.to_string().into());
        let answer = self.simulator.call(request).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    pub(super) async fn create(&self, tables: &[&str]) {
        let dataset = json!({"datasetReference": {"datasetId": "d"}});
        self.send(Method::POST, "/datasets", dataset).await;
        for table in tables {
            self.create_table(table).await;
        }
    }

    pub(super) async fn create_table(&self, table: &str) {
        let fields = json!([{"name": "n", "type": "INT64", "mode": "REQUIRED"}]);
        let body = json!({"tableReference": {"tableId": table}, "schema": {"fields": fields}});
        self.send(Method::POST, "/datasets/d/tables", body).await;
    }

    /// The table has another column.
    pub(super) async fn add_column(&self, table: &str) {
        let fields = json!([
            {"name": "n", "type": "INT64", "mode": "REQUIRED"},
            {"name": "more", "type": "INT64"},
        ]);
        let path = format!("/datasets/d/tables/{table}");
        self.send(Method::PATCH, &path, json!({"schema": {"fields": fields}})).await;
    }

    pub(super) fn faults(&self, rules: Value) {
        let script: FaultScript =
            serde_json::from_value(json!({"seed": 1, "rules": rules})).unwrap();
        self.simulator.with_core(|core, _| core.set_faults(script));
    }

    pub(super) fn stored(&self, table: &str) -> Vec<i64> {
        self.simulator.with_core(|core, _| {
            let mut tables = core.bigquery().tables();
            let (_, found) = tables.find(|(path, _)| path.table == table).unwrap();
            let number = |row: &Map<String, Value>| row["n"].as_str().unwrap().parse().unwrap();
            found.store.rows().iter().map(number).collect()
        })
    }
}
