//! What BigQuery is told of the rows: a protobuf descriptor of the table's columns.
//!
//! A field's number is its column's position from 1, in each record, as
//! [`ProtoRow`](crate::transcode::writer::proto::ProtoRow) writes it. Types as in
//! <https://docs.cloud.google.com/bigquery/docs/supported-data-types>.

use bytes::Bytes;
use prost_types::{
    DescriptorProto, FieldDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use crate::table::{Column, ColumnKind, Mode, TableSchema, find};

/// `ProtoSchema` of the rows of a table, encoded.
pub fn writer_schema(schema: &TableSchema) -> Bytes {
    let row = message("Row".to_owned(), &schema.columns);
    // The descriptor is the schema's only field, number 1.
    let mut encoded = Vec::new();
    prost::encoding::message::encode(1, &row, &mut encoded);
    encoded.into()
}

fn message(name: String, columns: &[Column]) -> DescriptorProto {
    let mut descriptor = DescriptorProto { name: Some(name), ..DescriptorProto::default() };
    for (number, column) in (1..).zip(columns) {
        let Some(kind) = field_type(&column.kind) else { continue };
        let nested = (kind == Type::Message).then(|| nested_name(columns, number));
        if let Some(name) = &nested {
            descriptor.nested_type.push(message(name.clone(), column.fields()));
        }
        descriptor.field.push(FieldDescriptorProto {
            name: Some(column.name.clone()),
            number: Some(number),
            label: Some(label(column.mode).into()),
            r#type: Some(kind.into()),
            type_name: nested,
            ..FieldDescriptorProto::default()
        });
    }
    descriptor
}

/// A record's message is called as no field and no other message beside it is: protobuf has one scope for all.
fn nested_name(columns: &[Column], number: i32) -> String {
    let mut nested = format!("Record{number}");
    while find(columns, &nested).is_some() {
        nested.push('_');
    }
    nested
}

fn label(mode: Mode) -> Label {
    match mode {
        Mode::Nullable => Label::Optional,
        Mode::Required => Label::Required,
        Mode::Repeated => Label::Repeated,
    }
}

/// The type on the wire; `None` for columns that the service does not write.
fn field_type(kind: &ColumnKind) -> Option<Type> {
    Some(match kind {
        ColumnKind::Bool => Type::Bool,
        ColumnKind::Int64 | ColumnKind::Time | ColumnKind::DateTime | ColumnKind::Timestamp => {
            Type::Int64
        }
        ColumnKind::Date => Type::Int32,
        ColumnKind::Float64 => Type::Double,
        ColumnKind::Numeric | ColumnKind::BigNumeric | ColumnKind::Bytes => Type::Bytes,
        ColumnKind::String | ColumnKind::Json | ColumnKind::Geography => Type::String,
        ColumnKind::Record(_) => Type::Message,
        ColumnKind::Other(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn decoded(columns: Vec<Column>) -> DescriptorProto {
        let encoded = writer_schema(&TableSchema { columns });
        let mut left = &encoded[..];
        let (number, wire) = prost::encoding::decode_key(&mut left).unwrap();
        assert_eq!((number, wire), (1, prost::encoding::WireType::LengthDelimited));
        DescriptorProto::decode_length_delimited(left).unwrap()
    }

    fn fields(descriptor: &DescriptorProto) -> Vec<(&str, i32, Type, Label)> {
        let field = |field: &'_ FieldDescriptorProto| -> (i32, Type, Label) {
            (field.number(), field.r#type(), field.label())
        };
        let named = descriptor.field.iter().map(|it| {
            let (number, ty, label) = field(it);
            (it.name(), number, ty, label)
        });
        named.collect()
    }

    #[test]
    fn numbers_are_the_columns_positions_whatever_is_left_out() {
        let range = ColumnKind::Other("RANGE".to_owned());
        let row = decoded(vec![
            Column::new("id", ColumnKind::Int64).with_mode(Mode::Required),
            Column::new("span", range),
            Column::new("at", ColumnKind::Timestamp),
            Column::new("tags", ColumnKind::String).with_mode(Mode::Repeated),
            Column::new("price", ColumnKind::Numeric),
            Column::new("day", ColumnKind::Date),
        ]);
        let expected = [
            ("id", 1, Type::Int64, Label::Required),
            ("at", 3, Type::Int64, Label::Optional),
            ("tags", 4, Type::String, Label::Repeated),
            ("price", 5, Type::Bytes, Label::Optional),
            ("day", 6, Type::Int32, Label::Optional),
        ];
        assert_eq!(fields(&row), expected);
    }

    #[test]
    fn records_are_messages_inside_of_the_row_and_called_as_no_column_is() {
        let record = |fields| ColumnKind::Record(fields);
        let inner = vec![Column::new("x", ColumnKind::Bool)];
        let row = decoded(vec![
            Column::new("a", record(vec![Column::new("b", record(inner))])),
            Column::new("record1", ColumnKind::Json),
        ]);
        let [a] = &row.nested_type[..] else { panic!("{row:?}") };
        assert_eq!((a.name(), row.field[0].type_name()), ("Record1_", "Record1_"));
        let [b] = &a.nested_type[..] else { panic!("{a:?}") };
        assert_eq!((b.name(), a.field[0].type_name()), ("Record1", "Record1"));
        assert_eq!(fields(b), [("x", 1, Type::Bool, Label::Optional)]);
    }
}
