//! What the demo prints.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
};

use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    app::demo::account::{Account, Lane, Letter},
    ops::progress::grouped,
    sim::{
        Simulator,
        bigquery::columns::{Column, Mode, Type},
    },
};

const CELL_CHARS_MAX: usize = 34;

/// Prints a line; a reader that has gone is no reason to stop.
///
/// # Errors
///
/// Standard output cannot be written for another reason.
pub fn line(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints the title of a section.
///
/// # Errors
///
/// As [`line()`].
pub fn section(title: &str) -> anyhow::Result<()> {
    line(&format!("\n{title}\n{}", "─".repeat(title.chars().count())))
}

/// The paths of all columns of all tables, as `table/path`.
pub fn column_paths(simulator: &Simulator) -> BTreeSet<String> {
    simulator.with_core(|core, _| {
        let tables = core.bigquery().tables();
        let paths = tables.flat_map(|(path, table)| {
            leaves(&table.columns, "").into_iter().map(move |leaf| key(path.table, &leaf.path))
        });
        paths.collect()
    })
}

fn key(table: &str, path: &str) -> String {
    format!("{table}/{path}")
}

/// The tables: their columns, with the cells of the first and the last row. Columns that are not
/// in `before` are marked.
pub fn tables(simulator: &Simulator, before: &BTreeSet<String>) -> String {
    simulator.with_core(|core, _| {
        let mut text = String::new();
        for (index, (path, table)) in core.bigquery().tables().enumerate() {
            let rows = table.store.rows();
            let gap = if index == 0 { "" } else { "\n" };
            let count = grouped(table.store.count());
            text.push_str(&format!("{gap}{}.{}: {count} rows\n", path.dataset, path.table));
            let lines = leaves(&table.columns, "").into_iter().map(|leaf| {
                let cell = |row: Option<&Map<String, Value>>| {
                    row.map_or_else(String::new, |row| shown(row, &leaf))
                };
                let new = !before.contains(&key(path.table, &leaf.path));
                let mark = if new { "◄ added while running" } else { "" };
                [
                    leaf.path.clone(),
                    leaf.type_name(),
                    cell(rows.first()),
                    cell(rows.last()),
                    mark.to_owned(),
                ]
            });
            let head = ["column", "type", "first row", "last row", ""].map(str::to_owned);
            text.push_str(&aligned(std::iter::once(head).chain(lines), 5));
        }
        text
    })
}

/// The dead letters.
pub fn letters(letters: &[Letter]) -> String {
    let lines = letters.iter().flat_map(|letter| {
        let from = format!("{} [{}] @ {}", letter.topic, letter.partition, letter.offset);
        [
            ["record".to_owned(), from],
            ["stage".to_owned(), letter.stage.clone()],
            ["reason".to_owned(), letter.reason.clone()],
            ["value".to_owned(), letter.value.clone()],
        ]
    });
    aligned(lines, 2)
}

/// Offsets against rows, with a line of sums.
pub fn accounts<'a>(accounts: impl Iterator<Item = (&'a Lane, &'a Account)> + Clone) -> String {
    let head = ["partition", "records", "rows", "dead", "missing", "twice", "committed"];
    let sum =
        |of: fn(&Account) -> u64| grouped(accounts.clone().map(|(_, account)| of(account)).sum());
    let total = [
        "total".to_owned(),
        sum(|a| a.produced),
        sum(|a| a.rows),
        sum(|a| a.letters),
        sum(|a| a.missing),
        sum(|a| a.twice),
        String::new(),
    ];
    let lines = accounts.clone().map(|((topic, partition), account)| {
        [
            format!("{topic} [{partition}]"),
            grouped(account.produced),
            grouped(account.rows),
            grouped(account.letters),
            grouped(account.missing),
            grouped(account.twice),
            account.committed.map_or("none".to_owned(), |at| grouped(at.max(0).unsigned_abs())),
        ]
    });
    let head = std::iter::once(head.map(str::to_owned));
    aligned(head.chain(lines).chain([total]), 1)
}

/// Lines of cells, each column as wide as its widest cell; the first `left` to the left, the others
/// to the right.
fn aligned<const N: usize>(lines: impl Iterator<Item = [String; N]>, left: usize) -> String {
    let lines: Vec<[String; N]> = lines.collect();
    let widths: [usize; N] = std::array::from_fn(|at| {
        let widths = lines.iter().filter_map(|line| line.get(at));
        widths.map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in &lines {
        let mut out = String::from(" ");
        for (at, (cell, width)) in line.iter().zip(widths).enumerate() {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if at < left { ("", &*pad) } else { (&*pad, "") };
            out.push_str(&format!(" {before}{cell}{after} "));
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    text
}

/// A column that holds values itself.
#[derive(Debug)]
struct Leaf<'a> {
    path: String,
    column: &'a Column,
}

impl Leaf<'_> {
    fn type_name(&self) -> String {
        let name = match self.column.ty.rest_name() {
            "INTEGER" => "INT64",
            "FLOAT" => "FLOAT64",
            "BOOLEAN" => "BOOL",
            name => name,
        };
        match &self.column.ty {
            Type::Decimal { precision: Some(precision), scale, .. } => {
                format!("{name}({precision},{})", scale.unwrap_or(0))
            }
            _ => name.to_owned(),
        }
    }
}

fn leaves<'a>(columns: &'a [Column], prefix: &str) -> Vec<Leaf<'a>> {
    let mut found = Vec::new();
    for column in columns {
        let repeated = if column.mode == Mode::Repeated { "[]" } else { "" };
        let path = format!("{prefix}{}{repeated}", column.name);
        match column.ty.fields() {
            [] => found.push(Leaf { path, column }),
            fields => found.extend(leaves(fields, &format!("{path}."))),
        }
    }
    found
}

fn shown(row: &Map<String, Value>, leaf: &Leaf<'_>) -> String {
    let mut values = vec![row.get(first_name(&leaf.path)).unwrap_or(&Value::Null)];
    for name in leaf.path.split('.').skip(1) {
        let inner = values.into_iter().flat_map(items);
        values = inner.map(|value| value.get(first_name(name)).unwrap_or(&Value::Null)).collect();
    }
    let cells: Vec<String> =
        values.into_iter().flat_map(items).map(|value| cell(value, &leaf.column.ty)).collect();
    let text = cells.join(", ");
    match text.chars().count() > CELL_CHARS_MAX {
        true => format!("{}…", text.chars().take(CELL_CHARS_MAX - 1).collect::<String>()),
        false => text,
    }
}

fn first_name(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or_default()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

fn cell(value: &Value, ty: &Type) -> String {
    match (ty, value) {
        (_, Value::Null) => "NULL".to_owned(),
        (Type::Timestamp, Value::String(micros)) => {
            let at = micros.parse().ok().and_then(|micros: i128| {
                OffsetDateTime::from_unix_timestamp_nanos(micros * 1_000)
                    .ok()?
                    .format(&Rfc3339)
                    .ok()
            });
            at.unwrap_or_else(|| micros.clone())
        }
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_text_are_as_wide_as_their_widest_cell() {
        let lines = [["a", "1"], ["bcd", "23"]].map(|line| line.map(str::to_owned));
        assert_eq!(aligned(lines.into_iter(), 1), "  a     1\n  bcd  23\n");
    }
}
