//! The gate over the simulator, in paused time.

mod race;
mod scenes;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::{
    gcp::tables::Tables,
    rest::{Rest, RestError, RestRequest, RestResponse},
    sim::{memory::SimRest, settings::SimSettings, simulator::Simulator},
    table::ColumnKind,
};

/// A network between a replica and the simulator: each way takes 20 to 150 ms.
struct Wire {
    sim: SimRest,
    jitter: Jitter,
}

impl Rest for Wire {
    fn call(&self, request: RestRequest) -> BoxFuture<'_, Result<RestResponse, RestError>> {
        Box::pin(async move {
            self.way().await;
            let answer = self.sim.call(request).await;
            self.way().await;
            answer
        })
    }
}

impl Wire {
    async fn way(&self) {
        let way = Duration::from_millis(20) + self.jitter.up_to(Duration::from_millis(130));
        tokio::time::sleep(way).await;
    }
}

/// A simulator whose clock is tokio's, begun in November 2023.
fn simulator(settings: SimSettings) -> Simulator {
    let start = Instant::now();
    let epoch = Duration::from_secs(1_700_000_000);
    Simulator::new(settings, Arc::new(move || epoch + start.elapsed()))
}

fn wire(sim: &Simulator, seed: u64) -> Arc<dyn Rest> {
    Arc::new(Wire { sim: SimRest(sim.clone()), jitter: Jitter::seeded(seed) })
}

fn gate_over(rest: Arc<dyn Rest>, seed: u64, on_event: OnGateEvent) -> Arc<SchemaGate> {
    Arc::new(SchemaGate::new(Shared {
        catalog: Arc::new(Tables::new(rest)),
        settings: GateSettings::default(),
        location: Some("EU".into()),
        jitter: Jitter::seeded(seed),
        on_event,
    }))
}

fn gate(sim: &Simulator, seed: u64) -> Arc<SchemaGate> {
    gate_over(wire(sim, seed + 1_000_003), seed, Arc::new(|_, _| {}))
}

fn table() -> TableRef {
    TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() }
}

fn column(name: &str) -> Column {
    Column::new(name, ColumnKind::String)
}

fn allow() -> Policy {
    Policy::default()
}

fn post(path: &str, body: &serde_json::Value) -> RestRequest {
    RestRequest {
        method: http::Method::POST,
        path: path.into(),
        headers: http::HeaderMap::default(),
        body: body.to_string().into(),
    }
}

/// A table with one column, made without the gate.
async fn make_table(sim: &Simulator, fields: serde_json::Value) {
    let rest = SimRest(sim.clone());
    let dataset = json!({"datasetReference": {"projectId": "p", "datasetId": "d"}});
    let path = "/bigquery/v2/projects/p/datasets";
    let answer = rest.call(post(path, &dataset)).await.unwrap();
    assert!(answer.status < 300, "{answer:?}");
    let table = json!({
        "tableReference": {"projectId": "p", "datasetId": "d", "tableId": "t"},
        "schema": {"fields": fields},
    });
    let answer = rest.call(post(&format!("{path}/d/tables"), &table)).await.unwrap();
    assert!(answer.status < 300, "{answer:?}");
}
