//! `${NAME}`, `${NAME:-default}` and `${file:/path}` in the text of a configuration.
//!
//! They are expanded after the YAML is parsed, so that a value cannot add keys, and only in values,
//! not in keys. `$${` is a literal `${`.

use std::{io, io::Read as _, path::Path};

use crate::config::{
    problem::Problems,
    yaml::{Node, Value},
};

/// The largest file that `${file:…}` reads.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where the values come from.
pub trait Sources {
    /// The environment variable `name`, if it is set.
    fn variable(&self, name: &str) -> Option<String>;

    /// The text of the file at `path`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is larger than 64 KiB.
    fn file(&self, path: &Path) -> io::Result<String>;
}

/// The process's environment and file system.
#[derive(Clone, Copy, Debug)]
pub struct Process;

impl Sources for Process {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        match text.len() as u64 > FILE_BYTES_MAX {
            true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 64 KiB")),
            false => Ok(text),
        }
    }
}

/// Expands every text below `node`. Returns what was put in, so that it is never shown.
pub fn expand(node: &mut Node, sources: &dyn Sources, problems: &mut Problems) -> Vec<String> {
    let mut expansion = Expansion { sources, problems, inserted: Vec::new() };
    expansion.walk(node, &mut String::new());
    expansion.inserted
}

struct Expansion<'a> {
    sources: &'a dyn Sources,
    problems: &'a mut Problems,
    inserted: Vec<String>,
}

impl Expansion<'_> {
    fn walk(&mut self, node: &mut Node, path: &mut String) {
        let length = path.len();
        match &mut node.value {
            Value::Plain(_) => {}
            Value::Text { text, expanded } => {
                if text.contains("${") {
                    (*text, *expanded) = self.text(text, path, node.line);
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    path.push_str(&format!("[{index}]"));
                    self.walk(item, path);
                    path.truncate(length);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(&entry.key);
                    self.walk(&mut entry.node, path);
                    path.truncate(length);
                }
            }
        }
    }

    /// The expanded text, and whether anything was put in.
    fn text(&mut self, text: &str, path: &str, line: u64) -> (String, bool) {
        let mut out = String::with_capacity(text.len());
        let mut inserted = false;
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = after;
                continue;
            }
            out.push_str(before);
            let Some((reference, after)) = after.split_once('}') else {
                let remedy = Some("close it with `}`, or write `$${` for a literal `${`");
                self.problems.push(path, Some(line), "`${` is not closed", remedy);
                return (out, inserted);
            };
            match self.reference(reference) {
                Ok(value) => {
                    out.push_str(&value);
                    self.inserted.push(value);
                    inserted = true;
                }
                Err((message, remedy)) => {
                    self.problems.push(path, Some(line), message, Some(remedy));
                }
            }
            rest = after;
        }
        out.push_str(rest);
        (out, inserted)
    }

    fn reference(&self, reference: &str) -> Result<String, (String, &'static str)> {
        if let Some(path) = reference.strip_prefix("file:") {
            return match self.sources.file(Path::new(path)) {
                Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => Err((
                    format!("`${{file:{path}}}` cannot be read: {error}"),
                    "mount the file and let the service's user read it",
                )),
            };
        }
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        if !is_variable(name) {
            return Err((
                format!("`${{{reference}}}` is not a reference"),
                "write ${NAME}, ${NAME:-default} or ${file:/path}; `$${` is a literal `${`",
            ));
        }
        match (self.sources.variable(name).filter(|value| !value.is_empty()), default) {
            (Some(value), _) => Ok(value),
            (None, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err((
                format!("the environment variable `{name}` is not set"),
                "set it, or give a default: ${NAME:-default}",
            )),
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    struct Fixed;

    impl Sources for Fixed {
        fn variable(&self, name: &str) -> Option<String> {
            match name {
                "USER" => Some("ann: {x: 1}".to_owned()),
                "EMPTY" => Some(String::new()),
                _ => None,
            }
        }

        fn file(&self, path: &Path) -> io::Result<String> {
            match path.to_str() {
                Some("/run/token") => Ok("s3cret\n".to_owned()),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn expanded(text: &str) -> (String, Problems) {
        let mut tree = yaml::parse(&format!("a: '{text}'")).unwrap();
        let mut problems = Problems::default();
        expand(&mut tree, &Fixed, &mut problems);
        match &tree.at("a").unwrap().value {
            Value::Text { text, .. } => (text.clone(), problems),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn references_become_text() {
        for (text, wanted) in [
            ("${USER}", "ann: {x: 1}"),
            ("x-${NONE:-y}-${file:/run/token}", "x-y-s3cret"),
            ("${EMPTY:-fallback}", "fallback"),
            ("$${USER} costs 5$", "${USER} costs 5$"),
            ("^a$", "^a$"),
        ] {
            let (out, problems) = expanded(text);
            assert_eq!((out.as_str(), problems.is_empty()), (wanted, true), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_is_named() {
        for (text, wanted) in [
            ("${NONE}", "`NONE` is not set"),
            ("${file:/none}", "cannot be read"),
            ("${1X}", "not a reference"),
            ("${USER", "not closed"),
        ] {
            let (_, problems) = expanded(text);
            let shown = problems.to_string();
            assert!(shown.starts_with("line 1: a: ") && shown.contains(wanted), "{shown}");
        }
    }
}
