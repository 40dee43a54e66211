//! A topic's configuration in eight digits, for the commit metadata: whoever takes a partition over
//! sees whether its last owner made rows in another way.
//!
//! Counted is what decides where a record goes and what its row is: project, dataset, table, formats,
//! local schemas, key, metadata and header columns, null values, column rules, policy, write path.
//! Not counted are brokers, credentials, batches, limits, the dead-letter topic and its budget, and
//! what new tables are laid out with. A setting at its default does not count either, so that a
//! setting of a later version changes no fingerprint until somebody sets it.

use std::{path::Path, sync::Arc};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::pipeline::settings::{PayloadSettings, TopicSettings};

/// The fingerprints of all topics.
#[derive(Clone, Debug, Default)]
pub struct Fingerprints(Vec<(Arc<TopicSettings>, Arc<str>)>);

impl Fingerprints {
    /// The fingerprints of `topics`, whose tables are in `project`. `schema` reads a local schema's
    /// text; where it cannot, the path has to do.
    pub fn new(
        project: &str,
        topics: &[Arc<TopicSettings>],
        schema: impl Fn(&Path) -> Option<String>,
    ) -> Self {
        let of = |topic: &Arc<TopicSettings>| {
            let counted = counted(project, topic, &schema).to_string();
            let fingerprint = format!("{:08x}", crc32fast::hash(counted.as_bytes()));
            (Arc::clone(topic), fingerprint.into())
        };
        Self(topics.iter().map(of).collect())
    }

    /// The fingerprint of the entry that `topic` belongs to.
    pub fn of(&self, topic: &str) -> Option<&Arc<str>> {
        let entry = self.0.iter().find(|(entry, _)| entry.matcher.matches(topic));
        entry.map(|(_, fingerprint)| fingerprint)
    }
}

fn counted(
    project: &str,
    topic: &TopicSettings,
    schema: &impl Fn(&Path) -> Option<String>,
) -> Value {
    let table = topic.table.to_string();
    // `raw.orders`, and `orders` with `bigquery.dataset: raw`, are one table.
    let dataset = topic.table.dataset().map(|dataset| format!("{dataset}."));
    let table = dataset.and_then(|dataset| table.strip_prefix(&dataset)).unwrap_or(&table);
    json!({
        "project": project,
        "dataset": &*topic.dataset,
        "table": table,
        "value": payload(&topic.value, schema),
        "key": topic.key.as_ref().map(|key| payload(key, schema)),
        "write": topic.write,
        "null_value": topic.null_value,
        "row": set(&topic.row),
        "columns": set(&topic.columns),
        "policy": set(&topic.policy),
    })
}

fn payload(payload: &PayloadSettings, schema: &impl Fn(&Path) -> Option<String>) -> Value {
    let text = |path: &Path| schema(path).unwrap_or_else(|| path.display().to_string());
    json!({"format": payload.format, "schema": payload.schema.as_deref().map(text)})
}

/// The settings that are not at their defaults.
fn set<T: Serialize + Default>(settings: &T) -> Value {
    // Settings are structs of texts, numbers and switches: they always serialise.
    let value = |settings: &T| serde_json::to_value(settings).unwrap_or_default();
    without(value(settings), &value(&T::default()))
}

fn without(settings: Value, defaults: &Value) -> Value {
    let (Value::Object(settings), Value::Object(defaults)) = (settings.clone(), defaults) else {
        return settings;
    };
    let mut left = Map::new();
    for (key, value) in settings {
        match defaults.get(&key) {
            Some(default) if *default == value => {}
            Some(default) => drop(left.insert(key, without(value, default))),
            None => drop(left.insert(key, value)),
        }
    }
    Value::Object(left)
}

#[cfg(test)]
mod tests;
