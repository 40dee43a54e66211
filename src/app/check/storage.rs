//! The probe of the Storage Write API.

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::GetWriteStreamRequest;
use prost::Message as _;

use crate::{
    app::check::{
        Finding,
        probes::{chain, table_ref},
    },
    config::Settings,
    fault::FaultKind,
    gcp::grpc,
    path::Stream,
    rpc::{Rpc, RpcRequest},
    write::storage::{classify, names},
};

const AREA: &str = "storage";

/// BigQuery says so where it does not tell who may know whether a table is there.
const MAY_NOT_EXIST: &str = "it may not exist";

/// The service answers and takes the credentials, where some topic's rows go by it. What may be written is
/// seen at the tables.
pub(crate) async fn storage(settings: Settings) -> Vec<Finding> {
    let Some(topic) = settings.topics.iter().find(|topic| topic.stream == Stream::Appends) else {
        return Vec::new();
    };
    let rpc = match settings.bigquery.connect_storage() {
        Ok(rpc) => rpc,
        Err(error) => return vec![Finding::problem(AREA, chain(&error))],
    };
    let endpoint = settings.bigquery.storage_endpoint.as_deref().unwrap_or(grpc::ENDPOINT);
    // Its being away is an answer.
    let table = table_ref(&settings, &topic.dataset, "kcbq_check");
    vec![look(&rpc, endpoint, names::default_stream(&table)).await]
}

async fn look(rpc: &dyn Rpc, endpoint: &str, stream: String) -> Finding {
    let routing = format!("name={stream}");
    let message = GetWriteStreamRequest { name: stream, ..GetWriteStreamRequest::default() };
    let message = message.encode_to_vec().into();
    let request =
        RpcRequest { path: format!("{}GetWriteStream", names::SERVICE), routing, message };
    let fault = rpc.call(request).await.err().map(classify::fault_of_end);
    let is_answer = fault.as_ref().is_none_or(|fault| {
        fault.kind == FaultKind::TableNotFound || fault.message.contains(MAY_NOT_EXIST)
    });
    let Some(fault) = fault.filter(|_| !is_answer) else {
        return Finding::ok(AREA, format!("{endpoint} answers"));
    };
    let remedy = match fault.kind {
        FaultKind::Unauthenticated => "check `bigquery.credentials`",
        FaultKind::PermissionDenied => {
            "enable the BigQuery Storage API in the project, and grant roles/bigquery.dataEditor"
        }
        _ => "check `bigquery.storage_endpoint` and the network, or write `write: streaming`",
    };
    Finding::problem(AREA, format!("{endpoint}: {}", fault.what())).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sim::{FaultScript, SimSettings, Simulator, memory::SimRpc};

    async fn line(status: u16, message: &str) -> String {
        let sim = Simulator::with_system_clock(SimSettings::default());
        if status != 200 {
            let fault = json!({"kind": "refuse", "status": status, "message": message});
            let script = json!({"rules": [{"operation": "GetWriteStream", "fault": fault}]});
            let script: FaultScript = serde_json::from_value(script).unwrap();
            sim.with_core(|core, _| core.set_faults(script));
        }
        let stream = "projects/p/datasets/d/tables/t/streams/_default".to_owned();
        look(&SimRpc(sim), "http://here", stream).await.to_string()
    }

    #[tokio::test]
    async fn an_answer_about_a_table_that_is_not_there_is_one() {
        let ok = "ok       storage   http://here answers";
        assert_eq!(line(200, "").await, ok);
        let denied =
            "Permission 'TABLES_UPDATE_DATA' denied on resource 't' (or it may not exist).";
        assert_eq!(line(403, denied).await, ok);
    }

    #[tokio::test]
    async fn each_refusal_has_its_remedy() {
        for (status, message, remedy) in [
            (403, "BigQuery Storage API has not been used in project 1 before", " – enable the"),
            (401, "no", " – check `bigquery.credentials`"),
            (503, "no", " – check `bigquery.storage_endpoint` and"),
        ] {
            let line = line(status, message).await;
            assert!(line.starts_with("PROBLEM  storage   http://here: "), "{line}");
            assert!(line.contains(remedy), "{line}");
        }
    }
}
