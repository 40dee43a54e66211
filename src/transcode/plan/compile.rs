//! From a writer type and a table's columns to operations.

use std::sync::Arc;

use crate::{
    printable,
    schema::{
        columns::{ARRAY_ELEMENT, DURATION_FIELDS, MAP_KEY, MAP_VALUE},
        connect::MAP_ENTRY,
        model::{Kind, Logical, RecordType, Type},
        names::{branch_names, column_names},
    },
    table::{Column, ColumnKind, Mode},
    transcode::{
        error::PlanError,
        json_in::names::NameIndex,
        limits::DEPTH_MAX,
        plan::{
            Action, Elements, Entries, Op, Presence, RecordOps, Skip,
            scalar::{bytes_min, decimal_target, scalar},
        },
        writer::{Label, RowWriter},
    },
};

/// The walk over a type and the columns beside it.
#[derive(Debug, Default)]
pub struct Compiler {
    path: Vec<String>,
}

impl Compiler {
    /// The operations of a record's fields for `columns`, and which columns they fill.
    ///
    /// # Errors
    /// When a column is missing or does not fit.
    pub fn fields<W: RowWriter>(
        &mut self,
        record: &RecordType,
        columns: &[Column],
    ) -> Result<(RecordOps, Vec<usize>), PlanError> {
        let mut ops = Vec::with_capacity(record.fields.len());
        let mut filled = Vec::with_capacity(record.fields.len());
        for (field, name) in record.fields.iter().zip(column_names(record)) {
            let op = self.enter(&name, |compiler| match compiler.skip(&field.ty)? {
                Some(skip) => Ok(skip_op(&field.name, skip)),
                None => {
                    let (position, column) = compiler.find(columns, &name)?;
                    filled.push(position);
                    compiler.op::<W>(&field.name, &field.ty, column, number(position))
                }
            })?;
            ops.push(op);
        }
        let names = record.fields.iter().map(|field| Some(Arc::clone(&field.name)));
        let index = NameIndex::new(names);
        let map_entry = &*record.name == MAP_ENTRY;
        Ok((RecordOps { ops: ops.into(), index, map_entry }, filled))
    }

    /// The operation of one field for its column.
    ///
    /// # Errors
    /// When the column does not fit.
    pub fn op<W: RowWriter>(
        &mut self,
        name: &Arc<str>,
        ty: &Type,
        column: &Column,
        number: u32,
    ) -> Result<Op, PlanError> {
        let (presence, inner) = presence(ty);
        let repeated = matches!(inner.kind, Kind::Array(_) | Kind::Map(_));
        let action = match (&column.kind, column.mode) {
            (ColumnKind::Other(_), _) => Action::Refuse,
            (_, mode) if repeated != (mode == Mode::Repeated) => {
                return Err(self.mismatch(ty, column));
            }
            _ => self.action::<W>(inner, column, number)?,
        };
        Ok(Op {
            name: Arc::clone(name),
            label: W::label(&column.name, number, &column.kind),
            presence,
            required: column.mode == Mode::Required,
            action,
        })
    }

    fn action<W: RowWriter>(
        &mut self,
        ty: &Type,
        column: &Column,
        number: u32,
    ) -> Result<Action, PlanError> {
        if let Some(scalar) = scalar(ty, &column.kind) {
            return Ok(Action::Scalar(scalar));
        }
        match (ty.logical, &column.kind) {
            (Some(Logical::Duration), ColumnKind::Record(fields)) => {
                return self.duration::<W>(fields);
            }
            (Some(Logical::VariableScaleDecimal), kind) => {
                if let Some(target) = decimal_target(kind) {
                    return Ok(Action::VariableDecimal(target));
                }
            }
            _ => {}
        }
        match &ty.kind {
            Kind::Record(record) => match &column.kind {
                ColumnKind::Record(fields) => self.record::<W>(record, fields),
                _ => Err(self.mismatch(ty, column)),
            },
            Kind::Array(items) => self.array::<W>(items, column, number),
            Kind::Map(values) => self.map::<W>(values, column),
            Kind::Union(branches) => self.branches::<W>(ty, branches, column),
            _ => Err(self.mismatch(ty, column)),
        }
    }

    fn record<W: RowWriter>(
        &mut self,
        record: &RecordType,
        columns: &[Column],
    ) -> Result<Action, PlanError> {
        let (ops, filled) = self.fields::<W>(record, columns)?;
        self.check_required(columns, &filled)?;
        Ok(Action::Record(ops))
    }

    fn array<W: RowWriter>(
        &mut self,
        items: &Type,
        column: &Column,
        number: u32,
    ) -> Result<Action, PlanError> {
        let (presence, inner) = presence(items);
        let action = if matches!(inner.kind, Kind::Array(_) | Kind::Map(_)) {
            // BigQuery has no array of arrays: a record with one repeated field lies between.
            let ColumnKind::Record(fields) = &column.kind else {
                return Err(self.mismatch(items, column));
            };
            let op = self.enter(ARRAY_ELEMENT, |compiler| {
                let (position, field) = compiler.find(fields, ARRAY_ELEMENT)?;
                compiler.op::<W>(&Arc::from(""), inner, field, self::number(position))
            })?;
            Action::Wrapped(Box::new(op))
        } else {
            self.action::<W>(inner, column, number)?
        };
        let label = W::label(&column.name, number, &column.kind);
        let element = Op { name: Arc::from("[]"), label, presence, required: true, action };
        Ok(Action::Array(Box::new(Elements { element, bytes_min: bytes_min(items, 0) })))
    }

    fn map<W: RowWriter>(&mut self, values: &Type, column: &Column) -> Result<Action, PlanError> {
        let ColumnKind::Record(fields) = &column.kind else {
            return Err(self.mismatch(values, column));
        };
        let key = self.enter(MAP_KEY, |compiler| {
            let (position, key) = compiler.find(fields, MAP_KEY)?;
            if key.kind != ColumnKind::String || key.mode == Mode::Repeated {
                return Err(compiler.mismatch(&Type::plain(Kind::String), key));
            }
            Ok(W::label(&key.name, number(position), &key.kind))
        })?;
        let value = self.enter(MAP_VALUE, |compiler| match compiler.skip(values)? {
            Some(skip) => Ok(skip_op(&Arc::from(""), skip)),
            None => {
                let (position, field) = compiler.find(fields, MAP_VALUE)?;
                compiler.op::<W>(&Arc::from("{}"), values, field, number(position))
            }
        })?;
        let bytes_min = 1 + bytes_min(values, 0);
        Ok(Action::Map(Box::new(Entries { key, value, bytes_min })))
    }

    fn branches<W: RowWriter>(
        &mut self,
        ty: &Type,
        branches: &[Type],
        column: &Column,
    ) -> Result<Action, PlanError> {
        let ColumnKind::Record(fields) = &column.kind else {
            return Err(self.mismatch(ty, column));
        };
        let mut names = branch_names(branches).into_iter();
        let mut ops = Vec::with_capacity(branches.len());
        for branch in branches {
            if branch.kind == Kind::Null {
                ops.push(skip_op(&Arc::from("null"), Skip::Null));
                continue;
            }
            let name = names.next().unwrap_or_default();
            let op = self.enter(&name, |compiler| match compiler.skip(branch)? {
                Some(skip) => Ok(skip_op(&Arc::from(name.as_str()), skip)),
                None => {
                    let (position, field) = compiler.find(fields, &name)?;
                    let name = Arc::from(name.as_str());
                    compiler.op::<W>(&name, branch, field, number(position))
                }
            })?;
            ops.push(op);
        }
        Ok(Action::Branches(ops.into()))
    }

    fn duration<W: RowWriter>(&mut self, fields: &[Column]) -> Result<Action, PlanError> {
        let mut label = |name: &str| -> Result<Label, PlanError> {
            self.enter(name, |compiler| {
                let (position, field) = compiler.find(fields, name)?;
                if field.kind != ColumnKind::Int64 || field.mode == Mode::Repeated {
                    return Err(compiler.mismatch(&Type::plain(Kind::Long), field));
                }
                Ok(W::label(&field.name, number(position), &field.kind))
            })
        };
        let [months, days, milliseconds] = DURATION_FIELDS;
        let labels = [label(months)?, label(days)?, label(milliseconds)?];
        Ok(Action::Duration(Box::new(labels)))
    }

    /// How a type without columns is passed over; `None` if the type has columns.
    fn skip(&mut self, ty: &Type) -> Result<Option<Skip>, PlanError> {
        if let Kind::Recursive(name) = &ty.kind {
            return Err(PlanError::Recursive {
                path: self.path(),
                name: printable::name(name).into_owned(),
            });
        }
        if self.path.len() > DEPTH_MAX {
            return Err(PlanError::TooDeep { path: self.path() });
        }
        Ok(skip(ty, self.path.len()))
    }

    /// Checks that each `REQUIRED` column is among those filled.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check_required(&self, columns: &[Column], filled: &[usize]) -> Result<(), PlanError> {
        for (position, column) in columns.iter().enumerate() {
            if column.mode == Mode::Required && !filled.contains(&position) {
                let path = self.path_of(&column.name);
                return Err(PlanError::RequiredWithoutSource { path });
            }
        }
        Ok(())
    }

    /// Runs `inner` one level deeper.
    pub fn enter<T>(
        &mut self,
        name: &str,
        inner: impl FnOnce(&mut Self) -> Result<T, PlanError>,
    ) -> Result<T, PlanError> {
        self.path.push(name.to_owned());
        let result = inner(self);
        self.path.pop();
        result
    }

    /// The column called `name`, which the path ends with, and its position.
    ///
    /// # Errors
    /// When there is none.
    pub fn find<'c>(
        &self,
        columns: &'c [Column],
        name: &str,
    ) -> Result<(usize, &'c Column), PlanError> {
        columns
            .iter()
            .enumerate()
            .find(|(_, column)| column.name.eq_ignore_ascii_case(name))
            .ok_or_else(|| PlanError::Missing { path: self.path() })
    }

    /// The column at the path's end does not fit `ty`.
    pub fn mismatch(&self, ty: &Type, column: &Column) -> PlanError {
        let mode = match column.mode {
            Mode::Nullable => "",
            Mode::Required => "REQUIRED ",
            Mode::Repeated => "REPEATED ",
        };
        let (_, inner) = presence(ty);
        let wanted = match inner.logical {
            Some(logical) => format!("{} ({logical:?})", inner.kind.name()),
            None => inner.kind.name().to_owned(),
        };
        let actual = format!("{mode}{}", column.kind.name());
        PlanError::Mismatch { path: self.path(), wanted, actual }
    }

    fn path(&self) -> String {
        printable::text(&self.path.join(".")).into_owned()
    }

    fn path_of(&self, name: &str) -> String {
        let path = self.path.iter().map(String::as_str).chain([name]);
        printable::text(&path.collect::<Vec<_>>().join(".")).into_owned()
    }
}

/// A column's protobuf field number: its position from 1.
pub fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX - 1) + 1
}

/// How Avro says whether there is a value of `ty`, and the type of that value: the only branch of a
/// union that is not null, or the type itself.
pub fn presence(ty: &Type) -> (Presence, &Type) {
    let Kind::Union(branches) = &ty.kind else { return (Presence::Always, ty) };
    let null = branches.iter().position(|branch| branch.kind == Kind::Null);
    let mut values = branches.iter().filter(|branch| branch.kind != Kind::Null);
    let union = Presence::Union {
        branches: u32::try_from(branches.len()).unwrap_or(u32::MAX),
        null: null.and_then(|null| u32::try_from(null).ok()),
    };
    match (null, values.next(), values.next(), branches.len()) {
        (Some(null @ 0..=1), Some(only), None, 2) => {
            (Presence::Optional(u8::from(null == 1)), only)
        }
        (_, Some(only), None, _) => (union, only),
        _ => (union, ty),
    }
}

fn skip_op(name: &Arc<str>, skip: Skip) -> Op {
    Op {
        name: Arc::clone(name),
        label: Label::new(b""),
        presence: Presence::Always,
        required: false,
        action: Action::Skip(skip),
    }
}

fn skip(ty: &Type, depth: usize) -> Option<Skip> {
    if ty.logical.is_some() || depth > DEPTH_MAX {
        return None;
    }
    let all = |types: &mut dyn Iterator<Item = &Type>| -> Option<Box<[Skip]>> {
        types.map(|ty| skip(ty, depth + 1)).collect()
    };
    match &ty.kind {
        Kind::Null => Some(Skip::Null),
        Kind::Record(record) => {
            all(&mut record.fields.iter().map(|field| &field.ty)).map(Skip::Record)
        }
        Kind::Array(items) => skip(items, depth + 1).map(|skip| Skip::Array(Box::new(skip))),
        Kind::Union(branches) => all(&mut branches.iter()).map(Skip::Union),
        _ => None,
    }
}
