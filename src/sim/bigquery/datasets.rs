//! `datasets.*`: get, insert, list, delete.

use std::time::Duration;

use serde_json::{Value, json};

use crate::sim::{
    bigquery::{BigQuery, Dataset, error::ApiError, names, server_fields},
    message::{Request, Response},
};

impl BigQuery {
    pub(crate) fn get_dataset(&self, project: &str, dataset: &str) -> Result<Response, ApiError> {
        let found = self.dataset(project, dataset)?;
        Ok(Response::json(200, &found.document))
    }

    pub(crate) fn insert_dataset(
        &mut self,
        project: &str,
        request: &Request,
        now: Duration,
    ) -> Result<Response, ApiError> {
        let mut document = server_fields::body_object(request)?;
        let id = document
            .get("datasetReference")
            .and_then(|reference| reference.get("datasetId"))
            .and_then(Value::as_str)
            .ok_or_else(|| ApiError::invalid("Dataset reference is missing"))?
            .to_owned();
        names::check_dataset(&id)?;
        let key = (project.to_owned(), id.clone());
        if self.datasets.contains_key(&key) {
            return Err(ApiError::duplicate(&format!("Dataset {project}:{id}")));
        }
        let etag = self.next_etag();
        server_fields::complete_dataset(&mut document, project, &id, &etag, now);
        let document = Value::Object(document);
        let response = Response::json(200, &document);
        self.datasets.insert(key, Dataset { document, tables: Default::default() });
        Ok(response)
    }

    pub(crate) fn list_datasets(&self, project: &str) -> Response {
        let datasets: Vec<Value> = self
            .datasets
            .iter()
            .filter(|((owner, _), _)| owner == project)
            .map(|((_, id), dataset)| {
                json!({
                    "kind": "bigquery#dataset",
                    "id": format!("{project}:{id}"),
                    "datasetReference": {"projectId": project, "datasetId": id},
                    "location": dataset.document.get("location"),
                })
            })
            .collect();
        Response::json(200, &json!({"kind": "bigquery#datasetList", "datasets": datasets}))
    }

    pub(crate) fn delete_dataset(
        &mut self,
        project: &str,
        dataset: &str,
        request: &Request,
    ) -> Result<Response, ApiError> {
        let with_tables = request.parameter("deleteContents").as_deref() == Some("true");
        if !self.dataset(project, dataset)?.tables.is_empty() && !with_tables {
            return Err(ApiError::new(
                400,
                "resourceInUse",
                format!("Dataset {project}:{dataset} is still in use"),
            ));
        }
        self.datasets.remove(&(project.to_owned(), dataset.to_owned()));
        Ok(Response::empty(204))
    }
}
