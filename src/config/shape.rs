//! The file's tree against the JSON Schema: unknown keys, missing keys, wrong types, wrong choices,
//! numbers out of range; all of them, each with its path, line and remedy.
//!
//! Only the part of JSON Schema is read that `schemars` writes for our settings; a test keeps the
//! two in step. What a value turns into is returned for deserialising, with expanded text turned
//! into a number or boolean where one is expected. A value that is wrong is told and replaced by one that could
//! stand there, so that the rest is checked in the same pass.

use serde_json::{Map, Value as Json};

mod advice;

use crate::config::{
    problem::Problems,
    yaml::{Entry, Node, Value},
};

/// A name this similar to an unknown one is suggested (Jaro-Winkler; 1 is equal).
const SIMILAR: f64 = 0.8;

/// Checks `tree` against `schema` and returns it as JSON.
pub fn check(tree: &Node, schema: &Json, problems: &mut Problems) -> Json {
    Shape { root: schema, problems }.node(tree, schema, "")
}

struct Shape<'a> {
    root: &'a Json,
    problems: &'a mut Problems,
}

impl<'a> Shape<'a> {
    fn node(&mut self, node: &Node, schema: &'a Json, path: &str) -> Json {
        let found = self.checked(node, schema, path);
        found.unwrap_or_else(|| advice::stand_in(self.root, schema))
    }

    /// The value, if it is as the schema asks for; otherwise a mistake was told.
    fn checked(&mut self, node: &Node, schema: &'a Json, path: &str) -> Option<Json> {
        let schema = resolve(self.root, schema);
        if let Some(alternatives) = alternatives(schema) {
            return self.one_of(node, alternatives, path);
        }
        match &node.value {
            Value::Map(entries) if accepts(schema, "object") => {
                Some(self.object(entries, node.line, schema, path))
            }
            Value::List(items) if accepts(schema, "array") => Some(self.array(items, schema, path)),
            Value::Text { text, expanded } => self.text(text, *expanded, node.line, schema, path),
            Value::Plain(value) if plain_fits(value, schema) => {
                self.in_range(value, node.line, schema, path).then(|| value.clone())
            }
            _ => self.mismatch(node, schema, path),
        }
    }

    fn object(&mut self, entries: &[Entry], line: u64, schema: &'a Json, path: &str) -> Json {
        let known = schema.get("properties").and_then(Json::as_object);
        let rest = schema.get("additionalProperties").filter(|rest| rest.is_object());
        let closed = schema.get("additionalProperties") == Some(&Json::Bool(false));
        let mut object = Map::new();
        for entry in entries {
            let path = below(path, &entry.key);
            match (known.and_then(|known| known.get(&entry.key)), rest) {
                (Some(schema), _) | (None, Some(schema)) => {
                    object.insert(entry.key.clone(), self.node(&entry.node, schema, &path));
                }
                (None, None) if closed => {
                    // A value that goes to the key that is meant: neither is missing then.
                    let meant = self.unknown(entry, known, &path);
                    let free = meant.filter(|key| !entries.iter().any(|other| other.key == *key));
                    if let Some((key, schema)) = free.and_then(|key| Some((key, known?.get(key)?)))
                    {
                        object.insert(key.to_owned(), self.node(&entry.node, schema, &path));
                    }
                }
                (None, None) => {
                    object.insert(entry.key.clone(), plain(&entry.node));
                }
            }
        }
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
        for key in required.filter_map(Json::as_str) {
            if object.contains_key(key) {
                continue;
            }
            let remedy = Some("add it; `kcbq config reference` describes every key");
            self.problems.push(below(path, key), Some(line), "is missing", remedy);
            if let Some(schema) = known.and_then(|known| known.get(key)) {
                object.insert(key.to_owned(), advice::stand_in(self.root, schema));
            }
        }
        Json::Object(object)
    }

    /// Tells a key that is none, and returns the one that may be meant.
    fn unknown(
        &mut self,
        entry: &Entry,
        known: Option<&'a Map<String, Json>>,
        path: &str,
    ) -> Option<&'a str> {
        if let Some(remedy) = advice::gone(path) {
            self.problems.push(path, Some(entry.line), "is no longer a key", Some(remedy));
            return None;
        }
        let names = known.into_iter().flat_map(Map::keys).map(String::as_str);
        let meant = closest(&entry.key, names.clone());
        let remedy = match meant {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("possible here: {}", names.collect::<Vec<_>>().join(", ")),
        };
        self.problems.push(path, Some(entry.line), "is not a key", Some(&remedy));
        meant
    }

    fn array(&mut self, items: &[Node], schema: &'a Json, path: &str) -> Json {
        let item_schema = schema.get("items").unwrap_or(&Json::Bool(true));
        let items = items.iter().enumerate();
        items
            .map(|(index, item)| self.node(item, item_schema, &format!("{path}[{index}]")))
            .collect()
    }

    fn text(
        &mut self,
        text: &str,
        expanded: bool,
        line: u64,
        schema: &'a Json,
        path: &str,
    ) -> Option<Json> {
        if let Some(choices) = choices(schema) {
            if choices.contains(&text) {
                return Some(text.into());
            }
            let options = advice::options(&[], &choices, text);
            return self.wrong_choice(text, expanded, line, &options, path);
        }
        if accepts(schema, "string") {
            let Some((message, remedy)) = advice::wrong_form(schema, text, expanded) else {
                return Some(text.into());
            };
            self.problems.push(path, Some(line), message, Some(&remedy));
            return None;
        }
        let parsed = if expanded { serde_json::from_str::<Json>(text.trim()).ok() } else { None };
        if let Some(value) = parsed.filter(|value| plain_fits(value, schema)) {
            return self.in_range(&value, line, schema, path).then_some(value);
        }
        let found = Value::Text { text: text.to_owned(), expanded };
        self.mismatch(&Node { line, value: found }, schema, path)
    }

    fn wrong_choice(
        &mut self,
        text: &str,
        hide: bool,
        line: u64,
        options: &[String],
        path: &str,
    ) -> Option<Json> {
        let message = match hide {
            true => "is not one of the choices".to_owned(),
            false => format!("`{text}` is not one of the choices"),
        };
        let words = options.iter().map(String::as_str).filter(|option| !option.starts_with('`'));
        let listed = options.join(", ");
        let remedy = match closest(text, words).filter(|_| !hide) {
            Some(choice) => format!("did you mean `{choice}`? Choices: {listed}"),
            None => format!("choices: {listed}"),
        };
        self.problems.push(path, Some(line), message, Some(&remedy));
        None
    }

    /// One of several shapes: a choice of words, an option, or an enum with data.
    fn one_of(&mut self, node: &Node, alternatives: &'a [Json], path: &str) -> Option<Json> {
        let root = self.root;
        let resolved: Vec<&'a Json> = alternatives.iter().map(|one| resolve(root, one)).collect();
        let words: Vec<&str> = resolved.iter().filter_map(|one| choices(one)).flatten().collect();
        match &node.value {
            Value::Text { text, expanded } if !words.is_empty() => {
                if words.contains(&text.as_str()) {
                    return Some(text.as_str().into());
                }
                let shown = if *expanded { "…" } else { text };
                let options = advice::options(&resolved, &words, shown);
                self.wrong_choice(text, *expanded, node.line, &options, path)
            }
            Value::Map(entries) => {
                let objects: Vec<&'a Json> =
                    resolved.iter().copied().filter(|one| accepts(one, "object")).collect();
                if let Some((tag, tags)) = tag(&objects) {
                    return self.tagged(node, entries, &objects, (tag, &tags), path);
                }
                let has = |one: &&&'a Json| {
                    let known = one.get("properties").and_then(Json::as_object);
                    entries.iter().any(|entry| known.is_some_and(|k| k.contains_key(&entry.key)))
                };
                match objects.iter().find(has).or_else(|| objects.first()) {
                    Some(schema) => self.checked(node, schema, path),
                    None => self.mismatch_words(node, &resolved, &words, path),
                }
            }
            value => match resolved.iter().find(|one| fits(value, one)) {
                Some(schema) => self.checked(node, schema, path),
                None => self.mismatch_words(node, &resolved, &words, path),
            },
        }
    }

    /// An enum whose variant stands in the key `tag`.
    fn tagged(
        &mut self,
        node: &Node,
        entries: &[Entry],
        variants: &[&'a Json],
        (tag, tags): (&str, &[&str]),
        path: &str,
    ) -> Option<Json> {
        let entry = entries.iter().find(|entry| entry.key == tag);
        match entry.map(|entry| (entry, &entry.node.value)) {
            Some((_, Value::Text { text, .. })) if tags.contains(&text.as_str()) => {
                let index = tags.iter().position(|tag| tag == text).unwrap_or_default();
                let schema = variants.get(index).copied().unwrap_or(self.root);
                self.checked(node, schema, path)
            }
            Some((entry, Value::Text { text, expanded })) => {
                let options = advice::options(&[], tags, text);
                self.wrong_choice(text, *expanded, entry.line, &options, &below(path, tag))
            }
            Some((entry, _)) => {
                let wanted = format!("one of {}", tags.join(", "));
                self.expected(&entry.node, &Json::Null, &wanted, &below(path, tag))
            }
            None => {
                let remedy = format!("choices: {}", tags.join(", "));
                self.problems.push(below(path, tag), Some(node.line), "is missing", Some(&remedy));
                None
            }
        }
    }

    fn mismatch_words(
        &mut self,
        node: &Node,
        shapes: &[&Json],
        words: &[&str],
        path: &str,
    ) -> Option<Json> {
        let mut wanted: Vec<String> =
            shapes.iter().filter(|one| choices(one).is_none()).map(|one| expected(one)).collect();
        if !words.is_empty() {
            wanted.push(format!("one of {}", words.join(", ")));
        }
        wanted.retain(|one| one != "null");
        let shape = shapes.iter().find(|one| advice::wrong_type(one, &node.value, "").is_some());
        self.expected(node, shape.unwrap_or(&&Json::Null), &wanted.join(" or "), path)
    }

    fn mismatch(&mut self, node: &Node, schema: &Json, path: &str) -> Option<Json> {
        self.expected(node, schema, &expected(schema), path)
    }

    fn expected(&mut self, node: &Node, schema: &Json, wanted: &str, path: &str) -> Option<Json> {
        let remedy = advice::wrong_type(schema, &node.value, wanted);
        let message = format!("expected {wanted}, found {}", found(&node.value));
        self.problems.push(path, Some(node.line), message, remedy.as_deref());
        None
    }

    fn in_range(&mut self, value: &Json, line: u64, schema: &Json, path: &str) -> bool {
        let Some(number) = value.as_f64() else { return true };
        let bound = |key| schema.get(key).filter(|bound| bound.is_number());
        let below = bound("minimum").filter(|min| min.as_f64().is_some_and(|min| number < min));
        let above = bound("maximum").filter(|max| max.as_f64().is_some_and(|max| number > max));
        if let Some(min) = below {
            self.problems.push(path, Some(line), format!("must be at least {min}"), None);
        }
        if let Some(max) = above {
            self.problems.push(path, Some(line), format!("must be at most {max}"), None);
        }
        below.is_none() && above.is_none()
    }
}

/// The schema itself, where `schema` only refers to it.
fn resolve<'s>(root: &'s Json, schema: &'s Json) -> &'s Json {
    let mut schema = schema;
    while let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
        let pointer = reference.strip_prefix('#').unwrap_or(reference);
        match root.pointer(pointer) {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The alternatives of `oneOf` or `anyOf`.
pub(crate) fn alternatives(schema: &Json) -> Option<&[Json]> {
    let list = schema.get("oneOf").or_else(|| schema.get("anyOf"))?;
    list.as_array().map(Vec::as_slice)
}

/// The words of `enum` or `const`.
pub(crate) fn choices(schema: &Json) -> Option<Vec<&str>> {
    match (schema.get("enum"), schema.get("const")) {
        (Some(list), _) => Some(list.as_array()?.iter().filter_map(Json::as_str).collect()),
        (None, Some(word)) => Some(word.as_str().into_iter().collect()),
        (None, None) => None,
    }
}

/// The key that tells these variants apart by a constant, and the constants in their order.
pub(crate) fn tag<'s>(variants: &[&'s Json]) -> Option<(&'s str, Vec<&'s str>)> {
    let constant = |schema: &'s Json, key: &str| -> Option<&'s str> {
        schema.get("properties")?.get(key)?.get("const")?.as_str()
    };
    let first = variants.first()?.get("properties")?.as_object()?;
    first.keys().find_map(|key| {
        let tags: Option<Vec<&str>> = variants.iter().map(|one| constant(one, key)).collect();
        Some((key.as_str(), tags?))
    })
}

/// Whether the schema takes values of this JSON type; one without a type takes all.
fn accepts(schema: &Json, ty: &str) -> bool {
    match schema.get("type") {
        Some(Json::String(one)) => one == ty,
        Some(Json::Array(many)) => many.iter().any(|one| one == ty),
        _ => !schema.get("enum").is_some_and(Json::is_array) && schema.get("const").is_none(),
    }
}

fn plain_fits(value: &Json, schema: &Json) -> bool {
    match value {
        Json::Null => accepts(schema, "null"),
        Json::Bool(_) => accepts(schema, "boolean"),
        Json::Number(number) => {
            accepts(schema, "number") || (!number.is_f64() && accepts(schema, "integer"))
        }
        _ => false,
    }
}

fn fits(value: &Value, schema: &Json) -> bool {
    match value {
        Value::Plain(value) => plain_fits(value, schema),
        Value::Text { expanded, .. } => {
            accepts(schema, "string") || (*expanded && !accepts(schema, "null"))
        }
        Value::List(_) => accepts(schema, "array"),
        Value::Map(_) => accepts(schema, "object"),
    }
}

fn expected(schema: &Json) -> String {
    let name = |ty: &str| match ty {
        "object" => "a mapping".to_owned(),
        "array" => "a list".to_owned(),
        "string" => "text".to_owned(),
        "integer" => "a whole number".to_owned(),
        "number" => "a number".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => other.to_owned(),
    };
    match schema.get("type") {
        Some(Json::String(one)) => name(one),
        Some(Json::Array(many)) => {
            let names = many.iter().filter_map(Json::as_str).filter(|one| *one != "null");
            names.map(name).collect::<Vec<_>>().join(" or ")
        }
        _ => match choices(schema) {
            Some(words) => format!("one of {}", words.join(", ")),
            None => "another value".to_owned(),
        },
    }
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Plain(Json::Null) => "nothing",
        Value::Plain(Json::Bool(_)) => "true or false",
        Value::Plain(_) => "a number",
        Value::Text { .. } => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}

fn plain(node: &Node) -> Json {
    match &node.value {
        Value::Plain(value) => value.clone(),
        Value::Text { text, .. } => text.as_str().into(),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), plain(&entry.node))).collect()
        }
    }
}

fn closest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), known), known))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::yaml;

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Sample {
        name: String,
        #[schemars(range(min = 1, max = 9))]
        count: Option<u32>,
        mode: Option<Mode>,
        #[serde(default)]
        flag: bool,
        #[serde(default)]
        list: Vec<Sample>,
        #[serde(default)]
        map: std::collections::BTreeMap<String, String>,
        login: Option<Login>,
    }

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Login {
        /// Documented.
        Name { name: String },
        /// Documented.
        Token { token: String },
    }

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(rename_all = "snake_case")]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Mode {
        /// Documented.
        Fast,
        /// Documented.
        Slow,
        /// With data.
        At { speed: u32 },
    }

    fn problems(text: &str) -> Vec<String> {
        let schema = schemars::schema_for!(Sample).to_value();
        let mut problems = Problems::default();
        check(&yaml::parse(text).unwrap(), &schema, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_right_passes() {
        let text = "name: a\ncount: 3\nmode: fast\nflag: true\nlist: [{name: b, mode: {at: {speed: 1}}}]\nmap: {x: y}\n";
        assert_eq!(problems(text), Vec::<String>::new());
        assert_eq!(problems("name: a\ncount: null\n"), Vec::<String>::new());
    }

    #[test]
    fn a_tag_decides_which_keys_are_known() {
        assert_eq!(problems("name: a\nlogin: {by: token, token: t}\n"), Vec::<String>::new());
        for (login, wanted) in [
            ("{by: token, name: n}", "login.name: is not a key"),
            ("{by: tokn, token: t}", "did you mean `token`?"),
            ("{token: t}", "login.by: is missing – choices: name, token"),
            ("{by: 1}", "login.by: expected one of name, token"),
        ] {
            let found = problems(&format!("name: a\nlogin: {login}\n")).join("\n");
            assert!(found.contains(wanted), "{wanted}\nnot in\n{found}");
        }
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let text =
            "nam: a\ncount: 10\nmode: fats\nflag: 'true'\nlist: [{name: 7}, 3]\nmap: {x: 1}\n";
        let found = problems(text).join("\n");
        for wanted in [
            "line 1: nam: is not a key – did you mean `name`?",
            "line 2: count: must be at most 9",
            "line 3: mode: `fats` is not one of the choices – did you mean `fast`?",
            "line 4: flag: expected true or false, found text – write it without quotes",
            "line 5: list[0].name: expected text, found a number – put it in quotes",
            "line 5: list[1]: expected a mapping, found a number",
            "line 6: map.x: expected text, found a number – put it in quotes",
        ] {
            assert!(found.contains(wanted), "{wanted}\nnot in\n{found}");
        }
        // `name` is misspelt, and so not missing, too.
        assert_eq!(found.lines().count(), 7, "{found}");
    }

    #[test]
    fn expanded_text_may_stand_for_a_number_and_is_never_shown() {
        let schema = schemars::schema_for!(Sample).to_value();
        let mut tree = yaml::parse("name: a\ncount: x\nmode: x\n").unwrap();
        if let Value::Map(entries) = &mut tree.value {
            entries[1].node.value = Value::Text { text: "7".into(), expanded: true };
            entries[2].node.value = Value::Text { text: "canary".into(), expanded: true };
        }
        let mut problems = Problems::default();
        let value = check(&tree, &schema, &mut problems);
        assert_eq!(value["count"], json!(7));
        let shown = problems.to_string();
        assert!(shown.contains("mode: is not one of") && !shown.contains("canary"), "{shown}");
    }
}
