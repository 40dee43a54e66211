//! Which schema changes BigQuery takes, over which way.

use crate::sim::bigquery::{
    columns::{Column, Mode, Type, find},
    error::ApiError,
};

/// Who asks for the change: types may only be widened through SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// `tables.patch` and `tables.update`.
    Rest,
    /// `ALTER TABLE … ALTER COLUMN … SET DATA TYPE`.
    Ddl,
}

/// Refuses what BigQuery refuses when `table`'s schema goes from `old` to `new`.
///
/// Allowed over REST: new NULLABLE or REPEATED columns at the end or anywhere (also nested),
/// REQUIRED to NULLABLE, looser type parameters, anything outside the schema. A new RECORD may
/// hold REQUIRED fields. Source of the messages: answers quoted in public issue trackers.
pub fn check(table: &str, old: &[Column], new: &[Column], via: Via) -> Result<(), ApiError> {
    check_level(old, new, "", via).map_err(|detail| {
        ApiError::invalid(format!("Provided Schema does not match Table {table}. {detail}"))
    })
}

fn check_level(old: &[Column], new: &[Column], path: &str, via: Via) -> Result<(), String> {
    for column in old {
        let path = join(path, &column.name);
        let after = find(new, &column.name)
            .ok_or_else(|| format!("Field {path} is missing in new schema"))?;
        check_column(column, after, &path, via)?;
    }
    let added = new.iter().filter(|column| find(old, &column.name).is_none());
    for column in added {
        if column.mode == Mode::Required {
            let path = join(path, &column.name);
            return Err(format!(
                "Cannot add required fields to an existing schema. (field: {path})"
            ));
        }
    }
    Ok(())
}

fn check_column(old: &Column, new: &Column, path: &str, via: Via) -> Result<(), String> {
    if old.name != new.name {
        return Err(format!("Field {path} has changed its name to {}", new.name));
    }
    let relaxed = old.mode == Mode::Required && new.mode == Mode::Nullable;
    if old.mode != new.mode && !relaxed {
        let (from, to) = (old.mode.rest_name(), new.mode.rest_name());
        return Err(format!("Field {path} has changed mode from {from} to {to}"));
    }
    if let (Type::Record(before), Type::Record(after)) = (&old.ty, &new.ty) {
        return check_level(before, after, path, via);
    }
    if type_may_become(&old.ty, &new.ty, via) {
        return Ok(());
    }
    let (from, to) = (old.ty.rest_name(), new.ty.rest_name());
    if from == to {
        return Err(format!("Field {path} has incompatible type parameters"));
    }
    Err(format!("Field {path} has changed type from {from} to {to}"))
}

/// Widening as `SET DATA TYPE` takes it: INT64 → NUMERIC, BIGNUMERIC, FLOAT64; NUMERIC →
/// BIGNUMERIC, FLOAT64; looser parameters. BIGNUMERIC → FLOAT64 is refused (SQLMesh/sqlmesh#2848).
fn type_may_become(old: &Type, new: &Type, via: Via) -> bool {
    let ddl = via == Via::Ddl;
    match (old, new) {
        (Type::String(from), Type::String(to)) | (Type::Bytes(from), Type::Bytes(to)) => {
            at_least(*to, *from)
        }
        (
            Type::Decimal { big: from, precision, scale },
            Type::Decimal { big: to, precision: new_precision, scale: new_scale },
        ) => {
            let grows = digits_grow((*precision, *scale), (*new_precision, *new_scale));
            grows && (from == to || (ddl && !*from))
        }
        (Type::Int64, Type::Decimal { precision, scale, .. }) => {
            let integer_digits =
                precision.map(|precision| precision - scale.unwrap_or(0).min(precision));
            ddl && integer_digits.is_none_or(|digits| digits >= 19)
        }
        (Type::Int64 | Type::Decimal { big: false, .. }, Type::Float64) => ddl,
        (old, new) => old == new,
    }
}

fn at_least(new: Option<u64>, old: Option<u64>) -> bool {
    match (new, old) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(new), Some(old)) => new >= old,
    }
}

/// Neither the digits before the point nor those after it may get fewer.
fn digits_grow(old: (Option<u32>, Option<u32>), new: (Option<u32>, Option<u32>)) -> bool {
    let (Some(new_precision), Some(old_precision)) = (new.0, old.0) else {
        return new.0.is_none();
    };
    let (new_scale, old_scale) = (new.1.unwrap_or(0), old.1.unwrap_or(0));
    let integer = |precision: u32, scale: u32| precision.saturating_sub(scale);
    new_scale >= old_scale && integer(new_precision, new_scale) >= integer(old_precision, old_scale)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
