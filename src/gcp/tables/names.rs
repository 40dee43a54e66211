//! Names of tables and columns in paths and in SQL.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::table::TableRef;

/// What stands unescaped in a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b':');

/// `/bigquery/v2/projects/<p>`.
pub fn project_path(table: &TableRef) -> String {
    format!("/bigquery/v2/projects/{}", segment(&table.project))
}

/// `/bigquery/v2/projects/<p>/datasets/<d>`.
pub fn dataset_path(table: &TableRef) -> String {
    format!("{}/datasets/{}", project_path(table), segment(&table.dataset))
}

/// `/bigquery/v2/projects/<p>/datasets/<d>/tables/<t>`.
pub fn table_path(table: &TableRef) -> String {
    format!("{}/tables/{}", dataset_path(table), segment(&table.table))
}

/// A path segment; `.` and `..` alone would climb out of the path.
fn segment(name: &str) -> String {
    match name {
        "." => "%2E".into(),
        ".." => "%2E%2E".into(),
        name => utf8_percent_encode(name, SEGMENT).to_string(),
    }
}

/// A quoted identifier. Inside backticks GoogleSQL reads the escapes of string literals, so backslash
/// and backtick are escaped by a backslash; doubling the backtick would end the identifier
/// (<https://docs.cloud.google.com/bigquery/docs/reference/standard-sql/lexical#quoted_identifiers>).
/// `None` for control characters, which no name holds.
pub fn quoted(name: &str) -> Option<String> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return None;
    }
    let mut out = String::with_capacity(name.len() + 2);
    out.push('`');
    for c in name.chars() {
        if matches!(c, '`' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('`');
    Some(out)
}

/// The table as SQL names it, in one pair of backticks. `None` for a dataset or table with a dot, which
/// BigQuery does not have and which would shift the parts.
pub fn quoted_table(table: &TableRef) -> Option<String> {
    if table.dataset.contains('.') || table.table.contains('.') {
        return None;
    }
    quoted(&table.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_inside_its_segment_and_its_quotes() {
        let table = TableRef {
            project: "example.com:p".into(),
            dataset: "..".into(),
            table: "a/b?c#d`e\\f".into(),
        };
        assert_eq!(
            table_path(&table),
            "/bigquery/v2/projects/example.com:p/datasets/%2E%2E/tables/a%2Fb%3Fc%23d%60e%5Cf"
        );
        assert_eq!(quoted_table(&table), None);
        let table = TableRef { dataset: "d".into(), ..table };
        assert_eq!(quoted_table(&table).unwrap(), r"`example.com:p.d.a/b?c#d\`e\\f`");
        assert_eq!(quoted("a\nb"), None);
        assert_eq!(quoted(""), None);
    }
}
