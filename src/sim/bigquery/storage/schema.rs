//! A writer's schema against the table's columns: what the protobuf fields of a row are.

use std::collections::HashMap;

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::storage_error::StorageErrorCode;
use prost_types::{
    DescriptorProto, FieldDescriptorProto,
    field_descriptor_proto::{Label, Type as Proto},
};

use crate::sim::bigquery::{
    columns::{Column, Mode, Type, find},
    storage::rpc::{Code, RpcError},
};

/// Columns of changes to a table with a primary key, which are none of the table's
/// (<https://docs.cloud.google.com/bigquery/docs/change-data-capture>).
pub const CHANGE_COLUMNS: [&str; 2] = ["_CHANGE_TYPE", "_CHANGE_SEQUENCE_NUMBER"];

/// A row's or a record's fields by their numbers.
#[derive(Clone, Debug)]
pub struct WriterSchema {
    /// The fields.
    pub fields: HashMap<u32, Field>,
    /// Required columns, by their names.
    pub required: Vec<String>,
}

/// One field.
#[derive(Clone, Debug)]
pub struct Field {
    /// The column.
    pub column: Column,
    /// How it stands on the wire.
    pub proto: Proto,
    /// The fields of a record.
    pub record: Option<WriterSchema>,
}

impl WriterSchema {
    /// Fits a descriptor to the columns.
    ///
    /// # Errors
    /// A field has no column or not its type, or a required column has no field. `entity` is the
    /// stream.
    pub fn new(
        descriptor: &DescriptorProto,
        columns: &[Column],
        entity: &str,
    ) -> Result<Self, RpcError> {
        Self::of_record(descriptor, columns, entity, true)
    }

    fn of_record(
        descriptor: &DescriptorProto,
        columns: &[Column],
        entity: &str,
        is_row: bool,
    ) -> Result<Self, RpcError> {
        let mut fields = HashMap::new();
        for field in &descriptor.field {
            let name = field.name();
            let change = || change_column(name).filter(|_| is_row);
            let column = find(columns, name).cloned().or_else(change);
            let column = column.ok_or_else(|| extra_field(name, entity))?;
            let number = u32::try_from(field.number()).unwrap_or_default();
            if fields.insert(number, Field::new(field, column, descriptor, entity)?).is_some() {
                return Err(invalid(format!("Field number {number} is used twice.")));
            }
        }
        let required = columns.iter().filter(|column| column.mode == Mode::Required);
        let required: Vec<String> = required.map(|column| column.name.clone()).collect();
        let missing = |name: &&String| fields.values().all(|field| field.column.name != **name);
        if let Some(name) = required.iter().find(missing) {
            return Err(invalid(format!(
                "The required field {name} is missing from the writer schema. Entity: {entity}"
            )));
        }
        Ok(Self { fields, required })
    }
}

impl Field {
    fn new(
        field: &FieldDescriptorProto,
        column: Column,
        parent: &DescriptorProto,
        entity: &str,
    ) -> Result<Self, RpcError> {
        let (name, proto) = (field.name(), field.r#type());
        let is_repeated = field.label() == Label::Repeated;
        if is_repeated != (column.mode == Mode::Repeated) {
            let (one, other) = if is_repeated { ("", "not ") } else { ("not ", "") };
            return Err(invalid(format!(
                "The field {name} is {one}repeated, but its column is {other}repeated. Entity: {entity}"
            )));
        }
        if !takes(&column.ty, proto) {
            return Err(invalid(format!(
                "The proto field mismatched with BigQuery field at {name}, the proto field type {proto:?}, \
                 BigQuery field type {}. Entity: {entity}",
                column.ty.rest_name()
            )));
        }
        let record = match &column.ty {
            Type::Record(columns) => {
                let nested = nested(field, parent)?;
                Some(WriterSchema::of_record(nested, columns, entity, false)?)
            }
            _ => None,
        };
        Ok(Self { column, proto, record })
    }
}

/// The conversions that the simulator knows of those that BigQuery documents
/// (<https://docs.cloud.google.com/bigquery/docs/supported-data-types>).
fn takes(ty: &Type, proto: Proto) -> bool {
    match ty {
        Type::Bool => proto == Proto::Bool,
        Type::Int64 => is_integer(proto),
        Type::Float64 => matches!(proto, Proto::Double | Proto::Float),
        Type::Decimal { .. } => matches!(proto, Proto::Bytes | Proto::String),
        Type::String(_) | Type::Json | Type::Opaque(_) => proto == Proto::String,
        Type::Bytes(_) => proto == Proto::Bytes,
        Type::Date => matches!(proto, Proto::Int32 | Proto::Int64 | Proto::String),
        Type::Time | Type::DateTime | Type::Timestamp => {
            matches!(proto, Proto::Int64 | Proto::String)
        }
        Type::Record(_) => proto == Proto::Message,
    }
}

fn is_integer(proto: Proto) -> bool {
    matches!(
        proto,
        Proto::Int64
            | Proto::Int32
            | Proto::Uint32
            | Proto::Sint32
            | Proto::Sint64
            | Proto::Fixed32
            | Proto::Sfixed32
            | Proto::Sfixed64
    )
}

/// The message of a record's field: one nested into its own, called `Name` or `.Outer.Name`.
fn nested<'a>(
    field: &FieldDescriptorProto,
    parent: &'a DescriptorProto,
) -> Result<&'a DescriptorProto, RpcError> {
    let name = field.type_name().rsplit('.').next().unwrap_or_default();
    let found = parent.nested_type.iter().find(|nested| nested.name() == name);
    found.ok_or_else(|| {
        invalid(format!("The descriptor is not self-contained: no message {}.", field.type_name()))
    })
}

fn change_column(name: &str) -> Option<Column> {
    CHANGE_COLUMNS.contains(&name).then(|| Column {
        name: name.to_owned(),
        ty: Type::String(None),
        mode: Mode::Nullable,
        has_default: false,
    })
}

fn extra_field(name: &str, entity: &str) -> RpcError {
    invalid(format!("Input schema has more fields than BigQuery schema, extra fields: '{name}'."))
        .about(StorageErrorCode::SchemaMismatchExtraFields, entity)
}

fn invalid(message: String) -> RpcError {
    RpcError::new(Code::InvalidArgument, message)
}
