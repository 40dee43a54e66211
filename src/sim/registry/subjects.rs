//! Subjects, versions, ids and compatibility settings.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::sim::{
    message::Request,
    registry::{Reference, Registry, RegistryError, Schema, compatibility},
};

/// The compatibility of subjects without their own, as Confluent ships it.
const DEFAULT_LEVEL: &str = "BACKWARD";
const LEVELS: [&str; 7] = [
    "NONE",
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
];

/// A schema with the id it is to have, whatever the registry would give it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Preload {
    /// The id.
    pub id: u32,
    /// The subject to add it to as the next version, if any.
    #[serde(default)]
    pub subject: Option<String>,
    /// The text.
    pub schema: String,
    /// `AVRO` (default), `JSON` or `PROTOBUF`.
    #[serde(default)]
    pub schema_type: Option<String>,
    /// What it refers to.
    #[serde(default)]
    pub references: Vec<Reference>,
}

impl Registry {
    /// Puts a schema under a fixed id, unchecked.
    pub fn preload(&mut self, preload: Preload) {
        let Preload { id, subject, schema, schema_type, references } = preload;
        let format = schema_type.unwrap_or_else(|| "AVRO".to_owned());
        self.schemas.insert(id, Schema { format, text: schema, references });
        if let Some(subject) = subject {
            self.subjects.entry(subject).or_default().push(id);
        }
    }

    pub(crate) fn schema_by_id(&self, id: &str) -> Result<Value, RegistryError> {
        let id: u32 = id.parse().map_err(|_| RegistryError::no_schema())?;
        let schema = self.schemas.get(&id).ok_or_else(RegistryError::no_schema)?;
        let mut body = json!({"schema": schema.text});
        describe(&mut body, schema);
        Ok(body)
    }

    pub(crate) fn versions_of_id(&self, id: &str) -> Result<Value, RegistryError> {
        let id: u32 = id.parse().map_err(|_| RegistryError::no_schema())?;
        self.schemas.get(&id).ok_or_else(RegistryError::no_schema)?;
        let mut found = Vec::new();
        for (subject, versions) in &self.subjects {
            for (at, _) in versions.iter().enumerate().filter(|(_, known)| **known == id) {
                found.push(json!({"subject": subject, "version": at + 1}));
            }
        }
        Ok(Value::Array(found))
    }

    pub(crate) fn list_versions(&self, subject: &str) -> Result<Value, RegistryError> {
        let versions = self.versions(subject)?.len();
        Ok(json!((1..=versions).collect::<Vec<_>>()))
    }

    pub(crate) fn delete_subject(&mut self, subject: &str) -> Result<Value, RegistryError> {
        let versions = self.subjects.remove(subject);
        let versions = versions.ok_or_else(|| RegistryError::no_subject(subject))?.len();
        Ok(json!((1..=versions).collect::<Vec<_>>()))
    }

    pub(crate) fn version(&self, subject: &str, version: &str) -> Result<Value, RegistryError> {
        let (number, id, schema) = self.find_version(subject, version)?;
        let mut body =
            json!({"subject": subject, "version": number, "id": id, "schema": schema.text});
        describe(&mut body, schema);
        Ok(body)
    }

    pub(crate) fn version_text(
        &self,
        subject: &str,
        version: &str,
    ) -> Result<Value, RegistryError> {
        let (_, _, schema) = self.find_version(subject, version)?;
        serde_json::from_str(&schema.text).or_else(|_| Ok(json!(schema.text)))
    }

    pub(crate) fn register(&mut self, subject: &str, body: &Value) -> Result<Value, RegistryError> {
        let schema = self.schema_of(body)?;
        let known = self.id_of(&schema);
        let versions = self.subjects.get(subject).map(Vec::as_slice).unwrap_or_default();
        if let Some(id) = known.filter(|id| versions.contains(id)) {
            return Ok(json!({"id": id}));
        }
        if let Some(problem) = self.problem(subject, versions, &schema) {
            return Err(RegistryError::new(
                409,
                409,
                format!(
                    "Schema being registered is incompatible with an earlier schema for subject \
                     \"{subject}\": {problem}"
                ),
            ));
        }
        let next = self.schemas.last_key_value().map_or(1, |(id, _)| id + 1);
        let id = known.unwrap_or(next);
        self.schemas.insert(id, schema);
        self.subjects.entry(subject.to_owned()).or_default().push(id);
        Ok(json!({"id": id}))
    }

    pub(crate) fn lookup(&self, subject: &str, body: &Value) -> Result<Value, RegistryError> {
        let schema = self.schema_of(body)?;
        let versions = self.versions(subject)?;
        let id = self.id_of(&schema).ok_or_else(RegistryError::no_schema)?;
        let at = versions.iter().position(|known| *known == id);
        let at = at.ok_or_else(RegistryError::no_schema)?;
        self.version(subject, &(at + 1).to_string())
    }

    pub(crate) fn check(
        &self,
        subject: &str,
        version: &str,
        body: &Value,
    ) -> Result<Value, RegistryError> {
        let schema = self.schema_of(body)?;
        let (_, id, _) = self.find_version(subject, version)?;
        let problem = self.problem(subject, &[id], &schema);
        Ok(match problem {
            None => json!({"is_compatible": true}),
            Some(problem) => json!({"is_compatible": false, "messages": [problem]}),
        })
    }

    pub(crate) fn get_config(
        &self,
        subject: &str,
        request: &Request,
    ) -> Result<Value, RegistryError> {
        let own = self.config.get(subject);
        let fall_back = request.parameter("defaultToGlobal").as_deref() == Some("true");
        match own {
            Some(level) => Ok(json!({"compatibilityLevel": level})),
            None if subject.is_empty() || fall_back => {
                Ok(json!({"compatibilityLevel": self.level("")}))
            }
            None => Err(RegistryError::new(
                404,
                40408,
                format!("Subject '{subject}' does not have subject-level compatibility configured"),
            )),
        }
    }

    pub(crate) fn put_config(
        &mut self,
        subject: &str,
        body: &Value,
    ) -> Result<Value, RegistryError> {
        let level = body.get("compatibility").and_then(Value::as_str).unwrap_or_default();
        if !LEVELS.contains(&level) {
            return Err(RegistryError::new(422, 42203, "Invalid compatibility level"));
        }
        self.config.insert(subject.to_owned(), level.to_owned());
        Ok(json!({"compatibility": level}))
    }

    fn level(&self, subject: &str) -> &str {
        let own = self.config.get(subject).or_else(|| self.config.get(""));
        own.map_or(DEFAULT_LEVEL, String::as_str)
    }

    /// Why `schema` may not follow `earlier` under the subject's compatibility.
    fn problem(&self, subject: &str, earlier: &[u32], schema: &Schema) -> Option<String> {
        let level = self.level(subject);
        let transitive = level.ends_with("_TRANSITIVE");
        let checked = if transitive { earlier.len() } else { 1 };
        let earlier: Vec<&Schema> =
            earlier.iter().rev().take(checked).filter_map(|id| self.schemas.get(id)).collect();
        let new = self.with_references(schema)?;
        for old in earlier {
            if old.format != schema.format {
                return Some("the schema type has changed".to_owned());
            }
            let Some(old) = self.with_references(old) else { continue };
            let problem = compatibility::problem(level, &old, &new);
            if problem.is_some() {
                return problem;
            }
        }
        None
    }

    /// An Avro schema with the texts it refers to, dependencies first; `None` for other types.
    fn with_references(&self, schema: &Schema) -> Option<Vec<Value>> {
        if schema.format != "AVRO" {
            return None;
        }
        let mut texts = Vec::new();
        self.collect_texts(schema, 0, &mut texts);
        Some(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
    }

    fn collect_texts(&self, schema: &Schema, depth: usize, texts: &mut Vec<String>) {
        for reference in schema.references.iter().filter(|_| depth < 16) {
            let found = self.find_version(&reference.subject, &reference.version.to_string());
            if let Ok((_, _, referenced)) = found {
                self.collect_texts(referenced, depth + 1, texts);
            }
        }
        texts.push(schema.text.clone());
    }

    /// The schema of a request's body, refused if it is none.
    fn schema_of(&self, body: &Value) -> Result<Schema, RegistryError> {
        let text = body.get("schema").and_then(Value::as_str);
        let text = text.ok_or_else(|| RegistryError::invalid_schema("empty"))?.to_owned();
        let format = body.get("schemaType").and_then(Value::as_str).unwrap_or("AVRO").to_owned();
        let references: Vec<Reference> = match body.get("references") {
            None | Some(Value::Null) => Vec::new(),
            Some(list) => serde_json::from_value(list.clone())
                .map_err(|error| RegistryError::new(422, 42201, error.to_string()))?,
        };
        for reference in &references {
            self.find_version(&reference.subject, &reference.version.to_string()).map_err(|_| {
                let Reference { name, subject, version } = reference;
                RegistryError::invalid_schema(&format!(
                    "No schema reference found for subject \"{subject}\" and version {version} ({name})"
                ))
            })?;
        }
        let schema = Schema { format, text, references };
        if let Some(texts) = self.with_references(&schema) {
            let parsed = serde_json::from_str::<Value>(&schema.text).ok();
            parsed.ok_or_else(|| RegistryError::invalid_schema("not JSON"))?;
            compatibility::validate(&texts).map_err(|e| RegistryError::invalid_schema(&e))?;
        }
        Ok(schema)
    }

    /// The id of an equal schema: same type and references, texts equal as JSON.
    fn id_of(&self, schema: &Schema) -> Option<u32> {
        let normal = |text: &str| {
            serde_json::from_str::<Value>(text).map_or_else(|_| text.to_owned(), |v| v.to_string())
        };
        let text = normal(&schema.text);
        let equal = |known: &&Schema| {
            known.format == schema.format
                && known.references == schema.references
                && (known.text == schema.text || normal(&known.text) == text)
        };
        self.schemas.iter().find(|(_, known)| equal(known)).map(|(id, _)| *id)
    }

    fn versions(&self, subject: &str) -> Result<&[u32], RegistryError> {
        let versions = self.subjects.get(subject).map(Vec::as_slice);
        versions.ok_or_else(|| RegistryError::no_subject(subject))
    }

    /// The version's number, id and schema.
    fn find_version(
        &self,
        subject: &str,
        version: &str,
    ) -> Result<(usize, u32, &Schema), RegistryError> {
        let versions = self.versions(subject)?;
        let number = match version {
            "latest" | "-1" => versions.len(),
            number => number.parse().map_err(|_| {
                RegistryError::new(
                    422,
                    42202,
                    format!("The specified version '{number}' is not a valid version id."),
                )
            })?,
        };
        let id = number.checked_sub(1).and_then(|at| versions.get(at)).copied();
        let id = id.ok_or_else(|| RegistryError::no_version(version))?;
        let schema = self.schemas.get(&id).ok_or_else(RegistryError::no_schema)?;
        Ok((number, id, schema))
    }
}

/// Adds type and references where they are not the default.
fn describe(body: &mut Value, schema: &Schema) {
    let Some(body) = body.as_object_mut() else { return };
    if schema.format != "AVRO" {
        body.insert("schemaType".into(), json!(schema.format));
    }
    if !schema.references.is_empty() {
        body.insert("references".into(), json!(schema.references));
    }
}
