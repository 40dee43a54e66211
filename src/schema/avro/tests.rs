use proptest::prelude::*;

use super::*;
use crate::schema::{arbitrary, model::Logical};

const NONE: [&str; 0] = [];

fn parsed(text: &str) -> Type {
    parse(text, &NONE).unwrap()
}

fn fields(ty: &Type) -> &[Field] {
    match &ty.kind {
        Kind::Record(record) => &record.fields,
        kind => panic!("not a record: {kind:?}"),
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(ty in arbitrary::record_type()) {
        let text = arbitrary::avro_text(&ty);
        prop_assert_eq!(&parse(&text, &NONE).unwrap(), &ty, "{}", text);
    }

    #[test]
    fn the_generated_text_is_avro(ty in arbitrary::record_type()) {
        let text = arbitrary::avro_text(&ty);
        let oracle = apache_avro::Schema::parse_str(&text);
        prop_assert!(oracle.is_ok(), "{:?} {}", oracle, text);
    }

    #[test]
    fn no_text_panics(text in "[\\[\\]{}:,\"a-z]{0,40}") {
        let _ = parse(&text, &[&text]);
    }
}
