//! Names: from a writer's spelling to BigQuery's.
//!
//! BigQuery's column names are at most 300 characters of `[A-Za-z0-9_]`, not starting with a digit
//! nor with one of its own prefixes, and unique without regard to case at each level.
//!
//! A name is cleaned by [`sanitize_column`]: each other character becomes `_`. Cleaning alone would
//! put `a.b` and `a_b` into one column, so a *suffix*, `__` and eight hexadecimal digits of the
//! original name's hash, tells such names apart. When it is added depends on what is known:
//!
//! - A declared schema shows all fields of a record at once. The first field with a cleaned name
//!   keeps it; only a later field that would collide gets the suffix. A field appended to a schema
//!   therefore never takes over an older field's column.
//! - An object without schema shows only the keys it happens to have. A key's column depends on the
//!   key alone: whatever cleaning changes gets the suffix (`a.b` → `a_b__cf525a7c`), and so does a
//!   clean key that looks as if it had one. Keys that differ in case only are one column: two of
//!   them in one object are refused (see [`infer`](crate::schema::infer)).

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use crate::schema::model::{Kind, RecordType, Type};

/// BigQuery's limit for a column name, characters.
pub const COLUMN_NAME_MAX: usize = 300;

/// Prefixes that BigQuery keeps for itself, in upper case; it ignores case.
const RESERVED_PREFIXES: [&str; 9] = [
    "_TABLE_",
    "_FILE_",
    "_PARTITION",
    "_ROW_TIMESTAMP",
    "__ROOT__",
    "_COLIDENTIFIER",
    "_CHANGE_SEQUENCE_NUMBER",
    "_CHANGE_TYPE",
    "_CHANGE_TIMESTAMP",
];

/// `__` and eight hexadecimal digits.
const SUFFIX_LEN: usize = 10;

/// The column names of a record's fields, one per field, in order; unique without regard to case.
///
/// Depends on nothing but the fields' names and their order. Fields of a record without a name (an
/// inferred one) follow the rule for keys, see the module's text.
pub fn column_names(record: &RecordType) -> Vec<String> {
    let names = record.fields.iter().map(|field| field.name.as_ref());
    if record.name.is_empty() {
        return distinct(names.map(|name| (name, json_column_name(name).into_owned())));
    }
    distinct(names.map(|name| (name, sanitize_column(name))))
}

/// The column names of the non-null branches of a union, one per such branch, in order; unique
/// without regard to case.
///
/// A named type's branch is called by its name without namespace, any other by its Avro name
/// (`string`, `long`, `array`, …).
pub fn branch_names(branches: &[Type]) -> Vec<String> {
    let branches = branches.iter().filter(|branch| branch.kind != Kind::Null);
    distinct(branches.map(|branch| {
        let full = branch_name(branch);
        (full, sanitize_column(full.rsplit('.').next().unwrap_or(full)))
    }))
}

/// A branch's full name.
fn branch_name(branch: &Type) -> &str {
    if let Some(name) = &branch.name {
        return name;
    }
    match &branch.kind {
        Kind::Record(record) if !record.name.is_empty() => &record.name,
        Kind::Recursive(name) => name,
        kind => kind.name(),
    }
}

/// `name` as a legal column name: other characters than `[A-Za-z0-9_]` become `_`, a leading digit
/// and a reserved prefix get a `_` before them, and a name over 300 characters is cut and gets the
/// suffix.
pub fn sanitize_column(name: &str) -> String {
    let mut clean: String = name.chars().map(legal_or_underscore).collect();
    if clean.is_empty() || clean.starts_with(|first: char| first.is_ascii_digit()) {
        clean.insert(0, '_');
    }
    if is_reserved(&clean) {
        clean.insert(0, '_');
    }
    if clean.len() > COLUMN_NAME_MAX { suffixed(&clean, name, 0) } else { clean }
}

/// The column of an object's key where no schema declares the object's fields.
///
/// Depends on the key alone. Different keys have different columns, except keys that differ in case
/// only (and, once in four billion pairs, keys that clean to the same name). Borrows where the key
/// is its own column, which is the common case.
pub fn json_column_name(key: &str) -> Cow<'_, str> {
    if is_legal(key) && !looks_suffixed(key) {
        return Cow::Borrowed(key);
    }
    let clean = sanitize_column(key);
    // A long name has been cut and has its suffix already.
    if key.chars().count() > COLUMN_NAME_MAX {
        return Cow::Owned(clean);
    }
    Cow::Owned(suffixed(&clean, key, 0))
}

/// Whether BigQuery takes `name` for a column as it is.
pub fn is_legal(name: &str) -> bool {
    let first_is_legal =
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    first_is_legal
        && name.len() <= COLUMN_NAME_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !is_reserved(name)
}

/// Gives every (original, clean) pair a name of its own: the first of each clean name keeps it, the
/// others get suffixes that no clean name has.
fn distinct<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> Vec<String> {
    let pairs: Vec<(&str, String)> = pairs.collect();
    let mut owner: HashMap<String, usize> = HashMap::with_capacity(pairs.len());
    for (index, (_, clean)) in pairs.iter().enumerate() {
        owner.entry(clean.to_ascii_lowercase()).or_insert(index);
    }
    let mut taken: HashSet<String> = owner.keys().cloned().collect();
    let mut names = Vec::with_capacity(pairs.len());
    for (index, (original, clean)) in pairs.into_iter().enumerate() {
        let keeps = owner.get(&clean.to_ascii_lowercase()) == Some(&index);
        names.push(if keeps { clean } else { free_name(&clean, original, &mut taken) });
    }
    names
}

/// `clean` with the first suffix that is not taken; takes it.
fn free_name(clean: &str, original: &str, taken: &mut HashSet<String>) -> String {
    let mut salt = 0;
    loop {
        let name = suffixed(clean, original, salt);
        if taken.insert(name.to_ascii_lowercase()) {
            return name;
        }
        salt += 1;
    }
}

/// `clean`, cut if need be, with the suffix of `original`.
fn suffixed(clean: &str, original: &str, salt: u32) -> String {
    let mut name: String = clean.chars().take(COLUMN_NAME_MAX - SUFFIX_LEN).collect();
    name.push_str(&suffix(original, salt));
    name
}

/// `__` and eight hexadecimal digits of the hash of `original`; another `salt`, another suffix.
fn suffix(original: &str, salt: u32) -> String {
    // FNV-1a: stable for all time, which the standard library's and foldhash's hashes are not.
    let bytes = original.bytes().chain(salt.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("__{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}

/// Whether `name` ends like a name with a suffix.
fn looks_suffixed(name: &str) -> bool {
    let Some((_, end)) =
        name.len().checked_sub(SUFFIX_LEN).and_then(|at| name.split_at_checked(at))
    else {
        return false;
    };
    let is_digit = |byte: u8| byte.is_ascii_hexdigit();
    end.strip_prefix("__").is_some_and(|digits| digits.bytes().all(is_digit))
}

fn is_reserved(name: &str) -> bool {
    let starts_with = |prefix: &&'static str| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    RESERVED_PREFIXES.iter().any(starts_with)
}

fn legal_or_underscore(character: char) -> char {
    if character.is_ascii_alphanumeric() { character } else { '_' }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::schema::model::Field;

    fn record(name: &str, fields: &[&str]) -> RecordType {
        let field =
            |name: &&str| Field { name: Arc::from(*name), ty: Type::plain(Kind::Long), doc: None };
        RecordType { name: Arc::from(name), fields: fields.iter().map(field).collect() }
    }

    #[test]
    fn cleaning_follows_bigquerys_rules() {
        let cases = [
            ("id", "id"),
            ("a.b-c", "a_b_c"),
            ("9lives", "_9lives"),
            ("", "_"),
            ("größe", "gr__e"),
            ("_table_x", "__table_x"),
            ("-TABLE_", "__TABLE_"),
            ("_PARTITIONTIME", "__PARTITIONTIME"),
            ("__root__", "___root__"),
            ("_CHANGE_TYPE", "__CHANGE_TYPE"),
            ("_kafka_offset", "_kafka_offset"),
        ];
        for (name, clean) in cases {
            assert_eq!(sanitize_column(name), clean, "{name}");
            assert!(is_legal(&sanitize_column(name)), "{name}");
        }
    }

    #[test]
    fn the_first_field_keeps_the_clean_name() {
        let names = column_names(&record("R", &["a.b", "a_b", "A_B", "c"]));
        assert_eq!(names[0], "a_b");
        assert!(names[1].starts_with("a_b__"), "{names:?}");
        assert!(names[2].starts_with("A_B__"), "{names:?}");
        assert_eq!(names[3], "c");
    }

    #[test]
    fn a_suffix_yields_to_a_field_that_is_called_so() {
        let taken = column_names(&record("R", &["a.b", "a_b"]))[1].clone();
        let names = column_names(&record("R", &["a.b", "a_b", &taken]));
        assert_eq!(names[2], taken);
        assert_ne!(names[1], taken);
    }

    #[test]
    fn a_keys_column_depends_on_the_key_alone() {
        assert!(matches!(json_column_name("userId"), Cow::Borrowed("userId")));
        let dotted = json_column_name("a.b");
        assert!(dotted.starts_with("a_b__") && is_legal(&dotted), "{dotted}");
        assert_ne!(json_column_name(&dotted), dotted);
        assert_eq!(column_names(&record("", &["a.b"])), [dotted.as_ref()]);
    }

    #[test]
    fn suffixes_never_change() {
        assert_eq!(json_column_name("a.b"), "a_b__cf525a7c");
    }

    #[test]
    fn branches_are_called_by_their_types() {
        let mut color = Type::plain(Kind::Enum(Arc::from([Arc::from("RED")])));
        color.name = Some(Arc::from("shop.Color"));
        let mut other = color.clone();
        other.name = Some(Arc::from("paint.Color"));
        let nested = Type::plain(Kind::Record(Arc::new(record("shop.Line", &["n"]))));
        let branches = [Type::plain(Kind::Null), Type::plain(Kind::String), color, other, nested];
        let names = branch_names(&branches);
        assert_eq!(names[..2], ["string", "Color"]);
        assert!(names[2].starts_with("Color__"), "{names:?}");
        assert_eq!(names[3], "Line");
    }

    proptest! {
        #[test]
        fn column_names_are_legal_and_unique(
            fields in proptest::collection::vec("[aA.b_\\-é0-9]{0,4}|\\PC{0,320}", 0..20),
            name in "|R",
        ) {
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let names = column_names(&record(&name, &fields));
            prop_assert_eq!(names.len(), fields.len());
            let lower: HashSet<String> = names.iter().map(|n| n.to_ascii_lowercase()).collect();
            prop_assert_eq!(lower.len(), names.len());
            for name in &names {
                prop_assert!(is_legal(name), "{}", name);
            }
        }

        #[test]
        fn appending_a_field_renames_none(
            fields in proptest::collection::vec("[aA.b]{1,3}", 1..8),
        ) {
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let before = column_names(&record("R", &fields[..fields.len() - 1]));
            let after = column_names(&record("R", &fields));
            prop_assert_eq!(&after[..before.len()], &before[..]);
        }

        #[test]
        fn different_keys_have_different_columns(one in "[aA.b_-]{0,6}", other in "[aA.b_-]{0,6}") {
            prop_assume!(!one.eq_ignore_ascii_case(&other));
            let (one, other) = (json_column_name(&one), json_column_name(&other));
            prop_assert!(is_legal(&one) && !one.eq_ignore_ascii_case(&other), "{} {}", one, other);
        }
    }
}
