//! The quick yes to datums that are passed on: never one too many, and none too few for what is common.

use proptest::prelude::*;

use super::{
    avro::datum,
    random::{Dice, physical},
    *,
};
use crate::{
    schema::{arbitrary, columns::top_record},
    transcode::{avro::accept::Acceptor, plan::compile::Compiler, writer::check::CheckedRow},
};

fn acceptor(spec: &RowSpec, ty: &Type) -> Option<Acceptor> {
    let record = top_record(ty).unwrap();
    let columns = wanted(spec).columns;
    let (ops, _) = Compiler::default().fields::<CheckedRow>(record, &columns).unwrap();
    Acceptor::compile(&ops.ops)
}

/// Cuts a datum, lengthens it, or changes some of its bytes.
fn damage(datum: &mut Vec<u8>, dice: &mut Dice) {
    match dice.below(4) {
        0 => datum.truncate(dice.below(datum.len() as u64 + 1) as usize),
        1 => datum.push(dice.below(256) as u8),
        _ => {
            for _ in 0..=dice.below(3) {
                let at = dice.below(datum.len().max(1) as u64) as usize;
                if let Some(byte) = datum.get_mut(at) {
                    *byte = dice.pick_byte();
                }
            }
        }
    }
}

impl Dice {
    /// One that means something to Avro more often than not.
    fn pick_byte(&mut self) -> u8 {
        let telling = [0, 1, 2, 3, 4, 0x7f, 0x80, 0x81, 0xc3, 0xff];
        let at = self.below(2 * telling.len() as u64) as usize;
        telling.get(at).copied().unwrap_or(self.below(256) as u8)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn what_is_accepted_is_what_the_interpreter_takes(ty in arbitrary::record_type(), seed: u64) {
        let ty = Arc::new(ty);
        let spec = bare(ValueSource::Avro(Arc::clone(&ty)));
        let Ok(columns) = spec.columns(&ColumnRules::default()) else { return Ok(()) };
        let plan = plan::<JsonRow>(&spec, &TableSchema { columns });
        let Some(acceptor) = acceptor(&spec, &ty) else { return Ok(()) };
        let mut dice = Dice(seed);
        let (mut bytes, _) = datum(&ty, seed);
        for _ in 0..8 {
            let is_taken = encode(&plan, &record(Some(&bytes))).is_ok();
            prop_assert!(is_taken || !acceptor.accepts(&bytes), "{}", arbitrary::avro_text(&physical(&ty)));
            damage(&mut bytes, &mut dice);
        }
    }
}

/// A record with what is common.
const COMMON: &str = r#"{"type": "record", "name": "R", "fields": [
    {"name": "b", "type": "boolean"},
    {"name": "i", "type": "int"},
    {"name": "l", "type": ["null", "long"]},
    {"name": "f", "type": "float"},
    {"name": "d", "type": ["double", "null"]},
    {"name": "s", "type": "string"},
    {"name": "y", "type": "bytes"},
    {"name": "x", "type": {"type": "fixed", "name": "F", "size": 3}},
    {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
    {"name": "r", "type": ["null", {"type": "record", "name": "S", "fields": [
        {"name": "a", "type": {"type": "array", "items": "string"}},
        {"name": "m", "type": {"type": "map", "values": ["null", "long"]}}]}]},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    {"name": "t", "type": {"type": "int", "logicalType": "time-millis"}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "u", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "n", "type": {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4}}
]}"#;

#[test]
fn what_is_common_is_accepted() {
    let ty = avro(COMMON);
    let spec = bare(ValueSource::Avro(Arc::clone(&ty)));
    let (plan, acceptor) = (plan::<JsonRow>(&spec, &wanted(&spec)), acceptor(&spec, &ty).unwrap());
    let (mut taken, mut accepted) = (0, 0);
    for seed in 0..2_000 {
        let (bytes, _) = datum(&ty, seed);
        taken += u32::from(encode(&plan, &record(Some(&bytes))).is_ok());
        accepted += u32::from(acceptor.accepts(&bytes));
    }
    // Some decimals are longer than those that need no look.
    assert!(accepted * 4 > taken * 3 && taken > 1_000, "{accepted} of {taken}");
}

#[test]
fn numbers_are_accepted_up_to_the_ends_of_their_columns() {
    // Days, milliseconds and microseconds, and the moments that TIMESTAMP ends with.
    let ends = [
        (r#"{"type": "int", "logicalType": "date"}"#, -719_162, 2_932_896),
        (r#"{"type": "int", "logicalType": "time-millis"}"#, 0, 86_399_999),
        (r#"{"type": "long", "logicalType": "time-micros"}"#, 0, 86_399_999_999),
        (
            r#"{"type": "long", "logicalType": "timestamp-millis"}"#,
            -62_135_596_800_000,
            253_402_300_799_999,
        ),
        (
            r#"{"type": "long", "logicalType": "timestamp-micros"}"#,
            -62_135_596_800_000_000,
            253_402_300_799_999_999,
        ),
        (r#""int""#, i32::MIN.into(), i32::MAX.into()),
        (r#""long""#, i64::MIN, i64::MAX),
    ];
    for (field, least, most) in ends {
        let ty = avro(&format!(
            r#"{{"type": "record", "name": "R", "fields": [{{"name": "f", "type": {field}}}]}}"#
        ));
        let spec = bare(ValueSource::Avro(Arc::clone(&ty)));
        let (plan, acceptor) =
            (plan::<JsonRow>(&spec, &wanted(&spec)), acceptor(&spec, &ty).unwrap());
        let taken = |value: i64| {
            let mut bytes = Vec::new();
            crate::transcode::avro::writer::push_long(value, &mut bytes);
            let is_taken = encode(&plan, &record(Some(&bytes))).is_ok();
            assert_eq!(acceptor.accepts(&bytes), is_taken, "{field} {value}");
            is_taken
        };
        assert!(taken(least) && taken(most), "{field}");
        if let (Some(below), Some(above)) = (least.checked_sub(1), most.checked_add(1)) {
            assert!(!taken(below) && !taken(above), "{field}");
        }
    }
}
