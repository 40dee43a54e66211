//! Which tables the headers of records may choose.
//!
//! Whoever may write to a topic chooses its records' headers, and with them, by `table: "{header:…}"`, a table: without
//! a bound any table of the dataset, with columns added to it, and any number of new ones.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TableTemplate, TopicMatch};

/// Which tables the headers of records may choose, where `table` has `{header:NAME}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderTables {
    /// The tables' names, or regular expressions that must match a whole name. Records that choose another
    /// table go to the dead letter. Needed where the name does not begin with text or `{topic}`; default: every
    /// name that the template can make.
    pub names: Vec<String>,
    /// How many tables the records of this entry may choose, by worker. Records that would make one more go to
    /// the dead letter.
    #[schemars(range(min = 1, max = 10_000))]
    pub max: usize,
}

impl Default for HeaderTables {
    fn default() -> Self {
        Self { names: Vec::new(), max: 1_000 }
    }
}

/// The same, validated.
#[derive(Clone, Debug)]
pub struct AllowedTables {
    names: Vec<TopicMatch>,
    /// How many tables the records of one entry may choose.
    pub max: usize,
}

impl Default for AllowedTables {
    fn default() -> Self {
        Self { names: Vec::new(), max: HeaderTables::default().max }
    }
}

/// Why a header may choose no table.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AllowanceError {
    /// A name is no regular expression.
    #[error("`{0}`: {1}")]
    Name(String, #[source] regex::Error),
    /// The template begins with a header, and nothing says which tables are meant.
    #[error(
        "begins with a header: whoever writes to the topic would choose any table of the dataset"
    )]
    Open,
}

impl AllowedTables {
    /// What `settings` allow the headers in `template`.
    ///
    /// # Errors
    ///
    /// A name that is no expression, or a template that leaves everything open.
    pub fn new(template: &TableTemplate, settings: &HeaderTables) -> Result<Self, AllowanceError> {
        let parse = |name: &String| {
            TopicMatch::parse(name).map_err(|error| AllowanceError::Name(name.clone(), error))
        };
        let names = settings.names.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        match names.is_empty() && template.begins_with_header() {
            true => Err(AllowanceError::Open),
            false => Ok(Self { names, max: settings.max }),
        }
    }

    /// Whether the table may be chosen.
    pub fn allow(&self, table: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| name.matches(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(template: &str, names: &[&str]) -> Result<AllowedTables, AllowanceError> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let settings = HeaderTables { names, ..HeaderTables::default() };
        AllowedTables::new(&TableTemplate::parse(template).unwrap(), &settings)
    }

    #[test]
    fn a_template_that_begins_with_a_header_names_its_tables() {
        for template in ["{header:t}", "raw.{header:t}", "{header:t}_x"] {
            assert!(matches!(allowed(template, &[]), Err(AllowanceError::Open)), "{template}");
            assert!(allowed(template, &["orders"]).is_ok());
        }
        for template in ["x_{header:t}", "{topic}_{header:t}", "{topic}"] {
            assert!(allowed(template, &[]).unwrap().allow("anything"), "{template}");
        }
    }

    #[test]
    fn names_are_whole_names_and_bigquerys_own_tables_are_never_meant() {
        let allowed = allowed("{header:t}", &["orders", "evt_.+"]).unwrap();
        assert!(allowed.allow("orders") && allowed.allow("evt_paid"));
        for other in ["orders2", "my_evt_paid", "__TABLES__", "evt_"] {
            assert!(!allowed.allow(other), "{other}");
        }
    }
}
