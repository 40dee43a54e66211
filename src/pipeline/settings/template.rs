//! The name of a table as a template over the record.

use std::fmt;

/// The longest table name that BigQuery takes, in bytes of UTF-8.
const NAME_BYTES_MAX: usize = 1_024;

/// A table name with placeholders: `{topic}`, `{header:NAME}`, `{record}` (the short name of the
/// value's record schema). What they stand for is sanitised to `[A-Za-z0-9_]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableTemplate {
    dataset: Option<String>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    Header(String),
    Record,
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without `}`, or the reverse.
    #[error("unbalanced `{{` or `}}`")]
    Unbalanced,
    /// A placeholder that does not exist.
    #[error("`{{{0}}}` is not a placeholder: use {{topic}}, {{header:NAME}} or {{record}}")]
    Placeholder(String),
    /// A placeholder in the dataset.
    #[error("the dataset must be literal: a record must not choose it")]
    Dataset,
    /// A character that no table or dataset may have in its name.
    #[error("`{0}` is not possible in a name: use letters, digits and `_`")]
    Character(char),
    /// No name, or an empty half.
    #[error("the name is empty")]
    Empty,
    /// More than `dataset.table`.
    #[error("more than one `.`: write `table` or `dataset.table`")]
    TooManyParts,
}

/// Why a record has no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The header is missing, null, or not UTF-8.
    #[error("the record has no text header `{0}`, which the table's name needs")]
    Header(String),
    /// The value's schema is not a named record.
    #[error("the value has no record name, which the table's name needs")]
    Record,
    /// What the placeholders stand for is empty or too long for a table name.
    #[error("the table's name would be empty or longer than {NAME_BYTES_MAX} bytes")]
    Length,
}

impl TableTemplate {
    /// Reads the text of `table`: `table` or `dataset.table`.
    ///
    /// # Errors
    ///
    /// The first mistake in the text.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut dataset = None;
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(['{', '}', '.']).unwrap_or(rest.len());
            let (literal, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            push_literal(&mut parts, literal)?;
            rest = match after.chars().next() {
                None => "",
                Some('{') => push_placeholder(&mut parts, after)?,
                Some('.') if dataset.is_some() => return Err(TemplateError::TooManyParts),
                Some('.') => {
                    dataset = Some(literal_dataset(&mut parts)?);
                    after.strip_prefix('.').unwrap_or_default()
                }
                Some(_) => return Err(TemplateError::Unbalanced),
            };
        }
        match parts.is_empty() {
            true => Err(TemplateError::Empty),
            false => Ok(Self { dataset, parts }),
        }
    }

    /// The dataset, where the template names one.
    pub fn dataset(&self) -> Option<&str> {
        self.dataset.as_deref()
    }

    /// Whether `{topic}` occurs.
    pub fn uses_topic(&self) -> bool {
        self.parts.contains(&Part::Topic)
    }

    /// Whether the name depends on a header of the record.
    pub fn uses_headers(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Header(_)))
    }

    /// Whether nothing but a record's header decides how the name begins.
    pub fn begins_with_header(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Header(_)))
    }

    /// Whether the name depends on the record, beyond its topic.
    pub fn uses_record(&self) -> bool {
        self.uses_headers() || self.uses_record_name()
    }

    /// Whether `{record}` occurs: the value's schema must be known before the table is.
    pub fn uses_record_name(&self) -> bool {
        self.parts.contains(&Part::Record)
    }

    /// The table's name for one record. `header` looks a header up; `record` is the full name of
    /// the value's record schema.
    ///
    /// # Errors
    ///
    /// What the record lacks.
    pub fn resolve<'a>(
        &self,
        topic: &str,
        header: impl Fn(&str) -> Option<&'a str>,
        record: Option<&str>,
    ) -> Result<String, Missing> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Topic => sanitise_into(&mut name, topic),
                Part::Header(wanted) => {
                    let value = header(wanted).ok_or_else(|| Missing::Header(wanted.clone()))?;
                    sanitise_into(&mut name, value);
                }
                Part::Record => {
                    let full = record.filter(|name| !name.is_empty()).ok_or(Missing::Record)?;
                    sanitise_into(&mut name, full.rsplit('.').next().unwrap_or(full));
                }
            }
        }
        match name.is_empty() || name.len() > NAME_BYTES_MAX {
            true => Err(Missing::Length),
            false => Ok(name),
        }
    }
}

impl fmt::Display for TableTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(dataset) = &self.dataset {
            write!(f, "{dataset}.")?;
        }
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Topic => f.write_str("{topic}")?,
                Part::Header(name) => write!(f, "{{header:{name}}}")?,
                Part::Record => f.write_str("{record}")?,
            }
        }
        Ok(())
    }
}

/// Appends `text` as part of a table's name: everything outside `[A-Za-z0-9_]` becomes `_`.
fn sanitise_into(name: &mut String, text: &str) {
    name.extend(text.chars().map(|char| if is_plain(char) { char } else { '_' }));
}

fn is_plain(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

fn push_literal(parts: &mut Vec<Part>, text: &str) -> Result<(), TemplateError> {
    if let Some(char) = text.chars().find(|char| !is_plain(*char)) {
        return Err(TemplateError::Character(char));
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(())
}

/// Reads the placeholder at the start of `text`; returns what follows it.
fn push_placeholder<'a>(parts: &mut Vec<Part>, text: &'a str) -> Result<&'a str, TemplateError> {
    let (inside, rest) = text
        .strip_prefix('{')
        .and_then(|text| text.split_once('}'))
        .ok_or(TemplateError::Unbalanced)?;
    parts.push(match inside.split_once(':') {
        None if inside == "topic" => Part::Topic,
        None if inside == "record" => Part::Record,
        Some(("header", name)) if !name.is_empty() => Part::Header(name.to_owned()),
        _ => return Err(TemplateError::Placeholder(inside.to_owned())),
    });
    Ok(rest)
}

/// What stands before the dot.
fn literal_dataset(parts: &mut Vec<Part>) -> Result<String, TemplateError> {
    let mut taken = std::mem::take(parts).into_iter();
    match (taken.next(), taken.next()) {
        (None, _) => Err(TemplateError::Empty),
        (Some(Part::Text(dataset)), None) => Ok(dataset),
        _ => Err(TemplateError::Dataset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(template: &str, topic: &str) -> Result<String, Missing> {
        let header = |name: &str| (name == "type").then_some("order-paid");
        TableTemplate::parse(template).unwrap().resolve(topic, header, Some("acme.shop.Order"))
    }

    #[test]
    fn placeholders_are_sanitised() {
        assert_eq!(resolve("{topic}", "shop.orders-v1").unwrap(), "shop_orders_v1");
        assert_eq!(resolve("raw.x_{header:type}_y", "t").unwrap(), "x_order_paid_y");
        assert_eq!(resolve("{topic}_{record}", "t").unwrap(), "t_Order");
        assert_eq!(resolve("{header:none}", "t"), Err(Missing::Header("none".into())));
        assert_eq!(resolve("{topic}", &"t".repeat(1_025)), Err(Missing::Length));
    }

    #[test]
    fn a_dataset_is_literal() {
        let template = TableTemplate::parse("raw.{topic}").unwrap();
        assert_eq!(template.dataset(), Some("raw"));
        assert_eq!(template.to_string(), "raw.{topic}");
        assert_eq!(TableTemplate::parse("{topic}.x"), Err(TemplateError::Dataset));
        assert_eq!(TableTemplate::parse("a{topic}.x"), Err(TemplateError::Dataset));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, error) in [
            ("", TemplateError::Empty),
            ("raw.", TemplateError::Empty),
            (".x", TemplateError::Empty),
            ("a.b.c", TemplateError::TooManyParts),
            ("{topic", TemplateError::Unbalanced),
            ("topic}", TemplateError::Unbalanced),
            ("{topik}", TemplateError::Placeholder("topik".into())),
            ("{header:}", TemplateError::Placeholder("header:".into())),
            ("a-b", TemplateError::Character('-')),
        ] {
            assert_eq!(TableTemplate::parse(text), Err(error), "{text}");
        }
    }
}
